"""What lets Skelebot use a plugin without being broken by it.

Whatever breaks in a plugin stays with it: it is reported in one line and the plugin switched off, and
everything else goes on.
"""

import importlib
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from skelebot import console, options, process
from skelebot.component import Activation, Check, Command, Component, Link, Session
from skelebot.errors import Interrupted, SkelebotError
from skelebot.model import Flags, Image, Project, Step, Task
from skelebot.options import Values
from skelebot.plugins.find import Plugin, user_folder
from skelebot.project import schema

T = TypeVar("T")

# --- those that need not be imported ---


def _remember_idle(plugin: Plugin, cls: type[Component]) -> None:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    kept = [line for line in _idle_lines() if not line.startswith(_whose(plugin)) and _is_current(line)]
    path = _idle_file()
    with suppress(OSError):  # it is imported once more the next time
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fresh = f"{path}.{os.getpid()}"
        with open(fresh, "w", encoding="utf-8", errors="surrogateescape") as written:
            written.write("\n".join([*kept, f"{_whose(plugin)}{file}\t{_state(file)}"]))
        os.replace(fresh, path)


def _whose(plugin: Plugin) -> str:
    """How the line of a plugin begins; the file of its class follows, and what state that was in."""
    return f"{plugin.target}\t{os.path.realpath(plugin.source)}\t"


def _is_current(line: str) -> bool:
    file, _, state = line.rpartition("\t")
    return state != "" and state == _state(file.rpartition("\t")[2])


def _state(file: str) -> str:
    """What changes with a file; empty where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return ""
    return f"{found.st_mtime_ns} {found.st_size}"


def _idle_lines() -> list[str]:
    try:
        with open(_idle_file(), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().split("\n")
    except OSError:
        return []


def _idle_file() -> str:
    return os.path.join(user_folder("XDG_CACHE_HOME", "~/.cache"), "skelebot", "idle-plugins")


# --- importing one ---


def _load(plugin: Plugin) -> type[Component]:
    """The class of a plugin. Raises whatever its import does."""
    name, _, attributes = plugin.target.partition(":")
    found: Any = _own_package(plugin) if plugin.owned else importlib.import_module(name)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise AttributeError(f"{name} has no {attributes}")
        found = getattr(found, attribute)
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise TypeError(f"{plugin.target} is not a class made from skelebot.component.Component")
    if not isinstance(found.activation, Activation):
        raise TypeError(f"{plugin.target}.activation is not one of skelebot.component.Activation")
    if is_dataclass(found) and (unreadable := schema.unreadable(found)):
        raise TypeError(f"{plugin.target}.{unreadable}")
    return found


def _own_package(plugin: Plugin) -> types.ModuleType:
    """The package of an installed plugin, whose folder is not on the path for others to find."""
    from importlib import util

    file = os.path.join(plugin.source, "__init__.py")
    spec = util.spec_from_file_location(plugin.name, file, submodule_search_locations=[plugin.source])
    if plugin.name in sys.modules or spec is None or spec.loader is None:
        raise ImportError(f"there is another Python module named {plugin.name}")
    module = util.module_from_spec(spec)
    sys.modules[plugin.name] = module
    spec.loader.exec_module(module)
    return module


# --- using one ---


class Guard:
    """What a run knows of a plugin. off: why it takes no part; clashes: that a name of it is another's."""

    def __init__(self, plugin: Plugin, off: str | None = None) -> None:
        self.plugin, self.off, self.clashes = plugin, off, False
        self._class: type[Component] | None = None

    def is_idle(self) -> bool:
        """Whether an earlier run has found that it takes part only where it is configured."""
        return any(line.startswith(_whose(self.plugin)) and _is_current(line) for line in _idle_lines())

    def load(self) -> type[Component] | None:
        """The plugin's class, imported once; None where that fails."""
        if self._class is None:
            self._class = self.attempt(lambda: _load(self.plugin), None)
            if self._class and self._class.activation is Activation.CONFIGURED:
                _remember_idle(self.plugin, self._class)
        return self._class

    def attempt(self, work: Callable[[], T], otherwise: T, may_refuse: bool = False) -> T:
        """What `work` gives; `otherwise` where it breaks, which switches the plugin off.

        may_refuse: a SkelebotError is the plugin's answer rather than its end, and goes on.
        """
        if self.off is not None:
            return otherwise
        try:
            with _stdout_apart():
                return work()
        except Interrupted:
            raise
        except BaseException as error:
            if may_refuse and isinstance(error, SkelebotError):
                raise self.named(error) from None
            self.switch_off(told(error))
            return otherwise

    def clash(self, why: str) -> None:
        self.clashes = True
        self.switch_off(why)

    def switch_off(self, why: str) -> None:
        self.off = why
        console.warn(f"the plugin {self.plugin.name} is switched off for this run: {why}")

    def named(self, error: BaseException) -> SkelebotError:
        """The error of a command or a refusal, with the plugin's name."""
        if not isinstance(error, SkelebotError):
            return SkelebotError(f"plugin {self.plugin.name}: {told(error)}")
        text = str(error).replace("\n", "; ")
        named = SkelebotError(f"plugin {self.plugin.name}: {text}")
        named.code = error.code
        return named


