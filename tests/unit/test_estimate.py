"""How long runs still take: by values, on simulated queues, and from what a store knows."""

import heapq
import math
import os
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.runs import estimate, worker
from skelebot.runs import store as stores
from skelebot.runs.estimate import UNKNOWN, Estimate, Span, Work, remaining, schedule, whole
from skelebot.runs.places import HERE
from skelebot.runs.record import RunRecord, Sweep, TaskRecord
from skelebot.runs.store import Store
from skelebot.runs.worker import Plan

from .test_runs import run, task

NOW = 1_800_000_000.0
ROOT = "/p"


def exactly(seconds: float) -> Span:
    return Span(seconds, seconds, seconds)


# --- one task ---


def test_a_task_takes_the_mean_of_those_before_and_most_likely_the_middle_half() -> None:
    assert whole([10, 20, 30, 40, 100]) == Span(20, 40, 40)
    assert whole([7]) == exactly(7)
    assert whole([]) is UNKNOWN


@pytest.mark.parametrize(
    ("durations", "age", "progress", "expected"),
    [
        ([10, 20, 30, 40, 50], 0, 0, Span(20, 30, 40)),
        ([10, 20, 30, 40, 50], 15, 0, Span(12.5, 20, 27.5)),  # of 20, 30, 40, 50
        ([10, 20, 30, 40, 50], 45, 0, exactly(5)),
        ([10, 20, 30, 40, 50], 60, 0, Span(0, 12, 30)),  # longer than any before
        ([10, 20, 30, 40, 50], 60, 0.4, exactly(90)),  # its own word counts first
        ([], 60, 0.4, exactly(90)),
        ([], 60, 1, exactly(0)),
        ([100], 60, 1e-12, exactly(40)),  # too little to tell
        ([], 60, 1e-12, UNKNOWN),
        ([], 60, 1.5, exactly(0)),
        ([], 60, 0, UNKNOWN),
        ([10, 20, 30], -3600, 0, Span(15, 20, 25)),  # the clock was set back
        ([], -3600, 0.5, exactly(0)),
    ],
)
def test_what_is_left_of_a_running_task(
    durations: list[float], age: float, progress: float, expected: Span
) -> None:
    assert remaining(durations, age, progress) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(-1e6, 1e6), st.floats(0, 1))
def test_no_span_is_negative_or_out_of_order(durations: list[float], age: float, progress: float) -> None:
    for span in (whole(sorted(durations)), remaining(sorted(durations), age, progress)):
        # The last digits are the processor's.
        assert 0 <= span.low <= span.likely * (1 + 1e-9) + 1e-9 <= span.high * (1 + 1e-9) + 1e-8


# --- the schedule ---


def work(seconds: float, count: int = 1, root: str = ROOT) -> Work:
    return Work(root, exactly(seconds), count)


@pytest.mark.parametrize(
    ("running", "queued", "slots", "expected"),
    [
        ([], [], {None: 2}, []),
        ([], [work(10, 3)], {}, [10, 20, 30]),  # without a worker, over one slot
        ([], [work(10, 3)], {ROOT: 2}, [10, 10, 20]),
        ([], [work(10, 2), work(3, 2)], {None: 2}, [10, 10, 13, 13]),
        ([work(4)], [work(10, 2)], {ROOT: 2}, [4, 10, 14]),
        ([work(4), work(2), work(9)], [work(1)], {ROOT: 2}, [4, 2, 9, 3]),  # one is in front, without a slot
        ([work(4)], [work(1)], {}, [4, 5]),
        ([], [work(10), work(10, root="/q"), work(1)], {ROOT: 1, None: 1}, [10, 10, 11]),
        ([], [work(10), work(5, root="/q")], {ROOT: 1}, [10, 5]),
        ([], [work(math.inf), work(1)], {ROOT: 2}, [math.inf, math.inf]),
        ([work(math.inf), work(3)], [work(1)], {ROOT: 2}, [math.inf, 3, math.inf]),
        ([work(math.inf)], [work(1, root="/q")], {ROOT: 1, "/q": 1}, [math.inf, 1]),
    ],
)
def test_when_each_run_ends(
    running: list[Work], queued: list[Work], slots: dict[str | None, int], expected: list[float]
) -> None:
    for ends in schedule(running, queued, slots):
        assert ends == expected


