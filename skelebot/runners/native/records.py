"""What is written down about native runs, in the user's cache: for `ps`, `logs` and `stop`.

Each run has a folder. Its processes hold the lock of a file there: while it is held, the run lives, however
its starter has ended. A run that is not kept takes its folder with it.
"""

import os
import time
from contextlib import suppress
from typing import IO, NamedTuple

from skelebot import process
from skelebot.errors import SkelebotError
from skelebot.files import open_lock, replace_file, try_lock
from skelebot.keys import image_name
from skelebot.model import NATIVE, Run, Task
from skelebot.process import OWN, Streams
from skelebot.project.state import folder_in_cache
from skelebot.runners import attempts
from skelebot.runners.attempts import Lost

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_OUTPUT = ("out", "err")
_NEW = ".new-"  # begins the name of a folder that is being made


class Record(NamedTuple):
    """The folder of one run, and the lock that says that it lives.

    folder: None where the checkout has no place for it; the run goes on anyway.
    """

    id: str
    task: Task
    folder: str | None = None
    lock: IO[str] | None = None

    @classmethod
    def create(cls, task: Task, with_output: bool = False) -> "Record":
        """Begin the record of a run. Raises SkelebotError if it must hold the run's output and cannot."""
        if task.attempt:
            return cls(task.attempt.folder, task, task.attempt.folder, attempts.open_held_lock(task.attempt))
        id = f"{image_name(task.project) or 'run'}-{_file_name(task.name)}-{os.urandom(4).hex()}"
        try:
            folder = os.path.join(_runs_folder(task.root), id)
            lock = _make_folder(folder, _OUTPUT if with_output else ())
        except (OSError, SkelebotError) as error:
            if with_output:
                raise SkelebotError(f"{task.name} cannot run detached: {error}") from None
            return cls(id, task)
        return cls(id, task, folder, lock)

    @property
    def fds(self) -> tuple[int, ...]:
        """What the job's processes inherit, so that they hold the lock."""
        return (self.lock.fileno(),) if self.lock else ()

    def write(self, pid: int) -> bool:
        """Note which process it is, of a detached run the supervisor, and when it began."""
        if self.folder is None:
            return False
        began = time.strftime(_TIME, time.gmtime())
        lines = (self.task.project, self.task.name, process.identity(pid), began)
        data = "\n".join(lines).encode("utf-8", "surrogateescape")
        with suppress(OSError):
            replace_file(os.path.join(self.folder, "run"), data)
            return True
        return False

    def await_start(self) -> None:
        """Wait until the supervisor of the run has written which process it is. Raises SkelebotError."""
        assert self.folder
        self._close()
        path = os.path.join(self.folder, "run")
        while not os.path.exists(path):
            if not _is_locked(self.folder) and not os.path.exists(path):
                raise SkelebotError(f"{self.task.name} cannot run detached: {path} could not be written")
            time.sleep(0.005)

    def open_output(self) -> tuple[int, int]:
        """The files that take stdout and stderr. Raises OSError."""
        assert self.folder
        out, err = (os.open(os.path.join(self.folder, name), os.O_WRONLY | os.O_APPEND) for name in _OUTPUT)
        return out, err

    def end(self, code: int) -> None:
        """Note how the run ended; one that is not kept takes its record with it."""
        if self.folder is None or self.task.attempt:  # the job's side has noted its code
            self._close()
            return
        if self.task.retention == "none" and not os.path.exists(os.path.join(self.folder, "out")):
            self.remove()
            return
        with suppress(OSError):
            text = f"{code}\n{time.strftime(_TIME, time.gmtime())}"
            replace_file(os.path.join(self.folder, "code"), text.encode("ascii"))
        self._close()

    def remove(self) -> None:
        if self.folder and not self.task.attempt:
            _remove_folder(self.folder)
        self._close()

    def _close(self) -> None:
        if self.lock:
            self.lock.close()

    def run(self) -> Run:
        return Run(self.id, self.id, self.task.project, self.task.name, NATIVE, root=self.task.root)


def _file_name(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in text)[:60]


def _make_folder(path: str, names: tuple[str, ...]) -> IO[str]:
    """Make a run's folder with empty files of these names, and hold its lock. Raises OSError.

    It takes its place with the lock held already: nobody sees a run that seems to have ended.
    """
    fresh = os.path.join(os.path.dirname(path), f"{_NEW}{os.path.basename(path)}")
    for _ in range(9):
        with suppress(FileNotFoundError):  # those above it may go at any moment with another run's
            os.makedirs(fresh)
            break
    try:
        lock = open_lock(os.path.join(fresh, "lock"))
        if not try_lock(lock):
            raise BlockingIOError(11, "somebody else holds the lock", lock.name)
        for name in names:
            with open(os.path.join(fresh, name), "xb"):
                pass
        os.rename(fresh, path)
    except BaseException:
        _remove_folder(fresh)
        raise
    return lock


