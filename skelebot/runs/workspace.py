"""Where a recorded run works: its own outputs, and natively its own copy of the project's files."""

import hashlib
import json
import os
import posixpath
import shutil
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from skelebot import console, runners
from skelebot.errors import SkelebotError
from skelebot.files import copy_file, reason, remove_tree
from skelebot.image import context
from skelebot.image.context import ContextEntry
from skelebot.image.fingerprint import FingerprintCache
from skelebot.image.ignores import Ignores
from skelebot.model import Attempt, Flags, Image, Mount, Output, Task
from skelebot.runners.attempts import Unreachable
from skelebot.runs import environments, metrics, snapshot
from skelebot.runs.record import RunRecord, TaskRecord
from skelebot.runs.store import Store

_MOST_METRICS = 1_000_000  # bytes of a file
TAKEN = "taken-"  # begins the name of a folder with outputs that a run is about to take over


def outputs_folder(store: Store, run: RunRecord) -> str:
    """Return the folder that stands for the project's root where the run's outputs are."""
    return os.path.join(store.run_folder(run.number), "outputs") if run.own else run.root


def attempt_folder(store: Store, run: RunRecord, at: int, attempt: int) -> str:
    """Return the folder of a task's attempt: `log`, `lock`, `run`, `code`."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in run.tasks[at].job)[:60]
    return os.path.join(store.run_folder(run.number), "tasks", f"{at + 1}-{name}.{attempt}")


def attempt_of(store: Store, run: RunRecord, at: int) -> Attempt:
    """Return the last attempt of a task."""
    number = run.tasks[at].attempt
    return Attempt(attempt_folder(store, run, at, number), f"{run.uid}-{at + 1}-{number}")


def metrics_file(attempt: Attempt) -> str:
    """Return the file with what an attempt has measured."""
    return os.path.join(attempt.folder, metrics.NAME)


def read_metrics(store: Store, run: RunRecord, at: int, path: str) -> bytes:
    """Return what a task has left in a file. Raises OSError, and ValueError for one that is too large."""
    task = run.tasks[at]
    shared = (mount.source for mount in task.task.mounts if not (mount.read_only or mount.output))
    tops = [outputs_folder(store, run), f"{_copy(store, run.number)}{run.root}"]
    tops += [run.root] if any(_is_below(os.path.join(run.root, path), each) for each in shared) else []
    for top in tops:
        file = os.path.join(top, path)
        is_own = run.own and top == outputs_folder(store, run)
        # What is shared may still be an earlier run's.
        if os.path.isfile(file) and (is_own or os.stat(file).st_mtime >= task.started - 1):
            with open(file, "rb") as opened:
                data = opened.read(_MOST_METRICS + 1)
            if len(data) > _MOST_METRICS:
                raise ValueError("it has more than 1 MB")
            return data
    raise FileNotFoundError(path)


def results(task: TaskRecord) -> tuple[Output, ...]:
    return tuple(map(Output.parse, task.outputs))


def prepared(store: Store, run: RunRecord, at: int) -> tuple[Image, Task]:
    """Return what to run for a task, in the run's own folders, which are made. Raises SkelebotError."""
    record, attempt = run.tasks[at], attempt_of(store, run, at)
    task = replace(record.task, attempt=attempt, metrics=metrics_file(attempt), keep="all", mode="i")
    if not run.own:
        return record.image, task
    mounts = tuple(_own_mount(store, run, mount) for mount in task.mounts)
    try:
        for output in {output.folder for each in run.tasks for output in results(each)}:
            os.makedirs(os.path.join(outputs_folder(store, run), output), exist_ok=True)
        if task.place.is_native:
            root = _work_folder(store, run, at, mounts)
            task = replace(task, environments=store.environments)
        else:
            root = _engine_folder(store, run)
            os.makedirs(root, exist_ok=True)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        raise SkelebotError(f"the folders of the run cannot be made: {named}{reason(error)}") from None
    return record.image, replace(task, root=root, mounts=mounts)


