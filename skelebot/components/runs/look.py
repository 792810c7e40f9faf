"""Look at runs that were queued or recorded: the table, everything of one, its logs."""

import csv
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from skelebot import console, process
from skelebot.component import Session
from skelebot.components.runs import sweeps
from skelebot.components.runs.work import checkout_or_all
from skelebot.errors import SkelebotError, UsageError, did_you_mean
from skelebot.files import reason
from skelebot.model import Step
from skelebot.options import Values
from skelebot.runs import difference, estimate, provenance, supervise, worker, workspace
from skelebot.runs import store as stores
from skelebot.runs.estimate import Estimate
from skelebot.runs.record import RunRecord, TaskRecord, iso, seconds, view
from skelebot.runs.store import Store


def number_of(values: Values) -> int:
    return int(str(values["<run>"]))


# --- the table ---

_SHORT = 24  # characters of a text that stay before a column is left out
_SHORTEST = 8  # that stay in any case


def table(session: Session, values: Values) -> int:
    """List the latest runs, with the parameters that differ among them; of a sweep, the best first."""
    if values.get("csv") and values.get("json"):
        raise UsageError("runs: --csv and --json do not go together; leave out one of them")
    store = stores.opened()
    root = checkout_or_all(session, bool(values.get("all")))
    states = (str(values["state"]),) if values.get("state") else ()
    found = store.find(
        root=root,
        name=text(values, "name"),
        tag=text(values, "tag"),
        states=states,
        last=int(str(values.get("last", "20"))) if "sweep" not in values else None,
        sweep=text(values, "sweep"),
    )
    found, first = sweeps.ranked(store, root, values, found)
    if values.get("json"):
        console.out(json.dumps([view(run) for run in found], indent=2))
        return 0
    with_project = root is None
    if values.get("csv"):
        _write_csv(_columns(found, with_project, first=first, is_exact=True))
        return 0
    left = estimate.of(store, root)
    if found:
        columns = _columns(found, with_project, left, first)
        kept = _fitting(columns, shutil.get_terminal_size((sys.maxsize, 0)).columns)
        _show(kept)
        if left_out := len(columns) - len(kept):
            console.info(f"{console.counted(left_out, 'column')} left out to fit the terminal; --csv has all")
    elif any(name in values for name in ("name", "tag", "sweep", "state")):
        console.info("no such runs; `skelebot runs` lists the latest")
    else:
        console.info("no runs; `skelebot queue JOB` queues one")
    report(store, root, left)
    return 0


def time_left(left: Estimate, run: RunRecord) -> str:
    """Return how long until a run ends; "" where nobody knows."""
    seconds = left.ends.get(run.number)
    return "" if seconds is None else console.duration(seconds)


def text(values: Values, name: str) -> str | None:
    """Return the text by which runs are chosen. Raises UsageError for an empty one: an unset variable's."""
    if values.get(name) == "":
        raise UsageError(f"--{name} is empty; write a value, or leave out the option")
    return str(values[name]) if name in values else None


@dataclass(frozen=True)
class _Column:
    """A column of the table.

    On a terminal that is too narrow, one that is_text is shortened, and one that is_optional is left out.
    """

    title: str
    cells: list[str]
    is_optional: bool = False
    is_text: bool = False

    @cached_property
    def width(self) -> int:
        return max(map(len, (self.title, *self.cells)))

    def width_within(self, most: int) -> int:
        """Return its width if its texts have at most so many characters, or as many as its title."""
        return min(self.width, max(most, len(self.title))) if self.is_text else self.width

    def shortened(self, most: int) -> "_Column":
        width = self.width_within(most)
        return replace(self, cells=[c if len(c) <= width else f"{c[: width - 3]}..." for c in self.cells])