def test_the_range_is_that_of_the_spans() -> None:
    assert schedule([], [Work(ROOT, Span(1, 2, 4), 2)], {ROOT: 1}) == ([1, 2], [2, 4], [4, 8])


# --- a simulated queue ---


def error_of_a_simulation(seed: int, runs: int, slots: int, done: float = 0.4) -> float:
    """Return by which part of the time left it is missed once that part of the runs is done."""
    draw = random.Random(seed)
    durations = [draw.lognormvariate(5, 0.35) for _ in range(runs)]
    free, begins = [0.0] * slots, []
    for seconds in durations:
        begins.append(free[0])
        heapq.heapreplace(free, free[0] + seconds)
    ends = [begin + seconds for begin, seconds in zip(begins, durations, strict=True)]
    now = sorted(ends)[int(runs * done) - 1]
    seen = sorted(seconds for seconds, end in zip(durations, ends, strict=True) if end <= now)
    running = [
        Work(ROOT, remaining(seen, now - begin))
        for begin, end in zip(begins, ends, strict=True)
        if begin <= now < end
    ]
    queued = [Work(ROOT, whole(seen), sum(begin > now for begin in begins))]
    left = max(ends) - now
    return abs(max(schedule(running, queued, {ROOT: slots})[1]) - left) / left


@pytest.mark.parametrize(("runs", "slots"), [(50, 3), (20, 2), (200, 8), (40, 1)])
def test_the_median_error_at_40_percent_done_is_at_most_12_percent(runs: int, slots: int) -> None:
    assert median(error_of_a_simulation(seed, runs, slots) for seed in range(200)) <= 0.12


# --- what a store knows ---


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return stores.opened(str(tmp_path / "store"))


def add(store: Store, *tasks: TaskRecord, **facts: Any) -> RunRecord:
    (added,) = store.add([run(os.urandom(8).hex(), tasks=tasks or (task(),), **facts)])
    return added


def ended(
    store: Store, seconds: Sequence[float], *tasks: TaskRecord, changes: Any = None, **facts: Any
) -> int:
    """Add a run whose tasks took that long; return its number."""
    added = add(store, *tasks, **facts)
    results = {"state": "done", "started": NOW, **(changes or {})}
    store.update(
        added.number,
        lambda run: replace(
            run,
            state=results["state"],
            tasks=tuple(
                replace(each, **{"ended": NOW + took, **results})
                for each, took in zip(run.tasks, seconds, strict=True)
            ),
        ),
    )
    return added.number


def begin(store: Store, number: int, **task: Any) -> None:
    facts = {"state": "running", "started": NOW, **task}
    store.update(number, lambda run: replace(run.becoming("running").with_task(0, **facts)))


def trained(**params: object) -> TaskRecord:
    return task("train", params=tuple(params.items()))


def left(store: Store, root: str | None = ROOT, now: float = NOW) -> float | None:
    found = estimate.of(store, root, now).left
    return found.likely if found else None


def test_an_empty_queue_takes_no_time(store: Store) -> None:
    assert estimate.of(store, ROOT, NOW) == Estimate(exactly(0), (), 0, 0, {})


def test_a_chain_takes_what_its_jobs_took(store: Store) -> None:
    chain = (task("load"), task("train"))
    ended(store, [5, 60], *chain)
    ended(store, [15, 80], *chain)
    number = add(store, *chain).number
    found = estimate.of(store, ROOT, NOW)
    assert (found.left, found.runs, found.ends) == (Span(72.5, 80, 87.5), 2, {number: 80})


