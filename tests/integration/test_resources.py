"""What jobs need of a machine, in containers and natively: limits, devices, disk; and further attempts."""

import glob
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from harness import CLIENTS, Result, Sandbox, containers, job, project, wait_for

from skelebot import files
from skelebot.runners.native import memory


@dataclass(frozen=True)
class Place:
    """A project, and the options before the command that choose where its jobs run."""

    sandbox: Sandbox
    project: str
    options: tuple[str, ...]

    @property
    def is_native(self) -> bool:
        return bool(self.options)

    def write(self, *jobs: str, **keys: str) -> None:
        project(self.sandbox, self.project, *jobs, **keys)

    def run(self, *words: str, **options: Any) -> Result:
        return self.sandbox.run(*self.options, *words, **options)

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[bytes]":
        return self.sandbox.start(*self.options, *words, **options)


@pytest.fixture(params=["native", pytest.param("docker", marks=pytest.mark.engine)])
def place(request: pytest.FixtureRequest, sandbox: Sandbox, name: str) -> Place:
    return Place(sandbox, name, ("-n",) if request.param == "native" else ())


@pytest.fixture
def limited(place: Place) -> Place:
    """A place where memory can be limited."""
    if place.is_native:
        group = memory.group(1 << 26)
        if group is None:
            pytest.skip("this machine gives no group with a memory limit")
        group.end()
    return place


# --- memory ---

EAT = "python3 -c 'bytearray(200 << 20)'"


def test_a_job_that_runs_out_of_its_memory_says_so(limited: Place) -> None:
    limited.write(job(EAT, "train"), resources="{memory: 64m}")
    result = limited.run("train")
    assert result.code == 137
    assert result.errors == ["ERROR | train ran out of its memory (64m); raise resources.memory"]


def test_a_process_of_a_job_that_was_killed_for_its_memory_is_reported_too(limited: Place) -> None:
    """The job's exit code stays its own."""
    limited.write(job(f"{EAT} || exit 3", "train"), job(f"{EAT} || true", "copes"), resources="{memory: 64m}")
    result = limited.run("train")
    assert result.code == 3
    assert result.errors == ["ERROR | train ran out of its memory (64m); raise resources.memory"]
    result = limited.run("copes")
    assert (result.code, result.errors) == (0, [])


def test_nothing_is_said_of_a_job_that_was_killed_for_another_reason(limited: Place) -> None:
    limited.write(job("kill -9 $$", "train"), job("exit 9", "fails"), resources="{memory: 64m}")
    for name, code in (("train", 137), ("fails", 9)):
        result = limited.run(name)
        assert (result.code, result.errors) == (code, [])


def test_enough_memory_is_no_matter(limited: Place) -> None:
    """The streams, the missing programs and the signals stay as they are."""
    limited.write(
        job("cat; echo said >&2; exit 4"),
        job("x.R", "missing"),
        job("touch out/ready; sleep 60", "waits", mappings="[out/]"),
        resources="{memory: 512m}",
    )
    limited.sandbox.write("x.R", "1\n")
    result = limited.run("run", stdin=b"given")
    assert (result.code, result.out, result.errors) == (4, "given", [])
    assert limited.run("missing").code == 127
    child = limited.start("waits", stderr=subprocess.PIPE)
    wait_for((limited.sandbox.root / "out/ready").exists)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143
    assert b"memory" not in err


def test_a_detached_job_keeps_its_limit(limited: Place) -> None:
    limited.write(job(f"sleep 1; {EAT}; exit $?", "bg", mode="d"), resources="{memory: 64m}")
    assert limited.run("bg").code == 0
    wait_for(lambda: "running" not in limited.run("ps", "--json").out)
    assert "bg ran out of its memory (64m); raise resources.memory" in limited.run("logs", "bg").err


def test_no_group_is_left_behind(limited: Place) -> None:
    if not limited.is_native:
        pytest.skip("the engine's are its own")
    limited.write(job("echo $(sed -n 's/.*memory://p' /proc/self/cgroup)"), resources="{memory: 64m}")
    own = limited.run("run").out.strip()
    assert "/skelebot-" in own
    assert glob.glob(f"/sys/fs/cgroup/**/{os.path.basename(own)}", recursive=True) == []


