"""What is recorded of a run besides its tasks, as pairs of a name and a line."""

from collections.abc import Iterator

from skelebot import console
from skelebot.runs.difference import machine, plain_variables
from skelebot.runs.record import RunRecord, iso, seconds


def origin(run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield where a run is from, and when it ran."""
    yield "project", f"{run.project}, in {run.root}" + (f", environment {run.env}" if run.env else "")
    yield "where", run.where + ("" if run.own else ", in the checkout itself")
    for name, when in (("created", run.created), ("started", run.started), ("ended", run.ended)):
        if when:
            yield name, str(iso(when))
    if run.ended:
        yield "took", console.duration(seconds(run) or 0)
    if run.commit:
        changed = {True: ", with changes", False: "", None: ", perhaps with changes"}[run.dirty]
        remote = f", from {run.remote}" if run.remote else ""
        yield "commit", f"{run.commit}{f' on {run.branch}' if run.branch else ''}{remote}{changed}"
    yield from (("code", tree) for tree in dict.fromkeys(task.tree for task in run.tasks))
    if run.priority:
        yield "priority", str(run.priority)


def surroundings(run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield what a run had around it: data, machine and variables, without the values of secrets."""
    for path, fingerprint in run.data:
        yield "data", f"{path}: {fingerprint[:12] or 'was not there'}"
    yield from (("machine", f"{part} {text}") for part, text in machine(run.tasks).items())
    yield from (("variable", f"{name} = {value}") for name, value in plain_variables(run).items())
    for name, _ in run.variables:
        yield "variable", f"{name}, from the worker's environment or an envFile"
