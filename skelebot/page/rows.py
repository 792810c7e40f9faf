"""The table of runs: a row for each, as little of it as the table needs, filtered, sorted and in pages."""

import json
import threading
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from skelebot.page import text
from skelebot.runs.record import task_names
from skelebot.runs.store import Store

PAGE = 100  # rows


class Row(NamedTuple):
    """What the table shows of a run. params, metrics: by name; metrics by their last value, None where it
    is not finite."""

    number: int
    root: str
    project: str
    state: str
    title: str
    sweep: str
    created: float
    started: float
    seconds: float | None
    params: dict[str, Any]
    metrics: dict[str, float | None]
    searched: str = ""
    goal: str = ""


class Query(NamedTuple):
    """What somebody wants to see. words: a run has all of them. sort: a column, with - the highest first."""

    words: str = ""
    state: str = ""
    sweep: str = ""
    sort: str = ""
    page: int = 1


class Column(NamedTuple):
    """A column of the table. kind: fact, param or metric."""

    kind: str
    name: str

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.name}"


class Table(NamedTuple):
    """A page of the table. same: what is equal in all runs of it. total: of the runs on all its pages."""

    columns: list[Column]
    rows: list[Row]
    same: list[tuple[str, str]]
    total: int
    page: int
    pages: int


def parse(number: int, document: str) -> Row:
    """Return the row of a run's document. Raises ValueError for a damaged one.

    The record itself takes thirty times as long to read.
    """
    try:
        return _row(number, json.loads(document))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"run {number}: {error}") from None


def _row(number: int, document: dict[str, Any]) -> Row:
    names = task_names([task["job"] for task in document["tasks"]])
    tasks = list(zip(names, document["tasks"], strict=True))
    params = {f"{of}.{name}": value for of, task in tasks for name, value in task.get("params", ())}
    metrics = {each["name"]: each["last"] for task in document["tasks"] for each in task.get("metrics", ())}
    started, ended = document.get("started", 0.0), document.get("ended", 0.0)
    sweep = document.get("sweep") or {}
    row = Row(
        number,
        document["root"],
        document["project"],
        document.get("state", "queued"),
        document.get("name") or " ".join(document["chain"]),
        sweep.get("name", ""),
        document.get("created", 0.0),
        started,
        ended - started if started and ended else None,
        params,
        metrics,
    )
    words = (
        f"{number}",
        *(row.project, row.state, row.title, row.sweep, document.get("note", ""), *document["chain"]),
        *document.get("tags", ()),
        *(f"{name}={text.value(value)}" for name, value in params.items()),
    )
    return row._replace(searched="\n".join(words).lower(), goal=sweep.get("goal", ""))


class Rows:
    """The rows of all runs of a store, of which only those are read again that have changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._mark: tuple[int, ...] | None = None
        self._known: dict[int, tuple[int, Row]] = {}

    def all(self, root: str | None = None) -> list[Row]:
        """Return the rows of a checkout, or all, the latest run first. Raises SkelebotError."""
        with self._lock:
            mark = self._store.mark()
            if mark != self._mark:
                self._read()
                self._mark = mark
            return [row for _, row in self._known.values() if root in (None, row.root)]

    def _read(self) -> None:
        fresh: dict[int, tuple[int, Row]] = {}
        for number, document in self._store.documents():
            is_same = (known := self._known.get(number)) and known[0] == hash(document)
            fresh[number] = known if known and is_same else (hash(document), _readable(number, document))
        self._known = fresh


def _readable(number: int, document: str) -> Row:
    """Return the row of a document, also of a damaged one."""
    try:
        return parse(number, document)
    except ValueError:
        return Row(
            number,
            "",
            "",
            "damaged",
            "`skelebot runs rebuild` rebuilds the database",
            "",
            0,
            0,
            None,
            {},
            {},
        )


# --- what is shown of them ---

FACTS = ("run", "state", "project", "title", "sweep", "created", "seconds")
_MOST_COLUMNS = 40


def table(rows: Sequence[Row], query: Query, with_project: bool) -> Table:
    """Return the page of the table that a query asks for, with the columns in which its runs differ."""
    found = matching(rows, query)
    columns, same = differing(found)
    facts = [
        Column("fact", name)
        for name in FACTS
        if (name != "project" or with_project) and (name != "sweep" or any(row.sweep for row in found))
    ]
    pages = max(-(-len(found) // PAGE), 1)
    page = min(max(query.page, 1), pages)
    shown = ordered(found, query.sort)[(page - 1) * PAGE : page * PAGE]
    before, after = facts[:-2], facts[-2:]
    return Table([*before, *columns[:_MOST_COLUMNS], *after], shown, same, len(found), page, pages)


def matching(rows: Iterable[Row], query: Query) -> list[Row]:
    words = query.words.lower().split()
    return [
        row
        for row in rows
        if query.state in ("", row.state)
        and query.sweep in ("", row.sweep)
        and all(word in row.searched for word in words)
    ]


def differing(rows: Sequence[Row]) -> tuple[list[Column], list[tuple[str, str]]]:
    """Return the parameters and metrics in which runs differ, and the others with their value."""
    columns, same = [], []
    for kind in ("param", "metric"):
        maps: list[dict[str, Any]] = [row.params if kind == "param" else row.metrics for row in rows]
        for name in dict.fromkeys(name for each in maps for name in each):
            values = [each.get(name) for each in maps]
            if len(rows) == 1 or _differ(values):
                columns.append(Column(kind, name))
            else:
                same.append((name, text.value(values[0])))
    return columns, same


def _differ(values: Sequence[Any]) -> bool:
    """Tell whether values differ as text, which is asked for no more of them than need be."""
    first, shown = values[0], text.value(values[0])
    return any(
        (each != first or type(each) is not type(first)) and text.value(each) != shown for each in values
    )


def ordered(rows: Sequence[Row], sort: str) -> list[Row]:
    """Return the rows by a column, numbers before text; those without a value stay at the end."""
    kind, _, name = sort.removeprefix("-").partition(":")
    column = Column(kind, name)
    keys = [(_key(cell(row, column)), row) for row in rows]
    there = [(key, row) for key, row in keys if key is not None]
    there.sort(key=lambda pair: pair[0], reverse=sort.startswith("-"))
    return [row for _, row in there] + [row for key, row in keys if key is None]


def cell(row: Row, column: Column) -> Any:
    """Return what a row has in a column; None where it has nothing."""
    if column.kind == "param":
        return row.params.get(column.name)
    if column.kind == "metric":
        return row.metrics.get(column.name)
    return getattr(row, "number" if column.name == "run" else column.name, None)


def shown(row: Row, column: Column) -> str:
    """Return what a row has in a column, as text."""
    is_no_number = column.kind == "metric" and row.metrics.get(column.name, "") is None
    return "nan" if is_no_number else text.value(cell(row, column))


def _key(value: Any) -> tuple[int, float, str] | None:
    if value is None or value == "":
        return None
    number = text.number(value)
    return (1, 0.0, text.value(value)) if number is None else (0, number, "")
