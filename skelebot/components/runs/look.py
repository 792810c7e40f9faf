"""Look at runs that were queued or recorded: the table, everything of one, its logs."""

import csv
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from skelebot import console
from skelebot.component import Session
from skelebot.components.runs.work import checkout
from skelebot.errors import SkelebotError, UsageError, did_you_mean
from skelebot.options import Values
from skelebot.runs import difference, supervise, worker, workspace
from skelebot.runs import store as stores
from skelebot.runs.record import RunRecord, TaskRecord, iso, seconds, view
from skelebot.runs.store import Store


def number_of(values: Values) -> int:
    return int(str(values["<run>"]))


# --- the table ---


def table(session: Session, values: Values) -> int:
    """List the latest runs, with the parameters that differ among them."""
    store = stores.opened()
    root = checkout(session, bool(values.get("all") or session.optional_project is None))
    states = (str(values["state"]),) if values.get("state") else ()
    found = store.find(
        root=root,
        name=_text(values, "name"),
        tag=_text(values, "tag"),
        states=states,
        last=int(str(values.get("last", "20"))),
    )
    if values.get("json"):
        console.out(json.dumps([view(run) for run in found], indent=2))
        return 0
    with_project = root is None
    if values.get("csv"):
        _write_csv(*_rows(found, with_project, _metric_names(found), exact_number))
        return 0
    if found:
        console.table(*_fitting(found, with_project))
    _report(store, root, bool(found))
    return 0


def _text(values: Values, name: str) -> str | None:
    value = values.get(name)
    return None if value is None else str(value)


def _metric_names(runs: Sequence[RunRecord]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.metrics))


def _fitting(runs: Sequence[RunRecord], with_project: bool) -> tuple[list[str], list[list[str]]]:
    """Return the table with as many of the metrics as the terminal is wide enough for."""
    metrics, width = _metric_names(runs), shutil.get_terminal_size((120, 0)).columns
    while True:
        titles, rows = _rows(runs, with_project, metrics, number)
        columns = zip(titles, *rows, strict=True)
        if not metrics or sum(2 + max(map(len, column)) for column in columns) - 2 <= width:
            return titles, rows
        metrics.pop()


def _rows(
    runs: Sequence[RunRecord],
    with_project: bool,
    metrics: Sequence[str],
    show: Callable[[float | None], str],
) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows; metrics: the names of those that have a column; show: their values as text."""
    params = [parameters(run) for run in runs]
    names = list(dict.fromkeys(name for each in params for name in each))
    differing = [name for name in names if len({each.get(name) for each in params}) > 1]
    project = ["PROJECT"] if with_project else []
    titles = ["RUN", *project, "STATE", "CHAIN", *differing, *metrics, "CREATED", "TOOK"]
    rows = [
        [
            str(run.number),
            *([run.project] if with_project else []),
            run.state,
            console.one_line(run.name or run.shown_chain),
            *(console.one_line(each.get(name, "")) for name in differing),
            *(show(run.metrics[name].last) if name in run.metrics else "" for name in metrics),
            f"{console.duration(max(time.time() - run.created, 0))} ago",
            console.duration(taken) if (taken := seconds(run)) is not None else "",
        ]
        for run, each in zip(runs, params, strict=True)
    ]
    return titles, rows


def parameters(run: RunRecord) -> dict[str, str]:
    """Return the parameters of all tasks by `job.name`, as text."""
    return {name: shown(value) for name, value in difference.params(run).items()}


def number(value: float | None) -> str:
    """Return a measured number as text, to six digits."""
    return "nan" if value is None else f"{value:.6g}"


def exact_number(value: float | None) -> str:
    return "nan" if value is None else repr(value)


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _write_csv(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[title.lower() for title in titles], *rows])
    console.out(text.getvalue().rstrip("\n"))


def _report(store: Store, root: str | None, any_shown: bool) -> None:
    """Say how many run and wait, and whether nobody works them off."""
    counts = store.counts(root)
    running, waiting = counts.get("running", 0), counts.get("queued", 0)
    if running or waiting:
        console.info(f"{running} running, {waiting} waiting")
    elif not any_shown:
        console.info("no runs; `skelebot queue JOB` queues one")
    if why := store.setting(worker.PAUSED):
        console.warn(f"the queue is paused: {why}; `skelebot runs resume` goes on")
    elif waiting and not any(each["root"] in (None, root) or root is None for each in worker.workers(store)):
        console.info("no worker is running; `skelebot worker` works the queue off")
    for number in store.numbers("running", root):
        if not supervise.is_supervised(store, number):
            console.warn(
                f"nobody attends to run {number}, as its supervisor was killed; a worker goes on with it"
            )


# --- one run ---


def show(session: Session, values: Values) -> int:
    store = stores.opened()
    run = store.get(number_of(values))
    if values.get("json"):
        console.out(json.dumps(view(run), indent=2))
        return 0
    for name, text in _facts(store, run):
        console.out(f"{name:<10} {text}".rstrip())
    return 0


def _facts(store: Store, run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield what is recorded, as pairs of a name and a line."""
    yield from _origin(run)
    for task_name, task in zip(run.names, run.tasks, strict=True):
        yield from _of_task(task_name, task)
    for path, fingerprint in run.data:
        yield "data", f"{path}: {fingerprint[:12] or 'was not there'}"
    for part, text in difference.machine(run.tasks).items():
        yield "machine", f"{part} {text}"
    for variable, _ in run.variables:
        yield "variable", f"{variable}, from the environment of whoever runs it or an envFile"
    yield "files", store.run_folder(run.number)


