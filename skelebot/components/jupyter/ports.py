"""Which ports of this machine are free."""

import errno
import socket
from collections.abc import Iterator

from skelebot.errors import UsageError

_ATTEMPTS = 100


def free_ports(address: str, first: int) -> Iterator[int]:
    """The free ports of an address among the first hundred from that one on."""
    return (port for port in range(first, min(first + _ATTEMPTS, 65536)) if not is_taken(address, port))


def is_taken(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        # As servers do: connections that have ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(
                    f"jupyter: --bind: {address} is not an address of this machine; `ip address` lists them"
                ) from None
            return error.errno == errno.EADDRINUSE  # other errors may not concern the engine
    return False
