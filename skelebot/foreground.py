"""Run a program in the foreground: its terminal, and the signals passed on to it."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from skelebot.errors import GRACE as GRACE
from skelebot.errors import STOPPING, Interrupted
from skelebot.model import Step

if TYPE_CHECKING:
    from skelebot.process import Program, Streams

R = TypeVar("R")


def install_signal_handlers() -> None:
    """Make SIGTERM and SIGHUP unwind the program, as Ctrl-C does, instead of ending it at once."""
    for signum in STOPPING:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, raise_interrupted)


def raise_interrupted(signum: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(signum)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay the signals that ask Skelebot to stop until the block has ended, in any thread.

    Programs started in the block ignore them too, so Ctrl-C does not end them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- the program in front ---


def attend(
    start: Callable[[Callable[[], AbstractContextManager[None]]], R],
    wait: Callable[[R], int],
    send: Callable[[R, int, bool], None],
    raw_terminal: bool = False,
) -> int:
    """Start something in front and wait for it, whatever signals come meanwhile; gives its exit code.

    That is 128 and the signal's number if a signal asked Skelebot itself to stop. start(launch): what
    runs within `launch()` is not interrupted, but gets the signals of that moment once it has started.
    send(run, signum, delivered): passes a signal on; delivered: the terminal has given that Ctrl-C to
    every process itself, which it does unless the program makes it raw. The third request to stop is sent
    as SIGKILL.
    """
    relay = _Relay(send, raw_terminal)
    with handled(relay.on_signal, STOPPING), handled(relay.on_other, _PASSED_ON):
        run = start(relay.launch)
        relay.started(run)
        code = wait(run)
    return 128 + relay.signal if relay.signal else code


def begin(start: Callable[[Callable[[], AbstractContextManager[None]]], R]) -> tuple[R, int | None]:
    """Start something that goes on alone; gives it, and the signal that came once it had begun."""
    relay: _Relay[R] = _Relay(lambda run, signum, delivered: None, False)
    with handled(relay.on_signal, STOPPING):
        return start(relay.launch), relay.signal


class _Relay(Generic[R]):
    """Pass signals on; those that arrive while the program is starting wait for it."""

    def __init__(self, send: Callable[[R, int, bool], None], raw_terminal: bool) -> None:
        self.signal: int | None = None
        self._send, self._raw = send, raw_terminal
        self._run: R | None = None
        self._launching = False
        self._waiting: list[tuple[int, bool]] = []
        self._requests = 0

    @contextmanager
    def launch(self) -> Iterator[None]:
        self._launching = True
        yield

    def started(self, run: R) -> None:
        self._run = run
        for signum, delivered in self._waiting:
            self._send(run, signum, delivered)

    def on_other(self, signum: int, frame: FrameType | None) -> None:
        """Pass on a signal that is not a request to stop."""
        self._pass_on(signum, signum == signal.SIGQUIT and not self._raw and _in_foreground())

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._run is not None or self._launching:
            self.signal = self.signal or signum
        delivered = signum == signal.SIGINT and not self._raw and _in_foreground()
        self._requests += not delivered  # the job has already received it and may handle it
        self._pass_on(signal.SIGKILL if self._requests >= 3 else signum, delivered)

    def _pass_on(self, signum: int, delivered: bool) -> None:
        """Send a signal to the program; while that is starting, keep it. Raises Interrupted before."""
        if self._run is not None:
            self._send(self._run, signum, delivered)
        elif self._launching:
            self._waiting.append((signum, delivered))
        else:
            raise Interrupted(signum)


# What would end Skelebot and leave its job behind; a job may have its own use for each. Batch systems send
# several of them before they kill. Not every system has all.
_NAMES = ("QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "XCPU", "IO", "PWR", "STKFLT")
_PASSED_ON = tuple(signal.Signals[f"SIG{name}"] for name in _NAMES if hasattr(signal, f"SIG{name}"))


@contextmanager
def handled(
    handler: Callable[[int, FrameType | None], None], signums: Iterable[signal.Signals]
) -> Iterator[None]:
    """Handle the signals in the block, except those that are ignored."""
    before = {}
    try:
        for signum in signums:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before[signum] = signal.signal(signum, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def attend_program(step: Step, streams: "Streams | None" = None) -> int:
    """Run a program in front, with every signal passed on to it; gives its exit code."""
    from skelebot import process  # not for every start

    def start_program(launch: Callable[[], AbstractContextManager[None]]) -> "Program":
        with launch():
            return process.start(step, streams or process.OWN)

    def send(program: "Program", signum: int, delivered: bool) -> None:
        if not delivered:
            program.send_signal(signum)

    return attend(start_program, process.Program.wait, send)


# --- the terminal ---


def _in_foreground() -> bool:
    """Whether Ctrl-C on the terminal reaches this process and its children."""
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
    """Whether stdin, stdout and stderr are all terminals."""
    try:
        return all(os.isatty(fd) for fd in (0, 1, 2))
    except OSError:
        return False
