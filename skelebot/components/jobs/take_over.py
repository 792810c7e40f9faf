"""Take over the finished links of an earlier run, when a chain is queued again with other code."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from skelebot import console
from skelebot.component import Link
from skelebot.errors import SkelebotError
from skelebot.files import remove_tree
from skelebot.image.ignores import Ignores
from skelebot.model import Job, Project, project_path
from skelebot.project.sources import script
from skelebot.runs import difference, snapshot, workspace
from skelebot.runs.record import RunRecord, TaskRecord
from skelebot.runs.store import Store
from skelebot.secret import Secret


def take_over(
    store: Store, run: RunRecord, earlier: RunRecord, links: Sequence[Link], anyway: bool
) -> tuple[RunRecord, str]:
    """Return the run with the finished links of an earlier one, and a folder with copies of their outputs.

    Says which links these are, and what has changed since. Raises SkelebotError if one of them reads a file
    that has changed, unless `anyway`.
    """
    jobs = [link.command.job for link in links if link.command.job]
    project = links[0].session.project
    taken = list(_finished(run.tasks, earlier.tasks))
    for at in taken:
        changed = _changed(store, run.tasks[at].tree, earlier.tasks[at].tree)
        own = [path for path in changed if _reads(project, jobs[at], path)]
        own += _changed_beside(run, earlier, at)
        if own and not anyway:
            raise SkelebotError(
                f"{jobs[at].name} of run {earlier.number} cannot be taken over, as this changed since: "
                f"{_listed(own)}; queue the chain again, or add --anyway"
            )
        changed += [each for each in own if each not in changed]
        since = f"; changed since: {_listed(changed)}" if changed else ""
        console.info(f"{jobs[at].name} is taken over from run {earlier.number}{since}")
    if not taken:
        console.info(f"no link of run {earlier.number} can be taken over; all of them run")
    top = os.path.join(store.folder, f"{workspace.TAKEN}{run.uid}")
    try:
        os.makedirs(top)
        for at in taken:
            workspace.copy_outputs(store, earlier, at, top)
            run = run.with_task(at, state="done", code=0, taken_from=earlier.number)
        if earlier.has_ended:
            store.check_unchanged([earlier])
    except BaseException:
        remove_tree(top)
        raise
    return replace(run, parent=earlier.number), top


def _finished(tasks: Sequence[TaskRecord], earlier: Sequence[TaskRecord]) -> Iterator[int]:
    """Yield the places of the first links that are done and have the same values."""
    for at, (now, before) in enumerate(zip(tasks, earlier, strict=False)):
        if before.state != "done" or (now.job, now.params, now.outputs) != (
            before.job,
            before.params,
            before.outputs,
        ):
            return
        yield at


def _changed(store: Store, now: str, before: str) -> list[str]:
    """Return the paths that differ between two snapshots."""
    if now == before:
        return []
    a, b = snapshot.contents(store.folder, now), snapshot.contents(store.folder, before)
    return sorted(path for path in a.keys() | b.keys() if a.get(path) != b.get(path))


def _changed_beside(run: RunRecord, earlier: RunRecord, at: int) -> Iterator[str]:
    """Yield what differs of that which a task gets besides the files: its command, variables, mapped data."""
    now, before = run.tasks[at].task, earlier.tasks[at].task
    if now.argv != before.argv:
        yield "its command"
    known, earlier_known = dict(now.env), dict(before.env)
    hashes, earlier_hashes = dict(run.variables), dict(earlier.variables)
    names = {**known, **earlier_known, **{word.name: word for word in now.argv if isinstance(word, Secret)}}
    for name in names:
        if known.get(name) != earlier_known.get(name) or hashes.get(name) != earlier_hashes.get(name):
            yield f"variable {name}"
    data, earlier_data = difference.data(run), difference.data(earlier)
    for mount in now.mounts:
        path = difference.data_name(run, mount.source)
        if mount.read_only and data.get(path) != earlier_data.get(path):
            yield path


def _reads(project: Project, job: Job, path: str) -> bool:
    """Tell whether a file is one that a job names: in its command, as its script is, or in its inputs."""
    source = script(project.root, job.source)
    words = [source] if source else re.split(r"[\s\"'`$(){};|&<>=]+", job.source)
    named = {os.path.normpath(word) for word in words if word}
    is_named = any(f"{path}/".startswith(f"{word}/") for word in named)
    return is_named or Ignores(tuple(map(project_path, job.inputs or ()))).excludes(path)


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(map(console.one_line, paths[:3])) + more
