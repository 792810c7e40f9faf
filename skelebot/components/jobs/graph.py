"""`graph` and `why`: which jobs there are to run, in which order, and why."""

import json

from skelebot import console
from skelebot.component import Link, Session
from skelebot.components.jobs import run
from skelebot.errors import ConfigError, SkelebotError, UsageError, did_you_mean
from skelebot.model import Job
from skelebot.options import Values
from skelebot.project import needs


def why(link: Link) -> int:
    """Print why a job would run, with the values that were typed."""
    job = link.command.job
    if job is None:
        raise UsageError(f"{link.command.name} is not a job; name one, as in `skelebot why JOB`")
    reasons = run.reasons_to_run(link.session, job, link.values)
    for line in reasons or [f"nothing changed: {job.name} is up to date"]:
        console.out(console.one_line(line))
    return 0


def graph(session: Session, values: Values) -> int:
    """Print the jobs in the order in which they run with their defaults, and why each would or may run."""
    rows = [_row(session, job) for job in _jobs(session, values.get("<job>"))]
    if values.get("json"):
        console.out(json.dumps(rows, indent=2))
        return 0
    console.table(("JOB", "NEEDS", "STATE"), [_columns(row) for row in rows], bare=True)
    return 0


def _columns(row: dict[str, object]) -> tuple[str, str, str]:
    needed = row["needs"]
    why = row["why"]
    assert isinstance(needed, list)
    assert isinstance(why, list)
    shown = f"needs {', '.join(needed)}" if needed else ""
    return str(row["job"]), shown, "; ".join(why) if why else "up to date"


def _jobs(session: Session, name: object) -> list[Job]:
    """Return a job after all that it needs, or all jobs; each comes after what it needs."""
    project = session.project
    by_name = {job.name: job for job in project.jobs}
    if name is not None and name not in by_name:
        raise UsageError(f"there is no job named {name!r}{did_you_mean(str(name), by_name)}")
    wanted = [by_name[str(name)]] if name is not None else project.jobs
    return list(dict.fromkeys(each for job in wanted for each in (*needs.order(project, job), job)))


def _row(session: Session, job: Job) -> dict[str, object]:
    """Return what `graph --json` says of a job; those that need one that may run may run, too."""
    try:
        arguments = ", ".join(arg.name for arg in job.args)
        reasons = [f"takes {arguments}"] if arguments else run.reasons_to_run(session, job, {})
    except ConfigError as error:
        reasons = error.problems
    except SkelebotError as error:
        reasons = [str(error)]
    if reasons:
        session.outdated.add(job.name)
    return {"job": job.name, "needs": list(job.needs), "up_to_date": not reasons, "why": reasons}
