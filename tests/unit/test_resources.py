"""Resources: as they are written, merged and applied, without an engine."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skelebot import process
from skelebot.errors import ConfigError, SkelebotError
from skelebot.model import ALL_GPUS, Flags, Limits, Step, Task
from skelebot.project import plan
from skelebot.runners import gpus, limits
from skelebot.runners.gpus import Asking
from skelebot.runners.native import held, memory
from skelebot.runners.native.environment import Environment
from skelebot.units import G, M, T

from .helpers import load

# --- as they are written ---


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", Limits()),
        ("{cpus: 2, memory: 4g}", Limits(2, 4 * G)),
        (
            "{cpus: 500m, memory: 512Mi, shm: 1 GiB, gpus: 2, disk: 1.5T}",
            Limits(0.5, 512 * M, G, 2, 3 * T // 2),
        ),
        ("{memory: 268435456, gpus: all}", Limits(memory=256 * M, gpus=ALL_GPUS)),
        ("{cpus: 0.01, memory: 6m, shm: 1}", Limits(0.01, 6 * M, 1)),
        ("{cpus: }", Limits()),
    ],
)
def test_resources_become_numbers(tmp_path: Path, written: str, expected: Limits) -> None:
    project = load(tmp_path, f"name: demo\nresources: {written}\n")
    assert plan.limits(project, None) == expected


CPUS = "expected a number of CPUs from 0.01 to 10000, such as 2, 0.5 or 500m"
MEMORY = "expected a size from 6m to 1024t, such as 512m or 4g"
SIZE = "expected a size from 1b to 1024t, such as 512m or 4g"
GPUS = "expected a number of GPUs up to 999, or all"


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        *(
            ("cpus", value, CPUS)
            for value in ("0", "-1", "0.001", "5m", "20000", "two", "2g", ".5", "1e3", "4.")
        ),
        *(
            ("memory", value, MEMORY)
            for value in ("0", "-4g", "4x", "5m", "1025t", "lots", "1_000_000_000", "4 gigs")
        ),
        *(("shm", value, SIZE) for value in ("0", "-1", "1q", "2048t")),
        *(("disk", value, SIZE) for value in ("0g", "1 qb", "9999999999999999t")),
        *(("gpus", value, GPUS) for value in ("-1", "0.5", "1000", "none", "ALL")),
    ],
)
def test_wrong_resources_are_reported_with_their_place(
    tmp_path: Path, key: str, value: str, problem: str
) -> None:
    for above, place in (
        ("", "resources"),
        ("jobs:\n- name: a\n  source: b\n  help: c\n  ", "jobs[0].resources"),
    ):
        with pytest.raises(ConfigError) as error:
            load(tmp_path, f"name: demo\n{above}resources: {{{key}: {value}}}\n")
        line, column = (6, 15) if above else (2, 13)
        at = f"skelebot.yaml:{line}:{column + len(key) + 2}: {place}.{key}: "
        assert error.value.problems == [f"{at}{problem}; found {value!r}"]


def test_unknown_resources_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resources\.mem: unknown key; did you mean `memory`\?"):
        load(tmp_path, "name: demo\nresources: {mem: 4g}\n")


def test_each_key_of_a_job_overrides_the_roots(tmp_path: Path) -> None:
    project = load(
        tmp_path,
        "name: demo\nresources: {cpus: 4, memory: 4g, gpus: 2}\njobs:\n"
        "- {name: a, source: b, help: c}\n"
        "- {name: b, source: b, help: c, resources: {memory: 1g, gpus: all, disk: 1t}}\n",
    )
    tasks = [plan.task(project, job, {}, Flags(), {}) for job in project.jobs]
    assert [task.limits for task in tasks] == [
        Limits(4, 4 * G, 0, 2),
        Limits(4, G, 0, ALL_GPUS, T),
    ]


def test_gpu_true_is_all_of_them_unless_resources_say_otherwise(tmp_path: Path) -> None:
    job = "jobs:\n- {name: a, source: b, help: c, resources: {gpus: 1}}\n"
    project = load(tmp_path, f"name: demo\ngpu: true\n{job}")
    assert plan.limits(project, None).gpus == ALL_GPUS
    assert plan.limits(project, project.jobs[0]).gpus == 1
    project = load(tmp_path, f"name: demo\ngpu: true\n{job.replace('gpus: 1', 'gpus: 0')}")
    assert plan.limits(project, project.jobs[0]).gpus == 0
    project = load(tmp_path, "name: demo\ngpu: true\nresources: {gpus: 3}\n")
    assert plan.limits(project, None).gpus == 3


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("retries: 101", "expected a whole number from 0 to 100, found the number '101'"),
        ("retries: 1, mode: d", "a job with mode d is not tried again; remove `retries` or `mode: d`"),
        ("retries: -1", "expected a whole number from 0 to 100, found the number '-1'"),
        ("retries: often", "expected a whole number from 0 to 100, found the text 'often'"),
    ],
)
def test_wrong_retries_are_reported_with_their_place(tmp_path: Path, keys: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, f"name: demo\njobs: [{{name: a, source: b, help: c, {keys}}}]\n")
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith("skelebot.yaml:2:")
    assert error.value.problems[0].endswith(f"jobs[0].retries: {problem}")


# --- what is said of them ---


def task(**changes: float) -> Task:
    return Task("train", ("true",), "/", limits=Limits(**changes))  # type: ignore[arg-type]


def test_the_line_of_a_dry_run() -> None:
    assert limits.describe(task()) == []
    assert limits.describe(task(cpus=0.5, memory=4 * G, shm=G, gpus=ALL_GPUS, disk=T)) == [
        "limits   cpus 0.5, memory 4g, shm 1g, gpus all, disk 1t"
    ]


def test_a_disk_with_too_little_space_is_an_error(tmp_path: Path) -> None:
    limits.check_disk(task(), str(tmp_path))
    limits.check_disk(task(disk=1), str(tmp_path), "/nowhere")
    with pytest.raises(SkelebotError) as error:
        limits.check_disk(task(disk=1000 * T), "/nowhere", str(tmp_path))
    text = str(error.value)
    assert text.startswith(f"train needs 1000t of free disk space, and {tmp_path} has ")
    assert text.endswith("; free some, or lower resources.disk")


# --- GPUs ---

THREE = [gpus.Device(str(i), f"GPU-{i}abc") for i in range(3)]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (None, "012"),
        ("", ""),
        ("-1", ""),
        ("1", "1"),
        ("2,0", "02"),
        ("7", ""),
        ("GPU-1abc", "1"),
        ("GPU-2a, 0", "02"),
        ("GPU-", ""),
        ("NoDevFiles", ""),
    ],
)
def test_the_callers_variable_names_the_devices_to_choose_from(names: str | None, numbers: str) -> None:
    assert "".join(device.number for device in gpus.visible(THREE, names)) == numbers


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Asking]:
    """Three devices; a process computes on the first. Their names are no other test's."""
    mark = tmp_path.stat().st_ino
    (tmp_path / "gpu").write_text("".join(f"{i}, GPU-{mark}-{i}\n" for i in range(3)))
    (tmp_path / "apps").write_text(f"GPU-{mark}-0, 4711\nno devices\n")
    script = f'case "$1" in *gpu=index*) cat {tmp_path}/gpu;; *compute-apps*) cat {tmp_path}/apps;; esac'
    yield lambda words: Step(("sh", "-c", script, *words))
    for lock in Path("/tmp").glob(f"skelebot-gpu-GPU-{mark}-*.lock"):
        lock.unlink()