def _columns(
    runs: Sequence[RunRecord],
    with_project: bool,
    left: Estimate | None = None,
    first: Sequence[str] = (),
    is_exact: bool = False,
) -> list[_Column]:
    """Return the columns of the table. first: columns not to lack. is_exact: for programs, not for people."""
    show = _exact_number if is_exact else number
    params = [parameters(run) for run in runs]
    names = list(dict.fromkeys(name for each in params for name in each))
    differing = [n for n in names if n in first or len({each.get(n) for each in params}) > 1]
    measured = dict.fromkeys(name for run in runs for name in run.metrics)
    metrics = sorted(measured, key=lambda name: name not in first)
    columns = [_Column("RUN", [str(run.number) for run in runs])]
    if with_project:
        columns.append(_Column("PROJECT", [run.project for run in runs], is_text=True))
    columns.append(_Column("STATE", [run.state for run in runs]))
    chains = [console.one_line(run.name or run.shown_chain) for run in runs]
    columns.append(_Column("CHAIN", chains, is_text=True))
    for name in differing:
        cells = [console.one_line(each.get(name, "")) for each in params]
        columns.append(_Column(name, cells, is_text=True))
    for name in metrics:
        values = [run.metrics.get(name) for run in runs]
        cells = [show(each.last) if each else "" for each in values]
        columns.append(_Column(name, cells, name not in first))
    if len({run.where for run in runs}) > 1:
        columns.append(_Column("WHERE", [run.where for run in runs], is_text=True))
    created = [str(iso(run.created)) if is_exact else _age(run) for run in runs]
    columns.append(_Column("CREATED", created))
    duration = repr if is_exact else console.duration
    taken = [seconds(run) for run in runs]
    columns.append(_Column("TOOK", ["" if each is None else duration(each) for each in taken]))
    if left and any(run.number in left.ends for run in runs):
        columns.append(_Column("TIME LEFT", [time_left(left, run) for run in runs]))
    return columns


