"""Validate a job's values before any job of a chain runs: by a source of its own, or its class's method."""

from collections.abc import Iterator
from dataclasses import replace

from skelebot import launch
from skelebot.component import Session
from skelebot.components.jobs import run
from skelebot.errors import STOPPING, Interrupted
from skelebot.model import Image, Job, Project, Task
from skelebot.options import Values
from skelebot.process import Streams
from skelebot.project import classes
from skelebot.project.sources import class_source, job_params
from skelebot.runners.folders import is_missing

_STDERR = 2


def check(session: Session, job: Job, values: Values) -> None:
    """Raise UsageError or ConfigError if the validation cannot run."""
    if validation := _validation(session.project, job):
        run.check_source(session, validation, ())
        launch.check(session, *_prepare(session, validation, values))


def failures(session: Session, job: Job, values: Values) -> Iterator[str]:
    """Run the validation of a job, if it has one, and yield what is wrong; with --dry-run, describe it."""
    validation = _validation(session.project, job)
    if validation is None:
        return
    launch.fetch_dependencies(session)
    image, task = _prepare(session, validation, values)
    if session.flags.dry_run:
        task = replace(task, name=f"{job.name} (validation)")
    # stdout and stdin belong to the jobs.
    code = launch.start(session, image, task, Streams(stdin=b"", stdout=_STDERR))
    launch.forget_files()
    if code - 128 in STOPPING:
        raise Interrupted(code - 128)
    if code:
        yield f"{job.name}: its validation ended with exit code {code}; no job was run, see the output above"


def _validation(project: Project, job: Job) -> Job | None:
    """Return the job that validates another one, whose params are all its own."""
    source = job.validate
    if source is None:
        named = class_source(project.root, job.source)
        if not named or not classes.has_validate(project.root, named):
            return None
        source = job.source
    return replace(job, source=source, params=job_params(project, job), method="validate", mode="i", ports=())


def _prepare(session: Session, validation: Job, values: Values) -> tuple[Image, Task]:
    # A script gets the root's params as well, which are only there if the job's source is one, too.
    alone = session._replace(optional_project=replace(session.project, params=()))
    image, _, task = run.prepare(alone, validation, values)
    # An earlier link makes the folders that are missing.
    return image, replace(task, mounts=tuple(m for m in task.mounts if not is_missing(m)))