def wants(count: int) -> Task:
    return Task("train", ("true",), "/", limits=Limits(gpus=count))


def test_a_run_gets_devices_that_nothing_else_uses(machine: Asking) -> None:
    assert gpus.take(wants(0), {}, asking=machine) == gpus.Devices()
    first = gpus.take(wants(1), {}, asking=machine)
    assert dict(first.variables)["CUDA_VISIBLE_DEVICES"] == "1"
    second = gpus.take(wants(1), {}, asking=machine)
    assert dict(second.variables)["CUDA_VISIBLE_DEVICES"] == "2"
    with pytest.raises(SkelebotError) as error:
        gpus.take(wants(1), {}, asking=machine)
    me = f"is held by process {os.getpid()}"
    assert "train needs 1 free GPU, found 0 of 3: device 0 is held by process 4711" in str(error.value)
    assert f"device 1 {me}; device 2 {me}; wait for them" in str(error.value)
    first.release()
    again = gpus.take(wants(1), {}, asking=machine)
    assert again.devices == first.devices
    again.release()
    second.release()


def test_a_device_that_somebody_holds_without_a_lock_is_not_free(machine: Asking) -> None:
    def others() -> dict[str, str]:
        return {gpus.devices(machine)[1].uuid: "the container x"}

    taken = gpus.take(wants(1), {}, others, machine)
    assert [device.number for device in taken.devices] == ["2"]
    taken.release()
    with pytest.raises(SkelebotError, match=r"found 1 of 3: .*device 1 is held by the container x"):
        gpus.take(wants(2), {}, others, machine)
    with pytest.raises(SkelebotError, match=r"found 0 of 1 \(CUDA_VISIBLE_DEVICES=0\): device 0"):
        gpus.take(wants(1), {"CUDA_VISIBLE_DEVICES": "0"}, others, machine)


