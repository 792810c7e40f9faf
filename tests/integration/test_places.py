"""Runs on engines of other machines, where `worker --on` has slots: they go there, and all comes back."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import CLIENTS, Sandbox, containers, docker, job, project, run_folder, runs_of, wait_for
from remote_engine import SSH, by_tcp, listening, there, with_ssh

pytestmark = pytest.mark.engine

# Ends once somebody makes a file in its container.
HELD = "echo begun; echo E >&2; until [ -e /tmp/go ]; do sleep 0.1; done; echo y >out/y; echo ended; exit 7"
MADE = job("cat in/x; cp in/x out/y", mappings="['in/:ro']", outputs="[out/]")


@pytest.fixture
def far(sandbox: Sandbox, name: str) -> Iterator[Sandbox]:
    """A caller with an engine of their own, who can reach the other machine."""
    own = sandbox.with_env(SKELEBOT_STORE=str(sandbox.root.parent / "store"))
    with by_tcp(own, name) as found:
        yield found


def by_address(far: Sandbox) -> tuple[Sandbox, str]:
    """The caller with their own engine, and the other one's address."""
    return far.with_env(DOCKER_HOST=os.environ["DOCKER_HOST"]), far.env["DOCKER_HOST"]


def there_of(name: str, *words: str) -> list[str]:
    return there(*words, "--filter", f"label=skelebot.project={name}").split()


def go(name: str) -> None:
    """Let the held jobs end."""
    for id in there_of(name, "ps", "-q"):
        there("exec", id, "touch", "/tmp/go")
    for id in docker("ps", "-q", "--filter", f"label=skelebot.project={name}").split():
        docker("exec", id, "touch", "/tmp/go", check=False)  # it may have ended meanwhile


def has_begun(name: str, count: int = 1) -> bool:
    return len(there_of(name, "ps", "-q", "--filter", "label=skelebot.attempt")) == count


def drain(sandbox: Sandbox, *words: str, code: int = 0) -> str:
    done = sandbox.run("worker", "--drain", *words)
    assert done.code == code, (done, log(sandbox))
    return done.err


def log(sandbox: Sandbox, number: int = 1) -> str:
    return sandbox.run("runs", "logs", str(number)).out


def is_ended_once(far: Sandbox, name: str) -> None:
    """The held job has run once, and everything of it is here."""
    shown = runs_of(far)[1]
    assert (shown["state"], shown["tasks"][0]["code"], shown["tasks"][0]["attempt"]) == ("failed", 7, 1), (
        shown
    )
    assert (run_folder(far, 1) / "outputs/out/y").read_text() == "y\n"
    lines = [line for line in log(far).splitlines() if " | " not in line]
    assert sorted(lines) == ["E", "begun", "ended"]
    assert not there_of(name, "ps", "-aq")


def supervisor(sandbox: Sandbox, number: int = 1) -> int:
    return int((run_folder(sandbox, number) / "supervisor").read_text().partition("-")[0])


def test_a_run_goes_there_by_ssh_and_its_outputs_come_back(far: Sandbox, name: str) -> None:
    own = with_ssh(far)
    own.write("in/x", "sent\n")
    project(own, name, MADE)
    own.ok("queue", "run")
    drain(own, "--on", f"{SSH}=1")
    assert [line for line in log(own).splitlines() if " | " not in line] == ["sent"]
    made = run_folder(own, 1) / "outputs/out/y"
    assert (made.read_text(), made.stat().st_uid) == ("sent\n", own.uid)
    assert runs_of(own)[1]["where"] == SSH
    assert f"where      {SSH}\n" in own.ok("runs", "show", "1")
    assert there_of(name, "ps", "-aq") == containers(name) == []
    (tag,) = there("images", "--format", "{{.Tag}}", name).split()
    assert tag.startswith("run-")
    own.ok("runs", "rm", "1")
    assert there_of(name, "images", "-q") == []
    assert docker("images", "--format", "{{.Tag}}", name).split("\n") != [tag]


