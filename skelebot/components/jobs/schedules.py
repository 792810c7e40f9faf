"""`deploy`, `pause`, `resume` and `undeploy`: jobs that a cluster runs by their schedules."""

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial

from skelebot import console, launch
from skelebot.component import Link, Session
from skelebot.components.jobs import run
from skelebot.cron import Cron
from skelebot.errors import ConfigError, SkelebotError, UsageError, did_you_mean
from skelebot.model import Job, Place, place_of
from skelebot.options import Values
from skelebot.pipeline.key import keyed_hash
from skelebot.project import state
from skelebot.runners.kubernetes import Kubernetes, schedule
from skelebot.runners.kubernetes.client import Client
from skelebot.runners.kubernetes.manifest import Schedule
from skelebot.runners.kubernetes.schedule import Deployed

_EXAMPLE = '`schedule: "0 3 * * *"`'


def check(link: Link, earlier: Sequence[Link]) -> None:
    """Raise UsageError or ConfigError for what keeps a job from being deployed."""
    session, job = link.session, link.command.job
    if job is None:
        raise UsageError(f"{link.command.name} is not a job; name one, as in `skelebot deploy JOB`")
    if not job.schedule:
        raise ConfigError([f"{place_of(job, 'schedule')}: {job.name} has none; add one such as {_EXAMPLE}"])
    image, _, task = run.prepare(session, job, link.values)
    if not task.place.is_cluster:
        where = "natively" if task.place.is_native else "in Docker"
        raise UsageError(
            f"{job.name} runs {where}, and only a cluster runs jobs by a schedule; "
            "set its `host` to k8s://CONTEXT/NAMESPACE, or name that with -d"
        )
    Kubernetes(task.place, session.flags).check_schedule(image, task, _wanted(session, job))
    if link.command.check:
        link.command.check(session, link.values, earlier)


def deploy(link: Link) -> int:
    """Build and push the image, and make or update the job's schedule."""
    session, job = link.session, link.command.job
    assert job
    launch.fetch_dependencies(session)
    image, _, task = run.prepare(session, job, link.values)
    runner = Kubernetes(task.place, session.flags)
    wanted = _wanted(session, job)
    if session.flags.dry_run:
        console.out(runner.manifest(image, task, wanted).rstrip("\n"))
        return 0
    with runner.prepare(image, task) as prepared:
        own_hash = partial(keyed_hash, state.own_folder(task.root))
        change = runner.deploy(prepared, task, wanted, own_hash)
    console.out(change.name)
    console.info(_report(job, task.place, change))
    if job.needs:
        console.warn(f"its schedule runs {job.name} alone, without what it needs: {', '.join(job.needs)}")
    return 0


def _wanted(session: Session, job: Job) -> Schedule:
    return Schedule(job.schedule or "", session.project.env or "", job.retries)


def _report(job: Job, place: Place, change: schedule.Change) -> str:
    said = {"new": "is deployed", "updated": "was updated", "unchanged": "is unchanged"}[change.what]
    then = f"it is paused until `skelebot resume {job.name}`"
    if not change.is_paused:
        then = f"it runs next at {_next(job.schedule or '')}"
    return f"{job.name} {said} at {place}; {then}"


def _next(text: str) -> str:
    found = Cron.parse(text).next(datetime.now(timezone.utc))
    return found.strftime("%Y-%m-%dT%H:%MZ") if found else ""


# --- what is deployed ---


def show(session: Session, values: Values) -> int:
    if not values.get("list"):
        raise UsageError("deploy: name a job, or list what is deployed with --list")
    rows = [_row(each) for _, each in _deployed(session) if values.get("<job>") in (None, each.job)]
    if values.get("json"):
        console.out(json.dumps(rows, indent=2))
        return 0
    if not rows:
        console.info("nothing is deployed")
        return 0
    has_environments = any(row["environment"] for row in rows)
    for row in rows:
        row["image"] = row["image"].rpartition("@")[2][:19]
        if not has_environments:
            del row["environment"]
    titles = [title.upper() for title in rows[0]]
    console.table(titles, [list(row.values()) for row in rows])
    return 0


def _row(each: Deployed) -> dict[str, str]:
    return {
        "job": each.job,
        "environment": each.env,
        "schedule": each.cron,
        "state": "paused" if each.is_paused else "running" if each.is_running else "waiting",
        "last": each.last,
        "next": "" if each.is_paused else _next(each.cron),
        "image": each.image,
        "name": each.name,
        "host": str(each.place),
    }


def _deployed(session: Session) -> list[tuple[Client, Deployed]]:
    """What is deployed of the project, on each cluster that answers."""
    found: list[tuple[Client, Deployed]] = []
    places, failures = [place for place in launch.places(session) if place.is_cluster], []
    if not places:
        raise UsageError("no job runs on a cluster; name one with -d k8s://CONTEXT/NAMESPACE")
    for place in places:
        client = Client(place, session.flags.verbose)
        try:
            found += ((client, each) for each in schedule.deployed(client, session.project.name))
        except SkelebotError as error:
            failures.append(error)
    if len(failures) == len(places):
        raise failures[0]
    for failure in failures:
        console.warn(str(failure))
    return found


# --- what becomes of it ---


def _of_job(session: Session, values: Values) -> list[tuple[Client, Deployed]]:
    """What is deployed of a job in this environment. Raises UsageError where nothing is."""
    name, env = str(values["<job>"]), session.project.env or ""
    every = [(client, each) for client, each in _deployed(session) if each.env == env]
    found = [(client, each) for client, each in every if each.job == name]
    if not found:
        raise UsageError(f"{name} is not deployed{did_you_mean(name, (each.job for _, each in every))}")
    return found


def pause(session: Session, values: Values) -> int:
    return _set_paused(session, values, True)


def resume(session: Session, values: Values) -> int:
    return _set_paused(session, values, False)


def _set_paused(session: Session, values: Values, is_paused: bool) -> int:
    for client, each in _of_job(session, values):
        if not session.flags.dry_run and not schedule.pause(client, each.name, is_paused):
            console.info(f"{each.job} is {'already' if is_paused else 'not'} paused at {each.place}")
        console.out(each.name)
    return 0


def undeploy(session: Session, values: Values) -> int:
    for client, each in _of_job(session, values):
        if not session.flags.dry_run:
            schedule.undeploy(client, each.name)
        console.out(each.name)
    return 0
