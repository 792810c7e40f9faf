"""What running a job takes, and what can be known about it before anything runs."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from skelebot import console, launch
from skelebot.component import Link, Session
from skelebot.components.jobs.retries import with_retries
from skelebot.errors import UsageError
from skelebot.image import ignores
from skelebot.model import WORKDIR, Image, Job, Mount, Project, Task, place_of, project_path
from skelebot.options import Values
from skelebot.project import plan
from skelebot.project.needs import needed
from skelebot.project.sources import class_source, script
from skelebot.runners.folders import is_missing, missing


def run(session: Session, job: Job, values: Values) -> int:
    """Build if necessary, run the job and return its exit code; record it where that is wanted."""
    if session.record:
        return session.record(session, lambda own: run(own, job, values))
    if not session.flags.dry_run:
        check_source(session, job, ())
    launch.fetch_dependencies(session)
    prepared = prepare(session, job, values)
    if session.flags.dry_run:
        return _describe(session, job, prepared, values)

    pause = session.aside.pause if session.aside else time.sleep
    attempt = partial(launch.start, session, prepared.image)
    if not job.outputs:
        code = with_retries(job, prepared.amended, attempt, pause)
        launch.forget_files()
        return code
    from skelebot.components.jobs import up_to_date  # only for a pipeline

    def whole_attempt(task: Task) -> int:
        if (code := attempt(task)) == 0:
            up_to_date.check_outputs(session.project.root, job)
        return code

    start = partial(with_retries, job, prepared.amended, whole_attempt, pause)
    return up_to_date.run(session, job, prepared.image, prepared.task, start)


def reasons_to_run(session: Session, job: Job, values: Values) -> list[str]:
    """Return why the job would run, or may; a line for each, and nothing if it is up to date."""
    from skelebot.components.jobs import up_to_date

    # They may make the same as before; then this job does not run.
    if before := [need.name for need in needed(session.project, job) if need.name in session.outdated]:
        return up_to_date.always(session, job) or [f"{' and '.join(before)} may change what it reads"]
    prepared = prepare(session, job, values)
    return up_to_date.reasons_to_run(session, job, prepared.image, prepared.task)


def _describe(session: Session, job: Job, prepared: "Prepared", values: Values) -> int:
    """Show what a job would do, and why."""
    reasons = reasons_to_run(session, job, values)
    if not reasons:
        console.out(f"{job.name}\n  up to date")
        return 0
    session.outdated.add(job.name)
    code = launch.start(session, prepared.image, prepared.amended)
    for reason in reasons if job.outputs else ():
        console.out(f"  because  {console.one_line(reason)}")
    return code


def prepare_natively(session: Session, job: Job, values: Values) -> None:
    """Make the environment of a native job where it is missing; run nothing."""
    prepared = prepare(session, job, values)
    if prepared.task.place.is_native:
        launch.prepare(session, prepared.image, prepared.amended)


class Prepared(NamedTuple):
    """What to build and what to run for a job; `task` is as the components get it."""

    image: Image
    task: Task
    amended: Task


def prepare(session: Session, job: Job, values: Values) -> Prepared:
    """What to build and what to run for a job, with what each component makes of them."""
    project = session.project
    task = plan.task(project, job, values, session.flags, os.environ)
    if task.place.is_native:
        image = Image(project.image, project.name, base="", context=project.root)
    else:
        image = launch.image(session, job)
        if job.inputs:
            task = replace(task, mounts=(*task.mounts, *_input_mounts(project, job, task, image)))
    return Prepared(image, task, launch.amended(session, task))


def _input_mounts(project: Project, job: Job, task: Task, image: Image) -> Iterator[Mount]:
    """Yield a read-only mount for each input that is not in the image."""
    from skelebot.pipeline import contents

    patterns = ignores.Ignores(image.ignores)
    targets = {mount.target for mount in task.mounts}
    for text in job.inputs or ():
        absent = [e.path for e in contents.matching(project.root, job, text) if patterns.excludes(e.path)]
        folder = contents.fixed_part(project_path(text))
        is_made = any(output.holds(folder) for each in project.jobs for output in each.results)
        is_absent = absent or is_made or _leads_out_of_image(project.root, folder, patterns)
        for path in [folder] if folder and is_absent else absent:
            mount = plan.mount_in_place(project.root, path, read_only=True)
            if not any(is_below(mount.target, target) for target in targets):
                targets.add(mount.target)
                yield mount


def _leads_out_of_image(root: str, path: str, patterns: ignores.Ignores) -> bool:
    """Whether a path goes through a link to something that the image leaves out."""
    target = os.path.relpath(os.path.realpath(os.path.join(root, path)), os.path.realpath(root))
    return target != path and (target.split(os.sep)[0] == os.pardir or patterns.excludes(target))


# --- what can be known before anything runs ---


def check(session: Session, job: Job, values: Values, earlier: Sequence[Link]) -> None:
    """Raise UsageError or ConfigError if the job cannot run."""
    check_source(session, job, earlier)
    _check_inputs(session, job, earlier)
    image, _, task = prepare(session, job, values)
    for mount in () if session.flags.dry_run else task.mounts:
        if is_missing(mount) and not any(may_write(link, mount.source) for link in earlier):
            shown = os.path.relpath(mount.source, session.project.root)
            raise _unmade(session.project, job, mount.source, shown) or missing(mount)
    launch.check(session, image, task)


def _check_inputs(session: Session, job: Job, earlier: Sequence[Link]) -> None:
    """Raise UsageError for an input that is not there, and that no link before makes."""
    if not job.inputs:
        return
    from skelebot.pipeline import contents

    project = session.project
    for number, text in enumerate(job.inputs):
        path = os.path.join(project.root, contents.fixed_part(project_path(text)))
        if contents.matching(project.root, job, text) or any(may_write(link, path) for link in earlier):
            continue
        raise _unmade(project, job, path, text) or UsageError(
            f"{place_of(job, 'inputs')}[{number}]: {text} does not exist and no job makes it; "
            "create or correct it"
        )


def _unmade(project: Project, job: Job, path: str, shown: str) -> UsageError | None:
    """Return the error for something that another job makes and has not made, or None if none makes it."""
    for each in (each for each in project.jobs if each.name != job.name):
        for output in each.results:
            made = os.path.join(project.root, output.path)
            if is_below(path, made) or is_below(made, path):
                remedy = (
                    "leave out --no-needs" if each.name in job.needs else f"add it to the needs of {job.name}"
                )
                return UsageError(
                    f"{job.name} reads {shown}, which {each.name} makes; run {each.name} first, or {remedy}"
                )
    return None


def check_source(session: Session, job: Job, earlier: Sequence[Link]) -> None:
    """Raise UsageError if the job's source is not there, in the project or in the image."""
    project, at = session.project, job.source_place
    path = script(project.root, job.source)
    if path is None:
        return
    file = os.path.normpath(os.path.join(project.root, path))
    if not is_below(file, project.root):
        raise UsageError(f"{at}: {path} is outside the project")
    if not os.path.isfile(file):
        if any(may_write(link, file) for link in earlier):
            return
        raise UsageError(f"{at}: there is no file {path} in {project.root}")
    if named := class_source(project.root, job.source):
        from skelebot.project import classes  # not for a script

        if problem := classes.problem(file, named, job.method):
            raise UsageError(f"{at}: {problem}")
    is_native = plan.place(project, job, session.flags).is_native
    if not is_native and not project.dockerfile and _is_left_out(project, job, path):
        raise UsageError(f"{at}: {path} is left out of the image; add '!{path}' to the ignores of the job")


def _is_left_out(project: Project, job: Job, path: str) -> bool:
    if any(is_below(f"{WORKDIR}/{path}", mount.target) for mount in plan.mounts(project, job)):
        return False
    return ignores.Ignores(launch.left_out(project, job)).excludes(os.path.normpath(path))


def may_write(link: Link, file: str) -> bool:
    """Whether an earlier link of the chain has a writable mapping that the file would be under."""
    job, project = link.command.job, link.session.optional_project
    if job is None or project is None:
        return False
    writable = [mount.source for mount in plan.mounts(project, job) if not mount.read_only]
    return any(is_below(file, folder) or is_below(folder, file) for folder in writable)


def is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
