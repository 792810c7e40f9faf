"""The figures of the pages, as plotly.js takes them: https://plotly.com/javascript/reference/

Takes and returns values alone. Colours are those of Okabe and Ito, which colour-blind people tell apart, also
on a dark page; lines differ by their dashes, too. No type of trace is used that needs `eval` or WebGL.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from skelebot.page import text

Points = Sequence[tuple[float, float]]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")
DASHES = ("solid", "dash", "dot", "dashdot")
SCALE = (
    "#0072B2",
    "#3A7FA8",
    "#628A9B",
    "#868F8B",
    "#A19273",
    "#BA9658",
    "#D19A38",
    "#E69F00",
)  # blue to orange

_MOST_POINTS = 1000
_MOST_FIGURES = 24
MOST_LINES = 500  # across axes; more are slow, and hide each other


class Figure(NamedTuple):
    """A figure. key: what stays the same while it grows; title: plain text."""

    key: str
    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


class Curve(NamedTuple):
    """What a run has measured: the run's name and number among those that are shown, and the metric."""

    run: str
    at: int
    metric: str
    points: Points


def literal(words: str) -> str:
    """Return a text that plotly shows unchanged: it takes some tags and entities for markup."""
    return text.plain(words).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def curves(curves: Iterable[Curve]) -> list[Figure]:
    """Return a figure for each metric, with a line for each run."""
    metrics: dict[str, list[Curve]] = {}
    for curve in curves:
        metrics.setdefault(curve.metric, []).append(curve)
    return [_curves(name, each) for name, each in list(metrics.items())[:_MOST_FIGURES]]


def _curves(metric: str, curves: list[Curve]) -> Figure:
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(points := thin(curve.points)) < 30 else "lines",
            "name": literal(curve.run),
            "x": [x for x, _ in points],
            "y": [y for _, y in points],
            "line": line(curve.at),
            "marker": {"color": line(curve.at)["color"], "size": 4},
        }
        for curve in curves
    ]
    layout = {"xaxis": {"title": {"text": "step"}}, "showlegend": len(curves) > 1}
    return Figure(f"curve-{metric}", text.plain(metric), data, layout)


