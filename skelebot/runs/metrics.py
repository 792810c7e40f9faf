"""What a job measures: lines of JSON as numbers by name, their summary, and their series.

A job appends lines to the file that $SKELEBOT_METRICS names: {"step": 3, "loss": 0.2}, {"progress": 0.4}.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Any, NamedTuple

from skelebot.runs.record import Metric

NAME = "metrics.jsonl"  # of the file in an attempt's folder
FOUND = "metrics-found.jsonl"  # of the one beside it, with what was found in the job's output and its files
MOST = 1 << 16  # bytes of a line


class Point(NamedTuple):
    """A line: numbers by dotted name, at which step, and how far the job is, where it says so."""

    values: dict[str, float]
    step: float | None = None
    progress: float | None = None


def of_texts(texts: Mapping[str, str | None]) -> str:
    """Return what was found in a line of a job's output as a line of metrics; "" if there is no number.

    texts: by name; None for a group that took no part. A step or a progress that is none is left out.
    """
    numbers = {}
    for name, text in texts.items():
        with suppress(ValueError):
            number = float(text if text and "_" not in text else "")  # Python reads 1_0 as 10
            if _is_allowed(name, number):
                numbers[name] = number
    return json.dumps(numbers) if numbers else ""


def _is_allowed(name: str, number: float | None) -> bool:
    """Whether a number may have a name: a step is finite, and progress from 0 to 1."""
    if number is None:
        return True
    return 0 <= number <= 1 if name == "progress" else math.isfinite(number) or name != "step"


def of_file(text: str | bytes) -> str:
    """Return the numbers of a JSON file as a line of metrics. Raises ValueError where there are none.

    A step or a progress that is none is left out.
    """
    found = _read(text, lenient=True)
    numbers = {name: number for name, number in found.items() if _is_allowed(name, number)}
    if not numbers:
        raise ValueError("expected a JSON object with numbers")
    return json.dumps(numbers)


def parse(line: str | bytes) -> Point | None:
    """Return what a line says; None if it is not an object of numbers and of objects like it."""
    if len(line) > MOST:
        return None
    try:
        numbers = _read(line)
    except ValueError:
        return None
    step, progress = numbers.pop("step", None), numbers.pop("progress", None)
    progress = None if progress is None else round(progress, 9)  # a sum of parts may be a little over 1
    if not _is_allowed("progress", progress) or not _is_allowed("step", step):
        return None
    return Point(numbers, step, progress)


def _read(text: str | bytes, lenient: bool = False) -> dict[str, float]:
    """Return the numbers of a JSON object by dotted name. Raises ValueError for any other text."""
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("expected a JSON object with numbers")
        numbers = dict(_numbers(found, "", lenient))
        "".join(numbers).encode("utf-8")  # what cannot be text could be neither shown nor sent
        return numbers
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except UnicodeEncodeError:
        raise ValueError("a name has half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _numbers(found: dict[str, Any], prefix: str, lenient: bool) -> Iterator[tuple[str, float]]:
    """Yield the numbers by dotted name. Raises ValueError for anything else, which `lenient` leaves out."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}.", lenient)
        elif (number := _number(value)) is not None:
            yield f"{prefix}{name}", number
        elif not lenient:
            raise ValueError(f"{prefix}{name} is not a number")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # of a whole number with hundreds of digits
        return None


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


class Curves:
    """Pairs of step and value of each metric, in the order in which they were measured."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[float, float]]] = {}
        self._counts: dict[str, int] = {}

    def add(self, point: Point) -> None:
        for name, value in point.values.items():
            at = self._counts[name] = self._counts.get(name, -1) + 1
            if math.isfinite(value):
                self.points.setdefault(name, []).append((at if point.step is None else point.step, value))


def series(path: str) -> dict[str, list[tuple[float, float]]]:
    """Return the values of each metric of an attempt as pairs of step and value.

    path: of its file. Without steps they count from 0. What is not finite is left out, as a curve has no
    place for it.
    """
    curves = Curves()
    for point in points(path):
        curves.add(point)
    return curves.points


def files(path: str) -> tuple[str, str]:
    """Return the file that an attempt's job is given, and the one beside it."""
    return path, os.path.join(os.path.dirname(path), FOUND)


def marks(path: str) -> tuple[int, ...]:
    """Return what changes whenever something is added to an attempt's files."""
    found: list[int] = []
    for each in files(path):
        with suppress(FileNotFoundError):
            status = os.stat(each)
            found += (status.st_ino, status.st_size, status.st_mtime_ns)
    return tuple(found)


def points(path: str) -> Iterator[Point]:
    """Yield the points in an attempt's file, and in the one beside it."""
    for each in files(path):
        with suppress(FileNotFoundError), open(each, "rb") as file:
            yield from filter(None, map(parse, _whole(file)))


def _whole(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines that have ended, and are neither empty nor too long."""
    is_within = True
    while line := file.readline(MOST + 1):
        if line.endswith(b"\n") and is_within and line.strip():
            yield line
        is_within = line.endswith(b"\n")
