"""Which runs `runs gc` may remove."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot import units
from skelebot.runs.collect import expired
from skelebot.runs.record import RunRecord, State

from .test_difference import run

NOW = 1_000_000.0


def ended(number: int, age: float = 0, state: State = "done", project: str = "demo") -> RunRecord:
    return replace(run(), number=number, state=state, ended=NOW - age, project=project)


def numbers(
    runs: list[RunRecord], older: float = 0, keep: int = 0, needed: tuple[int, ...] = ()
) -> list[int]:
    return [each.number for each in expired(runs, NOW, older, keep, needed)]


def test_runs_that_ended_long_ago_go_the_oldest_first() -> None:
    assert numbers([ended(3, 10), ended(1, 300), ended(2, 200, "failed")], older=100) == [1, 2]


def test_a_run_that_ended_before_the_clock_was_set_back_has_no_age() -> None:
    assert numbers([ended(1, age=-50)]) == [1]
    assert numbers([ended(1, age=-50)], older=1) == []


def test_the_latest_of_each_project_stay() -> None:
    runs = [ended(1), ended(2), ended(3), ended(4, project="other")]
    assert numbers(runs, keep=1) == [1, 2]


def test_what_waits_runs_or_is_tagged_stays() -> None:
    runs = [ended(1, state="queued"), ended(2, state="running"), replace(ended(3), tags=("best",)), ended(4)]
    assert numbers(runs) == [4]


def test_what_a_waiting_run_comes_after_stays() -> None:
    assert numbers([ended(1), ended(2)], needed=(1,)) == [2]


@given(
    st.lists(st.tuples(st.sampled_from(["done", "failed", "queued", "running"]), st.integers(0, 100))),
    st.integers(0, 100),
    st.integers(0, 5),
)
def test_no_condition_removes_more(facts: list[tuple[State, int]], older: int, keep: int) -> None:
    runs = [ended(number, age, state) for number, (state, age) in enumerate(facts, 1)]
    assert set(numbers(runs, older, keep)) <= set(numbers(runs, older)) & set(numbers(runs, keep=keep))
    assert all(runs[number - 1].has_ended for number in numbers(runs, older, keep))


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("2m", 120), ("3h", 10_800), ("90d", 7_776_000)])
def test_ages(text: str, seconds: int) -> None:
    assert units.age(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1.5d", "1w", "1 d", "٣d"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(ValueError):
        units.age(text)
