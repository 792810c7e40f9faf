"""Programs that are started, waited for and signalled from any thread."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest

from skelebot import process
from skelebot.errors import STOPPING, ProgramMissing, SkelebotError
from skelebot.model import Step
from skelebot.process import Streams
from skelebot.secret import typed_secret

T = TypeVar("T")

ODD = bytes(range(256)) + b"\r\n\xff\xfe\n\r"


def in_thread(function: Callable[[], T]) -> T:
    """What a function gives in a thread that is not the main one."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(30)
    assert results, "it did not end, or failed"
    return results[0]


def python(code: str, *words: str, **more: Any) -> Step:
    return Step((sys.executable, "-c", code, *words), **more)


# --- jobs ---


def test_a_program_is_started_and_waited_for_in_a_thread() -> None:
    assert in_thread(lambda: process.start(python("raise SystemExit(7)")).wait()) == 7


def test_a_program_is_signalled_from_another_thread_than_its_own() -> None:
    program = in_thread(lambda: process.start(Step(("sleep", "60"))))
    assert not program.has_ended()
    in_thread(lambda: os.kill(program.pid, signal.SIGTERM))
    assert in_thread(program.wait) == 128 + signal.SIGTERM
    assert program.has_ended()


def test_that_a_program_has_ended_is_known_before_it_is_waited_for() -> None:
    program = process.start(Step(("sh", "-c", "exit 3")))
    end = time.monotonic() + 30
    while not program.has_ended():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert program.wait() == 3


def test_both_streams_arrive_apart_and_byte_for_byte() -> None:
    code = (
        "import os\n"
        "data = bytes(range(256)) + b'\\r\\n\\xff\\xfe\\n\\r'\n"
        "for _ in range(500): os.write(1, data)\n"
        "os.write(2, data[::-1])\n"
    )
    out, err = bytearray(), bytearray()
    program = in_thread(lambda: process.start(python(code), Streams(stdout=out.extend, stderr=err.extend)))
    assert in_thread(program.wait) == 0
    assert (bytes(out), bytes(err)) == (ODD * 500, ODD[::-1])


def test_what_a_program_writes_arrives_as_it_comes() -> None:
    arrived = threading.Event()
    step = Step(("sh", "-c", 'printf begun; read -r line; printf "$line"'), stdin=None)
    source, sink = os.pipe()
    out = bytearray()

    def on_data(data: bytes) -> None:
        out.extend(data)
        arrived.set()

    saved = os.dup(0)
    os.dup2(source, 0)
    try:
        program = process.start(step, Streams(stdout=on_data))
    finally:
        os.dup2(saved, 0)
    for number in (saved, source):
        os.close(number)
    assert arrived.wait(30)
    assert out == b"begun"
    os.write(sink, b"end\n")
    os.close(sink)
    assert program.wait() == 0
    assert out == b"begunend"


