"""What the commands for the project's runs do, wherever those are."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace

from skelebot import console, foreground, launch, process, runners
from skelebot.component import Session
from skelebot.errors import SkelebotError, UsageError, did_you_mean
from skelebot.files import sweep
from skelebot.model import NATIVE, WORKDIR, Job, Mount, Place, Run, Task
from skelebot.options import Values
from skelebot.project import plan, state
from skelebot.runners.runner import Cleaned, Runner, has_ended

# bash where the image has it
_SHELL = ("sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")

_UNSURE = " on the engines that answer; run again when the others do, or choose one with -d"

Found = list[tuple[Runner, Run]]


# --- which there are ---


def _runners(session: Session) -> list[Runner]:
    """Those that may know runs of the project: the places that it names, and those that it has used."""
    flags = session.flags
    places = launch.places(session) if flags.docker_host or not flags.native else []
    own = [] if flags.docker_host else [NATIVE]
    return [runners.at(place, flags) for place in (*places, *own)]


def by_runner(session: Session, every_checkout: bool) -> tuple[dict[Runner, list[Run]], list[Runner]]:
    """The runs of each runner that answers, and the runners that do not.

    An engine that goes by two names has its runs under the first. Raises SkelebotError where there is
    none to tell of and no engine answers.
    """
    sweep()
    found: dict[Runner, list[Run]] = {}
    failures: dict[Runner, SkelebotError] = {}
    known: set[str] = set()
    for runner in _runners(session):
        try:
            found[runner] = [r for r in runner.runs(session.project, every_checkout) if r.id not in known]
            known.update(run.id for run in found[runner])
        except SkelebotError as error:
            failures[runner] = error
    # This machine's processes can always be asked, so that they say nothing about the rest.
    if failures and not known and all(runner.place.is_native for runner in found):
        raise next(iter(failures.values()))
    root, named = session.project.root, launch.named_hosts(session.project)
    failures = {runner: error for runner, error in failures.items() if _is_used(runner.place, root)}
    for runner, failure in failures.items():
        forget = (
            ""
            if runner.place.host in named
            else f"; if it no longer exists, delete it from {state.FOLDER}/hosts"
        )
        console.warn(f"{failure}{forget}")
    return found, list(failures)


def _is_used(place: Place, root: str) -> bool:
    """Whether the checkout has used an engine, or somebody has named it."""
    is_named = place.host or os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT")
    return bool(is_named) or state.has_used_default_host(root)


def _all_runs(session: Session, values: Values) -> tuple[Found, list[Runner]]:
    """All runs, the last one first; and the runners that do not answer."""
    found, silent = by_runner(session, bool(values.get("all")))
    pairs = ((runner, run) for runner, runs in found.items() for run in runs)
    return sorted(pairs, key=lambda pair: pair[1].began, reverse=True), silent


def _of_job(session: Session, values: Values) -> tuple[Found, list[Runner]]:
    """Those of the job that was named, or all; and the runners that may have more of them.

    Raises UsageError for a name that no job has.
    """
    job, (found, silent) = values.get("<job>"), _all_runs(session, values)
    known = {job.name for job in session.project.jobs} | {run.job for _, run in found}
    if job is not None and job not in known:
        raise UsageError(f"there is no job {job!r}{did_you_mean(str(job), known)}")
    return [(runner, run) for runner, run in found if job in (None, run.job)], silent


# --- the commands ---


def ps(session: Session, values: Values) -> int:
    found, _ = _all_runs(session, values)
    rows = [_row(run, bool(values.get("all"))) for _, run in found]
    if values.get("json"):
        codes = [{"code": run.code} for _, run in found]
        console.out(json.dumps([row | code for row, code in zip(rows, codes, strict=True)], indent=2))
        return 0
    for row, (_, run) in zip(rows, found, strict=True):
        row["status"] += f" ({run.code})" if run.code is not None else ""
    if not rows:
        console.info("no runs")
        return 0
    console.table([title.upper() for title in rows[0]], [list(row.values()) for row in rows])
    return 0


def _row(run: Run, every_checkout: bool) -> dict[str, str]:
    began = run.began.partition(".")[0].removesuffix("Z") + "Z"  # an engine tells nanoseconds
    row = {
        "job": run.job,
        "container": run.name,
        "status": run.state,
        "started": began,
        "host": str(run.place),
    }
    return {**row, "checkout": run.root} if every_checkout else row


def logs(session: Session, values: Values) -> int:
    found, silent = _of_job(session, values)
    if not found:
        raise SkelebotError(_no_run(values, silent))
    runner, last = found[0]
    return runner.logs(last, bool(values.get("follow")))


def _no_run(values: Values, silent: Sequence[Runner]) -> str:
    why = _UNSURE if silent else ": it did not run detached (mode: d), or its run was removed"
    return f"{values['<job>']} has no run{why}"


def wait(session: Session, values: Values) -> int:
    """Give the exit code of a job's last run, once it has ended and its results are back."""
    found, silent = _of_job(session, values)
    if not found:
        raise SkelebotError(_no_run(values, silent))
    runner, last = found[0]
    return foreground.attend(lambda launch: last, runner.wait, lambda run, signum, delivered: None)


