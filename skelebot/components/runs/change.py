"""Change what becomes of runs: stop, retry, remove them, and the words to find them by."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from skelebot import console, foreground
from skelebot.component import Session
from skelebot.components.runs import look, sweeps
from skelebot.components.runs.look import number_of
from skelebot.components.runs.work import check_project, checkout_or_all
from skelebot.errors import SkelebotError, UsageError, did_you_mean
from skelebot.files import remove_tree
from skelebot.model import Flags
from skelebot.options import Values
from skelebot.runs import store as stores
from skelebot.runs import supervise, worker, workspace
from skelebot.runs.record import RunRecord, TaskRecord
from skelebot.runs.store import Store


def numbers_of(values: Values) -> list[int]:
    given = values["<run>"]
    return list(dict.fromkeys(int(each) for each in (given if isinstance(given, tuple) else (str(given),))))


# --- stopping ---


def stop(session: Session, values: Values) -> int:
    """Stop runs: those that wait at once; those that run are asked to end, and ended after ten seconds."""
    store = stores.opened()
    numbers = [store.get(number).number for number in numbers_of(values)]
    if session.flags.dry_run:
        for number in numbers:
            console.out(f"stop run {number}")
        return 0
    # All are asked before the first is waited for: a worker would start the next of them in its place.
    for run in [_ask(store, number) for number in numbers]:
        if run.state == "running":
            _end(store, run.number, session.flags)
            run = store.get(run.number)
        console.info(f"run {run.number} is {run.state}")
    return 0


def _ask(store: Store, number: int) -> RunRecord:
    """Stop a run that waits, and let the supervisor of one that runs end it."""

    def stopped(run: RunRecord) -> RunRecord:
        return run.becoming("stopped", "it was stopped") if run.state == "queued" else run.asked_to("stop")

    run = store.update(number, stopped)
    if run.state == "running" and (who := supervise.supervisor(store, number)):
        with suppress(OSError):
            os.kill(int(who.own.partition("-")[0]), signal.SIGTERM)
    return run


def _end(store: Store, number: int, flags: Flags) -> None:
    """Wait until a run's supervisor has ended it; where that was killed, take its place."""
    until = time.monotonic() + 2 * foreground.GRACE  # it kills the job after half of that
    while (lock := supervise.take(store, number)) is None and time.monotonic() < until:
        time.sleep(0.05)
    if lock is None:
        raise SkelebotError(
            f"run {number} does not end; `fuser -v {store.run_folder(number)}/lock` lists why"
        )
    with lock:
        if store.get(number).state == "running":
            supervise.supervise(store, number, flags, in_front=True)


# --- trying again ---


def retry(session: Session, values: Values) -> int:
    """Queue runs again, to go on at the job that failed, with what the ones before it have left."""
    _check_options(values)
    store = stores.opened()
    if not values.get("failed"):
        return _retry(session, store, number_of(values), values)
    codes = [_retry_one_of_many(session, store, number, values) for number in _failed(session, store, values)]
    if not codes:
        console.info("no run has failed")
    return next(filter(None, codes), 0)


def _check_options(values: Values) -> None:
    """Raise UsageError for options that have no effect together."""
    if values.get("failed") and values.get("<run>"):
        raise UsageError("runs retry: name a run or write --failed, not both")
    if not values.get("failed") and not values.get("<run>"):
        raise UsageError("runs retry: name a run, or write --failed for all that failed")
    for option, other in (("name", "failed"), ("tag", "failed"), ("sweep", "failed"), ("anyway", "code")):
        if values.get(option) and not values.get(other):
            raise UsageError(f"runs retry: --{option} only applies to --{other}; leave it out, or add that")
    for option in ("from", "clean"):
        if values.get(option) and values.get("code"):
            raise UsageError(
                f"runs retry: --{option} and --code now do not go together, as that is a new run; "
                "leave out one of them"
            )


def _failed(session: Session, store: Store, values: Values) -> list[int]:
    """Return the runs that have failed, the oldest first; not those that wrote to the checkout."""
    root = checkout_or_all(session, every=False)
    name, tag, sweep = (look.text(values, option) for option in ("name", "tag", "sweep"))
    found = store.find(root=root, name=name, tag=tag, sweep=sweep, states=("failed",))
    if sweep and not found:
        sweeps.check_known(store, root, sweep)
    return [run.number for run in reversed(found) if run.own]


