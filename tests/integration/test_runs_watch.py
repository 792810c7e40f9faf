"""`runs --watch`, on pseudo-terminals and in pipes: it shows the queue and stops nothing."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import SKELEBOT, Sandbox, Terminal, job, queueing, runs_of, wait_for, with_skelebot
from test_docs import ROOT

# Says when it is there, writes what it is asked to, and ends when a file is.
HELD = 'touch "$TOP/begun-$1"; printf -- "$2"; until [ -e "$TOP/end-$1" ]; do sleep 0.05; done; true "$@"'
ARGS = "[{name: id}, {name: text}]"
LEAVE = "q leaves; the runs go on"


@pytest.fixture
def own(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A project with a job that waits for `end(ID)`; what still waits in the end may go on."""
    made = queueing(sandbox, job(HELD, args=ARGS), environment="{TOP: null}")
    yield made.with_env(TOP=str(sandbox.root.parent), TERM="xterm")
    end(made, "a", "b", "c")


def end(sandbox: Sandbox, *ids: str) -> None:
    for id in ids:
        (sandbox.root.parent / f"end-{id}").touch()


def queue(sandbox: Sandbox, id: str, text: str = "-") -> None:
    sandbox.ok("queue", "run", id, text)


@contextlib.contextmanager
def working(sandbox: Sandbox, id: str, *words: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A worker that has begun that run, and ends once the queue is empty."""
    worker = sandbox.start("worker", "--drain", *words, stderr=subprocess.DEVNULL)
    wait_for((sandbox.root.parent / f"begun-{id}").exists)
    try:
        yield worker
    finally:
        end(sandbox, "a", "b", "c")
        worker.wait(60)


def watching(sandbox: Sandbox, columns: int = 100, lines: int = 24) -> Terminal:
    size = f"stty cols {columns} rows {lines}; "
    return Terminal(sandbox, f"{size}{SKELEBOT} runs --watch; echo status $?")


def screen(terminal: Terminal) -> str:
    """The last whole screen, without styles."""
    last = terminal.output.decode(errors="replace").split("\x1b[H")[-1]
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).replace("\r", "")


# --- on a terminal ---


def test_it_shows_the_queue_and_q_leaves_it_alone(own: Sandbox) -> None:
    queue(own, "a", r"first\n\033[31mepoch 3\033[0m\n")
    own.ok("queue", "--name", "later", "run", "b", "-")
    with working(own, "a"):
        terminal = watching(own)
        terminal.expect("epoch 3")
        terminal.expect(LEAVE)
        shown = screen(terminal)
        assert "demo  1 running, 1 waiting, 1 slot" in shown
        assert "time left: unknown: run has never ended here" in shown
        assert re.search(r"^2 +later +waiting *$", shown, re.MULTILINE)
        terminal.send(b"q")
        terminal.expect("status 0")
        assert terminal.output.index(b"\x1b[?1049l") < terminal.output.index(b"status 0")
        assert b"INFO" in terminal.output.partition(b"\x1b[?1049l")[2]
        assert terminal.close() == 0
        assert [runs_of(own)[number]["state"] for number in (1, 2)] == ["running", "queued"]


def test_it_follows_changes(own: Sandbox) -> None:
    queue(own, "a")
    queue(own, "b")
    with working(own, "a"):
        terminal = watching(own)
        terminal.expect("1 running, 1 waiting")
        end(own, "a")
        terminal.expect("1 running, 0 waiting, 1 done")
        terminal.expect("(from 1 run)")
        end(own, "b")
        terminal.expect("the queue is empty")
        terminal.send(b"x")  # another key
        queue(own, "c")
        terminal.expect("no worker is running")
        terminal.send(b"q")
        terminal.expect("status 0")
        terminal.close()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_terminal_as_it_was(own: Sandbox, signum: int, code: int) -> None:
    queue(own, "a")
    with working(own, "a"):
        terminal = Terminal(own, f"set -m; {SKELEBOT} runs --watch; echo status $?; read -r wait")
        terminal.expect(LEAVE)
        if signum == signal.SIGINT:
            terminal.send(b"\x03")
        else:
            os.kill(os.tcgetpgrp(terminal.fd), signum)
        terminal.expect(f"status {code}")
        assert terminal.output.rindex(b"\x1b[?25h") < terminal.output.rindex(b"status")  # the cursor is back
        flags = termios.tcgetattr(terminal.fd)[3]
        assert flags & termios.ICANON
        assert flags & termios.ECHO
        terminal.send(b"\n")
        terminal.close()
        assert runs_of(own)[1]["state"] == "running"


def test_a_terminal_that_is_closed(own: Sandbox) -> None:
    queue(own, "a")
    terminal = Terminal(own, f"exec {SKELEBOT} runs --watch 2>errors")
    terminal.expect(LEAVE)
    os.close(terminal.fd)
    _, status = os.waitpid(terminal.pid, 0)
    assert os.waitstatus_to_exitcode(status) in (1, 129)  # what it still wanted to write may fail first
    assert "Traceback" not in own.read("errors")


def test_another_size(own: Sandbox) -> None:
    own.ok("queue", "--name", "n" * 300, "run", "a", "l" * 300)
    with working(own, "a"):
        terminal = watching(own.with_env(COLUMNS="300", LINES="90"), 100, 24)
        terminal.expect(LEAVE)
        assert {len(line) for line in screen(terminal).splitlines()[:5]} <= set(range(101))
        for columns in (30, 120):
            terminal.output = b""
            fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 10, columns, 0, 0))
            terminal.expect(LEAVE)
            widths = [len(line) for line in screen(terminal).splitlines()]
            assert max(widths) == columns
            assert "PROGRESS" in screen(terminal) or columns == 30
        terminal.send(b"q")
        terminal.expect("status 0")
        terminal.close()


def test_no_color(own: Sandbox) -> None:
    queue(own, "a")
    colour = re.compile(rb"\x1b\[(3\d|38;5;\d+|38;2;[\d;]+)m")
    with working(own, "a"):
        for env, is_coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
            terminal = watching(own.with_env(**env))
            terminal.expect(LEAVE)
            assert bool(colour.search(terminal.output)) == is_coloured
            terminal.send(b"q")
            terminal.expect("status 0")
            terminal.close()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(own: Sandbox) -> None:
    queue(own, "a")
    with working(own, "a"):
        terminal = watching(own.with_env(TERM="dumb"))
        terminal.expect("1 running, 0 waiting; time left: unknown: run has never ended here")
        end(own, "a")
        terminal.expect("the queue is empty: 1 done")
        terminal.expect("status 0")
        assert b"\x1b" not in terminal.output
        terminal.close()


def test_without_keys(own: Sandbox) -> None:
    queue(own, "a")
    terminal = Terminal(own, f"{SKELEBOT} runs --watch </dev/null; echo status $?")
    terminal.expect(LEAVE)
    terminal.send(b"\x03")
    terminal.expect("status 130")
    terminal.close()


def test_it_waits_without_working(own: Sandbox) -> None:
    """An idle queue costs next to nothing: no look at the database while nobody writes to it."""
    queue(own, "a")
    terminal = watching(own)
    terminal.expect(LEAVE)

    def is_still() -> bool:
        length = len(terminal.output)
        with contextlib.suppress(AssertionError):
            terminal.expect("never comes", seconds=2)
        return len(terminal.output) == length

    wait_for(is_still)  # once it is drawn, it is not drawn again
    terminal.send(b"q")
    terminal.expect("status 0")
    terminal.close()


# --- the picture ---


PICTURE = ROOT / "docs" / "runs-watch.svg"
REFRESH = "SKELEBOT_TEST_PICTURE=docs/runs-watch.svg tests/run.sh -- -k the_picture_of_the_queue"


def test_the_picture_of_the_queue_is_what_the_program_shows(sandbox: Sandbox, tmp_path: Path) -> None:
    drawn = tmp_path / "runs-watch.svg"
    words = [sys.executable, str(ROOT / "docs" / "make_watch.py"), str(drawn)]
    subprocess.run(words, env=dict(with_skelebot(sandbox).env), check=True)
    if target := os.environ.get("SKELEBOT_TEST_PICTURE"):
        shutil.copy(drawn, ROOT / target)
    assert without_times(drawn) == without_times(PICTURE), (
        f"docs/runs-watch.svg is stale; refresh it: {REFRESH}"
    )


def without_times(picture: Path) -> list[str]:
    """The words of a picture without times, which differ from machine to machine."""
    text = re.sub("<[^>]*>", " ", picture.read_text(encoding="utf-8").partition("</style>")[2])
    timeless = re.sub(r"(\w{3} )?\d\d:\d\d|[\d.]+ (s|min)\b( [\d.]+ s)?", "TIME", text)
    return timeless.replace("; TIME to TIME", "").split()


# --- in a pipe ---


def test_a_pipe_gets_lines_until_the_queue_is_empty(own: Sandbox) -> None:
    queue(own, "a")
    queue(own, "b")
    with working(own, "a"):
        watch = own.start("runs", "--watch", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert watch.stdout
        first = watch.stdout.readline()
        assert first == b"1 running, 1 waiting; time left: unknown: run has never ended here\n"
        end(own, "a")
        assert {watch.stdout.readline(), watch.stdout.readline()} == {b"run 1: done\n", b"run 2: running\n"}
        end(own, "b")
        rest, errors = watch.communicate(timeout=60)
    assert (watch.returncode, errors) == (0, b"")
    assert rest == b"run 2: done\nthe queue is empty: 2 done\n"


def test_an_empty_queue_ends_at_once(own: Sandbox) -> None:
    assert own.ok("runs", "--watch") == "the queue is empty\n"


def test_a_reader_that_leaves_ends_it(own: Sandbox) -> None:
    queue(own, "a")
    watch = own.start("runs", "--watch", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert watch.stdout
    watch.stdout.readline()
    watch.stdout.close()
    own.ok("runs", "stop", "1")
    assert watch.stderr
    assert b"Traceback" not in watch.stderr.read()
    watch.wait(60)


def test_another_project_is_shown_with_all(own: Sandbox) -> None:
    queue(own, "a")
    own.ok("runs", "stop", "1")
    assert own.ok("runs", "--watch", cwd=own.root.parent) == "the queue is empty\n"


@pytest.mark.parametrize(
    "words",
    [
        *(["--json"], ["--csv"], ["--name", "x"], ["--state", "done"], ["--tag", "x"], ["--sweep", "x"]),
        *(["--last", "3"], ["--sweep", ""]),
    ],
)
def test_what_chooses_or_formats_does_not_go_with_it(own: Sandbox, words: list[str]) -> None:
    done = own.run("runs", "--watch", *words)
    assert done.code == 2
    assert done.errors == [f"ERROR | runs: --watch and {words[0]} do not go together; leave out one of them"]
