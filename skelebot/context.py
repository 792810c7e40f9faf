"""What a build sends to the engine: the project's files less the ignored ones.

The patterns are those of .dockerignore as the engine reads them:
https://docs.docker.com/build/concepts/context/#dockerignore-files
"""

import io
import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO

from skelebot.errors import SkelebotError, UsageError

DOCKERFILE = ".skelebot.Dockerfile"

# Never wanted in an image; `ignores: ["!.env"]` brings one back.
DEFAULT_IGNORES = (
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
    "**/.DS_Store",
    ".skelebot",
)


class Ignores:
    """Decides, as the engine would, which paths are left out."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises UsageError for a pattern that is none."""
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        self._kept_prefixes: list[str] = []
        for pattern in patterns:
            keep, path = _cleaned(pattern)
            if not path:
                continue
            try:
                # What lies below a folder that matches, matches.
                self._rules.append((keep, re.compile(_regex(path) + r"(?:/.*)?", re.DOTALL)))
            except re.error:
                raise UsageError(f"ignores: {pattern!r} is not a pattern") from None
            if keep:
                self._kept_prefixes.append(path + "/")
        self._rules.reverse()

    def excludes(self, path: str) -> bool:
        """Whether `path`, from the project root with slashes, is left out: the last match decides."""
        for keep, regex in self._rules:
            if regex.fullmatch(path):
                return not keep
        return False

    def skips(self, folder: str) -> bool:
        """Whether nothing below the excluded `folder` can be brought back."""
        below = folder + "/"
        return not any(p.startswith(below) or p.startswith("**") for p in self._kept_prefixes)


def _cleaned(pattern: str) -> tuple[bool, str]:
    pattern = pattern.strip()
    keep = pattern.startswith("!")
    if keep:
        pattern = pattern[1:].strip()
    if not pattern or (pattern.startswith("#") and not keep):
        return keep, ""
    path = posixpath.normpath(pattern).lstrip("/")
    return keep, "" if path == "." else path


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
    return re.sub(r"([*?\[\]\\!#])", r"\\\1", path)


def user_ignores(root: str) -> tuple[str, ...]:
    """The lines of the project's own .dockerignore."""
    try:
        with open(os.path.join(root, ".dockerignore"), encoding="utf-8-sig") as file:
            return tuple(line for line in file.read().splitlines() if not line.startswith("#"))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f".dockerignore cannot be read: {error}") from None


def walk(root: str, ignores: Ignores) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file, link and folder of the context, as its path from the root, sorted."""
    yield from _walk(root, "", ignores)


def _walk(folder: str, prefix: str, ignores: Ignores) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda e: e.name)
    except OSError as error:
        raise _unreadable(prefix.rstrip("/") or ".", error) from None
    for entry in entries:
        path = prefix + entry.name
        excluded = ignores.excludes(path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if not excluded:
            yield path, entry
        if is_folder and not (excluded and ignores.skips(path)):
            yield from _walk(entry.path, path + "/", ignores)


def _unreadable(path: str, error: OSError) -> SkelebotError:
    reason = (error.strerror or str(error)).lower()
    return SkelebotError(f"{path} cannot be read: {reason}; mend that or add it to `ignores`")


def write_tar(stream: IO[bytes], root: str, ignores: Ignores, dockerfile: str) -> None:
    """Writes the context as a tar with the Dockerfile in it, which the engine takes out again.

    Raises SkelebotError for a file that cannot be read.
    """
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        # A .dockerignore that names both keeps them out of `COPY .`.
        _add_text(tar, ".dockerignore", f".dockerignore\n{DOCKERFILE}\n")
        _add_text(tar, DOCKERFILE, dockerfile)
        for path, entry in walk(root, ignores):
            if path not in (".dockerignore", DOCKERFILE):
                _add_entry(tar, path, entry)


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _add_entry(tar: tarfile.TarFile, path: str, entry: os.DirEntry[str]) -> None:
    try:
        info = tar.gettarinfo(entry.path, path)
        if info is None or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
            return  # sockets and pipes have no content
        # Whose checkout it is does not matter in the image.
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mode = stat.S_IMODE(info.mode)
        if info.isreg():
            with open(entry.path, "rb") as file:
                tar.addfile(info, file)
        else:
            tar.addfile(info)
    except FileNotFoundError:
        return  # gone since the folder was listed
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise _unreadable(path, error) from None
