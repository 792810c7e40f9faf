"""The files of a plugin's package, from a zip file or a folder. A zip file is not trusted."""

import keyword
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from skelebot import console
from skelebot.errors import SkelebotError, UsageError
from skelebot.files import private_folder

MOST_FILES = 5_000
MOST_BYTES = 100_000_000

_LEFT_OUT = ("__pycache__", ".git")
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class Package(NamedTuple):
    """A package, and the folder that holds its files."""

    name: str
    folder: str

    def write(self, folder: str) -> None:
        """Write the package into an empty folder. Raises OSError."""
        for path in _files_below(self.folder):
            target = os.path.join(folder, self.name, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(os.path.join(self.folder, path), target)


@contextmanager
def opened(path: str) -> Iterator[Package]:
    """The package in a zip file or folder, whose files can be read inside the block.

    Raises UsageError where there is none, and SkelebotError for one that must not be installed.
    """
    if os.path.isdir(path):
        yield _of_folder(path)
    elif os.path.isfile(path):
        with private_folder() as scratch:
            yield _of_zip(path, scratch)
    else:
        raise UsageError(f"there is no zip file or folder {path}")


def _checked_name(path: str, names: set[str]) -> str:
    if len(names) != 1:
        found = f"{len(names)}: {', '.join(sorted(names))}" if names else "none"
        raise SkelebotError(
            f"{path}: expected one Python package, a folder with an __init__.py; found {found}"
        )
    name = names.pop()
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        raise SkelebotError(f"{path}: {name!r} cannot be the name of a package; rename the folder")
    return name


def _check_sizes(path: str, sizes: Sequence[int]) -> None:
    if len(sizes) > MOST_FILES or sum(sizes) > MOST_BYTES:
        limits = f"{console.counted(MOST_FILES, 'file')} and {console.size(MOST_BYTES)}"
        raise SkelebotError(
            f"{path}: a plugin may have at most {limits}, unpacked; leave out what it does not need"
        )


# --- zip files ---


def _of_zip(path: str, scratch: str) -> Package:
    """Unpack the package into an empty folder. One doubtful name refuses the whole archive."""
    _check_sizes(path, [os.path.getsize(path)])
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpacked(path, archive, scratch)
    except _DAMAGED as error:
        raise SkelebotError(f"{path} is not a readable zip file: {error}; make it again") from None


def _unpacked(path: str, archive: zipfile.ZipFile, scratch: str) -> Package:
    members = archive.infolist()
    for member in members:
        if doubt := _doubt(member):
            raise SkelebotError(f"{path}: {member.filename!r} {doubt}; nothing was installed")
    paths = [member.filename for member in members]
    if len(set(paths)) != len(paths):
        raise SkelebotError(f"{path}: it contains a name twice; nothing was installed")
    tops = {name.split("/")[0] for name in paths if re.fullmatch(r"[^/]+/__init__\.py", name)}
    name = _checked_name(path, tops)
    own = [m for m in members if m.filename.startswith(f"{name}/") and not _is_left_out(m.filename)]
    _check_sizes(path, [member.file_size for member in own])
    archive.extractall(scratch, own)
    return Package(name, os.path.join(scratch, name))


def _is_left_out(path: str) -> bool:
    return any(part in _LEFT_OUT for part in path.split("/"))


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


def _of_folder(path: str) -> Package:
    """The package that a folder is, or has in it."""
    folders = [os.path.abspath(path)]
    if not _is_package(path):
        folders = [entry.path for entry in os.scandir(path) if _is_package(entry.path)]
    name = _checked_name(path, {os.path.basename(folder) for folder in folders})
    _check_sizes(path, [os.path.getsize(os.path.join(folders[0], file)) for file in _files_below(folders[0])])
    return Package(name, folders[0])


def _is_package(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "__init__.py"))


def _files_below(package: str) -> Iterator[str]:
    """The paths of a package's files. Raises SkelebotError for what is neither a file nor a folder."""
    for folder, below, names in os.walk(package):
        below[:] = set(below) - set(_LEFT_OUT)
        for name in (*below, *names):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise SkelebotError(f"{path} is neither a file nor a folder; replace it with a file")
            if name in names:
                yield os.path.relpath(path, package)
