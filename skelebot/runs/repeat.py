"""Repeat a run: the same files, image, arguments, variables and data, and what of that is not to be had."""

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

from skelebot import console, runners
from skelebot.errors import SkelebotError
from skelebot.files import private_folder
from skelebot.model import Flags
from skelebot.pipeline import contents
from skelebot.project.state import checkout_id
from skelebot.runners.runner import Runner
from skelebot.runs import difference, environments, machine, outputs, outside, packages, snapshot, workspace
from skelebot.runs.record import RunRecord, TaskRecord
from skelebot.runs.store import Store


def repetition(run: RunRecord, uid: str, created: float) -> RunRecord:
    """Return a new run of the same tasks, none of which has begun. It takes over nothing."""
    run = run.at_home()
    return replace(
        run,
        taken_to=(),
        uid=uid,
        number=0,
        tasks=tuple(map(_unbegun, run.tasks)),
        state="queued",
        tags=(),
        note="",
        after=(),
        created=created,
        started=0.0,
        ended=0.0,
        parent=run.number,
        reason="",
        asked="",
        mlflow_run="",
        own=True,
        kept_as="",
    )


def _unbegun(task: TaskRecord) -> TaskRecord:
    return TaskRecord(
        job=task.job,
        tree=task.tree,
        image=task.image,
        task=task.task,
        params=task.params,
        outputs=task.outputs,
        retries=task.retries,
        metric_files=task.metric_files,
        metric_patterns=task.metric_patterns,
        blanks=task.blanks,
    )


# --- what cannot be the same ---


def changes(store: Store, run: RunRecord, flags: Flags) -> list[str]:
    """Return what cannot be the same when a run is repeated now, each as a line."""
    run = run.at_home()  # which has its images
    return [
        *_shared_folders(run),
        *_changed_images(run, flags),
        *_changed_data(store, run),
        *_changed_variables(store, run),
        *_changed_packages(store, run, flags),
    ]


def other_machine(run: RunRecord) -> list[str]:
    """Return how this machine differs from the one that a run had, each as a line; any may repeat it."""
    now = difference.machine([replace(task, machine=machine.of(task.task)) for task in run.tasks])
    return [
        f"machine: the {name} was {before}, and is {now.get(name, 'unknown')} here"
        for name, before in difference.machine(run.tasks).items()
        if now.get(name) != before
    ]


def _shared_folders(run: RunRecord) -> Iterator[str]:
    """Name the folders of the checkout that a run in place wrote to without declaring them as outputs."""
    for mount in {mount for task in run.tasks for mount in task.task.mounts} if not run.own else ():
        if not mount.read_only and not mount.output:
            yield f"mapping {difference.data_name(run, mount.source)}: the job writes to the checkout there"


def _changed_images(run: RunRecord, flags: Flags) -> Iterator[str]:
    seen = set()
    for task in run.tasks:
        key = (task.task.place, task.image.tag, task.image.pinned)
        if not task.task.place.is_native and key not in seen:
            seen.add(key)
            if problem := _missing_image(runners.at(task.task.place, flags), task):
                yield f"image {task.image.tag}: {problem}"


def _missing_image(runner: Runner, task: TaskRecord) -> str:
    if not task.image.pinned:
        return "it is not known, as the job did not run"
    try:
        with runner.prepare(task.image, task.task):
            return ""
    except SkelebotError as error:
        return str(error).partition("; ")[0]


def _changed_data(store: Store, run: RunRecord) -> Iterator[str]:
    for source, before in run.data:
        now = workspace.fingerprint(store, source)
        if now != before:
            was = f"was {before[:12]}" if before else "was missing"
            yield f"data {source}: {was}, {f'is {now[:12]}' if now else 'is missing'} now"


def _changed_variables(store: Store, run: RunRecord) -> Iterator[str]:
    for task in run.tasks:
        if "***" in task.task.argv:
            yield f"secret of {task.job}: it was typed, and such a value is not stored"
    hashes = dict(run.variables)
    for name, secret in outside.secrets(run.tasks).items():
        now = outside.known_hash(store.folder, secret, os.environ)
        where = secret.file or "the environment"
        if now is None:
            yield f"variable {name}: is not set in {where}"
        elif not hashes.get(name):
            yield f"variable {name}: its value in the store of the first run is not known here"
        elif now != hashes[name]:
            yield f"variable {name}: has another value in {where}"


def _changed_packages(store: Store, run: RunRecord, flags: Flags) -> Iterator[str]:
    """Compare the packages of native environments, which are made where they are missing."""
    natives = [task for task in run.tasks if task.task.place.is_native]
    idents = set(run.packages) - {id for _, id in run.images}
    if not natives or not idents:
        return
    before = packages.of(store, sorted(idents))
    now = packages.versions(line for task in natives for line in _packages(store, task, flags))
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield f"package {name}: was {before.get(name, 'missing')}, is {now.get(name, 'missing')} now"