def test_an_image_is_sent_once(far: Sandbox, name: str) -> None:
    own, place = by_address(far)
    project(own, name, job("echo $1", args="[{name: id}]"))
    for id in "abc":
        own.ok("queue", "run", id)
    before = there("info", "--format", "{{.SystemTime}}")
    drain(own, "--on", f"{place}=2")
    drain_of_more(own, place)
    now = there("info", "--format", "{{.SystemTime}}")
    which = ("--filter", "event=load", "--filter", f"label=skelebot.project={name}")
    loads = there("events", "--since", before, "--until", now, *which).splitlines()
    assert len(loads) == 1, loads
    assert [log(own, number).splitlines()[-1] for number in (1, 2, 3, 4)] == ["a", "b", "c", "d"]
    own.ok("runs", "rm", "1", "2", "3")
    assert len(there_of(name, "images", "-q")) == 1  # a run still has it
    own.ok("runs", "rm", "4")
    assert there_of(name, "images", "-q") == []


def drain_of_more(own: Sandbox, place: str) -> None:
    own.ok("queue", "run", "d")
    drain(own, "--on", f"{place}=2")


def test_this_machine_and_another_at_once(far: Sandbox, name: str) -> None:
    own, place = by_address(far)
    project(own, name, job(HELD, outputs="[out/]"))
    for _ in range(3):
        own.ok("queue", "run")
    with own.start("worker", "--drain", "-j", "1", "--on", f"{place}=1", stderr=subprocess.PIPE) as worker:
        wait_for(lambda: has_begun(name) and len(containers(name)) == 1)
        listed = own.ok("worker", "--list")
        assert f"1 on this machine, 1 on {place}" in listed
        shown = runs_of(own)
        assert [shown[number]["where"] for number in (1, 2, 3)] == ["default", place, "default"]
        assert [shown[number]["state"] for number in (1, 2, 3)] == ["running", "running", "queued"]
        assert "WHERE" in own.ok("runs")
        while worker.poll() is None:
            go(name)
    assert {shown["state"] for shown in runs_of(own).values()} == {"failed"}
    for number in (1, 2, 3):
        assert (run_folder(own, number) / "outputs/out/y").read_text() == "y\n"


@pytest.mark.slow
@pytest.mark.parametrize("is_over", [False, True])
def test_a_job_outlives_worker_and_supervisor(far: Sandbox, name: str, is_over: bool) -> None:
    """The next worker goes on with it, even one without slots there."""
    own, place = by_address(far)
    project(own, name, job(HELD, outputs="[out/]"))
    own.ok("queue", "run")
    with own.start("worker", "--on", f"{place}=1") as worker:
        wait_for(lambda: has_begun(name))
        whole = psutil.Process(supervisor(own)).children(recursive=True)
        worker.kill()
        psutil.Process(supervisor(own)).kill()
    if is_over:
        for child in whole:
            child.kill()
        go(name)
        wait_for(lambda: has_begun(name, 0))
    with own.start("worker", "--drain") as worker:
        go(name)
        assert worker.wait() == 1
    is_ended_once(own, name)


def test_a_job_outlives_its_client_by_ssh(far: Sandbox, name: str) -> None:
    own = with_ssh(far)
    project(own, name, job(HELD, outputs="[out/]"))
    own.ok("queue", "run")
    with own.start("worker", "--drain", "--on", f"{SSH}=1", stderr=subprocess.DEVNULL) as worker:
        wait_for(lambda: has_begun(name) and "begun" in log(own))
        for child in psutil.Process(supervisor(own)).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        go(name)
        assert worker.wait(60) == 1
    is_ended_once(own, name)


def test_a_job_outlives_its_connection(far: Sandbox, name: str) -> None:
    """Whether the engine answers again at once, or a while later."""
    own, _ = by_address(far)
    project(own, name, job(HELD, outputs="[out/]"))
    own.ok("queue", "run")
    with listening(answer=True) as relay:
        place = f"tcp://127.0.0.1:{relay.port}"
        worker = own.start("worker", "--drain", "--on", f"{place}=1", stderr=subprocess.DEVNULL)
        wait_for(lambda: has_begun(name) and "begun" in log(own))
        relay.cut()
        wait_for(lambda: relay.connections > 0)
        assert runs_of(own)[1]["state"] == "running"
    relay.cut()
    wait_for(lambda: "the run waits for it" in log(own))
    go(name)
    wait_for(lambda: has_begun(name, 0))
    with listening(answer=True, port=relay.port):
        assert worker.wait(60) == 1
    is_ended_once(own, name)


