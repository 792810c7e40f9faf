"""Run other programs, from any thread. Only this module imports subprocess."""

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

from skelebot import console
from skelebot.errors import GRACE, STOPPING, ProgramMissing, SkelebotError
from skelebot.files import reason
from skelebot.model import Step
from skelebot.secret import display_text, reveal, reveal_all

if TYPE_CHECKING:
    import subprocess

T = TypeVar("T")

# Where a stream goes: a file descriptor, or a function that gets the bytes as they arrive,
# in another thread; None is Skelebot's own stream.
Sink = int | Callable[[bytes], object] | None


class Streams(NamedTuple):
    """The streams of a program that replace Skelebot's own.

    stdin: all its input, a few kilobytes at most; None is Skelebot's own.
    """

    stdin: bytes | None = None
    stdout: Sink = None
    stderr: Sink = None


OWN = Streams()


def find_program(name: str, path: str | None = None) -> str | None:
    """Return where a program is, in the folders of `path` or else of PATH, as shutil.which does.

    That module and its compressors are 3 % of the start of a native job, hence this one.
    """
    folders = os.environ.get("PATH", os.defpath) if path is None else path
    found = (os.path.join(folder, name) for folder in folders.split(os.pathsep)) if folders else ()
    return next((each for each in found if os.access(each, os.X_OK) and not os.path.isdir(each)), None)


@contextmanager
def logged(streams: Streams, log: str) -> Iterator[Streams]:
    """Yield streams whose output goes to the end of a file as well; without one, as they are."""
    if not log:
        yield streams
        return
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield with_log(streams, number)
    finally:
        os.close(number)


class ReaderGone(Exception):
    """A sink's stream takes no more, so a program that writes on gets a SIGPIPE, as without Skelebot."""


def with_log(streams: Streams, log: int) -> Streams:
    """Return streams whose output goes to an open file as well, as far as there is room for it."""
    return streams._replace(stdout=_both(streams.stdout, 1, log), stderr=_both(streams.stderr, 2, log))


def writer(sink: Sink, own: int) -> Callable[[bytes], object]:
    """Return what writes all of some bytes there; own: the descriptor of Skelebot's own stream."""
    if callable(sink):
        return sink
    number = own if sink is None else sink

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(number, data) :]

    return write


def _both(sink: Sink, own: int, log: int) -> Callable[[bytes], None]:
    to_log, to_sink = writer(log, log), writer(sink, own)
    is_logged = True

    def write(data: bytes) -> None:
        nonlocal is_logged
        try:
            if is_logged:
                to_log(data)
        except OSError as error:
            is_logged = False
            console.warn(f"the rest of the output is missing in the log: {reason(error)}")
        try:
            to_sink(data)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                console.error(f"the output cannot be written: {reason(error)}")
            raise ReaderGone from error

    return write


def display(step: Step) -> str:
    """Return the step as shell text, without secrets."""
    import shlex  # like subprocess, only where a program is run

    return shlex.join(console.printable(_shortened(display_text(word))) for word in step.argv)


def _shortened(word: str) -> str:
    """Shorten a word for display: a whole script to its beginning."""
    return word if len(word) < 1000 else f"{word[:60].splitlines()[0]}..."


def trace(verbose: bool, step: Step) -> None:
    if verbose:
        console.detail(f"+ {display(step)}")


class _Guard(threading.local):
    """Of a thread that no signal reaches: enters the time in which a program may be ended, given how to."""

    value: Callable[[Callable[[], None]], AbstractContextManager[None]] | None = None


GUARD = _Guard()


def load() -> None:
    """Import what starting programs takes, for processes that are forked from this one."""
    import subprocess  # noqa: F401


# --- programs whose output Skelebot reads ---


