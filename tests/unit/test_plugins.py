"""Plugins as they are found, unpacked and guarded; what a user does with them is an integration test."""

import importlib.metadata
import itertools
import os
import signal
import stat
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from skelebot.component import Check, Command, Component, Link, Session
from skelebot.components.plugin import package
from skelebot.errors import Interrupted, SkelebotError, UsageError
from skelebot.keys import key
from skelebot.model import Arg, Environment, Flags, Image, Mount, Param, Project, Task
from skelebot.options import Values
from skelebot.plugins import find, idle
from skelebot.plugins.find import Plugin
from skelebot.plugins.guard import Guard, Guarded
from skelebot.plugins.probe import Probe, probe
from skelebot.project import schema

from .helpers import write

# --- finding them ---


def distribution(folder: Path, name: str, entry_points: str) -> Path:
    write(folder, f"Metadata-Version: 2.1\nName: {name.partition('-')[0]}\n", f"{name}.dist-info/METADATA")
    return write(folder, entry_points, f"{name}.dist-info/entry_points.txt")


@pytest.mark.parametrize(
    "text",
    [
        "[skelebot.components]\na = pkg:Cls\n",
        "[skelebot.components]\na=pkg.mod:Cls.Inner\nb = pkg : Other\n",
        "# comment\n[console_scripts]\nx = y:z\n\n[skelebot.components]\n# a = b:c\n\n  a  =  pkg:Cls  \n"
        "[other]\nb = c:d\n",
        "[skelebot.components]\na = pkg:Cls [extra]\n",
        "[skelebot.components.more]\na = pkg:Cls\n",
        "[console_scripts]\nskelebot.components = a:b\n",
        "[skelebot.components]\n",
        "",
    ],
)
def test_finds_what_the_library_finds(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "some_plugin-1.0", text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    theirs = importlib.metadata.entry_points(group=find.GROUP)
    assert [(p.name, p.target) for p in find.find()] == [(e.name, f"{e.module}:{e.attr}") for e in theirs]


def test_of_a_distribution_the_first_on_the_path_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path / "first", "Some_Plugin-2.0", "[skelebot.components]\nnew = pkg:New\n")
    distribution(tmp_path / "second", "some_plugin-1.0", "[skelebot.components]\nold = pkg:Old\n")
    monkeypatch.setattr(
        sys, "path", [str(tmp_path / "nosuch"), str(tmp_path / "first"), str(tmp_path / "second")]
    )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert [(p.name, p.origin) for p in find.find()] == [("new", "Some_Plugin 2.0")]


def test_the_data_folder_is_the_one_of_the_standard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    below = "Library/Application Support" if sys.platform == "darwin" else ".local/share"
    for named, meant in (("", tmp_path / below), ("relative", tmp_path / below), ("/data", Path("/data"))):
        monkeypatch.setenv("XDG_DATA_HOME", named)
        assert find.folder() == str(meant / "skelebot" / "plugins")