def _packages(store: Store, task: TaskRecord, flags: Flags) -> list[str]:
    # Its dependencies may name files of the project.
    with private_folder() if task.task.dependencies else nullcontext("") as folder:
        root = os.path.join(folder, "files") if folder else task.task.root
        if folder:
            snapshot.restore(store.folder, task.tree, root)
        native = replace(task.task, root=root, environments=store.environments)
        runner = runners.at(native.place, flags)
        with runner.prepare(task.image, native) as ready:
            return runner.packages(ready, native)


# --- freezing it again ---


def freeze(store: Store, run: RunRecord, flags: Flags) -> RunRecord:
    """Return a run that repeats another, with its code and images kept. Raises SkelebotError.

    An image that has gone is built again from the run's files.
    """
    again = repetition(run, os.urandom(16).hex(), time.time())
    tasks: list[TaskRecord] = []
    images: dict[str, str] = {}
    try:
        for task in again.tasks:
            is_native = task.task.place.is_native
            pinned = "" if is_native else _pin(store, task, workspace.tag(again.uid), flags)
            tasks.append(replace(task, image=replace(task.image, pinned=pinned)))
            images |= {task.image.tag: pinned} if pinned else {}
        workspace.keep(store, again.uid, tasks)
        environments.keep_also(store, workspace.tag(run.kept_as or run.uid), workspace.tag(again.uid))
    except BaseException:
        workspace.unpin(again.uid, tasks, flags)
        raise
    return replace(
        again,
        tasks=tuple(tasks),
        images=tuple(images.items()),
        variables=tuple(
            (name, outside.known_hash(store.folder, secret, os.environ) or "")
            for name, secret in outside.secrets(tasks).items()
        ),
        data=tuple((source, workspace.fingerprint(store, source)) for source, _ in run.data),
    )


def _pin(store: Store, task: TaskRecord, name: str, flags: Flags) -> str:
    """Tag a task's image, which is built from the run's files where it has gone; return its id."""
    runner = runners.at(task.task.place, flags._replace(skip_build=False))
    if not _missing_image(runner, task):
        with runner.prepare(task.image, task.task) as ready:
            return runner.pin(ready, name)
    console.info(f"building {task.image.tag} again, from the files of the run")
    with private_folder() as folder:
        root = os.path.join(folder, "files")
        snapshot.restore(store.folder, task.tree, root)
        # Under a name of its own: that of the project is the checkout's.
        repository = task.image.tag.partition(":")[0]
        image = replace(task.image, tag=f"{repository}:{name}", context=root, pinned="", ephemeral=True)
        with runner.prepare(image, replace(task.task, root=root)) as ready:
            id = runner.pin(ready, name)
        runner.unpin(image, f"{name}-{checkout_id(root)}")
        return id


# --- comparing it with the first ---


def _compare_outputs(
    store: Store, run: RunRecord, again: RunRecord, ignored: tuple[str, ...]
) -> outputs.Comparison:
    paths = {output.path for task in run.tasks for output in workspace.results(task)}
    first, second = workspace.outputs_folder(store, run), workspace.outputs_folder(store, again)
    return outputs.compare(first, second, sorted(paths), ignored)


def _compare_marks(
    store: Store, run: RunRecord, again: RunRecord, ignored: tuple[str, ...]
) -> outputs.Comparison:
    """Compare the outputs with the fingerprints of those that a run has left in the checkout."""
    folder = os.path.join(store.folder, "fingerprints")
    os.makedirs(folder, exist_ok=True)
    pairs = (
        pair for task in run.tasks for pair in zip(workspace.results(task), task.made.split(), strict=False)
    )
    made = {output: mark for output, mark in pairs if not {output.path, str(output)} & set(ignored)}
    top = workspace.outputs_folder(store, again)
    differing = {
        str(output): "other content"
        for output, mark in made.items()
        if contents.outputs(top, [output]).fingerprint(folder) != mark
    }
    return outputs.Comparison(tuple(str(each) for each in made if str(each) not in differing), differing)


def compare(store: Store, run: RunRecord, again: RunRecord, ignored: tuple[str, ...]) -> outputs.Comparison:
    """Compare outputs and metrics of two runs; `ignored` names what does not count."""
    compare_them = _compare_outputs if run.own else _compare_marks
    found = compare_them(store, run, again, ignored)
    before, now = difference.metrics(run), difference.metrics(again)
    differing = {
        f"metric {name}": f"was {before.get(name, 'missing')}, is {now.get(name, 'missing')}"
        for name in sorted({*before, *now} - set(ignored))
        if before.get(name) != now.get(name)
    }
    return outputs.Comparison(found.same, found.differing | differing)