def _retry_one_of_many(session: Session, store: Store, number: int, values: Values) -> int:
    """Try a run again and return the exit code; what keeps it from that is reported, for the others go on."""
    try:
        return _retry(session, store, number, values)
    except SkelebotError as error:
        console.error(str(error))
        return error.code


def _retry(session: Session, store: Store, number: int, values: Values) -> int:
    again = partial(_again, store, job=values.get("from"), at_once=bool(values.get("now")))
    _check_own(store.get(number))
    if values.get("code"):
        return _with_todays_code(session, store.get(number), values)
    if session.flags.dry_run:
        names = (task.job for task in again(store.get(number)).tasks if task.state != "done")
        console.out(f"retry run {number} from {next(names, 'its end')}")
        return 0
    if values.get("clean"):
        _clean(store, number, again)  # before a worker can take it
    store.update(number, again)
    if values.get("now"):
        return run_now(store, number, session.flags)
    console.out(str(number))
    return 0


def _check_own(run: RunRecord) -> None:
    """Raise UsageError for a run that wrote to the checkout, where nobody knows what has changed since."""
    if not run.own:
        raise UsageError(
            f"run {run.number} wrote to the checkout itself; `skelebot runs rerun {run.number}` runs all of "
            "it, in folders of its own"
        )


def _with_todays_code(session: Session, run: RunRecord, values: Values) -> int:
    """Queue the chain of a run again, in the current project, with what its finished jobs have made."""
    check_project(session)
    project = session.optional_project
    if project is None or project.name != run.project:
        raise UsageError(f"run {run.number} is of the project {run.project}; change into it")
    if run.state == "done" or not run.has_ended:
        raise UsageError(
            f"run {run.number} is {run.state}; --code now is for one that has failed or was stopped"
        )
    tags = (word for tag in run.tags for word in ("--tag", tag))
    kept = [*(("--name", run.name) if run.name else ()), *tags, *(("--note", run.note) if run.note else ())]
    own = [f"--{name}" for name in ("anyway", "now") if values.get(name)]
    kept += ("--priority", str(run.priority)) if run.priority else ()
    dry = ["--dry-run"] if session.flags.dry_run else []
    return session.main(
        [*dry, *_flags(run), "queue", *kept, *own, "--take-over", str(run.number), *run.chain]
    )


def _flags(run: RunRecord) -> list[str]:
    """Return Skelebot's options for the environment and the place of a run."""
    run = run.at_home()
    place = run.tasks[0].task.place
    where = ["-n"] if all(task.task.place.is_native for task in run.tasks) else []
    host = ["-d", place.host] if place.host else []
    return [*(["-e", run.env] if run.env else []), *(where or host)]


def _again(store: Store, run: RunRecord, job: object, at_once: bool) -> RunRecord:
    """Return a run that has ended, queued again. Raises UsageError for any other."""
    if run.state == "done" and job is None:
        raise UsageError(
            f"run {run.number} is done; --from JOB runs it again from a job, `runs rerun` all of it"
        )
    if not run.has_ended:
        raise UsageError(f"run {run.number} is {run.state}; only one that has ended can be tried again")
    jobs = run.names
    if job is not None and job not in jobs:
        raise UsageError(f"run {run.number} has no job {job!r}{did_you_mean(str(job), jobs)}")
    first = next((at for at, task in enumerate(run.tasks) if task.state != "done"), len(jobs))
    at = min(first, jobs.index(str(job))) if job is not None else first
    tasks = tuple(_fresh(task) if i >= at else task for i, task in enumerate(run.tasks))
    has_outputs = os.path.isdir(workspace.outputs_folder(store, run))
    if any(task.outputs for task in run.tasks[:at]) and not has_outputs:
        raise UsageError(
            f"the outputs of run {run.number} were removed; `skelebot runs rerun {run.number}` runs all of it"
        )
    known = store.states(run.after)  # one that was removed would stop it
    fresh = replace(run, tasks=tasks, after=tuple(filter(known.get, run.after))).at_home()
    fresh = replace(fresh, state="queued", reason="", started=0.0, ended=0.0, asked="")
    return fresh.becoming("running") if at_once else fresh


