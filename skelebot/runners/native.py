"""Runs tasks on this machine, in the project's own Python environment."""

import fcntl
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from skelebot import console, foreground, process
from skelebot.errors import TIMED_OUT, SkelebotError
from skelebot.model import Flags, Image, Step, Task
from skelebot.project.state import OWN, own_folder
from skelebot.runners.folders import make_folders

if TYPE_CHECKING:
    import psutil

    from skelebot.image.dependencies import Dependency


def run(image: Image, task: Task, flags: Flags, streams: process.Streams | None = None) -> int:
    """Runs the task in the project's root and gives its exit code."""
    if task.mode == "d":
        console.info(f"{task.name} runs in the foreground: only Docker detaches a job")
    make_folders(task)
    tree = _Tree()
    with _environment(task, flags.verbose) as added:
        step = Step(task.argv, cwd=task.root, env=(*task.env, *added))
        process.trace(flags.verbose, step)
        outcome = foreground.attend(step, tree.send, timeout=task.timeout, streams=streams or process.OWN)
    if outcome.signal or outcome.timed_out:
        tree.settle()
    if outcome.signal:
        return 128 + outcome.signal
    if outcome.timed_out:
        console.error(f"the job was ended: it took longer than its timeout of {task.timeout:g} seconds")
        return TIMED_OUT
    return outcome.code


def check(image: Image, task: Task) -> None:
    if task.dependencies and not _active():
        _wanted(task)


def describe(image: Image, task: Task, flags: Flags) -> list[str]:
    lines = [f"run      {process.display(Step(task.argv))}", f"where    natively, in {task.root}"]
    if task.dependencies and not _active():
        lines.append(f"python   {OWN}/{task.venv}, with {', '.join(task.dependencies)}")
    return lines + [f"variable {name}" for name, _ in task.env]


