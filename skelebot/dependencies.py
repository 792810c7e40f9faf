"""A dependency entry becomes the words an installer takes and the files it needs."""

import os
import re
from dataclasses import dataclass

from skelebot.errors import ConfigError, UsageError

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9._, -]*\])?)\s*=\s*([^=\s].*)")
_NESTED = re.compile(r"\s*(?:-r|--requirement|-c|--constraint)[=\s]\s*(\S+)")


@dataclass(frozen=True)
class Dependency:
    """What one entry means to pip or uv: the words that name it, the project's files they refer to."""

    entry: str
    words: tuple[str, ...]
    files: tuple[str, ...] = ()


def python(root: str, entries: tuple[str, ...]) -> tuple[Dependency, ...]:
    """The Python entries of a project. Raises ConfigError with a line for each wrong one."""
    found, problems = [], []
    for number, entry in enumerate(entries):
        try:
            found.append(_python(root, entry))
        except UsageError as error:
            problems.append(f"skelebot.yaml: dependencies[{number}]: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def _python(root: str, entry: str) -> Dependency:
    kind, colon, rest = entry.partition(":")
    if colon and kind == "req":
        return Dependency(entry, ("-r", _inside(root, rest)), tuple(_requirement_files(root, rest)))
    if colon and kind == "file":
        path = _inside(root, rest)
        return Dependency(entry, (f"./{path}",), (path,))
    return Dependency(entry, (_requirement(entry),))


def _requirement(entry: str) -> str:
    """The entry as a requirement of PEP 508; `numpy=1.26.4` is short for `numpy==1.26.4`."""
    from packaging.requirements import InvalidRequirement, Requirement  # only to build or install

    name, marker, rest = entry.partition(";")
    pin = _PIN.fullmatch(name.strip())
    text = f"{pin[1]}=={pin[2]}{marker}{rest}" if pin else entry
    try:
        return str(Requirement(text))
    except InvalidRequirement:
        raise UsageError(
            f"expected a package, as in numpy, numpy=1.26.4 or numpy>=1.26,<3; found {entry!r}"
        ) from None


def _inside(root: str, path: str) -> str:
    """The path from the project root, normalized. Raises UsageError for a file outside or missing."""
    clean = os.path.normpath(path)
    if not path or os.path.isabs(clean) or clean.startswith("..") or "\0" in path:
        raise UsageError(f"expected a file inside the project, found {path!r}")
    if not os.path.isfile(os.path.join(root, clean)):
        raise UsageError(f"there is no file {path!r} in the project")
    return clean


def _requirement_files(root: str, path: str, seen: tuple[str, ...] = ()) -> list[str]:
    """A requirements file and all that it names with -r and -c."""
    path = _inside(root, path)
    if path in seen:
        return []
    files = [path]
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        for match in filter(None, map(_NESTED.match, file)):
            nested = os.path.join(os.path.dirname(path), match[1])
            if "://" not in match[1]:
                files += _requirement_files(root, nested, (*seen, path))
    return list(dict.fromkeys(files))
