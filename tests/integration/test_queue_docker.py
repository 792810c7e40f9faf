"""Queued runs in containers: what was frozen runs, and nothing is lost whatever is killed."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from harness import CLIENTS, SKELEBOT, Sandbox, Terminal, containers, docker, job, project, wait_for
from remote_engine import by_tcp, there

pytestmark = pytest.mark.engine

# Says that it has begun, and ends once it is let go.
SLOW = (
    "echo begun; echo E >&2; touch /trace/begun; "
    "while [ ! -e /trace/go ]; do sleep 0.05; done; echo ended; exit 7"
)


@pytest.fixture
def trace(sandbox: Sandbox) -> Path:
    """A folder beside the project by which a test and its jobs know of each other."""
    path = sandbox.root.parent / "trace"
    path.mkdir()
    return path


def slow(sandbox: Sandbox, name: str, trace: Path) -> None:
    """Queue a job that waits for a file."""
    project(sandbox, name, job(SLOW, mappings=f"['{trace}:/trace:rw']"))
    assert sandbox.ok("queue", "run") == "1\n"


def run_folder(sandbox: Sandbox) -> Path:
    return Path(sandbox.env["HOME"]) / ".local/share/skelebot/experiments/runs/000001"


def supervisor(sandbox: Sandbox) -> int:
    return int((run_folder(sandbox) / "supervisor").read_text().partition("-")[0])


def log(sandbox: Sandbox) -> str:
    return sandbox.ok("runs", "logs", "1")


def test_what_was_frozen_runs_whatever_happens_to_the_project(sandbox: Sandbox, name: str) -> None:
    sandbox.write("say.sh", "echo before; cat more.txt\n")
    sandbox.write("more.txt", "untracked\n")
    project(sandbox, name, job("say.sh"))
    sandbox.ok("queue", "run")
    sandbox.write("say.sh", "echo after\n")
    (sandbox.root / "more.txt").unlink()
    assert sandbox.ok("run") == "after\n"  # an image of its own, after which the first would go
    sandbox.ok("clean")
    assert sandbox.run("worker", "--drain").code == 0
    assert log(sandbox) == "before\nuntracked\n"
    assert containers(name) == []
    sandbox.ok("runs", "rm", "1")
    assert "run-" not in docker("images", "--format", "{{.Tag}}", name)


def test_trials_share_their_image_until_the_last_is_removed(sandbox: Sandbox, name: str) -> None:
    sandbox.write("say.sh", 'echo before "$@"\n')
    project(sandbox, name, job("say.sh", params="[{name: rate, type: float, default: 0.1}]"))
    assert sandbox.ok("queue", "--sweep", "rate=0.1,0.2,0.3", "run") == "1\n2\n3\n"
    assert docker("images", "--format", "{{.Tag}}", name).count("run-") == 1
    sandbox.write("say.sh", "echo after\n")
    sandbox.ok("run")
    sandbox.ok("runs", "stop", "1")
    sandbox.ok("runs", "rm", "1")
    sandbox.ok("worker", "--drain")
    assert sandbox.ok("runs", "logs", "3") == "before --rate 0.3\n"
    sandbox.ok("runs", "rm", "2", "3")
    assert "run-" not in docker("images", "--format", "{{.Tag}}", name)


def test_outputs_are_the_runs_own(sandbox: Sandbox, name: str) -> None:
    project(
        sandbox,
        name,
        job("echo $1 >data/x", "load", outputs="[data/]", args="[{name: text}]"),
        job("cp data/x models/m", "train", outputs="[models/]", mappings="['data/:ro']"),
    )
    for text in ("a", "b"):
        sandbox.ok("queue", "load", text, "+", "train")
    assert sandbox.run("worker", "--drain", "-j", "2").code == 0
    for number, text in (("000001", "a"), ("000002", "b")):
        made = run_folder(sandbox).parent / number / "outputs/models/m"
        assert made.read_text() == f"{text}\n"
        assert made.stat().st_uid == os.getuid()
    assert not (sandbox.root / "data").exists()


def test_in_front_its_streams_and_code_are_the_jobs(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("echo out; echo err >&2; exit 5"))
    result = sandbox.run("queue", "--now", "run")
    assert (result.code, result.out) == (5, "out\n")
    assert "err\n" in result.err
    assert sorted(log(sandbox).splitlines()) == ["err", "out"]


def test_the_packages_of_an_image_are_listed_once(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    for _ in range(2):
        sandbox.ok("queue", "run")
    (listed,) = (run_folder(sandbox).parents[1] / "packages").iterdir()
    installed = dict(line.split("==", 1) for line in listed.read_text().splitlines())
    assert installed["pip"][0].isdigit()
    assert installed["dpkg"][0].isdigit()


def test_an_image_that_is_gone_is_the_reason_of_the_failure(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    sandbox.ok("queue", "run")
    docker("rmi", "-f", *docker("images", "-q", name).split())
    assert sandbox.run("worker", "--drain").code == 1
    assert "is no longer at" in log(sandbox)
    assert "is no longer at" in sandbox.ok("runs", "show", "1")


def test_a_job_outlives_its_client(sandbox: Sandbox, name: str, trace: Path) -> None:
    slow(sandbox, name, trace)
    with sandbox.start("worker", "--drain") as worker:
        wait_for((trace / "begun").exists)
        for child in psutil.Process(supervisor(sandbox)).children(recursive=True):
            child.kill()
        (trace / "go").touch()
        assert worker.wait() == 1
    assert sorted(log(sandbox).splitlines()) == ["E", "begun", "ended"]
    assert "exit code 7" in sandbox.ok("runs", "show", "1")
    assert len(list((run_folder(sandbox) / "tasks").iterdir())) == 1
    assert containers(name) == []


KILLED_ONCE = """#!/bin/sh
for word; do
    if [ "$word" = run ] && mkdir {0} 2>/dev/null; then kill -9 $$; fi
