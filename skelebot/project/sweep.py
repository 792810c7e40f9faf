"""What a sweep tries: the values of its params, from texts. Takes and returns values alone."""

import csv
import io
import math
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import product
from typing import NamedTuple

from skelebot import options
from skelebot.console import counted
from skelebot.errors import did_you_mean
from skelebot.model import Arg, Param

MOST = 100_000  # runs of a sweep, beyond which it is a slip of the pen
_NUMBERS = 10**15  # of a range with a step, which a draw can tell apart
_TRIES = 20  # draws for each trial, where the same values come again and again

_NUMBER = r"([+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3})?)"
_RANGE = re.compile(rf"{_NUMBER}\.\.{_NUMBER}(?::(log|{_NUMBER}))?", re.ASCII)
_ITEM = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?:,|\Z)|([^,]*)(?:,|\Z)')

# The values of a trial by `job.param`, as texts.
Trial = dict[str, str]


class Range(NamedTuple):
    """Numbers between two, both of which belong to it. step: None where any number between may be drawn."""

    low: Decimal
    high: Decimal
    step: Decimal | None = None
    is_log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it has whole numbers alone, which both ends say by the way they are written."""
        return all(_is_whole(number) for number in (self.low, self.high, self.step or self.low))

    @property
    def length(self) -> int:
        """How many numbers it has, with a step."""
        assert self.step
        return int((self.high - self.low) // self.step) + 1

    def at(self, index: int) -> str:
        assert self.step
        return f"{self.low + index * self.step:f}"


Domain = tuple[str, ...] | Range


class Axis(NamedTuple):
    """What is varied together: the names of params, and points with a value for each.

    where: for messages; places: the same for each point, where those differ.
    """

    names: tuple[str, ...]
    points: tuple[tuple[str, ...], ...]
    where: str
    places: tuple[str, ...] = ()

    def place(self, index: int) -> str:
        return self.places[index] if self.places else self.where


# --- reading ---


def domain(text: str) -> Domain:
    """Return what a text such as `0.1,0.01`, `1..5`, `0.1..0.9:0.2` or `1e-5..1:log` offers.

    A value in double quotes is itself, as in CSV. Raises ValueError.
    """
    items = list(_items(text))
    if len(items) == 1 and (found := _range(items[0])):
        return found
    ranges = [(item, _range(item)) for item in items]
    return tuple(
        dict.fromkeys(v for (own, _), found in ranges for v in (expanded(found) if found else (own,)))
    )


def text(of: Domain) -> str:
    """Return a domain as `domain` reads it."""
    if isinstance(of, Range):
        is_default = of.step == 1 and _is_whole(of.low) and _is_whole(of.high)
        step = "" if of.step is None or is_default else f":{of.step}"
        return f"{of.low}..{of.high}{':log' if of.is_log else step}"
    return ",".join(
        '"{}"'.format(value.replace('"', '""')) if _has_to_be_quoted(value) else value for value in of
    )


def _has_to_be_quoted(value: str) -> bool:
    return not value.strip() or any(mark in value for mark in ('"', ",", ".."))


def values(of: Domain) -> tuple[str, ...]:
    """Return all values of a domain. Raises ValueError for a range that does not say which these are."""
    return expanded(of) if isinstance(of, Range) else of


def expanded(of: Range) -> tuple[str, ...]:
    """Return the numbers of a range. Raises ValueError for one that does not say which these are."""
    shown = f"{of.low}..{of.high}"
    if of.is_log:
        raise ValueError(f"{shown}:log is a range to draw from; add --trials N")
    if of.step is None:
        raise ValueError(f"{shown} has no step; write one, as in {shown}:0.1, or add --trials N")
    if of.length > MOST:
        raise ValueError(f"{shown} has {of.length} values; a sweep has at most {MOST} runs")
    return tuple(map(of.at, range(of.length)))


def _items(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the values of a list, and whether each is quoted."""
    at = 0
    while True:
        match = _ITEM.match(text, at)
        assert match
        quoted, plain = match.groups()
        if quoted is None and not plain.strip():
            raise ValueError('a value is missing; write "" for an empty one')
        if quoted is None and plain.lstrip().startswith('"'):
            raise ValueError(f"the quotes of {plain!r} are not closed, or text follows them")
        yield (plain, False) if quoted is None else (quoted.replace('""', '"'), True)
        at = match.end()
        if not match[0].endswith(","):
            return


