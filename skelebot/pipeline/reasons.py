"""Why a job runs: what has changed since its last success, one line for each part of its key."""

from collections.abc import Iterator, Mapping
from typing import Any

from skelebot.pipeline.key import HASHED, Key

_MOST = 5  # files or variables that a line names

Hashes = Mapping[str, object]  # of files by path, or of variables by name


def changed_parts(before: Key, now: Key) -> list[str]:
    """Return the names of the parts that differ."""
    return [part for part in dict.fromkeys((*before, *now)) if not _is_same(part, before, now)]


def _is_same(part: str, before: Key, now: Key) -> bool:
    then, today = before.get(part), now.get(part)
    # An engine that does not answer at once does not say which image has the base's name.
    return then == today or (part == "base image" and not (then and today))


def describe(
    parts: list[str], before: Key, now: Key, then: Mapping[str, Hashes], today: Mapping[str, Hashes]
) -> Iterator[str]:
    """Yield a line for each changed part.

    then, today: the hashes of the files of some parts by path; those of then may be lost.
    """
    for part in parts:
        detail = _detail(*(each.get(part) for each in ((then, today) if part in today else (before, now))))
        yield f"{part}: {detail or 'changed'}"


def differences(then: Hashes, today: Hashes) -> str:
    """Return which names are new, changed or gone."""
    changes = {
        "changed": [name for name in today if name in then and then[name] != today[name]],
        "new": [name for name in today if name not in then],
        "gone": [name for name in then if name not in today],
    }
    return "; ".join(f"{_some(names)} {what}" for what, names in changes.items() if names)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return ", ".join(sorted(names)[:_MOST]) + more


def _detail(then: Any, today: Any) -> str:
    if isinstance(then, dict) and isinstance(today, dict):
        return differences(then, today)
    if isinstance(then, list) and isinstance(today, list):
        before, now = _words(then), _words(today)
        return f"{now}; before: {before}" if before != now else f"another secret in {now}"
    return ""


def _text(word: Any) -> str:
    """Return a word of a command line, or a mapping as it is written."""
    if isinstance(word, list) and len(word) == 3:  # not in a damaged record
        return f"{word[0]}:{word[1]}{':ro' if word[2] else ''}"
    return str(word)


def _words(words: list[Any]) -> str:
    import shlex

    flat = map(_text, words)
    return shlex.join("***" if word.startswith(HASHED) else word for word in flat) or "none"