done
exec {1} "$@"
"""


def test_a_client_that_is_killed_before_the_job_begins(sandbox: Sandbox, name: str, trace: Path) -> None:
    client = trace / "docker"
    client.write_text(KILLED_ONCE.format(trace / "killed", CLIENTS[0]))
    client.chmod(0o755)
    project(sandbox, name, job("echo done"))
    sandbox.ok("queue", "run")
    done = sandbox.with_env(SKELEBOT_DOCKER=str(client)).run("worker", "--drain")
    assert (done.code, done.err) == (0, "INFO  | run 1: done\n"), log(sandbox)
    assert (trace / "killed").exists()
    assert log(sandbox) == "done\n"


def unattended(sandbox: Sandbox, name: str, trace: Path, is_over: bool) -> None:
    """Queue a job that runs, or has ended, after its worker and its supervisor were killed."""
    slow(sandbox, name, trace)
    with sandbox.start("worker") as worker:
        wait_for((trace / "begun").exists)
        whole = psutil.Process(supervisor(sandbox)).children(recursive=True)
        worker.kill()
        psutil.Process(supervisor(sandbox)).kill()
    if is_over:
        for child in whole:
            child.kill()
        (trace / "go").touch()
        wait_for(lambda: not docker("ps", "-q", "--filter", f"label=skelebot.project={name}"))


@pytest.mark.parametrize("is_over", [False, True])
def test_a_job_outlives_its_supervisor(sandbox: Sandbox, name: str, trace: Path, is_over: bool) -> None:
    """Whether it still runs when the next worker looks, or has ended unseen."""
    unattended(sandbox, name, trace, is_over)
    with sandbox.start("worker", "--drain") as worker:
        (trace / "go").touch()
        assert worker.wait() == 1
    assert sorted(log(sandbox).splitlines()) == ["E", "begun", "ended"]
    assert "exit code 7" in sandbox.ok("runs", "show", "1")
    assert len(list((run_folder(sandbox) / "tasks").iterdir())) == 1
    assert containers(name) == []


@pytest.mark.parametrize("killed", ["nothing", "client", "supervisor"])
def test_a_run_is_stopped(sandbox: Sandbox, name: str, trace: Path, killed: str) -> None:
    slow(sandbox, name, trace)
    with sandbox.start("worker") as worker:
        wait_for((trace / "begun").exists)
        if killed == "client":
            client, *_ = psutil.Process(supervisor(sandbox)).children()
            client.kill()
            client.wait()
            wait_for(lambda: psutil.Process(supervisor(sandbox)).children())  # it waits for the container
        elif killed == "supervisor":
            worker.kill()
            os.kill(supervisor(sandbox), signal.SIGKILL)
        assert "run 1 is stopped" in sandbox.run("runs", "stop", "1").err
        worker.kill()
    assert containers(name) == []
    assert "stopped" in sandbox.ok("runs", "show", "1")


def test_ctrl_c_while_a_run_without_supervisor_is_stopped(sandbox: Sandbox, name: str, trace: Path) -> None:
    project(sandbox, name, job(f"trap '' INT TERM; {SLOW}", mappings=f"['{trace}:/trace:rw']"))
    sandbox.ok("queue", "run")
    with sandbox.start("worker") as worker:
        wait_for((trace / "begun").exists)
        worker.kill()
        os.kill(supervisor(sandbox), signal.SIGKILL)
    terminal = Terminal(sandbox, f"{SKELEBOT} runs stop 1")
    wait_for(lambda: has_started(terminal.pid, "wait"))
    terminal.send(b"\x03")
    terminal.close()
    assert containers(name) == []
    assert "it was stopped" in sandbox.ok("runs", "show", "1")


def has_started(pid: int, word: str) -> bool:
    """Whether a program with this argument runs below a process."""
    with suppress(psutil.NoSuchProcess):  # another one has just ended
        return any(word in each.cmdline() for each in psutil.Process(pid).children(recursive=True))
    return False


def test_a_run_in_front_whose_reader_is_gone_is_ended(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("while echo on; do sleep 0.1; done"))
    with sandbox.start("queue", "--now", "run", stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"on\n"
        child.stdout.close()
        assert child.wait(60) > 128
    assert "failed: run failed" in sandbox.ok("runs", "show", "1")
    assert containers(name) == []


def test_clean_leaves_the_containers_of_runs(sandbox: Sandbox, name: str, trace: Path) -> None:
    unattended(sandbox, name, trace, is_over=True)
    sandbox.ok("clean", "--all")
    assert sandbox.run("worker", "--drain").code == 1
    assert "exit code 7" in sandbox.ok("runs", "show", "1")


def test_a_secret_comes_from_the_workers_environment(sandbox: Sandbox, name: str) -> None:
    params = "[{name: key, secret: true, default: $KEY}]"
    sandbox.write("count.sh", 'echo "${#2}"\n')
    project(sandbox, name, job("count.sh", params=params))
    sandbox.with_env(KEY="seven77").ok("queue", "run")
    assert sandbox.with_env(KEY="seven77").run("worker", "--drain").code == 0
    assert log(sandbox) == "7\n"
    found = subprocess.run(["grep", "-r", "seven77", run_folder(sandbox).parents[1]], check=False)
    assert found.returncode == 1


def test_on_another_machine_results_come_back(sandbox: Sandbox, name: str) -> None:
    with by_tcp(sandbox, name) as far:
        far.write("in/x", "sent\n")
        project(far, name, job("cat in/x; cp in/x out/y", mappings="['in/:ro']", outputs="[out/]"))
        far.ok("queue", "run")
        result = far.run("worker", "--drain")
        assert result.code == 0, (result, log(far))
        assert log(far) == "sent\n"
        assert (run_folder(far) / "outputs/out/y").read_text() == "sent\n"
        assert not there("ps", "-aq", "--filter", f"label=skelebot.project={name}")


def test_on_another_machine_a_job_outlives_its_supervisor(sandbox: Sandbox, name: str) -> None:
    with by_tcp(sandbox, name) as far:
        project(far, name, job("echo begun; sleep 3; echo y >out/y; exit 7", outputs="[out/]"))
        far.ok("queue", "run")
        with far.start("worker") as worker:
            own = ("--filter", f"label=skelebot.project={name}", "--filter", "label=skelebot.attempt")
            wait_for(lambda: there("ps", "-q", *own))
            worker.kill()
            psutil.Process(supervisor(far)).kill()
        assert far.run("worker", "--drain").code == 1
        assert "exit code 7" in far.ok("runs", "show", "1")
        assert (run_folder(far) / "outputs/out/y").read_text() == "y\n"