def _range(item: tuple[str, bool]) -> Range | None:
    """Return the range that a value is, if it is one: `..` between two numbers, without quotes."""
    text, is_quoted = item
    match = None if is_quoted else _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    low, high = Decimal(match[1]), Decimal(match[2])
    is_log = match[3] == "log"
    if high < low:
        raise ValueError(f"{text} ends below its start; write {match[2]}..{match[1]}")
    if is_log and float(low) <= 0:
        raise ValueError(f"{text} has to begin above 0")
    if match[4] is not None:
        step: Decimal | None = Decimal(match[4])
        if Decimal(match[4]) <= 0:
            raise ValueError(f"{text} needs a step above 0")
    else:
        step = Decimal(1) if not is_log and _is_whole(low) and _is_whole(high) else None
    if not math.isfinite(float(high) - float(low)) or (step and (high - low) / step > _NUMBERS):
        raise ValueError(f"{text} is too wide; write ends that are closer together, or a larger step")
    return Range(low, high, step, is_log)


def _is_whole(number: Decimal) -> bool:
    """Tell whether a number is written without a point: 1.0 asks for others, too."""
    return number.as_tuple().exponent == 0


def axis(name: str, text: str, where: str) -> Axis:
    """Return the axis of one param. Raises ValueError."""
    return Axis((name,), tuple((value,) for value in values(domain(text))), where)


def table(text: str, file: str) -> Axis:
    """Return the axis of a CSV file, whose first line names the params. Raises ValueError with the place."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    points, places = [], []
    try:
        rows = filter(None, reader)  # without empty lines
        names = tuple(name.strip() for name in next(rows, ()))
        if len(names) == 1 and re.search("[;\t]", names[0]):
            raise ValueError(f"{file}:{reader.line_num}: expected commas between names; found {names[0]!r}")
        for row in rows:
            if len(row) != len(names):
                raise ValueError(
                    f"{file}:{reader.line_num}: expected {counted(len(names), 'value')}, as in "
                    f"the first line; found {len(row)}"
                )
            points.append(tuple(row))
            places.append(f"{file}:{reader.line_num}")
    except csv.Error as error:
        raise ValueError(f"{file}:{reader.line_num}: {error}") from None
    if not points:
        raise ValueError(f"{file}: expected a line with the params' names, and one for each run")
    return Axis(names, tuple(points), f"{file}:1", tuple(places))


# --- which param a name means ---


def jobs(chain: str) -> list[str]:
    """Return the names of the jobs of a chain that is written as one text. Raises ValueError."""
    links: list[list[str]] = [[]]
    for word in words(chain):
        if word == "+":
            links.append([])
        else:
            links[-1].append(word)
    if not all(links):
        raise ValueError("a job is missing before or after a `+`")
    if any(link[0].startswith("-") for link in links):
        raise ValueError("begin with a job; options of Skelebot stand before `queue`")
    return [link[0] for link in links]


def words(chain: str) -> list[str]:
    """Split a chain as a shell would, which nothing of it is given to. Raises ValueError."""
    import shlex  # only for a sweep that is declared

    try:
        return shlex.split(chain)
    except ValueError as error:
        raise ValueError(f"{str(error).lower()}; close it") from None


def params(args: Sequence[Arg], params: Sequence[Param]) -> dict[str, Param]:
    """Return what can be swept of a job, by name: its params, and its args as params.

    Where an arg has the name of a param, the name means the param.
    """
    of_args = {
        arg.name: Param(
            arg.name, choices=arg.choices, type=arg.type, min=arg.min, max=arg.max, pattern=arg.pattern
        )
        for arg in args
    }
    return {**of_args, **{param.name: param for param in params}}


def resolve(name: str, known: Iterable[str]) -> str:
    """Return the `job.param` that a name means, itself or the param alone. Raises ValueError."""
    known = tuple(known)
    if name in known:
        return name
    meant = [full for full in known if full.endswith(f".{name}")]
    if len(meant) > 1:
        raise ValueError(f"several jobs have {name}; write {' or '.join(meant)}")
    if not meant:
        raise ValueError(f"no job of the chain has a param or an arg {name!r}{did_you_mean(name, known)}")
    return meant[0]


def unfit(param: Param, of: Domain, is_open: bool) -> Iterator[str]:
    """Yield what keeps a param from having the values of a domain.

    is_open: whether somebody else chooses the numbers of a range later.
    """
    for text in (f"{of.low}", f"{of.high}") if isinstance(of, Range) else of:
        try:
            options.value(param, text)
        except ValueError as error:
            yield str(error)
    if isinstance(of, Range) and is_open and (param.choices or param.pattern):
        yield "a range may give values that do not fit; list the values"


# --- which runs there are ---


def grid(axes: Sequence[Axis]) -> list[Trial]:
    """Return each combination of the axes' points, the last axis varying fastest. Raises ValueError."""
    count = math.prod(len(axis.points) for axis in axes)
    if count > MOST:
        raise ValueError(f"these are {count} runs; a sweep has at most {MOST}")
    pairs = [[tuple(zip(axis.names, point, strict=True)) for point in axis.points] for axis in axes]
    trials = (dict(pair for point in points for pair in point) for points in product(*pairs))
    return list({tuple(trial.items()): trial for trial in trials}.values())


