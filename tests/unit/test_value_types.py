"""Which texts the types of args and params take, where mistakes are reported, and what the help says."""

import datetime
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot import options
from skelebot.errors import UsageError
from skelebot.model import Arg, Param
from skelebot.project import plan
from skelebot.value_types import expectation, is_of, mismatch, parsed

from .helpers import load, problems, run_cli, write
from .test_properties import examples

# --- which texts ---

RIGHT = {
    "int": ["0", "-1", "+7", "007", "9" * 400],
    "float": ["0", "1.", ".5", "-1.5", "+2", "1e3", "1E-3", "-.5e+2", "1e308"],
    "date": ["2024-02-29", "0001-01-01", "9999-12-31"],
    "path": ["a", "/a", "a b", "../a", " ", "a\nb"],
    "file": ["a", "nowhere"],
    "text": ["", "anything", "a\nb"],
}
WRONG = {
    "int": ["", " 1", "1 ", "1\n", "1_000", "1.0", "1e3", "0x10", "--1", "+", "a", "\u0663"],
    "float": ["", " 1", "1\n", "1_0.0", "nan", "NaN", "inf", "-inf", "1e999", "0x1p3", ".", "e3", "1,5"],
    "date": ["", "2024-02-30", "2023-02-29", "20240131", "2024-1-31", "2024-W01-1", "2024-01-31T00:00",
             "0000-01-01", "2024-13-01", "today", "2024-01-31\n", "\u0662024-01-31"],
    "path": [""],
    "file": ["", "/", "data.csv/", "data/"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, texts in RIGHT.items() for t in texts])
def test_a_text_that_is_of_a_type(kind: Any, text: str) -> None:
    assert mismatch(Arg("a", type=kind), text) is None


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, texts in WRONG.items() for t in texts])
def test_a_text_that_is_not_of_a_type(kind: Any, text: str) -> None:
    assert mismatch(Arg("a", type=kind), text) == expectation(Arg("a", type=kind))


@given(st.one_of(st.text(), st.from_regex(r"[+-]?[0-9._eE+-]{0,8}", fullmatch=True)))
@examples(500)
def test_what_is_a_number_is_one_to_python(text: str) -> None:
    if is_of("int", text):
        assert int(text) == parsed("int", text)
        assert is_of("float", text) or not math.isfinite(float(text))
    if is_of("float", text):
        assert math.isfinite(float(text))


@given(st.integers(), st.integers(), st.integers())
@examples(200)
def test_limits_of_whole_numbers(value: int, low: int, high: int) -> None:
    fits = mismatch(Param("n", type="int", min=str(low), max=str(high)), str(value)) is None
    assert fits == (low <= value <= high)


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(_FLOATS, _FLOATS, _FLOATS)
@examples(200)
def test_limits_of_numbers(value: float, low: float, high: float) -> None:
    fits = mismatch(Param("n", type="float", min=repr(low), max=repr(high)), repr(value)) is None
    assert fits == (low <= value <= high)


@given(st.dates(), st.dates(), st.dates())
@examples(200)
def test_limits_of_dates(value: datetime.date, low: datetime.date, high: datetime.date) -> None:
    fits = mismatch(Param("n", type="date", min=str(low), max=str(high)), str(value)) is None
    assert fits == (low <= value <= high)


@given(st.lists(st.integers(-9, 9), min_size=1), st.integers(-9, 9))
@examples(100)
def test_choices_of_a_type_are_compared_by_their_values(choices: list[int], value: int) -> None:
    of = Arg("n", tuple(map(str, choices)), type="float")
    assert (mismatch(of, f"{value}.0") is None) == (value in choices)


def test_choices_of_text_are_compared_as_text() -> None:
    assert mismatch(Arg("n", ("0.1",)), "0.10") == "0.1"


@pytest.mark.parametrize(
    ("kind", "low", "high", "expected"),
    [
        ("int", "1", None, "a whole number of at least 1"),
        ("int", None, "9", "a whole number of at most 9"),
        ("float", "0", "1", "a number from 0 to 1"),
        ("date", "2024-01-31", None, "a date as YYYY-MM-DD, from 2024-01-31 on"),
        ("date", None, "2024-01-31", "a date as YYYY-MM-DD, up to 2024-01-31"),
        ("date", "2024-01-01", "2024-01-31", "a date as YYYY-MM-DD, from 2024-01-01 to 2024-01-31"),
    ],
)
def test_limits_are_described(kind: Any, low: str | None, high: str | None, expected: str) -> None:
    assert expectation(Param("x", type=kind, min=low, max=high)) == expected


