"""Wait without missing a signal: one that comes just before a wait would be handled only after it."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


class Waiting:
    """Waits for files; `fd` can be read from once a signal has come."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def wait(self, *files: IO[bytes], seconds: float | None = None) -> None:
        """Return once a file can be read, a signal has come, or the time is over."""
        numbers = [self._fd, *(file.fileno() for file in files)]
        if self._fd in select.select(numbers, [], [], seconds)[0]:
            with suppress(BlockingIOError):
                os.read(self._fd, 4096)


@contextmanager
def awake() -> Iterator[Waiting]:
    """Yield what waits, in the main thread. https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd"""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writing)
    try:
        yield Waiting(reading)
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