@contextmanager
def _stdout_apart() -> Iterator[None]:
    """Sends what a plugin writes to stderr, also what programs write that it starts: stdout is the job's."""
    if sys.stdout is None:  # it was closed from the start, and another file may have its number
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with suppress(OSError):  # where stderr is closed
            os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def told(error: BaseException) -> str:
    """An exception in one line: its kind, its text, and the line of the plugin that raised it."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    shown = ": ".join(filter(None, [type(error).__name__, text if len(text) < 500 else f"{text[:500]}..."]))
    return shown + _raised_at(error)


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
    """A plugin's component, as the others see it: one that cannot break anything."""

    def __init__(self, component: Component, guard: Guard) -> None:
        self._component, self.guard = component, guard

    def commands(self, project: Project | None) -> Iterable[Command]:
        def offered() -> list[Command]:
            found = _all(self._component.commands(project), Command)
            return [_guarded(_usable(command), self.guard) for command in found]

        return self.guard.attempt(offered, [])

    def image(self, image: Image, project: Project) -> Image:
        def amended() -> Image:
            return _expected(self._component.image(image, project), Image)

        return self.guard.attempt(amended, image, may_refuse=True)

    def task(self, task: Task, project: Project) -> Task:
        def amended() -> Task:
            return _expected(self._component.task(task, project), Task)

        return self.guard.attempt(amended, task, may_refuse=True)

    def checks(self, session: Session) -> Iterable[Check]:
        def seen() -> list[Check]:
            return _all(self._component.checks(session), Check)

        return self.guard.attempt(seen, [], may_refuse=True)


def _usable(command: Command) -> Command:
    """The command, if it can be typed and its help be shown. Raises ValueError and what that raises."""
    if not command.name.isprintable() or not command.name.strip() or command.name[0] in "+-":
        raise ValueError(f"{command.name!r} cannot be the name of a command")
    list(options.describe(command.args, command.params))
    options.parse_options(command.params, ())
    return command


def _guarded(command: Command, guard: Guard) -> Command:
    """The command, whose failures end it with one line."""

    def run(session: Session, values: Values) -> int:
        code = _named_errors(guard, lambda: command.run(session, values))
        if not (isinstance(code, int) and 0 <= code <= 255):
            raise guard.named(TypeError(f"{command.name} gave {code!r}, not an exit code"))
        return code

    def check(session: Session, values: Values, earlier: Sequence[Link]) -> None:
        if command.check:
            _named_errors(guard, lambda: command.check and command.check(session, values, earlier))

    return replace(command, run=run, check=check)


