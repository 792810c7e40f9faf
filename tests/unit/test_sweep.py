"""What a sweep tries, by values: lists, ranges, grids, files, draws."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot import options
from skelebot.model import Param
from skelebot.project import sweep
from skelebot.project.sweep import Axis, Range


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1", ("0.1",)),
        ("0.1,0.01", ("0.1", "0.01")),
        ("a, b", ("a", " b")),
        ('"a,b",c', ("a,b", "c")),
        ('"say ""no""",b', ('say "no"', "b")),
        ('a"b', ('a"b',)),
        ('""', ("",)),
        ("a,a,b", ("a", "b")),
        ("1..5", ("1", "2", "3", "4", "5")),
        ("-2..0", ("-2", "-1", "0")),
        ("3..3", ("3",)),
        ("1..3,7", ("1", "2", "3", "7")),
        ('"1..3"', ("1..3",)),
        ("1..10:4", ("1", "5", "9")),
        ("0.1..0.9:0.2", ("0.1", "0.3", "0.5", "0.7", "0.9")),
        ("0.1..0.8:0.2", ("0.1", "0.3", "0.5", "0.7")),
        ("0..1:.25", ("0.00", "0.25", "0.50", "0.75", "1.00")),
        ("1e-2..3e-2:1e-2", ("0.01", "0.02", "0.03")),
        ("a..b", ("a..b",)),
        ("../data,./x", ("../data", "./x")),
        ("1..b", ("1..b",)),
        ("2020-01-01..2020-02-01", ("2020-01-01..2020-02-01",)),
    ],
)
def test_values(text: str, expected: tuple[str, ...]) -> None:
    assert sweep.values(sweep.domain(text)) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a value is missing"),
        ("a,,b", 'a value is missing; write "" for an empty one'),
        ("a,", "a value is missing"),
        ('"a', "the quotes of '\"a' are not closed"),
        ('"a"b', "or text follows them"),
        ("5..1", "5..1 ends below its start; write 1..5"),
        ("0.1..0.9", "0.1..0.9 has no step; write one, as in 0.1..0.9:0.1, or add --trials N"),
        ("0.1..0.9,2", "has no step"),
        ("1..2:0", "needs a step above 0"),
        ("1..9:-1", "needs a step above 0"),
        ("0..1:log", "has to begin above 0"),
        ("1e-400..1:log", "has to begin above 0"),
        ("0..1:1e-400", "0..1:1e-400 is too wide; write ends that are closer together, or a larger step"),
        (f"1..{'9' * 5000}", "is too wide"),
        ("-1.7e308..1.7e308", "is too wide"),
        ("0.1..1:log", "0.1..1:log is a range to draw from; add --trials N"),
        ("1..1000000", "a sweep has at most 100000 runs"),
    ],
)
def test_wrong_values(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        sweep.values(sweep.domain(text))
    assert problem in str(raised.value)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, unique=True))
def test_any_list_can_be_written(values: list[str]) -> None:
    assert sweep.domain(sweep.text(tuple(values))) == tuple(values)


def is_range(value: object) -> bool:
    return isinstance(value, Range)


@given(
    st.sampled_from(
        ["1..5", "0.1..0.9", "1..9:2", "0.5..1.5:0.25", "1e-5..1:log", "1..100:log", "-3..4", "1.0..2"]
    )
)
def test_ranges_can_be_written(text: str) -> None:
    assert is_range(sweep.domain(text))
    assert sweep.domain(sweep.text(sweep.domain(text))) == sweep.domain(text)


numbers = st.decimals(-1000, 1000, places=2)


@given(numbers, st.integers(0, 300), st.decimals("0.01", 5, places=2))
def test_steps_do_not_drift_and_meet_the_end(low: Decimal, count: int, step: Decimal) -> None:
    found = sweep.values(sweep.domain(f"{low}..{low + count * step}:{step}"))
    assert [Decimal(text) for text in found] == [low + i * step for i in range(count + 1)]


# --- which param ---

KNOWN = ("load.rows", "train.rate", "train.rows")


def test_a_param_alone_means_the_job_that_has_it() -> None:
    assert sweep.resolve("train.rate", KNOWN) == sweep.resolve("rate", KNOWN) == "train.rate"
    with pytest.raises(ValueError, match=r"several jobs have rows; write load.rows or train.rows"):
        sweep.resolve("rows", KNOWN)
    with pytest.raises(
        ValueError, match=r"no job of the chain has a param or an arg 'train.rat'; did you mean"
    ):
        sweep.resolve("train.rat", KNOWN)


@pytest.mark.parametrize(
    ("param", "text", "expected"),
    [
        (Param("x"), "a b", "a b"),
        (Param("x", type="float"), "1e-3", "1e-3"),
        (Param("x", accepts="boolean"), "yes", True),
        (Param("x", accepts="boolean", default="true"), "False", False),
        (Param("x", accepts="list"), "a 'b c'", ("a", "b c")),
    ],
)
def test_a_text_as_the_value_of_an_option(param: Param, text: str, expected: options.Value) -> None:
    assert options.value(param, text) == expected


