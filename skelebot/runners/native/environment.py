"""The Python environment of native jobs: the caller's own, or one that is made for the project."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, TYPE_CHECKING, NamedTuple

from skelebot import console, process
from skelebot.errors import SkelebotError
from skelebot.files import locked, take_lock
from skelebot.model import Step, Task
from skelebot.project.sources import import_folders
from skelebot.project.state import folder_in_cache, own_folder
from skelebot.secret import reveal

if TYPE_CHECKING:
    from skelebot.image.dependencies import Dependency


_LAYOUT = 2  # raised when environments are made in another way


class Environment(NamedTuple):
    """What puts the right `python` before a job; `fds` hold the lock that keeps it from being replaced.

    folder: of one that recorded runs share; "" for any other.
    """

    variables: tuple[tuple[str, str], ...] = ()
    fds: tuple[int, ...] = ()
    folder: str = ""


def is_needed(task: Task) -> bool:
    """Whether the task gets an environment of the project's own."""
    return bool(task.dependencies) and not _active()


def check(task: Task) -> None:
    """Raise ConfigError for entries of `dependencies` that no environment could hold."""
    if is_needed(task):
        _wanted(task)


@contextmanager
def ensure_environment(task: Task, verbose: bool) -> Iterator[Environment]:
    """The task's environment, made where the dependencies ask for it; it stays while the block lasts."""
    with _python_environment(task, verbose) as python:
        yield python._replace(variables=(*python.variables, *_import_path(task)))


def _import_path(task: Task) -> tuple[tuple[str, str], ...]:
    """The variable by which the project's own modules can be imported, unless the task sets it."""
    if "PYTHONPATH" in dict(task.env):
        return ()
    folders = [os.path.normpath(os.path.join(task.root, folder)) for folder in import_folders(task.root)]
    return (("PYTHONPATH", os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])),)


@contextmanager
def _python_environment(task: Task, verbose: bool) -> Iterator[Environment]:
    """The environment without the import path."""
    path = reveal(dict(task.env).get("PATH", os.environ.get("PATH", os.defpath)), os.environ)
    active = _active()
    if active:
        yield Environment((("PATH", f"{active}/bin{os.pathsep}{path}"),))
    elif task.dependencies and _is_worth_an_environment(task):
        with _venv(task, verbose) as (venv, lock):
            variables = (("PATH", f"{venv}/bin{os.pathsep}{path}"), ("VIRTUAL_ENV", venv))
            folder = os.path.dirname(venv)
            is_shared = bool(task.environments) and os.path.dirname(folder) == task.environments
            yield Environment(variables, (lock.fileno(),), folder if is_shared else "")
    elif process.find_program("python", path=path) is None:
        yield Environment((("PATH", f"{_python_link(task.root, path)}{os.pathsep}{path}"),))
    else:
        yield Environment()


def _is_worth_an_environment(task: Task) -> bool:
    """Whether the job waits for its environment: a command line does without a Python that is missing."""
    if task.argv[:1] != ("bash",) or process.find_program("uv"):
        return True
    try:
        _python(task.python_version)
    except SkelebotError as error:
        console.warn(f"{error}; {task.name} runs without the project's dependencies")
        return False
    return True


def _wanted(task: Task) -> "tuple[Dependency, ...]":
    """What the task's environment holds. Raises ConfigError with the place of each wrong entry."""
    from skelebot.image import dependencies

    return dependencies.python(task.root, task.dependencies, task.dependency_places)


def _active() -> str | None:
    """The virtual or conda environment that the caller has activated, unless it is conda's base."""
    if os.environ.get("VIRTUAL_ENV"):
        return os.environ["VIRTUAL_ENV"]
    if os.environ.get("CONDA_DEFAULT_ENV", "base") != "base":
        return os.environ.get("CONDA_PREFIX")
    return None


def _python_link(root: str, path: str) -> str:
    """A folder with a `python` for machines that have just `python3`."""
    target = process.find_program("python3", path=path) or sys.executable
    try:
        return _link(os.path.join(own_folder(root), "bin"), target)
    except PermissionError:  # root has run a job here
        return _link(os.path.join(folder_in_cache(root), "bin"), target)