def _named_errors(guard: Guard, work: Callable[[], T]) -> T:
    try:
        return work()
    except (Interrupted, BrokenPipeError):
        raise
    except BaseException as error:
        raise guard.named(error) from None


# --- what a hook may give ---


def _all(values: Iterable[T], cls: type[T]) -> list[T]:
    return [_expected(value, cls) for value in values]


def _expected(value: T, cls: type[T]) -> T:
    """The value, if it and each of its fields are of the type they are declared to be of.

    What they are instead is told by the type alone: a field may hold a secret.
    """
    if not isinstance(value, cls):
        raise TypeError(f"a hook gave {type(value).__name__}, not {cls.__name__}")
    for field in fields(typing.cast(Any, cls)):
        found = getattr(value, field.name)
        if not _fits(found, field.type):
            raise TypeError(f"{cls.__name__}.{field.name} is {_type_of(found)}, not {_shown(field.type)}")
    return value


def _type_of(value: object) -> str:
    inside = sorted({type(each).__name__ for each in value}) if isinstance(value, (tuple, list)) else ()
    return type(value).__name__ + (f" of {' and '.join(inside)}" if inside else "")


def _shown(want: Any) -> str:
    text = str(want) if typing.get_args(want) else want.__name__
    return re.sub(r"[\w.]+\.(?=\w)", "", text)  # without the names of modules


def _fits(value: object, want: Any) -> bool:
    origin, inside = typing.get_origin(want), typing.get_args(want)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in inside)
    if origin is typing.Literal:
        return value in inside
    if origin is tuple and inside[-1] is not Ellipsis:
        return isinstance(value, tuple) and len(value) == len(inside) and all(map(_fits, value, inside))
    if origin in (tuple, frozenset, Sequence):
        return isinstance(value, origin) and all(_fits(each, inside[0]) for each in value)
    if is_dataclass(want):
        own = isinstance(value, typing.cast(type, want))
        return own and all(_fits(getattr(value, field.name), field.type) for field in fields(want))
    if want is float:
        return isinstance(value, (int, float))
    return want is Any or isinstance(value, origin or want)


# --- trying one ---

# Isolated, so that nothing of the current folder takes part; then with the path that is in use here.
_TRY = (
    "import json, sys; request = json.load(sys.stdin); sys.path[:] = request.pop('path')\n"
    "from skelebot.plugins.worker import main; main(request)"
)


@dataclass(frozen=True)
class Trial:
    """What came of trying a plugin.

    off: why it can take no part. loads: whether its class is there, and its names are its own. checks:
    what was seen of it; nothing where it takes no part.
    """

    off: str | None
    loads: bool = False
    activation: Activation = Activation.CONFIGURED
    checks: tuple[Check, ...] = ()


def try_out(
    plugin: Plugin, seconds: float, root: str | None, flags: Flags | None = None, look: bool = False
) -> Trial:
    """Loads a plugin and calls its hooks in a process of its own, where nothing it does can hurt.

    root: the project to do it in, in the environment of the flags. look: its own checks take part. A
    trial that takes longer than so many seconds is ended, and has failed.
    """
    import json  # like subprocess, only here

    flags = flags or Flags()
    request = {"plugin": plugin._asdict(), "root": root, "flags": flags._asdict(), "look": look}
    step = Step((sys.executable, "-I", "-c", _TRY), stdin=json.dumps({"path": sys.path, **request}))
    try:
        code, out, _ = process.capture(step, seconds)
        answer = json.loads(out)
        checks = tuple(Check(**check) for check in answer["checks"])
        return Trial(answer["off"], answer["loads"], Activation[answer["activation"]], checks)
    except TimeoutError:
        return Trial(f"it is not done after {seconds:g} seconds")
    except (ValueError, TypeError, KeyError):
        return Trial(f"it ends Python, with exit code {code}")
