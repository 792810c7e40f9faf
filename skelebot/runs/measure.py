"""Read what a task measures while it runs: each line of its file once, in bounded memory."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from skelebot import process
from skelebot.errors import SkelebotError
from skelebot.runs.metrics import MOST, NAME, parse, with_point
from skelebot.runs.record import Metric

_BLOCK = 1 << 16
_NAMES = 1000  # of metrics that a task may have
_INTERVAL = 1.0  # seconds between two looks at a file
_FAR = 3.0  # at one that has to be brought here first
_NOTED = 2.0  # seconds between two notes of what has been read


class Tail:
    """The lines of a file that grows; of one that is replaced or cut, from its beginning again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._inode, self._at, self._rest = 0, 0, b""

    def lines(self) -> Iterator[bytes | None]:
        """Yield the lines that have ended since the last time; None before those of another file.

        One that is too long is cut, though not so short that it could be taken for a whole one.
        """
        with suppress(OSError), open(self.path, "rb", opener=_open_anything) as file:
            status = os.fstat(file.fileno())
            if (status.st_ino, self._at) != (self._inode, min(self._at, status.st_size)):
                self._inode, self._at, self._rest = status.st_ino, 0, b""
                yield None
            file.seek(self._at)
            while self._at < status.st_size and (block := file.read(_BLOCK)):
                self._at += len(block)
                *lines, rest = (self._rest + block).split(b"\n")
                self._rest = rest[: MOST + 1]
                yield from lines

    def end_last_line(self) -> None:
        """End a line that its writer has left without an end."""
        if self._rest:
            with suppress(OSError), open(self.path, "ab", opener=_open_anything) as file:
                file.write(b"\n")

    def remove_if_empty(self) -> None:
        with suppress(OSError):
            if os.stat(self.path).st_size == 0:
                os.unlink(self.path)


def _open_anything(path: str, flags: int) -> int:
    """Open what a job may have put there, a pipe among them, without waiting for it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


class Measured(NamedTuple):
    """What has been measured so far; the fields of a task's record."""

    metrics: tuple[Metric, ...] = ()
    bad_lines: int = 0
    progress: float = 0.0

    @property
    def changes(self) -> dict[str, Any]:
        return self._asdict()


class Reading:
    """What has been read of an attempt's metrics."""

    def __init__(self, folder: str) -> None:
        self._tail = Tail(os.path.join(folder, NAME))
        self._start()

    def _start(self) -> None:
        self._known: dict[str, Metric] = {}
        self._bad_lines, self._progress = 0, 0.0

    @property
    def measured(self) -> Measured:
        return Measured(tuple(self._known.values()), self._bad_lines, self._progress)

    def read(self) -> Measured:
        """Read what is new; return all that has been measured."""
        for line in self._tail.lines():
            if line is None:
                self._start()
            elif line.strip():
                self._take(line)
        return self.measured

    def finish(self) -> Measured:
        """Read what is left when the task has ended, a last line without an end as well."""
        self.read()
        self._tail.end_last_line()
        found = self.read()
        if found == Measured():
            self._tail.remove_if_empty()
        return found

    def _take(self, line: bytes) -> None:
        point = parse(line)
        known = with_point(self._known, point) if point else self._known
        if point is None or len(known) > _NAMES:
            self._bad_lines += 1
            return
        self._known = known
        self._progress = self._progress if point.progress is None else point.progress


@contextmanager
def live(reading: Reading, bring: Callable[[], bool], note: Callable[[Measured], None]) -> Iterator[None]:
    """Read in another thread while the block lasts.

    bring: brings the file up to date, and tells whether that took a transfer. note: gets what has been
    measured after a change.
    """
    import threading

    has_ended = threading.Event()
    thread = process.in_thread(_read_on, reading, bring, note, has_ended.wait)
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


def _read_on(
    reading: Reading,
    bring: Callable[[], bool],
    note: Callable[[Measured], None],
    wait: Callable[[float], bool],
) -> None:
    noted, noted_at, pause = reading.measured, 0.0, _INTERVAL
    while not wait(pause):
        began = time.monotonic()
        with suppress(SkelebotError, OSError):  # the next time may go well, and the last one counts
            is_far = bring()
            # A far engine is asked a tenth of the time at most, and no file takes more than half of it.
            took = time.monotonic() - began
            pause = max(_FAR, 10 * took) if is_far else _INTERVAL
            found = reading.read()
            pause = max(pause, time.monotonic() - began)
            if found != noted and time.monotonic() - noted_at >= _NOTED:
                note(found)
                noted, noted_at = found, time.monotonic()