def test_a_job_that_never_ended_here_has_no_number(store: Store) -> None:
    ended(store, [5], task("load"))
    add(store, task("load"), task("train"))
    found = estimate.of(store, ROOT, NOW)
    assert (found.left, found.unknown, found.ends) == (None, ("train",), {})
    assert estimate.describe(found, NOW) == "unknown: train has never ended here"


def test_runs_before_an_unknown_one_have_their_times(store: Store) -> None:
    ended(store, [5], task("load"))
    first, _, _ = add(store, task("load")), add(store, task("train")), add(store, task("load"))
    assert estimate.of(store, ROOT, NOW).ends == {first.number: 5}


def test_the_same_parameters_count_before_other_ones(store: Store) -> None:
    for seconds in (100, 110, 120):
        ended(store, [seconds], trained(epochs=10))
    ended(store, [10], trained(epochs=1))
    number = add(store, trained(epochs=10)).number
    assert left(store) == 110
    store.remove(number)
    add(store, trained(epochs=1))  # one is too few
    assert left(store) == 85


def test_parameters_that_the_sweep_changes_do_not_count(store: Store) -> None:
    sweep = Sweep("rates", ("train.rate",))
    for rate, seconds in ((1, 100), (2, 110), (3, 120)):
        ended(store, [seconds], trained(rate=rate, epochs=10), sweep=sweep)
        ended(store, [5], trained(rate=rate, epochs=1), sweep=sweep)
    add(store, trained(rate=4, epochs=10), sweep=sweep)
    assert left(store) == 110


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "failed", "code": 1},
        {"state": "stopped"},
        {"taken_from": 1},  # cache: true
        {"started": 0.0},  # it was up to date
        {"ended": NOW - 3600},  # the clock was set back
    ],
)
def test_what_says_nothing_about_a_job_does_not_count(store: Store, changes: dict[str, Any]) -> None:
    ended(store, [60], changes=changes)
    assert store.durations("demo", "train") == []


def test_an_attempt_counts_alone_and_once(store: Store) -> None:
    number = add(store, task(retries=1)).number
    begin(store, number, attempt=1)
    store.update(number, lambda run: run.with_task(0, state="queued", ended=NOW + 1000, failures=1))
    store.update(number, lambda run: run.with_task(0, state="running", started=NOW + 2000, ended=0.0))
    store.update(number, lambda run: run.with_task(0, state="done", ended=NOW + 2060))
    store.update(number, lambda run: run.becoming("done"))
    assert [each.seconds for each in store.durations("demo", "train")] == [60]


def test_what_another_store_has_seen_does_not_count(store: Store) -> None:
    add(store, task(state="done", started=NOW, ended=NOW + 60), state="done")
    assert store.durations("demo", "train") == []


def test_a_running_run_counts_its_age_and_its_own_progress(store: Store) -> None:
    for seconds in (100, 100, 100):
        ended(store, [seconds])
    number = add(store).number
    begin(store, number)
    assert left(store, now=NOW + 30) == 70
    assert left(store, now=NOW - 30) == 100
    store.update(number, lambda run: run.with_task(0, progress=0.25))
    assert left(store, now=NOW + 30) == 90


def test_progress_is_enough_where_nothing_has_ended(store: Store) -> None:
    begin(store, add(store).number, progress=0.25)
    found = estimate.of(store, ROOT, NOW + 30)
    assert found.left == exactly(90)
    assert "(from the jobs' progress)" in estimate.describe(found, NOW + 30)


def test_what_other_runs_take_over_counts_once(store: Store) -> None:
    load, train = task("load", cache=True), task("train")
    ended(store, [100, 10], load, train)
    for _ in range(3):
        add(store, load, train)
    assert left(store) == 130
    add(store, replace(load, tree="1" * 40), train)  # other files
    assert left(store) == 240
    begin(store, add(store, load, train).number)
    assert left(store, now=NOW + 30) == 70 + 10 + 3 * 10 + 110