def _own_mount(store: Store, run: RunRecord, mount: Mount) -> Mount:
    """Return the mount of an output in the run's folder; of anything else as it is."""
    inside = os.path.relpath(mount.source, run.root)
    made = (output.folder for task in run.tasks for output in results(task))
    if mount.output or (mount.read_only and any(_is_below(inside, folder) for folder in made)):
        return mount._replace(source=os.path.join(outputs_folder(store, run), inside))
    return mount


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


# --- what a run reads and makes ---


def data(store: Store, root: str, tasks: Sequence[TaskRecord]) -> tuple[tuple[str, str], ...]:
    """Return the fingerprint of each read-only mapping that no task makes. Raises SkelebotError."""
    made = [os.path.join(root, output.folder) for task in tasks for output in results(task)]
    sources = {mount.source for task in tasks for mount in task.task.mounts if mount.read_only}
    return tuple(
        (source, fingerprint(store, source))
        for source in sorted(sources)
        if not any(_is_below(source, folder) for folder in made)
    )


def fingerprint(store: Store, path: str) -> str:
    """Return the fingerprint of a file or folder; "" where there is none. Raises SkelebotError."""
    try:
        entries = [ContextEntry("", path, os.stat(path))]
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise context.unreadable(path, error) from None
    if os.path.isdir(path):
        entries += context.walk(path, Ignores(()))
    folder = os.path.join(store.folder, "fingerprints")
    os.makedirs(folder, exist_ok=True)
    return FingerprintCache(folder, f"{zlib.crc32(os.fsencode(path)):08x}").fingerprint("", entries, "all")


def made(store: Store, run: RunRecord, at: int) -> str:
    """Return the fingerprint of what a task has made."""
    top = outputs_folder(store, run)
    found = {str(o): fingerprint(store, os.path.join(top, o.path)) for o in results(run.tasks[at])}
    return hashlib.sha256(json.dumps(sorted(found.items())).encode("ascii")).hexdigest()


def copy_outputs(store: Store, run: RunRecord, at: int, top: str) -> None:
    """Copy the outputs of a run's task below another folder, but for pipes. Raises SkelebotError."""
    for output in results(run.tasks[at]):
        source = os.path.join(outputs_folder(store, run), output.path)
        target = os.path.join(top, output.path)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.isdir(source):
                shutil.copytree(source, target, True, _special, copy_file, dirs_exist_ok=True)
            else:
                copy_file(source, target)
        except OSError as error:
            first = (
                error.args[0][0] if isinstance(error, shutil.Error) else (error.filename, 0, reason(error))
            )
            raise SkelebotError(
                f"the outputs of run {run.number} cannot be copied: {first[0]}: {first[2]}"
            ) from None


def _special(folder: str, names: Sequence[str]) -> list[str]:
    """Return which of these are neither files, folders nor links, so that they have no content to copy."""
    modes = ((name, os.lstat(os.path.join(folder, name)).st_mode) for name in names)
    return [n for n, mode in modes if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))]


def copy_metrics(store: Store, run: RunRecord, at: int, folder: str) -> None:
    """Copy what a run's task has measured to the folder of another attempt. Raises SkelebotError.

    What it has left in its files is read from them again.
    """
    own = attempt_of(store, run, at).folder
    try:
        for name in (metrics.NAME, *([metrics.FOUND] if run.tasks[at].metric_patterns else [])):
            with (
                suppress(FileNotFoundError),
                open(os.path.join(own, name), "rb") as source,
                open(os.path.join(folder, metrics.NAME), "ab") as target,
            ):
                shutil.copyfileobj(source, target)
    except OSError as error:
        raise SkelebotError(f"the metrics of run {run.number} cannot be copied: {reason(error)}") from None


# --- what is kept for a run ---


def keep(store: Store, uid: str, tasks: Sequence[TaskRecord]) -> None:
    """Keep the code of a run's tasks."""
    for number, tree in enumerate(_trees(tasks)):
        snapshot.keep(store.folder, tree, f"{uid}-{number}")


def tag(uid: str) -> str:
    """Return the tag by which a run keeps its images. No checkout's own tag ends in so many digits."""
    return f"run-{uid[:12]}"


def unpin(uid: str, tasks: Sequence[TaskRecord], flags: Flags) -> None:
    """Let the images of a run go."""
    for task in tasks:
        with suppress(SkelebotError):
            runners.at(task.task.place, flags).unpin(task.image, tag(uid))