def test_a_pattern_counts_for_the_whole_value() -> None:
    of = Param("tag", pattern="a|b+")
    assert [text for text in ("a", "bb", "ab", "xa", "a\n", "") if mismatch(of, text) is None] == ["a", "bb"]
    assert mismatch(Arg("n", type="int", pattern=r"\d{3}"), "12") == r"a whole number that matches \d{3}"


# --- on the command line ---


def read(of: Param, *words: str) -> Any:
    return options.parse((), (of,), words)[of.name]


def refusal(of: Param, *words: str) -> str:
    with pytest.raises(UsageError) as error:
        read(of, *words)
    return str(error.value)


@given(st.sampled_from(["int", "float", "date", "path", "file", "text"]), st.text())
@examples(300)
def test_a_value_arrives_as_it_was_typed_or_is_refused(kind: Any, text: str) -> None:
    of = Param("pp", type=kind)
    if mismatch(of, text):
        assert refusal(of, f"--pp={text}").startswith("--pp: expected ")
    else:
        assert read(of, f"--pp={text}") == text
        assert plan.param_words(of, text) == ["--pp", text]


def test_each_value_of_a_list_is_checked() -> None:
    many = Param("many", accepts="list", type="int", max="3")
    assert read(many, "--many", "1", "-2", "3") == ("1", "-2", "3")
    assert refusal(many, "--many", "1", "4") == "--many: expected a whole number of at most 3; found '4'"


def test_a_secret_is_not_in_the_message() -> None:
    secret = Param("pin", type="int", secret=True)
    assert refusal(secret, "--pin", "x99") == "--pin: expected a whole number"


def test_an_arg_is_checked_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    job = "{name: a, source: touch ran, help: h, args: [{name: rate, type: float, min: 0, max: 1}]}"
    write(tmp_path, f"name: demo\njobs: [{job}]\n")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["-n", "a", "1.0", "+", "a", "1.5"]) == 2
    assert capfd.readouterr().err == (
        "ERROR | a: rate: expected a number from 0 to 1; found '1.5'; usage: skelebot a RATE\n"
    )
    assert not (tmp_path / "ran").exists()


def test_a_value_of_the_environment_is_checked_too() -> None:
    of = Param("rate", type="float", max="1", default="$RATE")
    assert plan.default("a", of, {"RATE": "0.5"}) == "0.5"
    assert plan.default("a", of, {}) is None
    with pytest.raises(UsageError, match=re.escape("a: --rate: $RATE is '', expected a number of at most 1")):
        plan.default("a", of, {"RATE": ""})
    with pytest.raises(UsageError, match=r"a: --rate: \$RATE is another value, expected"):
        plan.default("a", Param("rate", type="int", default="$RATE", secret=True), {"RATE": "x"})


# --- in the configuration ---

PARAM = "name: demo\njobs:\n- name: a\n  source: a.py\n  help: A\n  params:\n  - "


@pytest.mark.parametrize(
    "param",
    [
        "{name: x, type: int, min: -3, max: 3, default: 0, choices: [0, 3]}",
        "{name: x, type: float, min: 1e-3, default: 0.10}",
        "{name: x, type: date, min: 2024-01-01, max: 2024-12-31, default: 2024-01-31}",
        "{name: x, type: date, min: 2024-01-01, max: 2024-01-01}",
        "{name: x, type: file, default: nowhere.csv}",
        "{name: x, type: int, default: $ANYTHING}",
        "{name: x, type: int, accepts: list, default: [1, 2]}",
        "{name: x, pattern: '[a-z]+', default: abc}",
        "{name: x, type: null, min: null, max: null, pattern: null}",
    ],
)
def test_what_fits_together_loads(tmp_path: Path, param: str) -> None:
    load(tmp_path, PARAM + param + "\n")


