"""`runs export` and `runs import`: runs in a file, for another store."""

import os

from skelebot import console
from skelebot.component import Session
from skelebot.components.runs.change import numbers_of
from skelebot.components.runs.work import check_project
from skelebot.errors import UsageError
from skelebot.files import output_path
from skelebot.options import Values
from skelebot.runs import bundle
from skelebot.runs import store as stores


def export(session: Session, values: Values) -> int:
    store, path = stores.opened(), output_path(str(values["<file>"]))
    runs = [store.get(number) for number in numbers_of(values)]
    if not runs:
        raise UsageError("runs export: a run is missing; usage: skelebot runs export FILE RUN [RUN ...]")
    for run in runs:
        if not run.has_ended:
            raise UsageError(f"run {run.number} is {run.state}; only one that has ended can be exported")
    if session.flags.dry_run:
        console.out(f"write {console.counted(len(runs), 'run')} to {path}")
        return 0
    for name in bundle.write(store, runs, path):
        console.warn(f"{name} was left out: it is a link that leads out of the outputs, or not a file")
    size = console.size(os.path.getsize(path))
    console.info(f"{console.counted(len(runs), 'run')} in {path} ({size})")
    return 0


def import_(session: Session, values: Values) -> int:
    check_project(session)
    store, project = stores.opened(), session.optional_project
    path = str(values["<file>"])
    if session.flags.dry_run:
        console.out(f"add the runs in {path}")
        return 0
    added, known = bundle.read(store, path, (project.name, project.root) if project else None)
    for uid in known:
        console.info(f"run {uid} is in this store already")
    for run in added:
        console.out(str(run.number))
    return 0