def test_streams_may_be_files(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        step = Step(("sh", "-c", "cat; echo said >&2"))
        streams = Streams(ODD, out.fileno(), err.fileno())
        assert process.start(step, streams).wait() == 0
    assert (tmp_path / "out").read_bytes() == ODD
    assert (tmp_path / "err").read_bytes() == b"said\n"


def test_stdin_that_nobody_reads_fails_nothing() -> None:
    assert process.start(Step(("true",)), Streams(b"x" * 1_000_000)).wait() == 0


def test_a_stream_that_a_grandchild_keeps_open_is_not_waited_for_for_ever() -> None:
    out = bytearray()
    program = process.start(Step(("sh", "-c", "sleep 600 & echo $!")), Streams(stdout=out.extend))
    assert program.wait() == 0
    os.kill(int(out), signal.SIGKILL)  # it is still there


def test_a_program_inherits_what_it_is_given_and_nothing_else() -> None:
    source, sink = os.pipe()
    code = "import os, sys\nprint([os.path.exists(f'/proc/self/fd/{n}') for n in sys.argv[1:]])"
    out = bytearray()
    step = python(code, str(source), str(sink))
    assert process.start(step, Streams(stdout=out.extend), (source,)).wait() == 0
    for number in (source, sink):
        os.close(number)
    assert out == b"[True, False]\n"


def test_lines_of_a_stream() -> None:
    lines: list[str] = []
    sink = process.on_lines(lines.append)
    for data in (b"a\nb", b"c\r\n", b"\xff\nrest"):
        sink(data)
    assert lines == ["a", "bc", "\ufffd"]


# --- what cannot be started ---


@pytest.mark.parametrize("name", ["tool", "text", "folder", "second", "nowhere", ""])
@pytest.mark.parametrize("path", ["a:b", "b:a", ":a", "missing:b", "", None])
def test_a_program_is_found_where_the_standard_library_finds_it(
    name: str, path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "b")
    for place in ("a/tool", "b/tool", "b/second", "tool"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch(0o755)
    (tmp_path / "a/text").touch(0o644)
    (tmp_path / "a/folder").mkdir()
    assert process.find_program(name, path) == shutil.which(name, path=path)


def test_a_missing_program() -> None:
    with pytest.raises(ProgramMissing, match=r"^/nowhere/x is not installed, or not on PATH"):
        process.start(Step(("/nowhere/x",)))


def test_a_missing_folder() -> None:
    with pytest.raises(SkelebotError, match=r"^the folder /nowhere does not exist"):
        process.capture(Step(("true",), cwd="/nowhere"))


def test_what_cannot_be_run(tmp_path: Path) -> None:
    for step, why in (
        (Step((str(tmp_path),)), "permission denied"),
        (Step(("true", "a\0b")), "embedded null byte"),
    ):
        with pytest.raises(SkelebotError, match=rf"cannot be run: {why}"):
            process.capture(step)


# --- secrets ---


def test_a_secret_is_revealed_to_the_program_and_to_nobody_else() -> None:
    secret = typed_secret("hunter2")
    code = "import os, sys\nprint(sys.argv[1], os.environ['T'])"
    step = Step((sys.executable, "-c", code, secret), env=(("T", secret),))
    assert process.capture(step) == (0, "hunter2 hunter2\n", "")
    assert "hunter2" not in process.display(step)
    assert "***" in process.display(step)


def test_a_whole_script_is_shown_by_its_beginning() -> None:
    assert process.display(Step(("sh", "-c", "echo begin\n" * 200))) == "sh -c 'echo begin...'"


# --- programs whose output is read ---


def test_output_is_captured_in_a_thread() -> None:
    step = Step(("sh", "-c", "cat; printf 'e\\377' >&2; exit 3"), stdin="in")
    assert in_thread(lambda: process.capture(step)) == (3, "in", "e\ufffd")


def test_what_takes_too_long_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(TimeoutError):
        process.capture(Step(("sh", "-c", f"sleep 60 & echo $! >{pid}; wait")), 1.0)
    end = time.monotonic() + 30
    while process.identity(int(pid.read_text())):  # until init has reaped it
        state = Path(f"/proc/{int(pid.read_text())}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        assert time.monotonic() < end
        time.sleep(0.05)


def test_lines_come_one_by_one_with_stderr_between() -> None:
    seen: list[str] = []
    step = Step(("sh", "-c", "cat; echo err >&2; echo out; exit 5"))
    code, lines = in_thread(lambda: process.tee(step, seen.append, lambda stdin: stdin.write(b"in\r\n")))
    assert (code, lines, seen) == (5, ["in", "err", "out"], ["in", "err", "out"])


def test_a_pipe_both_ways() -> None:
    data = os.urandom(1 << 20)
    step = Step(("sh", "-c", "cat; echo why >&2; exit 4"))
    code, back, said = in_thread(
        lambda: process.pipe(step, lambda stdin: void(stdin.write(data)), lambda s: s.read())
    )
    assert (code, back == data, said) == (4, True, "why\n")


def void(_: object) -> None: ...


def test_what_writing_stdin_raises_is_raised() -> None:
    def fail(_: object) -> None:
        raise SkelebotError("unreadable")

    with pytest.raises(SkelebotError, match="unreadable"):
        process.pipe(Step(("cat",)), fail, lambda stdout: stdout.read())


def test_a_program_whose_reader_fails_is_ended() -> None:
    def fail(stdout: IO[bytes]) -> None:
        raise SkelebotError(f"enough of {int(stdout.readline())}")

    with pytest.raises(SkelebotError, match="enough") as error:
        process.pipe(Step(("sh", "-c", "while :; do echo $$; done")), None, fail)
    assert not process.identity(int(str(error.value).split()[-1]))


def test_a_program_that_does_not_end_by_itself_is_killed() -> None:
    def fail(stdout: IO[bytes]) -> None:
        stdout.readline()
        raise SkelebotError("enough")

    step = Step(("sh", "-c", "trap '' TERM PIPE; echo ready; exec sleep 300"))
    with pytest.raises(SkelebotError, match="enough"):
        process.pipe(step, None, fail)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_log_without_room_keeps_nothing_from_its_reader(stream: str) -> None:
    got: list[bytes] = []
    full = os.open("/dev/full", os.O_WRONLY)
    streams = process.with_log(process.Streams(stdout=got.append, stderr=got.append), full)
    step = Step(("sh", "-c", f"exec >/dev/{stream}; echo a; sleep 0.1; echo b"))
    assert process.start(step, streams).wait() == 0
    os.close(full)
    assert b"".join(got) == b"a\nb\n"


def test_a_logged_program_whose_reader_is_gone_is_ended() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(os.devnull, "wb") as log:
        streams = process.with_log(process.Streams(stdout=writing, stderr=writing), log.fileno())
        assert process.start(Step(("yes",)), streams).wait() == 141
    os.close(writing)


# --- which process is meant ---


def test_a_process_is_told_from_a_later_one_of_its_number() -> None:
    own = process.identity(os.getpid())
    assert process.is_alive(own)
    assert not process.is_alive(f"{os.getpid()}-1")
    for nobody in ("", "-", "x-1", f"{2**22 + 1}-5"):
        assert not process.is_alive(nobody)


def test_a_process_that_has_gone_is_not_alive() -> None:
    program = process.start(Step(("sleep", "60")))
    who = process.identity(program.pid)
    assert process.is_alive(who)
    os.kill(program.pid, signal.SIGKILL)
    assert program.wait() == 137
    assert not process.is_alive(who)
    assert process.identity(program.pid) == ""


def test_a_slow_sink_has_everything_when_the_program_has_been_waited_for() -> None:
    got: list[bytes] = []

    def slow(data: bytes) -> None:
        time.sleep(1.5)
        got.append(data)

    program = process.start(Step(("printf", "x")), process.Streams(b"", slow, slow))
    assert program.wait() == 0
    assert got == [b"x"]


def test_what_a_sink_raises_reaches_whoever_waits_and_not_the_program() -> None:
    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    step = Step(("sh", "-c", "for i in 1 2 3; do echo $i || exit 9; sleep 0.1; done"))
    program = process.start(step, process.Streams(b"", full, full))
    with pytest.raises(OSError, match="No space left"):
        program.wait()
    assert program.has_ended()
    assert program._child.returncode == 0


def test_a_thread_takes_no_signals() -> None:
    blocked: list[set[int]] = []
    process.in_thread(lambda: blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))).join()
    assert set(STOPPING) <= blocked[0]
    assert not set(STOPPING) & signal.pthread_sigmask(signal.SIG_BLOCK, ())
