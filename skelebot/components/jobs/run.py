"""What running a job takes, and what can be known about it before anything runs."""

import os
from collections.abc import Sequence

from skelebot import launch
from skelebot.component import Link, Session
from skelebot.errors import UsageError
from skelebot.image import ignores
from skelebot.model import WORKDIR, Image, Job, Project, Task
from skelebot.options import Values
from skelebot.project import plan
from skelebot.project.sources import script
from skelebot.runners.folders import is_missing, missing


def run(session: Session, job: Job, values: Values) -> int:
    """Build if necessary, run the job and return its exit code."""
    if not session.flags.dry_run:
        _check_source(session, job, ())
    launch.fetch_dependencies(session)
    image, task = _prepare(session, job, values)
    return launch.start(session, image, task)


def _prepare(session: Session, job: Job, values: Values) -> tuple[Image, Task]:
    """What to build and what to run for a job, with what each component makes of them."""
    project = session.project
    task = launch.amended(session, plan.task(project, job, values, session.flags, os.environ))
    if task.place.is_native:
        return Image(project.image, project.name, base="", context=project.root), task
    return launch.image(session, job), task


# --- what can be known before anything runs ---


def check(session: Session, job: Job, values: Values, earlier: Sequence[Link]) -> None:
    """Raise UsageError or ConfigError if the job cannot run."""
    _check_source(session, job, earlier)
    image, task = _prepare(session, job, values)
    for mount in () if session.flags.dry_run else task.mounts:
        if is_missing(mount) and not any(_may_write(link, mount.source) for link in earlier):
            raise missing(mount)
    launch.check(session, image, task)


def _check_source(session: Session, job: Job, earlier: Sequence[Link]) -> None:
    project = session.project
    path = script(project.root, job.source)
    if path is None:
        return
    file = os.path.normpath(os.path.join(project.root, path))
    if not _is_below(file, project.root):
        raise UsageError(f"{job.place}.source: {path} is outside the project")
    if not os.path.isfile(file):
        if any(_may_write(link, file) for link in earlier):
            return
        raise UsageError(f"{job.place}.source: there is no file {path} in {project.root}")
    native = session.flags.native or job.native == "always"
    if not native and not project.dockerfile and _is_left_out(project, job, path):
        raise UsageError(
            f"{job.place}.source: {path} is left out of the image; add '!{path}' to the ignores of the job"
        )


def _is_left_out(project: Project, job: Job, path: str) -> bool:
    own = ignores.of_user(project.root)
    patterns = (*ignores.DEFAULTS, *own, *project.ignores, *job.ignores)
    if any(_is_below(f"{WORKDIR}/{path}", target) for target in plan.targets(job)):
        return False
    return ignores.Ignores(patterns).excludes(os.path.normpath(path))


def _may_write(link: Link, file: str) -> bool:
    """Whether an earlier link of the chain has a writable mapping that the file would be under."""
    job, project = link.command.job, link.session.optional_project
    if job is None or project is None:
        return False
    return any(_is_below(file, m.source) for m in plan.mounts(project, job) if not m.read_only)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
