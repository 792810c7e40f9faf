"""Which files an image leaves out: the patterns of .dockerignore, as the engine reads them.

https://docs.docker.com/build/concepts/context/#dockerignore-files
"""

import itertools
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from functools import cache

from skelebot.errors import UsageError
from skelebot.files import PART, open_regular, reason

# Never wanted in an image; `ignores: ["!.env"]` brings one back.
DEFAULTS = (
    "**/.git",
    "**/.env",
    "**/.venv",
    "**/venv",
    "**/__pycache__",
    "**/*.pyc",
    "**/.pytest_cache",
    "**/.mypy_cache",
    "**/.ruff_cache",
    "**/.ipynb_checkpoints",
    "**/.Rproj.user",
    "**/renv/library",
    "**/.DS_Store",
    f"**/*{PART}",
    ".skelebot",
    ".dockerignore",
)


class Ignores:
    """Decide, as the engine would, which paths are left out."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raise UsageError for what is not a pattern."""
        rules = [rule for rule in map(_rule, patterns) if rule[1]]
        self._rules = [(keep, _compiled(path)) for keep, path in reversed(rules)]
        self._kept = [path + "/" for keep, path in rules if keep]
        paths = [path for _, path in rules]
        self._simple = None if self._kept or any(map(_has_many_stars, paths)) else _Simple(paths)

    def excludes(self, path: str) -> bool:
        """Tell whether `path`, from the project root with slashes, is left out."""
        folders = [path[:i] for i, char in enumerate(path) if char == "/"] if self._kept else []
        return self._matches(path) or any(self._matches(f) and self.skips(f) for f in folders)

    def excludes_entry(self, path: str, name: str) -> bool:
        """Tell the same for a path with that last part, none of whose folders is skipped."""
        return self._simple.excludes(path, name) if self._simple else self._matches(path)

    def _matches(self, path: str) -> bool:
        """Tell whether the last pattern that matches a path leaves it out."""
        for keep, matches in self._rules:
            if matches(path):
                return not keep
        return False

    def skips(self, folder: str) -> bool:
        """Tell whether a walk skips an excluded folder: no exception begins with its name."""
        below = folder + "/"
        return not any(path.startswith(below) for path in self._kept)


class _Simple:
    """Patterns without exceptions, for which a look at the last part of a path mostly suffices."""

    def __init__(self, paths: list[str]) -> None:
        anywhere = [p for p in paths if p.startswith("**/") and not re.search(r"/|\*\*", p[3:])]
        names = [p[3:] for p in anywhere]
        others = [p for p in paths if p not in anywhere]
        self._names = set(filter(_is_literal, names))
        self._paths = set(filter(_is_literal, others))
        self._name_globs = _alternatives([p for p in names if not _is_literal(p)])
        self._path_globs = _alternatives([p for p in others if not _is_literal(p)])

    def excludes(self, path: str, name: str) -> bool:
        return (
            name in self._names
            or path in self._paths
            or (self._name_globs is not None and self._name_globs.fullmatch(name) is not None)
            or (self._path_globs is not None and self._path_globs.fullmatch(path) is not None)
        )


def _alternatives(patterns: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(_regex, patterns)), re.DOTALL) if patterns else None


def _is_literal(pattern: str) -> bool:
    return not re.search(r"[*?\[\]\\^]", pattern)


def _rule(pattern: str) -> tuple[bool, str]:
    """Return whether a line is an exception, and its cleaned path; no path for a line without a pattern."""
    if pattern.startswith("#"):
        return False, ""
    pattern = pattern.strip()
    keep = pattern.startswith("!")
    if keep:
        pattern = pattern[1:].strip()
    if not pattern:
        return keep, ""
    path = posixpath.normpath(pattern).lstrip("/")
    return keep, "" if path == "." else path


_Matcher = Callable[[str], object]

# How a regular expression says `*`, `**` and a final `**`.
_IN_FOLDER, _FOLDERS, _ALL = "[^/]*", "(?:.*/)?", ".*"


@cache  # each job of a pipeline has the default patterns
def _has_many_stars(path: str) -> bool:
    """Tell whether a regular expression takes too long: its time grows to the power of the stars."""
    return sum(part in (_IN_FOLDER, _FOLDERS) for part in _parts(path)) > 2


@cache
def _compiled(path: str) -> _Matcher:
    """Return what finds a cleaned pattern in a path, or in the path of a folder above it."""
    try:
        if _has_many_stars(path):
            return _linear(_parts(path))
        # What lies below a folder that matches, matches.
        return re.compile(f"(?:{_regex(path)})(?:/.*)?", re.DOTALL).fullmatch
    except re.error:
        raise UsageError(f"ignores: {path!r} is not a pattern") from None


def _linear(parts: list[str]) -> _Matcher:
    """Return a matcher that goes through the parts once, with every place where the last one can end."""
    steps: list[str | re.Pattern[str]] = []
    for is_star, group in itertools.groupby(parts, lambda part: part in (_IN_FOLDER, _FOLDERS, _ALL)):
        same = list(group)
        steps += same if is_star else [re.compile("".join(same), re.DOTALL)]

    def matches(path: str) -> bool:
        ends = {0}
        for step in steps:
            if not ends or step == _ALL:
                break
            if step == _IN_FOLDER:
                ends = {i for end in ends for i in range(end, (path + "/").index("/", end) + 1)}
            elif step == _FOLDERS:
                ends |= {i + 1 for i in range(min(ends), len(path)) if path[i] == "/"}
            elif isinstance(step, re.Pattern):
                ends = {match.end() for end in ends if (match := step.match(path, end))}
        else:
            return any(end == len(path) or path[end] == "/" for end in ends)
        return bool(ends)

    return matches


def _regex(pattern: str) -> str:
    return "".join(_parts(pattern))


def _parts(pattern: str) -> list[str]:
    """Return the regular expression of a pattern in parts: `**` crosses folders, `*` and `?` do not."""
    parts, i, is_in_class = [], 0, False
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if pattern.startswith("**", i - 1):
            i += 1
            if pattern.startswith("/", i):
                i += 1
            parts.append(_FOLDERS if i < len(pattern) else _ALL)
        elif char == "*":
            parts.append(_IN_FOLDER)
        elif char == "?":
            parts.append("[^/]")
        elif char == "\\" and i < len(pattern):
            parts.append(re.escape(pattern[i]))
            i += 1
        else:
            is_literal = char in ".+()|{}$&~" or (is_in_class and char == "[")
            parts.append(re.escape(char) if is_literal else char)
            is_in_class = char == "[" or (is_in_class and char != "]")
    return parts


def literal(path: str) -> str:
    """Return the pattern that matches only this path."""
    escaped = re.sub(r"([*?\[\]\\!#])", r"\\\1", path)
    # A pattern loses the blanks around it, with or without a backslash.
    return re.sub(r"\A\s|\s\Z", r"[\g<0>]", escaped)


def of_user(root: str) -> tuple[str, ...]:
    """Return the lines of the project's own .dockerignore."""
    try:
        with open_regular(os.path.join(root, ".dockerignore")) as file:
            return tuple(file.read().decode("utf-8-sig", "surrogateescape").splitlines())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UsageError(f".dockerignore cannot be read: {reason(error)}") from None
