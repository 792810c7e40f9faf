"""Which files an image leaves out: the patterns of .dockerignore, as the engine reads them.

https://docs.docker.com/build/concepts/context/#dockerignore-files
"""

import os
import posixpath
import re
from collections.abc import Sequence

from skelebot.errors import UsageError
from skelebot.files import PART

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
    """Decides, as the engine would, which paths are left out."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises UsageError for a pattern that is none."""
        rules = [rule for rule in map(_rule, patterns) if rule[1]]
        self._rules = [(keep, _compiled(path)) for keep, path in reversed(rules)]
        self._kept = [path + "/" for keep, path in rules if keep]
        self._simple = None if self._kept else _Simple([path for _, path in rules])

    def excludes(self, path: str) -> bool:
        """Whether `path`, from the project root with slashes, is left out: the last match decides."""
        for keep, regex in self._rules:
            if regex.fullmatch(path):
                return not keep
        return False

    def excludes_entry(self, path: str, name: str) -> bool:
        """The same for a path with that last part, none of whose folders is left out."""
        return self._simple.excludes(path, name) if self._simple else self.excludes(path)

    def skips(self, folder: str) -> bool:
        """Whether nothing below the excluded `folder` can be brought back."""
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
    """Whether a line brings files back, and its cleaned path; no path for a line that says nothing."""
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


def _compiled(path: str) -> re.Pattern[str]:
    try:
        # What lies below a folder that matches, matches.
        return re.compile(f"(?:{_regex(path)})(?:/.*)?", re.DOTALL)
    except re.error:
        raise UsageError(f"ignores: {path!r} is not a pattern") from None


def _regex(pattern: str) -> str:
    """The regular expression of a pattern: `**` crosses folders, `*` and `?` do not."""
    out, i = [], 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if pattern.startswith("**", i - 1):
            i += 1
            if pattern.startswith("/", i):
                i += 1
            out.append("(?:.*/)?" if i < len(pattern) else ".*")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\" and i < len(pattern):
            out.append(re.escape(pattern[i]))
            i += 1
        else:
            out.append(re.escape(char) if char in ".+()|{}$" else char)
    return "".join(out)


def literal(path: str) -> str:
    """The pattern that matches just this path."""
    escaped = re.sub(r"([*?\[\]\\!#])", r"\\\1", path)
    # A pattern loses the blanks around it, with or without a backslash.
    return re.sub(r"\A\s|\s\Z", r"[\g<0>]", escaped)


def of_user(root: str) -> tuple[str, ...]:
    """The lines of the project's own .dockerignore."""
    try:
        with open(
            os.path.join(root, ".dockerignore"), encoding="utf-8-sig", errors="surrogateescape"
        ) as file:
            return tuple(file.read().splitlines())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UsageError(f".dockerignore cannot be read: {(error.strerror or str(error)).lower()}") from None