# --- those that need no import ---


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Plugin, Path]:
    """A plugin that an earlier run found to need configuration, and its file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = write(tmp_path, "", "quiet/__init__.py")
    plugin = Plugin("quiet", "quiet:COMPONENT", str(file.parent), True)
    monkeypatch.setitem(sys.modules, "quiet", types.SimpleNamespace(__file__=str(file)))
    idle.remember(plugin, type("Quiet", (Component,), {"__module__": "quiet"}))
    return plugin, file


def test_a_plugin_that_needs_configuration_is_remembered(quiet: tuple[Plugin, Path], tmp_path: Path) -> None:
    plugin, _ = quiet
    assert idle.is_idle(plugin)
    assert not idle.is_idle(plugin._replace(target="quiet:Other"))
    assert not idle.is_idle(plugin._replace(source=str(tmp_path)))


@pytest.mark.parametrize("change", ["text", "time", "removed"])
def test_a_plugin_whose_file_has_changed_is_imported_again(quiet: tuple[Plugin, Path], change: str) -> None:
    plugin, file = quiet
    if change == "text":
        stat = file.stat()
        file.write_text("# more")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "time":
        os.utime(file, (1, 1))
    else:
        file.unlink()
    assert not idle.is_idle(plugin)


def test_only_what_still_holds_stays_in_the_cache(quiet: tuple[Plugin, Path], tmp_path: Path) -> None:
    plugin, file = quiet
    lines = tmp_path / "cache" / "skelebot" / "idle-plugins"
    component = type("Quiet", (Component,), {"__module__": "quiet"})
    idle.remember(plugin, component)  # in place of the same line
    assert lines.read_text().count("quiet:COMPONENT") == 1
    file.write_text("# more")
    idle.remember(plugin, component)  # in place of its former line
    assert lines.read_text().count("quiet:COMPONENT") == 1
    idle.remember(plugin._replace(target="quiet:Other"), component)  # beside it
    assert idle.is_idle(plugin)
    assert lines.read_text().count("\n") == 1
    file.write_text("# still more")
    idle.remember(plugin._replace(target="quiet:Third"), component)  # without those of the file as it was
    assert [line.split("\t")[0] for line in lines.read_text().split("\n")] == ["quiet:Third"]


# --- a package out of a zip file ---

GOOD = {"seed/__init__.py": "COMPONENT = None\n", "seed/data/words.txt": "one\n"}


def zipped(path: Path, files: dict[str, str], **special: Any) -> str:
    """A zip file; of a name in `special` the attributes of its entry are set."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(name)
            for attribute, value in special.get("attributes", {}).get(name, {}).items():
                setattr(info, attribute, value)
            archive.writestr(info, text)
    return str(path)


def unpacked(path: str, folder: Path) -> list[str]:
    """The paths that are written below a new folder, which stands in another that must stay empty."""
    inner = folder / "around" / "inner"
    inner.mkdir(parents=True)
    try:
        with package.opened(path) as found:
            found.write(str(inner))
    finally:
        assert os.listdir(folder / "around") == ["inner"]
    return sorted(str(p.relative_to(inner)) for p in inner.rglob("*") if p.is_file())


