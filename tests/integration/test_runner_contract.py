"""What every runner promises: the same tests for each place where a task can run.

The first part asks the command line, as people do; the second the runners themselves, as a queue does:
from threads, with streams of its own, and with tasks that were stored in between.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import real_cluster
from harness import CLEANING, SKELEBOT, Result, Sandbox, Terminal, job, make_sandbox, project, wait_for

from skelebot import catalog, launch, runners
from skelebot.component import Session
from skelebot.json_form import from_json, to_json
from skelebot.model import Flags, Image, Job, Project, Run, Task
from skelebot.process import OWN, Streams
from skelebot.project import plan, read
from skelebot.runners.runner import Runner
from skelebot.secret import Secret, typed_secret


@dataclass(frozen=True)
class Place:
    """A project, and the options before the command that choose where its jobs run."""

    name: str
    sandbox: Sandbox
    project: str
    options: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    space: real_cluster.Namespace | None = None

    def has(self, path: str) -> bool:
        """Whether the running job has made a file; a cluster's files come here only at the end."""
        return self.space.has(path) if self.space else (self.sandbox.root / path).exists()

    def make(self, path: str) -> None:
        """An empty file in a mapped folder, for the running job to see."""
        if self.space:
            self.space.touch(path)
        else:
            self.sandbox.write(path, "")

    def write(self, *jobs: str, **keys: str) -> None:
        project(self.sandbox, self.project, *jobs, **self.keys, **keys)

    def run(self, *words: str | bytes, **options: Any) -> Result:
        return self.sandbox.run(*self.options, *words, **options)

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[bytes]":
        return self.sandbox.start(*self.options, *words, **options)

    @property
    def command(self) -> str:
        """Skelebot in a shell's words."""
        return " ".join((SKELEBOT, *self.options))


PLACES = [
    pytest.param("native"),
    pytest.param("docker", marks=pytest.mark.engine),
    pytest.param("kubernetes", marks=[pytest.mark.engine, pytest.mark.kubernetes]),
]


@contextlib.contextmanager
def place_of(kind: str, sandbox: Sandbox, name: str) -> Iterator[Place]:
    if kind != "kubernetes":
        yield Place(kind, sandbox, name, ("-n",) if kind == "native" else ())
        return
    with real_cluster.turn(alone=False), real_cluster.namespace(sandbox) as space:
        keys = {"host": space.place, "components": real_cluster.keys()}
        yield Place(kind, space.sandbox, name, keys=keys, space=space)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, sandbox: Sandbox, name: str) -> Iterator[Place]:
    with place_of(request.param, sandbox, name) as found:
        yield found


@pytest.fixture(params=PLACES)
def anyones(request: pytest.FixtureRequest, name: str) -> Iterator[Place]:
    """The same for an ordinary user."""
    for sandbox in make_sandbox(12345 if os.getuid() == 0 else os.getuid()):
        with place_of(request.param, sandbox, name) as found:
            yield found


# --- values ---

HOSTILE = (
    "",
    " ",
    "a b",
    "it's",
    '"',
    "$HOME",
    "$(id)",
    "`id`",
    "*",
    "-x",
    "--",
    "a\nb",
    "é",
    "\\",
    "!",
    "x" * 5000,
)
SHOW = "import json, sys\nprint(json.dumps(sys.argv[1:]))\n"


def test_values_arrive_as_they_were_typed(place: Place) -> None:
    place.sandbox.write("show.py", SHOW)
    count = range(len(HOSTILE))
    args = ", ".join(f"{{name: a{i}}}" for i in count)
    place.write(job("show.py", args=f"[{args}]", params="[{name: pp, accepts: list}]"))
    result = place.run("run", *(f"--pp={value}" for value in HOSTILE), "--", *HOSTILE)
    assert json.loads(result.out) == [*HOSTILE, "--pp", *HOSTILE]


# --- exit codes ---


@pytest.mark.parametrize("code", [0, 1, 2, 3, 124, 125, 126, 127, 255])
def test_the_exit_code_is_the_jobs_own(place: Place, code: int) -> None:
    place.write(job(f"exit {code}"))
    result = place.run("run")
    assert (result.code, result.errors) == (code, [])