@pytest.mark.parametrize(
    ("param", "text", "problem"),
    [
        (Param("x", type="int"), "1.5", "expected a whole number; found '1.5'"),
        (Param("x", type="float", max="1"), "2", "expected a number of at most 1; found '2'"),
        (Param("x", choices=("a", "b")), "c", "expected a or b; found 'c'"),
        (Param("x", pattern="a+"), "b", "expected text that matches a+; found 'b'"),
        (Param("x", accepts="boolean"), "1", "expected true or false; found '1'"),
        (Param("x", accepts="list"), "", "expected at least one value"),
        (Param("x", accepts="list"), "a 'b", 'expected words with closed quotes; found "a \'b"'),
        (Param("x", accepts="list", type="int"), "1 b", "expected a whole number; found 'b'"),
    ],
)
def test_a_text_that_is_no_value(param: Param, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        options.value(param, text)
    assert str(raised.value) == problem


def test_numbers_of_a_range_that_a_param_does_not_take() -> None:
    param = Param("x", type="float", min="0", max="1")
    assert list(sweep.unfit(param, sweep.domain("0.5..2:log"), False)) == [
        "expected a number from 0 to 1; found '2'"
    ]
    chosen = Param("x", type="int", choices=("1", "9"))
    assert list(sweep.unfit(chosen, sweep.domain("1..9"), True)) == [
        "a range may give values that do not fit; list the values"
    ]
    assert list(sweep.unfit(chosen, sweep.domain("1..9"), False)) == []  # what is drawn is looked at


# --- which runs ---


def test_grid_varies_the_last_axis_fastest() -> None:
    axes = [sweep.axis("a", "1,2", ""), Axis(("b", "c"), (("x", "y"), ("z", "w")), "")]
    assert sweep.grid(axes) == [
        {"a": "1", "b": "x", "c": "y"},
        {"a": "1", "b": "z", "c": "w"},
        {"a": "2", "b": "x", "c": "y"},
        {"a": "2", "b": "z", "c": "w"},
    ]


def test_grid_has_a_limit() -> None:
    with pytest.raises(ValueError, match="these are 1000000 runs; a sweep has at most 100000"):
        sweep.grid([sweep.axis(name, "1..1000", "") for name in "ab"])


@given(st.lists(st.lists(st.text(max_size=2), min_size=1, max_size=4, unique=True), min_size=1, max_size=4))
def test_grid_has_each_combination_once(lists: list[list[str]]) -> None:
    axes = [Axis((str(i),), tuple((v,) for v in values), "") for i, values in enumerate(lists)]
    found = sweep.grid(axes)
    assert len(found) == math.prod(map(len, lists)) == len({tuple(trial.values()) for trial in found})


def test_table() -> None:
    found = sweep.table('\ntrain.rate, depth\n0.1,2\n\n"a,b",\n', "g.csv")
    assert found.names == ("train.rate", "depth")
    assert found.points == (("0.1", "2"), ("a,b", ""))
    assert [found.place(i) for i in range(2)] == ["g.csv:3", "g.csv:5"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "g.csv: expected a line with the params' names"),
        ("a,b\n", "g.csv: expected a line"),
        ("a,b\n1\n", "g.csv:2: expected 2 values, as in the first line; found 1"),
        ("a;b\n1;2\n", "g.csv:1: expected commas between names; found 'a;b'"),
        ("a\n1,2\n", "g.csv:2: expected 1 value, as in the first line; found 2"),
        ('a\n"b\n', "g.csv:"),
    ],
)
def test_wrong_table(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        sweep.table(text, "g.csv")
    assert str(raised.value).startswith(problem)


def test_drawn_trials_are_those_of_the_seed_on_every_python() -> None:
    texts = {"a": "1e-5..1:log", "b": "1..9", "c": "x,y", "d": "1..1000:log", "e": "0.0..1", "f": "0..1:0.25"}
    domains = {name: sweep.domain(text) for name, text in texts.items()}
    assert sweep.drawn(domains, 2, 7) == [
        {"a": "0.000416068", "b": "2", "c": "y", "d": "1", "e": "0.535882", "f": "0.25"},
        {"a": "0.0000194982", "b": "5", "c": "x", "d": "14", "e": "0.0698554", "f": "0.00"},
    ]


@given(
    st.integers(0, 2**32 - 1), st.sampled_from(["1..9", "1e-5..1:log", "1..50:log", "0.1..0.2", "0..1:0.1"])
)
def test_drawn_numbers_are_in_their_range(seed: int, text: str) -> None:
    domain = sweep.domain(text)
    assert isinstance(domain, Range)
    for trial in sweep.drawn({"x": domain}, 5, seed):
        assert domain.low <= Decimal(trial["x"]) <= domain.high
        assert not domain.is_whole or "." not in trial["x"]


def test_no_two_drawn_trials_are_equal() -> None:
    found = sweep.drawn({"x": ("a", "b", "c")}, 10, 1)
    assert sorted(trial["x"] for trial in found) == ["a", "b", "c"]


def test_parts_share_out_all_trials() -> None:
    trials = sweep.grid([sweep.axis("x", "1..7", "")])
    parts = [sweep.part(trials, f"{i}/3") for i in (1, 2, 3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert sorted(t["x"] for part in parts for t in part) == [t["x"] for t in trials]
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3", f"1/{'9' * 5000}"):
        with pytest.raises(ValueError, match="expected a part"):
            sweep.part(trials, wrong)


def test_default_name() -> None:
    assert sweep.default_name(["train.rate", "score.depth"], []) == "rate-depth-1"
    assert sweep.default_name(["train.rate"], ["rate-1", "rate-3", "other"]) == "rate-2"
    assert len(sweep.default_name(["x." + "n" * 90], [])) < 50


def test_jobs_of_a_chain_that_is_written_as_a_text() -> None:
    assert sweep.jobs("load + train --x 'a + b' + score") == ["load", "train", "score"]
    for wrong in ("load +", "+ load", "-n load", "load 'x"):
        with pytest.raises(ValueError, match=r"."):
            sweep.jobs(wrong)