def test_a_zip_file_is_unpacked(tmp_path: Path) -> None:
    more = {"seed/__pycache__/x.pyc": "stale", "README.md": "not of the package", "docs/": ""}
    path = zipped(tmp_path / "x.zip", GOOD | more)
    assert unpacked(path, tmp_path) == sorted(GOOD)
    with package.opened(path) as found:
        assert found.name == "seed"


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "seed/../../evil.py", "/tmp/evil.py", "C:/evil.py", "seed//evil.py", "./evil.py", "a/./b",
     "seed\\..\\..\\evil.py", "..", "seed/\x1b[31m.py", "seed/a\nb.py"],
)  # fmt: skip
def test_a_doubtful_path_refuses_the_whole_zip_file(name: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", GOOD | {name: "import os\n"})
    with pytest.raises(SkelebotError, match="nothing was installed"):
        unpacked(path, tmp_path)
    assert not Path("/tmp/evil.py").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_a_zip_file_with_a_link_or_a_device_is_refused(kind: int, tmp_path: Path) -> None:
    attributes = {"seed/link": {"external_attr": (kind | 0o777) << 16, "create_system": 3}}
    path = zipped(tmp_path / "x.zip", GOOD | {"seed/link": "/etc/passwd"}, attributes=attributes)
    with pytest.raises(SkelebotError, match="neither a file nor a folder"):
        unpacked(path, tmp_path)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", GOOD)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("seed/__init__.py", "import os\n")
    with pytest.raises(SkelebotError, match="twice"):
        unpacked(path, tmp_path)


def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", GOOD | {"seed/a": "file", "seed/a/b": "below it"})
    with pytest.raises(OSError, match="seed/a"):
        unpacked(path, tmp_path)


def test_what_unpacks_to_too_much_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("seed/__init__.py", "")
        archive.writestr("seed/zeros", b"\0" * (package.MOST_BYTES + 1))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(SkelebotError, match="100 MB"):
        unpacked(str(path), tmp_path)


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    files = {f"seed/{i}": "" for i in range(package.MOST_FILES)}
    with pytest.raises(SkelebotError, match="5,000 files"):
        unpacked(zipped(tmp_path / "x.zip", GOOD | files), tmp_path)


def test_a_wrong_size_is_noticed(tmp_path: Path) -> None:
    """A bomb whose directory announces a small file."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("seed/__init__.py", "")
        archive.writestr("seed/zeros", b"\0" * 1_000_000)
    size = (1_000_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(SkelebotError, match="is not a readable zip file"):
        unpacked(str(path), tmp_path)
    assert all(p.stat().st_size <= 10 for p in (tmp_path / "around").rglob("zeros"))


@pytest.mark.parametrize("flag", [1, 0])
def test_an_encrypted_or_damaged_file_is_refused(flag: int, tmp_path: Path) -> None:
    path = Path(zipped(tmp_path / "x.zip", GOOD))
    data = bytearray(path.read_bytes())
    if flag:
        data[data.index(b"PK\1\2") + 8] |= 1
    else:
        data[data.index(b"one\n")] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(SkelebotError, match="is encrypted" if flag else "is not a readable"):
        unpacked(str(path), tmp_path)


@pytest.mark.parametrize("data", [b"", b"no zip file at all", b"PK\3\4 and so on", b"PK\5\6" + b"\xff" * 18])
def test_a_file_that_is_not_a_zip_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(SkelebotError, match="is not a readable zip file"):
        unpacked(str(tmp_path / "x.zip"), tmp_path)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"README": ""}, "found none"),
        ({"__init__.py": ""}, "found none"),
        ({"main/seed/__init__.py": ""}, "found none"),
        (GOOD | {"tests/__init__.py": ""}, "found 2: seed, tests"),
        ({"my-seed/__init__.py": ""}, "'my-seed' cannot be"),
        ({"class/__init__.py": ""}, "'class' cannot be"),
        ({"sämann/__init__.py": ""}, "cannot be"),
    ],
)
def test_exactly_one_package_is_expected(files: dict[str, str], found: str, tmp_path: Path) -> None:
    with pytest.raises(SkelebotError, match=found):
        unpacked(zipped(tmp_path / "x.zip", files), tmp_path)


# --- a package out of a folder ---


def placed(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        write(folder, text, name)
    return folder


def test_a_folder_is_a_package_or_has_one(tmp_path: Path) -> None:
    around = placed(
        tmp_path / "work", GOOD | {"seed/.git/config": "", "seed/__pycache__/x": "", "README": ""}
    )
    assert unpacked(str(around), tmp_path / "1") == sorted(GOOD)
    assert unpacked(str(around / "seed"), tmp_path / "2") == sorted(GOOD)


def test_a_link_in_a_folder_is_refused(tmp_path: Path) -> None:
    around = placed(tmp_path / "work", GOOD)
    (around / "seed" / "link").symlink_to("/etc")
    with pytest.raises(SkelebotError, match="link is neither a file nor a folder"):
        unpacked(str(around), tmp_path)


def test_a_missing_path_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no zip file or folder"):
        unpacked(str(tmp_path / "nosuch.zip"), tmp_path)


# --- settings ---


@dataclass(frozen=True)
class Inner:
    name: str = key(help="A name")


@dataclass(frozen=True)
class Fine(Component):
    a: str = key("a", help="Text")
    b: bool = key(False, help="A flag")
    c: int | None = key(None, help="A number")
    d: Literal["x", "y"] = key("x", help="A choice")
    e: tuple[Inner, ...] = key((), help="A list")
    f: Environment = key((), help="Variables")
    g: tuple[str, ...] | str = key((), help="Text or a list of it")


@dataclass(frozen=True)
class Undeclared(Component):
    a: str = "a"


@dataclass(frozen=True)
class Mapped(Component):
    a: dict[str, str] = key(None, help="Of no such type")


@dataclass(frozen=True)
class Listed(Component):
    a: "list[str]" = key(None, help="Of no such type")


@dataclass(frozen=True)
class Deep(Component):
    a: tuple[Mapped, ...] = key((), help="Of no such type")


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [(Fine, None), (Undeclared, "declared"), (Mapped, "type"), (Listed, "type"), (Deep, "type")],
)
def test_settings_that_cannot_be_read_are_known(cls: type, wrong: str | None) -> None:
    found = schema.unreadable(cls)
    assert found is None if wrong is None else wrong in str(found)


# --- what breaks in a hook ---


class Awkward(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def raising(error: BaseException) -> Callable[..., Any]:
    def hook(*words: Any) -> Any:
        print("a word on stdout")
        raise error

    return hook


def half_way(*words: Any) -> Iterator[Command]:
    yield Command("fine", "Works", lambda session, values: 0)
    raise ValueError("half way")


def endless(*words: Any) -> Any:
    return endless(*words)


BREAKS: dict[str, Callable[..., Any]] = {
    "exception": raising(ValueError("it broke")),
    "lines": raising(ValueError("first\nERROR | second\x1b[31m")),
    "exit": raising(SystemExit(0)),
    "os._exit": lambda *words: os._exit(3),
    "endless values": lambda *words: itertools.repeat(Check("a", "b")),
    "ctrl-c": raising(KeyboardInterrupt()),
    "memory": raising(MemoryError()),
    "recursion": endless,
    "awkward": raising(Awkward()),
    "nothing": lambda *words: None,
    "another type": lambda *words: 3,
    "elements": lambda *words: [None],
}

PROJECT = Project("demo", root="/nosuch")
IMAGE = Image("demo:latest", "demo", "base", "/nosuch")
TASK = Task("train", ("python", "train.py"), "/nosuch")
SESSION = Session(PROJECT, (), Flags(), set(), set())

HOOKS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "commands": ((PROJECT,), []),
    "image": ((IMAGE, PROJECT), IMAGE),
    "task": ((TASK, PROJECT), TASK),
    "checks": ((SESSION,), []),
}


def guarded(seconds: Any = 60, **hooks: Callable[..., Any]) -> Guarded:
    made = type("Broken", (Component,), {name: staticmethod(hook) for name, hook in hooks.items()})
    plugin = Plugin("notes", "notes:COMPONENT", "/nosuch/notes", True)
    return Guarded(made(), Guard(plugin, seconds=seconds))


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("broken", BREAKS)
def test_what_breaks_in_a_hook_is_one_warning_and_changes_nothing(
    hook: str, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    component = guarded(**{hook: BREAKS[broken]})
    given, otherwise = HOOKS[hook]
    assert (
        list(getattr(component, hook)(*given)) == otherwise
        if hook in ("commands", "checks")
        else (getattr(component, hook)(*given) == otherwise)
    )
    output = capsys.readouterr()
    assert output.out == ""
    lines = [line for line in output.err.splitlines() if line != "a word on stdout"]
    assert len(lines) == 1
    assert lines[0].startswith("WARN  | the plugin notes is switched off for this run: ")


@pytest.mark.parametrize("later", HOOKS)
def test_a_plugin_that_broke_takes_no_further_part(later: str, capsys: pytest.CaptureFixture[str]) -> None:
    component = guarded(
        problems=BREAKS["exception"],
        commands=BREAKS["exception"],
        image=lambda image, project: replace(image, base="other"),
        task=lambda task, project: replace(task, name="other"),
        checks=lambda session: [Check("a", "b")],
    )
    assert component.commands(PROJECT) == []
    given, otherwise = HOOKS[later]
    assert getattr(component, later)(*given) == otherwise
    assert capsys.readouterr().err.count("switched off") == 1


def test_an_endless_hook_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(checks=BREAKS["endless values"]).checks(SESSION)
    assert "ValueError: a hook returned more than 1000 values" in capsys.readouterr().err


def hanging(*words: Any) -> Any:
    while True:
        with suppress(Exception):
            sum(range(1000))


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_never_ends_is_announced_and_switched_off(
    hook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)]
    given, otherwise = HOOKS[hook]
    assert getattr(guarded(0.2, **{hook: hanging}), hook)(*given) == otherwise
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"INFO  | waiting for {hook} of the plugin notes"
    off = f"WARN  | the plugin notes is switched off for this run: {hook} has not ended after 0.2 seconds"
    assert second.startswith(f"{off} (unit/test_plugins.py:")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)] == handlers
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_c_code_that_never_returns_ends_the_process() -> None:
    code = """
import itertools
from skelebot.plugins.limit import time_limit
with time_limit("commands of the plugin notes", 0.2):
    sum(itertools.count())
"""
    done = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert 'File "<string>", line 5 in <module>' in done.stderr


def test_a_process_that_a_hook_forks_ends_as_it_wants() -> None:
    def fork(*words: Any) -> list[Check]:
        child = os.fork()
        if child == 0:
            os._exit(7)
        return [Check("child", str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))]

    assert list(guarded(checks=fork).checks(SESSION)) == [Check("child", "7")]


def test_the_line_that_broke_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(commands=half_way).commands(PROJECT)
    line = half_way.__code__.co_firstlineno + 2
    assert f"ValueError: half way (unit/test_plugins.py:{line})" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hook", "given"),
    [
        ("image", replace(IMAGE, lines=["RUN a"])),  # type: ignore[arg-type]
        ("image", replace(IMAGE, tag=None)),  # type: ignore[arg-type]
        ("image", replace(IMAGE, labels=(("a",),))),  # type: ignore[arg-type]
        ("task", replace(TASK, argv=("a", 1))),  # type: ignore[arg-type]
        ("task", replace(TASK, argv="python train.py")),  # type: ignore[arg-type]
        ("task", replace(TASK, env={"A": "1"})),  # type: ignore[arg-type]
        ("task", replace(TASK, mounts=("data",))),  # type: ignore[arg-type]
        ("task", replace(TASK, shadowed=["data"])),  # type: ignore[arg-type]
        ("task", IMAGE),
        ("commands", [Command("a", None, lambda s, v: 0)]),  # type: ignore[arg-type]
        ("commands", [Command("a", "h", None)]),  # type: ignore[arg-type]
        ("commands", [Command("a", "h", lambda s, v: 0, args="ab")]),  # type: ignore[arg-type]
        ("commands", [Command("a", "h", lambda s, v: 0, params=[Arg("a")])]),  # type: ignore[list-item]
        ("commands", [Command("a", "h", lambda s, v: 0, params=[Param("a", choices=[1])])]),  # type: ignore[arg-type]
        ("commands", [Command("", "h", lambda s, v: 0)]),
        ("commands", [Command("-a", "h", lambda s, v: 0)]),
        ("commands", [Command("a\nb", "h", lambda s, v: 0)]),
        ("checks", [Check("a", 3)]),  # type: ignore[arg-type]
    ],
)
def test_a_value_with_a_field_of_the_wrong_type_is_refused(
    hook: str, given: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    args, otherwise = HOOKS[hook]
    assert getattr(guarded(**{hook: lambda *words: given}), hook)(*args) == otherwise
    assert "is switched off" in capsys.readouterr().err


def test_a_value_of_the_wrong_type_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """It may be a secret."""
    task = replace(TASK, env=[("TOKEN", "hunter2")])  # type: ignore[arg-type]
    guarded(task=lambda *words: task).task(TASK, PROJECT)
    err = capsys.readouterr().err
    assert "Task.env is list of tuple, not tuple[tuple[str, str | Secret], ...]" in err
    assert "hunter2" not in err


def test_values_of_every_declared_type_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    mounts = (Mount("/data", "/app/data"),)
    task = replace(TASK, env=(("A", "1"),), timeout=3, shadowed=("data",), mounts=mounts)
    assert guarded(task=lambda *words: task).task(TASK, PROJECT) == task
    image = replace(IMAGE, lines=("RUN a",), labels=(("a", "b"),), shadow_sets=(("a",),))
    assert guarded(image=lambda *words: image).image(IMAGE, PROJECT) == image
    param = Param("rate", "r", choices=("1", "2"), default="1", help="h")
    command = Command("go", "h", lambda s, v: 7, [Arg("a")], (param,))
    (made,) = guarded(commands=lambda project: iter([command])).commands(PROJECT)
    assert (made.name, made.params, made.run(SESSION, {})) == ("go", (param,), 7)
    assert capsys.readouterr().err == ""


def test_an_interruption_goes_on() -> None:
    for hook, (given, _) in HOOKS.items():
        with pytest.raises(Interrupted):
            getattr(guarded(**{hook: raising(Interrupted(2))}), hook)(*given)


@pytest.mark.parametrize("hook", ["image", "task", "checks"])
def test_a_refusal_goes_on_with_the_plugins_name(hook: str) -> None:
    component = guarded(**{hook: raising(UsageError("no; do so"))})
    with pytest.raises(SkelebotError, match=r"^plugin notes: no; do so$") as caught:
        getattr(component, hook)(*HOOKS[hook][0])
    assert caught.value.code == UsageError.code
    assert component.guard.off is None


def test_the_hook_for_commands_cannot_refuse_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(commands=raising(UsageError("no; do so"))).commands(PROJECT) == []
    assert "the plugin notes is switched off for this run: UsageError: no; do so" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run", "code", "text"),
    [
        (raising(ValueError("it broke")), 1, "plugin notes: ValueError: it broke (unit/test_plugins.py:"),
        (raising(SystemExit(3)), 1, "plugin notes: SystemExit: 3 ("),
        (lambda *words: os._exit(3), 1, "plugin notes: SystemExit: 3 ("),
        (raising(SkelebotError("no; do so")), 1, "plugin notes: no; do so"),
        (raising(UsageError("no; do so")), 2, "plugin notes: no; do so"),
        (lambda session, values: None, 1, "plugin notes: TypeError: go returned None, not an exit code"),
        (lambda session, values: 256, 1, "plugin notes: TypeError: go returned 256, not an exit code"),
    ],
)
def test_a_command_that_breaks_ends_with_one_line(
    run: Callable[[Session, Values], int], code: int, text: str
) -> None:
    def check(session: Session, values: Values, earlier: Sequence[Link]) -> None:
        run(session, values)

    command = Command("go", "h", run, check=check)
    (made,) = guarded(commands=lambda project: [command]).commands(PROJECT)
    with pytest.raises(SkelebotError) as caught:
        made.run(SESSION, {})
    assert (caught.value.code, str(caught.value)[: len(text)]) == (code, text)
    if "exit code" not in text:
        assert made.check
        with pytest.raises(SkelebotError):
            made.check(SESSION, {}, ())


# --- in a process of its own ---


def probed(
    folder: Path, code: str, seconds: float = 60, root: Path | None = None, own_checks: bool = True
) -> Probe:
    write(folder, code, "notes/__init__.py")
    plugin = Plugin("notes", "notes:COMPONENT", str(folder / "notes"), True)
    return probe(plugin, seconds, str(root) if root else None, own_checks=own_checks)


NOTES = """
from skelebot.component import Activation, Check, Command, Component
class Notes(Component):
    activation = Activation.ALWAYS
    def checks(self, session):
        return [Check("notes", "fine")]
COMPONENT = Notes
"""


def test_a_plugin_is_probed(tmp_path: Path) -> None:
    result = probed(tmp_path, "print('noise')\nimport os; os.write(1, b'more')\n" + NOTES)
    assert (result.off, result.loads, result.activation.name) == (None, True, "ALWAYS")
    assert [check.name for check in result.checks] == ["plugin notes", "notes"]
    assert [check.name for check in probed(tmp_path, NOTES, own_checks=False).checks] == ["plugin notes"]


def test_what_a_plugin_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    thread = "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()\n"
    assert probed(tmp_path, thread + NOTES).off is None


def test_a_package_takes_no_other_modules_place(tmp_path: Path) -> None:
    write(tmp_path, NOTES, "json/__init__.py")
    result = probe(Plugin("json", "json:COMPONENT", str(tmp_path / "json"), True), 60, None)
    assert result.off == "ImportError: another Python module is named json"


def test_a_package_imports_its_own_files(tmp_path: Path) -> None:
    write(tmp_path, "NUMBER = 1\n", "notes/more.py")
    assert probed(tmp_path, "from . import more\nfrom notes.more import NUMBER\n" + NOTES).off is None


@pytest.mark.parametrize(
    ("code", "off"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero (notes/__init__.py:1)"),
        ("import nosuch\n", "ModuleNotFoundError: No module named 'nosuch' (notes/__init__.py:1)"),
        ("def f(:\n", "SyntaxError: invalid syntax (__init__.py, line 1)"),
        ("raise SystemExit(0)\n", "SystemExit: 0 (notes/__init__.py:1)"),
        ("import os; os._exit(0)\n", "SystemExit: 0 (notes/__init__.py:1)"),
        ("import os; os.kill(os.getpid(), 11)\n", "it ended Python, with exit code -11"),
        ("", "AttributeError: notes has no COMPONENT"),
        ("COMPONENT = 3\n", "TypeError: notes:COMPONENT is not a subclass of"),
        ("class COMPONENT: pass\n", "TypeError: notes:COMPONENT is not a subclass of"),
        (
            NOTES.replace("Activation.ALWAYS", "'always'"),
            "TypeError: notes:COMPONENT.activation is not a",
        ),
        (NOTES.replace("[Check(", "[print("), "TypeError: a hook returned NoneType, not Check"),
        (
            NOTES.replace(
                "class Notes", "from dataclasses import dataclass\n@dataclass\nclass Notes"
            ).replace("    def", "    title: str = 'a'\n    def"),
            "TypeError: notes:COMPONENT.title is not declared with key(...)",
        ),
        (NOTES + "class A(Notes):\n  def __init__(self): 1/0\nCOMPONENT = A\n", "ZeroDivisionError"),
    ],
)
def test_a_probe_survives_whatever_a_plugin_does(code: str, off: str, tmp_path: Path) -> None:
    result = probed(tmp_path, code)
    assert result.off is not None
    assert result.off.startswith(off)


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(600)\n",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)\n",
        "import subprocess; subprocess.Popen(['sleep', '600'])\n",
    ],
)
def test_a_probe_ends_in_time(code: str, tmp_path: Path) -> None:
    assert probed(tmp_path, code, 1).off == "it has not finished after 1 second"


def test_a_probe_in_a_project_calls_the_hooks(tmp_path: Path) -> None:
    write(tmp_path, "name: demo\ncomponents:\n  notes: {}\n")
    code = NOTES.replace("ALWAYS", "CONFIGURED").replace("checks(self, session)", "image(self, *words)")
    result = probed(tmp_path, code, root=tmp_path)
    assert "TypeError: a hook returned list, not Image" in str(result.off)
    assert result.loads
