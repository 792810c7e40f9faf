"""Native runs: their environment, what is written down about them, and the runner itself."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness import wait_for

from skelebot import foreground, process
from skelebot.errors import SkelebotError, UsageError
from skelebot.files import locked
from skelebot.image.dependencies import Dependency
from skelebot.json_form import to_json
from skelebot.model import NATIVE, Image, Mount, Run, Task
from skelebot.process import OWN, Streams
from skelebot.project import state
from skelebot.runners import native
from skelebot.runners.native import Native, environment, records
from skelebot.runners.native.environment import Environment
from skelebot.runners.native.records import Record

from .helpers import ordinary_user


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task whose checkout and cache are the test's own, without an active environment."""
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "p").mkdir()
    return Task("run", ("true",), str(tmp_path / "p"), project="demo", place=NATIVE)


# --- which Python ---


@pytest.mark.parametrize(
    ("have", "wanted", "expected"),
    [
        ((3, 11, 2), "3.11", True),
        ((3, 11, 2), "3.11.2", True),
        ((3, 11, 2), "3", True),
        ((3, 11, 2), "3.1", False),
        ((3, 11, 2), "3.11.20", False),
        ((3, 11, 20), "3.11.2", False),
        ((3, 1, 4), "3.11", False),
        ((3, 13, 0), "3.13.0rc1", False),
        ((3, 11, 2), "2", False),
    ],
)
def test_versions_are_compared_number_by_number(have: tuple[int, ...], wanted: str, expected: bool) -> None:
    assert environment._is_version(have, wanted) is expected


def test_a_python_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert environment._python(None) == sys.executable
    assert environment._python(f"{sys.version_info[0]}.{sys.version_info[1]}") == sys.executable
    with pytest.raises(
        SkelebotError, match=r"^Python 3\.1 \(pythonVersion\) is not on this machine; install"
    ):
        environment._python("3.1")


def test_a_python_of_another_version_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python3.1").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment._python("3.1.4") == str(tmp_path / "python3.1")


# --- which environment ---


def fingerprint(task: Task, *wanted: Dependency) -> str:
    return environment._fingerprint(task, wanted)


def test_what_an_environment_depends_on(task: Task) -> None:
    file = Path(task.root, "r.txt")
    file.write_text("numpy\n")
    one = Dependency("numpy", ("numpy",))
    of_file = Dependency("req:r.txt", ("-r", "r.txt"), ("r.txt",))
    before = fingerprint(task, one, of_file)
    others = {
        "the same": before,
        "another Python": fingerprint(replace(task, python_version="3.10"), one, of_file),
        "a third": fingerprint(replace(task, python_version="3.9"), one, of_file),
        "fewer": fingerprint(task, of_file),
        "another order": fingerprint(task, of_file, one),
    }
    assert fingerprint(task, one, of_file) == before
    file.write_text("numpy<2\n")
    others["another file"] = fingerprint(task, one, of_file)
    assert len(set(others.values())) == len(others)


def variables(task: Task) -> dict[str, object]:
    """Those that choose the Python."""
    with environment.ensure_environment(task, False) as found:
        return {name: value for name, value in found.variables if name != "PYTHONPATH"}


@pytest.mark.parametrize(
    ("files", "folders"),
    [((), ["."]), (("src/a.py",), [".", "src"]), (("src/__init__.py",), ["."]), (("src",), ["."])],
)
def test_the_modules_of_the_project_can_be_imported(
    task: Task, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], folders: list[str]
) -> None:
    for file in files:
        Path(task.root, file).parent.mkdir(exist_ok=True)
        Path(task.root, file).write_text("")
    monkeypatch.setenv("VIRTUAL_ENV", "/venv")
    expected = [os.path.normpath(os.path.join(task.root, folder)) for folder in folders]
    for callers in ([], ["/mine"]):
        monkeypatch.setenv("PYTHONPATH", ":".join(callers))
        with environment.ensure_environment(task, False) as found:
            assert dict(found.variables)["PYTHONPATH"] == ":".join([*expected, *callers])
    with environment.ensure_environment(replace(task, env=(("PYTHONPATH", "/own"),)), False) as found:
        assert "PYTHONPATH" not in dict(found.variables)


