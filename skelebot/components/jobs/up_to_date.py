"""Whether a job has anything left to do, and what is remembered once it has succeeded."""

from collections.abc import Callable
from typing import NamedTuple

from skelebot import console, launch, runners
from skelebot.component import Session
from skelebot.components.jobs.retries import Incomplete
from skelebot.errors import SkelebotError
from skelebot.files import reason
from skelebot.image import written
from skelebot.model import Image, Job, Project, Task, place_of
from skelebot.pipeline import contents, key, reasons, record
from skelebot.pipeline.contents import Read
from skelebot.pipeline.key import Key
from skelebot.pipeline.record import Success, Unfinished


class State(NamedTuple):
    """How things stand before a job: its key, the files that it reads, and where it would run."""

    key: Key
    read: Read
    place: str


def reasons_to_run(session: Session, job: Job, image: Image, task: Task) -> list[str]:
    """Return why the job would run, a line for each; nothing if it is up to date.

    task: before components amend it.
    """
    if certain := always(session, job):
        return certain
    try:
        return _changes(session.project.root, job, _state(session, job, image, task))
    except SkelebotError as error:
        return [str(error)]


def always(session: Session, job: Job) -> list[str]:
    """Return why the job runs whatever its files hold; nothing where they decide."""
    flags = session.flags
    if not job.outputs:
        return [f"{job.name} has no outputs, so it always runs"]
    if flags.force or flags.force_all:
        return [f"--force{'' if flags.force else '-all'}"]
    if flags.rehearse:
        return ["--rehearse runs every job"]
    if flags.skip_build:
        return ["-s runs the last image, whatever it holds"]
    return []


def run(session: Session, job: Job, image: Image, task: Task, start: Callable[[], int]) -> int:
    """Run a job with outputs, and remember its success; return its exit code."""
    root, before = session.project.root, None
    try:
        before = None if session.flags.skip_build else _state(session, job, image, task)
    except SkelebotError as error:
        console.warn(f"{job.name} will run again each time: {error}")
    with record.attempt(root, job) as attempt:
        code = start()
        launch.forget_files()
        if code == 0 and before:
            _remember(job, before, lambda: _state(session, job, image, task), attempt)
    return code


def check_outputs(root: str, job: Job) -> None:
    """Raise Incomplete if a job that ended with 0 has not made what it declares."""
    if lacking := contents.missing(root, job.results):
        names = ", ".join(map(str, lacking))
        raise Incomplete(f"{place_of(job, 'outputs')}: {job.name} ended with 0 but left nothing in {names}")


# --- the job's state ---


def _state(session: Session, job: Job, image: Image, task: Task) -> State:
    """Raise SkelebotError for files that cannot be read."""
    project = session.project
    left_out = _left_out(project, job, image) if job.inputs is None else ()
    read = contents.read_by(project, job, left_out)
    surroundings = runners.at(task.place, session.flags).surroundings(image, task)
    return State(key.key(project, job, task, read, surroundings), read, task.place.kind)


def _left_out(project: Project, job: Job, image: Image) -> tuple[str, ...]:
    return (image.ignores or launch.left_out(project, job)) + written.own_dockerfile(image)


def _changes(root: str, job: Job, now: State) -> list[str]:
    """Return what has changed since the job's last success, a line for each part of its key."""
    before = record.last_success(root, job, now.place)
    if before is None:
        return [f"{job.name} has no success on record here"]
    parts = reasons.changed_parts(before.key, now.key)
    made = contents.outputs(root, job.results)
    is_intact = made.fingerprint() == before.outputs
    if not parts and is_intact:
        return []
    today = {"inputs": now.read.inputs.by_file()} if "inputs" in parts else {}
    if not is_intact:
        parts.append("outputs")
        today["outputs"] = made.by_file()
    then = record.files(root, job, now.place)
    return list(reasons.describe(parts, before.key, now.key, then, today))


def _remember(job: Job, before: State, look: Callable[[], State], attempt: Unfinished) -> None:
    """Record the success; what cannot be recorded costs one more run.

    look: gives the state of now. It is the one that counts, as only now every image has been seen.
    """
    try:
        root, now = before.read.inputs.root, look()
        changed = reasons.differences(before.read.marks(), now.read.marks())
        if changed or reasons.changed_parts(before.key, now.key):
            what = changed or ", ".join(reasons.changed_parts(before.key, now.key))
            console.info(f"{job.name} will run again, because this changed while it ran: {what}")
            return
        made = contents.outputs(root, job.results)
        files = {"inputs": now.read.inputs.by_file(), "outputs": made.by_file()}
        record.succeeded(root, job, now.place, attempt, Success(now.key, made.fingerprint()), files)
    except (OSError, SkelebotError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        console.warn(f"{job.name} will run again, because its success could not be recorded: {why}")
