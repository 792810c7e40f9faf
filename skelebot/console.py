"""Skelebot's own messages. They go to stderr, because stdout belongs to the job."""

import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from skelebot.errors import Interrupted, SkelebotError

_COLOURS = {"INFO": "36", "WARN": "33", "ERROR": "31"}


def any_text() -> None:
    """Let any text be written, even if the terminal's encoding lacks some of its characters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def unbuffer_stderr() -> None:
    """Keep nothing for later of what a full or closed stderr refuses.

    The interpreter would try once more as it exits, and turn the exit code into 120.
    """
    if sys.stderr is not None:
        raw = io.FileIO(sys.stderr.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, write_through=True)


def info(text: str) -> None:
    _say("INFO", text)


def warn(text: str) -> None:
    _say("WARN", text)


def error(text: str) -> None:
    _say("ERROR", text)


def detail(text: str) -> None:
    """Print a line without a level: a program's output, or the continuation of a message."""
    _write(text)


def out(text: str) -> None:
    """Print a command's result on stdout. Raises OSError if it cannot be written."""
    if sys.stdout is None:
        raise SkelebotError("standard output is closed, so the result cannot be printed")
    sys.stdout.write(masked(printable(text)) + "\n")
    sys.stdout.flush()


def ask(question: str, variable: str, hidden: bool = False) -> str:
    """Ask for an answer on the terminal.

    Raises SkelebotError without a terminal; the message names the variable to set instead.
    """
    if not can_ask():
        raise SkelebotError(f"the {question} is missing, and there is no terminal to ask on; set {variable}")
    if hidden:
        import getpass

        return getpass.getpass(f"{question}: ")  # asks only once the terminal hides what is typed
    return _line(f"{question}: ").decode("utf-8", "surrogateescape").rstrip("\n")


def can_ask() -> bool:
    """Whether stdin and stderr are terminals, so that a question is seen and can be answered."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


def prompt(question: str, default: str | None, check: Callable[[str], str | None]) -> str:
    """Ask on the terminal until the answer is valid; an empty answer means the default.

    check: returns what was expected, or None if the answer is valid. Raises SkelebotError if the input ends.
    """
    shown = f" [{one_line(default)}]" if default else ""
    while True:
        typed = _typed(f"{printable(question)}{shown}: ").strip()
        answer = default if not typed and default is not None else typed
        expected = check(answer)
        if expected is None:
            return answer
        warn(f"expected {expected}")


def _line(question: str) -> bytes:
    """Read what is typed, with its end; nothing if the input ends."""
    from skelebot.wake import awake  # only for a question

    sys.stderr.write(question)
    sys.stderr.flush()
    with awake() as waiting:
        waiting.wait(sys.stdin.buffer)  # a terminal gives one line at a time, so none is left from before
    return sys.stdin.buffer.readline()


def _typed(question: str) -> str:
    """Read a line from the terminal. Bytes that are not UTF-8 become surrogates."""
    try:
        line = _line(question)
    except Interrupted:
        detail("")  # puts the message on a separate line
        raise
    if not line:
        detail("")
        raise SkelebotError("the input ended before all questions were answered; nothing was written")
    return line.decode("utf-8", "surrogateescape").rstrip("\r\n")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of `total` bytes: as a bar on a terminal, as plain lines elsewhere.

    Yields a function to call with each number of new bytes, from any thread.
    """
    if not sys.stderr.isatty():
        yield _Lines(what, total).add
        return
    import threading

    from tqdm import tqdm  # only for transfers on a terminal

    tqdm.monitor_interval = 0  # its thread would stay, and take signals that are put off
    lock = threading.Lock()
    bar = tqdm(desc=what, total=total, leave=False, file=sys.stderr, miniters=1, unit="B", unit_scale=True)
    with bar:

        def add(count: int) -> None:
            with lock:
                bar.update(count)

        yield add


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Show which step of long work is running, on one line of a terminal that moves.

    Yields a function to call with the text of each step.
    """
    import threading

    line, over = _MovingLine(), threading.Event()

    def tick() -> None:
        while not over.wait(0.5):
            line.show()

    threading.Thread(target=tick, daemon=True).start()
    try:
        yield line.begin
    finally:
        over.set()
        line.clear()


class _MovingLine:
    """One line of a terminal, with a text and the seconds since it was set."""

    def __init__(self) -> None:
        import time

        self._clock, self._text, self._began = time.monotonic, "", 0.0

    def begin(self, text: str) -> None:
        self._text, self._began = one_line(text), self._clock()
        self.show()

    def show(self) -> None:
        if self._text:
            width = os.get_terminal_size(2).columns - 8
            _write(f"\r\x1b[K{self._text[:width]} {self._clock() - self._began:.0f} s", end="")

    def clear(self) -> None:
        if self._text:
            self._text = ""
            _write("\r\x1b[K", end="")


class _Lines:
    """Print a line at the start, and one every ten seconds."""

    def __init__(self, what: str, total: int) -> None:
        import threading
        import time

        self._what, self._total, self._gone = what, total, 0
        self._clock, self._lock = time.monotonic, threading.Lock()
        self._next = self._clock() + 10
        info(f"{what} ({size(total)})")

    def add(self, count: int) -> None:
        with self._lock:
            self._gone += count
            if self._clock() >= self._next and self._total:
                self._next = self._clock() + 10
                info(f"{self._what}: {100 * self._gone // self._total} %")


# --- how things are worded ---


def counted(count: float, what: str) -> str:
    """A number with its noun, which has a regular plural: 1 image, 0.5 seconds, 2,000 files."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {what}" if count == 1 else f"{number} {what}s"


