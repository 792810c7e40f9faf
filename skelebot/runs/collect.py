"""Remove old runs: their files, the tags of their images, their code."""

import glob
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial

from skelebot.files import PART, remove_tree
from skelebot.model import Flags
from skelebot.runs import environments, outputs, snapshot, supervise, workspace
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store

_OUTPUTS = ("outputs", "work", "engine")  # what a run works in


def expired(
    runs: Sequence[RunRecord], now: float, older: float = 0, keep: int = 0, needed: Collection[int] = ()
) -> list[RunRecord]:
    """Return the runs that may go, the oldest first.

    older: seconds since they ended. keep: how many of each project stay. needed: runs that others wait for.
    """
    kept: dict[str, int] = {}
    found = []
    for run in sorted(runs, key=lambda run: run.number, reverse=True):
        kept[run.project] = kept.get(run.project, 0) + 1
        is_old = max(now - (run.ended or run.created), 0) >= older  # the clock may have been set back
        if kept[run.project] > keep and is_old and may_go(run) and run.number not in needed:
            found.append(run)
    return found[::-1]


def may_go(run: RunRecord) -> bool:
    """Tell whether a run neither waits nor runs, and nobody has tagged it."""
    return run.has_ended and not run.tags


def size(store: Store, run: RunRecord, outputs_only: bool) -> int:
    """Return the bytes of a run's files, or of its outputs."""
    folder = store.run_folder(run.number)
    return sum(outputs.size(os.path.join(folder, name)) for name in (_OUTPUTS if outputs_only else ("",)))


def remove(store: Store, run: RunRecord, outputs_only: bool, flags: Flags) -> bool:
    """Remove a run or its outputs; tell whether that could be done.

    It stays if somebody supervises it, or if it was tagged or queued again meanwhile.
    """
    lock = supervise.take(store, run.number)
    if lock is None:
        return False
    with lock:
        if outputs_only:
            return _remove_outputs(store, run.number)
        if not store.remove(run.number, may_go):
            return False
    workspace.release(store, run, flags)
    return True


def _remove_outputs(store: Store, number: int) -> bool:
    """Set the folders aside while nobody can queue the run again, and remove them."""
    aside: list[str] = []
    store.update(number, partial(_set_aside, store, aside))
    for path in aside:
        remove_tree(path)
    return bool(aside)


def _set_aside(store: Store, aside: list[str], run: RunRecord) -> RunRecord:
    for name in _OUTPUTS if may_go(run) else ():
        path = os.path.join(store.run_folder(run.number), name)
        if os.path.isdir(path):
            aside.append(f"{path}.{os.urandom(4).hex()}{PART}")
            os.rename(path, aside[-1])
    return run


def unused_environments(store: Store, going: Sequence[RunRecord]) -> dict[str, int]:
    """Return the folders of Python environments that no run has once these have gone, with their bytes."""
    numbers = {run.number for run in going}
    tags = {number: workspace.tag(name) for number, name in store.names_kept().items()}
    kept = {tag for number, tag in tags.items() if number not in numbers}
    return environments.unused(store, kept, set(tags.values()) - kept, snapshot.YOUNG)


def remove_environment(store: Store, folder: str) -> bool:
    """Remove an environment that no run has any more; tell whether that could be done."""
    kept = set(map(workspace.tag, store.names_kept().values()))
    return environments.remove(folder, kept, snapshot.YOUNG)


def sweep(store: Store) -> int:
    """Remove what killed processes have left, and code that no run has; return how many bytes that frees."""
    freed = 0
    for path in (*store.abandoned(), *_unfinished(store)):
        freed += outputs.size(path)
        remove_tree(path)
        with suppress(OSError):
            os.unlink(path)
    return freed + snapshot.collect(store.folder)


# What an import, a change of a run, `queue --take-over` and a worker leave when they are killed.
_UNFINISHED = (f"*{PART}", f"runs/*/*{PART}", f"{workspace.TAKEN}*", "made-*.lock", "workers/*.new")


def _unfinished(store: Store) -> Iterator[str]:
    """Yield what killed processes have left unfinished; what is young may be in use."""
    top = glob.escape(store.folder)
    for path in (path for pattern in _UNFINISHED for path in glob.glob(os.path.join(top, pattern))):
        with suppress(FileNotFoundError):
            if time.time() - os.lstat(path).st_mtime > snapshot.YOUNG:
                yield path