def test_tasks_that_are_done_take_no_more_time(store: Store) -> None:
    ended(store, [5, 60], task("load"), task("train"))
    add(store, task("load", state="done"), task("train"))
    assert left(store) == 60


def test_the_slots_of_living_workers_count(store: Store) -> None:
    ended(store, [60])
    for _ in range(4):
        add(store)
    assert left(store) == 240
    with worker._registered(store, Plan(ROOT, {HERE: 2})):
        assert (left(store), estimate.of(store, ROOT, NOW).slots) == (120, 2)
    with worker._registered(store, Plan(None, {HERE: 4})):
        assert left(store) == 60
    with worker._registered(store, Plan("/q", {HERE: 2})):  # takes others
        assert left(store) == 240


def test_a_worker_of_all_projects_also_takes_what_stands_before_ones_own(store: Store) -> None:
    ended(store, [60])
    add(store, root="/q")
    own = add(store)
    assert left(store) == 60
    with worker._registered(store, Plan(None, {HERE: 1})):
        assert estimate.of(store, ROOT, NOW).ends == {own.number: 120}


def test_durations_outlive_their_runs_and_the_database(store: Store) -> None:
    store.remove(ended(store, [60]))
    kept = ended(store, [80])
    stores.rebuild(store.folder)
    assert [each.seconds for each in store.durations("demo", "train")] == [80, 60]
    with open(os.path.join(store.folder, "runs.db"), "wb") as file:
        file.write(b"damaged" * 1000)
    stores.rebuild(store.folder)
    assert [each[1:] for each in store.durations("demo", "train")] == [(80, kept)]


def test_only_the_latest_durations_are_kept(store: Store) -> None:
    with closing(sqlite3.connect(store._database)) as database:
        rows = [("demo", job, "", seconds, 1) for job in ("train", "load") for seconds in range(1005)]
        database.executemany(f"insert into duration({stores._OF_DURATION}) values (?, ?, ?, ?, ?)", rows)
        database.commit()
    ended(store, [9999])
    assert [each.seconds for each in store.durations("demo", "train")] == [9999, *range(1004, 5, -1)]
    assert len(store.durations("demo", "load")) == 1005


def test_a_store_of_an_earlier_version_brings_its_durations(store: Store) -> None:
    ended(store, [60])
    number = add(store).number
    with closing(sqlite3.connect(store._database, isolation_level=None)) as database:
        for statement in (
            "drop index waiting",
            "alter table run drop column todo",
            "drop table duration",
            "create index waiting on run(state, priority desc, number)",
            "pragma user_version = 2",
        ):
            database.execute(statement)
    stores.opened(store.folder)
    assert estimate.of(store, ROOT, NOW).ends == {number: 60}


# --- in words ---


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            Estimate(Span(10_000, 12_000, 14_700), (), 37, 2, {}),
            "about 3 h 20 min, until 15:20 (from 37 runs); 2 h 46 min to 4 h 5 min",
        ),
        (
            Estimate(exactly(12_000), (), 1, 0, {}),
            "about 3 h 20 min, until 15:20 (from 1 run), with one slot",
        ),
        (
            Estimate(exactly(86_400), (), 3, 1, {}),
            "about 1 d 0 h, until Sat 12:00 (from 3 runs)",
        ),
        (
            Estimate(exactly(20 * 86_400), (), 3, 1, {}),
            "about 20 d 0 h, until 2026-12-17 12:00 (from 3 runs)",
        ),
        (Estimate(None, ("load", "train"), 3, 1, {}), "unknown: load, train have never ended here"),
    ],
)
def test_words(found: Estimate, expected: str) -> None:
    noon = time.mktime((2026, 11, 27, 12, 0, 0, 0, 0, -1))
    assert estimate.describe(found, noon) == expected
