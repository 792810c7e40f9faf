"""Several runs: what differs between them, their code, their curves and their values."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from skelebot.page import facts, figures, text
from skelebot.page.figures import Case, Curve
from skelebot.page.pages import Pages, as_figures, html, named_runs, numbers
from skelebot.runs import difference, metrics, packages, snapshot, workspace
from skelebot.runs.measure import Growing
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store


def show(pages: Pages, request: Request) -> Response:
    runs, store = named_runs(pages, request), pages.store
    found = {run.number: packages.of(store, run.packages) for run in runs}
    cases = _cases(runs)
    names = list(dict.fromkeys(name for case in cases for name in case.values))
    x, y = _axes(request, runs, names)
    return html(
        pages,
        request,
        "compare",
        runs=runs,
        left_out=len(numbers(request)) > len(runs),
        differences=facts.compare(runs, found) if len(runs) > 1 else [],
        patches=_patches(store, runs) if len(runs) > 1 else [],
        names=names,
        x=x,
        y=y,
        query="&".join(f"run={run.number}" for run in runs),
        is_live=any(not run.has_ended for run in runs),
    )


def _cases(runs: Sequence[RunRecord]) -> list[Case]:
    """Return the runs with their parameters and the last value of each metric."""
    measured = ({name: metric.last for name, metric in run.metrics.items()} for run in runs)
    return [
        Case(f"run {run.number}", {**difference.params(run), **found})
        for run, found in zip(runs, measured, strict=True)
    ]


def _axes(request: Request, runs: Sequence[RunRecord], names: Sequence[str]) -> tuple[str, str]:
    """Return what the points are drawn by: as asked, else a parameter that differs and a metric."""
    params = [case.values for case in _cases(runs)]
    differing = [name for name in names if len({text.value(each.get(name)) for each in params}) > 1]
    measured = [name for run in runs for name in run.metrics]
    x, y = request.query_params.get("x", ""), request.query_params.get("y", "")
    default = next((name for name in differing if name not in measured), names[0] if names else "")
    return x if x in names else default, y if y in names else (measured or names or [""])[0]


def _patches(store: Store, runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    """Yield how the code of each run differs from the first one's: of two as a patch, else in short."""
    first, *others = runs
    for other in others:
        for (before, after), jobs in difference.pairs_of_trees(first, other).items():
            whole = snapshot.difference(store.folder, before, after, stat_only=len(others) > 1)
            named = "" if len(jobs) == len(other.tasks) else f" of {', '.join(jobs)}"
            yield {"run": other.number, "named": text.plain(named), "lines": text.patch(whole)}


def values(pages: Pages, request: Request) -> Response:
    runs = named_runs(pages, request)
    cases = _cases(runs)
    names = list(dict.fromkeys(name for case in cases for name in case.values))
    found = []
    x, y = _axes(request, runs, names)
    if x and y:
        found.append(figures.scatter(cases, x, y))
    differing = [n for n in names if len({text.value(case.values.get(n)) for case in cases}) > 1]
    if len(differing) > 1:
        found.append(figures.parallel(cases, differing[:12]))
    return as_figures(found, is_live=any(not run.has_ended for run in runs))


# --- curves ---


def curves(pages: Pages, request: Request) -> Response:
    runs = named_runs(pages, request)
    found = [curve for at, run in enumerate(runs) for curve in curves_of(pages.store, run, at)]
    return as_figures(figures.curves(found), is_live=any(not run.has_ended for run in runs))


def curves_of(store: Store, run: RunRecord, at: int) -> Iterator[Curve]:
    """Yield what the last attempts of a run's tasks have measured."""
    for number, task in enumerate(run.tasks):
        if task.attempt:
            path = os.path.join(workspace.attempt_folder(store, run, number, task.attempt), metrics.NAME)
            found = _growing(path) if task.state == "running" else _ended(path, metrics.marks(path))
            for name, points in found.items():
                yield Curve(f"run {run.number}", at, name, points)


@lru_cache(maxsize=256)
def _ended(path: str, marks: tuple[int, ...]) -> Mapping[str, figures.Points]:
    """Return the curves of an attempt, in as few points as are drawn. marks: of its files now."""
    return {name: figures.thin(points) for name, points in metrics.series(path).items()}


def _growing(path: str) -> Mapping[str, figures.Points]:
    """Return the same of an attempt that runs."""
    lock, growing = _opened(path)
    with lock:
        return {name: list(figures.thin(points)) for name, points in growing.read().items()}


@lru_cache(maxsize=16)  # they hold all points
def _opened(path: str) -> tuple[Lock, Growing]:
    return Lock(), Growing(path)