def drawn(domains: dict[str, Domain], count: int, seed: int) -> list[Trial]:
    """Return so many trials at random, no two of them equal; fewer where there are no more.

    The same seed gives the same trials on every version of Python: only `random()` of a generator that was
    seeded with a number is promised to stay. https://docs.python.org/3/library/random.html#notes-on-reproducibility
    """
    generator = random.Random(seed)  # noqa: S311 - nothing secret
    found: dict[tuple[str, ...], Trial] = {}
    for _ in range(count * _TRIES):
        trial = {name: _draw(domain, generator.random()) for name, domain in domains.items()}
        found.setdefault(tuple(trial.values()), trial)
        if len(found) == count:
            break
    return list(found.values())


def _draw(of: Domain, where: float) -> str:
    """Return the value of a domain that stands for a number from 0 up to, but not including, 1."""
    if not isinstance(of, Range):
        return of[int(where * len(of))]
    if of.step is not None:
        return of.at(int(where * of.length))
    low, high = float(of.low), float(of.high)
    if of.is_log and of.is_whole:  # as wide at each end as between
        return str(min(max(round(_between(low - 0.5, high + 0.5, where, True)), int(low)), int(high)))
    return number_text(of, _between(low, high, where, of.is_log))


def _between(low: float, high: float, where: float, is_log: bool) -> float:
    if is_log:
        return math.exp(_between(math.log(low), math.log(high), where, False))
    return low + where * (high - low)


def number_text(of: Range, number: float) -> str:
    """Return a number of a range in few digits, which are the same on every machine."""
    return str(min(max(Decimal(f"{number:.6g}"), of.low), of.high))


def part(trials: Sequence[Trial], text: str) -> list[Trial]:
    """Return the trials of a part such as `1/3`, which takes each third one. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    which, of = map(int, match.groups()) if match else (0, 0)
    if not 1 <= which <= of:
        raise ValueError(f"--part: expected a part such as 1/3, 2/3 or 3/3; found {text!r}")
    return list(trials[which - 1 :: of])


def default_name(params: Sequence[str], taken: Iterable[str]) -> str:
    """Return a short name that no other sweep has, as `rate-depth-1`."""
    short = "-".join(name.rpartition(".")[2] for name in params)[:40].strip("-") or "sweep"
    taken = set(taken)
    return next(name for i in range(1, len(taken) + 2) if (name := f"{short}-{i}") not in taken)
