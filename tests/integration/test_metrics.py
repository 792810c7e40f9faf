"""What jobs measure: read while they run and once they have ended, wherever that is."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import Sandbox, job, project, queueing, run_folder, runs_of, wait_for
from remote_engine import by_tcp

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
        "WARN  | m.json: no metrics could be read from it: Expecting value: line 1 column 1 (char 0)",
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


@pytest.mark.engine
@pytest.mark.parametrize("kill", ["nothing", "the client", "the supervisor"])
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


@pytest.mark.engine
@pytest.mark.parametrize("kill", ["nothing", "the connection", "the supervisor"])
def test_on_another_machine_they_are_seen_while_it_runs(sandbox: Sandbox, name: str, kill: str) -> None:
    with by_tcp(sandbox, name) as far:
        own = of_container(far, name, *beginning(8), user="caller")
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