def test_a_killed_job_is_137(place: Place) -> None:
    place.write(job("kill -9 $$"))
    assert place.run("run").code == 137


def test_a_missing_program_is_127(place: Place) -> None:
    place.sandbox.write("x.R", "1\n")
    place.write(job("x.R"))
    assert place.run("run").code == 127


# --- signals and time ---


@pytest.mark.parametrize("source", ["clean.py", "python clean.py && echo no", "true; python clean.py"])
@pytest.mark.parametrize(("signum", "code"), [(2, 130), (15, 143), (1, 129)])
def test_signals_reach_the_job(place: Place, source: str, signum: int, code: int) -> None:
    place.sandbox.write("clean.py", CLEANING)
    place.write(job(source, mappings="[out/]"), job("echo later", "later"))
    child = place.start("run", "+", "later", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: place.has("out/ready"))
    child.send_signal(signum)
    out, err = child.communicate(timeout=120)
    assert (child.returncode, out) == (code, b""), err
    assert b"not run: later" in err
    assert place.sandbox.read("out/cleaned") == str(signum)
    assert place.run("ps").out == ""


@pytest.mark.parametrize(
    "signum", [signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU]
)
def test_other_signals_reach_the_job_too(place: Place, signum: signal.Signals) -> None:
    place.write(job(f"trap 'echo got; exit 9' {signum.name[3:]}; echo ready; while :; do sleep 0.1; done"))
    child = place.start("run", stdout=subprocess.PIPE)
    assert child.stdout
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signum)
    out, _ = child.communicate(timeout=60)
    assert (child.returncode, out) == (9, b"got\n")


def test_ctrl_c_on_a_terminal_reaches_the_job_once(place: Place) -> None:
    place.sandbox.write("count.py", """
        import signal, sys, time
        hits = []
        signal.signal(signal.SIGINT, lambda *a: hits.append(1))
        print("ready", flush=True)
        end = time.time() + 3
        while time.time() < end: time.sleep(0.1)
        print("hits", len(hits), sys.stdin.isatty(), flush=True)
    """)  # fmt: skip
    place.write(job("count.py"))
    for redirect, tty in (("", True), (" | (trap '' INT; cat)", False), (" < /dev/null", False)):
        screen = Terminal(place.sandbox, f"exec 2>&1; {place.command} run{redirect}")
        screen.expect("ready")
        screen.send(b"\x03")
        has_terminal = tty or (place.name == "native" and "<" not in redirect)
        screen.expect(f"hits 1 {has_terminal and place.name != 'kubernetes'}")
        screen.close()


def test_a_timeout_lets_the_job_clean_up(place: Place) -> None:
    place.sandbox.write("slow.sh", 'trap "echo cleaned; exit 3" TERM\nsleep 60 & wait\n')
    place.write(job("bash slow.sh && echo no", timeout="1"))
    result = place.run("run")
    assert (result.code, result.out) == (124, "cleaned\n")
    assert "longer than its timeout of 1 second" in result.errors[0]


def test_a_timeout_ends_a_job_that_ignores_it(place: Place) -> None:
    place.sandbox.write("deaf.sh", 'trap "" TERM\nwhile :; do sleep 1; done\n')
    place.write(job("deaf.sh", timeout="1s"), job("exit 5", "quick", timeout="10m"))
    assert place.run("run").code == 124
    assert place.run("quick").code == 5


# --- streams ---