def _link(folder: str, target: str) -> str:
    os.makedirs(folder, exist_ok=True)
    link = os.path.join(folder, "python")
    if not os.path.lexists(link) or os.readlink(link) != target:
        fresh = f"{link}.{os.getpid()}"
        os.symlink(target, fresh)
        os.replace(fresh, link)
    return folder


@contextmanager
def _venv(task: Task, verbose: bool) -> Iterator[tuple[str, IO[str]]]:
    """The path of the task's environment, created or replaced if the dependencies changed, and its lock.

    Jobs share a lock on it while they run, so that it is never replaced under one of them.
    """
    wanted = _wanted(task)
    mark = _fingerprint(task, wanted)
    # That of a recorded run is never replaced by another's.
    folder = os.path.join(task.environments, mark[:16]) if task.environments else own_folder(task.root)
    os.makedirs(folder, exist_ok=True)
    venv = os.path.join(folder, task.venv)
    if _mark_of(venv) != mark and not _is_replaceable(venv):
        venv = os.path.join(folder_in_cache(task.root), task.venv)
        os.makedirs(os.path.dirname(venv), exist_ok=True)
    with locked(f"{venv}.lock", shared=True) as lock:
        if _mark_of(venv) != mark:
            take_lock(lock, on_wait=_say_waiting)
            if _mark_of(venv) != mark:
                _replace(venv, task, wanted, mark, verbose, lock)
            take_lock(lock, shared=True)
        yield venv, lock


def keep(prepared: Environment, name: str) -> None:
    """Note a recorded run that an environment is kept for."""
    runs = os.path.join(prepared.folder, "runs")
    os.makedirs(runs, exist_ok=True)
    path = os.path.join(runs, name)
    with open(path, "ab"):
        os.utime(path)


def _say_waiting() -> None:
    console.info("waiting for the job that uses the environment before it is replaced")


