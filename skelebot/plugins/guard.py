"""Use a plugin without being broken by it.

Whatever breaks in a plugin stays with it: it is reported in one line, the plugin is switched off, and
everything else goes on.
"""

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import NoReturn, TypeVar

from skelebot import console, options
from skelebot.component import Activation, Check, Command, Component, Link, Session
from skelebot.errors import Interrupted, SkelebotError
from skelebot.model import Image, Project, Task
from skelebot.options import Values
from skelebot.plugins import idle, limit
from skelebot.plugins.find import Plugin
from skelebot.plugins.limit import OutOfTime, time_limit
from skelebot.plugins.load import load
from skelebot.plugins.typecheck import instance_of, list_of

T = TypeVar("T")

GRACE = 5.0  # seconds for a plugin's threads to end after the command


class Guard:
    """What a run knows of a plugin.

    off: why it is not active; clashes: whether a name of it is taken; seconds: the limit for each hook.
    """

    def __init__(self, plugin: Plugin, off: str | None = None, seconds: float = limit.SECONDS) -> None:
        self.plugin, self.off, self.clashes, self._seconds = plugin, off, False, seconds
        self._class: type[Component] | None = None

    def is_idle(self) -> bool:
        """Whether an earlier run found that the plugin is active only if configured."""
        return idle.is_idle(self.plugin)

    def load(self) -> type[Component] | None:
        """The plugin's class, imported once; None where that fails."""
        if self._class is None:
            self._class = self.attempt("its import", lambda: load(self.plugin), None)
            if self._class and self._class.activation is Activation.CONFIGURED:
                idle.remember(self.plugin, self._class)
        return self._class

    def attempt(self, hook: str, call: Callable[[], T], default: T, may_refuse: bool = False) -> T:
        """What `call` returns; `default` where it breaks, which switches the plugin off.

        may_refuse: let a SkelebotError pass, as the plugin's answer.
        """
        if self.off is not None:
            return default
        try:
            with (
                _stdout_to_stderr(),
                _exit_raises(),
                time_limit(f"{hook} of the plugin {self.plugin.name}", self._seconds),
            ):
                return call()
        except Interrupted:
            raise
        except OutOfTime as error:
            seconds = console.counted(self._seconds, "second")
            self.switch_off(f"{hook} has not ended after {seconds}{_raised_at(error)}")
            return default
        except BaseException as error:
            if may_refuse and isinstance(error, SkelebotError):
                raise self.named(error) from None
            self.switch_off(summary(error))
            return default

    def clash(self, why: str) -> None:
        self.clashes = True
        self.switch_off(why)

    def switch_off(self, why: str) -> None:
        self.off = why
        console.warn(f"the plugin {self.plugin.name} is switched off for this run: {why}")

    def named(self, error: BaseException) -> SkelebotError:
        """The error of a command or a refusal, with the plugin's name."""
        if not isinstance(error, SkelebotError):
            return SkelebotError(f"plugin {self.plugin.name}: {summary(error)}")
        text = str(error).replace("\n", "; ")
        named = SkelebotError(f"plugin {self.plugin.name}: {text}")
        named.code = error.code
        return named


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send what a plugin and its programs print to stderr: stdout belongs to the job."""
    if sys.stdout is None:  # it was closed from the start, and another file may have its number
        yield
        return
    sys.stdout.flush()
    stdout = os.dup(1)
    try:
        with suppress(OSError):  # where stderr is closed
            os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


@contextmanager
def _exit_raises() -> Iterator[None]:
    """Let `os._exit` raise SystemExit, unless in a process that the plugin has forked."""
    exit_process, own = os._exit, os.getpid()

    def raise_exit(status: int) -> NoReturn:
        if os.getpid() != own:
            exit_process(status)
        raise SystemExit(status)

    os._exit = raise_exit
    try:
        yield
    finally:
        os._exit = exit_process


def end_in_time(code: int) -> None:
    """Have the process end with this code even if a plugin's thread never ends."""

    def names() -> list[str]:
        threads = threading.enumerate()
        return [each.name for each in threads if not each.daemon and each is not threading.main_thread()]

    def end() -> None:
        time.sleep(GRACE)
        console.warn(f"ended without waiting for the threads of a plugin: {', '.join(names())}")
        os._exit(code)

    if names():
        threading.Thread(target=end, daemon=True).start()


def summary(error: BaseException) -> str:
    """An exception in one line: its type, its text, and the plugin's line that raised it."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    text = text if len(text) < 500 else f"{text[:500]}..."
    return ": ".join(filter(None, [type(error).__name__, text])) + _raised_at(error)


def _raised_at(error: BaseException) -> str:
    """The innermost line of the file in which the traceback leaves Skelebot."""
    ours = (os.path.dirname(__file__), os.path.dirname(importlib.__file__), "<")
    lines, trace = [], error.__traceback__
    while trace:
        lines.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    outside = [(file, line) for file, line in lines if not file.startswith(ours)]
    inside = [line for file, line in outside if file == outside[0][0]]
    return f" ({'/'.join(outside[0][0].split(os.sep)[-2:])}:{inside[-1]})" if inside else ""


class Guarded(Component):
    """A plugin's component as the rest of Skelebot sees it; it cannot break anything."""

    def __init__(self, component: Component, guard: Guard) -> None:
        self._component, self.guard = component, guard

    def commands(self, project: Project | None) -> Iterable[Command]:
        def call() -> list[Command]:
            found = list_of(self._component.commands(project), Command)
            return [_guarded(_usable(command), self.guard) for command in found]

        return self.guard.attempt("commands", call, [])

    def image(self, image: Image, project: Project) -> Image:
        def call() -> Image:
            return instance_of(self._component.image(image, project), Image)

        return self.guard.attempt("image", call, image, may_refuse=True)

    def task(self, task: Task, project: Project) -> Task:
        def call() -> Task:
            return instance_of(self._component.task(task, project), Task)

        return self.guard.attempt("task", call, task, may_refuse=True)

    def checks(self, session: Session) -> Iterable[Check]:
        def call() -> list[Check]:
            return list_of(self._component.checks(session), Check)

        return self.guard.attempt("checks", call, [], may_refuse=True)


def _usable(command: Command) -> Command:
    """The command, if it can be typed and has a help to show. Raises ValueError and what that raises."""
    if not command.name.isprintable() or not command.name.strip() or command.name[0] in "+-":
        raise ValueError(f"{command.name!r} cannot be the name of a command")
    list(options.describe(command.args, command.params))
    options.parse_options(command.params, ())
    return command


def _guarded(command: Command, guard: Guard) -> Command:
    """The command, whose failures end it with one line."""

    def run(session: Session, values: Values) -> int:
        code = _name_errors(guard, lambda: command.run(session, values))
        if not (isinstance(code, int) and 0 <= code <= 255):
            raise guard.named(TypeError(f"{command.name} returned {code!r}, not an exit code"))
        return code

    def check(session: Session, values: Values, earlier: Sequence[Link]) -> None:
        if command.check:
            _name_errors(guard, lambda: command.check and command.check(session, values, earlier))

    return command._replace(run=run, check=check)


def _name_errors(guard: Guard, call: Callable[[], T]) -> T:
    try:
        with _exit_raises():
            return call()
    except (Interrupted, BrokenPipeError):
        raise
    except BaseException as error:
        raise guard.named(error) from None