def send(session: Session, values: Values) -> int:
    """Send the lines of stdin to a job's last run; with --end, its input ends after them."""
    found, silent = _of_job(session, values)
    if not found:
        raise SkelebotError(_no_run(values, silent))
    runner, last = found[0]
    if not last.is_running:
        raise has_ended(last.job)
    if session.flags.dry_run:
        console.out(f"send to {last.name}")
        return 0
    has_end = bool(values.get("end"))
    runner.send(last, b"" if has_end and os.isatty(0) else 0, has_end)
    return 0


def stop(session: Session, values: Values) -> int:
    found, silent = _of_job(session, values)
    running = [(runner, run) for runner, run in found if run.is_running]
    if not running and silent:
        raise SkelebotError(f"nothing is running{_UNSURE}")
    if not running:
        console.info("nothing is running")
    if not session.flags.dry_run:
        for runner in dict.fromkeys(runner for runner, _ in found):
            runner.stop([run for other, run in found if other is runner])
    for _, run in running:
        console.out(run.name)
    return 0


def open_shell(session: Session, values: Values) -> int:
    """Open a shell in a container that runs, or else in a new one."""
    found, silent = _of_job(session, values)
    user = session.project.user
    shells = ((run, runner.shell(run, user, _SHELL)) for runner, run in found if run.is_running)
    run, step = next(((run, step) for run, step in shells if step), (None, None))
    if run is None or step is None:
        return _shell_in_new(session, values, silent)
    if values.get("map"):
        console.warn(f"{run.name} is already running; -m only applies to a new container")
    if session.flags.dry_run:
        console.out(process.display(step))
        return 0
    console.info(f"in {run.name}")
    return foreground.attend_program(step)


def _shell_in_new(session: Session, values: Values, silent: Sequence[Runner]) -> int:
    job = next((job for job in session.project.jobs if job.name == values.get("<job>")), None)
    task = replace(_shell_task(session, job), mode="it")
    if values.get("map"):
        here = Mount(session.project.root, WORKDIR)
        task = replace(task, mounts=(here, *task.mounts), shadowed=("",))
    if task.place in (runner.place for runner in silent):  # asked again, it takes as long again
        raise SkelebotError(f"no shell can be opened at {task.place}, which does not answer")
    launch.fetch_dependencies(session)
    # The project's ports are its jobs': one of them may have them already.
    task = replace(launch.amended(session, task), ports=())
    return launch.start(session, launch.image(session, job), task)


def _shell_task(session: Session, job: Job | None) -> Task:
    project, task = session.project, launch.tool(session, "exec", _SHELL, only_docker=True)
    if job is None:
        return task
    return replace(
        task,
        mounts=plan.mounts(project, job),
        env=plan.environment(project, job, os.environ),
        shadowed=plan.shadowed(job),
        place=Place.at(session.flags.docker_host or job.host or project.host),
    )


# --- tidying up ---


def clean(session: Session, values: Values) -> int:
    every_checkout = bool(values.get("all"))
    runs_of, _ = by_runner(session, every_checkout)
    if session.flags.dry_run:
        for run in (run for runs in runs_of.values() for run in runs if not run.is_running):
            console.out(f"remove {run.name}")
        return 0
    image = launch.image(session)
    places = [runner.clean(image, runs, every_checkout) for runner, runs in runs_of.items()]
    if not all(place.is_complete for place in places):
        console.info("a job of the project is running here, so what it may need is kept")
    _report(places, bool(values.get("json")))
    return 0


def _report(places: Sequence[Cleaned], as_json: bool) -> None:
    runs = [run for place in places for run in place.runs]
    images = [image for place in places for image in place.images]
    freed = sum(each.size for each in (*runs, *images))
    if as_json:
        names = {"containers": [run.name for run in runs], "images": [image.name for image in images]}
        console.out(json.dumps({**names, "bytes": freed}, indent=2))
        return
    counts = f"{console.counted(len(runs), 'run')}, {console.counted(len(images), 'image')}"
    console.out(f"{counts}, {console.size(freed)} freed")