class _Tree:
    """The processes of a job, which may have ended in part when a signal has reached them."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}

    def send(self, program: process.Program, signum: int) -> None:
        """Sends a signal to the job and to all that it has started, also behind a shell."""
        import psutil  # only for a job that is stopped

        try:
            job = psutil.Process(program.pid)
            found = [job, *job.children(recursive=True)]
        except psutil.NoSuchProcess:
            found = []
        self._known |= {p.pid: p for p in found}
        for each in self._known.values():
            _signal(each, signum)

    def settle(self) -> None:
        """Waits for what a shell left behind to finish cleaning up, and ends what does not."""
        import psutil

        _, alive = psutil.wait_procs(list(self._known.values()), timeout=foreground.GRACE)
        for each in alive:
            _signal(each, signal.SIGKILL)


def _signal(process: "psutil.Process", signum: int) -> None:
    import psutil

    # It may have ended since it was listed, or belong to somebody else.
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(signum)


# --- the Python environment ---


@contextmanager
def _environment(task: Task, verbose: bool) -> Iterator[tuple[tuple[str, str], ...]]:
    """The variables that put the right `python` before a job; its environment stays while it runs."""
    path = dict(task.env).get("PATH", os.environ.get("PATH", os.defpath))
    active = _active()
    if active:
        yield (("PATH", f"{active}/bin{os.pathsep}{path}"),)
    elif task.dependencies:
        with _venv(task, verbose) as venv:
            yield (("PATH", f"{venv}/bin{os.pathsep}{path}"), ("VIRTUAL_ENV", venv))
    elif shutil.which("python", path=path) is None:
        yield (("PATH", f"{_python_link(task.root, path)}{os.pathsep}{path}"),)
    else:
        yield ()


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
    folder = os.path.join(own_folder(root), "bin")
    os.makedirs(folder, exist_ok=True)
    link = os.path.join(folder, "python")
    target = shutil.which("python3", path=path) or sys.executable
    if not os.path.lexists(link) or os.readlink(link) != target:
        fresh = f"{link}.{os.getpid()}"
        os.symlink(target, fresh)
        os.replace(fresh, link)
    return folder


@contextmanager
def _venv(task: Task, verbose: bool) -> Iterator[str]:
    """The path of the task's environment, made or made anew where the dependencies ask for it.

    Jobs share a lock on it while they run, so that it is never replaced under one of them.
    """
    wanted = _wanted(task)
    mark = _fingerprint(task, wanted)
    folder = own_folder(task.root)
    venv = os.path.join(folder, task.venv)
    with open(f"{venv}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _mark_of(venv) != mark:
            _lock_alone(lock.fileno())
            if _mark_of(venv) != mark:
                _replace(venv, task, wanted, mark, verbose, lock.fileno())
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield venv


def _lock_alone(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        console.info("waiting for the job that uses the environment before it is made anew")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _fingerprint(task: Task, wanted: "tuple[Dependency, ...]") -> str:
    """What the environment depends on: the entries, the files they name, the Python they are for."""
    import hashlib  # like dependencies, only for an environment of the project's own

    digest = hashlib.sha256(repr((task.python_version or sys.version_info[:2], wanted)).encode())
    # What is fetched has its version in the entry.
    for path in (path for dependency in wanted if not dependency.fetch for path in dependency.files):
        with open(os.path.join(task.root, path), "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def _mark_of(venv: str) -> str | None:
    try:
        with open(os.path.join(venv, "skelebot.mark"), encoding="ascii") as file:
            return file.read()
    except OSError:
        return None


def _replace(
    venv: str, task: Task, wanted: "tuple[Dependency, ...]", mark: str, verbose: bool, lock: int
) -> None:
    """Makes the environment at its place; the one before comes back when that fails."""
    before = f"{venv}.before"
    shutil.rmtree(before, ignore_errors=True)
    if _mark_of(venv) is not None:
        os.rename(venv, before)
    shutil.rmtree(venv, ignore_errors=True)
    console.info(f"installing the dependencies into {OWN}/{task.venv}")
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


def _install(venv: str, task: Task, wanted: "tuple[Dependency, ...]", verbose: bool, lock: int) -> None:
    """Runs the installers, which hold the lock too: one that outlives a killed Skelebot is waited for."""
    from skelebot.runners.docker.inherited import pip_settings

    words = tuple(word for dependency in wanted for word in dependency.words)
    python = f"{venv}/bin/python"
    # uv does not read pip's settings; where they name an index, pip serves.
    uv = (
        None if {"index-url", "extra-index-url", "find-links"} & pip_settings().keys() else shutil.which("uv")
    )
    if uv:
        make: tuple[str, ...] = (
            uv,
            "venv",
            "--quiet",
            "--python",
            task.python_version or sys.executable,
            venv,
        )
        install: tuple[str, ...] = (uv, "pip", "install", "--python", python, *words)
    else:
        make = (_python(task.python_version), "-m", "venv", venv)
        pip: tuple[str, ...] = (python, "-m", "pip")
        if importlib.util.find_spec("pip"):
            # Skelebot's own serves the environment: Debian's Python has none to put into it.
            make = (*make[:-1], "--without-pip", venv)
            pip = (sys.executable, "-m", "pip", "--python", python)
        install = (*pip, "install", "--disable-pip-version-check", *words)
    for step, failure in (
        (make, "the environment could not be made; install uv or another Python"),
        (install, "the dependencies could not be installed"),
    ):
        process.trace(verbose, Step(step))
        code, _ = process.tee(Step(step, cwd=task.root), console.detail, pass_fds=(lock,))
        if code != 0:
            raise SkelebotError(f"{failure}; the message stands above")


def _python(version: str | None) -> str:
    """The Python for an environment without uv. Raises SkelebotError where there is none of a version."""
    if version is None or sys.version.startswith(version):
        return sys.executable
    found = shutil.which("python" + ".".join(version.split(".")[:2]))
    if found is None:
        raise SkelebotError(
            f"Python {version} (pythonVersion) is not on this machine; install it or uv, which finds it"
        )
    return found