AT = "skelebot.yaml:7:5: jobs[0].params[0]"
PATTERN = "skelebot.yaml:7:24: jobs[0].params[0].pattern:"


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ("type: number", "skelebot.yaml:7:21: jobs[0].params[0].type: expected text or int or float or date"),
        ("type: int, min: 0.5", f"{AT}.min: expected a whole number; found '0.5'"),
        ("type: date, max: 2024-02-30", f"{AT}.max: expected a date as YYYY-MM-DD; found '2024-02-30'"),
        ("type: float, max: .inf", f"{AT}.max: expected a number; found '.inf'"),
        ("type: int, min: 3, max: 2", f"{AT}.min: 3 is above max, 2"),
        ("type: int, min: 10, max: 9", f"{AT}.min: 10 is above max, 9"),
        ("min: 1", f"{AT}.min: a value of type text has no min; add `type: int`, `float` or `date`"),
        ("type: path, max: 1", f"{AT}.max: a value of type path has no max"),
        ("type: int, choices: [1, a]", f"{AT}.choices[1]: expected a whole number; found 'a'"),
        ("type: int, max: 2, choices: [1, 3]", f"{AT}.choices[1]: expected a whole number of at most 2"),
        ("pattern: a, choices: [a, b]", f"{AT}.choices[1]: expected text that matches a; found 'b'"),
        ("type: int, default: 1.5", f"{AT}.default: '1.5' is not a whole number"),
        ("type: int, choices: [1, 2], default: 3", f"{AT}.default: '3' is not among the choices: 1, 2"),
        ("type: date, default: today", f"{AT}.default: 'today' is not a date as YYYY-MM-DD"),
        ("type: int, accepts: list, default: [1, b]", f"{AT}.default: 'b' is not a whole number"),
        ("type: int, secret: true, default: geheim", f"{AT}.default: the default is not a whole number"),
        ("pattern: '[a'", f"{PATTERN} expected a regular expression of Python ("),
        ("pattern: 'a{99999999999}'", f"{PATTERN} expected a regular expression of Python ("),
        ("pattern: ['a']", f"{PATTERN} expected text, found a list"),
        ("accepts: boolean, type: int", f"{AT}.type: a boolean takes no value; leave out type or "),
        ("accepts: boolean, max: 1", f"{AT}.max: a boolean takes no value"),
        ("accepts: boolean, pattern: a", f"{AT}.pattern: a boolean takes no value"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together(tmp_path: Path, keys: str, wrong: str) -> None:
    found = problems(tmp_path, f"{PARAM}{{name: x, {keys}}}\n")
    assert len(found) == 1
    assert found[0].startswith(wrong)
    assert "geheim" not in found[0]


def test_an_arg_and_the_params_of_the_root_are_checked_too(tmp_path: Path) -> None:
    text = "name: demo\njobs: [{name: a, source: a.py, help: A, args: [{name: d, type: date, min: 1}]}]\n"
    assert problems(tmp_path, text + "params: [{name: n, type: int, max: x}]\n") == [
        "skelebot.yaml:2:48: jobs[0].args[0].min: expected a date as YYYY-MM-DD; found '1'",
        "skelebot.yaml:3:10: params[0].max: expected a whole number; found 'x'",
    ]


def test_values_for_a_rehearsal_are_checked(tmp_path: Path) -> None:
    text = "name: demo\njobs: [{name: a, source: a.py, help: A, args: [{name: n, type: int, max: %s}], "
    text += "params: [{name: key, type: int, secret: true}], rehearse: {n: %s, key: %s}}]\n"
    assert problems(tmp_path, text % (3, 3, 1)) == []
    assert problems(tmp_path, text % (3, 4, "geheim")) == [
        "skelebot.yaml:2:8: jobs[0].rehearse.n: '4' is not a whole number of at most 3",
        "skelebot.yaml:2:8: jobs[0].rehearse.key: the value is not a whole number",
    ]
    assert len(problems(tmp_path, text % ("x", 4, 1))) == 1


def test_a_boolean_of_a_rehearsal_is_true_or_false(tmp_path: Path) -> None:
    text = "name: demo\njobs: [{name: a, source: a.py, help: A, params: [{name: fast, accepts: boolean}], "
    text += "rehearse: {fast: %s}}]\n"
    assert problems(tmp_path, text % "true") == problems(tmp_path, text % "No") == []
    assert problems(tmp_path, text % 1) == [
        "skelebot.yaml:2:8: jobs[0].rehearse.fast: '1' is not true or false"
    ]


def test_a_pattern_that_python_warns_of_is_silent(tmp_path: Path, capfd: Any) -> None:
    load(tmp_path, PARAM + "{name: x, pattern: '[[a]'}\n")
    assert capfd.readouterr().err == ""


# --- help ---


def test_the_help_shows_type_and_range() -> None:
    args = (Arg("day", type="date", max="2024-12-31", help="last day"), Arg("n", ("1", "2"), type="int"))
    params = (
        Param("rate", type="float", min="0", max="1", default="0.1", help="learning rate"),
        Param("data", type="file"),
        Param("tag", pattern="[a-z]+"),
        Param("n", type="int", choices=("1", "2")),
    )
    assert list(options.describe(args, params)) == [
        ("DAY", "last day (date as YYYY-MM-DD, up to 2024-12-31)"),
        ("N", ""),
        ("--rate RATE", "learning rate (number from 0 to 1; default: 0.1)"),
        ("--data DATA", "(file, by its path from the project's root)"),
        ("--tag TAG", "(text that matches [a-z]+)"),
        ("-n N", "(one of 1, 2)"),
    ]


def test_what_is_incomplete_is_not_refused_while_it_is_completed() -> None:
    assert options.upcoming((Param("num", type="int", pattern="1+"),), ["--num"], False).param is not None