def test_a_user_without_groups_is_warned_once_and_the_job_runs(anyone: Sandbox, name: str) -> None:
    ordinary = anyone
    if ordinary.uid == os.getuid():
        pytest.skip("only root knows who gets no groups")
    project(ordinary, name, job("echo ran"), resources="{memory: 64m}")
    result = ordinary.run("-n", "run")
    assert (result.code, result.out) == (0, "ran\n")
    warning = "WARN  | run: this system cannot limit a native job's memory; it runs without a limit"
    assert result.err.splitlines() == [warning]


# --- CPUs and shared memory ---


@pytest.mark.engine
def test_a_container_gets_its_cpus_and_its_shared_memory(sandbox: Sandbox, name: str) -> None:
    quota = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null"
    project(sandbox, name, job(f"{quota}; df -k /dev/shm"), resources="{cpus: 500m, shm: 128m}")
    cpu, _, shm = sandbox.ok("run").splitlines()
    assert cpu.split()[0] == "50000"
    assert shm.split()[1] == "131072"


def test_native_libraries_learn_how_many_cpus_there_are(sandbox: Sandbox, name: str) -> None:
    show = "echo $OMP_NUM_THREADS $MKL_NUM_THREADS $OPENBLAS_NUM_THREADS"
    jobs = job(show), job(show, "own", environment="{OMP_NUM_THREADS: 7}")
    project(sandbox, name, *jobs, resources="{cpus: 1.5}")
    ours = sandbox.without_env("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS").with_env(MKL_NUM_THREADS="5")
    assert ours.ok("-n", "run") == "2 5 2\n"
    assert ours.ok("-n", "own") == "7 5 2\n"


# --- disk ---


def test_too_little_disk_space_is_reported_before_the_job_starts(place: Place) -> None:
    place.write(job("echo ran"), job("echo ran", "huge", resources="{disk: 1000t}"), resources="{disk: 1m}")
    result = place.run("huge")
    assert (result.code, result.out) == (1, "")
    assert len(result.errors) == 1
    assert result.errors[0].startswith(
        f"ERROR | huge needs 1000t of free disk space, and {place.sandbox.root} has "
    )
    assert result.errors[0].endswith("; free some, or lower resources.disk")
    assert place.run("run").out == "ran\n"


# --- GPUs: no machine for tests has some, but the program that lists them can be another ---

SMI = """\
#!/bin/sh
here=${0%%/*}
case $1 in
--query-gpu=index,uuid) for i in 0 1 2; do echo "$i, GPU-$i-%(name)s"; done ;;
--query-gpu=name,driver_version) for i in 0 1 2; do echo "A$((100 * (i > 0))), 535.1"; done ;;
--query-compute-apps=gpu_uuid,pid) cat "$here/busy" ;;
*) exit 1 ;;
esac
"""

# Docker refuses devices where NVIDIA's toolkit is missing: this client asks for none, and notes what it got.
CLIENT = """\
#!/bin/bash
words=()
while [ $# -gt 0 ]; do
    if [ "$1" = --gpus ]; then echo "$2" >>"${0%%/*}/asked"; shift 2; else words+=("$1"); shift; fi
done
exec %(client)s "${words[@]}"
"""


@pytest.fixture
def gpus(place: Place) -> Iterator[Place]:
    yield from with_gpus(place)


def with_gpus(place: Place) -> Iterator[Place]:
    """The place on a machine with three GPUs."""
    tools = {"name": place.project, "client": CLIENTS[0]}
    path = place.sandbox.write("../bin/nvidia-smi", SMI % tools, 0o755).parent.resolve()
    place.sandbox.write("../bin/docker", CLIENT % tools, 0o755)
    place.sandbox.write("../bin/busy", "")
    env = place.sandbox.without_env("CUDA_VISIBLE_DEVICES")
    yield replace(place, sandbox=env.with_env(PATH=f"{path}:{place.sandbox.env['PATH']}"))
    for lock in glob.glob(f"/tmp/skelebot-gpu-GPU-*-{place.project}.lock"):
        Path(lock).unlink()


