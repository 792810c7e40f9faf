"""`--watch`: the jobs run again when a file changes that they read."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Sandbox, job, project, wait_for

WAITING = "waiting for a change"


@contextlib.contextmanager
def watching(sandbox: Sandbox, *words: str) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[], str]]]:
    """Skelebot with --watch, and a function that gives what it has written to stderr."""
    log = Path(sandbox.root).parent / "watch.log"
    with open(log, "wb") as stderr:
        child = sandbox.start("-n", "--watch", *words, stderr=stderr, stdout=subprocess.DEVNULL)
    try:
        yield child, log.read_text
    finally:
        child.kill()
        child.wait()


def runs(sandbox: Sandbox) -> int:
    path = sandbox.root / "out" / "log"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_it_runs_again_when_an_input_changes(sandbox: Sandbox) -> None:
    sandbox.write("src/a.txt", "1")
    project(sandbox, "w", job("cat src/* >> out/log; echo >> out/log", outputs="[out/]", inputs="[src/]"))
    with watching(sandbox, "run") as (child, err):
        wait_for(lambda: WAITING in err())
        assert runs(sandbox) == 1
        sandbox.write("notes.txt", "no input")
        sandbox.write("src/b.txt", "2")
        wait_for(lambda: err().count(WAITING) == 2)
        assert runs(sandbox) == 2
        assert "INFO  | src/b.txt changed" in err()
        assert "notes.txt" not in err()
        child.send_signal(signal.SIGINT)
        assert child.wait(120) == 130
    assert "Traceback" not in err()


def test_a_change_of_what_a_needed_job_reads_runs_both(sandbox: Sandbox) -> None:
    sandbox.write("raw.txt", "1")
    load = job("cp raw.txt data/x", "load", outputs="[data/]", inputs="[raw.txt]")
    project(
        sandbox, "w", load, job("cat data/x >> out/log", outputs="[out/]", inputs="[data/]", needs="[load]")
    )
    with watching(sandbox, "run") as (_, err):
        wait_for(lambda: WAITING in err())
        sandbox.write("raw.txt", "2\n")
        wait_for(lambda: err().count(WAITING) == 2)
    assert sandbox.read("out/log") == "12\n"


def test_a_folder_that_is_moved_changes_what_is_below_it(sandbox: Sandbox) -> None:
    sandbox.write("src/a.txt", "1")
    sandbox.write("src/deep/b.txt", "2")
    project(
        sandbox, "w", job("cat $(find src -type f) >> out/log", outputs="[out/]", inputs="['src/**/*.txt']")
    )
    moves = [("src/deep", "../away"), ("../away", "src/new"), ("src", "../away"), ("../away", "src")]
    with watching(sandbox, "run") as (_, err):
        for count, (source, target) in enumerate(moves, 1):
            wait_for(lambda: err().count(WAITING) == count)  # noqa: B023
            (sandbox.root / source).rename(sandbox.root / target)
        wait_for(lambda: err().count(WAITING) == len(moves) + 1)
    for folder in ("src/deep", "src/new", "src"):
        assert f"INFO  | {folder} changed" in err()


@pytest.mark.parametrize(
    ("inputs", "changed"),
    [("[link]", "real/a"), ("[alias/]", "folder/b"), ("[folder/]", "folder/b"), ("[alias/*]", "folder/b")],
)
def test_a_file_may_have_several_paths(sandbox: Sandbox, inputs: str, changed: str) -> None:
    for path, link, target in (("real/a", "link", "real/a"), ("folder/b", "alias", "folder")):
        sandbox.write(path, "1")
        (sandbox.root / link).symlink_to(target)
    (sandbox.root / "another").symlink_to("folder")
    project(sandbox, "w", job("echo >> out/log", outputs="[out/]", inputs=inputs))
    with watching(sandbox, "run") as (_, err):
        wait_for(lambda: WAITING in err())
        sandbox.write(changed, "2")
        wait_for(lambda: err().count(WAITING) == 2)
    assert runs(sandbox) == 2


def test_neither_its_own_messages_nor_outputs_behind_a_link_are_changes(sandbox: Sandbox) -> None:
    (sandbox.root / "latest").symlink_to("out")
    project(sandbox, "w", job("echo >> out/log", outputs="[out/]"))
    log = sandbox.root / "watch.log"
    with open(log, "wb") as stderr:
        child = sandbox.start("-n", "--watch", "run", stderr=stderr, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: "watch.log: changes whenever the job runs" in log.read_text())
        count = runs(sandbox)
        time.sleep(2)
        assert runs(sandbox) == count
        sandbox.write("src/a.txt", "1")
        wait_for(lambda: runs(sandbox) == count + 1)
    finally:
        child.kill()
        child.wait()


def test_a_failure_and_a_wrong_file_wait_for_their_remedy(sandbox: Sandbox) -> None:
    sandbox.write("code", "3")
    project(sandbox, "w", job("echo >> out/log; exit $(cat code)", outputs="[out/]"))
    good = sandbox.read("skelebot.yaml")
    with watching(sandbox, "run") as (child, err):
        wait_for(lambda: WAITING in err())
        sandbox.write("skelebot.yaml", "name: [\n")
        wait_for(lambda: err().count(WAITING) == 2)
        assert "this is not YAML" in err()
        sandbox.write("skelebot.yaml", good)
        wait_for(lambda: err().count(WAITING) == 3)
        sandbox.write("code", "0")
        wait_for(lambda: err().count(WAITING) == 4)
        assert child.poll() is None
    assert runs(sandbox) == 3


def test_a_change_during_a_run_starts_the_next(sandbox: Sandbox) -> None:
    """One run at a time; what the job itself writes each time does not keep it running for ever."""
    sandbox.write("src/a.txt", "1")
    project(
        sandbox,
        "w",
        job("echo >> out/log; echo >> trace; until [ -e go ]; do sleep 0.1; done", outputs="[out/]"),
    )
    with watching(sandbox, "run") as (_, err):
        wait_for(lambda: runs(sandbox) == 1)
        sandbox.write("src/a.txt", "2")
        sandbox.write("go", "")
        wait_for(lambda: WAITING in err())
    assert runs(sandbox) >= 2
    assert "WARN  | trace: changes whenever the job runs; name it in outputs or ignores" in err()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("source", ["true", "sleep 60"])
def test_a_signal_ends_it_with_its_own_exit_code(
    sandbox: Sandbox, signum: signal.Signals, source: str
) -> None:
    project(sandbox, "w", job(f"touch out/begun; {source}", outputs="[out/]"))
    with watching(sandbox, "run") as (child, err):
        wait_for(lambda: WAITING in err() if source == "true" else (sandbox.root / "out/begun").exists())
        child.send_signal(signum)
        assert child.wait(120) == 128 + signum
    assert "Traceback" not in err()


def test_files_of_values_and_of_variables_are_watched(sandbox: Sandbox) -> None:
    sandbox.write("raw/a.csv", "1")
    sandbox.write(".env", "X=1\n")
    source = 'cat "$1" >> out/log; echo "$X" >> out/log'
    arg = "[{name: data, type: file}]"
    project(sandbox, "w", job(source, args=arg, inputs="[src/]", outputs="[out/]"), dotenv="true")
    sandbox.write("src/a.py", "")
    with watching(sandbox, "run", "raw/a.csv") as (_, err):
        wait_for(lambda: WAITING in err())
        sandbox.write("raw/a.csv", "2")
        wait_for(lambda: err().count(WAITING) == 2)
        sandbox.write(".env", "X=2\n")
        wait_for(lambda: err().count(WAITING) == 3)
    assert sandbox.read("out/log").split() == ["11", "21", "22"]


def test_a_validation_waits_for_its_remedy(sandbox: Sandbox) -> None:
    """Which may be in its own script, though that is no input of the job."""
    sandbox.write("raw.txt", "1")
    sandbox.write("check.sh", "exit 1\n")
    load = job("cp raw.txt data/x", "load", outputs="[data/]", inputs="[raw.txt]", validate="check.sh")
    make = job("cat data/x >> out/log; echo >> out/log", outputs="[out/]", inputs="[data/]", needs="[load]")
    project(sandbox, "w", load, make)
    with watching(sandbox, "-j", "2", "run") as (_, err):
        wait_for(lambda: WAITING in err())
        assert "load: its validation ended with exit code 1; no job was run" in err()
        assert runs(sandbox) == 0
        sandbox.write("check.sh", "exit 0\n")
        wait_for(lambda: err().count(WAITING) == 2)
        assert "INFO  | check.sh changed" in err()
    assert runs(sandbox) == 1


def test_a_folder_that_cannot_be_read_does_not_matter(anyone: Sandbox) -> None:
    project(anyone, "w", job("cat a.txt", inputs="[a.txt]"))
    anyone.write("a.txt", "1")
    (anyone.root / "database").mkdir(mode=0)
    with watching(anyone, "run") as (_, err):
        wait_for(lambda: WAITING in err())
        anyone.write("a.txt", "2")
        wait_for(lambda: err().count(WAITING) == 2)


def test_a_warning_is_printed_once(sandbox: Sandbox) -> None:
    project(sandbox, "w", job("true", mapped="[x/]"))
    with watching(sandbox, "run") as (_, err):
        wait_for(lambda: WAITING in err())
        sandbox.write("a.txt", "")
        wait_for(lambda: err().count(WAITING) == 2)
        assert err().count("WARN") == 1


def test_a_dry_run_is_shown_once(sandbox: Sandbox) -> None:
    project(sandbox, "w", job("true"))
    assert sandbox.run("-n", "--watch", "--dry-run", "run", timeout=60).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "+", "ps"), "--watch runs jobs alone; leave out ps"),
        (("later",), "--watch waits for each job, and later has mode: d; leave it out"),
    ],
)
def test_what_cannot_be_watched(sandbox: Sandbox, words: tuple[str, ...], message: str) -> None:
    project(sandbox, "w", job("true"), job("true", "later", mode="d"))
    result = sandbox.run("-n", "--watch", *words)
    assert (result.code, result.errors) == (2, [f"ERROR | {message}"])
