"""What jobs measure: read while they run and once they have ended, wherever that is."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import Sandbox, job, project, queueing, run_folder, runs_of, wait_for
from remote_engine import by_tcp

import skelebot
from skelebot.json_form import from_json
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store


def step(text: str) -> str:
    """A shell command that appends a line."""
    return f"echo '{text}' >>$SKELEBOT_METRICS"


def waiting(folder: Path) -> str:
    return f"touch {folder}/begun; while [ ! -e {folder}/go ]; do sleep 0.05; done"


def record(sandbox: Sandbox, number: int = 1) -> RunRecord:
    text = (run_folder(sandbox, number) / "run.json").read_text()
    return from_json(RunRecord, json.loads(text))


def measured(sandbox: Sandbox, number: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = runs_of(sandbox)[number]["metrics"]
    return found


def lines(sandbox: Sandbox, number: int = 1) -> list[str]:
    (path,) = (run_folder(sandbox, number) / "tasks").glob("*/metrics.jsonl")
    return path.read_text().splitlines()


def supervisor(sandbox: Sandbox) -> psutil.Process:
    text = (run_folder(sandbox, 1) / "supervisor").read_text()
    return psutil.Process(int(text.partition("-")[0]))


@pytest.fixture
def trace(sandbox: Sandbox) -> Path:
    path = sandbox.root.parent / "trace"
    path.mkdir()
    return path


def queued(sandbox: Sandbox, *commands: str, **keys: str) -> Sandbox:
    own = queueing(sandbox, job("; ".join(commands), **keys))
    own.ok("queue", "run")
    return own


def test_lines_become_numbers_of_the_run(sandbox: Sandbox) -> None:
    own = queued(
        sandbox,
        step('{"loss": 3, "step": 1}'),
        step('{"loss": 1, "step": 2, "valid": {"f1": 0.5}}'),
        step('{"loss": 2, "progress": 1}'),
    )
    own.ok("worker", "--drain")
    assert measured(own) == {
        "loss": {"last": 2, "min": 1, "max": 3, "count": 3},
        "valid.f1": {"last": 0.5, "min": 0.5, "max": 0.5, "count": 1},
    }
    assert record(own).tasks[0].progress == 1
    assert len(lines(own)) == 3


def test_they_are_seen_while_the_job_runs(sandbox: Sandbox, trace: Path) -> None:
    own = queued(
        sandbox,
        step('{"loss": 2, "progress": 0.25}'),
        waiting(trace),
        step('{"loss": 1, "progress": 0.5}'),
    )
    with own.start("worker", "--drain") as worker:
        wait_for(lambda: record(own).tasks[0].progress == 0.25)
        assert measured(own)["loss"]["last"] == 2
        (trace / "go").touch()
        assert worker.wait() == 0
    assert measured(own)["loss"] == {"last": 1, "min": 1, "max": 2, "count": 2}


@pytest.mark.parametrize("is_over", [False, True])
def test_nothing_is_lost_or_doubled_when_the_supervisor_is_killed(
    sandbox: Sandbox, trace: Path, is_over: bool
) -> None:
    own = queued(sandbox, step('{"loss": 2}'), waiting(trace), step('{"loss": 1}'), f"touch {trace}/over")
    with own.start("worker") as worker:
        wait_for(lambda: measured(own))
        worker.kill()
        supervisor(own).kill()
    if is_over:
        (trace / "go").touch()
        wait_for((trace / "over").exists)
    with own.start("worker", "--drain") as worker:
        (trace / "go").touch()
        assert worker.wait() == 0
    assert measured(own)["loss"] == {"last": 1, "min": 1, "max": 2, "count": 2}


def test_pattern_that_never_ends_does_not_keep_a_run_from_ending(sandbox: Sandbox) -> None:
    output = f"echo loss=1 {'a' * 60}; echo loss=2"
    own = queued(sandbox, output, metrics="{bad: '(?:a+)+b(.)', loss: 'loss=(.)'}")
    with own.start("worker", "--drain") as worker:
        try:
            assert worker.wait(60) == 0
        finally:
            if worker.poll() is None:
                supervisor(own).kill()
                worker.kill()
    assert measured(own)["loss"]["count"] == 2
    assert "WARN  | the pattern of the metric bad takes too long" in own.ok("runs", "logs", "1")


def test_lines_that_are_none_are_counted_and_reported_once(sandbox: Sandbox) -> None:
    own = queued(sandbox, step('{"loss": 2}'), step("broken"), step('{"loss": "x"}'))
    own.ok("worker", "--drain")
    assert record(own).tasks[0].bad_lines == 2
    assert own.ok("runs", "logs", "1") == (
        "WARN  | 2 lines of metrics could not be read; each has to be a JSON object of numbers\n"
    )
    assert lines(own)[1:] == ["broken", '{"loss": "x"}']


def test_last_line_needs_no_end(sandbox: Sandbox) -> None:
    own = queued(sandbox, """printf '{"loss": 2}' >>$SKELEBOT_METRICS""")
    own.ok("worker", "--drain")
    assert measured(own)["loss"]["count"] == 1
    assert lines(own) == ['{"loss": 2}']


def test_file_that_is_begun_anew_counts_as_it_is(sandbox: Sandbox, trace: Path) -> None:
    own = queued(
        sandbox,
        *(step('{"old": 2}'), step('{"loss": 5}'), waiting(trace)),
        """echo '{"loss": 1}' >new; mv new $SKELEBOT_METRICS""",
    )
    with own.start("worker", "--drain") as worker:
        wait_for(lambda: measured(own))
        (trace / "go").touch()
        assert worker.wait() == 0
    assert measured(own) == {"loss": {"last": 1, "min": 1, "max": 1, "count": 1}}


@pytest.mark.parametrize(
    "command",
    [
        "truncate -s 1G $SKELEBOT_METRICS",
        "head -c 100000 /dev/urandom >>$SKELEBOT_METRICS",
        "rm $SKELEBOT_METRICS; mkfifo $SKELEBOT_METRICS",
        "rm $SKELEBOT_METRICS; mkdir $SKELEBOT_METRICS",
        "rm $SKELEBOT_METRICS; ln -s /dev/zero $SKELEBOT_METRICS",
        """i=0; while [ $i -lt 3000 ]; do echo "{\\"m$i\\": 1}"; i=$((i+1)); done >>$SKELEBOT_METRICS""",
    ],
)
def test_nothing_that_a_job_writes_breaks_its_run(sandbox: Sandbox, command: str) -> None:
    own = queued(sandbox, command)
    own.ok("worker", "--drain")
    assert runs_of(own)[1]["state"] == "done"
    assert len(measured(own)) <= 1000


def test_each_attempt_has_its_own(sandbox: Sandbox) -> None:
    own = queued(sandbox, step("{\"n\": '$SKELEBOT_ATTEMPT'}"), "test $SKELEBOT_ATTEMPT = 2", retries="1")
    own.ok("worker", "--drain")
    assert measured(own)["n"] == {"last": 2, "min": 2, "max": 2, "count": 1}


def test_job_that_measures_nothing_leaves_no_file(sandbox: Sandbox) -> None:
    own = queued(sandbox, "true")
    own.ok("worker", "--drain")
    assert not list(run_folder(own, 1).rglob("metrics.jsonl"))


def test_run_that_is_hopeless_is_pruned(sandbox: Sandbox, trace: Path) -> None:
    """As the supervisor asks for it: the request is noted before the signal."""
    own = queued(sandbox, step('{"loss": 9}'), waiting(trace))
    with own.start("worker", "--drain") as worker:
        wait_for((trace / "begun").exists)
        store = Store(own.env["SKELEBOT_STORE"])
        store.update(1, lambda run: run.asked_to("prune"))
        os.kill(supervisor(own).pid, signal.SIGTERM)
        worker.wait()
    shown = runs_of(own)[1]
    assert shown["state"] == shown["tasks"][0]["state"] == "pruned"
    assert shown["metrics"]["loss"]["last"] == 9


# --- its files and its output ---


def test_numbers_in_a_file_that_the_job_leaves(sandbox: Sandbox) -> None:
    own = queueing(
        sandbox,
        job(
            """echo '{"valid": {"f1": 0.5}, "kind": "forest"}' >out/m.json""",
            "a",
            outputs="[out/]",
            metrics="[out/m.json]",
        ),
        job("""echo '{"depth": 3}' >m.json""", "b", metrics="[m.json, none.json]"),
        job("echo broken >m.json", "c", metrics="m.json"),
    )
    own.ok("queue", "a", "+", "b", "+", "c")
    own.ok("worker", "--drain")
    assert {name: each["last"] for name, each in measured(own).items()} == {"valid.f1": 0.5, "depth": 3}
    assert own.ok("runs", "logs", "1").splitlines() == [
        "WARN  | none.json: there is no such file, so no metrics were read from it",
        "WARN  | m.json: no metrics could be read from it: it is not JSON: "
        "Expecting value: line 1 column 1 (char 0)",
    ]


def test_file_of_an_earlier_run_is_not_this_ones(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("true", metrics="[out/m.json]", mappings="['out/:rw']"))
    own.write("out/m.json", '{"old": 1}')
    os.utime(own.root / "out/m.json", (0, 0))
    own.ok("queue", "run")
    own.ok("worker", "--drain")
    assert measured(own) == {}


def test_numbers_in_the_output_are_seen_while_the_job_runs(sandbox: Sandbox, trace: Path) -> None:
    lines = ('printf "loss=3\\rloss=2\\n"', "echo progress=0.5", waiting(trace), 'printf "loss=1"')
    own = queued(sandbox, *lines, metrics="{loss: 'loss=([0-9.]+)', progress: 'progress=(.*)'}")
    with own.start("worker", "--drain") as worker:
        wait_for(lambda: record(own).tasks[0].progress == 0.5)
        assert measured(own)["loss"]["count"] == 2
        worker.kill()
        supervisor(own).kill()
    with own.start("worker", "--drain") as worker:
        (trace / "go").touch()
        assert worker.wait() == 0
    assert measured(own)["loss"] == {"last": 1, "min": 1, "max": 3, "count": 3}
    assert own.ok("runs", "logs", "1") == "loss=3\rloss=2\nprogress=0.5\nloss=1"


def test_numbers_in_the_output_of_a_run_in_front(sandbox: Sandbox) -> None:
    own = queueing(sandbox, job("echo loss=2; echo acc 3 >&2", metrics="{loss: 'loss=(.)', acc: 'acc (.)'}"))
    own.ok("queue", "--now", "run")
    assert {name: each["last"] for name, each in measured(own).items()} == {"loss": 2, "acc": 3}


# --- jobs in Python ---


def test_log_of_a_python_job(sandbox: Sandbox) -> None:
    text = """
        import threading, os
        from skelebot import metrics
        def write():
            for n in range(200):
                metrics.log({"valid": {"f1": 0.5}}, loss=n, step=n)
        threads = [threading.Thread(target=write) for _ in range(4)]
        child = os.fork()
        for each in threads: each.start()
        for each in threads: each.join()
        if child:
            os.wait()
            metrics.log(progress=1)
    """
    sandbox.write("train.py", text)
    own = queueing(
        sandbox, job(f"PYTHONPATH={os.path.dirname(skelebot.__path__[0])} {sys.executable} train.py")
    )
    own.ok("run")
    own.ok("queue", "run")
    own.ok("worker", "--drain")
    assert record(own).tasks[0].bad_lines == 0
    assert measured(own)["loss"]["count"] == measured(own)["valid.f1"]["count"] == 1600


# --- where they are shown ---


@pytest.fixture
def two(sandbox: Sandbox) -> Sandbox:
    """A project with two runs that differ in a parameter and what they measured."""
    text = 'echo "{\\"loss\\": $2, \\"step\\": 4}" >>$SKELEBOT_METRICS'
    sandbox.write("train.sh", text + "\n" + step('{"f1": NaN}') + "\n")
    own = queueing(sandbox, job("train.sh", "train", params="[{name: rate, default: 0.123456789}]"))
    own.ok("queue", "train")
    own.ok("queue", "train", "--rate", "2")
    own.ok("worker", "--drain")
    return own


def test_table_has_them_beside_the_parameters(two: Sandbox) -> None:
    table = [line.split() for line in two.ok("runs").splitlines()]
    assert table[0] == ["RUN", "STATE", "CHAIN", "train.rate", "loss", "f1", "CREATED", "TOOK"]
    assert table[1][3:8] == ["--rate", "2", "2", "2", "nan"]
    assert table[2][3:6] == ["0.123456789", "0.123457", "nan"]
    narrow = two.with_env(COLUMNS="60").run("runs")
    assert "loss" not in narrow.out
    assert "INFO  | 2 columns left out to fit the terminal; --csv has all" in narrow.err
    assert two.ok("runs", "--csv").splitlines()[2].startswith("1,done,train,0.123456789,0.123456789,nan,")


def test_wide_text_is_shortened_before_a_metric_is_left_out(two: Sandbox) -> None:
    two.ok("queue", "--now", "train", "--rate", "1" + "0" * 300)
    wide = two.with_env(COLUMNS="100").ok("runs").splitlines()
    assert wide[0].split() == ["RUN", "STATE", "CHAIN", "train.rate", "loss", "f1", "CREATED", "TOOK"]
    *shown, loss, _, _, _, _, _, _ = wide[1].split()
    assert [text[-5:] for text in shown[2:]] == ["train", "-rate", "00...", "00..."]
    assert loss == "1e+300"
    assert max(map(len, wide)) <= 100
    whole = "1" + "0" * 300
    assert f"train --rate {whole}  {whole}  1e+300" in two.with_env(COLUMNS="").ok("runs")
    assert whole in two.with_env(COLUMNS="100").ok("runs", "--csv")
    assert whole in two.with_env(COLUMNS="100").ok("runs", "--json")


def test_one_run_shows_its_range(two: Sandbox) -> None:
    shown = two.ok("runs", "show", "2")
    assert "metric     loss: 2 (min 2, max 2, 1 value, step 4)\n" in shown
    assert "metric     f1: nan (min nan, max nan, 1 value)\n" in shown
    assert json.loads(two.ok("runs", "show", "2", "--json"))["metrics"]["f1"]["last"] is None


def test_they_differ_and_are_compared(two: Sandbox) -> None:
    assert "metrics   loss        0.123456789  2.0" in two.run("runs", "diff", "1", "2").out
    checked = two.run("runs", "rerun", "1", "--check")
    assert checked.code == 0, checked
    store = Store(two.env["SKELEBOT_STORE"])
    changed = replace(store.get(1).metrics["loss"], last=5.0)
    store.update(1, lambda run: run.with_task(0, metrics=(changed,)))
    checked = two.run("runs", "rerun", "1", "--check")
    assert checked.errors == [
        "ERROR | metric f1: was missing, is nan",
        "ERROR | metric loss: was 5.0, is 0.123456789",
    ]
    assert two.run("runs", "rerun", "1", "--check", "--ignore", "f1", "--ignore", "loss").code == 0


def test_they_go_along(two: Sandbox) -> None:
    before = measured(two)
    two.ok("runs", "export", "../runs.tar", "1")
    other = two.with_env(SKELEBOT_STORE=str(two.root.parent / "other"))
    other.ok("runs", "import", "../runs.tar")
    other.ok("runs", "rebuild")
    assert measured(other) == before
    assert len(lines(other)) == 2


def test_run_that_takes_over_outputs_takes_over_what_was_measured(sandbox: Sandbox) -> None:
    keys = {"cache": "true", "outputs": "[out/]"}
    by_file = """echo '{"f1": 0.5}' >b/m"""
    own = queueing(
        sandbox,
        job("touch out/x; " + step('{"loss": 2}'), "a", **keys),
        job(by_file, "b", **(keys | {"outputs": "[b/]"}), metrics="[b/m]"),
        job("echo acc=3 | tee c/x", "c", **(keys | {"outputs": "[c/]"}), metrics="{acc: 'acc=(.)'}"),
    )
    for _ in range(3):
        own.ok("queue", "a", "+", "b", "+", "c")
    own.ok("worker", "--drain")
    assert record(own, 2).tasks[0].taken_from == 1
    assert [metric.count for metric in record(own, 1).metrics.values()] == [1, 1, 1]
    assert measured(own, 1) == measured(own, 2) == measured(own, 3)


def test_recorded_run_in_the_checkout(sandbox: Sandbox, trace: Path) -> None:
    own = queueing(
        sandbox,
        job("; ".join((step('{"loss": 2}'), waiting(trace), "echo acc=3"))),
        job("""echo '{"f1": 0.5}' >m.json""", "score", metrics="[m.json]"),
        components="{experiments: {record: true}}",
    )
    with own.start("run", "+", "score") as running:
        wait_for(lambda: measured(own, 1) if (run_folder(own, 1) / "run.json").exists() else None)
        (trace / "go").touch()
        assert running.wait() == 0
    assert {name: each["last"] for name, each in measured(own).items()} == {"loss": 2, "f1": 0.5}


# --- in containers ---


def far_record(sandbox: Sandbox) -> RunRecord:
    return Store(sandbox.env["SKELEBOT_STORE"]).get(1)


def of_container(sandbox: Sandbox, name: str, *commands: str, **keys: str) -> Sandbox:
    own = sandbox.with_env(SKELEBOT_STORE=f"{sandbox.env['HOME']}/store")
    project(own, name, job("; ".join(commands)), **keys)
    own.ok("queue", "run")
    return own


def beginning(seconds: int) -> tuple[str, ...]:
    """Commands that measure something, wait, and measure more."""
    return step('{"loss": 2, "progress": 0.5}'), f"sleep {seconds}", step('{"loss": 1}')


@pytest.mark.engine
@pytest.mark.parametrize("user", ["root", "caller", "daemon", "4242:4242"])
def test_whoever_the_job_runs_as_in_a_container(anyone: Sandbox, name: str, user: str) -> None:
    own = of_container(anyone, name, step('{"loss": 2}'), 'test "$(stat -c %a / )" = 755', user=user)
    done = own.run("worker", "--drain")
    assert done.code == 0, (done, own.ok("runs", "logs", "1"))
    assert measured(own)["loss"]["count"] == 1
    (path,) = (run_folder(own, 1) / "tasks").glob("*/metrics.jsonl")
    assert path.stat().st_uid == anyone.uid


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("kill", ["the supervisor", "the client", "nothing"])
def test_in_a_container_they_are_seen_while_it_runs(sandbox: Sandbox, name: str, kill: str) -> None:
    own = of_container(sandbox, name, *beginning(4))
    with own.start("worker", "--drain") as worker:
        wait_for(lambda: far_record(own).tasks[0].progress == 0.5)
        if kill == "the client":
            for child in supervisor(own).children(recursive=True):
                child.kill()
        elif kill == "the supervisor":
            worker.kill()
            supervisor(own).kill()
        worker.wait()
    if kill == "the supervisor":
        own.ok("worker", "--drain")
    assert measured(own)["loss"] == {"last": 1, "min": 1, "max": 2, "count": 2}


@pytest.mark.engine
def test_output_and_files_of_a_container(sandbox: Sandbox, name: str) -> None:
    lines = ("echo loss=2", """echo '{"f1": 0.5}' >out/m.json""")
    keys = {"outputs": "[out/]", "metrics": "[out/m.json]"}
    own = sandbox.with_env(SKELEBOT_STORE=f"{sandbox.env['HOME']}/store")
    project(own, name, job(lines[1], "a", **keys), job(lines[0], "b", metrics="{loss: 'loss=(.)'}"))
    own.ok("queue", "a", "+", "b")
    own.ok("worker", "--drain")
    assert {key: each["last"] for key, each in measured(own).items()} == {"f1": 0.5, "loss": 2}


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("kill", ["the supervisor", "the connection", "nothing"])
def test_on_another_machine_they_are_seen_while_it_runs(sandbox: Sandbox, name: str, kill: str) -> None:
    with by_tcp(sandbox, name) as far:
        own = of_container(far, name, *beginning(20), user="caller")
        with own.start("worker", "--drain") as worker:
            wait_for(lambda: far_record(own).tasks[0].progress == 0.5)
            if kill == "the connection":
                for child in supervisor(own).children(recursive=True):
                    child.kill()
            elif kill == "the supervisor":
                worker.kill()
                supervisor(own).kill()
            worker.wait()
        if kill == "the supervisor":
            own.ok("worker", "--drain")
        assert runs_of(own)[1]["state"] == "done"
        assert measured(own)["loss"] == {"last": 1, "min": 1, "max": 2, "count": 2}


@pytest.mark.engine
def test_on_another_machine_a_stopped_run_keeps_them(sandbox: Sandbox, name: str) -> None:
    with by_tcp(sandbox, name) as far:
        own = of_container(far, name, *(step('{"loss": 2}'), "sleep 60"))
        with own.start("worker") as worker:
            wait_for(lambda: far_record(own).tasks[0].metrics)
            own.ok("runs", "stop", "1")
            worker.kill()
        assert measured(own)["loss"]["count"] == 1