def _fitting(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Return the columns so that they fit a width: with shorter texts and, if need be, fewer of them."""
    kept, room = list(columns), width + 2 - sum(2 + column.width_within(_SHORT) for column in columns)
    for column in [column for column in reversed(columns) if column.is_optional]:
        if room < 0:
            kept.remove(column)
            room += 2 + column.width
    sizes = range(min(width, max(column.width for column in kept)), _SHORTEST, -1)
    fits = (most for most in sizes if sum(2 + column.width_within(most) for column in kept) <= width + 2)
    most = next(fits, _SHORTEST)
    return [column.shortened(most) for column in kept]


def _show(columns: Sequence[_Column]) -> None:
    console.table([column.title for column in columns], _rows(columns))


def _rows(columns: Sequence[_Column]) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in columns), strict=True)]


def parameters(run: RunRecord) -> dict[str, str]:
    """Return the parameters of all tasks by `job.name`, as text."""
    return {name: shown(value) for name, value in difference.params(run).items()}


def number(value: float | None) -> str:
    """Return a measured number as text, to six digits."""
    return "nan" if value is None else f"{value:.6g}"


def _age(run: RunRecord) -> str:
    return f"{console.duration(max(time.time() - run.created, 0))} ago"


def _exact_number(value: float | None) -> str:
    return "nan" if value is None else repr(value)


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _write_csv(columns: Sequence[_Column]) -> None:
    text = io.StringIO()
    rows = [[column.title.lower() for column in columns], *_rows(columns)]
    csv.writer(text, lineterminator="\n").writerows(rows)
    console.out(text.getvalue().rstrip("\n"))


def report(store: Store, root: str | None, left: Estimate) -> None:
    """Say how many run and wait, for how long, and whether nobody works them off."""
    counts = store.counts(root)
    running, waiting = counts.get("running", 0), counts.get("queued", 0)
    if running or waiting:
        console.info(f"{running} running, {waiting} waiting")
        console.info(f"time left: {estimate.describe(left)}")
    if why := hold_up(store, root, waiting):
        (console.warn if store.setting(worker.PAUSED) else console.info)(why)
    for number in store.numbers("running", root):
        if not supervise.is_supervised(store, number):
            console.warn(f"the supervisor of run {number} was killed; a worker continues the run")


def hold_up(store: Store, root: str | None, waiting: int) -> str:
    """Return why nobody takes the runs that wait, so many of them, and what to do; "" if somebody does."""
    if why := store.setting(worker.PAUSED):
        return f"the queue is paused: {why}; `skelebot runs resume` resumes it"
    if waiting and not any(each["root"] in (None, root) or root is None for each in worker.workers(store)):
        return "no worker is running; `skelebot worker` runs the queue"
    return ""


# --- one run ---


def show(session: Session, values: Values) -> int:
    store = stores.opened()
    run = store.get(number_of(values))
    if values.get("json"):
        console.out(json.dumps(view(run), indent=2))
        return 0
    for name, text in _facts(store, run):
        console.out(f"{name:<10} {console.one_line(text)}".rstrip())
    return 0


def _facts(store: Store, run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield what is recorded, as pairs of a name and a line."""
    yield from _origin(run)
    for task_name, task in zip(run.names, run.tasks, strict=True):
        yield from _of_task(task_name, task)
    yield from provenance.surroundings(run)
    for packages in run.packages:
        yield "packages", store.packages_file(packages)
    if run.mlflow:
        yield "mlflow", f"{run.mlflow}, run {run.mlflow_run}" if run.mlflow_run else run.mlflow
    yield "files", store.run_folder(run.number)


def _origin(run: RunRecord) -> Iterator[tuple[str, str]]:
    yield "run", f"{run.number} ({run.uid})"
    yield "state", run.state + (f": {run.reason}" if run.reason else "")
    yield "chain", run.shown_chain
    sweep = ", ".join(filter(None, (run.sweep.name, run.sweep.goal))) if run.sweep else ""
    words = {"name": run.name, "note": run.note, "tags": " ".join(run.tags), "sweep": sweep}
    yield from ((name, text) for name, text in words.items() if text)
    yield from provenance.origin(run)
    if run.parent:
        yield "parent", f"run {run.parent}"
    if run.after:
        yield "after", ", ".join(f"run {number}" for number in run.after)
    yield from (("image", f"{name}, {id}") for name, id in run.images)


def _of_task(name: str, task: TaskRecord) -> Iterator[tuple[str, str]]:
    took = f", {console.duration(task.seconds)}" if task.seconds is not None else ""
    code = f", exit code {task.code}" if task.code is not None else ""
    tries = f", attempt {task.attempt}" if task.attempt > 1 else ""
    tries += ", once killed" if task.lost else ""
    taken = f", taken from run {task.taken_from}" if task.taken_from else ""
    done = f", {task.progress:.0%} done" if task.progress and task.state == "running" else ""
    yield "task", f"{name}: {task.state}{code}{took}{done}{tries}{taken}"
    for param, value in task.params:
        yield "", f"  {param} = {shown(value)}"
    yield "", f"  runs {process.display(Step(task.task.argv))}"
    if task.outputs:
        yield "", f"  makes {', '.join(task.outputs)}"
    for metric in task.metrics:
        between = f"min {number(metric.min)}, max {number(metric.max)}"
        at = f", step {number(metric.step)}" if metric.step is not None else ""
        count = console.counted(metric.count, "value")
        yield "metric", f"{metric.name}: {number(metric.last)} ({between}, {count}{at})"
    if task.bad_lines:
        yield "metric", f"{console.counted(task.bad_lines, 'line')} could not be read"


# --- logs ---


def logs(session: Session, values: Values) -> int:
    """Write the logs of a run's tasks as they are, one after the other; with -f until it ends."""
    store, job = stores.opened(), str(values["<job>"]) if "<job>" in values else None
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
    task = run.tasks[at]
    if attempt > task.attempt:
        raise UsageError(
            f"{task.job} of run {run.number} has no attempt {attempt}; the last is {task.attempt}"
        )
    while follow and not os.path.exists(path) and not _is_over(store, run.number, at, attempt):
        time.sleep(0.05)  # it is about to begin
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise SkelebotError(f"{path} cannot be read: {reason(error)}") from None
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
