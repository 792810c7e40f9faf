"""Read what a task measures while it runs: each line of its file once, in bounded memory."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any, NamedTuple

from skelebot import console, process
from skelebot.errors import SkelebotError
from skelebot.files import reason
from skelebot.runs import workspace
from skelebot.runs.metrics import FOUND, MOST, NAME, Curves, files, of_file, of_texts, parse, with_point
from skelebot.runs.record import Metric, RunRecord
from skelebot.runs.search import Search
from skelebot.runs.store import Store

_BLOCK = 1 << 16
_MARK = 64  # bytes before the place in a file by which it is known again
_NAMES = 1000  # of metrics that a task may have
_INTERVAL = 1.0  # seconds between two looks at a file
_FAR = 3.0  # at one that has to be brought here first
_MOST_OUTPUT = 1000  # characters of a line of output that patterns are looked for in
_TOGETHER = 200  # lines of output that are searched at a time
_LAST = 60.0  # seconds for searching what is left when the task has ended
_NOTED = 2.0  # seconds between two notes of what has been read


class Tail:
    """The lines of a file that grows."""

    def __init__(self, path: str, is_output: bool = False) -> None:
        """is_output: whether a carriage return ends a line as well, as in that of a progress bar."""
        self.path, self._is_output = path, is_output
        self.rewind()

    def rewind(self) -> None:
        """Begin at the file's beginning again."""
        self._inode, self._at, self._last, self.rest = 0, 0, b"", b""

    def is_another(self) -> bool:
        """Whether the file has been replaced, cut or written over since it was read."""
        with suppress(OSError), open(self.path, "rb", opener=_open_anything) as file:
            is_same = self._inode in (0, os.fstat(file.fileno()).st_ino)
            last = os.pread(file.fileno(), len(self._last), self._at - len(self._last))
            return not is_same or last != self._last
        return False

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that have ended since the last time.

        One that is too long is cut, though not so short that it could be taken for a whole one.
        """
        with suppress(OSError), open(self.path, "rb", opener=_open_anything) as file:
            status = os.fstat(file.fileno())
            self._inode = self._inode or status.st_ino
            file.seek(self._at)
            while self._at < status.st_size and (block := file.read(_BLOCK)):
                self._at += len(block)
                self._last = (self._last + block)[-_MARK:]
                block = block.replace(b"\r", b"\n") if self._is_output else block
                *lines, rest = (self.rest + block).split(b"\n")
                self.rest = rest[: MOST + 1]
                yield from lines

    def end_last_line(self) -> None:
        """End a line that its writer has left without an end."""
        if self.rest:
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

    def __init__(self, folder: str, patterns: Sequence[tuple[str, str]] = ()) -> None:
        """patterns: what is looked for in the job's output: a name, and a pattern with a group."""
        self._given = Tail(os.path.join(folder, NAME))
        self._found = Tail(os.path.join(folder, FOUND))
        self._output = Tail(os.path.join(folder, "log"), is_output=True)
        self._search = Search(patterns)
        self._until = math.inf
        self._is_begun = False
        self._start()

    def _start(self) -> None:
        """Read both files from their beginnings."""
        self._given.rewind()
        self._found.rewind()
        self._known: dict[str, Metric] = {}
        self._bad_lines, self._progress = 0, 0.0

    @property
    def measured(self) -> Measured:
        return Measured(tuple(self._known.values()), self._bad_lines, self._progress)

    def read(self) -> Measured:
        """Read what is new; return all that has been measured. Raises OSError."""
        if not self._is_begun or (self._search.names and self._output.is_another()):
            self._begin()
        self._look_through(self._output.lines())
        if self._given.is_another() or self._found.is_another():
            self._start()
        for line in chain(self._given.lines(), self._found.lines()):
            if line.strip():
                self._take(line)
        return self.measured

    def _begin(self) -> None:
        """Find everything again that another process has found, or this one in another log."""
        self._is_begun = True
        with suppress(FileNotFoundError):
            os.truncate(self._found.path, 0)
        self._output.rewind()
        self._start()

    def _look_through(self, lines: Iterable[bytes]) -> None:
        """Add what the patterns find in lines of output. Raises OSError."""
        texts = (line[: 4 * _MOST_OUTPUT].decode(errors="replace")[:_MOST_OUTPUT] for line in lines)
        while self._search.names and (some := list(islice(texts, _TOGETHER))):
            self._add(filter(None, map(of_texts, self._search.texts(some))))
            if time.monotonic() > self._until:
                self._search.give_up("it takes too long")

    def _add(self, lines: Iterable[str]) -> None:
        """Add lines to what was found. Raises OSError."""
        if data := "".join(f"{line}\n" for line in lines):
            with open(self._found.path, "ab") as file:
                file.write(data.encode("ascii"))

    def hurry(self, seconds: float = _LAST) -> None:
        """Search the output for so long at most from now on, as the task has ended."""
        self._until = min(self._until, time.monotonic() + seconds)

    def finish(self, more: Iterable[str] = ()) -> Measured:
        """Read what is left when the task has ended; `more` are lines to add. Raises OSError.

        A last line that has no end is among what is left.
        """
        self.hurry()
        self.read()
        self._given.end_last_line()
        self._look_through([self._output.rest] if self._output.rest else [])
        self._add(more)
        found = self.read()
        self.close()
        if found == Measured():
            self._given.remove_if_empty()
        return found

    def close(self) -> None:
        """End the process that searches the output, which another `read` would start again."""
        self._search.close()

    @property
    def problems(self) -> list[str]:
        """What has kept patterns from being searched for in all of the output."""
        return self._search.problems

    def _take(self, line: bytes) -> None:
        point = parse(line)
        known = with_point(self._known, point) if point else self._known
        if point is None or len(known) > _NAMES:
            self._bad_lines += 1
            return
        self._known = known
        self._progress = self._progress if point.progress is None else point.progress


