"""Sweeps: which there are, and the trials of one, with the best of them."""

import importlib.util
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from skelebot.page import figures, text
from skelebot.page.figures import Case
from skelebot.page.pages import Pages, as_figures, for_table, html, root_of, whole_number
from skelebot.page.rows import Query, Row, matching, ordered, table
from skelebot.runs import sampler
from skelebot.runs.record import STATES, Sweep
from skelebot.runs.trial import Goal

_MOST_TRIALS = 2000  # whose records are read at once


def listing(pages: Pages, request: Request) -> Response:
    counts: dict[str, dict[str, int]] = {}
    for row in pages.rows.all(root_of(pages, request)):
        if row.sweep:
            states = counts.setdefault(row.sweep, {})
            states[row.state] = states.get(row.state, 0) + 1
    return html(pages, request, "sweeps", sweeps=counts, states=STATES)


def _trials(pages: Pages, request: Request) -> tuple[Sweep, list[Row]]:
    """Return the sweep that an address names, with the rows of its runs."""
    name = request.query_params.get("name", "")
    rows = matching(pages.rows.all(root_of(pages, request)), Query(sweep=name)) if name else []
    sweep = pages.store.get(rows[0].number).sweep if rows else None
    if sweep is None:
        raise HTTPException(404)
    return sweep, rows


def _goal(rows: Sequence[Row]) -> Goal | None:
    """Return the goal of a sweep, as `runs best` has it."""
    return next((Goal.parse(row.goal) for row in rows if row.goal), None)


def _best(rows: Sequence[Row], goal: Goal) -> Row | None:
    """Return the best run of those that are done, as `runs best` does."""
    done = [row for row in reversed(rows) if row.state == "done"]  # of equal ones, the first
    return next((r for r in ordered(done, _sort(goal)) if r.metrics.get(goal.metric) is not None), None)


def _sort(goal: Goal | None) -> str:
    """Return the column by which the best trials come first."""
    return f"{'-' if goal.is_max else ''}metric:{goal.metric}" if goal else ""


def show(pages: Pages, request: Request) -> Response:
    sweep, rows = _trials(pages, request)
    goal = _goal(rows)
    query = Query(sweep=sweep.name, sort=_sort(goal), page=whole_number(request.query_params.get("page"), 1))
    return html(
        pages,
        request,
        "sweep",
        sweep=sweep,
        goal=goal,
        best=_best(rows, goal) if goal else None,
        table=table(rows, query, with_project=False),
        query=query,
        ended=sum(row.state not in ("queued", "running") for row in rows),
        is_live=any(row.state in ("queued", "running") for row in rows),
        ticked=[],
        **for_table(),
    )


def trials(pages: Pages, request: Request) -> Response:
    sweep, rows = _trials(pages, request)
    goal = _goal(rows)
    measured = [goal.metric] if goal else list(dict.fromkeys(n for row in rows for n in row.metrics))
    done = [row for row in rows if row.state == "done"]
    best = ordered(done, _sort(goal))
    cases = [Case(f"run {row.number}", {**row.params, **row.metrics}) for row in best]
    found = []
    axes = [*(sweep.params or _differing_params(done)), *measured[:4]]
    if goal:
        ended = sorted(done, key=lambda row: row.started + (row.seconds or 0))
        values = [(f"run {row.number}", row.metrics.get(goal.metric)) for row in ended]
        trials = [(name, value) for name, value in values if value is not None]
        found.append(figures.best_so_far(trials, goal.metric, not goal.is_max))
    if len(axes) > 1 and cases:
        found.append(figures.parallel(cases, axes))
    return as_figures(found, is_live=any(row.state in ("queued", "running") for row in rows))


def _differing_params(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row.params)
    return [name for name in names if len({text.value(row.params.get(name)) for row in rows}) > 1]


def importance(pages: Pages, request: Request) -> Response:
    """Answer with how much each parameter matters, where Optuna is there to say so. It is asked for once."""
    sweep, rows = _trials(pages, request)
    goal = _goal(rows)
    if goal is None or len(rows) > _MOST_TRIALS or importlib.util.find_spec("optuna") is None:
        return as_figures([], is_live=False)
    runs = pages.store.find(root=root_of(pages, request), sweep=sweep.name, states=("done",))
    found = sampler.importance(sweep, runs, goal)
    shown = [figures.bars(f"how much of {goal.metric} each parameter explains", found)] if found else []
    return as_figures(shown, is_live=False)
