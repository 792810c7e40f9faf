"""What is recorded without the queue, and what a run takes over from others."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Sandbox, job, project, run_folder, runs_of, wait_for

LOAD = job("date +%s%N >data/x", "load", native="always", outputs="[data/]", mappings="['raw/:ro']")
CACHED = LOAD.replace("mappings", "cache: true, mappings")
TRAIN = job("train.sh", "train", native="always", outputs="[models/]", params="[{name: rate, default: '1'}]")


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """The same with a store beside the project."""
    return sandbox.with_env(SKELEBOT_STORE=str(sandbox.root.parent / "store"))


def drain(sandbox: Sandbox, code: int = 0) -> str:
    done = sandbox.run("worker", "--drain")
    assert done.code == code, done
    return done.err


@pytest.fixture
def pipeline(sandbox: Sandbox) -> Sandbox:
    """A project whose second job fails with `--rate bad`, and says what the first has made."""
    sandbox.write("raw/r", "1")
    sandbox.write("train.sh", 'cp data/x models/m; echo "rate $2"; [ "$2" != bad ]\n')
    project(sandbox, "taken", CACHED, TRAIN)
    return sandbox


def made(sandbox: Sandbox, number: int, path: str) -> str:
    return (run_folder(sandbox, number) / "outputs" / path).read_text()


def told(sandbox: Sandbox, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sandbox.ok("runs", "show", str(number), "--json"))
    return found


# --- components.experiments: {record: true} ---


def recording(sandbox: Sandbox, *jobs: str, **keys: str) -> None:
    project(sandbox, "recorded", *jobs, components="{experiments: {record: true}}", **keys)


def test_what_is_run_is_recorded_in_place(sandbox: Sandbox) -> None:
    source = "echo out $1; echo err >&2; mkdir -p made; echo $1 >made/x"
    recording(sandbox, job(source, native="always", outputs="[made/]", args="[{name: text}]"))
    result = sandbox.run("run", "a b")
    assert (result.code, result.out) == (0, "out a b\n")
    assert sandbox.read("made/x") == "a b\n"
    (run,) = runs_of(sandbox).values()
    assert (run["state"], run["chain"], run["params"]) == ("done", "run a b", {"run": {"text": "a b"}})
    assert run["tree"]
    assert run["seconds"] > 0
    assert sorted(sandbox.ok("runs", "logs", "1").splitlines()) == ["err", "out a b"]


def test_a_chain_is_one_run_and_a_failure_ends_it(sandbox: Sandbox) -> None:
    jobs = (
        job(source, name, native="always") for name, source in (("a", "true"), ("b", "exit 3"), ("c", "true"))
    )
    recording(sandbox, *jobs)
    assert sandbox.run("a", "+", "b", "+", "c").code == 3
    (run,) = runs_of(sandbox).values()
    assert (run["state"], run["reason"]) == ("failed", "b ended with exit code 3")
    assert [(task["job"], task["state"], task["code"]) for task in run["tasks"]] == [
        ("a", "done", 0),
        ("b", "failed", 3),
        ("c", "queued", None),
    ]


def test_needed_jobs_at_once_are_recorded(sandbox: Sandbox) -> None:
    needed = [job(f"echo {n}; echo {n} >m{n}/x", n, native="always", outputs=f"[m{n}/]") for n in ("a", "b")]
    recording(sandbox, *needed, job("true", "all", native="always", needs="[a, b]"))
    sandbox.ok("-j", "2", "all")
    (run,) = runs_of(sandbox).values()
    assert [task["state"] for task in run["tasks"]] == ["done"] * 3
    assert sandbox.ok("runs", "logs", "1", "b") == "b\n"
    sandbox.ok("all")
    assert [task["state"] for task in runs_of(sandbox)[2]["tasks"]] == ["done"] * 3  # two were up to date


def test_a_secret_that_was_typed_is_not_recorded(sandbox: Sandbox) -> None:
    recording(sandbox, job("count.sh", native="always", params="[{name: key, secret: true}]"))
    sandbox.write("count.sh", 'echo "${#2}"\n')
    assert sandbox.ok("run", "--key", "seven77") == "7\n"
    (run,) = runs_of(sandbox).values()
    assert run["chain"] == "run --key ***"
    store = run_folder(sandbox, 1).parents[1]
    assert not [path for path in store.rglob("*") if path.is_file() and b"seven77" in path.read_bytes()]


def test_a_store_that_cannot_be_used_keeps_nothing_from_running(sandbox: Sandbox) -> None:
    recording(sandbox, job("echo fine", native="always"))
    sandbox.write("file", "")
    result = sandbox.with_env(SKELEBOT_STORE=str(sandbox.root / "file")).run("run")
    assert (result.code, result.out) == (0, "fine\n")
    assert "WARN  | this run is not recorded: " in result.err


def test_a_recorded_run_whose_skelebot_was_killed_has_failed(sandbox: Sandbox) -> None:
    recording(sandbox, job("touch begun; sleep 60", native="always"))
    with sandbox.start("run") as started:
        wait_for((sandbox.root / "begun").exists)
        started.kill()
    drain(sandbox)
    assert "was killed" in str(told(sandbox, 1)["reason"])


def test_a_run_in_the_checkout_is_stopped(sandbox: Sandbox) -> None:
    recording(sandbox, job("touch begun; sleep 60", native="always"))
    with sandbox.start("run") as started:
        wait_for((sandbox.root / "begun").exists)
        assert sandbox.run("runs", "stop", "1").err == "INFO  | run 1 is stopped\n"
        assert started.wait(60) == 143
    assert told(sandbox, 1)["state"] == "stopped"


def test_what_was_recorded_in_place_is_repeated_in_folders_of_its_own(sandbox: Sandbox) -> None:
    steady = job("cat in.txt >made/x", "steady", native="always", outputs="[made/]")
    random = job("date +%N >other/x", "random", native="always", outputs="[other/]")
    recording(sandbox, steady, random, job("touch c/x", "shares", native="always", mappings="[c/]"))
    sandbox.write("in.txt", "1")
    sandbox.write("c/.keep", "")
    sandbox.ok("steady", "+", "random")
    sandbox.write("in.txt", "2")
    sandbox.ok("--force", "steady")
    differing = sandbox.run("runs", "rerun", "1", "--check")
    assert (differing.code, differing.errors) == (1, ["ERROR | other/: other content"])
    assert "; the same: made/" in differing.err
    same = sandbox.run("runs", "rerun", "1", "--check", "--ignore", "other")
    assert (same.code, "made the same as run 1: made/" in same.err) == (0, True)
    assert sandbox.read("made/x") == "2"
    sandbox.ok("shares")
    refused = sandbox.run("runs", "rerun", "5")
    assert (refused.code, "mapping c: the job writes to the checkout there" in refused.err) == (1, True)


# --- cache: true ---


def test_what_another_run_has_made_from_the_same_is_taken_over(pipeline: Sandbox) -> None:
    for rate in ("1", "2"):
        pipeline.ok("queue", "load", "+", "train", "--rate", rate)
    drain(pipeline)
    assert made(pipeline, 1, "data/x") == made(pipeline, 2, "data/x") == made(pipeline, 2, "models/m")
    assert "has been done by run 1" in pipeline.ok("runs", "logs", "2")
    assert "taken from run 1" in pipeline.ok("runs", "show", "2")


def test_what_is_made_after_all_is_not_said_to_be_taken_over(pipeline: Sandbox) -> None:
    for _ in range(2):
        pipeline.ok("queue", "load")
    drain(pipeline)
    pipeline.ok("runs", "rm", "1")
    assert "taken from run 1" in pipeline.ok("runs", "show", "2")
    pipeline.ok("runs", "retry", "2", "--from", "load", "--now")
    assert "taken from" not in pipeline.ok("runs", "show", "2")


def test_of_many_at_once_one_makes_it(pipeline: Sandbox) -> None:
    slow = pipeline.with_env(TOP=str(pipeline.root.parent))
    source = 'echo load >>"$TOP/trace"; sleep 1; date +%N >data/x'
    load = job(source, "load", native="always", outputs="[data/]", cache="true")
    project(slow, "taken", load, TRAIN, environment="{TOP: null}")
    for rate in ("1", "2", "3"):
        slow.ok("queue", "load", "+", "train", "--rate", rate)
    assert slow.run("worker", "--drain", "-j", "3").code == 0
    assert (slow.root.parent / "trace").read_text() == "load\n"
    assert made(slow, 1, "models/m") == made(slow, 2, "models/m") == made(slow, 3, "models/m")
    assert not list(run_folder(slow, 1).parents[1].glob("made-*"))


CHANGES: dict[str, Callable[[Sandbox], object]] = {
    "data": lambda sandbox: sandbox.write("raw/r", "2"),
    "code": lambda sandbox: sandbox.write("more.txt", "2"),
    "outputs": lambda sandbox: (run_folder(sandbox, 1) / "outputs/data/x").write_text("other"),
    "a variable": lambda sandbox: project(sandbox, "taken", CACHED, TRAIN, environment="{A: b}"),
    "the run": lambda sandbox: sandbox.ok("runs", "rm", "1"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_is_taken_over_after_a_change(pipeline: Sandbox, what: str) -> None:
    pipeline.ok("queue", "load")
    drain(pipeline)
    before = made(pipeline, 1, "data/x")
    CHANGES[what](pipeline)
    number = int(pipeline.ok("queue", "load"))
    drain(pipeline)
    assert made(pipeline, number, "data/x") != before
    assert "has been done" not in pipeline.ok("runs", "logs", str(number))


def test_without_the_key_each_run_makes_its_own(pipeline: Sandbox) -> None:
    project(pipeline, "taken", LOAD, TRAIN)
    for _ in range(2):
        pipeline.ok("queue", "load")
    drain(pipeline)
    assert made(pipeline, 1, "data/x") != made(pipeline, 2, "data/x")


# --- retry --code now ---


@pytest.fixture
def failed(pipeline: Sandbox) -> Sandbox:
    """A run whose second job has failed."""
    project(pipeline, "taken", LOAD, TRAIN)
    pipeline.ok("queue", "--name", "mine", "--tag", "t", "load", "+", "train", "--rate", "bad")
    drain(pipeline, 1)
    return pipeline


def test_todays_code_goes_on_with_what_is_finished(failed: Sandbox) -> None:
    failed.write("train.sh", "cp data/x models/m\n")
    failed.ok("--dry-run", "runs", "retry", "1", "--code", "now")
    assert len(json.loads(failed.ok("runs", "--json"))) == 1
    result = failed.run("runs", "retry", "1", "--code", "now")
    assert (result.code, result.out) == (0, "2\n")
    assert "load is taken over from run 1; changed since: train.sh" in result.err
    drain(failed)
    assert made(failed, 2, "models/m") == made(failed, 1, "data/x")
    run = told(failed, 2)
    assert (run["state"], run["parent"], run["name"], run["tags"]) == ("done", 1, "mine", ["t"])
    assert run["tasks"][0]["attempt"] == 0
    assert told(failed, 1)["state"] == "failed"


def test_what_a_finished_job_reads_must_not_have_changed(failed: Sandbox) -> None:
    project(failed, "taken", LOAD.replace("mappings", "inputs: [rows.txt], mappings"), TRAIN)
    failed.write("rows.txt", "1")
    failed.ok("queue", "load", "+", "train", "--rate", "bad")
    drain(failed, 1)
    failed.write("rows.txt", "2")
    refused = failed.run("runs", "retry", "2", "--code", "now")
    assert refused.code == 1
    assert "load of run 2 cannot be taken over, as this changed since: rows.txt" in refused.err
    assert list(runs_of(failed)) == [2, 1]
    assert failed.ok("runs", "retry", "2", "--code", "now", "--anyway") == "3\n"
    assert os.listdir(run_folder(failed, 3) / "outputs") == ["data"]


@pytest.mark.parametrize("source", ["load.sh", "sh ./load.sh", 'cat "load.sh"|sh'])
def test_the_script_of_a_finished_job_must_not_have_changed(sandbox: Sandbox, source: str) -> None:
    sandbox.write("load.sh", "touch data/x")
    sandbox.write("train.sh", "exit 3")
    load = job(source, "load", native="always", outputs="[data/]")
    project(sandbox, "taken", load, TRAIN)
    sandbox.ok("queue", "load", "+", "train")
    drain(sandbox, 1)
    sandbox.write("load.sh", "touch data/x data/y")
    refused = sandbox.run("runs", "retry", "1", "--code", "now")
    assert "load of run 1 cannot be taken over, as this changed since: load.sh;" in refused.err
    assert refused.code == 1


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("raw", lambda sandbox: sandbox.write("raw/r", "2")),
        ("its command", lambda sandbox: project(sandbox, "taken", LOAD.replace("date", "date -u"), TRAIN)),
        ("variable A", lambda sandbox: project(sandbox, "taken", LOAD, TRAIN, environment="{A: b}")),
    ],
)
def test_what_a_finished_job_gets_beside_files_must_not_have_changed(
    failed: Sandbox, what: str, change: Callable[[Sandbox], object]
) -> None:
    change(failed)
    refused = failed.run("runs", "retry", "1", "--code", "now")
    assert refused.code == 1
    assert f"load of run 1 cannot be taken over, as this changed since: {what};" in refused.err
    assert list(runs_of(failed)) == [1]
    anyway = failed.run("runs", "retry", "1", "--code", "now", "--anyway")
    assert f"{what}\n" in anyway.err


def test_a_run_in_the_checkout_is_not_tried_again(sandbox: Sandbox) -> None:
    recording(sandbox, job("exit 3", native="always"))
    assert sandbox.run("run").code == 3
    for words in ((), ("--code", "now"), ("--from", "run")):
        refused = sandbox.run("runs", "retry", "1", *words)
        assert (refused.code, "`skelebot runs rerun 1` runs all of it" in refused.err) == (2, True)
    assert "no run has failed" in sandbox.run("runs", "retry", "--failed").err


def test_what_killed_processes_have_left_goes_after_a_day(failed: Sandbox) -> None:
    part = ".skelebot-part"
    store, run = run_folder(failed, 1).parents[1], "runs/000001"
    names = (
        "taken-old",
        "taken-young",
        f"import-old{part}",
        f"import-young{part}",
        f"{run}/outputs.old{part}",
    )
    for name in names:
        (store / name / "in").mkdir(parents=True)
    (store / f"{run}/run.json.old{part}").write_text("{")
    for path in (path for path in store.rglob("*") if "old" in path.name):
        os.utime(path, (time.time() - 100_000,) * 2)
    failed.ok("runs", "gc", "--older", "9d")
    left = [path.name for path in store.rglob("*") if "old" in path.name or "young" in path.name]
    assert sorted(left) == [f"import-young{part}", "taken-young"]
    assert sorted(os.listdir(store / run / "outputs")) == ["data", "models"]


def test_a_run_that_is_done_or_of_another_project_is_refused(failed: Sandbox, tmp_path: Path) -> None:
    failed.ok("queue", "load")
    drain(failed)
    assert failed.run("runs", "retry", "2", "--code", "now").code == 2
    outside = failed.run("runs", "retry", "1", "--code", "now", cwd=tmp_path)
    assert (outside.code, "change into it" in outside.err) == (2, True)