class Growing:
    """The curves of an attempt that runs, of whose files only what is new is read each time."""

    def __init__(self, path: str) -> None:
        """path: of the file that the job is given."""
        self._tails = [Tail(each) for each in files(path)]
        self._curves = Curves()

    def read(self) -> dict[str, list[tuple[float, float]]]:
        """Return what `metrics.series` does."""
        if any(tail.is_another() for tail in self._tails):
            self._curves = Curves()
            for tail in self._tails:
                tail.rewind()
        for line in chain.from_iterable(tail.lines() for tail in self._tails):
            if point := parse(line):
                self._curves.add(point)
        return self._curves.points


def finished(
    store: Store, run: RunRecord, at: int, reading: Reading, warn: Callable[[str], None], is_done: bool
) -> Measured:
    """Return all that a task has measured that has ended, and warn of what could not be read.

    is_done: whether its files with metrics have to be there.
    """
    try:
        measured = reading.finish(_lines_of_files(store, run, at, warn, is_done))
    except OSError as error:
        warn(f"the metrics could not be read: {reason(error)}")
        return reading.measured
    for problem in reading.problems:
        warn(problem)
    if measured.bad_lines:
        count = console.counted(measured.bad_lines, "line")
        too_many = f", and a task has at most {_NAMES:,} names" if len(measured.metrics) >= _NAMES else ""
        warn(f"{count} of metrics could not be read; each has to be a JSON object of numbers{too_many}")
    return measured


def _lines_of_files(
    store: Store, run: RunRecord, at: int, warn: Callable[[str], None], is_done: bool
) -> Iterator[str]:
    for path in run.tasks[at].metric_files:
        try:
            yield of_file(workspace.read_metrics(store, run, at, path))
        except FileNotFoundError:
            if is_done:
                warn(f"{path}: there is no such file, so no metrics were read from it")
        except (OSError, ValueError) as error:
            warn(f"{path}: no metrics could be read from it: {error}")


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
        reading.hurry()
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
            # A far engine is asked a fifth of the time at most, and no file takes more than half of it.
            took = time.monotonic() - began
            pause = max(_FAR, 4 * took) if is_far else _INTERVAL
            found = reading.read()
            pause = max(pause, time.monotonic() - began)
            if found != noted and time.monotonic() - noted_at >= _NOTED:
                note(found)
                noted, noted_at = found, time.monotonic()
