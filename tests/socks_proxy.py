"""A small SOCKS5 proxy on loopback, which takes every connection to one port of this machine.

https://www.rfc-editor.org/rfc/rfc1928
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """asked: the hosts that clients have named."""

    def __init__(self, target: int) -> None:
        self._target, self.asked = target, list[str]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, near.makefile("rb") as words, suppress(OSError, IndexError):
            words.read(words.read(2)[1])
            near.sendall(b"\x05\x00")  # no login
            words.read(4)
            self.asked.append(words.read(words.read(1)[0]).decode())
            words.read(2)
            with socket.create_connection(("127.0.0.1", self._target)) as far:
                near.sendall(b"\x05\x00\x00\x01" + bytes(6))
                threading.Thread(target=_copy, args=(far, near), daemon=True).start()
                _copy(near, far)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def socks_proxy(target: int) -> Iterator[Proxy]:
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
