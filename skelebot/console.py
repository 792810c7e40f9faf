"""What Skelebot itself says. All of it goes to stderr: stdout belongs to the job."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from skelebot.errors import Interrupted, SkelebotError

_COLOURS = {"INFO": "36", "WARN": "33", "ERROR": "31"}


def any_text() -> None:
    """Lets every text be written, also where the terminal's encoding lacks a letter of it."""
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
    """A line without a level: the output of a program, or the continuation of a message."""
    _write(text)


def out(text: str) -> None:
    """The answer to a question the user asked, on stdout. Raises OSError when it cannot be written."""
    if sys.stdout is None:
        raise SkelebotError("standard output is closed; there is nowhere to write to")
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def ask(question: str, variable: str, hidden: bool = False) -> str:
    """An answer typed on the terminal.

    Raises SkelebotError without one, naming the environment variable that would have answered.
    """
    if not can_ask():
        raise SkelebotError(f"the {question} is missing, and nobody can be asked; set {variable}")
    if hidden:
        import getpass

        return getpass.getpass(f"{question}: ")  # which asks only once the terminal hides what is typed
    sys.stderr.write(f"{question}: ")
    sys.stderr.flush()
    return sys.stdin.readline().rstrip("\n")


def can_ask() -> bool:
    """Whether somebody sits at a terminal, who sees a question and can answer it."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


def prompt(question: str, default: str | None, check: Callable[[str], str | None]) -> str:
    """An answer typed on the terminal, asked for until it fits; an empty one is the default.

    check: gives what would be expected instead, or None. Raises SkelebotError where the input ends.
    """
    shown = f" [{one_line(default)}]" if default else ""
    while True:
        typed = _typed(f"{printable(question)}{shown}: ").strip()
        answer = default if not typed and default is not None else typed
        expected = check(answer)
        if expected is None:
            return answer
        warn(f"expected {expected}")


def _typed(question: str) -> str:
    """A line from the terminal. Text of an other encoding than the terminal's comes as surrogates."""
    try:
        sys.stderr.write(question)
        sys.stderr.flush()
        line = sys.stdin.buffer.readline()
    except Interrupted:
        detail("")  # the message is to stand on a line of its own
        raise
    if not line:
        detail("")
        raise SkelebotError("the input ended before all was answered; nothing was written")
    return line.decode("utf-8", "surrogateescape").rstrip("\r\n")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Tells how far something of `total` bytes has come: a bar on a terminal, plain lines elsewhere.

    Gives what is to be called with each count of further bytes, from any thread.
    """
    if not sys.stderr.isatty():
        yield _Lines(what, total).add
        return
    import threading

    from tqdm import tqdm  # only for transfers on a terminal

    lock = threading.Lock()
    with tqdm(total=total, desc=what, unit="B", unit_scale=True, file=sys.stderr, leave=False) as bar:

        def add(count: int) -> None:
            with lock:
                bar.update(count)

        yield add


class _Lines:
    """A line when something begins, and one every ten seconds."""

    def __init__(self, what: str, total: int) -> None:
        import threading
        import time

        self._what, self._total, self._gone = what, total, 0
        self._clock, self._lock = time.monotonic, threading.Lock()
        self._next = self._clock() + 10
        info(f"{what} ({total / 1e6:.1f} MB)")

    def add(self, count: int) -> None:
        with self._lock:
            self._gone += count
            if self._clock() >= self._next and self._total:
                self._next = self._clock() + 10
                info(f"{self._what}: {100 * self._gone // self._total} %")


def bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if _coloured(sys.stdout) else text


def one_line(text: str) -> str:
    """`text` with its control characters spelt out, so that a value cannot forge a line or a colour."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in printable(text))


def printable(text: str) -> str:
    """`text` without the lone surrogates that stand for bytes which are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _say(level: str, text: str) -> None:
    label = f"{level:<5}"
    if _coloured(sys.stderr):
        label = f"\x1b[{_COLOURS[level]}m{label}\x1b[0m"
    _write(f"{label} | {one_line(text)}")


def _write(line: str) -> None:
    # A closed or full stderr must not turn a message into a second failure.
    try:
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def _coloured(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty()) and not os.environ.get("NO_COLOR")
