"""Downloads that are not finished: kept for the next call, with one call at a time on each."""

import hashlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from skelebot import console, files
from skelebot.components.repository.store import BLOCK, Stored, Unusable
from skelebot.components.repository.target import remove
from skelebot.project.state import own_folder

_KEEP_SECONDS = 7 * 24 * 3600  # for which an interrupted download is kept


@contextmanager
def target_lock(root: str, target: str) -> Iterator[None]:
    """Hold the right to replace a file or folder of the project. Raises OSError."""
    with _temporary_lock(os.path.join(_folder(root), _digest(target)), f"to {target}"):
        yield


@contextmanager
def partial_file(root: str, key: str, stored: Stored) -> Iterator[str]:
    """Yield the path of the file that an object is downloaded to, the same in each call.

    It is removed when the block ends well or raises Unusable, and after a week in any case.
    """
    parts = _folder(root)
    folder = os.path.join(parts, _digest(f"{key}\0{stored.size}\0{stored.sha256 or stored.tag}"))
    with _temporary_lock(folder, f"of {key}"):
        os.makedirs(folder, exist_ok=True)
        os.utime(folder)
        _remove_outdated(parts)
        try:
            yield os.path.join(folder, "data")
        except Unusable:
            remove(folder)
            raise
        remove(folder)


def _folder(root: str) -> str:
    parts = os.path.join(own_folder(root), "parts")
    os.makedirs(parts, exist_ok=True)
    return parts


def _remove_outdated(parts: str) -> None:
    oldest = time.time() - _KEEP_SECONDS
    for name in os.listdir(parts):
        path = os.path.join(parts, name)
        with suppress(FileNotFoundError):  # another pull removed it
            if os.lstat(path).st_mtime < oldest:
                remove(path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


@contextmanager
def _temporary_lock(path: str, what: str) -> Iterator[None]:
    """Hold a lock whose file is removed with it. Raises OSError."""
    path = f"{path}.lock"
    while True:
        with files.locked(path, on_wait=lambda: console.info(f"waiting for another pull {what}")) as lock:
            if not _is_at(lock.fileno(), path):
                continue  # the former holder removed the file that this call waited for
            try:
                yield
            finally:
                remove(path)
            return


def _is_at(number: int, path: str) -> bool:
    """Whether an open file is the one with that name."""
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except FileNotFoundError:
        return False


class Checksum:
    """The SHA-256 of a file, computed by a thread while the file arrives."""

    def __init__(self, path: str) -> None:
        self._path, self._digest, self._done = path, hashlib.sha256(), 0
        # A signal may interrupt the caller of `add`, which could leave a condition broken.
        self._counts: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Checksum":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._counts.put(None)

    def add(self, count: int) -> None:
        """Report the number of further bytes that are complete from the beginning of the file."""
        self._counts.put(count)

    def sha256(self) -> str:
        """The checksum of the whole file, which is complete now. Raises OSError."""
        self._counts.put(None)
        self._thread.join()
        self._read(os.path.getsize(self._path))
        return self._digest.hexdigest()

    def _follow(self) -> None:
        complete = 0
        with suppress(OSError):  # reading the rest will raise it again
            while (count := self._counts.get()) is not None:
                complete += count
                self._read(complete)

    def _read(self, end: int) -> None:
        with open(self._path, "rb") as file:
            file.seek(self._done)
            while block := file.read(min(BLOCK, end - self._done)):
                self._digest.update(block)
                self._done += len(block)