def test_an_active_environment_comes_first(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = replace(task, dependencies=("numpy",), env=(("PATH", "/own"),))
    assert environment.is_needed(wanted)
    monkeypatch.setenv("CONDA_DEFAULT_ENV", "base")
    monkeypatch.setenv("CONDA_PREFIX", "/conda")
    assert environment.is_needed(wanted)
    monkeypatch.setenv("CONDA_DEFAULT_ENV", "mine")
    assert variables(wanted) == {"PATH": "/conda/bin:/own"}
    monkeypatch.setenv("VIRTUAL_ENV", "/venv")
    assert variables(wanted) == {"PATH": "/venv/bin:/own"}
    assert not environment.is_needed(wanted)


def test_without_dependencies_a_python_is_all_that_is_needed(task: Task, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    path = (("PATH", str(tmp_path / "bin")),)
    found = variables(replace(task, env=path))
    folder = f"{task.root}/.skelebot/bin"
    assert found == {"PATH": f"{folder}:{tmp_path}/bin"}
    assert os.readlink(f"{folder}/python") == sys.executable
    (tmp_path / "bin/python3").symlink_to(sys.executable)  # a better one
    variables(replace(task, env=path))
    assert os.readlink(f"{folder}/python") == f"{tmp_path}/bin/python3"
    (tmp_path / "bin/python").symlink_to(sys.executable)
    assert variables(replace(task, env=path)) == {}


def test_an_environment_that_has_what_is_wanted_is_not_made_again(task: Task) -> None:
    venv = Path(task.root, ".skelebot/venv")
    venv.mkdir(parents=True)
    wanted = replace(task, dependencies=("numpy",))
    mark = environment._fingerprint(wanted, environment._wanted(wanted))
    (venv / "skelebot.mark").write_text(mark)
    found = variables(wanted)
    assert found["VIRTUAL_ENV"] == str(venv)
    assert str(found["PATH"]).startswith(f"{venv}/bin:")


def test_a_failed_installation_brings_the_old_environment_back(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = Path(task.root, ".skelebot/venv")
    venv.mkdir(parents=True)
    (venv / "skelebot.mark").write_text("of before")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SkelebotError, match=r"3\.1 \(pythonVersion\)"):
        variables(replace(task, dependencies=("numpy",), python_version="3.1"))
    assert (venv / "skelebot.mark").read_text() == "of before"


def test_a_command_line_runs_without_the_python_that_is_missing(
    task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    task = replace(task, argv=("bash", "-c", "ls"), dependencies=("numpy",), python_version="3.1")
    assert "VIRTUAL_ENV" not in variables(task)
    said = capsys.readouterr().err
    assert "3.1 (pythonVersion) is not on this machine" in said
    assert f"{task.name} runs without the project's dependencies" in said


@pytest.fixture
def folder_for_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a cache in it that an ordinary user may enter and write to."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        monkeypatch.setenv("XDG_CACHE_HOME", f"{name}/cache")
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a user beside it")
def test_what_root_has_made_is_replaced_in_the_cache(task: Task, folder_for_all: Path) -> None:
    task = replace(task, root=str(folder_for_all), env=(("PATH", "/nowhere"),))
    wanted = replace(task, dependencies=("numpy",))
    own = folder_for_all / ".skelebot"
    with ordinary_user():
        (own / "venv").mkdir(parents=True)
    for made_by_root in ("venv/lib", "bin"):  # say, for a module that it has compiled
        (own / made_by_root).mkdir()
    cache = Path(state.folder_in_cache(task.root))
    with ordinary_user():
        assert variables(task) == {"PATH": f"{cache}/bin:/nowhere"}
        (cache / "venv").mkdir()
        mark = environment._fingerprint(wanted, environment._wanted(wanted))
        (cache / "venv/skelebot.mark").write_text(mark)
        assert variables(wanted)["VIRTUAL_ENV"] == str(cache / "venv")
        (own / "venv").rename(own / "venv.before")
        assert variables(wanted)["VIRTUAL_ENV"] == str(cache / "venv")
    assert environment._is_replaceable(str(own / "venv"))
    assert variables(task) == {"PATH": f"{own}/bin:/nowhere"}


# --- records ---


def test_the_record_of_a_run_that_lives_and_has_ended(task: Task) -> None:
    record = Record.create(replace(task, mode="d"), with_output=True)
    assert records.runs(task.root) == []  # it is just beginning
    record.write(os.getpid())
    (run,) = records.runs(task.root)
    assert (run.id, run.project, run.job, run.place, run.state) == (
        record.id,
        "demo",
        "run",
        NATIVE,
        "running",
    )
    assert run.id.startswith("demo-run-")
    assert (run.code, run.ended) == (None, "")
    assert run.began.endswith("Z")
    assert records.process_of(run) == process.identity(os.getpid())
    record.end(7)
    (run,) = records.runs(task.root)
    assert (run.state, run.code, run.ended[:2]) == ("exited", 7, "20")
    assert records.wait(run) == 7
    Path(str(record.folder), "out").write_bytes(b"12345")
    assert records.remove(run) == 5
    assert records.runs(task.root) == []


def test_a_run_that_is_not_kept_leaves_nothing(task: Task) -> None:
    record = Record.create(task)
    record.write(os.getpid())
    assert len(records.runs(task.root)) == 1
    record.end(0)
    assert not os.path.exists(str(record.folder))


def test_what_a_killed_run_has_left(task: Task) -> None:
    attended, detached = Record.create(task), Record.create(replace(task, mode="d"), with_output=True)
    for record in (attended, detached):
        record.write(2**22 + 1)
        record._close()
    (run,) = records.runs(task.root)
    assert (run.id, run.state, run.code) == (detached.id, "exited", None)
    assert not os.path.exists(str(attended.folder))
    assert not process.is_alive(records.process_of(run))
    with pytest.raises(
        SkelebotError, match=r"^it is unknown how run ended: the process that waited for it was killed"
    ):
        records.wait(run)


def test_a_run_that_never_began_leaves_nothing(task: Task) -> None:
    """Its supervisor was killed before it could write anything."""
    record = Record.create(replace(task, mode="d"), with_output=True)
    assert records.runs(task.root) == []
    assert os.path.exists(str(record.folder))  # it is just beginning
    record._close()
    assert records.runs(task.root) == []
    assert not os.path.exists(str(record.folder))


def test_a_folder_in_the_making_is_left_alone_for_a_minute(task: Task) -> None:
    folder = Path(records._runs_folder(task.root), ".new-demo-run-1")
    folder.mkdir(parents=True)
    assert records.runs(task.root) == []
    assert list(folder.iterdir()) == []  # looking makes no lock
    os.utime(folder, (0, 0))
    assert records.runs(task.root) == []
    assert not folder.exists()


def test_runs_that_begin_while_others_look_are_not_removed(task: Task) -> None:
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            records.runs(task.root)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(200):
            record = Record.create(task)
            assert record.write(os.getpid())
            assert len(records.runs(task.root)) == 1
            record.end(0)
    finally:
        done.set()
        for looker in lookers:
            looker.join(30)


def test_a_reader_does_not_make_an_ended_run_look_alive(task: Task) -> None:
    record = Record.create(replace(task, mode="d"), with_output=True)
    record.write(os.getpid())
    assert records.is_alive(record.run())
    record.end(0)
    with locked(f"{record.folder}/lock", shared=True):  # another reader, at the same time
        assert not records.is_alive(record.run())


def test_a_pid_that_another_process_has_by_now_is_not_signalled(task: Task) -> None:
    code = "sleep 60 & echo; wait"
    with subprocess.Popen(["sh", "-c", code], stdout=subprocess.PIPE, start_new_session=True) as other:
        assert other.stdout
        assert other.stdout.read(1)
        for is_session in (False, True):
            tree = native._Tree(f"{other.pid}-1", is_session)
            tree.send(signal.SIGKILL)
            assert tree._known == {}
        tree = native._Tree(process.identity(other.pid))
        tree.send(signal.SIGKILL)
        assert len(tree._known) == 2
        assert other.wait(30) == -signal.SIGKILL


def test_a_timer_does_not_outlive_its_job(task: Task) -> None:
    before = set(threading.enumerate())
    runner = Native()
    assert runner.wait(start(runner, replace(task, argv=("true",), timeout=3600))) == 0
    assert runner.wait(start(runner, replace(task, argv=("sleep", "60"), timeout=0.1))) == 124
    wait_for(lambda: set(threading.enumerate()) <= before)


_SIGNALLED = """
import os, signal, time
from skelebot import foreground
from skelebot.model import Task
from skelebot.runners.native import Native
from skelebot.runners.native.environment import Environment

got = []
signal.signal(signal.SIGTERM, lambda *_: got.append(1))
runner = Native()
run = runner.start(Environment(), Task("run", ("sleep", "0.5"), os.getcwd(), timeout=60))
with foreground.uninterrupted():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    print(got)
print(got, runner.wait(run))
"""


def test_the_thread_of_a_timer_takes_no_signals(task: Task) -> None:
    """While one waits, a signal is put off until the end of what must not be interrupted."""
    env = {**os.environ, "PYTHONPATH": str(Path(process.__file__).parents[1])}
    argv = (sys.executable, "-c", _SIGNALLED)
    assert subprocess.check_output(argv, cwd=task.root, env=env, text=True) == "[]\n[1] 0\n"


def test_the_names_of_records_are_names_of_files(task: Task) -> None:
    record = Record.create(replace(task, name="a/b é" * 50, project="Two Words"))
    assert record.id.startswith("two-words-a-b--a-b--")
    assert len(record.id) < 100
    assert Record.create(replace(task, project="")).id.startswith("run-run-")


def test_the_last_run_comes_first(task: Task) -> None:
    names = []
    for began in ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"):
        record = Record.create(replace(task, mode="d"), with_output=True)
        Path(str(record.folder), "run").write_text(f"demo\nrun\n1-1\n{began}")
        names.append(record.id)
    assert [run.id for run in records.runs(task.root)] == [names[2], names[0], names[1]]


def test_without_a_place_for_a_record_only_a_detached_run_fails(task: Task, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    record = Record.create(task)
    assert (record.folder, record.fds) == (None, ())
    record.write(1)
    record.end(0)
    record.remove()
    assert records.runs(task.root) == []
    with pytest.raises(SkelebotError, match="run cannot run detached: "):
        Record.create(task, with_output=True)


# --- the runner ---


def start(runner: Native, task: Task, streams: Streams = OWN) -> Run:
    return runner.start(Environment(), task, streams)


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_job_is_run_to_its_end(task: Task, in_thread: bool) -> None:
    runner, out, codes = Native(), bytearray(), []
    Path(task.root, "here").touch()

    def run() -> None:
        the_task = replace(task, argv=("sh", "-c", "ls; printf '\\377\\r\\n'; exit 3"))
        codes.append(runner.wait(start(runner, the_task, Streams(stdout=out.extend))))

    thread = threading.Thread(target=run)
    thread.start() if in_thread else run()
    if in_thread:
        thread.join(30)
    assert (codes, bytes(out)) == ([3], b"here\n\xff\r\n")
    assert records.runs(task.root) == []


def test_a_signal_reaches_what_a_shell_has_started(task: Task) -> None:
    runner, out = Native(), bytearray()
    code = "trap 'echo tidied; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    run = start(
        runner, replace(task, argv=("sh", "-c", f'sh -c "{code}"; exit 6')), Streams(stdout=out.extend)
    )
    wait_for(lambda: out)
    runner.signal(run, signal.SIGTERM)
    assert runner.wait(run) == 143
    assert out == b"ready\ntidied\n"


def test_what_a_shell_leaves_behind_may_clean_up(task: Task) -> None:
    """The shell ends at once on a signal; nobody reads what its child writes."""
    runner = Native()
    code = "trap 'sleep 1.5; touch tidied; exit' TERM; touch ready; while :; do sleep 0.05; done"
    run = start(runner, replace(task, argv=("sh", "-c", f'sh -c "{code}"; exit 6')))
    wait_for(Path(task.root, "ready").exists)
    runner.signal(run, signal.SIGTERM)
    assert runner.wait(run) == 143
    assert Path(task.root, "tidied").exists()


def test_a_timeout_ends_the_job_with_124(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    runner = Native()
    assert runner.wait(start(runner, replace(task, argv=("sleep", "60"), timeout=0.3))) == 124
    assert (
        "ERROR | the job was ended: it took longer than its timeout of 0.3 seconds" in capsys.readouterr().err
    )
    assert runner.wait(start(runner, replace(task, argv=("sh", "-c", "exit 4"), timeout=60))) == 4


def test_a_program_that_is_missing_leaves_no_record(task: Task) -> None:
    with pytest.raises(SkelebotError, match="/nowhere/x is not installed"):
        start(Native(), replace(task, argv=("/nowhere/x",)))
    assert not os.path.exists(records._runs_folder(task.root))


_DETACH = """
import sys
from skelebot.json_form import from_json
from skelebot.model import Task
from skelebot.runners.native import Native
from skelebot.runners.native.environment import Environment
import json
print(Native().start(Environment(), from_json(Task, json.loads(sys.argv[1]))).id)
"""


def detach(task: Task) -> Run:
    """Start a detached run from a process that ends then; the run that is listed for it."""
    argv = (sys.executable, "-c", _DETACH, json.dumps(to_json(replace(task, mode="d"))))
    root = str(Path(process.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root}
    id = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return next(run for run in records.runs(task.root) if run.id == id)


def test_a_detached_run_outlives_its_starter(task: Task) -> None:
    run = detach(replace(task, argv=("sh", "-c", "echo out; echo err >&2; exit 9")))
    assert Native().wait(run) == 9
    out, err = bytearray(), bytearray()
    assert Native().logs(run, True, Streams(stdout=out.extend, stderr=err.extend)) == 0
    assert (bytes(out), bytes(err)) == (b"out\n", b"err\n")
    (listed,) = records.runs(task.root)
    assert (listed.state, listed.code) == ("exited", 9)
    again = detach(task)  # the last one is kept, and no other
    Native().wait(again)
    assert [run.id for run in records.runs(task.root)] == [again.id]
    assert [each.name for each in Native().remove([again])] == [again.id]
    assert records.runs(task.root) == []


_DETACH_BESIDE_ANOTHER = """
import json, os, sys
from dataclasses import replace
from skelebot.json_form import from_json
from skelebot.model import Task
from skelebot.runners.native import Native, records
from skelebot.runners.native.environment import Environment
runner, task = Native(), from_json(Task, json.loads(sys.argv[1]))
other = runner.start(Environment(), task)
environment = open("environment.lock", "w")
run = runner.start(Environment(fds=(environment.fileno(),)), replace(task, mode="d"))
print(records.lock_of(other), records.lock_of(run), records.process_of(run), flush=True)
runner.wait(other)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_detached_run_holds_its_own_locks_alone(task: Task) -> None:
    """Another run of the same process would seem to live for as long."""
    long = replace(task, argv=("sh", "-c", "for i in $(seq 600); do [ -e go ] && break; sleep 0.05; done"))
    argv = (sys.executable, "-c", _DETACH_BESIDE_ANOTHER, json.dumps(to_json(long)))
    env = {**os.environ, "PYTHONPATH": str(Path(process.__file__).parents[1])}
    with subprocess.Popen(argv, env=env, cwd=task.root, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        of_other, of_run, supervisor = starter.stdout.readline().split()
        fds = Path(f"/proc/{supervisor.partition('-')[0]}/fd")
        held = {os.readlink(fd) for fd in fds.iterdir()}
        Path(task.root, "go").touch()
    assert of_other not in held
    assert {of_run, os.path.join(task.root, "environment.lock")} <= held


def test_a_detached_run_is_stopped_by_another_process(task: Task) -> None:
    run = detach(
        replace(task, argv=("sh", "-c", "trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done"))
    )
    out = bytearray()
    wait_for(lambda: Native().logs(run, False, Streams(stdout=out.extend)) == 0 and out)
    Native().stop([run])
    assert Native().wait(run) == 8


def test_what_a_detached_job_leaves_behind_is_stopped_too(task: Task) -> None:
    """Its first process has ended, and with it the supervisor."""
    run = detach(replace(task, argv=("sh", "-c", "sleep 60 & echo $!; echo hi")))
    out = bytearray()
    wait_for(lambda: Native().logs(run, False, Streams(stdout=out.extend)) == 0 and b"hi" in out)
    wait_for(lambda: not process.is_alive(records.process_of(run)))
    assert records.is_alive(run)
    Native().stop([run])
    assert not records.is_alive(run)
    assert Native().wait(run) == 0


def test_a_run_that_cannot_be_stopped_is_reported(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "GRACE", 0.1)
    record = Record.create(task)  # this process holds its lock, and nobody knows it
    with pytest.raises(SkelebotError, match=r"^run: still running; `fuser -v .*/lock` lists its processes$"):
        Native().stop([record.run()])
    record.remove()


_AT_FORK = """
import json, os, shutil, signal, sys
from skelebot import foreground
from skelebot.errors import SkelebotError
from skelebot.json_form import from_json
from skelebot.model import Task
from skelebot.runners.native import Native, records
from skelebot.runners.native.environment import Environment

foreground.install_signal_handlers()
task = from_json(Task, json.loads(sys.argv[1]))
{hook}
try:
    print(Native().start(Environment(), task).id)
except SkelebotError as error:
    print(error)
finally:
    print("the caller's cleanup", flush=True)
"""
_SIGNAL = "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))"
_NO_FOLDER = "os.register_at_fork(before=lambda: shutil.rmtree(records._runs_folder(task.root)))"


def fork(task: Task, hook: str) -> list[str]:
    """What a process prints that starts a detached run, and whose supervisor meets a hook at its start."""
    words = json.dumps(to_json(replace(task, mode="d")))
    argv = (sys.executable, "-c", _AT_FORK.format(hook=hook), words)
    env = {**os.environ, "PYTHONPATH": str(Path(process.__file__).parents[1])}
    return subprocess.run(
        argv, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    ).stdout.splitlines()


def test_a_signal_to_a_supervisor_that_is_starting_reaches_the_job(task: Task) -> None:
    id, *rest = fork(replace(task, argv=("sleep", "60")), _SIGNAL)
    assert rest == ["the caller's cleanup"]
    (run,) = records.runs(task.root)
    assert run.id == id
    assert Native().wait(run) == 143
    assert (Path(records._folder_of(run)) / "out").read_bytes() == b""  # the caller's own end is not repeated


def test_a_supervisor_that_cannot_write_does_not_run_the_job(task: Task) -> None:
    message, *rest = fork(replace(task, argv=("touch", "begun")), _NO_FOLDER)
    assert message.startswith("run cannot run detached: ")
    assert rest == ["the caller's cleanup"]
    assert not os.path.exists(f"{task.root}/begun")


def test_a_detached_program_that_is_missing_says_so_in_its_logs(task: Task) -> None:
    run = detach(replace(task, argv=("/nowhere/x",)))
    assert Native().wait(run) == 127
    err = bytearray()
    Native().logs(run, False, Streams(stderr=err.extend))
    assert b"/nowhere/x is not installed" in err


def test_every_ended_run_is_kept_if_it_is_wanted(task: Task) -> None:
    ids = {detach(replace(task, keep="all")).id for _ in range(2)}
    wait_for(lambda: all(run.state == "exited" for run in records.runs(task.root)))
    assert {run.id for run in records.runs(task.root)} == ids


# --- mapped folders ---


def test_mapped_folders_are_made_and_read_only_ones_must_be_there(task: Task) -> None:
    start(Native(), replace(task, mounts=(Mount(f"{task.root}/a/b", "/app/b"),)))
    assert os.path.isdir(f"{task.root}/a/b")
    with pytest.raises(UsageError, match=r"the mapping .*/c:ro does not exist; create it or leave out :ro"):
        start(Native(), replace(task, mounts=(Mount(f"{task.root}/c", "/app/c", read_only=True),)))
    with (
        ordinary_user(),
        pytest.raises(SkelebotError, match=r"mapped folder /x/y cannot be created: permission"),
    ):
        start(Native(), replace(task, mounts=(Mount("/x/y", "/app/y"),)))


def test_a_folder_within_another_is_made_there_too(task: Task) -> None:
    outer, inner = Mount(f"{task.root}/o", "/app/o"), Mount(f"{task.root}/i", "/app/o/x/i")
    start(Native(), replace(task, mounts=(outer, inner)))
    assert os.path.isdir(f"{task.root}/o/x/i")


def test_what_a_dry_run_shows(task: Task) -> None:
    image = Image("demo", "demo", base="", context=task.root)
    shown = Native().describe(image, replace(task, dependencies=("numpy",), env=(("A", "1"),)), set())
    assert shown == [
        "run      true",
        f"where    natively, in {task.root}",
        "python   .skelebot/venv, with numpy",
        "variable A",
    ]


def test_a_lock_that_a_run_holds_is_not_taken(task: Task) -> None:
    record = Record.create(task)
    waits: list[int] = []
    thread = threading.Thread(target=lambda: _lock(str(record.folder), waits), daemon=True)
    thread.start()
    wait_for(lambda: waits)
    record.end(0)
    thread.join(30)
    assert not thread.is_alive()


def _lock(folder: str, waits: list[int]) -> None:
    with locked(f"{folder}/lock", on_wait=lambda: waits.append(1)):
        pass
