"""A time limit for a plugin's hook, which runs in this process."""

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from skelebot import console, foreground

SECONDS = 60.0  # for hooks, which only describe
_NOTICE = 5.0  # seconds after which a line names what is slow
_GRACE = 5.0  # seconds after the limit in which the exception must have reached the hook


class OutOfTime(BaseException):
    """A hook has used up its time; not an Exception, which the hook could handle."""


@contextmanager
def time_limit(what: str, seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block after `seconds`; only in the main thread, which has the signals.

    C code that never returns to Python can be neither interrupted nor left. The process ends then, and
    Python prints where it was. Ctrl-C ends the process at once, too, if nothing but the block is running.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    notice = min(_NOTICE, seconds / 2)
    is_announced = False

    def on_alarm(signum: int, frame: FrameType | None) -> None:
        nonlocal is_announced
        if is_announced:
            raise OutOfTime
        is_announced = True
        signal.setitimer(signal.ITIMER_REAL, seconds - notice, 1)  # again each second if the hook goes on
        console.info(f"waiting for {what}")

    alarm = signal.signal(signal.SIGALRM, on_alarm)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        if interrupt is foreground.raise_interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        with suppress(OSError, ValueError, AttributeError, RuntimeError):  # where stderr is closed
            faulthandler.dump_traceback_later(seconds + _GRACE, exit=True, file=sys.__stderr__ or sys.stderr)
        signal.setitimer(signal.ITIMER_REAL, notice)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGALRM, alarm)
