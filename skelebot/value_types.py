"""The types of args and params: which texts each takes, and how messages and the help describe them."""

import math
import re
from datetime import date

from skelebot.model import Arg, Param

# What is read as Python reads it, but for blanks, `1_000`, digits of other scripts, `nan` and `inf`:
# other programs and other languages have to read it too.
_FORMS = {
    "int": r"[+-]?[0-9]+",
    "float": r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?",
    "date": r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "path": r"(?s:.+)",
    "file": r"(?s:.*[^/])",  # with a slash at its end, it would be a folder
}
NOUNS = {
    "text": "text",
    "int": "a whole number",
    "float": "a number",
    "date": "a date as YYYY-MM-DD",
    "path": "a path from the project's root",
    "file": "a file, by its path from the project's root",
}
ORDERED = ("int", "float", "date")  # the types with limits


def parsed(kind: str, text: str) -> int | float | date | str:
    """Return what a text of a type stands for. Raises ValueError if it is not of that type."""
    if kind in _FORMS and not re.fullmatch(_FORMS[kind], text):
        raise ValueError
    if kind == "int":
        return int(text)
    if kind == "float":
        if not math.isfinite(number := float(text)):
            raise ValueError
        return number
    return date.fromisoformat(text) if kind == "date" else text


def is_of(kind: str, text: str) -> bool:
    try:
        parsed(kind, text)
    except ValueError:
        return False
    return True


def mismatch(of: Arg | Param, text: str) -> str | None:
    """Return what a value should be instead, or None if it fits. Whether a file exists is not asked."""
    return None if _fits(of, text) else expectation(of)


def _fits(of: Arg | Param, text: str) -> bool:
    if not is_of(of.type, text):
        return False
    # 0.10 is the choice 0.1.
    chosen = not of.choices or parsed(of.type, text) in {parsed(of.type, choice) for choice in of.choices}
    return chosen and _is_within(of, text) and _matches(of, text)


def _is_within(of: Arg | Param, text: str) -> bool:
    return (of.min is None or not exceeds(of.type, of.min, text)) and (
        of.max is None or not exceeds(of.type, text, of.max)
    )


def exceeds(kind: str, text: str, limit: str) -> bool:
    """Whether one value of an ordered type is above another."""
    return parsed(kind, text) > parsed(kind, limit)  # type: ignore[operator]


def _matches(of: Arg | Param, text: str) -> bool:
    return of.pattern is None or re.fullmatch(of.pattern, text) is not None


def expectation(of: Arg | Param) -> str:
    """Describe the values that fit, as in `a number from 0 to 1`."""
    if of.choices:
        return " or ".join(of.choices)
    matching = f" that matches {of.pattern}" if of.pattern is not None else ""
    return NOUNS[of.type] + _range(of) + matching


def _range(of: Arg | Param) -> str:
    comma = "," if of.type == "date" else ""
    if of.min is not None and of.max is not None:
        return f"{comma} from {of.min} to {of.max}"
    if of.min is not None:
        return f"{comma} from {of.min} on" if of.type == "date" else f" of at least {of.min}"
    if of.max is not None:
        return f"{comma} up to {of.max}" if of.type == "date" else f" of at most {of.max}"
    return ""


def facts(of: Arg | Param) -> list[str]:
    """Describe the type for the help; nothing if any text fits."""
    return [expectation(of).removeprefix("a ")] if of.type != "text" or of.pattern is not None else []
