"""How long runs still take: from how long the same took before, as a schedule over the slots.

All but `of` are pure functions of durations in seconds.
"""

import heapq
import math
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress, groupby
from operator import itemgetter
from typing import NamedTuple

from skelebot import console
from skelebot.runs import worker
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Duration, Kind, Store, kind_of, todo

_LATEST = 100  # so many durations of a kind count
_TELLING = 0.001  # a smaller part that is done says nothing about the rest
_ENOUGH = 3  # fewer of the same parameters say less than those of any parameters


class Span(NamedTuple):
    """How many seconds something takes: most likely, and in the quicker and slower quarter of the cases."""

    low: float
    likely: float
    high: float


UNKNOWN = Span(math.inf, math.inf, math.inf)
_NOTHING = Span(0.0, 0.0, 0.0)


class Work(NamedTuple):
    """So many runs in a row of the queue: the root of their checkout, how long each takes."""

    root: str
    span: Span
    times: int = 1


class Estimate(NamedTuple):
    """When a queue will be empty.

    left: the seconds until then; None where jobs have never ended here, which are `unknown`. runs: from how
    many runs it is. slots: those of living workers; without any, it is for one. ends: by the number of a run,
    the seconds until it ends, where that is known.
    """

    left: Span | None
    unknown: tuple[str, ...]
    runs: int
    slots: int
    ends: dict[int, float]


# --- one task ---


def whole(durations: Sequence[float]) -> Span:
    """Return how long a task takes, by sorted durations.

    The likely one is their mean: many tasks take so often their mean, which the median of durations misses.
    """
    if not durations:
        return UNKNOWN
    likely = sum(durations) / len(durations)
    low, high = _quantile(durations, 0.25), _quantile(durations, 0.75)
    return Span(min(low, likely), likely, max(high, likely))


def remaining(durations: Sequence[float], age: float, progress: float = 0.0) -> Span:
    """Return how long a running task still takes.

    By the part of it that it says is done; otherwise by those durations, sorted, that were longer than its
    age. One that lasts longer than any before is expected to take a fifth of its age more.
    """
    age = max(age, 0.0)
    if progress >= _TELLING:
        left = age * (1 - min(progress, 1.0)) / progress
        return Span(left, left, left)
    if not durations:
        return UNKNOWN
    longer = durations[bisect_right(durations, age) :]
    if not longer:
        return Span(0.0, age / 5, age / 2)
    low, likely, high = (_quantile(longer, part) - age for part in (0.25, 0.5, 0.75))
    return Span(low, likely, high)


def _quantile(ordered: Sequence[float], part: float) -> float:
    at = part * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def _sum(spans: Iterable[Span]) -> Span:
    total = _NOTHING
    for span in spans:
        total = Span(total.low + span.low, total.likely + span.likely, total.high + span.high)
    return total


# --- all of them ---


def schedule(
    running: Sequence[Work], queued: Sequence[Work], slots: Mapping[str | None, int]
) -> tuple[list[float], list[float], list[float]]:
    """Return when each run ends, the running ones first, by each of the numbers of `Span`.

    A queued one begins when a slot is free for it. slots: how many there are for the runs of a root, and,
    under None, for those of any; a root without any gets one. Behind a run whose end is unknown, so are those
    of the others.
    """
    counts = {root: count for root, count in slots.items() if count > 0}
    if None not in counts:
        counts |= {each.root: 1 for each in queued if each.root not in counts}
    low, likely, high = (_ends(running, queued, counts, at) for at in range(len(Span._fields)))
    return low, likely, high


def _ends(
    running: Sequence[Work], queued: Sequence[Work], slots: Mapping[str | None, int], at: int
) -> list[float]:
    """Return when each run ends, by one of the numbers of its span."""
    pools = {root: [0.0] * count for root, count in slots.items()}
    shared = pools.get(None)
    ends = []
    for each in running:
        ends.append(each.span[at])
        pool = next((p for p in (pools.get(each.root), shared) if p and p[0] == 0.0), None)
        if pool:
            _take(pool, ends[-1])
    for each in queued:
        seconds = each.span[at]
        may = [pool for pool in (pools.get(each.root), shared) if pool]
        if seconds == math.inf:
            _take(min(may), seconds)
        for _ in range(each.times):
            pool = may[0] if len(may) == 1 or may[0][0] <= may[1][0] else may[1]  # where one is free first
            ends.append(pool[0] + seconds)
            heapq.heapreplace(pool, ends[-1])
    return ends


def _take(pool: list[float], until: float) -> None:
    if until == math.inf:
        pool[:] = [math.inf]
    else:
        heapq.heapreplace(pool, until)


# --- what is known of a store ---


