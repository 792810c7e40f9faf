"""Values, times, logs and patches as the text of a page. Takes and returns values alone."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from skelebot import console
from skelebot.secret import Secret

# Of a terminal: colours and movements; titles and links; other commands. ECMA-48
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]"
)
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_HUGE = 1e300  # no place for it on an axis
_LONGEST = 1 << 16  # letters of a line that has not ended


def plain(text: str) -> str:
    """Return a text as it may be seen: on one line, without passwords in addresses."""
    return console.masked(console.one_line(text))


def value(fact: Any) -> str:
    """Return a parameter, a metric or another fact as text; "" where there is none."""
    if fact is None:
        return ""
    if isinstance(fact, bool):
        return "true" if fact else "false"
    if isinstance(fact, float):
        return f"{fact:.6g}"
    if isinstance(fact, Secret | dict):  # how a secret is stored
        return "***"
    if isinstance(fact, list | tuple):
        return " ".join(map(value, fact))
    return plain(str(fact))


def number(fact: Any) -> float | None:
    """Return the number that a value is, also as text: an option without a type is text; None otherwise."""
    if isinstance(fact, str) and _NUMBER.fullmatch(fact):
        fact = float(fact)
    is_number = isinstance(fact, int | float) and not isinstance(fact, bool)
    return float(fact) if is_number and abs(fact) < _HUGE else None


class Log(NamedTuple):
    """A piece of a log: its whole lines, the beginning of the one after, and where to go on reading."""

    lines: list[str]
    rest: str
    next: int


def log(data: bytes, offset: int) -> Log:
    """Return what a terminal would show of a log, whose bytes begin at an offset."""
    whole, _, rest = data.rpartition(b"\n")
    if len(rest) > _LONGEST:
        whole, rest = data, b""
    lines = [_line(line) for line in whole.split(b"\n")] if whole or data[:1] == b"\n" else []
    return Log(lines, _line(rest), offset + len(data) - len(rest))


def _line(data: bytes) -> str:
    """Return a line without colours; of one that was drawn again and again, the last form."""
    text = _ESCAPES.sub("", data.decode("utf-8", "replace"))
    shown = next((part for part in reversed(text.split("\r")) if part.strip()), "")
    return console.masked(_UNSEEN.sub("", shown))


class PatchLine(NamedTuple):
    """A line of a patch. kind: file, place, added, removed or same."""

    kind: str
    text: str


def patch(text: str) -> list[PatchLine]:
    """Return the lines of git's patch, each with what it is."""
    return list(_patch_lines(text.split("\n")[: -1 if text.endswith("\n") else None]))


def _patch_lines(lines: list[str]) -> Iterator[PatchLine]:
    is_in_hunk = False
    for line in lines:
        if line.startswith(("diff --git ", "@@")):
            is_in_hunk = line.startswith("@@")
            yield PatchLine("place" if is_in_hunk else "file", _visible(line))
        elif is_in_hunk:
            yield PatchLine({"+": "added", "-": "removed"}.get(line[:1], "same"), _visible(line))
        else:
            yield PatchLine("file", _visible(line))


def _visible(line: str) -> str:
    return console.masked(_UNSEEN.sub("\ufffd", console.printable(line)))
