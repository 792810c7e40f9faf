"""What Skelebot itself says. All of it goes to stderr: stdout belongs to the job."""

import os
import sys

_COLOURS = {"INFO": "36", "WARN": "33", "ERROR": "31"}


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
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


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
    except (OSError, ValueError):
        pass


def _coloured(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty()) and not os.environ.get("NO_COLOR")