def test_a_job_that_was_killed_while_its_place_was_away_is_repeated_once(far: Sandbox, name: str) -> None:
    """As by a machine that starts anew."""
    own, _ = by_address(far)
    project(own, name, job(HELD, outputs="[out/]"))
    own.ok("queue", "run")
    with listening(answer=True) as relay:
        place = f"tcp://127.0.0.1:{relay.port}"
        worker = own.start("worker", "--drain", "--on", f"{place}=1", stderr=subprocess.DEVNULL)
        wait_for(lambda: has_begun(name) and "begun" in log(own))
    relay.cut()
    wait_for(lambda: "the run waits for it" in log(own))
    there("kill", *there_of(name, "ps", "-q"))
    wait_for(lambda: has_begun(name, 0))
    with listening(answer=True, port=relay.port):
        wait_for(lambda: has_begun(name))
        go(name)
        assert worker.wait(60) == 1
    task = runs_of(own)[1]["tasks"][0]
    assert (task["attempt"], task["code"]) == (2, 7)
    *written, said = own.ok("runs", "logs", "1", "--attempt", "1").splitlines()
    assert said == f"WARN  | run was killed while {place} did not answer"
    assert sorted(written) == ["E", "begun"]  # by two streams


def test_a_run_is_stopped(far: Sandbox, name: str) -> None:
    own, place = by_address(far)
    project(own, name, job(HELD, outputs="[out/]"))
    own.ok("queue", "run")
    with own.start("worker", "--on", f"{place}=1") as worker:
        wait_for(lambda: has_begun(name))
        assert "run 1 is stopped" in own.run("runs", "stop", "1").err
        worker.terminate()
    assert there_of(name, "ps", "-aq") == []
    assert own.ok("runs", "retry", "1") == "1\n"
    assert runs_of(own)[1]["where"] == "default"  # it may go anywhere again


def test_a_run_is_stopped_whose_place_is_gone(far: Sandbox, name: str) -> None:
    own, _ = by_address(far)
    project(own, name, job(HELD, outputs="[out/]"))
    own.ok("queue", "run")
    with listening(answer=True) as relay:
        worker = own.start("worker", "--drain", "--on", f"tcp://127.0.0.1:{relay.port}=1")
        wait_for(lambda: has_begun(name))
    relay.cut()
    wait_for(lambda: "the run waits for it" in log(own))
    assert "run 1 is stopped" in own.run("runs", "stop", "1").err
    worker.wait(60)
    assert "may still run there" in log(own)
    removed = own.run("runs", "rm", "1")
    assert (removed.code, removed.err.count("what run 1 has left there stays")) == (0, 1), removed


def test_what_a_dead_place_would_run_goes_elsewhere(far: Sandbox, name: str) -> None:
    own, _ = by_address(far)
    project(own, name, job("true"))
    for _ in range(2):
        own.ok("queue", "run")
    said = drain(own, "-j", "1", "--on", "tcp://127.0.0.1:9=2")
    assert said.count("WARN") == 1, said
    assert {shown["where"] for shown in runs_of(own).values()} == {"default"}


def test_a_dead_place_leaves_its_runs_in_the_queue(far: Sandbox, name: str) -> None:
    own, _ = by_address(far)
    project(own, name, job("true"))
    own.ok("queue", "run")
    said = drain(own, "--on", "tcp://127.0.0.1:9=2", code=1)
    assert "1 run left in the queue" in said
    assert runs_of(own)[1]["state"] == "queued"


def test_a_place_that_dies_before_a_run_begins(far: Sandbox, name: str) -> None:
    """The run is queued again; once the place answers, it runs there."""
    own, _ = by_address(far)
    project(own, name, job("true"))
    path = own.root.parent / "said"
    with listening(answer=True) as relay, open(path, "wb") as said:
        worker = own.start("worker", "--on", f"tcp://127.0.0.1:{relay.port}=1", stderr=said)
        wait_for(lambda: len(relay_workers(own)) == 1)
        wait_for(lambda: relay.connections > 0)
    own.ok("queue", "run")
    # A worker that was just asking the place knows already that it is dead, and has not begun the run.
    wait_for(lambda: "queued again" in path.read_text() or "wait in the queue" in path.read_text())
    wait_for(lambda: runs_of(own)[1]["state"] == "queued")
    shown = runs_of(own)[1]
    assert (shown["state"], shown["where"]) == ("queued", "default")
    with listening(answer=True, port=relay.port):
        wait_for(lambda: runs_of(own)[1]["state"] == "done")
    assert path.read_text().count("WARN") == 1
    assert "answers again" in path.read_text()
    worker.terminate()
    assert worker.wait(60) == 0


def relay_workers(own: Sandbox) -> list[Any]:
    return own.ok("worker", "--list").splitlines()[1:]