# --- threads ---


def variables(cpus: float, **env: str) -> dict[str, object]:
    of_job = Task("run", ("true",), "/", env=tuple(env.items()), limits=Limits(cpus=cpus))
    return dict(held.Held().step(of_job, Environment((("PYTHONPATH", "x"),))).env)


@pytest.mark.parametrize(("cpus", "threads"), [(0.01, "1"), (1, "1"), (1.2, "2"), (2, "2"), (7.5, "8")])
def test_libraries_start_as_many_threads_as_there_are_cpus(
    cpus: float, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in held.THREADS:
        monkeypatch.delenv(name, raising=False)
    assert variables(cpus) == {"PYTHONPATH": "x", **dict.fromkeys(held.THREADS, threads)}
    assert variables(cpus, OMP_NUM_THREADS="9")["OMP_NUM_THREADS"] == "9"
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    assert "MKL_NUM_THREADS" not in variables(cpus)
    assert variables(0) == {"PYTHONPATH": "x"}


# --- a group with a limit ---


@pytest.fixture
def folder() -> Iterator[memory.Folder]:
    """A real group of this machine."""
    made = memory.group(64 * M)
    if not isinstance(made, memory.Folder):
        pytest.skip("this machine gives no group with a limit")
    yield made
    made.end()


def code(group: memory.Group, *words: str) -> int:
    program = process.start(Step((*group.words, *words)), process.Streams(b""), group.fds)
    return program.wait()


def test_a_group_ends_what_takes_more_than_its_limit(folder: memory.Folder) -> None:
    assert code(folder, "python3", "-c", "bytearray(200 << 20)") == 137
    assert folder.end()
    assert not os.path.exists(folder.path)


def test_a_group_knows_what_was_not_killed_for_its_memory(folder: memory.Folder) -> None:
    assert code(folder, "bash", "-c", "kill -9 $$") == 137
    assert code(folder, "bash", "-c", "exit 3") == 3
    assert not folder.end()


def test_the_limit_is_that_of_all_processes_together(folder: memory.Folder) -> None:
    """Each of them stays below it."""
    eater = "import time; x = bytearray(40 << 20); time.sleep(20)"
    three = f"for i in 1 2 3; do python3 -c '{eater}' & done; wait -n; kill $(jobs -p)"
    code(folder, "bash", "-c", three)
    assert folder.end()


def test_the_files_of_version_2(tmp_path: Path) -> None:
    """Ordinary files stand for the kernel's: this says which are written, and what is read."""
    made = memory._made_v2(str(tmp_path), 64 * M)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "memory.max": str(64 * M),
        "memory.swap.max": str(64 * M),
    }
    for killed, is_killed in ((0, False), (1, True), (10, True)):
        (tmp_path / "memory.events").write_text(f"low 0\nmax 7\noom 1\noom_kill {killed}\noom_group_kill 0\n")
        assert made.end() is is_killed


def test_a_scope_is_kept_until_its_count_is_read_and_is_no_business_of_the_jobs() -> None:
    """Without systemd before it, the rest of the command does the same."""
    scope = memory.Scope(("env",), os.pipe(), os.pipe())
    script = 'printf "%s|" "$@"; cat; pgrep -P $$; wait; ls /proc/self/fd | wc -l; exit 7'
    words = (*scope.words, "bash", "-c", script, "run", "$HOME", "a b", "")
    sinks: dict[str, bytes] = {"out": b"", "err": b""}

    def sink(name: str, data: bytes) -> None:
        sinks[name] += data

    streams = process.Streams(b"in|", lambda data: sink("out", data), lambda data: sink("err", data))
    env = (("odd.name", "kept"),)
    program = process.start(Step(words, env=env), streams, scope.fds)
    assert program.wait() == 7
    fds = subprocess.run(
        ["bash", "-c", "ls /proc/self/fd | wc -l"], stdout=subprocess.PIPE, check=True
    ).stdout
    assert (sinks["out"], sinks["err"]) == (b"$HOME|a b||in|" + fds, b"")
    assert not scope.end()  # this machine counts elsewhere


def test_a_scope_that_was_stopped_with_the_job_says_nothing() -> None:
    scope = memory.Scope(("setsid", "--wait"), os.pipe(), os.pipe())
    assert code(scope, "bash", "-c", "kill -9 0") == 137
    assert not scope.end()
