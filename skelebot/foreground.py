"""This process in front of a terminal: its signals, passed on to the program that runs meanwhile."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple, NoReturn

from skelebot.errors import Interrupted
from skelebot.model import Step
from skelebot.process import OWN, STOPPING, Program, Streams, start

GRACE = 10.0  # seconds between asking a job to end and ending it


def install_signal_handlers() -> None:
    """Let SIGTERM and SIGHUP, like Ctrl-C, unwind the program rather than end it on the spot."""
    for signum in STOPPING:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _raise_interrupted)


def _raise_interrupted(signum: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(signum)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off the signals that ask Skelebot to stop until the block has ended, in any thread.

    Programs that are started meanwhile inherit this, so that Ctrl-C does not end them either.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- the program in front ---


class Outcome(NamedTuple):
    """How a program ended.

    code: its exit code, 128 and the signal's number when one killed it. signal: the first that asked
    Skelebot itself to stop. timed_out: whether its time ran out.
    """

    code: int
    signal: int | None = None
    timed_out: bool = False


def attend(
    step: Step,
    send: Callable[[Program, int], None],
    *,
    timeout: float = 0,
    raw_terminal: bool = False,
    pass_fds: tuple[int, ...] = (),
    streams: Streams = OWN,
) -> Outcome:
    """Run a program in front until it ends, whatever signals come meanwhile.

    send(program, signum): passes a signal on to what the program runs. It is not called for the Ctrl-C
    that a terminal gives to every process itself, unless the program makes it raw. After `timeout`
    seconds it is called with SIGTERM and GRACE seconds later with SIGKILL, as it is after a third
    request to stop. Raises ProgramMissing.
    """
    relay = _Relay(send, raw_terminal)
    with _handled(relay, timeout):
        program = start(step, streams, pass_fds)
        relay.started(program)
        code = program.wait()
    return Outcome(code, relay.signal, relay.timed_out)


class _Relay:
    """Passes signals on; those that come before the program has started wait for it."""

    def __init__(self, send: Callable[[Program, int], None], raw_terminal: bool) -> None:
        self.signal: int | None = None
        self.timed_out = False
        self._send, self._raw = send, raw_terminal
        self._program: Program | None = None
        self._asked: list[int] = []

    def started(self, program: Program) -> None:
        self._program = program
        for signum in self._asked:
            self._send(program, signum)
        if self.timed_out:  # before there was anything to end
            self._send(program, signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, GRACE)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.signal = self.signal or signum
        if signum == signal.SIGINT and not self._raw and _in_foreground():
            return  # the job has it already, and may have a use for it
        self._asked.append(signum)
        if self._program is not None:
            self._send(self._program, signal.SIGKILL if len(self._asked) >= 3 else signum)

    def on_alarm(self, signum: int, frame: FrameType | None) -> None:
        wanted = signal.SIGKILL if self.timed_out else signal.SIGTERM
        self.timed_out = True
        if self._program is not None:
            signal.setitimer(signal.ITIMER_REAL, GRACE)
            self._send(self._program, wanted)


@contextmanager
def _handled(relay: _Relay, timeout: float) -> Iterator[None]:
    before = {}
    try:
        for signum in STOPPING:
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


# --- the terminal ---


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
