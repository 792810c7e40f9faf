"""What the command `jupyter` does: it runs a server on the first port that it gets."""

from dataclasses import replace
from typing import TYPE_CHECKING

from skelebot import console, launch
from skelebot.component import Session
from skelebot.components.jupyter import options as requested
from skelebot.components.jupyter.options import joined
from skelebot.components.jupyter.ports import free_ports
from skelebot.components.jupyter.server import Server
from skelebot.components.jupyter.task import image_and_task, own_options
from skelebot.errors import SkelebotError
from skelebot.model import Image, Task
from skelebot.options import Values
from skelebot.process import Streams, on_lines

if TYPE_CHECKING:
    from skelebot.components.jupyter import Jupyter

# The exit codes of a server that was asked to stop, and Skelebot's own: Ctrl-C is the way to stop it.
_STOPPED = {130: 0, 143: 143, 129: 129}


def check(settings: "Jupyter", session: Session, values: Values) -> None:
    """Raise UsageError or ConfigError for what would keep Jupyter from running."""
    image, task = image_and_task(settings, session, requested.parse(settings, session.project, values))
    launch.check(session, image, task)


def run(settings: "Jupyter", session: Session, values: Values) -> int:
    """Run Jupyter until it is asked to stop. Raises SkelebotError if it ends before."""
    options = requested.parse(settings, session.project, values)
    launch.fetch_dependencies(session)
    if session.flags.dry_run:
        return launch.start(session, *image_and_task(settings, session, options))
    # Somebody else may take a port that was free while the image was being built.
    for port in free_ports(options.bind, options.port):
        if port != options.port:
            console.info(f"port {options.port} is in use; Jupyter uses {port}")
        current = replace(options, port=port)
        image, task = image_and_task(settings, session, current)
        native = task.place.is_native
        own = own_options(current, native)
        server = Server(current, joined(own.bind, own.port), native, session.flags.verbose)
        code = _serve(session, image, task, server)
        if code is not None:
            return code
    raise SkelebotError(f"port {options.port} and the next 99 are in use; choose another with --port")


def _serve(session: Session, image: Image, task: Task, server: Server) -> int | None:
    """Run a server until it ends and give its exit code; None if its port was taken meanwhile."""
    output = on_lines(server.on_line)
    try:
        code = launch.start(session, image, task, Streams(f"{server.token}\n".encode(), output, output))
        failure = SkelebotError(f"Jupyter ended {server.when} (exit code {code}): {server.last_line}")
    except SkelebotError as error:
        code, failure = None, error
    finally:
        server.end()
    if server.problem:
        server.show_output()
        raise SkelebotError(server.problem)
    if code in _STOPPED or (code == 0 and server.has_answered):
        return _STOPPED.get(code, code)
    if server.failed_for_its_port():
        return None
    server.show_output()
    raise failure
