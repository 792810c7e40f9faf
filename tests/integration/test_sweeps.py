"""`queue --sweep`: a run for each combination of values, all of them or none."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import Sandbox, job, queueing, runs_of, wait_for

PARAMS = (
    "[{name: rate, type: float, default: 0.1, max: 1}, {name: depth, type: int, default: 3}, "
    "{name: fast, accepts: boolean}, {name: tags, accepts: list}, {name: key, secret: true, default: $KEY}]"
)


def training(sandbox: Sandbox, source: str = 'echo "$@"', more: str = "", **keys: str) -> Sandbox:
    load = job("echo data > data/x", "load", outputs="[data/]")
    train = job(source, "train", params=PARAMS, needs="[load]", **keys)
    own = queueing(sandbox, load, train, job("echo scored", "score", needs="[train]"))
    if more:
        own.write("skelebot.yaml", own.read("skelebot.yaml") + more)
    return own.with_env(KEY="hidden")


def params_of(sandbox: Sandbox, job: str = "train") -> list[dict[str, Any]]:
    return [{**run["params"][job]} for _, run in sorted(runs_of(sandbox).items())]


def queued(sandbox: Sandbox, *words: str) -> list[int]:
    return [int(line) for line in sandbox.ok("queue", *words).split()]


# --- what is queued ---


def test_grid_is_queued_and_runs(sandbox: Sandbox) -> None:
    own = training(sandbox)
    done = own.run(
        "queue", "--sweep", "train.rate=0.5,0.25", "--sweep", "tags=a 'b c',d", "train", "+", "score"
    )
    assert (done.code, done.out) == (0, "1\n2\n3\n4\n")
    assert "queued 4 runs, 1 to 4, of the sweep rate-tags-1" in done.err
    assert own.run("worker", "--drain", "-j", "2").code == 0
    assert own.ok("runs", "logs", "1", "train") == "--rate 0.5 --depth 3 --tags a b c --key hidden\n"
    assert own.ok("runs", "logs", "4", "train") == "--rate 0.25 --depth 3 --tags d --key hidden\n"
    shown = runs_of(own)
    assert [run["sweep"] for run in shown.values()] == ["rate-tags-1"] * 4
    assert [run["state"] for run in shown.values()] == ["done"] * 4
    assert "hidden" not in Path(own.env["SKELEBOT_STORE"], "runs.db").read_bytes().decode("latin-1")


def test_chain_of_a_trial_can_be_typed(sandbox: Sandbox) -> None:
    """A trial is what a run would be with these words, also with the values of a job that nobody typed."""
    own = training(sandbox)
    queued(own, "--sweep", "rate=0.5", "--sweep", "fast=true,false", "--sweep", "tags=a 'b c'", "score")
    shown = runs_of(own)
    assert shown[1]["chain"] == "train --rate 0.5 --fast --tags=a --tags=b c + score"
    assert queued(own, "train", "--rate", "0.5", "--fast", "--tags=a", "--tags=b c", "+", "score") == [3]
    own.ok("runs", "diff", "1", "3")
    assert own.run("runs", "diff", "2", "3").code == 1


def test_a_class_and_a_script_of_the_root(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("src/a.py:A", "a", params="[{name: n, type: int, default: 0}]"))
    own.write("skelebot.yaml", own.read("skelebot.yaml") + "params:\n- {name: tags, accepts: list}\n")
    own.write(
        "src/a.py",
        "class A:\n    def __init__(self, values): self.v = values\n    def run(self): print(self.v)\n",
    )
    queued(own, "--sweep", "n=1..2", "--sweep", "tags=x y", "a")
    own.ok("worker", "--drain")
    assert own.ok("runs", "logs", "2") == "{'n': 2, 'tags': ['x', 'y']}\n"


def test_file_with_a_line_for_each_run(sandbox: Sandbox) -> None:
    own = training(sandbox)
    own.write("grid.csv", 'rate,train.tags\n0.5,"a b"\n0.25,"x,y"\n')
    assert queued(own, "--sweep", "grid.csv", "--sweep", "depth=1..2", "train") == [1, 2, 3, 4]
    assert [(p["rate"], p["tags"], p["depth"]) for p in params_of(own)] == [
        ("0.5", ["a", "b"], "1"),
        ("0.5", ["a", "b"], "2"),
        ("0.25", ["x,y"], "1"),
        ("0.25", ["x,y"], "2"),
    ]


# --- args ---


def loading(sandbox: Sandbox, more: str = "") -> Sandbox:
    args = "[{name: day, type: date}, {name: place}]"
    params = "[{name: rate, type: float, default: 0.1}]"
    own = queueing(sandbox, job('echo "$@"', "load", args=args, params=params), job("echo b", "b"))
    own.write("skelebot.yaml", own.read("skelebot.yaml") + more)
    return own


def test_args_are_swept_as_well(sandbox: Sandbox) -> None:
    own = loading(sandbox)
    swept = ("--sweep", "load.day=2024-01-01,2024-01-02", "--sweep", "rate=0.5")
    assert queued(own, *swept, "load", "north", "+", "b") == [1, 2]
    own.ok("worker", "--drain")
    assert own.ok("runs", "logs", "2", "load") == "2024-01-02 north --rate 0.5\n"
    shown = runs_of(own)
    assert shown[2]["chain"] == "load 2024-01-02 north --rate 0.5 + b"
    assert shown[2]["params"]["load"] == {"day": "2024-01-02", "place": "north", "rate": "0.5"}
    assert queued(
        own, "--sweep", "day=2024-01-01,2024-01-03", "--sweep", "rate=0.5", "load", "north", "+", "b"
    ) == [3]
    assert queued(own, "load", "2024-01-02", "north", "--rate", "0.5", "+", "b") == [4]
    own.ok("runs", "diff", "2", "4")


def test_args_of_a_file_of_a_declared_sweep_and_of_draws(sandbox: Sandbox) -> None:
    more = "sweeps:\n  days: {chain: load here, values: {day: [2024-01-01, 2024-01-02]}}\n"
    own = loading(sandbox, more)
    own.write("days.csv", "load.day,place\n2024-01-01,-x\n2024-01-02,+\n")
    assert queued(own, "--sweep", "days.csv", "load", "--rate", "1") == [1, 2]
    assert queued(own, "--sweep", "days") == [3, 4]
    assert queued(own, "--sweep", "place=a,b,c", "--trials", "2", "load", "2024-01-01") == [5, 6]
    own.ok("worker", "--drain")
    logs = [own.ok("runs", "logs", str(number)) for number in (1, 2, 3)]
    assert logs == ["2024-01-01 -x --rate 1\n", "2024-01-02 + --rate 1\n", "2024-01-01 here --rate 0.1\n"]
    assert runs_of(own)[1]["chain"] == "load --rate 1 -- 2024-01-01 -x"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ("--sweep", "day=2024-01-01,x", "load", "a"),
            "--sweep day: expected a date as YYYY-MM-DD; found 'x'",
        ),
        (("--sweep", "day=2024-01-01", "load"), "load: missing argument: place"),
        (
            ("--sweep", "day=2024-01-01", "load", "2024-01-02", "a"),
            "load: unexpected argument 'a', beside the values of day that are swept",
        ),
        (
            ("--sweep", "dya=2024-01-01", "load", "2024-01-02", "a"),
            "no job of the chain has a param or an arg 'dya'",
        ),
    ],
)
def test_args_that_are_wrong(sandbox: Sandbox, words: tuple[str, ...], problem: str) -> None:
    own = loading(sandbox)
    done = own.run("queue", *words)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err
    assert runs_of(own) == {}


def test_rehearsal_needs_a_value_of_what_is_swept(sandbox: Sandbox) -> None:
    own = loading(sandbox)
    words = ("--rehearse", "queue", "--sweep", "day=2024-01-01", "load", "a")
    done = own.run(*words)
    assert (done.code, done.errors) == (
        2,
        ["ERROR | --rehearse: load needs one value of day; add it to its `rehearse`"],
    )
    text = own.read("skelebot.yaml").replace("name: load,", "name: load, rehearse: {day: 2020-01-01},")
    own.write("skelebot.yaml", text)
    done = own.run(*words)
    assert (done.code, done.out) == (0, "2020-01-01 a --rate 0.1\n1\n")


def test_words_of_a_sweep_are_those_of_its_runs(sandbox: Sandbox) -> None:
    own = training(sandbox)
    queued(own, "--sweep", "depth=1,2", "--name", "deep", "--tag", "a", "--priority", "3", "train")
    shown = runs_of(own)
    assert {(r["name"], r["sweep"], r["priority"], *r["tags"]) for r in shown.values()} == {
        ("deep", "deep", 3, "a")
    }
    queued(own, "--sweep", "depth=3", "train")
    queued(own, "--sweep", "depth=4", "train")
    assert [run["sweep"] for _, run in sorted(runs_of(own).items())][2:] == ["depth-1", "depth-2"]


def test_sweeps_that_are_queued_at_once_have_names_of_their_own(sandbox: Sandbox) -> None:
    own = training(sandbox)
    queued(own, "--sweep", "rate=0.5", "train")
    database = os.path.join(own.env["SKELEBOT_STORE"], "runs.db")

    def is_waiting(pid: int) -> bool:
        return any(file.path == database for file in psutil.Process(pid).open_files())

    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        words = [("queue", "--sweep", f"depth={n}", "train") for n in range(3)]
        started = [own.start(*each, stdout=subprocess.DEVNULL) for each in words]
        # A reader has the database open for a moment alone.
        for _ in range(5):
            wait_for(lambda: all(is_waiting(child.pid) for child in started))
        writer.execute("commit")
    assert [child.wait() for child in started] == [0, 0, 0]
    assert {run["sweep"] for run in runs_of(own).values()} == {"rate-1", "depth-1", "depth-2", "depth-3"}


def test_drawn_trials_are_those_of_the_seed(sandbox: Sandbox) -> None:
    own = training(sandbox)
    words = ("--sweep", "rate=1e-5..1:log", "--sweep", "depth=1..9", "--trials", "3", "train")
    done = own.run("queue", "--seed", "7", "--name", "a", *words)
    assert "queued 3 runs, 1 to 3, of the sweep a, seed 7" in done.err
    queued(own, "--seed", "7", "--again", "--name", "b", *words)
    values = [(p["rate"], p["depth"]) for p in params_of(own)]
    assert values[:3] == values[3:]
    assert len(set(values)) == 3


def test_parts_of_a_sweep(sandbox: Sandbox) -> None:
    own = training(sandbox)
    for part in ("1/3", "3/3", "2/3"):
        queued(own, "--sweep", "depth=1..5", "--part", part, "train")
    assert [p["depth"] for p in params_of(own)] == ["1", "4", "3", "2", "5"]


def test_dry_run_lists_the_runs(sandbox: Sandbox) -> None:
    own = training(sandbox)
    done = own.run("--dry-run", "queue", "--sweep", "rate=0.1,0.2", "--sweep", "fast=true", "train")
    assert done.out == "train.rate=0.1 train.fast=true\ntrain.rate=0.2 train.fast=true\n"
    assert "2 runs would be queued; nothing was, because of --dry-run" in done.err
    assert own.ok("--dry-run", "queue", "--sweep", "tags='a\nb'", "train") == "train.tags='a\\nb'\n"
    switches = ("--sweep", "fast=yes,true,No", "--sweep", "tags=a  b,'a' b")
    assert own.ok("--dry-run", "queue", *switches, "train").splitlines() == [
        "train.fast=true train.tags=a b",
        "train.fast=false train.tags=a b",
    ]
    own.write("grid.csv", "fast\non\nTRUE\n")
    assert own.ok("--dry-run", "queue", "--sweep", "grid.csv", "train") == "train.fast=true\n"
    assert runs_of(own) == {}


# --- all or none ---


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (
            ("--sweep", "rate=0.1,2,x", "--sweep", "depht=1", "--sweep", "depth=1.5"),
            [
                "--sweep rate: expected a number of at most 1; found '2'",
                "--sweep rate: expected a number of at most 1; found 'x'",
                "--sweep depht: no job of the chain has a param or an arg 'depht'",
                "--sweep depth: expected a whole number; found '1.5'",
            ],
        ),
        (("--sweep", "key=1"), ["--sweep key: train.key is a secret, and secrets are not stored"]),
        (("--sweep", "rate=1", "--sweep", "train.rate=1"), ["train.rate is swept twice"]),
        (("--sweep", "rate=0.1..2:log", "--trials", "4"), ["expected a number of at most 1; found '2'"]),
        (("--sweep", "rates"), ["there is no sweep 'rates'"]),
        (("--sweep", "no.csv"), ["no.csv cannot be read"]),
        (("--sweep", "NO.CSV"), ["NO.CSV cannot be read"]),
        (("--sweep", "rate=0.1..0.2"), ["write one, as in 0.1..0.2:0.1, or add --trials N"]),
        (("--anyway",), ["--anyway is for --take-over RUN"]),
        (("--sweep", "rate=1", "--now"), ["--sweep and --now do not go together"]),
        (("--sweep", "rate=1", "--seed", "1"), ["--seed draws values; add --trials N"]),
        (("--trials", "3"), ["--trials needs --sweep"]),
        (("--sweep", "rate=1", "--prune", "median"), ["add --goal min:METRIC"]),
        (("--sweep", "rate=1", "--goal", "loss"), ["expected min:METRIC or max:METRIC"]),
        (("--sweep", "rate=1", "--goal="), ["expected min:METRIC or max:METRIC, such as min:loss; found ''"]),
        (("--sweep", "rate=1", "--part="), ["expected a part such as 1/3, 2/3 or 3/3; found ''"]),
        (
            ("--sweep", "rate=0.1..0.9", "--trials", "3", "--part", "1/3"),
            ["--part of values that are drawn needs the same --seed N on each machine"],
        ),
        (
            ("--sweep", "depth=1..5:0.5", "--trials", "3", "--sampler", "tpe", "--goal", "min:loss"),
            ["--sweep train.depth: expected a whole number; found "],
        ),
        (
            ("--sweep", "rate=1", "--part", "4/3"),
            ["queue: --part: expected a part such as 1/3, 2/3 or 3/3; found '4/3'"],
        ),
    ],
)
def test_wrong_sweep_queues_nothing(sandbox: Sandbox, words: tuple[str, ...], problems: list[str]) -> None:
    own = training(sandbox)
    done = own.run("queue", *words, "train")
    assert (done.code, done.out) == (2, "")
    assert len(done.errors) == len(problems)
    for line, problem in zip(done.errors, problems, strict=True):
        assert problem in line
    assert runs_of(own) == {}


def test_part_without_runs(sandbox: Sandbox) -> None:
    own = training(sandbox)
    done = own.run("queue", "--sweep", "rate=0.1,0.2", "--part", "3/3", "train")
    assert (done.code, done.out, done.errors) == (0, "", [])
    assert "nothing was queued" in done.err
    assert own.run("queue", "--sweep", "rate=0.1,0.2", "--part", "3/3", "train", "--depth", "x").code == 2


def test_value_that_is_swept_and_typed(sandbox: Sandbox) -> None:
    own = training(sandbox)
    done = own.run("queue", "--sweep", "rate=0.1,0.2", "train", "--rate", "0.3")
    assert done.code == 2
    assert "train.rate is swept, and given in the chain; leave out --rate there" in done.err


def test_lines_of_a_file_that_are_wrong(sandbox: Sandbox) -> None:
    own = training(sandbox)
    own.write("grid.csv", "rate,depth\n0.5,1\n2,1\n0.1,x\n")
    done = own.run("queue", "--sweep", "grid.csv", "train")
    assert done.errors == [
        "ERROR | grid.csv:3: train.rate: expected a number of at most 1; found '2'",
        "ERROR | grid.csv:4: train.depth: expected a whole number; found 'x'",
    ]


@pytest.mark.parametrize("option", ["--tag", "--name", "--sweep"])
def test_runs_by_an_empty_text_are_neither_listed_nor_retried(sandbox: Sandbox, option: str) -> None:
    own = training(sandbox)
    for words in (("runs",), ("runs", "retry", "--failed")):
        done = own.run(*words, option, "")
        assert (done.code, done.errors) == (
            2,
            [f"ERROR | {option} is empty; write a value, or leave out the option"],
        )


def test_file_that_is_not_utf8(sandbox: Sandbox) -> None:
    own = training(sandbox)
    (own.root / "grid.csv").write_bytes(b"rate\n\xff\n")
    done = own.run("queue", "--sweep", "grid.csv", "train")
    assert done.errors == ["ERROR | --sweep: grid.csv is not UTF-8; save it as UTF-8"]


def test_each_combination_is_validated_once(sandbox: Sandbox) -> None:
    own = training(sandbox, validate="'echo checked $4 >> ../seen; test $4 -lt 3'")
    done = own.run("queue", "--sweep", "depth=1..4", "--sweep", "score.x=1", "train")
    assert done.code == 2
    done = own.run("queue", "--sweep", "depth=1..4", "train")
    assert (done.code, done.out, runs_of(own)) == (2, "", {})
    wrong = [line for line in done.errors if "train: its validation ended with exit code 1" in line]
    assert [line[-14:] for line in wrong] == ["(with depth 3)", "(with depth 4)"]
    assert Path(own.root.parent, "seen").read_text() == "".join(f"checked {i}\n" for i in range(1, 5))


def test_each_file_has_to_exist(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("cat $2", params="[{name: data, type: file, default: a}]"))
    own.write("a", "1")
    done = own.run("queue", "--sweep", "data=a,b,c", "run")
    assert (done.code, runs_of(own)) == (2, {})
    assert [line.count("'b'") + line.count("'c'") for line in done.errors] == [1, 1]


# --- what has been done ---


def test_what_has_been_done_with_the_same_files_is_skipped(sandbox: Sandbox) -> None:
    own = training(sandbox)
    own.write("src/text", "1")
    queued(own, "--sweep", "depth=1,2", "train")
    own.ok("worker", "--drain")
    queued(own, "train", "--depth", "3")
    done = own.run("queue", "--sweep", "depth=1..4", "train")
    assert done.out == "4\n"
    assert "skipped 2 combinations already done with the same files: runs 1, 2; --again repeats" in done.err
    assert "skipped 1 combination already queued with the same files: run 3" in done.err
    done = own.run("queue", "--sweep", "depth=1..4", "train")
    assert (done.code, done.out) == (0, "")
    assert queued(own, "--sweep", "depth=1,2", "--again", "train") == [5, 6]
    own.write("src/text", "2")
    assert queued(own, "--sweep", "depth=1,2", "train") == [7, 8]


def test_what_has_failed_is_not_skipped(sandbox: Sandbox) -> None:
    own = training(sandbox, "exit 1; true")
    queued(own, "--sweep", "depth=1,2", "train")
    assert own.run("worker", "--drain").code == 1
    assert queued(own, "--sweep", "depth=1,2", "train") == [3, 4]


# --- failures ---


def test_others_go_on_after_a_failure(sandbox: Sandbox) -> None:
    own = training(sandbox, "exit $(( $4 == 2 ))")
    assert "there is no sweep 'a'; no run here is of one yet" in own.run("runs", "best", "a").err
    queued(own, "--sweep", "depth=1..4", "--name", "a", "train")
    assert own.run("worker", "--drain").code == 1
    assert [run["state"] for _, run in sorted(runs_of(own).items())] == ["done", "failed", "done", "done"]
    assert own.ok("runs", "retry", "--failed", "--sweep", "a") == "2\n"
    done = own.run("runs", "retry", "--failed", "--sweep", "aa")
    assert (done.code, done.errors) == (2, ["ERROR | there is no sweep 'aa'; did you mean `a`?"])


def test_fail_fast_stops_what_waits_of_the_sweep(sandbox: Sandbox) -> None:
    own = training(sandbox, "exit $(( $4 == 2 ))")
    queued(own, "--sweep", "depth=1..4", "--fail-fast", "--name", "a", "train")
    queued(own, "--sweep", "depth=5", "--name", "b", "train")
    assert own.run("worker", "--drain").code == 1
    shown = [run for _, run in sorted(runs_of(own).items())]
    assert [run["state"] for run in shown] == ["done", "failed", "stopped", "stopped", "done"]
    assert shown[2]["reason"] == "run 2 of the sweep failed, and it has --fail-fast"


# --- declared ones ---

DECLARED = (
    "sweeps:\n  rates:\n    chain: train + score --\n"
    "    values: {train.rate: [0.1, 0.01], depth: 1..2, tags: 'a b'}\n"
)


def test_declared_sweep_is_queued_by_its_name(sandbox: Sandbox) -> None:
    own = training(sandbox, more=DECLARED)
    done = own.run("queue", "--sweep", "rates")
    assert (done.code, done.out) == (0, "1\n2\n3\n4\n")
    assert "of the sweep rates" in done.err
    assert runs_of(own)[4]["params"]["train"] | {"key": ""} == {
        "rate": "0.01",
        "depth": "2",
        "fast": False,
        "tags": ["a", "b"],
        "key": "",
    }
    done = own.run("queue", "--sweep", "rates", "train")
    assert "queue: the sweep has a chain of its own; leave out train" in done.err
    assert own.run("queue", "--sweep", "rate").errors[0].endswith("did you mean `rates`?")


def test_declared_draws(sandbox: Sandbox) -> None:
    more = "sweeps:\n  r: {chain: train, values: {rate: 1e-3..1:log}, trials: 4, seed: 3, goal: 'min:loss'}\n"
    more += "  t: {chain: train, values: {rate: [0.1]}, sampler: tpe, goal: 'min:loss'}\n"
    own = training(sandbox, more=more)
    assert queued(own, "--sweep", "r") == [1, 2, 3, 4]
    assert queued(own, "--sweep", "r", "--trials", "6") == [5, 6]
    assert own.run("queue", "--sweep", "t").errors == [
        "ERROR | queue: --sampler draws values; add --trials N"
    ]


# --- what belongs to all ---


def test_trials_share_their_code(sandbox: Sandbox) -> None:
    """It stays until the last of them is removed."""
    own = training(sandbox)
    own.write("src/text", "kept")
    queued(own, "--sweep", "depth=1..3", "train")
    refs = Path(own.env["SKELEBOT_STORE"], "code.git", "refs", "runs")
    assert len(os.listdir(refs)) == 1
    own.ok("runs", "stop", "1", "2", "3")
    own.ok("runs", "rerun", "1")
    assert len(os.listdir(refs)) == 2
    own.ok("runs", "rm", "1", "2")
    assert len(os.listdir(refs)) == 2
    own.ok("runs", "rm", "3")
    assert len(os.listdir(refs)) == 1


def test_sweep_survives_export_and_rebuild(sandbox: Sandbox) -> None:
    own = training(sandbox)
    queued(own, "--sweep", "depth=1..2", "--name", "a", "train")
    own.ok("worker", "--drain")
    own.ok("runs", "export", "../runs.tar", "1", "2")
    before = runs_of(own)
    own.ok("runs", "rebuild")
    assert runs_of(own) == before
    other = own.with_env(SKELEBOT_STORE=str(own.root.parent / "other"))
    other.ok("runs", "import", "../runs.tar")
    assert {run["sweep"] for run in runs_of(other).values()} == {"a"}
    other.ok("runs", "rm", "1")
    other.ok("runs", "checkout", "2", "../there")


# --- what the runs measure ---

LOSS = 'echo "{\\"loss\\": $4}" >>$SKELEBOT_METRICS'  # the depth


def test_best_first_and_the_best_one(sandbox: Sandbox) -> None:
    own = training(sandbox, f"test $4 = 7 || {LOSS}; exit $(( $4 == 1 ))")
    queued(own, "--sweep", "depth=5,7,1,3", "--name", "a", "--goal", "min:loss", "train")
    assert own.run("worker", "--drain").code == 1
    table = [line.split() for line in own.ok("runs", "--sweep", "a").splitlines()]
    at = table[0].index("train.depth")
    assert [(row[0], row[at]) for row in table[1:]] == [("3", "1"), ("4", "3"), ("1", "5"), ("2", "7")]
    assert "loss" in table[0]
    assert own.ok("runs", "best", "a") == "4\n"
    assert own.ok("runs", "best", "a", "--goal", "max:loss") == "1\n"
    assert '"run": 4' in own.ok("runs", "best", "a", "--json")
    assert [row.split()[0] for row in own.ok("runs", "--sweep", "a", "--last", "1").splitlines()[1:]] == ["3"]
    for words, problem in (
        (("best", "b"), "there is no sweep 'b'; known: a"),
        (("best", "a", "--goal", "loss"), "--goal: expected min:METRIC or max:METRIC"),
        (("best", "a", "--goal", "min:f1"), "no run of the sweep a is done and has measured f1"),
        (("--goal", "min:loss"), "--goal needs --sweep"),
    ):
        assert problem in own.run("runs", *words).err


def test_hopeless_trial_is_ended(sandbox: Sandbox) -> None:
    """It is asked to end, and is no failure of the worker."""
    lines = (
        "trap 'echo asked to end; exit 3' TERM",
        """for i in 1 2 3; do echo "{\\"step\\": $i, \\"loss\\": $4}" >>$SKELEBOT_METRICS; done""",
        "if [ $4 = 9 ]; then for i in $(seq 600); do sleep 0.1; done; fi; true",
    )
    own = training(sandbox, "; ".join(lines))
    words = ("--sweep", "depth=1..5,9", "--name", "a", "--goal", "min:loss", "--prune", "median", "train")
    queued(own, *words)
    assert own.run("worker", "--drain").code == 0
    shown = runs_of(own)
    assert [shown[i]["state"] for i in range(1, 7)] == ["done"] * 5 + ["pruned"]
    assert shown[6]["reason"] == (
        "its best loss up to step 3 is 9; the median of the sweep's other runs is 3"
    )
    assert own.ok("runs", "logs", "6", "train").endswith("asked to end\n")
    assert own.ok("runs", "--state", "pruned").splitlines()[1].split()[:2] == ["6", "pruned"]


def with_optuna(sandbox: Sandbox) -> Sandbox:
    optuna = pytest.importorskip("optuna")
    above = Path(optuna.__file__).parent.parent
    return with_path(sandbox, "", str(above))


def with_path(sandbox: Sandbox, before: str, after: str = "") -> Sandbox:
    folders = (before, sandbox.env.get("PYTHONPATH"), after)
    return sandbox.with_env(PYTHONPATH=os.pathsep.join(filter(None, folders)))


def test_values_are_chosen_when_a_trial_starts(sandbox: Sandbox) -> None:
    own = with_optuna(training(sandbox, f"{LOSS}; echo $@"))
    swept = ("--sweep", "depth=1..9", "--sweep", "rate=0.1..0.9:0.2", "--sweep", "tags=a b,c")
    words = (*swept, "--trials", "12", "--sampler", "tpe", "--goal", "min:loss", "--seed", "3")
    assert queued(own, "--name", "a", *words, "train", "+", "score") == [*range(1, 13)]
    assert params_of(own)[0] == {"rate": "", "depth": "", "fast": False, "tags": "", "key": "***"}
    own.ok("worker", "--drain")
    queued(own, "--name", "b", *words, "train", "+", "score")
    own.ok("worker", "--drain")
    values = [(p["rate"], p["depth"], p["tags"]) for p in params_of(own)]
    assert values[:12] == values[12:]
    assert {rate for rate, _, _ in values} <= {"0.1", "0.3", "0.5", "0.7", "0.9"}
    rate, depth, tags = values[11]
    assert own.ok("runs", "logs", "12", "train") == (
        f"--rate {rate} --depth {depth} --tags {' '.join(tags)} --key hidden\n"
    )
    assert runs_of(own)[12]["chain"].startswith(f"train --rate {rate} --depth {depth} --tags={tags[0]} ")


def test_sampler_that_is_missing(sandbox: Sandbox) -> None:
    """The command says so before anything is queued, the worker in the run."""
    own = training(sandbox)
    hidden = Path(own.root.parent, "hidden")
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['optuna'] = None\n")
    words = ("--sweep", "depth=1..9", "--trials", "2", "--sampler", "tpe", "--goal", "min:loss", "train")
    without = with_path(own, str(hidden))
    done = without.run("queue", *words)
    assert (done.code, done.out) == (1, "")
    assert "--sampler tpe needs Optuna; install it: pip install 'skelebot[optuna]'" in done.err
    queued(with_optuna(own), *words)
    assert without.run("worker", "--drain").code == 1
    assert {run["reason"] for run in runs_of(own).values()} == {done.errors[0].removeprefix("ERROR | ")}


# --- what the runs share ---


def test_trials_that_start_at_once_load_once(sandbox: Sandbox) -> None:
    seen = sandbox.root.parent / "seen"
    source = f"echo loaded >> {seen}; sleep 1; echo data > data/x"
    load = job(source, "load", outputs="[data/]", cache="true")
    own = queueing(
        sandbox, load, job("cat data/x; true", "train", params="[{name: n, default: 0}]", needs="[load]")
    )
    queued(own, "--sweep", "n=1..3", "train")
    own.ok("worker", "--drain", "-j", "3")
    assert seen.read_text() == "loaded\n"
    assert [own.ok("runs", "logs", str(i), "train") for i in (1, 2, 3)] == ["data\n"] * 3


def test_trial_that_waits_for_another_can_be_stopped(sandbox: Sandbox) -> None:
    load = job("echo data > data/x; touch begun; sleep 60", "load", outputs="[data/]", cache="true")
    load = load.replace("touch begun", f"touch {sandbox.root.parent}/begun")
    own = queueing(sandbox, load, job("true", "train", params="[{name: n, default: 0}]", needs="[load]"))
    queued(own, "--sweep", "n=1..2", "train")
    with own.start("worker", "--drain", "-j", "2") as worker:
        wait_for((sandbox.root.parent / "begun").exists)
        waiting = "waiting for another run that makes the same"
        wait_for(lambda: any(waiting in own.run("runs", "logs", n, "load").out for n in "12"))
        number = next(n for n in "12" if waiting in own.ok("runs", "logs", n, "load"))
        own.ok("runs", "stop", number)
        assert runs_of(own)[int(number)]["state"] == "stopped"
        own.ok("runs", "stop", *({"1", "2"} - {number}))
        worker.wait()
