"""What a folder artifact's folder holds: files of a stored version, and others, which a pull keeps."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TypeAlias

from skelebot.errors import SkelebotError
from skelebot.files import replace_file
from skelebot.project.state import FOLDER, own_folder

# The paths in a folder; of each file its size and when it was last written, which change with its content.
Contents: TypeAlias = Mapping[str, tuple[int, ...]]


def scan(folder: str) -> Contents:
    """Raises OSError."""
    return dict(_walk(folder))


def _walk(folder: str, inner: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    with os.scandir(os.path.join(folder, inner)) as entries:
        for entry in entries:
            path = os.path.join(inner, entry.name)
            if entry.is_dir(follow_symlinks=False):
                yield path, ()
                yield from _walk(folder, path)
            else:
                stat = entry.stat(follow_symlinks=False)
                yield path, (stat.st_size, stat.st_mtime_ns)


def keep_others(old: str, new: str, known: Contents) -> None:
    """Copy what no push or pull knows from the old folder to the new one, which has the version's files.

    Raises SkelebotError if that would replace a file of the version, and OSError.
    """
    for path, stamp in sorted(scan(old).items()):
        source, copy = os.path.join(old, path), os.path.join(new, path)
        is_of_version = os.path.lexists(copy) and _is_folder(copy) == _is_folder(source)
        if is_of_version or known.get(path) == stamp:
            continue
        try:
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            _copy(source, copy)
        except (FileExistsError, NotADirectoryError):
            raise SkelebotError(f"{source} is in the way of the version's files; move it away") from None


def _copy(source: str, copy: str) -> None:
    if _is_folder(source):
        os.mkdir(copy)
        return
    try:
        os.link(source, copy, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # another file system, or one without hard links
        shutil.copy2(source, copy, follow_symlinks=False)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


# --- what pushes and pulls know, in the project's `.skelebot` ---


def load(root: str, folder: str) -> Contents:
    with suppress(OSError, ValueError, AttributeError, TypeError), open(_record(root, folder), "rb") as file:
        return {path: tuple(stamp) for path, stamp in json.load(file).items()}
    return {}


def save(root: str, folder: str, contents: Contents) -> None:
    """A project that cannot be written has no record; then the next pull keeps more files."""
    with suppress(OSError, SkelebotError):
        own_folder(root)
        record = _record(root, folder)
        os.makedirs(os.path.dirname(record), exist_ok=True)
        replace_file(record, json.dumps(dict(contents)).encode())


def _record(root: str, folder: str) -> str:
    name = hashlib.sha256(os.path.realpath(folder).encode(errors="surrogateescape")).hexdigest()[:32]
    return os.path.join(root, FOLDER, "artifacts", f"{name}.json")
