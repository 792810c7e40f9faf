"""What the pages say of runs: all of one, what differs among several. Takes and returns values alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from skelebot import console
from skelebot.page import text
from skelebot.runs import provenance
from skelebot.runs.difference import Kind, differences
from skelebot.runs.record import Metric, RunRecord, TaskRecord
from skelebot.secret import display_text

MOST_COMPARED = 50


class Fact(NamedTuple):
    """A line about a run. run: the number of another run that it links to."""

    name: str
    text: str
    run: int = 0


class DifferingFact(NamedTuple):
    """A fact in which runs differ, with its text for each of them."""

    kind: Kind
    name: str
    values: list[str]


# --- one run ---


def facts(run: RunRecord) -> list[Fact]:
    """Return what is recorded of a run besides its tasks."""
    return [Fact(name, text.plain(words), number) for name, words, number in _facts(run) if words]


def _facts(run: RunRecord) -> Iterator[Fact]:
    yield Fact("chain", run.shown_chain)
    yield Fact("note", run.note)
    yield Fact("tags", " ".join(run.tags))
    yield from (Fact(*pair) for pair in provenance.origin(run))
    yield from (Fact("repeats", f"run {number}", number) for number in (run.parent,) if number)
    yield from (Fact("after", f"run {number}", number) for number in run.after)
    yield from (Fact("image", f"{name}, {id}") for name, id in run.images)
    yield from (Fact(*pair) for pair in provenance.surroundings(run))
    yield Fact("uid", run.uid)


def state_of(task: TaskRecord) -> str:
    """Return how far a task is, in words."""
    parts = [
        task.state,
        f"exit code {task.code}" if task.code is not None else "",
        console.duration(task.seconds) if task.seconds is not None else "",
        f"attempt {task.attempt}" if task.attempt > 1 else "",
        f"taken from run {task.taken_from}" if task.taken_from else "",
        f"{console.counted(task.bad_lines, 'line')} of metrics could not be read" if task.bad_lines else "",
    ]
    return ", ".join(part for part in parts if part)


def command(task: TaskRecord) -> str:
    return text.plain(" ".join(map(display_text, task.task.argv)))


def progress(run: RunRecord) -> float:
    """Return how far a run says it is, from 0 to 1: its tasks count equally."""
    done = sum(1.0 if task.state == "done" else task.progress for task in run.tasks)
    return done / len(run.tasks) if any(task.progress for task in run.tasks) else 0.0


def metric_row(metric: Metric) -> tuple[str, ...]:
    """Return the name of a metric and its numbers, as text."""
    ends = ("nan" if each is None else text.value(each) for each in (metric.last, metric.min, metric.max))
    return text.plain(metric.name), *ends, str(metric.count), text.value(metric.step)


# --- several ---


def compare(
    runs: Sequence[RunRecord], packages: Mapping[int, Mapping[str, str]] | None = None
) -> list[DifferingFact]:
    """Return in which facts runs differ from the first one, as `runs diff` does of two.

    packages: the versions of what is installed for each run, by its number.
    """
    first, *others = runs
    known = packages or {}
    rows: dict[tuple[Kind, str], list[Any]] = {}
    for at, other in enumerate(others, 1):
        pair = known.get(first.number, {}), known.get(other.number, {})
        for each in differences(first, other, pair):
            row = rows.setdefault((each.kind, each.name), [each.before] * len(runs))
            row[at] = each.after
    order = {kind: number for number, kind in enumerate(dict.fromkeys(kind for kind, _ in rows))}
    return [
        DifferingFact(kind, text.plain(name), [_text(kind, found) for found in row])
        for (kind, name), row in sorted(rows.items(), key=lambda item: order[item[0][0]])
    ]


def _text(kind: Kind, value: Any) -> str:
    if value is None:
        return "–"  # noqa: RUF001 - a dash
    if kind == "duration":
        return console.duration(value)
    return text.value(value)[:12] if kind == "data" else text.value(value)