def test_a_run_that_was_queued_for_a_place_stays_there(far: Sandbox, name: str) -> None:
    own, place = by_address(far)
    project(own, name, job("true"), job("echo here", "native", native="always"))
    own.ok("-d", place, "queue", "run")
    own.ok("queue", "native")
    own.ok("queue", "run", "+", "native")
    drain(own, "-j", "1", "--on", "tcp://127.0.0.1:9=2", "--on", f"{place}=1")
    shown = runs_of(own)
    assert [shown[n]["where"] for n in (1, 2, 3)] == [place, "native", "default, native"]
    assert {each["state"] for each in shown.values()} == {"done"}


# A client of an engine whose machine has two GPUs: Docker refuses devices where NVIDIA's toolkit is missing.
CLIENT = """\
#!/bin/bash
case " $* " in
*" --query-gpu=index,uuid "*) printf '0, GPU-0-%(name)s\\n1, GPU-1-%(name)s\\n'; exit ;;
*" --query-compute-apps=gpu_uuid,pid "*) exit ;;
esac
words=()
while [ $# -gt 0 ]; do
    if [ "$1" = --gpus ]; then echo "$2" >>"${0%%/*}/asked"; shift 2; else words+=("$1"); shift; fi
done
exec %(client)s "${words[@]}"
"""


def test_each_run_has_a_gpu_of_its_own(far: Sandbox, name: str) -> None:
    """As many at once as there are; how many is known once the image is there."""
    own, place = by_address(far)
    path = own.write("../bin/docker", CLIENT % {"name": name, "client": CLIENTS[0]}, 0o755).resolve()
    own = own.with_env(PATH=f"{path.parent}:{own.env['PATH']}", CUDA_VISIBLE_DEVICES="7")
    project(own, name, job(HELD, outputs="[out/]"), resources="{gpus: 1}")
    for _ in range(3):
        own.ok("queue", "run")
    with own.start("worker", "--drain", "--on", f"{place}=3", stderr=subprocess.DEVNULL) as worker:
        wait_for(lambda: has_begun(name, 2))
        assert [shown["state"] for shown in runs_of(own).values()].count("queued") == 1
        while worker.poll() is None:
            go(name)
    assert sorted(own.read("../bin/asked").splitlines()[:2]) == ['"device=0"', '"device=1"']
    assert {shown["state"] for shown in runs_of(own).values()} == {"failed"}
    for lock in Path("/tmp").glob(f"skelebot-gpu-GPU-*-{name}.lock"):
        lock.unlink()


def test_native_runs_need_a_slot_here(far: Sandbox, name: str) -> None:
    own, place = by_address(far)
    project(own, name, job("true", native="always"))
    own.ok("queue", "run")
    assert "1 run left in the queue; what can run on this machine alone needs -j" in drain(
        own, "--on", f"{place}=1"
    )
    assert runs_of(own)[1]["state"] == "queued"


def test_what_a_run_made_elsewhere_is_taken_over(far: Sandbox, name: str) -> None:
    own, place = by_address(far)
    project(own, name, job("echo made >out/y", outputs="[out/]", cache="true"))
    for words in (("--on", f"{place}=1"), ()):
        own.ok("queue", "run")
        drain(own, *words)
    assert "taken from run 1" in own.ok("runs", "show", "2")


def test_a_run_is_repeated_that_was_elsewhere(far: Sandbox, name: str) -> None:
    own, place = by_address(far)
    project(own, name, job("echo made >out/y", outputs="[out/]"))
    own.ok("queue", "run")
    drain(own, "--on", f"{place}=1")
    assert own.ok("runs", "rerun", "--now", "1") == ""
    assert runs_of(own)[2]["where"] == "default"


def test_read_only_data_is_sent_once_for_all_runs(far: Sandbox, name: str) -> None:
    own, place = by_address(far)
    own.write("in/x", "sent\n")
    project(own, name, MADE)
    for _ in range(2):
        own.ok("queue", "run")
    drain(own, "--on", f"{place}=2")
    volumes = there_of(name, "volume", "ls", "-q")
    assert len(volumes) == 1, volumes  # the runs' own have gone with them
    own.write("in/x", "changed\n")
    own.ok("queue", "run")
    drain(own, "--on", f"{place}=2")
    outputs = [(run_folder(own, number) / "outputs/out/y").read_text() for number in (1, 2, 3)]
    assert outputs == ["sent\n", "sent\n", "changed\n"]
    assert there_of(name, "volume", "ls", "-q") == volumes