def test_the_streams_are_the_jobs(place: Place) -> None:
    place.write(job("cat; echo said >&2"))
    data = bytes(range(256)) * 1000
    with place.start("run", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        out, err = child.communicate(data, timeout=120)
    assert (child.returncode, out) == (0, data)
    assert b"said\n" in err


def test_records_stream_from_one_job_to_the_next(place: Place) -> None:
    place.write(job("echo 1; sleep 1; echo 2", "extract"), job("sed s/^/got-/", "score"))
    assert place.run("extract").code == 0
    both = f"{place.command} extract | {place.command} score"
    with place.sandbox.popen("bash", "-c", both, stdout=subprocess.PIPE) as done:
        out, _ = done.communicate(timeout=120)
    assert out == b"got-1\ngot-2\n"


# --- files, environment, secrets ---


def test_files_and_their_owner(anyones: Place) -> None:
    place, read_only = anyones, "test -w in/given && echo writable || echo read-only"
    place.sandbox.write("in/given", "given")
    source = f"cat in/given; mkdir out/sub; echo made >out/sub/file; {read_only}"
    place.write(job(source, mappings="['in/:ro', out/]"))
    result = place.run("run")
    assert result.code == 0, result
    assert result.out.splitlines()[0] == "given" + ("writable" if place.name == "native" else "read-only")
    assert place.sandbox.read("out/sub/file") == "made\n"
    assert {place.sandbox.owner(path) for path in ("out", "out/sub", "out/sub/file")} == {place.sandbox.uid}


def test_a_read_only_folder_that_is_missing_is_reported_before_anything_runs(place: Place) -> None:
    makes = job("echo x >in/x", "makes", mappings="[in/]")
    place.write(job("echo first", "first"), job("cat in/x", "reads", mappings="['in/:ro']"), makes)
    result = place.run("first", "+", "reads")
    assert (result.code, result.out) == (2, "")
    folder = place.sandbox.root / "in"
    assert result.errors == [f"ERROR | the mapping {folder}:ro does not exist; create it or leave out :ro"]
    assert not folder.exists()
    assert place.run("makes", "+", "reads").out == "x\n"


def test_the_environment_and_a_secret(place: Place) -> None:
    place.sandbox.write("job.env", "FROM_FILE='a b'\n")
    source = 'printf "%s|" "$FROM_FILE" "$OWN" "$CALLER" "$@"'
    params = "[{name: token, secret: true}, {name: key, secret: true, default: $KEY}]"
    environment = "{OWN: 010, CALLER: }"
    place.write(job(source, envFile="job.env", environment=environment, params=params))
    caller = replace(place, sandbox=place.sandbox.with_env(CALLER="c", KEY="my key"))
    result = caller.run("-V", "run", "--token", "my token")
    assert result.out == "a b|010|c|--token|my token|--key|my key|"
    assert "my token" not in result.err
    assert "my key" not in result.err


def test_the_file_of_dotenv_is_below_everything_else(place: Place) -> None:
    names = ("ONLY", "CALLER", "OWN", "FILE", "TOKEN", "BARE")
    place.sandbox.write(".env", "".join(f"{name}='of dotenv'\n" for name in names[:-1]) + "BARE\n")
    place.sandbox.write("job.env", "FILE=of file\n")
    source = f"""printf "%s|" {" ".join(f'"${name}"' for name in names)} "$@"; ls -A | grep -c env || true"""
    params = "[{name: key, secret: true, default: $TOKEN}, {name: only, default: $ONLY}]"
    keys = {"dotenv": "true", "ignores": "['!.env']"}
    place.write(job(source, envFile="job.env", environment="{OWN: own}", params=params), **keys)
    caller = replace(place, sandbox=place.sandbox.with_env(CALLER="of caller", BARE="bare"))
    result = caller.run("-V", "run")
    in_folder = "2" if place.name == "native" else "0"  # .env is in no image, nor is job.env
    expected = "of dotenv|of caller|own|of file|of dotenv|bare|--key|of dotenv|--only|of dotenv|"
    assert result.out == f"{expected}{in_folder}\n"
    assert "--key 'of dotenv'" not in result.err
    place.sandbox.write(".env", "ONLY\nA B\n")
    result = place.run("run")
    assert (result.code, result.out, len(result.errors)) == (2, "", 1)
    assert result.errors[0].startswith("ERROR | .env:2: expected NAME=VALUE")


# --- detached ---


def rows(place: Place) -> list[dict[str, str]]:
    return list(json.loads(place.run("ps", "--json").out))


def test_a_detached_job_is_listed_followed_and_removed(place: Place) -> None:
    source = "echo out; echo err >&2; while [ ! -e out/go ]; do sleep 0.1; done; exit 3"
    place.write(job(source, "bg", mode="d", mappings="[out/]"))
    name = place.run("bg").out.strip()
    assert [(row["job"], row["container"], row["status"]) for row in rows(place)] == [("bg", name, "running")]
    follower = place.start("logs", "-f", "bg", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: place.has("out"))
    place.make("out/go")
    out, err = follower.communicate(timeout=60)
    assert (follower.returncode, out) == (0, b"out\n")
    assert b"err\n" in err
    wait_for(lambda: rows(place)[0]["status"] == "exited")
    assert place.run("logs", "bg").out == "out\n"
    assert json.loads(place.run("clean", "--json").out)["containers"] == [name]
    assert rows(place) == []


def test_stop_lets_a_detached_job_clean_up(place: Place) -> None:
    place.sandbox.write(
        "tidy.sh", "trap 'echo tidied; exit 3' TERM\necho begun\nwhile sleep 0.1; do :; done\n"
    )
    place.write(job("tidy.sh", "bg", mode="d"))
    name = place.run("bg").out.strip()
    wait_for(lambda: "begun" in place.run("logs", "bg").out)
    assert place.run("stop", "bg").out == f"{name}\n"
    assert place.run("logs", "bg").out == "begun\ntidied\n"
    assert rows(place)[0]["status"] == "exited"
    assert place.run("stop").out == ""


def test_a_detached_job_outlives_its_caller_and_keeps_its_timeout(place: Place) -> None:
    place.write(job("echo begun; sleep 60", "bg", mode="d", timeout="2"))
    assert place.run("bg").code == 0
    assert rows(place)[0]["status"] == "running"
    wait_for(lambda: rows(place)[0]["status"] == "exited")


# --- the runners themselves ---


@dataclass(frozen=True)
class Lab:
    """A runner, and what its tasks are made of."""

    runner: Runner
    project: Project
    image: Image

    def task(self, source: str, *words: Any, **changes: Any) -> Task:
        of_job = Job("run", source, "h")
        flags = Flags(native=self.runner.place.is_native)
        task = plan.task(self.project, of_job, {}, flags, os.environ)
        return replace(task, argv=("bash", "-c", source, "run", *words), **changes)

    def run(self, task: Task, streams: Streams = OWN) -> int:
        with self.runner.prepare(self.image, task) as prepared:
            return self.runner.wait(self.runner.start(prepared, task, streams))

    def start(self, task: Task) -> Run:
        with self.runner.prepare(self.image, task) as prepared:
            return self.runner.start(prepared, task)

    def runs(self) -> list[Run]:
        return self.runner.runs(self.project)

    def another(self) -> "Lab":
        """The same as another process would see it."""
        flags = Flags(native=self.runner.place.is_native)
        return replace(self, runner=runners.at(self.runner.place, flags))


@pytest.fixture
def lab(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    for variable in ("HOME", "KUBECONFIG") if place.name == "kubernetes" else ():
        monkeypatch.setenv(variable, place.sandbox.env[variable])
    place.write(job("true"))
    found, report = read.project(str(place.sandbox.root), None)
    assert found is not None
    session = Session(found, catalog.active(found, report), Flags(), set(), set())
    image = launch.image(session)
    flags = Flags(native=place.name == "native")
    made = Lab(runners.at(plan.place(found, None, flags), flags), found, image)
    yield made
    runs = made.runs()
    made.runner.stop(runs)
    list(made.runner.remove(runs))


class Sinks:
    """Two streams, and what has come on each."""

    def __init__(self) -> None:
        self.out, self.err = b"", b""

    def streams(self, stdin: bytes = b"") -> Streams:
        return Streams(stdin, self._take_out, self._take_err)

    def _take_out(self, data: bytes) -> None:
        self.out += data

    def _take_err(self, data: bytes) -> None:
        self.err += data


def test_both_streams_come_as_bytes_and_apart(lab: Lab) -> None:
    sinks = Sinks()
    source = r"printf 'a\r\nb\377'; cat; printf 'e\r\n\376' >&2; exit 9"
    assert lab.run(lab.task(source), sinks.streams(b"in\r\n\x00")) == 9
    assert (sinks.out, sinks.err) == (b"a\r\nb\xffin\r\n\x00", b"e\r\n\xfe")


def test_runs_go_on_side_by_side_in_threads(lab: Lab, place: Place) -> None:
    codes: dict[int, int] = {}
    meet = "touch out/$1; for i in $(seq 300); do [ $(ls out | wc -l) = 3 ] && exit 4$1; sleep 0.1; done"
    if place.name == "kubernetes":
        meet = "sleep 1; exit 4$1"  # each has a folder of its own there
    mounts = (plan.mount(lab.project.root, "out/"),)

    def work(number: int) -> None:
        codes[number] = lab.run(lab.task(meet, str(number), mounts=mounts), Sinks().streams())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert codes == {0: 40, 1: 41, 2: 42}


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 7), (signal.SIGKILL, 137)])
def test_a_signal_from_another_thread(lab: Lab, signum: int, code: int) -> None:
    sinks = Sinks()
    task = lab.task("trap 'exit 7' TERM; echo ready; sleep 60 & wait")
    with lab.runner.prepare(lab.image, task) as prepared:
        run = lab.runner.start(prepared, task, sinks.streams())
        wait_for(lambda: sinks.out)
        threading.Thread(target=lab.runner.signal, args=(run, signum)).start()
        assert lab.runner.wait(run) == code


