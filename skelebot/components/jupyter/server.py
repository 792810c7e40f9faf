"""A Jupyter server: what is asked for, what it needs, and watching it from its first line to its end."""

import errno
import http.client
import ipaddress
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
import time
import webbrowser
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from skelebot import console, launch, runners
from skelebot.component import Session
from skelebot.errors import SkelebotError, UsageError
from skelebot.image import ignores
from skelebot.model import Image, Job, Mount, Project, Task
from skelebot.options import Values
from skelebot.process import Streams, on_lines
from skelebot.project import plan
from skelebot.runners.docker.client import Client

if TYPE_CHECKING:
    import psutil

    from skelebot.components.jupyter import Jupyter

_PACKAGE = "notebook"  # brings JupyterLab along: one image and one environment serve for both
_INSIDE = 8888  # the port within a container, of which each has its own
_ATTEMPTS = 100  # ports that are tried
_PATIENCE = 30.0  # seconds without an answer after which that is said
_AGAIN = 5.0  # seconds after which it is asked once more to end
_LAST = 12  # lines of its output that are shown where it fails

# Exit codes of a server that was asked to stop, and what Skelebot makes of them. Ctrl-C is the way to do it.
_STOPPED = {130: 0, 143: 143, 129: 129}

_BEGUN = "starting Jupyter"

# Reads the token from stdin, as arguments and a container's settings can be read by others. Modules are
# not looked for in the project, where one may have the name of one of Jupyter's. Ctrl-C becomes SIGTERM:
# on SIGINT Jupyter would leave without waiting for its kernels and for files that are being written.
_LAUNCHER = f"""\
import sys
sys.path[:] = filter(None, sys.path)
import importlib.util, os, runpy, signal
print("{_BEGUN}", file=sys.stderr, flush=True)
signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
os.environ["JUPYTER_TOKEN"] = token = sys.stdin.readline().strip()
if not token:
    sys.exit("no token has come for Jupyter, which would let everyone in")
sys.argv = [*sys.argv[1:], "--IdentityProvider.token=" + token]
if importlib.util.find_spec(sys.argv[0]) is None:
    sys.exit("this Python has no " + sys.argv[0] + "; install it there")
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Wanted:
    """What is asked for, by the settings and on the command line. folder: from the project root."""

    port: int
    bind: str
    folder: str
    lab: bool
    open: bool

    @property
    def module(self) -> str:
        return "jupyterlab" if self.lab else "notebook"

    @property
    def host(self) -> str:
        """The address as a part of others, by which this machine reaches the server."""
        address = ipaddress.ip_address(self.bind)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "[::1]"
        return bracketed(self.bind)


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def check(settings: "Jupyter", session: Session, values: Values) -> None:
    """Raises UsageError or ConfigError for what would keep Jupyter from running."""
    image, task = _prepare(settings, session, _wanted(settings, session, values))
    runners.choose(task, session.flags).check(image, task)


def run(settings: "Jupyter", session: Session, values: Values) -> int:
    """Runs Jupyter until it is asked to stop. Raises SkelebotError where it ends before."""
    wanted = _wanted(settings, session, values)
    launch.fetch_dependencies(session)
    if session.flags.dry_run:
        return launch.start(session, *_prepare(settings, session, wanted))
    for free in _free(wanted):
        image, task = _prepare(settings, session, free)
        server = Server(free, runners.is_native(task, session.flags), session.flags.verbose)
        code = _serve(session, image, task, server)
        if code is not None:
            return code
    raise SkelebotError(
        f"port {wanted.port} is taken, and all after it that were tried; name another (--port)"
    )


# --- what is asked for ---


def _wanted(settings: "Jupyter", session: Session, values: Values) -> Wanted:
    project = session.project
    return Wanted(
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
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        expected = "an address of this machine, as in 127.0.0.1, or 0.0.0.0 for all of them"
        raise UsageError(f"jupyter: --bind: expected {expected}; found {text!r}") from None


def _folder(project: Project, text: str) -> str:
    root = os.path.realpath(project.root)
    inside = os.path.relpath(os.path.realpath(os.path.join(root, text)), root)
    if inside.split(os.sep)[0] == os.pardir:
        raise UsageError(f"jupyter: the folder {text} is outside of the project; name one inside")
    if not os.path.isdir(os.path.join(root, inside)):
        raise UsageError(f"jupyter: there is no folder {text} in {project.root}; make it first")
    return inside


# --- what it needs ---


def _prepare(settings: "Jupyter", session: Session, wanted: Wanted) -> tuple[Image, Task]:
    """What to build and what to run."""
    project = session.project
    if "Python" not in project.language:
        raise UsageError(f"jupyter: it needs Python, which `language: {project.language}` leaves out")
    task = _task(settings, session, project)
    added = () if _has_jupyter(task.dependencies, wanted.lab) else (_PACKAGE,)
    if runners.is_native(task, session.flags):
        image = Image(project.image, project.name, base="", context=project.root)
        return image, launch.amended(session, _native(task, wanted, added))
    _refuse_remote(task.host)
    port = f"{bracketed(wanted.bind)}:{wanted.port}:{_INSIDE}"
    argv = _argv(wanted, "0.0.0.0", _INSIDE, plan.WORKDIR)  # noqa: S104 - of the container
    amended = launch.amended(session, replace(task, argv=argv))
    # Not the root's ports: they are the jobs', of which one may be running.
    return _image(session, project, added), replace(amended, ports=(port,))


def _task(settings: "Jupyter", session: Session, project: Project) -> Task:
    job = Job("jupyter", "jupyter", "jupyter", environment=settings.environment)
    further = (plan.mount(project.root, text) for text in settings.mappings)
    return replace(
        launch.tool(session, "jupyter"),
        mounts=(Mount(project.root, plan.WORKDIR), *further),
        env=plan.environment(project, job, os.environ),
        user=project.user or "caller",  # notebooks are the caller's as soon as they are saved
        # Of a Dockerfile of the user's own it is not known which files it makes use of.
        shadowed=() if project.dockerfile else ("",),
    )


def _has_jupyter(dependencies: Iterable[str], lab: bool) -> bool:
    """Whether one of the entries names what is wanted, or what brings it along."""
    named = (re.match(r"\s*([\w.-]*)", entry) for entry in dependencies)
    enough = {_PACKAGE, "jupyter", *(["jupyterlab"] if lab else [])}
    return bool(enough & {match[1].lower() for match in named if match})


def _native(task: Task, wanted: Wanted, added: tuple[str, ...]) -> Task:
    """The task outside of a container; where Jupyter has to be added, in an environment of its own."""
    task = replace(task, argv=_argv(wanted, wanted.bind, wanted.port, task.root))
    return replace(task, dependencies=(*task.dependencies, *added), venv="venv-jupyter") if added else task


def _argv(wanted: Wanted, address: str, port: int, root: str) -> tuple[str, ...]:
    folder = os.path.normpath(os.path.join(root, wanted.folder))
    where = (f"--ip={address}", f"--port={port}", "--port-retries=0", f"--notebook-dir={folder}")
    return ("python", "-c", _LAUNCHER, wanted.module, *where, "--no-browser", "--allow-root")


def _image(session: Session, project: Project, added: tuple[str, ...]) -> Image:
    """The project's image; where Jupyter has to be added, another one that shares its layers."""
    if not added or project.dockerfile:
        return launch.image(session)
    image = launch.image(session, also=added)
    # The project folder is mapped, so that its files are in the image for its commands at most.
    kept = (f"!{ignores.literal(path)}" for path in image.copied)
    unseen = () if project.commands else ("*", *kept)
    tag = f"{project.image}:jupyter"
    return replace(image, tag=tag, ignores=(*image.ignores, *unseen), ephemeral=True)


