"""Trials as values: what fills their blanks, which are equal, which is best, which are hopeless."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.json_form import from_json, to_json
from skelebot.model import NATIVE, Image, Param, Task
from skelebot.project import sweep
from skelebot.runs import prune, sampler, trial, workspace
from skelebot.runs import store as stores
from skelebot.runs.record import Blank, Metric, RunRecord, Sweep, TaskRecord
from skelebot.runs.sampler import Row
from skelebot.runs.store import Store
from skelebot.runs.trial import Goal

IMAGE = Image("demo:latest", "demo", base="", context="/p")
RATE, FAST, TAGS = Param("rate"), Param("fast", accepts="boolean"), Param("tags", accepts="list")
SWEEP = Sweep("s", ("train.rate", "train.fast", "train.tags"), goal="min:loss")


def task(job: str, *argv: str, **facts: Any) -> TaskRecord:
    return TaskRecord(job, "0" * 40, IMAGE, Task(job, argv, "/p", "demo", NATIVE), **facts)


def blank_run(is_repeated: bool = False) -> RunRecord:
    """`train --depth 3 SWEPT --seed 1`, for whose sake load runs before it."""
    blanks = tuple(Blank(param, at, is_repeated) for param, at in ((RATE, 3), (FAST, 5), (TAGS, 5)))
    params = (("rate", ""), ("depth", "3"), ("fast", ""), ("tags", ""))
    train = task("train", "t.sh", "--depth", "3", "--seed", "1", params=params, blanks=blanks)
    chain = ("train", "--depth", "3", "+", "score")
    tasks = (task("load", "true"), train, task("score", "true"))
    return RunRecord("u", "demo", "/p", chain, tasks, sweep=SWEEP)


@pytest.mark.parametrize(
    ("values", "argv", "typed"),
    [
        (
            ("0.1", "true", "a 'b c'"),
            ("--rate", "0.1", "--seed", "1", "--fast", "--tags", "a", "b c"),
            ("--rate", "0.1", "--fast", "--tags=a", "--tags=b c"),
        ),
        (
            ("-1", "false", "-x"),
            ("--rate", "-1", "--seed", "1", "--tags", "-x"),
            ("--rate=-1", "--tags=-x"),
        ),
        (
            ("+", "false", "+"),
            ("--rate", "+", "--seed", "1", "--tags", "+"),
            ("--rate=+", "--tags=+"),
        ),
        (
            ("", "false", "a"),
            ("--rate", "", "--seed", "1", "--tags", "a"),
            ("--rate", "", "--tags=a"),
        ),
    ],
)
def test_blanks_are_filled_in(
    values: tuple[str, str, str], argv: tuple[str, ...], typed: tuple[str, ...]
) -> None:
    found = trial.with_values(blank_run(), dict(zip(SWEEP.params, values, strict=True)))
    train = found.tasks[1]
    assert train.task.argv == ("t.sh", "--depth", "3", *argv)
    assert found.chain == ("train", *typed, "--depth", "3", "+", "score")
    assert (train.blanks, [name for name, _ in train.params]) == ((), ["rate", "depth", "fast", "tags"])
    assert (found.tasks[0], found.tasks[2]) == (blank_run().tasks[0], blank_run().tasks[2])
    assert trial.values_of(found) == dict(zip(SWEEP.params, values, strict=True))


@pytest.mark.parametrize(
    ("chain", "values", "typed"),
    [
        (("train",), ("a", "b", "1"), ("train", "a", "b", "--rate", "1")),
        (("train", "--depth", "3"), ("a", "b", "1"), ("train", "a", "b", "--rate", "1", "--depth", "3")),
        (("train", "--", "c"), ("a", "b", "1"), ("train", "a", "c", "b", "--rate", "1")),
        (
            ("train", "--x=--", "--", "-c"),
            ("a", "b", "1"),
            ("train", "--rate", "1", "--x=--", "--", "a", "-c", "b"),
        ),
        (("train",), ("-a", "b", "-1"), ("train", "--rate=-1", "--", "-a", "b")),
    ],
)
def test_args_are_filled_in(
    chain: tuple[str, ...], values: tuple[str, str, str], typed: tuple[str, ...]
) -> None:
    places = (0, 2) if "--" in chain else (0, 1)
    fixed = chain[chain.index("--") + 1 :] if "--" in chain else ()
    blanks = (Blank(Param("a"), 1, place=0), Blank(Param("b"), 1 + len(fixed), place=places[1]))
    train = task("train", "t.sh", *fixed, "--seed", "1", blanks=(*blanks, Blank(RATE, 1 + len(fixed))))
    run = RunRecord("u", "demo", "/p", (*chain, "+", "score"), (train, task("score", "true")))
    names = ("train.a", "train.b", "train.rate")
    found = trial.with_values(run, dict(zip(names, values, strict=True)))
    assert found.chain == (*typed, "+", "score")
    assert found.tasks[0].task.argv == (
        "t.sh",
        values[0],
        *fixed,
        values[1],
        "--rate",
        values[2],
        "--seed",
        "1",
    )


def test_a_class_gets_the_option_before_each_value() -> None:
    found = trial.with_values(blank_run(True), dict(zip(SWEEP.params, ("1", "no", "a b"), strict=True)))
    assert found.tasks[1].task.argv[-4:] == ("--tags", "a", "--tags", "b")


def test_a_run_with_blanks_is_stored_as_it_is() -> None:
    assert from_json(RunRecord, json.loads(json.dumps(to_json(blank_run())))) == blank_run()


@pytest.mark.parametrize(
    ("param", "value", "words"),
    [
        (Param("x"), "a", ["-x", "a"]),
        (Param("x"), "-a", ["-x-a"]),
        (Param("x", accepts="list"), ("a", "b"), ["-xa", "-xb"]),
        (Param("fast", accepts="boolean", default="true"), False, ["--no-fast"]),
        (Param("fast", accepts="boolean", default="true"), True, ["--fast"]),
    ],
)
def test_words_that_are_typed_for_a_value(param: Param, value: Any, words: list[str]) -> None:
    assert trial.typed_words(param, value) == words


def test_runs_that_do_the_same() -> None:
    values = dict(zip(SWEEP.params, ("1", "no", "a"), strict=True))
    one, same = trial.with_values(blank_run(), values), trial.with_values(blank_run(), values)
    other = trial.with_values(blank_run(), {**values, "train.rate": "2"})
    assert trial.identity(one) == trial.identity(same) != trial.identity(other)
    edited = one.with_task(0, tree="1" * 40)
    assert trial.identity(edited) != trial.identity(one)


# --- which is best ---


def measured(number: int, value: float | None, state: Any = "done", **facts: Any) -> RunRecord:
    metrics = (Metric("loss", value, value, value, 1),)
    return RunRecord(
        f"u{number}", "demo", "/p", ("a",), (task("a", metrics=metrics),), number=number, state=state, **facts
    )


def test_best_first_and_those_without_a_number_last() -> None:
    runs = [
        measured(1, 0.5),
        measured(2, None),
        measured(3, 0.1),
        measured(4, 0.5),
        measured(5, float("nan")),
    ]
    assert [run.number for run in trial.ranked(runs, Goal("loss", False))] == [3, 1, 4, 2, 5]
    assert [run.number for run in trial.ranked(runs, Goal("loss", True))] == [1, 4, 3, 2, 5]
    assert [run.number for run in trial.ranked(runs[::-1], None)] == [1, 2, 3, 4, 5]


def test_goal_is_the_one_of_the_last_trial_that_has_one() -> None:
    goals = ("min:loss", "max:f1:macro", "")
    runs = [measured(i, 1, sweep=Sweep("s", goal=goal)) for i, goal in enumerate(goals)]
    assert trial.goal_of(runs[::-1]) == Goal("f1:macro", True)
    assert trial.goal_of(runs[2:]) is None


@pytest.mark.parametrize("text", ["", "loss", "min:", "least:loss"])
def test_wrong_goal(text: str) -> None:
    with pytest.raises(ValueError, match="min:METRIC or max:METRIC"):
        Goal.parse(text)


# --- which is hopeless ---

OTHERS = [[(step, level - step / 10) for step in range(10)] for level in (1.0, 2.0, 3.0, 4.0, 5.0)]


@pytest.mark.parametrize(
    ("own", "step", "others", "is_max", "expected"),
    [
        (7.0, 2, OTHERS, False, 2.8),
        (2.8, 2, OTHERS, False, None),  # as good as the median
        (7.0, 2, OTHERS[:4], False, None),  # too few others
        (7.0, 10, OTHERS, False, None),  # which got as far
        (9.0, 2, OTHERS, True, None),
        (0.9, 2, OTHERS, True, 3.0),
    ],
)
def test_hopeless(own: float, step: float, others: Any, is_max: bool, expected: float | None) -> None:
    assert prune.behind(own, step, others, is_max) == (expected and pytest.approx(expected))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=20))
def test_a_trial_like_all_others_goes_on(numbers: list[float]) -> None:
    curve = list(enumerate(numbers))
    assert prune.behind(min(numbers), len(numbers) - 1, [curve] * 5, False) is None


def trial_of(store: Store, losses: Sequence[float], **facts: Any) -> RunRecord:
    """A run of a sweep whose second job has measured a loss at each step."""
    measured = Metric("loss", losses[-1], min(losses), max(losses), len(losses), len(losses) - 1)
    train = task("train", "t.sh", attempt=1, metrics=(measured,), state=facts.get("state", "done"))
    tasks = (task("load", "true", state="done"), train)
    own = Sweep("s", goal="min:loss", prune="median")
    run = RunRecord(os.urandom(4).hex(), "demo", "/p", ("train",), tasks, sweep=own)
    (run,) = store.add([replace(run, **{"state": "done", **facts})])
    path = Path(workspace.metrics_file(workspace.attempt_of(store, run, 1)))
    path.parent.mkdir(parents=True)
    path.write_text("".join(f'{{"step": {at}, "loss": {loss}}}\n' for at, loss in enumerate(losses)))
    return run


def test_a_run_that_is_worse_than_half_of_its_sweep_is_hopeless(tmp_path: Path) -> None:
    store = stores.opened(str(tmp_path / "store"))
    for losses in ((0.5, 0.4, 0.3), (0.5, 0.5, 0.5), (0.9, 0.6, 0.6), (0.7, 0.7, 0.7)):
        trial_of(store, losses)
    bad = trial_of(store, (0.9, 0.65, 0.8), state="running")
    assert prune.hopeless(store, bad) == ""  # four are too few
    trial_of(store, (0.2, 0.2, 0.2))
    trial_of(store, (0.1,), state="failed")
    trial_of(store, (0.1, 0.1, 0.1), root="/q")
    assert prune.hopeless(store, bad) == (
        "its best loss up to step 2 is 0.65; the median of the sweep's other runs is 0.5"
    )
    assert prune.hopeless(store, trial_of(store, (0.9, 0.8, 0.45), state="running")) == ""
    assert (
        prune.hopeless(store, trial_of(store, (0.9, 0.8), state="running")) == ""
    )  # two numbers are too few
    assert prune.hopeless(store, replace(bad, sweep=replace(SWEEP, prune=""))) == ""


# --- what a sampler learns from ---


def test_rows_of_a_study() -> None:
    def swept(number: int, state: Any, value: float | None) -> RunRecord:
        own = task(
            "train", params=(("rate", f"{number}"),), metrics=(Metric("loss", value, value, value, 1, 7),)
        )
        own_sweep = Sweep("s", ("train.rate",))
        return RunRecord(
            f"u{number}", "demo", "/p", ("a",), (own,), number=number, state=state, sweep=own_sweep
        )

    states = ("done", "done", "running", "failed", "stopped", "pruned", "queued")
    runs = [swept(i, state, None if i == 1 else 0.5) for i, state in enumerate(states)]
    found = list(sampler.rows([*runs[::-1], blank_run()], Goal("loss", False)))
    assert [row.outcome for row in found] == ["COMPLETE", "FAIL", "RUNNING", "FAIL", "FAIL", "PRUNED"]
    assert found[0] == Row({"train.rate": "0"}, "COMPLETE", 0.5, 7)


def test_study_is_made_anew_from_rows() -> None:
    optuna = pytest.importorskip("optuna")
    goal = Goal("loss", False)
    domains = {
        "x": sweep.domain("0.0..1"),
        "n": sweep.domain("1..9"),
        "c": ("a", "b"),
        "s": sweep.domain("0..1:0.1"),
    }
    known = [
        Row({"x": f"{i / 20}", "n": "3", "c": "a", "s": "0.3"}, "COMPLETE", abs(i / 20 - 0.3))
        for i in range(20)
    ]
    known += [
        Row({"x": "0.9", "n": "3", "c": "b", "s": "0.3"}, "RUNNING"),
        Row({"x": "0.9", "n": "4", "c": "b", "s": "0.1"}, "FAIL"),
        Row({"x": "0.9", "n": "5", "c": "b", "s": "0.2"}, "PRUNED", 0.7, 12),
        Row({"x": "7", "n": "5", "c": "other", "s": "0.2"}, "COMPLETE", 0.0),  # of another sweep of that name
        Row({}, "COMPLETE", 0.0),
    ]
    found = sampler.study(domains, known, goal, 1)
    assert [each.state.name for each in found.trials[20:]] == ["RUNNING", "FAIL", "PRUNED"]
    assert [each.intermediate_values for each in found.trials[20:]] == [{}, {}, {12: 0.7}]
    assert found.trials[0].intermediate_values == {}
    assert [getattr(each, "step", 0) for each in found.trials[0].distributions.values()] == [None, 1, 0, 0.1]
    assert found.best_trial.params == {"x": 0.3, "n": 3, "c": "a", "s": 0.3}
    assert isinstance(found, optuna.Study)
    asked = sampler.ask(domains, known, goal, 1)
    assert asked == sampler.ask(domains, known, goal, 1)
    assert asked != sampler.ask(domains, known[:-1], goal, 1)
    assert all(list(sweep.unfit(PARAMS[name], (text,), False)) == [] for name, text in asked.items())


PARAMS = {
    "x": Param("x", type="float", min="0", max="1"),
    "n": Param("n", type="int", min="1", max="9"),
    "c": Param("c", choices=("a", "b")),
    "s": Param("s", type="float", choices=tuple(f"{i / 10}" for i in range(11))),
}
