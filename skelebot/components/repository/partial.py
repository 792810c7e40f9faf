"""Downloads that are not finished: kept for the next call, with one call at a time on each."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from skelebot import console, files
from skelebot.components.repository.store import Stored, Unusable
from skelebot.components.repository.target import remove
from skelebot.project.state import own_folder

_KEEP_SECONDS = 7 * 24 * 3600  # for which an interrupted download is kept


@contextmanager
def target_lock(root: str, target: str) -> Iterator[None]:
    """Hold the right to replace a file or folder of the project. Raises OSError."""
    with _locked(os.path.join(_folder(root), _digest(target)), f"to {target}"):
        yield


@contextmanager
def partial_file(root: str, key: str, stored: Stored) -> Iterator[str]:
    """Yield the path of the file that an object is downloaded to, the same in each call.

    It is removed when the block ends well or raises Unusable, and after a week in any case.
    """
    parts = _folder(root)
    folder = os.path.join(parts, _digest(f"{key}\0{stored.size}\0{stored.sha256 or stored.tag}"))
    with _locked(folder, f"of {key}"):
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


def _locked(path: str, what: str) -> AbstractContextManager[None]:
    """Hold the lock of a partial file. Raises OSError."""
    return files.temporary_lock(f"{path}.lock", lambda: console.info(f"waiting for another pull {what}"))