def _origin(run: RunRecord) -> Iterator[tuple[str, str]]:
    yield "run", f"{run.number} ({run.uid})"
    yield "state", run.state + (f": {console.one_line(run.reason)}" if run.reason else "")
    yield "chain", console.one_line(run.shown_chain)
    for name, text in (("name", run.name), ("note", run.note), ("tags", " ".join(run.tags))):
        if text:
            yield name, console.one_line(text)
    yield "project", f"{run.project}, in {run.root}" + (f", environment {run.env}" if run.env else "")
    yield "where", run.where
    for name, when in (("created", run.created), ("started", run.started), ("ended", run.ended)):
        if when:
            yield name, str(iso(when))
    if run.ended:
        yield "took", console.duration(seconds(run) or 0)
    if run.commit:
        changed = {True: ", with changes", False: "", None: ", perhaps with changes"}[run.dirty]
        yield "commit", f"{run.commit}{f' on {run.branch}' if run.branch else ''}{changed}"
    if run.parent:
        yield "parent", f"run {run.parent}"
    if run.after:
        yield "after", ", ".join(f"run {number}" for number in run.after)
    yield from (("image", f"{name}, {id}") for name, id in run.images)


def _of_task(name: str, task: TaskRecord) -> Iterator[tuple[str, str]]:
    took = f", {console.duration(task.seconds)}" if task.seconds is not None else ""
    code = f", exit code {task.code}" if task.code is not None else ""
    tries = f", attempt {task.attempt}" if task.attempt > 1 else ""
    taken = f", taken from run {task.taken_from}" if task.taken_from else ""
    done = f", {task.progress:.0%} done" if task.progress and task.state == "running" else ""
    yield "task", f"{name}: {task.state}{code}{took}{done}{tries}{taken}"
    for param, value in task.params:
        yield "", f"  {param} = {console.one_line(shown(value))}"
    for metric in task.metrics:
        between = f"min {number(metric.min)}, max {number(metric.max)}"
        at = f", step {number(metric.step)}" if metric.step is not None else ""
        count = console.counted(metric.count, "value")
        yield "metric", f"{console.one_line(metric.name)}: {number(metric.last)} ({between}, {count}{at})"
    if task.bad_lines:
        yield "metric", f"{console.counted(task.bad_lines, 'line')} could not be read"


# --- logs ---


def logs(session: Session, values: Values) -> int:
    """Write the logs of a run's tasks as they are, one after the other; with -f until it ends."""
    store, job = stores.opened(), _text(values, "<job>")
    run = store.get(number_of(values))
    jobs = run.names
    if job is not None and job not in jobs:
        raise UsageError(f"run {run.number} has no job {job!r}{did_you_mean(job, jobs)}")
    follow, attempt = bool(values.get("follow")), int(str(values.get("attempt", "0")))
    for at, name in enumerate(jobs):
        if job in (None, name, run.tasks[at].job):
            _show_task(store, run.number, at, attempt, follow, len(jobs) == 1 or job is not None)
    return 0


def _show_task(store: Store, number: int, at: int, attempt: int, follow: bool, alone: bool) -> None:
    run = store.get(number)
    while follow and run.tasks[at].attempt == 0 and not run.has_ended:
        time.sleep(0.2)
        run = store.get(number)
    task = run.tasks[at]
    if task.attempt == 0:
        if alone:
            raise SkelebotError(f"{task.job} of run {number} has not begun: the run is {run.state}")
        return
    shown_attempt = attempt or task.attempt
    while True:
        _show_attempt(store, run, at, shown_attempt, follow)
        run = store.get(number)
        if attempt or not follow or run.tasks[at].attempt <= shown_attempt:
            return
        shown_attempt += 1


def _show_attempt(store: Store, run: RunRecord, at: int, attempt: int, follow: bool) -> None:
    path = os.path.join(workspace.attempt_folder(store, run, at, attempt), "log")
    while follow and attempt <= run.tasks[at].attempt and not os.path.exists(path):
        time.sleep(0.05)  # it is about to begin
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        task = run.tasks[at]
        raise UsageError(
            f"{task.job} of run {run.number} has no attempt {attempt}; the last is {task.attempt}"
        ) from None
    with file:
        while True:
            is_over = not follow or _is_over(store, run.number, at, attempt)
            while data := file.read(1 << 16):
                sys.stdout.buffer.write(data)
            sys.stdout.flush()
            if is_over:
                return
            time.sleep(0.1)


def _is_over(store: Store, number: int, at: int, attempt: int) -> bool:
    run = store.get(number)
    return run.has_ended or run.tasks[at].attempt > attempt or run.tasks[at].state in ("done", "failed")
