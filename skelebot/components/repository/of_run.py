"""Artifacts that a recorded run has made."""

import os
from collections.abc import Sequence
from dataclasses import replace

from skelebot import console
from skelebot.components.repository import find
from skelebot.components.repository.settings import Artifact
from skelebot.components.repository.store import Origin
from skelebot.errors import SkelebotError
from skelebot.model import Project
from skelebot.runs import store as stores
from skelebot.runs import workspace
from skelebot.runs.record import RunRecord


def items(
    project: Project, artifacts: Sequence[Artifact], prefix: str, version: str | None, number: int
) -> list[find.Item]:
    """Return the versions of artifacts that are outputs of a run. Raises UsageError and SkelebotError."""
    store = stores.opened()
    run = store.get(number)
    _check(project, run)
    for artifact in artifacts:
        _check_output(run, artifact)
    top, origin = workspace.outputs_folder(store, run), _origin(run)
    found = [find.in_project(top, artifact, prefix, version) for artifact in artifacts]
    return [replace(item, origin=origin) for item in found]


def _origin(run: RunRecord) -> Origin:
    known = (("run", str(run.number)), ("uid", run.uid), ("commit", run.commit))
    return tuple((name, value) for name, value in known if value)


def _check(project: Project, run: RunRecord) -> None:
    if run.project != project.name:
        raise SkelebotError(
            f"run {run.number} is of {run.project}, not of {project.name}; change into a checkout of that"
        )
    if not run.own:
        raise SkelebotError(f"run {run.number} wrote to the checkout itself; push without --run")
    if not run.has_ended:
        raise SkelebotError(f"run {run.number} is {run.state}; push its outputs when it has ended")
    if run.state != "done":
        console.warn(f"run {run.number} is {run.state}, so its outputs may be incomplete")


def _check_output(run: RunRecord, artifact: Artifact) -> None:
    outputs = [output for task in run.tasks for output in workspace.results(task)]
    path = os.path.normpath(artifact.file)
    if not any(output.holds(path) for output in outputs):
        named = ", ".join(dict.fromkeys(map(str, outputs))) or "none"
        raise SkelebotError(
            f"{artifact.name}: {artifact.file} is not an output of run {run.number}, which has {named}"
        )