def line(at: int) -> dict[str, Any]:
    """Return how the line of the run at this place is drawn."""
    return {
        "color": COLOURS[at % len(COLOURS)],
        "dash": DASHES[(at + at // len(COLOURS)) % len(DASHES)],
        "width": 2,
    }


def thin(points: Points, most: int = _MOST_POINTS) -> Points:
    """Return a curve in at most so many points: the lowest and the highest of each stretch, and both ends."""
    if len(points) <= most:
        return points
    width = len(points) * 2 / (most - 2)
    kept = {0, len(points) - 1}
    for number in range((most - 2) // 2):
        stretch = range(int(number * width), min(int((number + 1) * width), len(points)))
        if stretch:
            kept |= {min(stretch, key=lambda at: points[at][1]), max(stretch, key=lambda at: points[at][1])}
    return [points[at] for at in sorted(kept)]


# --- runs as points and as lines ---


class Case(NamedTuple):
    """A run, by its name and by what it has for each axis."""

    name: str
    values: Mapping[str, Any]


def scatter(cases: Sequence[Case], x: str, y: str) -> Figure:
    """Return the runs as points."""
    shown = [case for case in cases if case.values.get(x) is not None and case.values.get(y) is not None]
    data = [
        {
            "type": "scatter",
            "mode": "markers+text" if len(shown) <= 20 else "markers",
            "text": [literal(case.name) for case in shown],
            "textposition": "top center",
            "x": [_coordinate(case.values[x]) for case in shown],
            "y": [_coordinate(case.values[y]) for case in shown],
            "marker": {"color": COLOURS[0], "size": 9},
        }
    ]
    layout = {"xaxis": _axis(x, shown), "yaxis": _axis(y, shown), "showlegend": False}
    return Figure("scatter", text.plain(f"{y} by {x}"), data, layout)


def _axis(name: str, cases: Sequence[Case]) -> dict[str, Any]:
    numbers = all(text.number(case.values[name]) is not None for case in cases)
    return {"title": {"text": literal(name)}, "type": "linear" if numbers else "category"}


def _coordinate(value: Any) -> Any:
    number = text.number(value)
    return literal(text.value(value)) if number is None else number


def parallel(cases: Sequence[Case], axes: Sequence[str]) -> Figure:
    """Return the runs as lines across axes; their colour says where they are on the last one.

    Each line ends where a run has no value. plotly's own type for it needs WebGL and `eval`.
    """
    more = f" of {len(cases):,} runs, the first {MOST_LINES}" if len(cases) > MOST_LINES else ""
    cases = cases[:MOST_LINES]
    scales = [_scale([case.values.get(name) for case in cases]) for name in axes]
    heights = [
        [scale.height(case.values.get(name)) for scale, name in zip(scales, axes, strict=True)]
        for case in cases
    ]
    groups: dict[int, list[int]] = {}
    for at, height in enumerate(heights):
        last = height[-1] if height else None
        groups.setdefault(-1 if last is None else min(int(last * len(SCALE)), len(SCALE) - 1), []).append(at)
    data = [_lines(cases, axes, heights, groups[group], group) for group in sorted(groups)]
    ends = [
        {
            "x": x,
            "y": y,
            "yshift": shift,
            "text": literal(words),
            "showarrow": False,
            "xref": "x",
            "yref": "y",
        }
        for x, scale in enumerate(scales)
        for y, words, shift in ((0, scale.low, -12), (1, scale.high, 12))
    ]
    layout = {
        "xaxis": {
            "tickvals": list(range(len(axes))),
            "ticktext": [literal(name) for name in axes],
            "range": [-0.3, len(axes) - 0.7],
            "zeroline": False,
            "side": "top",
        },
        "yaxis": {"visible": False, "range": [-0.12, 1.12]},
        "annotations": ends,
        "showlegend": False,
        "hovermode": "closest",
    }
    return Figure("parallel", f"parallel coordinates{more}", data, layout)


def _lines(
    cases: Sequence[Case],
    axes: Sequence[str],
    heights: list[list[float | None]],
    group: Sequence[int],
    colour: int,
) -> dict[str, Any]:
    """Return some of the runs as one trace, as each costs time; None is the gap between two."""
    x: list[int | None] = []
    y: list[float | None] = []
    words: list[str] = []
    for at in group:
        x += [*range(len(axes)), None]
        y += [*heights[at], None]
        words += [_words(cases[at], name) for name in axes] + [""]
    shown = {"color": SCALE[colour] if colour >= 0 else "#999999", "width": 1.5}
    marker = {"size": 5, "color": shown["color"]}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": y,
        "text": words,
        "hoverinfo": "text",
        "line": shown,
        "marker": marker,
    }


def _words(case: Case, name: str) -> str:
    return literal(f"{case.name}: {name} {text.value(case.values.get(name))}")


class _Scale(NamedTuple):
    """From values to 0..1. places: those of texts. is_log: for numbers of a wide range."""

    low: str
    high: str
    places: dict[str, float]
    bottom: float = 0.0
    top: float = 0.0
    is_log: bool = False

    def height(self, value: Any) -> float | None:
        number = text.number(value)
        if self.places:
            return self.places.get(text.value(value))
        if number is None or self.bottom == self.top:
            return None if number is None else 0.5
        if self.is_log:
            return math.log(number / self.bottom) / math.log(self.top / self.bottom)
        return (number - self.bottom) / (self.top - self.bottom)


def _scale(values: Sequence[Any]) -> _Scale:
    there = [value for value in values if value is not None]
    numbers = [number for value in there if (number := text.number(value)) is not None]
    if len(numbers) < len(there) or not numbers:
        names = sorted({text.value(value) for value in there})
        places = {name: at / max(len(names) - 1, 1) for at, name in enumerate(names)}
        return _Scale(names[0] if names else "", names[-1] if len(names) > 1 else "", places)
    bottom, top = min(numbers), max(numbers)
    is_log = bottom > 0 and top / bottom >= 100
    return _Scale(text.value(bottom), text.value(top), {}, bottom, top, is_log)


# --- sweeps ---


def best_so_far(trials: Sequence[tuple[str, float]], metric: str, is_lowest: bool) -> Figure:
    """Return the goal of each trial in their order, and the best until then."""
    best: list[float] = []
    for _, value in trials:
        best.append(value if not best else min(best[-1], value) if is_lowest else max(best[-1], value))
    numbers = list(range(1, len(trials) + 1))
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "trial",
            "x": numbers,
            "y": [value for _, value in trials],
            "text": [literal(name) for name, _ in trials],
            "marker": {"color": COLOURS[4], "size": 7},
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": numbers,
            "y": best,
            "line": {**line(0), "shape": "hv"},
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "trials that have ended"}},
        "yaxis": {"title": {"text": literal(metric)}},
    }
    return Figure("best", "best so far", data, layout)


def bars(title: str, shares: Mapping[str, float]) -> Figure:
    """Return bars, the longest at the top."""
    names = sorted(shares, key=lambda name: shares[name])
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [shares[name] for name in names],
            "y": [literal(name) for name in names],
            "marker": {"color": COLOURS[0]},
        }
    ]
    return Figure(
        "bars",
        text.plain(title),
        data,
        {"showlegend": False, "yaxis": {"type": "category", "automargin": True}},
    )
