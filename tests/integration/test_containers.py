"""Looking after what runs: `ps`, `logs`, `stop`, `exec` and `clean` on a real engine."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from harness import SKELEBOT, Sandbox, Terminal, containers, docker, job, make_sandbox, project, wait_for
from page_server import Server

pytestmark = pytest.mark.engine

SLEEPS = job("echo begun; sleep 300", "sleeps", mode="d")
SPEAKS = job("echo out; echo err >&2", "speaks", mode="d")


@pytest.fixture
def running(sandbox: Sandbox, name: str) -> Sandbox:
    """A project with a job that runs, and one that has ended."""
    project(sandbox, name, SLEEPS, SPEAKS, job("true", "never"))
    for which in ("sleeps", "speaks"):
        sandbox.ok(which)
    wait_for(lambda: "exited" in sandbox.ok("ps"))
    return sandbox


def rows(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    return {row["job"]: row for row in json.loads(sandbox.ok("ps", "--json"))}


def test_ps_lists_what_runs_and_what_has_ended(running: Sandbox, name: str) -> None:
    found = rows(running)
    assert {which: row["status"] for which, row in found.items()} == {"sleeps": "running", "speaks": "exited"}
    assert set(found["sleeps"]) == {"job", "container", "status", "started", "host", "code"}
    assert found["sleeps"]["container"] in containers(name)
    assert found["sleeps"]["started"].startswith("20")
    assert found["sleeps"]["host"] == "default"
    title, first, second = running.ok("ps").splitlines()
    assert title.split() == ["JOB", "CONTAINER", "STATUS", "STARTED", "HOST"]
    # the last started first
    assert first.split()[:4] == ["speaks", found["speaks"]["container"], "exited", "(0)"]
    assert (found["speaks"]["code"], found["sleeps"]["code"]) == (0, None)
    assert second.split()[0] == "sleeps"


def test_ps_where_nothing_has_run(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, SLEEPS)
    result = sandbox.run("ps")
    assert (result.code, result.out) == (0, "")
    assert json.loads(sandbox.ok("ps", "--json")) == []


def test_logs_are_on_the_streams_they_were_written_to(running: Sandbox) -> None:
    result = running.run("logs", "speaks")
    assert (result.code, result.out, result.err) == (0, "out\n", "err\n")


def test_logs_follow_until_ctrl_c(running: Sandbox, name: str) -> None:
    terminal = Terminal(running, f"{SKELEBOT} logs -f sleeps")
    terminal.expect("begun")
    terminal.send(b"\x03")
    assert terminal.close() == 130
    assert rows(running)["sleeps"]["status"] == "running"


def test_logs_of_a_job_that_never_ran(running: Sandbox) -> None:
    result = running.run("logs", "never")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "never has no run" in result.err


@pytest.mark.parametrize("command", ["logs", "stop", "exec"])
def test_a_job_that_is_none(running: Sandbox, command: str) -> None:
    result = running.run(command, "speeks")
    assert (result.code, len(result.errors)) == (2, 1)
    assert "did you mean `speaks`?" in result.err


def test_another_projects_containers_are_not_looked_at(running: Sandbox, name: str) -> None:
    for other in make_sandbox(0 if running.uid == 0 else running.uid):
        project(other, f"{name}-other", SLEEPS)
        assert json.loads(other.ok("ps", "--json")) == []
        assert other.ok("stop") == ""
    assert rows(running)["sleeps"]["status"] == "running"


# --- exec ---


def test_exec_is_a_shell_in_the_running_container(running: Sandbox, name: str) -> None:
    running.write("skelebot.yaml", running.read("skelebot.yaml") + "user: 4321:0\n")
    before = containers(name)
    running.write(
        "inside.sh", "cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'sleep 300' | head -1\n"
    )
    script = f"{running.read('inside.sh')}pwd; id -u; exit 7\n".encode()
    result = running.run("exec", "sleeps", stdin=script)
    assert (result.code, result.out) == (7, "sleep 300\n/app\n4321\n"), result
    assert containers(name) == before


def test_exec_without_one_running_is_a_new_container(sandbox: Sandbox, name: str) -> None:
    sandbox.write("code.txt", "of the image\n")
    project(sandbox, name, job("true", environment="{WHERE: job}", mappings="[data/]"))
    result = sandbox.run("exec", "run", stdin=b"cat code.txt; echo $WHERE; echo x >data/made; exit 3\n")
    assert (result.code, result.out) == (3, "of the image\njob\n"), result
    assert sandbox.read("data/made") == "x\n"
    assert containers(name) == []
    result = sandbox.run("exec", stdin=b"echo y >unmapped; exit 0\n")
    assert result.code == 0
    assert not (sandbox.root / "unmapped").exists()


def test_exec_can_map_the_project_folder(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    assert sandbox.run("exec", "-m", stdin=b"echo y >mapped\n").code == 0
    assert sandbox.read("mapped") == "y\n"
    assert sandbox.owner("mapped") == sandbox.uid


def test_exec_on_a_terminal(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    terminal = Terminal(sandbox, f"{SKELEBOT} exec")
    terminal.expect("/app#", 120)
    terminal.send(b"tty && echo $((40 + 2)); exit 5\n")
    terminal.expect("42")
    assert terminal.close() == 5


def test_exec_is_never_native(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    result = sandbox.run("-n", "exec")
    assert (result.code, len(result.errors)) == (2, 1)
    shown = sandbox.ok("--dry-run", "exec")
    assert "image " in shown
    assert containers(name) == []


# --- clean ---


def test_clean_removes_what_has_ended_and_what_is_superseded(running: Sandbox, name: str) -> None:
    label = f"label=skelebot.project={name}"
    ended = rows(running)["speaks"]["container"]
    # A superseded image: the running container has held it while the next was built.
    running.write("ballast", b"x" * 3_000_000)
    running.ok("never")
    running.ok("stop", "sleeps")
    stopped = rows(running)["sleeps"]["container"]
    assert len(set(docker("images", "-q", "--no-trunc", "--filter", label).split())) == 2
    assert running.ok("--dry-run", "clean") == "".join(f"remove {c}\n" for c in (ended, stopped))
    answer = json.loads(running.ok("clean", "--json"))
    assert set(answer["containers"]) == {ended, stopped}
    assert len(answer["images"]) == 1
    assert containers(name) == []
    assert len(set(docker("images", "-q", "--no-trunc", "--filter", label).split())) == 1
    again = running.ok("clean")
    assert again.startswith("0 runs, 0 images, ")
    assert running.run("-s", "never").code == 0  # the current image has stayed


def test_clean_says_how_much_came_free(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("head -c 5000000 /dev/zero >big", "fills", mode="d"))
    sandbox.ok("fills")
    wait_for(lambda: rows(sandbox)["fills"]["status"] == "exited")
    assert json.loads(sandbox.ok("clean", "--json"))["bytes"] >= 5_000_000


def test_clean_leaves_what_runs(running: Sandbox) -> None:
    running.ok("clean")
    assert rows(running)["sleeps"]["status"] == "running"


# --- engines that do not answer ---


def test_no_engine_at_all(sandbox: Sandbox) -> None:
    project(sandbox, "n", job("true"))
    dead = sandbox.with_env(DOCKER_HOST="unix:///nowhere/docker.sock")
    for command in ("ps", "stop", "clean", "exec"):
        result = dead.run(command)
        assert (result.code, len(result.errors)) == (1, 1), result
        assert "no Docker engine answers at unix:///nowhere/docker.sock" in result.err


def test_one_of_two_engines_is_away(running: Sandbox) -> None:
    with (running.root / ".skelebot/hosts").open("a") as file:
        file.write("unix:///nowhere/docker.sock\n")
    result = running.run("ps")
    assert result.code == 0
    assert "sleeps" in result.out
    assert "WARN  | no Docker engine answers at unix:///nowhere/docker.sock" in result.err


def test_an_engine_of_two_names_is_looked_at_once(running: Sandbox) -> None:
    (running.root / ".skelebot/hosts").write_text(f"{os.environ['DOCKER_HOST']}\n")
    assert [row["host"] for row in json.loads(running.ok("ps", "--json"))] == ["default", "default"]


def test_what_may_run_on_an_engine_that_is_away(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true", host="unix:///nowhere/docker.sock"))
    for command, told in {
        "stop": "nothing is running on the engines that answer",
        "logs": "run has no run on the engines that answer",
        "exec": "no shell can be opened at unix:///nowhere/docker.sock",
    }.items():
        result = sandbox.run(command, "run")
        assert (result.code, len(result.errors)) == (1, 1), result
        assert told in result.errors[0]


def test_what_answers_is_no_engine(sandbox: Sandbox, serve: Callable[..., Server]) -> None:
    project(sandbox, "n", job("true"))
    server = serve("127.0.0.1", {})
    for host in (f"tcp://{server.host}", "ssh://me@here:port"):
        for words in (("ps",), ("run",)):
            result = sandbox.run("-d", host, *words)
            assert (result.code, len(result.errors)) == (1, 1), result
            assert f"no Docker engine answers at {host}; start it, or choose another" in result.errors[0]