def test_a_task_runs_the_same_when_it_was_stored(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    env = (("OWN", "1"), ("TOKEN", Secret("variable", "TOKEN")))
    task = lab.task('printf "%s " "$@" $OWN', Secret("variable", "TOKEN"), env=env)
    stored = json.dumps([to_json(task), to_json(lab.image)])
    assert "hunter2" not in stored
    task_data, image_data = json.loads(stored)
    again = replace(lab, image=from_json(Image, image_data))
    sinks = Sinks()
    assert again.run(from_json(Task, task_data), sinks.streams()) == 0
    assert sinks.out == b"hunter2 1 "


def test_a_typed_secret_is_seen_by_the_job_alone(lab: Lab) -> None:
    task = lab.task('cat "/proc/$PPID/cmdline" | tr "\\0" " "; echo "$1"', typed_secret("hunter2"))
    assert "hunter2" not in repr(task)
    sinks = Sinks()
    assert lab.run(task, sinks.streams()) == 0
    assert sinks.out.count(b"hunter2") == 1


def test_a_run_is_waited_for_by_whoever_asks(lab: Lab) -> None:
    run = lab.start(lab.task("sleep 1; exit 6", mode="d"))
    other = lab.another()
    found = other.runs()[0]
    assert (found.name, found.job, found.project, found.state) == (
        run.name,
        "run",
        lab.project.name,
        "running",
    )
    assert other.runner.wait(found) == 6
    ended = other.runs()[0]
    assert (ended.state, ended.code, ended.is_running) == ("exited", 6, False)
    assert found.began[:10] == ended.ended[:10] == time.strftime("%Y-%m-%d", time.gmtime())


@pytest.mark.parametrize(("keep", "left"), [("last", 1), ("all", 2), (None, 1)])
def test_what_has_ended_is_kept_by_one_rule(lab: Lab, keep: Any, left: int) -> None:
    for _ in range(2):
        lab.start(lab.task("true", mode="d", keep=keep))
        wait_for(lambda: all(run.state == "exited" for run in lab.runs()))
    assert len(lab.runs()) == left
    removed = list(lab.runner.remove(lab.runs()))
    assert len(removed) == left
    assert lab.runs() == []


def test_the_log_of_a_run_is_followed_to_its_end(lab: Lab) -> None:
    run = lab.start(lab.task(r"for i in 1 2 3; do echo $i; printf 'e\r\n' >&2; sleep 0.3; done", mode="d"))
    sinks = Sinks()
    assert lab.runner.logs(run, True, sinks.streams()) == 0
    assert (sinks.out, sinks.err) == (b"1\n2\n3\n", b"e\r\n" * 3)


def test_a_run_that_was_killed_is_no_success(lab: Lab) -> None:
    run = lab.start(lab.task("trap '' TERM; echo ready; while :; do sleep 1; done", mode="d"))

    def is_ready() -> bool:
        sinks = Sinks()
        lab.runner.logs(run, False, sinks.streams())
        return sinks.out == b"ready\n"

    wait_for(is_ready)
    lab.runner.stop([lab.runs()[0]])
    ended = next(r for r in lab.runs() if r.name == run.name)
    assert (ended.state, ended.code) == ("exited", 137)
