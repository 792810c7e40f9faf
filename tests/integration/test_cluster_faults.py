"""Jobs on a real Kubernetes cluster of which a part breaks: API server, node, pods, the line, the client."""

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import Result, job, project, wait_for
from real_cluster import Forwarder, Namespace, ask, keys, kill_api, restart_api, restart_kubelet

pytestmark = [pytest.mark.engine, pytest.mark.kubernetes]


@dataclass(frozen=True)
class Lab:
    """A project whose job leaves a line in a folder of the node each time that it is started."""

    space: Namespace
    name: str

    @property
    def marks(self) -> Path:
        return self.space.sandbox.root.parent / "marks"

    def write(self, source: str, mode: str = "i", **more: str) -> None:
        self.marks.mkdir(mode=0o777, exist_ok=True)
        self.marks.chmod(0o777)
        volume = {"name": "marks", "hostPath": {"path": str(self.marks)}}
        mounted = {"name": "job", "volumeMounts": [{"name": "marks", "mountPath": "/marks"}]}
        settings = f"podSpec: {json.dumps({'volumes': [volume], 'containers': [mounted]})}"
        self.space.sandbox.write("work.sh", f"echo started >>/marks/starts\n{source}\n")
        mappings = "['data/', 'out/']"
        self.space.sandbox.write("data/x", "x")
        jobs = job("work.sh", mode=mode, mappings=mappings, **more)
        project(self.space.sandbox, self.name, jobs, components=keys(settings))

    def run(self, *words: str, **options: Any) -> Result:
        return self.space.sandbox.run("-d", self.space.place, *words, **options)

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self.space.sandbox.start("-d", self.space.place, *words, **pipes)

    @property
    def starts(self) -> int:
        path = self.marks / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def say(self, word: str) -> None:
        """What the job waits for."""
        (self.marks / word).touch()


@pytest.fixture
def lab(space: Namespace, name: str) -> Lab:
    return Lab(space, name)


@pytest.fixture
def quiet_lab(quiet_space: Namespace, name: str) -> Lab:
    return Lab(quiet_space, name)


# --- the API server and the line to it ---

# For at least 20 seconds, on both streams, much more than one log file holds.
TALK = """
for i in $(seq 200); do
    for j in $(seq 100); do printf "$i $j %075d\\n" 0; done
    echo "error $i" >&2
    sleep 0.1
done
cat data/x >out/result
exit 7
"""
LINES = "".join(f"{i} {j} {'0' * 75}\n" for i in range(1, 201) for j in range(1, 101))
ERRORS = [f"error {i}" for i in range(1, 201)]


def assert_talk_is_whole(lab: Lab, child: "Reader") -> None:
    out, err = child.communicate(timeout=300)
    assert child.returncode == 7, err.decode()
    assert hashlib.sha256(out).hexdigest() == hashlib.sha256(LINES.encode()).hexdigest(), out[:500]
    assert [line for line in err.decode().splitlines() if line.startswith("error")] == ERRORS
    assert lab.space.sandbox.read("out/result") == "x"
    assert lab.starts == 1


