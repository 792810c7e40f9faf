"""The Python environments of native runs, which the store has once for each set of packages.

STORE/environments/HASH/NAME        an environment
STORE/environments/HASH/NAME.lock   shared by those that use it
STORE/environments/HASH/runs/TAG    a run that has it, written by the native runner's `pin`
"""

import glob
import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

from skelebot.files import open_lock, remove_tree, try_lock
from skelebot.runs.outputs import size
from skelebot.runs.store import Store


def keep_also(store: Store, tag: str, other: str) -> None:
    """Keep the environments of a run for another one, too."""
    for path in _notes(store, tag):
        with suppress(OSError), open(os.path.join(os.path.dirname(path), other), "wb"):
            pass


def forget(store: Store, tag: str) -> None:
    """Keep environments for a run no longer."""
    for path in _notes(store, tag):
        with suppress(OSError):
            os.unlink(path)


def _notes(store: Store, tag: str) -> list[str]:
    return glob.glob(os.path.join(glob.escape(store.environments), "*", "runs", glob.escape(tag)))


def unused(store: Store, kept: Collection[str], going: Collection[str], young: float) -> dict[str, int]:
    """Return the folders of environments that no run has any more, with their bytes.

    kept, going: the tags of the runs that stay and of those that are about to go. Any other one is being
    queued, or was when its process was killed more than `young` seconds ago.
    """
    folders = (folder for folder in _folders(store) if _is_unused(folder, kept, going, young))
    return {folder: bytes_ for folder in folders if (bytes_ := size(folder))}


def _is_unused(folder: str, kept: Collection[str], going: Collection[str], young: float) -> bool:
    runs = os.path.join(folder, "runs")
    tags = set(os.listdir(runs) if os.path.isdir(runs) else ()) - set(going)
    others = (os.path.join(runs, tag) for tag in tags - set(kept))
    return not tags & set(kept) and not any(_is_younger(path, young) for path in others)


def _folders(store: Store) -> Iterator[str]:
    if os.path.isdir(store.environments):
        yield from (entry.path for entry in os.scandir(store.environments) if entry.is_dir())


def _is_younger(path: str, seconds: float) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - os.stat(path).st_mtime < seconds
    return False


def remove(folder: str, kept: Collection[str], young: float) -> bool:
    """Remove an environment, unless a job uses it or a run has it again; tell whether it could be done.

    The file of its lock stays, as whoever waits for it rebuilds the environment.
    """
    locks = [open_lock(path) for path in glob.glob(os.path.join(glob.escape(folder), "*.lock"))]
    try:
        if not all(map(try_lock, locks)) or not _is_unused(folder, kept, (), young):
            return False
        for entry in os.scandir(folder):
            if entry.is_dir():
                remove_tree(entry.path)
        return True
    finally:
        for lock in locks:
            lock.close()