def capture(step: Step, timeout: float | None = None, alone: bool = False) -> tuple[int, str, str]:
    """Run a short program; returns exit code, stdout and stderr.

    alone: without the terminal's Ctrl-C, which then comes to this process only. Raises ProgramMissing, and
    TimeoutError when it takes longer than `timeout` seconds; the program and whatever it has started are
    ended then.
    """
    import subprocess

    alone = alone or timeout is not None
    with _running(step, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=alone) as child:
        try:
            out, err = child.communicate(step.stdin.encode() if step.stdin is not None else None, timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise TimeoutError from None
    return child.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def tee(
    step: Step,
    on_line: Callable[[str], None],
    write_stdin: Callable[[IO[bytes]], object] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> tuple[int, list[str]]:
    """Run a long program; returns exit code and output. on_line: gets each line, stderr included.

    write_stdin: writes the program's stdin, in another thread. Raises ProgramMissing.
    """
    import subprocess

    lines: list[str] = []
    source = subprocess.PIPE if write_stdin else subprocess.DEVNULL
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "pass_fds": pass_fds}
    with _running(step, stdin=source, **out) as child, _guarded(child):
        if write_stdin:
            in_thread(_write_and_close, write_stdin, child.stdin)
        assert child.stdout
        for raw in child.stdout:
            lines.append(raw.decode(errors="replace").rstrip("\r\n"))
            on_line(lines[-1])
    return child.wait(), lines


def _write_and_close(write_stdin: Callable[[IO[bytes]], object], stdin: IO[bytes]) -> None:
    try:
        with stdin:
            write_stdin(stdin)
    except BrokenPipeError:
        pass  # the program ended early and says why itself


def pipe(
    step: Step,
    write_stdin: Callable[[IO[bytes]], None] | None,
    read_stdout: Callable[[IO[bytes]], T],
    timeout: float = 0,
) -> tuple[int, T, str]:
    """Run a program; returns its exit code, what `read_stdout` returns, and its stderr.

    write_stdin: writes the program's stdin, in another thread; what it raises is raised here. timeout: the
    seconds after which the program is killed, if not 0. Raises ProgramMissing.
    """
    import subprocess
    import tempfile

    failed: list[BaseException] = []

    def write(stdin: IO[bytes]) -> None:
        try:
            _write_and_close(write_stdin, stdin) if write_stdin else stdin.close()
        except BaseException as error:
            failed.append(error)

    with tempfile.TemporaryFile() as stderr:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
        with _running(step, **streams) as child, _guarded(child), _killed_after(timeout, child):
            assert child.stdin
            assert child.stdout
            writing = in_thread(write, child.stdin)
            result = read_stdout(child.stdout)
            code = child.wait()
            writing.join()
        stderr.seek(0)
        if failed:
            raise failed[0]
        return code, result, stderr.read().decode(errors="replace")


@contextmanager
def _running(step: Step, **streams: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a program, and end it if the block raises an exception."""
    import subprocess

    streams.setdefault("stdin", subprocess.DEVNULL if step.stdin is None else subprocess.PIPE)
    child = _popen(step, **streams)
    try:
        yield child
    except BaseException:
        child.terminate()
        _close(child)  # otherwise it would block on a write
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
    finally:
        _close(child)


def _guarded(child: "subprocess.Popen[bytes]") -> AbstractContextManager[None]:
    return GUARD.value(child.terminate) if GUARD.value else nullcontext()


@contextmanager
def _killed_after(seconds: float, child: "subprocess.Popen[bytes]") -> Iterator[None]:
    timer = threading.Timer(seconds, child.kill)
    if seconds:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _close(child: "subprocess.Popen[bytes]") -> None:
    for stream in (child.stdout, child.stderr):
        if stream:
            stream.close()


def _popen(step: Step, **options: Any) -> "subprocess.Popen[bytes]":
    """Start a program. Only here are the secrets in its arguments resolved."""
    import subprocess

    without = step.without
    env = {k: v for k, v in os.environ.items() if without is None or not k.startswith(without)}
    env |= reveal_all(step.env, os.environ)
    argv = [reveal(word, env) for word in step.argv]
    try:
        return subprocess.Popen(argv, cwd=step.cwd, env=env, **options)
    except FileNotFoundError as error:
        if step.cwd and error.filename == step.cwd:
            raise SkelebotError(f"the folder {step.cwd} does not exist") from None
        raise ProgramMissing(f"{argv[0]} is not installed, or not on PATH") from None
    except OSError as error:
        raise SkelebotError(f"{argv[0]} cannot be run: {reason(error)}") from None
    except ValueError as error:  # a NUL, which no program can be given
        raise SkelebotError(f"{argv[0]} cannot be run: {error}") from None


# --- programs that run on their own: jobs ---


class Program:
    """A started program. Any thread may wait for it; `pid` is its process."""

    def __init__(self, child: "subprocess.Popen[bytes]", pumps: "tuple[_Pump, ...]") -> None:
        self._child, self._pumps = child, pumps
        self.pid = child.pid

    def wait(self) -> int:
        """Its exit code when it ends: 128 and the signal's number if a signal killed it.

        All that it has written is in the sinks by then. Raises what a sink raised.
        """
        code = self._child.wait()
        for pump in self._pumps:
            pump.finish()
        return 128 - code if code < 0 else code

    def send_signal(self, signum: int) -> None:
        """Send a signal to the program itself, unless it has ended."""
        self._child.send_signal(signum)

    def has_ended(self) -> bool:
        """Whether it has ended; `wait` is still needed."""
        if self._child.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True


def start(step: Step, streams: Streams = OWN, pass_fds: tuple[int, ...] = ()) -> Program:
    """Start a program and return at once. Raises ProgramMissing and SkelebotError."""
    import subprocess

    sinks = {"stdout": streams.stdout, "stderr": streams.stderr}
    options: dict[str, Any] = {name: subprocess.PIPE if callable(s) else s for name, s in sinks.items()}
    if streams.stdin is not None:
        options["stdin"] = subprocess.PIPE
    child = _popen(step, pass_fds=pass_fds, **options)
    pairs = ((child.stdout, streams.stdout), (child.stderr, streams.stderr))
    pumps = tuple(_Pump(source, sink) for source, sink in pairs if source and callable(sink))
    if child.stdin and streams.stdin is not None:
        data = streams.stdin
        in_thread(_write_and_close, lambda stdin: stdin.write(data), child.stdin)
    return Program(child, pumps)


class _Pump:
    """Gives what comes on a stream to a sink, in a thread. A sink that fails gets no more."""

    def __init__(self, source: IO[bytes], sink: Callable[[bytes], object]) -> None:
        self._error: BaseException | None = None
        self._count, self._is_busy = 0, False
        self._thread = in_thread(self._run, source, sink)

    def _run(self, source: IO[bytes], sink: Callable[[bytes], object]) -> None:
        with source:
            while data := os.read(source.fileno(), 1 << 16):
                self._is_busy = True
                try:
                    if self._error is None:
                        sink(data)
                except ReaderGone:
                    return
                except BaseException as error:
                    self._error = error  # `finish` raises it, in the thread that waits
                self._count, self._is_busy = self._count + 1, False

    def finish(self) -> None:
        """Wait for what was written; not for what the program's own children keep the stream open for."""
        self._thread.join(timeout=1)
        before = -1
        while self._thread.is_alive() and (self._is_busy or self._count != before):
            before = self._count
            self._thread.join(timeout=0.2)
        if self._error is not None:
            raise self._error


def on_lines(on_line: Callable[[str], None]) -> Callable[[bytes], None]:
    """Return a sink that calls `on_line` with each line, without its end; an incomplete one waits."""
    rest = b""

    def sink(data: bytes) -> None:
        nonlocal rest
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            on_line(line.decode(errors="replace").rstrip("\r"))

    return sink


def in_thread(function: Callable[..., object], *args: object) -> threading.Thread:
    """Start a function in a thread that takes no signals: they are the main thread's to handle.

    The function starts no programs but helpers, as they inherit that.
    """
    thread = threading.Thread(target=function, args=args, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread


def start_companion(step: Step, errors: str) -> IO[bytes]:
    """Start a program that ends when this process does, however that happens, or when the stream is closed.

    errors: the file for what it says. Its last line is `ended` when it has ended by itself.
    """
    import subprocess

    # The end of this process closes the pipe that the shell reads; a signal of the terminal reaches neither.
    script = '("$@"; echo ended) & read -r _; kill 0'
    step = step._replace(argv=("/bin/sh", "-c", script, "sh", *step.argv))
    with open(errors, "wb") as said:
        child = _popen(step, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True)
    assert child.stdin
    return child.stdin


class Helper:
    """A program that answers each line with another one, and ends when it is closed or this process ends.

    A signal of the terminal does not reach it.
    """

    def __init__(self, step: Step) -> None:
        """Start the program. Raises ProgramMissing and SkelebotError."""
        import subprocess

        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._child = _popen(step, start_new_session=True, **streams)

    def ask(self, line: bytes) -> bytes:
        """Return the answer to a line, without an end of line if the program has ended meanwhile."""
        assert self._child.stdin
        assert self._child.stdout
        with suppress(BrokenPipeError):
            self._child.stdin.write(line)
            self._child.stdin.flush()
        return self._child.stdout.readline()

    def close(self) -> int:
        """End the program; return its exit code, or the negative number of the signal that has killed it."""
        self._child.communicate()
        return self._child.returncode


def close_others(fds: Collection[int]) -> None:
    """Close what a forked process has open beside its standard streams and these."""
    for number in map(int, os.listdir("/dev/fd")):
        if number > 2 and number not in fds:
            with suppress(OSError):  # the listing itself was among them
                os.close(number)


# --- which process is meant ---


def identity(pid: int) -> str:
    """Return what distinguishes a process from a later one of the same number; empty if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            began = file.read().rpartition(b")")[2].split()[19].decode()  # proc_pid_stat(5): starttime
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return ""
        began = _began_elsewhere(pid)
    except (OSError, IndexError):
        return ""
    return f"{pid}-{began}" if began else ""


def _began_elsewhere(pid: int) -> str:
    """The same on systems without /proc."""
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return ""


def is_alive(who: str) -> bool:
    """Whether the process of that identity is still running."""
    pid = who.partition("-")[0]
    return pid.isdigit() and identity(int(pid)) == who
