"""The files of a plugin's package, from a zip file or a folder. A zip file is not trusted."""

import keyword
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from skelebot.errors import SkelebotError, UsageError

MOST_FILES = 5_000
MOST_BYTES = 100_000_000

_LEFT_OUT = ("__pycache__", ".git")
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class File:
    """A file of a package; `path` begins with the package's name."""

    path: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Package:
    name: str
    files: tuple[File, ...]

    def write(self, folder: str) -> None:
        """Write the package into an empty folder. Raises SkelebotError and OSError."""
        for file in self.files:
            target = os.path.join(folder, file.path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                with file.open() as source:
                    data = source.read(file.size + 1)
            except _DAMAGED as error:
                raise SkelebotError(f"{file.path} cannot be read: {error}; make the zip file again") from None
            if len(data) != file.size:
                raise SkelebotError(f"{file.path} changed while it was read; run again")
            with open(target, "xb") as written:
                written.write(data)


@contextmanager
def opened(path: str) -> Iterator[Package]:
    """The package in a zip file or folder, whose files can be read inside the block.

    Raises UsageError where there is none, and SkelebotError for one that must not be installed.
    """
    if os.path.isdir(path):
        yield _package(path, *_of_folder(path))
    elif os.path.isfile(path):
        if os.path.getsize(path) > MOST_BYTES:
            raise _too_large(path)
        try:
            archive = zipfile.ZipFile(path)
        except _DAMAGED as error:
            raise SkelebotError(f"{path} is not a zip file: {str(error).lower()}") from None
        with archive:
            yield _package(path, *_of_zip(path, archive))
    else:
        raise UsageError(f"there is no zip file or folder {path}")


def _package(path: str, names: set[str], files: Iterable[File]) -> Package:
    if len(names) != 1:
        found = f"{len(names)}: {', '.join(sorted(names))}" if names else "none"
        raise SkelebotError(
            f"{path}: expected one Python package, a folder with an __init__.py; found {found}"
        )
    name = names.pop()
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        raise SkelebotError(f"{path}: {name!r} cannot be the name of a package; rename the folder")
    own = tuple(f for f in files if f.path.startswith(f"{name}/") and not _is_left_out(f.path))
    if len(own) > MOST_FILES or sum(file.size for file in own) > MOST_BYTES:
        raise _too_large(path)
    return Package(name, own)


def _too_large(path: str) -> SkelebotError:
    return SkelebotError(
        f"{path}: a plugin may have at most {MOST_FILES} files and {MOST_BYTES // 10**6} MB, unpacked; "
        "leave out what it does not need"
    )


def _is_left_out(path: str) -> bool:
    return any(part in _LEFT_OUT for part in path.split("/"))


# --- zip files ---


def _of_zip(path: str, archive: zipfile.ZipFile) -> tuple[set[str], list[File]]:
    """The names of the packages, and all files. One doubtful name refuses the whole archive."""
    members = archive.infolist()
    for member in members:
        if doubt := _doubt(member):
            raise SkelebotError(f"{path}: {member.filename!r} {doubt}; nothing was installed")
    paths = [member.filename for member in members]
    if len(set(paths)) != len(paths):
        raise SkelebotError(f"{path}: it contains a name twice; nothing was installed")
    tops = {name.split("/")[0] for name in paths if re.fullmatch(r"[^/]+/__init__\.py", name)}
    return tops, [_member_file(archive, member) for member in members if not member.is_dir()]


def _member_file(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> File:
    return File(member.filename, member.file_size, lambda: archive.open(member))


def _doubt(member: zipfile.ZipInfo) -> str | None:
    """Why a member must not be unpacked, or None."""
    name = member.filename
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or re.match("[A-Za-z]:", name) or any(p in ("", ".", "..") for p in parts):
        return "leads out of the folder"
    if "\\" in name or not name.isprintable():
        return "has a backslash or a control character"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    return "is encrypted" if member.flag_bits & 1 else None


# --- folders ---


def _of_folder(path: str) -> tuple[set[str], list[File]]:
    """The same for a folder, which is a package itself or has one in it."""
    if os.path.isfile(os.path.join(path, "__init__.py")):
        found = [os.path.abspath(path)]
    else:
        below = [entry.path for entry in os.scandir(path)]
        found = [one for one in below if os.path.isfile(os.path.join(one, "__init__.py"))]
    names = {os.path.basename(one) for one in found}
    return names, list(_files_below(found[0])) if len(found) == 1 else []


def _files_below(package: str) -> Iterator[File]:
    above = os.path.dirname(package)
    for folder, below, names in os.walk(package):
        below[:] = sorted(set(below) - set(_LEFT_OUT))
        for name in (*below, *sorted(names)):
            full = os.path.join(folder, name)
            found = os.lstat(full)
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                raise SkelebotError(f"{full} is neither a file nor a folder; replace it with a file")
            if name in names:
                yield File(os.path.relpath(full, above), found.st_size, _opener(full))


def _opener(path: str) -> Callable[[], IO[bytes]]:
    return lambda: open(path, "rb")
