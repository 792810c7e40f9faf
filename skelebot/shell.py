"""Running other programs: as words, with signals passed on. The only module that imports subprocess."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from skelebot import console
from skelebot.errors import Interrupted, ProgramMissing, SkelebotError
from skelebot.model import Step, shown

if TYPE_CHECKING:
    import subprocess

T = TypeVar("T")

GRACE = 10.0  # seconds between asking a job to end and ending it

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def display(step: Step) -> str:
    """The step as a shell would take it, secrets left out."""
    import shlex  # like subprocess, only where a program is run

    return shlex.join(console.printable(_short(shown(word))) for word in step.argv)


def _short(word: str) -> str:
    """A word for people to look at; of a whole script, how it begins."""
    return word if len(word) < 1000 else f"{word[:60].splitlines()[0]}..."


def trace(verbose: bool, step: Step) -> None:
    if verbose:
        console.detail(f"+ {display(step)}")


def interruptible() -> None:
    """Lets SIGTERM and SIGHUP, like Ctrl-C, unwind the program rather than end it on the spot."""
    for signum in _STOPPING:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _raise_interrupted)


def _raise_interrupted(signum: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(signum)


# --- programs whose output Skelebot reads ---


def capture(step: Step, timeout: float | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a short program.

    Raises ProgramMissing, and TimeoutError when it takes longer than `timeout` seconds; it and what it
    has started are ended then.
    """
    import subprocess

    alone = timeout is not None
    with _started(step, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=alone) as child:
        try:
            out, err = child.communicate(_bytes(step.stdin), timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise TimeoutError from None
    return child.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def tee(
    step: Step,
    show: Callable[[str], None],
    feed: Callable[[IO[bytes]], None] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> tuple[int, list[str]]:
    """Exit code and output of a long program, each line of it (stderr included) shown as it comes.

    feed: writes the program's stdin, in a thread of its own. Raises ProgramMissing.
    """
    import subprocess
    import threading  # only for builds

    lines: list[str] = []
    source = subprocess.PIPE if feed else subprocess.DEVNULL
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "pass_fds": pass_fds}
    with _started(step, stdin=source, **out) as child:
        if feed:
            threading.Thread(target=_feed, args=(feed, child.stdin), daemon=True).start()
        assert child.stdout
        for raw in child.stdout:
            lines.append(raw.decode(errors="replace").rstrip("\r\n"))
            show(lines[-1])
    return child.wait(), lines


def _feed(feed: Callable[[IO[bytes]], object], stdin: IO[bytes]) -> None:
    try:
        with stdin:
            feed(stdin)
    except BrokenPipeError:
        pass  # the program ended early and says why itself


def pipe(
    step: Step, feed: Callable[[IO[bytes]], None] | None, take: Callable[[IO[bytes]], T]
) -> tuple[int, T, str]:
    """Exit code of a program, what `take` makes of its stdout, and its stderr.

    feed: writes the program's stdin, in a thread of its own; what it raises is raised here.
    Raises ProgramMissing.
    """
    import subprocess
    import tempfile
    import threading

    failed: list[BaseException] = []

    def guarded(stdin: IO[bytes]) -> None:
        try:
            _feed(feed, stdin) if feed else stdin.close()
        except BaseException as error:
            failed.append(error)

    with tempfile.TemporaryFile() as said:
        with _started(step, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said) as child:
            assert child.stdin
            assert child.stdout
            feeding = threading.Thread(target=guarded, args=(child.stdin,), daemon=True)
            feeding.start()
            result = take(child.stdout)
            code = child.wait()
            feeding.join()
        said.seek(0)
        if failed:
            raise failed[0]
        return code, result, said.read().decode(errors="replace")


@contextmanager
def _started(step: Step, **streams: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """The program, ended if Skelebot is interrupted while it runs."""
    import subprocess

    streams.setdefault("stdin", subprocess.DEVNULL if step.stdin is None else subprocess.PIPE)
    child = _popen(step, **streams)
    try:
        yield child
    except BaseException:
        child.terminate()
        _close(child)  # one that is just writing would otherwise wait for a reader
        child.wait()
        raise
    finally:
        _close(child)


def _close(child: "subprocess.Popen[bytes]") -> None:
    for stream in (child.stdout, child.stderr):
        if stream:
            stream.close()


def _popen(step: Step, **options: Any) -> "subprocess.Popen[bytes]":
    import subprocess

    try:
        return subprocess.Popen(step.argv, cwd=step.cwd, env={**os.environ, **dict(step.env)}, **options)
    except FileNotFoundError as error:
        if step.cwd and error.filename == step.cwd:
            raise SkelebotError(f"the folder {step.cwd} is not there") from None
        raise ProgramMissing(f"{step.argv[0]} is not installed, or not on PATH") from None
    except (PermissionError, OSError) as error:
        reason = (error.strerror or str(error)).lower()
        raise SkelebotError(f"{step.argv[0]} cannot be run: {reason}") from None


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


# --- jobs: programs that have the terminal ---


class Outcome(NamedTuple):
    """How a program ended.

    code: its exit code, 128 and the signal's number when one killed it. signal: the first that asked
    Skelebot itself to stop. timed_out: whether its time ran out.
    """

    code: int
    signal: int | None = None
    timed_out: bool = False


class Streams(NamedTuple):
    """What a program has in the place of Skelebot's own streams.

    stdin: all that there is to read, of some kilobytes at most. show: gets each line that it writes, on
    either stream, in a thread of its own.
    """

    stdin: str
    show: Callable[[str], None]


def run(
    step: Step,
    send: Callable[[int, int], None],
    *,
    timeout: float = 0,
    raw_terminal: bool = False,
    pass_fds: tuple[int, ...] = (),
    streams: Streams | None = None,
) -> Outcome:
    """Runs a program on Skelebot's own streams until it ends, whatever signals come meanwhile.

    send(pid, signum): passes a signal on to what the program runs. It is not called for the Ctrl-C
    that a terminal gives to every process itself, unless the program makes it raw. After `timeout`
    seconds it is called with SIGTERM and GRACE seconds later with SIGKILL, as it is after a third
    request to stop. Raises ProgramMissing.
    """
    relay = _Relay(send, raw_terminal)
    with _handled(relay, timeout):
        child = _popen(step, pass_fds=pass_fds, **_pipes(streams))
        relay.started(child.pid)
        with _attached(child, streams):
            code = child.wait()
    return Outcome(128 - code if code < 0 else code, relay.signal, relay.timed_out)


def _pipes(streams: Streams | None) -> dict[str, int]:
    import subprocess

    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return piped if streams else {}


@contextmanager
def _attached(child: "subprocess.Popen[bytes]", streams: Streams | None) -> Iterator[None]:
    if streams is None:
        yield
        return
    import threading

    assert child.stdin
    assert child.stdout
    reader = threading.Thread(target=_show_lines, args=(child.stdout, streams.show), daemon=True)
    reader.start()
    _feed(lambda stdin: stdin.write(streams.stdin.encode()), child.stdin)
    yield
    reader.join(timeout=1)  # not for ever: what the program has started may keep the stream open


def _show_lines(output: IO[bytes], show: Callable[[str], None]) -> None:
    for raw in output:
        show(raw.decode(errors="replace").rstrip("\r\n"))


class _Relay:
    """Passes signals on; those that come before the program has started wait for it."""

    def __init__(self, send: Callable[[int, int], None], raw_terminal: bool) -> None:
        self.signal: int | None = None
        self.timed_out = False
        self._send, self._raw = send, raw_terminal
        self._pid: int | None = None
        self._asked: list[int] = []

    def started(self, pid: int) -> None:
        self._pid = pid
        for signum in self._asked:
            self._send(pid, signum)
        if self.timed_out:  # before there was anything to end
            self._send(pid, signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, GRACE)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.signal = self.signal or signum
        if signum == signal.SIGINT and not self._raw and _in_foreground():
            return  # the job has it already, and may have a use for it
        self._asked.append(signum)
        if self._pid is not None:
            self._send(self._pid, signal.SIGKILL if len(self._asked) >= 3 else signum)

    def on_alarm(self, signum: int, frame: FrameType | None) -> None:
        wanted = signal.SIGKILL if self.timed_out else signal.SIGTERM
        self.timed_out = True
        if self._pid is not None:
            signal.setitimer(signal.ITIMER_REAL, GRACE)
            self._send(self._pid, wanted)


@contextmanager
def _handled(relay: _Relay, timeout: float) -> Iterator[None]:
    before = {}
    try:
        for signum in _STOPPING:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before[signum] = signal.signal(signum, relay.on_signal)
        if timeout:
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, relay.on_alarm)
            signal.setitimer(signal.ITIMER_REAL, timeout)
        yield
    finally:
        if timeout:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def has_ended(pid: int) -> bool:
    """Whether a child has ended, which is still to be waited for."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


@contextmanager
def undisturbed() -> Iterator[None]:
    """Puts signals off that ask Skelebot to stop, for the length of the block."""
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether Ctrl-C on the terminal goes to this process and to those it has started."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def are_terminals() -> bool:
    """Whether stdin, stdout and stderr all are a terminal."""
    try:
        return all(os.isatty(fd) for fd in (0, 1, 2))
    except OSError:
        return False