class _Past:
    """How long tasks took, each job read once; `numbers` collects the runs that it was asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[tuple[str, str], list[Duration]] = {}
        self._found: dict[tuple[str, ...], list[float]] = {}
        self._runs: dict[str, Span] = {}
        self._made: set[str] = set()
        self.numbers: set[int] = set()
        self.unknown: dict[str, None] = {}

    def of(self, kind: Kind) -> list[float]:
        """Return the sorted durations of the same parameters, or, if these are few, of the same job."""
        key, job = kind[:3], kind[:2]
        if key not in self._found:
            if job not in self._read:
                self._read[job] = self._store.durations(*job)
            same = [each for each in self._read[job] if each.fixed == kind.fixed]
            used = (same if len(same) >= _ENOUGH else self._read[job])[:_LATEST]
            self.numbers |= {each.number for each in used}
            self._found[key] = sorted(each.seconds for each in used)
        return self._found[key]

    def whole(self, kind: Kind) -> Span:
        """Return how long a task takes; nothing where one that was asked for before makes the same."""
        if kind.once in self._made:
            return _NOTHING
        if kind.once:
            self._made.add(kind.once)
        return self._known(kind, whole(self.of(kind)))

    def whole_run(self, text: str) -> Span:
        """Return how long the next queued run takes, by the kinds of its tasks as text."""
        if text in self._runs:
            return self._runs[text]
        kinds = todo(text)
        first, self._runs[text] = _sum(map(self.whole, kinds)), _sum(map(self.whole, kinds))
        return first

    def rest(self, run: RunRecord, now: float) -> Span:
        """Return how long a running run still takes."""

        def left(at: int) -> Span:
            task, kind = run.tasks[at], kind_of(run, at)
            if task.state != "running":
                return self.whole(kind)
            if kind.once:
                self._made.add(kind.once)
            known = () if task.progress >= _TELLING else self.of(kind)
            return self._known(kind, remaining(known, now - task.started, task.progress))

        return _sum(left(at) for at, task in enumerate(run.tasks) if task.state != "done")

    def _known(self, kind: Kind, span: Span) -> Span:
        if span is UNKNOWN:
            self.unknown[kind.job] = None
        return span


def of(store: Store, root: str | None, now: float | None = None) -> Estimate:
    """Return when the runs of a checkout, or all, will have ended, as far as that is known."""
    now = time.time() if now is None else now
    slots = _slots(store, root)
    every = None in slots  # such workers also take the runs of other checkouts
    past = _Past(store)
    runs = store.find(root=None if every else root, states=("running",))
    running = [Work(run.root, past.rest(run, now)) for run in runs]
    queued = []
    waiting = store.queued(None if every else root)
    for (its_root, text), group in groupby(waiting, key=itemgetter(1, 2)):
        queued.append(Work(its_root, past.whole_run(text)))
        queued.append(Work(its_root, past.whole_run(text), len(list(group)) - 1))
    lists: Sequence[list[float]] = schedule(running, queued, slots)
    numbers = [*(run.number for run in runs), *(number for number, _, _ in waiting)]
    if every and root is not None:
        mine = [each == root for each in (*(run.root for run in runs), *(each for _, each, _ in waiting))]
        numbers, lists = list(compress(numbers, mine)), [list(compress(ends, mine)) for ends in lists]
    left = Span(*(max(ends, default=0.0) for ends in lists))
    return Estimate(
        left if left.high < math.inf else None,
        tuple(past.unknown),
        len(past.numbers),
        sum(slots.values()),
        {number: end for number, end in zip(numbers, lists[1], strict=True) if end < math.inf},
    )


def _slots(store: Store, root: str | None) -> dict[str | None, int]:
    """Return how many slots there are, by the root whose runs they take; under None, those that take any."""
    slots: dict[str | None, int] = {}
    for each in worker.workers(store):
        its_root = None if each["root"] is None else str(each["root"])
        if root is None or its_root in (None, root):
            slots[its_root] = slots.get(its_root, 0) + int(str(each["slots"]))
    return slots


# --- in words ---


def describe(estimate: Estimate, now: float | None = None) -> str:
    """Return an estimate in words: `about 3 h 20 min, until 21:40 (from 37 runs); 3 h 2 min to 4 h 5 min`."""
    if estimate.left is None:
        jobs = ", ".join(estimate.unknown) or "a run before them"
        verb = "has" if len(estimate.unknown) < 2 else "have"
        return f"unknown: {jobs} {verb} never ended here"
    low, likely, high = map(console.duration, estimate.left)
    until = clock((time.time() if now is None else now) + estimate.left.likely, now)
    source = f"from {console.counted(estimate.runs, 'run')}" if estimate.runs else "from the jobs' progress"
    between = f"; {low} to {high}" if low != high else ""
    return f"about {likely}, until {until} ({source}){between}{'' if estimate.slots else ', with one slot'}"


def clock(when: float, now: float | None = None) -> str:
    """Return a time of the next days: as 21:40 today, with its day within a week, with its date later."""
    now = time.time() if now is None else now
    days = (when - now) / 86400
    same = time.localtime(when)[:3] == time.localtime(now)[:3]
    style = "%H:%M" if same else "%a %H:%M" if days < 6 else "%Y-%m-%d %H:%M"
    return time.strftime(style, time.localtime(when))