class Reader:
    """Both streams of a child as they come, so that it never waits for us."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child
        self.returncode: int | None = None
        self._parts: dict[str, bytes] = {"out": b"", "err": b""}
        self._threads = [
            threading.Thread(target=self._read, args=pair)
            for pair in (("out", child.stdout), ("err", child.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, name: str, stream: Any) -> None:
        while data := stream.read1(1 << 16):
            self._parts[name] += data

    @property
    def out(self) -> bytes:
        return self._parts["out"]

    def communicate(self, timeout: float) -> tuple[bytes, bytes]:
        self.child.wait(timeout)
        for thread in self._threads:
            thread.join(30)
        self.returncode = self.child.returncode
        return self._parts["out"], self._parts["err"]


@pytest.mark.parametrize("fault", [kill_api, restart_api])
def test_output_is_whole_though_the_api_server_ends_three_times(
    quiet_lab: Lab, fault: Callable[[float], None]
) -> None:
    quiet_lab.write(TALK)
    child = Reader(quiet_lab.start("run"))
    wait_for(lambda: child.out)
    for pause in (0, 1, 3):
        fault(pause)
        time.sleep(1)
    assert_talk_is_whole(quiet_lab, child)


def test_output_is_whole_though_the_line_is_silent_for_12_seconds(lab: Lab) -> None:
    with Forwarder() as line:
        far = Lab(lab.space.through(line.port), lab.name)
        far.write(TALK)
        child = Reader(far.start("run"))
        wait_for(lambda: child.out)
        line.be_silent(12)
        assert_talk_is_whole(far, child)


def test_a_job_goes_on_while_the_nodes_agent_restarts(quiet_lab: Lab) -> None:
    quiet_lab.write(TALK)
    child = Reader(quiet_lab.start("run"))
    wait_for(lambda: child.out)
    restart_kubelet()
    assert_talk_is_whole(quiet_lab, child)


# --- pods that are taken away ---

WAIT = "trap 'exit 0' TERM; echo begun; while [ ! -e /marks/go ]; do sleep 0.1; done; exit 7"


def evict(space: Namespace) -> None:
    space.evict(space.pod()["metadata"]["name"])


def delete_pod(space: Namespace) -> None:
    space.delete("pods", space.pod()["metadata"]["name"])


def delete_pod_at_once(space: Namespace) -> None:
    space.delete("pods", space.pod()["metadata"]["name"], gracePeriodSeconds=0)


def delete_job(space: Namespace) -> None:
    space.delete("jobs", space.all("jobs")[0]["metadata"]["name"])


@pytest.mark.parametrize("fault", [evict, delete_pod, delete_pod_at_once, delete_job])
def test_a_job_whose_pod_is_taken_away_has_failed_and_is_not_started_again(
    lab: Lab, fault: Callable[[Namespace], None]
) -> None:
    lab.write(WAIT)
    with lab.start("run") as child:
        wait_for(lambda: lab.starts, 120)
        fault(lab.space)
        out, err = child.communicate(timeout=120)
    errors = [line for line in err.decode().splitlines() if line.startswith("ERROR")]
    assert (child.returncode, len(errors)) == (1, 1), (out, err)
    assert any(word in errors[0] for word in ("evicted", "deleted", "removed", "is gone")), errors
    time.sleep(3)
    assert lab.starts == 1


@pytest.mark.parametrize("fault", [evict, delete_pod, delete_job])
def test_a_pod_that_is_taken_away_before_the_job_starts(lab: Lab, fault: Callable[[Namespace], None]) -> None:
    lab.write(WAIT)
    lab.space.sandbox.write("data/large", os.urandom(50_000_000))
    with lab.start("run") as child:
        wait_for(lambda: lab.space.state("gate") == "running", 120)
        fault(lab.space)
        lab.say("go")
        _, err = child.communicate(timeout=180)
    # Either it is reported, or a new pod was sent the files anew; never both a start and a lie.
    assert child.returncode in (1, 7), err
    assert lab.starts == (1 if child.returncode == 7 else 0)


# --- a client that is killed ---

SLOW = """
for i in $(seq 3000); do echo "line $i"; done
head -c 30000000 /dev/zero >out/large; cat data/x >out/result
while [ ! -e /marks/go ]; do sleep 0.1; done
echo end
exit 7
"""
SLOW_OUT = "".join(f"line {i}\n" for i in range(1, 3001)) + "end\n"

POINTS: dict[str, Callable[[Lab], object]] = {
    "job": lambda lab: lab.space.all("jobs"),
    "pod": lambda lab: lab.space.all("pods"),
    "gate": lambda lab: lab.space.state("gate") == "running",
    "opened": lambda lab: lab.space.state("gate") == "terminated",
    "started": lambda lab: lab.starts,
    "running": lambda lab: lab.space.state("job") == "running",
    "ended": lambda lab: lab.space.state("job") == "terminated",
    "fetching": lambda lab: any((lab.space.sandbox.root / "out").rglob("*")),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_client_that_is_killed_loses_nothing(lab: Lab, point: str) -> None:
    lab.write(SLOW)
    lab.space.sandbox.write("data/large", os.urandom(20_000_000))
    if point in ("ended", "fetching"):
        (lab.marks / "go").touch()
    child = Reader(lab.start("run"))
    deadline = time.monotonic() + 180
    while not POINTS[point](lab) and child.child.poll() is None:
        assert time.monotonic() < deadline
    child.child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    lab.say("go")
    after = lab.run("logs", "-f", "run", timeout=180)
    if lab.starts == 0:
        assert after.code == 1, after
        return
    assert (lab.starts, after.code) == (1, 7), after
    whole = child.out.decode() + after.out
    assert whole.endswith("end\n")
    assert set(SLOW_OUT.splitlines()) <= set(whole.splitlines())
    assert len(whole) <= len(SLOW_OUT) + 65536
    assert lab.space.sandbox.read("out/result") == "x"
    assert (lab.space.sandbox.root / "out/large").stat().st_size == 30_000_000


def test_a_lost_line_is_reported_with_what_to_do(lab: Lab) -> None:
    with Forwarder() as line:
        far = Lab(lab.space.through(line.port), lab.name)
        far.write(SLOW)
        child = Reader(far.start("run"))
        wait_for(lambda: b"line 3000\n" in child.out, 180)
    # The line is gone for good.
    _, err = child.communicate(timeout=300)
    assert child.returncode == 1
    error = next(text for text in err.decode().splitlines() if text.startswith("ERROR"))
    assert "skelebot logs -f run" in error
    lab.say("go")
    after = lab.run("logs", "-f", "run", timeout=180)
    assert after.code == 7, after
    assert lab.space.sandbox.read("out/result") == "x"


# --- large files ---


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_many_and_large_files_both_ways_with_cuts(lab: Lab) -> None:
    with Forwarder() as line:
        far = Lab(lab.space.through(line.port), lab.name)
        far.write("cp -r data/. out/")
        sandbox = lab.space.sandbox
        sandbox.write("data/large", os.urandom(300_000_000))
        for n in range(2000):
            sandbox.write(f"data/{n % 20}/{n}", os.urandom(n))
        child = Reader(far.start("run"))
        wait_for(lambda: lab.space.state("gate") == "running", 180)
        time.sleep(2)
        line.cut()
        out = sandbox.root / "out"
        wait_for(lambda: child.child.poll() is not None or any(out.rglob("*")), 300)
        line.cut()
        _, err = child.communicate(timeout=300)
    assert child.returncode == 0, err.decode()
    assert digests(out) == digests(sandbox.root / "data")


# --- at most once ---


@pytest.mark.parametrize("kind", ["pods", "jobs"])
@pytest.mark.parametrize("grace", [{}, {"gracePeriodSeconds": 0}])
def test_a_job_is_never_started_twice(lab: Lab, kind: str, grace: dict[str, int]) -> None:
    """At whatever moment it is taken away."""
    lab.write("sleep 1; exit 7")
    assert lab.run("run").code == 7
    for number in range(5):
        (lab.marks / "starts").unlink()
        (lab.marks / "starts").touch()
        with lab.start("run") as child:
            wait_for(lambda: lab.space.all(kind), 60)
            time.sleep(number * 0.5)
            for each in lab.space.all(kind):
                options = {"propagationPolicy": "Background", **grace}
                ask("DELETE", lab.space.path(kind, each["metadata"]["name"]), options)
            child.communicate(timeout=180)
        assert (child.returncode, lab.starts) in ((1, 0), (1, 1), (7, 1))
        wait_for(lambda: not lab.space.left(), 60)