def release(store: Store, run: RunRecord, flags: Flags) -> None:
    """Let the code and the images of a run go, and what it has left on other engines.

    What others share stays. The run is no longer in the store.
    """
    forget_elsewhere(store, run, flags, with_images=True)
    if run.kept_as and run.sweep and store.is_kept(run.sweep.name, run.kept_as):
        return
    name = run.kept_as or run.uid
    unpin(name, run.at_home().tasks, flags)
    environments.forget(store, tag(name))
    for number, _ in enumerate(_trees(run.tasks)):
        snapshot.forget(store.folder, f"{name}-{number}")


def forget_elsewhere(store: Store, run: RunRecord, flags: Flags, with_images: bool = False) -> None:
    """Remove what a run, whose results are here, has left on engines of other machines.

    with_images: whether also to let those images go that were sent there.
    """
    images = {each.task.place: each.image for each in run.tasks if each.task.place.host}
    images |= dict.fromkeys(run.taken_to, run.tasks[0].image)
    for place, image in images.items():
        try:
            runners.at(place, flags).forget(replace(image, context=_engine_folder(store, run)))
        except Unreachable:
            console.warn(f"{place} does not answer, so what run {run.number} has left there stays")
            continue
        except SkelebotError:
            pass
        if with_images and place in run.taken_to:
            unpin(run.uid, run.at_place(place).tasks, flags)


def _engine_folder(store: Store, run: RunRecord) -> str:
    """Return the folder that is the root of a run's tasks in containers."""
    return os.path.join(store.run_folder(run.number), "engine")


def _trees(tasks: Sequence[TaskRecord]) -> list[str]:
    return list(dict.fromkeys(task.tree for task in tasks))


# --- natively ---


def _work_folder(store: Store, run: RunRecord, at: int, mounts: tuple[Mount, ...]) -> str:
    """Return the root of a fresh copy of the run's files, with links to what is mapped. Raises OSError.

    Everything is at its whole path below one folder, so that a mapping of `../data` is found.
    """
    top = _copy(store, run.number)
    remove_tree(top)
    root = f"{top}{run.root}"
    os.makedirs(root)
    snapshot.restore(store.folder, run.tasks[at].tree, root)
    top_of_outputs = outputs_folder(store, run)
    mapped = ((mount.source, f"{top}{place}") for mount, place in _places(run, at, mounts, top_of_outputs))
    for source, target in sorted(mapped, key=lambda pair: len(pair[1])):
        _link(source, target, top)
    return root


def _copy(store: Store, number: int) -> str:
    return os.path.join(store.run_folder(number), "work")


def remove_copy(store: Store, number: int) -> None:
    """Remove the copy of the project's files, which the next attempt makes again."""
    remove_tree(_copy(store, number))


def _places(run: RunRecord, at: int, mounts: tuple[Mount, ...], outputs: str) -> Iterator[tuple[Mount, str]]:
    """Yield the mounts that a native job finds by a path from its root, with the path in the checkout.

    The outputs of all tasks are among them, as a native job sees them in a checkout, too.
    """
    for output in {output.folder for task in run.tasks for output in results(task)}:
        yield Mount(os.path.join(outputs, output), ""), os.path.join(run.root, output)
    for before, mount in zip(run.tasks[at].task.mounts, mounts, strict=True):
        inside = os.path.relpath(before.source, run.root)
        above = inside.split(os.sep).count(os.pardir)
        if inside != "." and above < len(run.root.split(os.sep)) - 1:
            yield mount, before.source


def _link(source: str, target: str, top: str) -> None:
    """Let a path of the copy lead to a mapped folder, in place of what is there."""
    for parent in _parents(target, top):
        if os.path.islink(parent):
            return  # it is below a mapped folder already
    if os.path.isdir(target) and not os.path.islink(target):
        remove_tree(target)
    elif os.path.lexists(target):
        os.unlink(target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.symlink(source, target)


def _parents(path: str, top: str) -> Iterator[str]:
    while (path := posixpath.dirname(path)) not in (top, "/"):
        yield path
