"""Take over what the same task of another run has made: `cache: true`."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from skelebot import console
from skelebot.errors import SkelebotError, UsageError
from skelebot.files import reason, remove_tree, temporary_lock
from skelebot.json_form import to_json
from skelebot.model import Mount
from skelebot.pipeline.key import keyed_hash
from skelebot.runs import workspace
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store
from skelebot.secret import Secret, Word, reveal, reveal_all


def key(store: Store, run: RunRecord, at: int) -> str:
    """Return the key of a task as it would run now: all that decides what it makes. Raises SkelebotError."""
    record = run.tasks[at]
    task = run.at_home().tasks[at].task  # what it makes is the same wherever a worker takes it
    known = {**os.environ, **reveal_all(task.env, os.environ)}
    data = dict(run.data)

    def shown(word: Word) -> str:
        if not isinstance(word, Secret):
            return word
        return keyed_hash(store.folder, reveal(word, known).encode("utf-8", "surrogateescape"))

    def mapped(mount: Mount) -> list[Any]:
        source = os.path.relpath(mount.source, run.root)
        return [source, mount.target, mount.read_only, mount.output, data.get(mount.source, "")]

    parts = {
        "job": record.job,
        "tree": record.tree,
        "image": record.image.pinned or run.packages,
        "argv": [shown(word) for word in task.argv],
        "env": [[name, shown(word)] for name, word in task.env],
        "mounts": [mapped(mount) for mount in task.mounts],
        "user": task.user,
        "place": to_json(task.place),
        "outputs": record.outputs,
        "before": [workspace.made(store, run, i) for i in range(at)],
    }
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def alone(store: Store, key: str) -> Iterator[None]:
    """Let one run at a time make what belongs to a key, for the others take it over then; "" is nobody's."""
    if not key:
        yield
        return
    path = os.path.join(store.folder, f"made-{key[:16]}.lock")
    with ExitStack() as held:
        try:
            held.enter_context(temporary_lock(path, _say_waiting))
        except OSError as error:
            raise SkelebotError(f"{path} cannot be locked: {reason(error)}") from None
        yield


def _say_waiting() -> None:
    console.info("waiting for another run that makes the same")


def take_over(store: Store, run: RunRecord, at: int, key: str) -> int:
    """Copy what another run has made for that key; return its number, or 0 if none has, or it has changed."""
    number, place = store.made(key) or (0, 0)
    if number in (0, run.number):  # one that is to run again is not taken over from itself
        return 0
    try:
        other = store.get(number)
    except UsageError:  # it was removed just now
        return 0
    if not _is_whole(store, other, place):
        return 0  # a later task of that run has changed it
    top = workspace.outputs_folder(store, run)
    try:
        workspace.copy_outputs(store, other, place, top)
        if _is_whole(store, other, place):
            workspace.copy_metrics(store, other, place, workspace.attempt_of(store, run, at).folder)
            return number
        console.warn(f"the outputs of run {number} were removed while they were copied")
    except SkelebotError as error:
        console.warn(str(error))
    for output in workspace.results(run.tasks[at]):
        path = os.path.join(top, output.path)
        remove_tree(path)
        with suppress(OSError):
            os.unlink(path)
    return 0


def _is_whole(store: Store, run: RunRecord, at: int) -> bool:
    """Tell whether the outputs of a task are still what it has made."""
    made = run.tasks[at].made
    return made != "" and workspace.made(store, run, at) == made