def _fingerprint(task: Task, wanted: "tuple[Dependency, ...]") -> str:
    """What the environment depends on: the entries, the files they name, the Python they are for."""
    import hashlib  # like dependencies, only for an environment of the project's own

    digest = hashlib.sha256(repr((_LAYOUT, task.python_version or sys.version_info[:2], wanted)).encode())
    # What is fetched has its version in the entry.
    for path in (path for dependency in wanted if not dependency.fetch for path in dependency.files):
        with open(os.path.join(task.root, path), "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def digest(task: Task) -> str:
    """Return what changes with the environment of a task: its packages, its Python, its interpreter."""
    import hashlib

    if active := _active():
        facts = [active, *_packages(f"{active}/bin/python")]
    else:
        path = reveal(dict(task.env).get("PATH", os.environ.get("PATH", os.defpath)), os.environ)
        program = "python" if task.argv[:1] == ("bash",) else str(task.argv[0])
        # A program of the project's own is a part of the source.
        found = process.find_program(program, path=path) if "/" not in program else None
        if task.dependencies:
            facts = [_fingerprint(task, _wanted(task))]
        else:
            facts = _packages(found or process.find_program("python3", path=path) or sys.executable)
        facts += [os.path.realpath(found), *_stamp(found)] if found else []
    return hashlib.sha256("\0".join(facts).encode("utf-8", "surrogateescape")).hexdigest()


def _packages(python: str) -> list[str]:
    """The names and versions of what is installed for a Python, by their folders."""
    import glob

    prefix = glob.escape(os.path.dirname(os.path.dirname(python)))
    found = []
    # https://docs.python.org/3/library/site.html; dist-packages is Debian's.
    for above in {prefix, f"{prefix}/local", os.path.expanduser("~/.local")}:
        for folder in glob.glob(f"{above}/lib/python3*/*-packages"):
            with suppress(OSError):
                found += _infos(folder, os.stat(folder).st_mtime_ns)
    return sorted(found)


def packages(prepared: Environment) -> list[str]:
    """Return what is installed for the `python` of an environment, each as NAME==VERSION."""
    path = dict(prepared.variables).get("PATH", os.environ.get("PATH", os.defpath))
    python = process.find_program("python", path=path) or sys.executable
    infos = (info.rpartition(".")[0].partition("-") for info in _packages(python))
    return sorted({f"{name}=={version.removesuffix('-info')}" for name, _, version in infos})


@cache
def _infos(folder: str, changed: int) -> list[str]:
    """List the folders that say what is installed, again when the time of the folder has changed."""
    return [name for name in os.listdir(folder) if name.endswith("-info")]


def _stamp(program: str) -> tuple[str, ...]:
    """What distinguishes a program from a later version of it."""
    with suppress(OSError):
        status = os.stat(program)
        return (str(status.st_size), str(status.st_mtime_ns))
    return ()


def _mark_of(venv: str) -> str | None:
    try:
        with open(os.path.join(venv, "skelebot.mark"), encoding="ascii") as file:
            return file.read()
    except OSError:
        return None


def _is_replaceable(venv: str) -> bool:
    """Whether this user can remove an environment and what is left of the one before; root may own parts."""
    effective = os.access in os.supports_effective_ids
    return all(
        os.access(folder, os.W_OK, effective_ids=effective)
        for top in (venv, f"{venv}.before")
        for folder, _, _ in os.walk(top)
    )


def _replace(
    venv: str, task: Task, wanted: "tuple[Dependency, ...]", mark: str, verbose: bool, lock: IO[str]
) -> None:
    """Install the environment at its place; if that fails, the old one is restored."""
    import shutil

    before = f"{venv}.before"
    shutil.rmtree(before, ignore_errors=True)
    if _mark_of(venv) is not None:
        os.rename(venv, before)
    shutil.rmtree(venv, ignore_errors=True)
    console.info(f"installing the dependencies into {venv.removeprefix(f'{task.root}/')}")
    try:
        _install(venv, task, wanted, verbose, lock)
        with open(os.path.join(venv, "skelebot.mark"), "w", encoding="ascii") as file:
            file.write(mark)
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        if os.path.exists(before):
            os.rename(before, venv)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _install(venv: str, task: Task, wanted: "tuple[Dependency, ...]", verbose: bool, lock: IO[str]) -> None:
    """Run the installers, which hold the lock too: one that outlives a killed Skelebot is waited for."""
    from importlib.util import find_spec

    from skelebot.image import installer
    from skelebot.runners.docker.inherited import pip_settings

    words = tuple(word for dependency in wanted for word in dependency.words)
    python = f"{venv}/bin/python"
    reason = installer.only_pip(wanted)
    # uv does not read pip's settings; where they name an index, pip serves.
    named = {"index-url", "extra-index-url", "find-links"} & pip_settings().keys()
    uv = None if reason or named else process.find_program("uv")
    pip: tuple[str, ...] = ()
    if uv:
        make: tuple[str, ...] = (uv, "venv", "--quiet")
        make += ("--python", task.python_version or sys.executable, venv)
    else:
        make = (_python(task.python_version), "-m", "venv", venv)
        if find_spec("pip"):
            # Skelebot's own serves the environment: Debian's Python has none to put into it.
            make = (*make[:-1], "--without-pip", venv)
            pip = (sys.executable, "-m", "pip", "--python", python)
    if reason and process.find_program("uv"):
        console.info(f"pip installs them, as uv does not read this as pip does: {reason}")
    for step, failure in (
        (make, "the environment could not be created; install uv or another Python"),
        # Jobs may call pip; and it is newer than Skelebot's own, as that of an image is.
        ((*installer.command(python, uv, pip), "pip"), "pip could not be installed"),
        ((*installer.command(python, uv), *words), "the dependencies could not be installed"),
    ):
        process.trace(verbose, Step(step))
        code, lines = process.tee(Step(step, cwd=task.root), console.detail, pass_fds=(lock.fileno(),))
        if code != 0:
            hint = installer.conflict_hint("\n".join(lines), task.dependencies)
            raise SkelebotError(f"{failure}; see the message above{hint}")


def _python(version: str | None) -> str:
    """The Python for an environment without uv. Raises SkelebotError where there is none of a version."""
    if version is None or _is_version(sys.version_info[:3], version):
        return sys.executable
    found = process.find_program("python" + ".".join(version.split(".")[:2]))
    if found is None:
        raise SkelebotError(
            f"Python {version} (pythonVersion) is not on this machine; install it, or uv, which downloads it"
        )
    return found


def _is_version(have: tuple[int, ...], wanted: str) -> bool:
    """Whether a version is the one that is wanted: 3.11.2 is 3.11, and neither 3.1 nor 3.11.20."""
    parts = wanted.split(".")
    return [str(number) for number in have[: len(parts)]] == parts