# Says what it got, and goes on until it may end.
HOLD = 'echo "got ${CUDA_VISIBLE_DEVICES-$SKELEBOT_DEVICES}"; while [ ! -e out/end ]; do sleep 0.05; done'


def write_jobs(place: Place) -> None:
    held = {"source": HOLD, "mappings": "[out/]"}
    place.write(
        job(**held, name="one", resources="{gpus: 1}"),
        job(**held, name="two", resources="{gpus: 2}"),
        job(**held, name="bg", resources="{gpus: 2}", mode="d"),
        job("echo ran", "quick", resources="{gpus: 1}"),
        job('echo "${CUDA_VISIBLE_DEVICES-all}"', "all", resources="{gpus: all}"),
    )


def begin(place: Place, name: str) -> "subprocess.Popen[bytes]":
    child = place.start(name, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout
    assert child.stdout.readline().startswith(b"got ")
    return child


def asked(place: Place) -> list[str]:
    return place.sandbox.read("../bin/asked").splitlines()


def end(place: Place, *children: "subprocess.Popen[bytes]") -> None:
    place.sandbox.write("out/end", "")
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0


def test_each_run_has_devices_of_its_own(gpus: Place) -> None:
    write_jobs(gpus)
    first = begin(gpus, "two")
    second = begin(gpus, "one")
    result = gpus.run("quick")
    assert (result.code, result.out) == (1, "")
    assert result.errors == [
        "ERROR | quick needs 1 free GPU, found 0 of 3: "
        f"device 0 is held by process {first.pid}; device 1 is held by process {first.pid}; "
        f"device 2 is held by process {second.pid}; wait for them, or see `nvidia-smi`"
    ]
    end(gpus, first, second)
    assert gpus.run("quick").out == "ran\n"
    if not gpus.is_native:
        assert asked(gpus) == ['"device=0,1"', '"device=2"', '"device=0"']


def test_a_recorded_run_names_the_gpus(gpus: Place) -> None:
    if not gpus.is_native:
        pytest.skip("it is the same machine")
    write_jobs(gpus)
    assert gpus.run("queue", "--now", "quick").code == 0
    shown = gpus.sandbox.ok("runs", "show", "1")
    assert "machine    gpu A0, A100\nmachine    driver 535.1\n" in shown


def test_a_native_job_sees_its_devices_only(gpus: Place) -> None:
    if not gpus.is_native:
        pytest.skip("a container has no others")
    write_jobs(gpus)
    gpus.sandbox.write("out/end", "")
    assert gpus.run("two").out == "got 0,1\n"
    assert gpus.run("all").out == "all\n"
    chosen = replace(gpus, sandbox=gpus.sandbox.with_env(CUDA_VISIBLE_DEVICES="2,1"))
    assert chosen.run("two").out == "got 1,2\n"
    none = replace(gpus, sandbox=gpus.sandbox.with_env(CUDA_VISIBLE_DEVICES=""))
    assert none.run("one").errors == [
        "ERROR | one needs 1 free GPU, found 0 of 0 (CUDA_VISIBLE_DEVICES=); "
        "wait for them, or see `nvidia-smi`"
    ]


def test_a_device_that_computes_for_somebody_else_is_not_free(gpus: Place) -> None:
    write_jobs(gpus)
    gpus.sandbox.write("../bin/busy", f"GPU-0-{gpus.project}, 4711\nGPU-1-{gpus.project}, 4712\n")
    result = gpus.run("two")
    assert result.errors == [
        "ERROR | two needs 2 free GPUs, found 1 of 3: device 0 is held by process 4711; "
        "device 1 is held by process 4712; wait for them, or see `nvidia-smi`"
    ]
    assert gpus.run("quick").out == "ran\n"


def test_a_killed_skelebot_does_not_free_the_devices_of_its_job(gpus: Place) -> None:
    write_jobs(gpus)
    child = begin(gpus, "two")
    child.kill()
    child.wait()
    result = gpus.run("two")
    assert result.code == 1
    assert "found 1 of 3: device 0 is held by " in result.errors[0]
    gpus.sandbox.write("out/end", "")
    wait_for(lambda: gpus.run("two").code == 0)


def test_a_detached_job_holds_its_devices_until_it_ends(gpus: Place) -> None:
    write_jobs(gpus)
    assert gpus.run("bg").code == 0
    result = gpus.run("two")
    assert result.code == 1
    assert "found 1 of 3: device 0 is held by " in result.errors[0]
    if not gpus.is_native:
        assert f"held by the container {containers(gpus.project)[0]};" in result.errors[0]
        natively = replace(gpus, options=("-n",))
        assert natively.run("two").errors == result.errors
    gpus.sandbox.write("out/end", "")
    wait_for(lambda: gpus.run("two").code == 0)


@pytest.mark.engine
def test_devices_of_a_container_are_named_for_docker_alone(gpus: Place) -> None:
    if gpus.is_native:
        pytest.skip("for containers")
    write_jobs(gpus)
    gpus.write(
        job(
            "echo ${CUDA_VISIBLE_DEVICES-none}",
            resources="{gpus: 1}",
            environment="{CUDA_VISIBLE_DEVICES: 2}",
        )
    )
    assert gpus.run("run").out == "none\n"
    assert asked(gpus) == ['"device=2"']


@pytest.fixture
def anyones_gpus(anyone: Sandbox, name: str) -> Iterator[Place]:
    yield from with_gpus(Place(anyone, name, ("-n",)))


def lock_path(place: Place, device: int) -> str:
    return f"/tmp/skelebot-gpu-GPU-{device}-{place.project}.lock"


def test_the_locks_are_those_of_all_users(anyones_gpus: Place) -> None:
    place = anyones_gpus
    place.write(job("echo $CUDA_VISIBLE_DEVICES", "one", resources="{gpus: 1}"))
    with files.open_lock(lock_path(place, 0)) as lock:
        assert files.try_lock(lock)
        assert place.run("one").out == "1\n"
        everything = replace(place, sandbox=place.sandbox.with_env(CUDA_VISIBLE_DEVICES="0"))
        assert f"device 0 is held by process {os.getpid()}; wait" in everything.run("one").errors[0]
    assert place.run("one").out == "0\n"


def test_a_link_in_the_place_of_a_lock_is_not_followed(anyones_gpus: Place) -> None:
    place, target = anyones_gpus, anyones_gpus.sandbox.root / "target"
    place.write(job("true", "one", resources="{gpus: 1}"))
    os.symlink(target, lock_path(place, 0))
    result = place.run("one")
    assert (result.code, target.exists()) == (1, False)
    assert f"the lock {lock_path(place, 0)} of the GPUs cannot be opened" in result.errors[0]


def test_without_nvidia_smi_there_is_a_clear_error(place: Place) -> None:
    place.write(job("echo ran", resources="{gpus: 1}"))
    result = place.run("run")
    assert (result.code, result.out) == (127, "")
    assert result.errors == [
        "ERROR | nvidia-smi is not installed, or not on PATH, so this machine's GPUs are not known; "
        "install its driver, or remove resources.gpus"
    ]


@pytest.mark.parametrize(("says", "shown"), [("echo 'no driver' >&2", "no driver"), ("", "exit code 9")])
def test_an_nvidia_smi_that_fails_is_named(gpus: Place, says: str, shown: str) -> None:
    write_jobs(gpus)
    gpus.sandbox.write("../bin/nvidia-smi", f"#!/bin/sh\n{says}\nexit 9\n", 0o755)
    assert gpus.run("one").errors == [f"ERROR | nvidia-smi failed: {shown}; run it to see why"]


# --- another attempt ---


def test_a_failed_job_is_tried_again(place: Place) -> None:
    source = "echo attempt $SKELEBOT_ATTEMPT; echo x >>out/count; exit $((3 - $(wc -l <out/count)))"
    place.write(job(source, "train", retries="5", mappings="[out/]"), job("echo $SKELEBOT_ATTEMPT.", "once"))
    result = place.run("train")
    assert (result.code, result.out) == (0, "attempt 1\nattempt 2\nattempt 3\n")
    assert [line for line in result.err.splitlines() if "attempt" in line] == [
        "INFO  | train failed with exit code 2; attempt 2 of 6 in 1 s",
        "INFO  | train failed with exit code 1; attempt 3 of 6 in 2 s",
    ]
    assert place.run("once").out == ".\n"


def test_the_last_attempts_exit_code_is_the_jobs(place: Place) -> None:
    place.write(
        job("echo $SKELEBOT_ATTEMPT; exit 7", retries="1"), job("sleep 60", "slow", retries="1", timeout="1")
    )
    result = place.run("run")
    assert (result.code, result.out) == (7, "1\n2\n")
    result = place.run("slow")
    assert (result.code, len(result.errors)) == (124, 2)
    assert "slow failed with exit code 124; attempt 2 of 2 in 1 s" in result.err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_asked_to_end_is_not_tried_again(place: Place, signum: signal.Signals) -> None:
    place.write(job("echo ready; sleep 60", retries="3"))
    child = place.start("run", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    child.send_signal(signum)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + signum
    assert b"attempt" not in err


def test_ctrl_c_ends_the_wait_for_another_attempt(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("echo go; exit 3", retries="9"))
    child = sandbox.start("-n", "run", stderr=subprocess.PIPE)
    assert child.stderr
    while b"attempt 3 of 10 in 2 s" not in child.stderr.readline():
        pass
    child.send_signal(signal.SIGINT)
    assert child.wait(120) == 130
    assert b"attempt" not in child.stderr.read()


def test_needed_jobs_that_run_at_once_are_tried_again_too(sandbox: Sandbox, name: str) -> None:
    source = "echo $SKELEBOT_ATTEMPT >>out/count; [ $SKELEBOT_ATTEMPT = 2 ]"
    failing = job(source, "fails", retries="2", mappings="[out/]")
    project(sandbox, name, failing, job("true", "other"), job("echo done", needs="[fails, other]"))
    result = sandbox.run("-n", "-j", "2", "run")
    assert (result.code, result.out) == (0, "done\n")
    assert sandbox.read("out/count") == "1\n2\n"
    assert "fails failed with exit code 1; attempt 2 of 3 in 1 s" in result.err


@pytest.mark.parametrize(
    "source", ["exit 3", "trap 'exit 7' INT; touch out/ready; while :; do sleep 0.1; done"]
)
def test_ctrl_c_ends_those_that_run_at_once_for_good(sandbox: Sandbox, name: str, source: str) -> None:
    """Also in the wait, and a job that ends in its own way."""
    failing = job(source, "fails", retries="9", mappings="[out/]")
    project(sandbox, name, failing, job("true", "other"), job("echo done", needs="[fails, other]"))
    child = sandbox.start("-n", "-j", "2", "run", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stderr
    if source == "exit 3":
        while b"attempt 3 of 10 in 2 s" not in child.stderr.readline():
            pass
    else:
        wait_for((sandbox.root / "out/ready").exists)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert (child.returncode, out) == (130, b"")
    assert b"attempt" not in err


def test_a_job_whose_outputs_are_missing_is_tried_again(sandbox: Sandbox) -> None:
    source = '[ "$SKELEBOT_ATTEMPT" = 1 ] || echo > out/x'
    project(sandbox, "r", job(source, outputs="[out/]", retries="1"))
    result = sandbox.run("-n", "run")
    assert result.code == 0, result
    assert "run ended with 0 but left nothing in out/; attempt 2 of 2 in 1 s" in result.err
    assert "INFO  | run is up to date" in sandbox.run("-n", "run").err