def _refuse_remote(host: str | None) -> None:
    client = Client(host)
    if client.is_remote:
        raise UsageError(
            f"jupyter: the engine at {client.where} does not see this project folder, which keeps notebooks; "
            "log in there with `ssh -L 8888:127.0.0.1:8888`, or take this machine with -d default or -n"
        )


def _free(wanted: Wanted) -> Iterator[Wanted]:
    """What is wanted, at each port from that one on which is free; a change is said."""
    for port in range(wanted.port, min(wanted.port + _ATTEMPTS, 65536)):
        if not _is_taken(wanted.bind, port):
            if port != wanted.port:
                console.info(f"port {wanted.port} is taken; Jupyter goes to {port}")
            yield replace(wanted, port=port)


def _is_taken(bind: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET) as probe:
        # As servers do it: connections that have ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(f"jupyter: --bind: {bind} is no address of this machine") from None
            return error.errno == errno.EADDRINUSE  # what else there is, the engine may not mind
    return False


# --- while it runs ---


def _serve(session: Session, image: Image, task: Task, server: "Server") -> int | None:
    """Runs a server to its end, and gives the exit code; None where its port was taken meanwhile."""
    try:
        code = launch.start(
            session,
            image,
            task,
            Streams(f"{server.token}\n".encode(), on_lines(server.hear), on_lines(server.hear)),
        )
        failure = SkelebotError(f"Jupyter ended {server.when} (exit code {code}): {server.last}")
    except SkelebotError as error:
        code, failure = None, error
    finally:
        server.end()
    if server.problem:
        server.show_last()
        raise SkelebotError(server.problem)
    if code is not None and (code == 0 or code in _STOPPED):
        return _STOPPED.get(code, 0)
    if server.found_its_port_taken():
        return None
    server.show_last()
    raise failure


