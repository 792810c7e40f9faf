"""A Jupyter server that runs: what it prints, where it listens, and whether it answers there."""

import http.client
import os
import re
import secrets
import signal
import ssl
import tempfile
import threading
import time
import webbrowser
from collections import deque
from typing import IO, TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from skelebot import console
from skelebot.components.jupyter.options import ServerOptions, joined
from skelebot.components.jupyter.ports import is_taken
from skelebot.errors import SkelebotError

if TYPE_CHECKING:
    import psutil

_PATIENCE = 30.0
_REPEAT = 5.0  # seconds after which a request to stop is repeated
_SHOWN = 12  # lines of its output that are shown when it fails

# Lines that start_server.py prints.
_BEGUN = "starting Jupyter"
_LOCATED = "Jupyter listens: "


class Server:
    """A server with its own token.

    problem: why it had to be stopped. address: the host and port that it has to listen on itself.
    patience: the seconds that it has to say where it listens, and then to answer there.
    on_line and what follows from it run in other threads.
    """

    def __init__(
        self, options: ServerOptions, address: str, native: bool, verbose: bool, patience: float = _PATIENCE
    ) -> None:
        self.options = options
        self.token = secrets.token_hex(24)
        self.has_answered = False
        self.problem: str | None = None
        self._address, self._native, self._verbose, self._patience = address, native, verbose, patience
        self._output: deque[str] = deque(maxlen=_SHOWN)
        self._location: SplitResult | None = None
        self._located, self._over = threading.Event(), threading.Event()
        self._page: IO[str] | None = None
        self._watching = threading.Thread(target=self._watch, daemon=True)

    # --- its output and its end ---

    @property
    def when(self) -> str:
        return "by itself" if self.has_answered else "before it answered"

    @property
    def last_line(self) -> str:
        return self._output[-1].removeprefix("ERROR | ") if self._output else "no output"

    def on_line(self, line: str) -> None:
        """Take a line of its output."""
        if self._verbose:
            console.detail(line)
        if not line.strip():
            return
        self._output.append(line)
        if line == _BEGUN and not self._watching.ident:
            self._watching.start()
        if line.startswith(_LOCATED):
            self._location = urlsplit(line.removeprefix(_LOCATED))
            self._located.set()

    def failed_for_its_port(self) -> bool:
        """Whether it failed because its port was taken, according to its output or to the port."""
        if self.has_answered or not self._output:
            return False
        reported = re.search(
            "already (in use|allocated)|port [0-9]+ is not available", "\n".join(self._output)
        )
        return bool(reported) or is_taken(self.options.bind, self.options.port)

    def end(self) -> None:
        self._over.set()
        self._located.set()
        if self._watching.ident:
            self._watching.join()
        if self._page:
            self._page.close()

    def show_output(self) -> None:
        """Show the end of its output, but for the last line, which the error holds."""
        if not self._verbose:
            for line in list(self._output)[:-1]:
                console.detail(line)

    # --- from its first line to its address ---

    def _watch(self) -> None:
        try:
            if self._await_answer():
                self.has_answered = True
                self._announce()
        except (OSError, SkelebotError) as error:
            self.problem = str(error)
            self._request_stop()

    def _await_answer(self) -> bool:
        """Wait until it answers; False if it ends before. Raises SkelebotError where it never will."""
        if not self._located.wait(self._patience):
            console.warn(f"Jupyter does not answer yet; -V shows its output; last line: {self.last_line}")
            self._located.wait()
        deadline = time.monotonic() + self._patience
        while not self._over.wait(0.1):
            if self._answers():
                return True
            if time.monotonic() > deadline:
                raise SkelebotError(
                    f"Jupyter does not answer at {self._url('')}; check its configuration, "
                    "for example ssl_options or client_ca"
                )
        return False

    def _answers(self) -> bool:
        """Whether it answers its token. Raises SkelebotError for another address or answer than expected."""
        found = self._location.netloc if self._location else ""
        if found != self._address:
            raise SkelebotError(
                f"Jupyter was stopped because it listens on {found} instead of {self._address}; "
                "remove `ip` and `port` from its configuration (`jupyter --paths` shows where it is)"
            )
        status = self._status(self.token)
        if not status or not self._holds_its_port():
            return False
        if status != 200:
            raise SkelebotError(
                f"Jupyter was stopped because it refuses its own token (HTTP {status}); check its "
                "configuration for what denies access"
            )
        return True

    def _holds_its_port(self) -> bool:
        """Whether it is this server that has the port."""
        if not self._native:
            return True  # the engine takes a port before the container starts
        import psutil  # only for Jupyter without a container

        return any(_listens(child, self.options.port) for child in psutil.Process().children(recursive=True))

    def _status(self, token: str) -> int:
        """The HTTP status of its answer to a token; 0 without an answer."""
        url = urlsplit(self._url("api/status"))
        connection = http.client.HTTPConnection(self.options.host, self.options.port, timeout=2)
        if url.scheme == "https":
            connection = _secure_connection(self.options.host, self.options.port)
        try:
            connection.request("GET", url.path, headers={"Authorization": f"token {token}"})
            return connection.getresponse().status
        except (OSError, ValueError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _announce(self) -> None:
        if self._status("") == 200:
            raise SkelebotError(
                "Jupyter was stopped because it lets everyone in; remove the empty token from its "
                "configuration"
            )
        url = self._url(f"{'lab' if self.options.lab else 'tree'}?token={self.token}")
        console.out(url)
        console.info("Ctrl-C stops Jupyter")
        if self.options.open_browser:
            self._open(url)

    def _request_stop(self) -> None:
        """Ask it to stop, again where nothing happens: Jupyter misses a signal that comes while it logs."""
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            if self._over.wait(_REPEAT):
                return

    def _url(self, path: str) -> str:
        """The URL of a page, with the address by which this machine reaches the server."""
        assert self._location
        host = joined(self.options.host, self.options.port)
        return f"{self._location.scheme}://{host}{self._location.path}{path}"

    def _open(self, url: str) -> None:
        """Open a page that leads to the URL, whose token would otherwise be among the browser's arguments."""
        self._page = tempfile.NamedTemporaryFile("w", suffix=".html")  # noqa: SIM115 - `end` closes it
        self._page.write(f'<meta http-equiv="refresh" content="0; url={url}">\n')
        self._page.flush()
        if not webbrowser.open(f"file://{self._page.name}"):
            console.warn("no browser could be opened; open the address above yourself")


def _secure_connection(host: str, port: int) -> http.client.HTTPSConnection:
    """A connection on this machine, for which the certificate need not be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=2, context=context)


def _listens(process: "psutil.Process", port: int) -> bool:
    """Whether a process listens on the port, as far as the system tells."""
    import psutil

    try:
        connections = process.net_connections("tcp")
    except psutil.Error as error:
        return isinstance(error, psutil.AccessDenied)  # without an answer, the process is believed
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)