def _fresh(task: TaskRecord) -> TaskRecord:
    return replace(task, state="queued", failures=0, lost=False, code=None)


def _clean(store: Store, number: int, again: Callable[[RunRecord], RunRecord]) -> None:
    """Remove the outputs of the tasks that will run, unless somebody has just queued and started them."""
    lock = supervise.take(store, number)
    if lock is None:
        raise SkelebotError(f"run {number} is in use again, so nothing was removed")
    with lock:
        _remove_outputs(store, again(store.get(number)))


def _remove_outputs(store: Store, run: RunRecord) -> None:
    """Remove the outputs of the tasks that are not done, as far as no task that is done has them too."""
    kept = {path for task in run.tasks if task.state == "done" for path in task.outputs}
    top = workspace.outputs_folder(store, run)
    for task in run.tasks:
        for output in workspace.results(task) if task.state != "done" and run.own else ():
            if str(output) not in kept:
                path = os.path.join(top, output.path)
                remove_tree(path)
                with suppress(OSError):
                    os.unlink(path)


def run_now(store: Store, number: int, flags: Flags, or_wait: bool = False) -> int:
    """Run a run in front and return its exit code; or wait for the worker that has taken it."""
    lock = supervise.take(store, number)
    console.info(f"run {number}" if lock else f"run {number} was taken by a worker")
    if lock:
        with lock:
            return supervise.exit_code(supervise.supervise(store, number, flags, in_front=True))
    if not or_wait:
        raise SkelebotError(f"a worker has taken run {number}; `skelebot runs logs -f {number}` shows it")
    while not (run := store.get(number)).has_ended:
        time.sleep(0.2)
    return supervise.exit_code(run)


# --- the rest ---


def tag(session: Session, values: Values) -> int:
    given = values.get("<tag>", ())
    assert isinstance(given, tuple)
    if not all(given):
        raise UsageError("runs tag: expected a word; found an empty one")

    def change(run: RunRecord) -> RunRecord:
        if values.get("remove"):
            return replace(run, tags=tuple(tag for tag in run.tags if tag not in given))
        return replace(run, tags=tuple(dict.fromkeys((*run.tags, *given))))

    return _described(session, values, change)


def note(session: Session, values: Values) -> int:
    return _described(session, values, lambda run: replace(run, note=str(values["<text>"])))


def _described(session: Session, values: Values, change: Callable[[RunRecord], RunRecord]) -> int:
    store, number = stores.opened(), number_of(values)
    if session.flags.dry_run:
        console.out(f"change run {store.get(number).number}")
    else:
        store.update(number, change)
    return 0


def remove(session: Session, values: Values) -> int:
    """Remove runs that have ended, all of them or none."""
    store = stores.opened()
    runs = [store.get(number) for number in numbers_of(values)]
    for run in runs:
        if not run.has_ended:
            raise UsageError(
                f"run {run.number} is {run.state}; stop it first, with `skelebot runs stop {run.number}`"
            )
    for run in runs:
        if session.flags.dry_run:
            console.out(f"remove run {run.number}")
            continue
        if store.remove(run.number, lambda run: run.has_ended):
            workspace.release(store, run, session.flags)
        elif store.states([run.number]):
            raise SkelebotError(f"run {run.number} is in use again, so it stays")
    return 0


def pause(session: Session, values: Values) -> int:
    if session.flags.dry_run:
        console.out("pause the queue")
        return 0
    stores.opened().set(worker.PAUSED, "somebody has paused it")
    console.info("the queue is paused; `skelebot runs resume` resumes it")
    return 0


def resume(session: Session, values: Values) -> int:
    if session.flags.dry_run:
        console.out("resume the queue")
        return 0
    stores.opened().set(worker.PAUSED, "")
    return 0


def rebuild(session: Session, values: Values) -> int:
    if session.flags.dry_run:
        console.out("rebuild the database")
        return 0
    count = stores.rebuild()
    console.info(f"the database was rebuilt from {console.counted(count, 'run')}")
    return 0