def _listens(process: "psutil.Process", port: int) -> bool:
    """Whether a process has the port, as far as that can be told."""
    import psutil

    try:
        found = process.net_connections("tcp")
    except psutil.Error as error:
        return isinstance(error, psutil.AccessDenied)  # what the system does not tell is believed
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)


class Server:
    """A server that runs, on its token: what it says, and whether it answers.

    problem: why it had to be stopped. Its methods are called by threads of their own, but for `end`.
    """

    def __init__(self, wanted: Wanted, native: bool, verbose: bool) -> None:
        self.wanted = wanted
        self.native = native
        self.token = secrets.token_hex(24)
        self.said: deque[str] = deque(maxlen=_LAST)
        self.has_answered = False
        self.problem: str | None = None
        self._verbose = verbose
        self._over = threading.Event()
        self._page: IO[str] | None = None
        self._waiting = threading.Thread(target=self._wait_for_answer, daemon=True)

    @property
    def when(self) -> str:
        return "by itself" if self.has_answered else "before it answered"

    @property
    def last(self) -> str:
        return self.said[-1].removeprefix("ERROR | ") if self.said else "it said nothing"

    def hear(self, line: str) -> None:
        """Takes a line of its output."""
        if self._verbose:
            console.detail(line)
        if not line.strip():
            return
        self.said.append(line)
        if line == _BEGUN and not self._waiting.ident:
            self._waiting.start()

    def found_its_port_taken(self) -> bool:
        """Whether it failed for the port, as it says or as the port is."""
        if self.has_answered or not self.said:
            return False
        told = re.search("already (in use|allocated)|port [0-9]+ is not available", "\n".join(self.said))
        return bool(told) or _is_taken(self.wanted.bind, self.wanted.port)

    def end(self) -> None:
        self._over.set()
        if self._waiting.ident:
            self._waiting.join()
        if self._page:
            self._page.close()

    def show_last(self) -> None:
        """Shows what it said last, but for the line that the error holds."""
        if not self._verbose:
            for line in list(self.said)[:-1]:
                console.detail(line)

    def _wait_for_answer(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(0.1):
            if self._status(self.token) == 200 and self._is_the_one_that_answers():
                self.has_answered = True
                self._announce()
                return
            if begun and time.monotonic() - begun > _PATIENCE:
                begun = 0
                console.warn(f"Jupyter does not answer yet; -V shows what it says, last: {self.last}")

    def _is_the_one_that_answers(self) -> bool:
        """Whether it is this one that has the port. For a container, the engine takes it beforehand."""
        if not self.native:
            return True
        import psutil  # only for Jupyter without a container

        return any(_listens(child, self.wanted.port) for child in psutil.Process().children(recursive=True))

    def _status(self, token: str) -> int:
        """What it answers to who shows a token; 0 for nothing."""
        connection = http.client.HTTPConnection(self.wanted.host, self.wanted.port, timeout=2)
        try:
            connection.request("GET", "/api/status", headers={"Authorization": f"token {token}"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _announce(self) -> None:
        try:
            if self._status("") == 200:
                raise SkelebotError(
                    "Jupyter lets everyone in, and was stopped; remove the empty token from its configuration"
                )
            console.out(self._url())
            console.info("Ctrl-C stops Jupyter")
            if self.wanted.open:
                self._open()
        except (OSError, SkelebotError) as error:
            self.problem = str(error)
            self._ask_for_the_end()

    def _ask_for_the_end(self) -> None:
        """As anyone else would: again where nothing happens, as Jupyter misses a signal while it logs."""
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            if self._over.wait(_AGAIN):
                return

    def _url(self) -> str:
        page = "lab" if self.wanted.lab else "tree"
        return f"http://{self.wanted.host}:{self.wanted.port}/{page}?token={self.token}"

    def _open(self) -> None:
        """Opens a page that leads to the address, whose token would else stand in the browser's arguments."""
        self._page = tempfile.NamedTemporaryFile("w", suffix=".html")  # noqa: SIM115 - `end` closes it
        self._page.write(f'<meta http-equiv="refresh" content="0; url={self._url()}">\n')
        self._page.flush()
        if not webbrowser.open(f"file://{self._page.name}"):
            console.warn("no browser can be opened here; give one the address above")
