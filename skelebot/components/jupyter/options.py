"""Which Jupyter server is asked for, by the settings and on the command line."""

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skelebot.errors import UsageError
from skelebot.model import Project
from skelebot.options import Values

if TYPE_CHECKING:
    from skelebot.components.jupyter import Jupyter


@dataclass(frozen=True)
class ServerOptions:
    """bind: the address of this machine to listen on. folder: relative to the project's root."""

    port: int
    bind: str
    folder: str
    lab: bool
    open_browser: bool

    @property
    def module(self) -> str:
        return "jupyterlab" if self.lab else "notebook"

    @property
    def host(self) -> str:
        """The address at which this machine reaches the server."""
        address = ipaddress.ip_address(self.bind)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "::1"
        return self.bind


def joined(host: str, port: int) -> str:
    """An address and a port, as in 127.0.0.1:8888 or [::1]:8888."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(settings: "Jupyter", project: Project, values: Values) -> ServerOptions:
    """The options that the values of a command line give. Raises UsageError."""
    return ServerOptions(
        _port(str(values.get("port", settings.port))),
        _address(str(values.get("bind", "127.0.0.1"))),
        _folder(project, str(values.get("folder", settings.folder))),
        bool(values.get("lab", settings.lab)),
        bool(values.get("open")),
    )


def _port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65535:
        raise UsageError(f"jupyter: --port: expected a port from 1 to 65535, found {text!r}")
    return int(text)


def _address(text: str) -> str:
    try:
        # Neither a browser nor an engine takes an address with a zone, as in fe80::1%eth0.
        return str(ipaddress.ip_address("" if "%" in text else text.strip("[]")))
    except ValueError:
        expected = "an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them"
        raise UsageError(f"jupyter: --bind: expected {expected}; found {text!r}") from None


def _folder(project: Project, text: str) -> str:
    root = os.path.realpath(project.root)
    inside = os.path.relpath(os.path.realpath(os.path.join(root, text)), root)
    if inside.split(os.sep)[0] == os.pardir:
        raise UsageError(f"jupyter: the folder {text} is outside the project; name one inside")
    if not os.path.isdir(os.path.join(root, inside)):
        raise UsageError(f"jupyter: there is no folder {text} in {project.root}; create it first")
    return inside