def size(count: float) -> str:
    """A number of bytes for people: 41 B, 3.5 kB, 120 MB."""
    units = iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    while count >= 999.5 and unit != "GB":
        count, unit = count / 1000, next(units)
    return f"{count:.{0 if unit == 'B' or count >= 99.95 else 1}f} {unit}"


def duration(seconds: float) -> str:
    """A time span with its two largest units, as in `3 h 20 min`."""
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], bare: bool = False) -> None:
    """Print rows in columns on stdout, each value on one line; nothing without rows.

    bare: without titles if stdout is not a terminal, as programs read it.
    """
    has_titles = rows and not (bare and not is_stdout_terminal())
    lines = [[one_line(cell) for cell in row] for row in ([titles] if has_titles else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        out("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def is_stdout_terminal() -> bool:
    return bool(sys.stdout and sys.stdout.isatty())


def is_terminal() -> bool:
    """Whether messages go to a terminal."""
    return bool(sys.stderr and sys.stderr.isatty())


def bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if _coloured(sys.stdout) else text


def one_line(text: str) -> str:
    """Escape the control characters of `text`, so that a value cannot forge a line or a colour."""
    if text.isprintable():  # as nearly all is
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in printable(text))


def printable(text: str) -> str:
    """Replace the lone surrogates of `text`, which stand for bytes that are not UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # of half a surrogate pair, as JSON may hold it
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


# A password in an address, which may also stand there alone, as a token; but not the name of a variable.
_PASSWORD = re.compile(
    r"(?<=://)(?:(?P<user>[^\s/?#:@\"]*):(?!\$\{?\w+\}?@)[^\s/?#\"]+|[^\s/?#:@\"$]{20,})@", re.ASCII
)


def masked(text: str) -> str:
    """`text` with `***` for each password and token in an address, as in https://user:PASSWORD@host."""
    if "://" not in text:
        return text
    return _PASSWORD.sub(lambda m: f"{m['user']}:***@" if m["user"] is not None else "***@", text)


def _say(level: str, text: str) -> None:
    label = f"{level:<5}"
    if _coloured(sys.stderr):
        label = f"\x1b[{_COLOURS[level]}m{label}\x1b[0m"
    _write(f"{label} | {one_line(text)}")


def _write(line: str, end: str = "\n") -> None:
    # A closed or full stderr must not turn a message into a second failure.
    try:
        sys.stderr.write(masked(printable(line)) + end)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def _coloured(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty()) and not os.environ.get("NO_COLOR")
