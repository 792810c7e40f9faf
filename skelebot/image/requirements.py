"""pip's requirements files: which files they name, what they need, and whether uv reads them as pip does.

https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

import codecs
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from skelebot.console import masked
from skelebot.errors import UsageError
from skelebot.files import open_regular, reason

# What needs no parser of PEP 508, whose import takes a fifth of a run's start: name, name>=1.2,<3
_BOUND = r"([=!<>]=|[<>])[0-9]+(\.[0-9]+)*"
_PLAIN = re.compile(rf"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?({_BOUND}(,{_BOUND})*)?")

_SHORT = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    "-i": "--index-url",
    "-f": "--find-links",
}
_WITHOUT_VALUE = {"--no-index", "--pre", "--prefer-binary", "--require-hashes"}
_NESTED = {"--requirement", "--constraint"}
# Those that uv reads as pip does where they have a line of their own.
_SHARED = {
    *_SHORT.values(), "--extra-index-url", "--no-index", "--no-binary", "--only-binary", "--require-hashes"
}  # fmt: skip

ARCHIVES = (".whl", ".tar.gz", ".zip")  # what both installers take
PIP_ARCHIVES = (".tgz", ".tar", ".tar.bz2", ".tbz", ".tar.xz", ".txz")  # what pip takes too


@dataclass(frozen=True)
class Requirements:
    """What a requirements file says, with all the files that it names with -r and -c.

    git: whether git has to fetch something. only_pip: the first line that uv does not read as pip does.
    hashed: whether there are hashes. require_hashes: the line that asks for the hash of every package.
    """

    files: tuple[str, ...]
    git: bool = False
    only_pip: str | None = None
    hashed: bool = False
    require_hashes: str | None = None


def read(root: str, path: str, inside: Callable[[str], str]) -> Requirements:
    """Read a requirements file. inside: gives a path from the project root, or raises UsageError.

    Raises UsageError with the line of what is wrong.
    """
    files: list[str] = []
    only_pip: list[str] = []
    require_hashes: list[str] = []
    git = hashed = False
    waiting = [inside(path)]
    while waiting:
        path = waiting.pop(0)
        if path in files:
            continue
        files.append(path)
        for number, line in _lines(root, path):
            place = f"{path}:{number}"
            requirement, options = _parse(line, place)
            only_pip += [f"{place}: {text}" for text in _only_pip(requirement, options)]
            require_hashes += [place for name, _ in options if name == "--require-hashes"]
            hashed |= any(name in ("--hash", "--require-hashes") for name, _ in options)
            git |= "git+" in line
            for nested in (v for name, v in options if name in _NESTED and "://" not in v):
                try:
                    waiting.append(inside(os.path.join(os.path.dirname(path), nested)))
                except UsageError as error:
                    raise UsageError(f"{place}: {error}") from None
    first = (next(iter(only_pip), None), hashed, next(iter(require_hashes), None))
    return Requirements(tuple(files), git, *first)


def is_plain(text: str) -> bool:
    """Tell whether a text is surely a requirement, without a parser."""
    return _PLAIN.fullmatch(text) is not None


def refuse_password(text: str, place: str = "") -> None:
    """Raise UsageError for an address with a password, which an image would keep for everyone to see."""
    if (shown := masked(text)) != text:
        raise UsageError(
            f"{place}{': ' if place else ''}the image would keep the password in {shown!r}; leave it out, "
            "put it into ~/.netrc and add netrc to build.inherit"
        )


def _lines(root: str, path: str) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers: without comments, and joined where one ends in a backslash."""
    try:
        with open_regular(os.path.join(root, path)) as file:
            data = file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if wide else "utf-8-sig", "replace")
    joined, first = "", 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        is_comment = line.lstrip().startswith("#")
        first = first if joined else number
        if line.endswith("\\") and not is_comment:
            joined += line.rstrip("\\")
            continue
        whole = re.sub(r"(^|\s+)#.*$", "", joined if is_comment else joined + line).strip()
        joined = ""
        if whole:
            yield first, whole


def _parse(line: str, place: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the requirement of a line, or an empty text, and its options with their values."""
    refuse_password(line, place)
    requirement, _, text = (f" {line}").partition(" -")
    try:
        words = shlex.split(f"-{text}" if text else "")
    except ValueError as error:
        raise UsageError(f"{place}: {str(error).lower()} in {line!r}") from None
    options: list[tuple[str, str]] = []
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            name, has_value, value = word.partition("=")
        else:
            name, value = _SHORT.get(word[:2], word[:2]), word[2:].removeprefix("=")
            has_value = value
        if not has_value and name not in _WITHOUT_VALUE and words:
            value = words.pop(0)
        options.append((name, value))
    return requirement.strip(), options


def _only_pip(requirement: str, options: list[tuple[str, str]]) -> Iterator[str]:
    """Yield what uv reads otherwise than pip, or not at all."""
    for name, value in options:
        if name not in (("--hash",) if requirement else _SHARED):
            yield f"{requirement} {name}".strip()
        elif name == "--editable" and re.match(r"\w+\+", value):
            yield f"--editable {value}"
    if requirement and not _uv_reads(requirement):
        yield requirement


def _uv_reads(requirement: str) -> bool:
    if is_plain(requirement) or re.match(r"(git\+)?\w+://", requirement):
        return True
    if re.match(r"[./~]|\w+\+", requirement) or requirement.endswith((*ARCHIVES, *PIP_ARCHIVES)):
        return not requirement.endswith(PIP_ARCHIVES) and not re.match(r"\w+\+", requirement)
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(requirement) is not None
    except InvalidRequirement:
        return False
