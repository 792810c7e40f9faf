"""What a job measures: lines of JSON as numbers by name, their summary, and their series.

A job appends lines to the file that $SKELEBOT_METRICS names: {"step": 3, "loss": 0.2}, {"progress": 0.4}.
"""

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from skelebot.runs.record import Metric

NAME = "metrics.jsonl"  # of the file in an attempt's folder
MOST = 1 << 16  # bytes of a line


class Point(NamedTuple):
    """A line: numbers by dotted name, at which step, and how far the job is, where it says so."""

    values: dict[str, float]
    step: float | None = None
    progress: float | None = None


def parse(line: str | bytes) -> Point | None:
    """Return what a line says; None if it is not an object of numbers and of objects like it."""
    if len(line) > MOST:
        return None
    try:
        found = json.loads(line)
        if not isinstance(found, dict):
            return None
        numbers = dict(_numbers(found))
    except (ValueError, RecursionError, OverflowError):
        return None
    step, progress = numbers.pop("step", None), numbers.pop("progress", None)
    if progress is not None and not 0 <= progress <= 1:
        return None
    return Point(numbers, step, progress)


def _numbers(found: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers by dotted name. Raises ValueError for anything else."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{prefix}{name} is not a number")
        else:
            yield f"{prefix}{name}", float(value)


def with_point(known: dict[str, Metric], point: Point) -> dict[str, Metric]:
    """Return the summary with one more line in it."""
    return known | {
        name: _with_value(known.get(name), name, value, point.step) for name, value in point.values.items()
    }


def _with_value(known: Metric | None, name: str, value: float, step: float | None) -> Metric:
    number = value if math.isfinite(value) else None
    if known is None:
        return Metric(name, number, number, number, 1, step)
    seen = [each for each in (known.min, known.max, number) if each is not None]
    return Metric(
        name,
        number,
        min(seen, default=None),
        max(seen, default=None),
        known.count + 1,
        known.step if step is None else step,
    )


def series(path: str) -> dict[str, list[tuple[float, float]]]:
    """Return the values of each metric in a file as pairs of step and value; without steps, of 0, 1, 2, ...

    What is not finite is left out, as a curve has no place for it.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    counts: dict[str, int] = {}
    with suppress(FileNotFoundError), open(path, "rb") as file:
        for point in filter(None, map(parse, _whole(file))):
            for name, value in point.values.items():
                at = counts[name] = counts.get(name, -1) + 1
                if math.isfinite(value):
                    curves.setdefault(name, []).append((at if point.step is None else point.step, value))
    return curves


def _whole(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines that have ended, and are not empty."""
    return (line for line in lines if line.endswith(b"\n") and line.strip())