def _remove_folder(path: str) -> None:
    """Remove a run's folder, which holds no other, and those above it once they are empty."""
    with suppress(OSError):
        for name in os.listdir(path):
            with suppress(OSError):
                os.unlink(os.path.join(path, name))
    for _ in ("the run", "runs", "the checkout", "checkouts"):
        with suppress(OSError):
            os.rmdir(path)
        path = os.path.dirname(path)


def _runs_folder(root: str) -> str:
    return os.path.join(folder_in_cache(root), "runs")


# --- what others have written down ---


def runs(root: str) -> list[Run]:
    """The checkout's native runs, the last one first; what a killed process left of others goes."""
    try:
        folder = _runs_folder(root)
        names = os.listdir(folder)
    except (OSError, SkelebotError):
        return []
    found = (_read(root, os.path.join(folder, name)) for name in names)
    return sorted((run for run in found if run), key=lambda run: run.began, reverse=True)


def _read(root: str, folder: str) -> Run | None:
    if os.path.basename(folder).startswith(_NEW):
        _remove_abandoned(folder)
        return None
    alive = _is_locked(folder)
    try:
        with open(os.path.join(folder, "run"), encoding="utf-8", errors="surrogateescape") as file:
            project, job, _, began = file.read().split("\n")
    except (OSError, ValueError):
        project, job, began = "", "", ""
    if not alive and not (job and os.path.exists(os.path.join(folder, "out"))):
        _remove_folder(folder)  # of an attended run whose Skelebot was killed, or of one that never began
        return None
    if not job:
        return None  # it is just beginning
    code, ended = _end_of(folder)
    name = os.path.basename(folder)
    state = "running" if alive else "exited"
    return Run(name, name, project, job, NATIVE, "", root, state, None if alive else code, began, ended)


def _remove_abandoned(folder: str) -> None:
    """Remove a folder that has been in the making for a minute: whoever made it was killed."""
    with suppress(OSError):
        if time.time() - os.stat(folder).st_mtime > 60:
            _remove_folder(folder)


def _end_of(folder: str) -> tuple[int | None, str]:
    """The exit code, and when it ended; a run whose supervisor was killed has neither."""
    try:
        with open(os.path.join(folder, "code"), encoding="ascii") as file:
            code, ended = file.read().split("\n")
            return int(code), ended
    except (OSError, ValueError):
        return None, ""


def _is_locked(folder: str) -> bool:
    """Whether a run holds its lock; other readers, who look at the same time, do not count."""
    with suppress(OSError), open(os.path.join(folder, "lock"), encoding="ascii") as lock:
        return not try_lock(lock, shared=True)
    return False


def is_alive(run: Run) -> bool:
    return _is_locked(_folder_of(run))


def process_of(run: Run) -> str:
    """The identity of the run's process, or of its supervisor; empty where nobody has noted it."""
    path = os.path.join(_folder_of(run), "run")
    with suppress(OSError, IndexError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().split("\n")[2]
    return ""


def began(run: Run) -> float:
    """When it was noted that the run has begun, in seconds since 1970."""
    with suppress(OSError):
        return os.stat(os.path.join(_folder_of(run), "run")).st_mtime
    return time.time()


def is_detached(run: Run) -> bool:
    return os.path.exists(os.path.join(_folder_of(run), "out"))


def lock_of(run: Run) -> str:
    return os.path.join(_folder_of(run), "lock")


def _folder_of(run: Run) -> str:
    """The run's folder; that of an attempt is its id."""
    return os.path.join(_runs_folder(run.root), run.id)


def wait(run: Run) -> int:
    """The exit code of a run that another process supervises. Raises Lost where it is not known."""
    while is_alive(run):
        time.sleep(0.05)
    code, _ = _end_of(_folder_of(run))
    if code is None:
        raise Lost(f"it is unknown how {run.job} ended: the process that waited for it was killed")
    return code


def remove(run: Run) -> int:
    """Remove the record of a run that has ended; gives the bytes that it took."""
    folder = _folder_of(run)
    size = 0
    for name in _OUTPUT:
        with suppress(OSError):
            size += os.path.getsize(os.path.join(folder, name))
    _remove_folder(folder)
    return size


def show_output(run: Run, follow: bool, streams: Streams = OWN) -> int:
    """Write what a detached run has written, and with `follow` what it goes on writing."""
    try:
        files = [open(os.path.join(_folder_of(run), name), "rb") for name in _OUTPUT]  # noqa: SIM115 - below
    except FileNotFoundError:
        raise SkelebotError(f"{run.job} writes to the terminal that it was started from") from None
    sinks = (process.writer(streams.stdout, 1), process.writer(streams.stderr, 2))
    try:
        while True:
            alive = follow and is_alive(run)
            for file, sink in zip(files, sinks, strict=True):
                while data := file.read(1 << 16):
                    sink(data)
            if not alive:
                return 0
            time.sleep(0.05)
    finally:
        for file in files:
            file.close()
