"""What a run has made: listed, compared bit by bit, and copied out."""

import fnmatch
import os
import stat
from collections.abc import Collection, Iterator
from typing import NamedTuple

from skelebot import files
from skelebot.errors import SkelebotError
from skelebot.files import reason


class Comparison(NamedTuple):
    """same: the paths that are equal; differing: how each other path differs, by its path."""

    same: tuple[str, ...]
    differing: dict[str, str]


def listing(top: str, paths: Collection[str]) -> dict[str, os.stat_result]:
    """Return everything that is at or below these paths of a folder, by its path from there."""
    found: dict[str, os.stat_result] = {}
    for path in paths:
        if path and _is_behind_link(top, os.path.dirname(path)):
            continue
        try:
            status = os.lstat(os.path.join(top, path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        found[path] = status
        if stat.S_ISDIR(status.st_mode):
            found |= dict(_below(top, path))
    return dict(sorted(found.items()))


def _is_behind_link(top: str, folder: str) -> bool:
    return os.path.realpath(os.path.join(top, folder)) != os.path.normpath(
        os.path.join(os.path.realpath(top), folder)
    )


def _below(top: str, folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(os.path.join(top, folder)) as entries:
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            yield path, entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                yield from _below(top, path)


def compare(a: str, b: str, paths: Collection[str], ignored: Collection[str] = ()) -> Comparison:
    """Compare what is at these paths of two folders: content, permissions, links.

    ignored: paths and patterns that do not count. Raises SkelebotError for what cannot be read.
    """
    try:
        before, after = listing(a, paths), listing(b, paths)
        same, differing = [], {}
        for path in sorted({*before, *after}):
            if _is_ignored(path, ignored):
                continue
            x, y = before.get(path), after.get(path)
            how = "missing now" if y is None else "new" if x is None else _how(a, b, path, x, y)
            if how:
                differing[path] = how
            elif x and not stat.S_ISDIR(x.st_mode):
                same.append(path)
    except OSError as error:
        raise SkelebotError(f"{error.filename} cannot be compared: {reason(error)}") from None
    return Comparison(tuple(same), differing)


def _is_ignored(path: str, ignored: Collection[str]) -> bool:
    return any(
        path == each or path.startswith(f"{each.rstrip('/')}/") or fnmatch.fnmatchcase(path, each)
        for each in ignored
    )


def _how(a: str, b: str, path: str, x: os.stat_result, y: os.stat_result) -> str:
    """Return how two files differ; "" if they do not."""
    first, second = os.path.join(a, path), os.path.join(b, path)
    if stat.S_IFMT(x.st_mode) != stat.S_IFMT(y.st_mode):
        return "of another type"
    if stat.S_ISLNK(x.st_mode):
        return "" if os.readlink(first) == os.readlink(second) else "another link"
    if stat.S_ISREG(x.st_mode) and (x.st_size != y.st_size or not is_equal(first, second)):
        return "other content"
    return "other permissions" if x.st_mode != y.st_mode else ""


def is_equal(first: str, second: str) -> bool:
    """Tell whether two files have the same content. Raises OSError."""
    with files.open_regular(first) as x, files.open_regular(second) as y:
        while True:
            block, other = x.read(1 << 20), y.read(1 << 20)
            if block != other:
                return False
            if not block:
                return True


def size(folder: str) -> int:
    """Return how many bytes of the disk a folder takes."""
    total = 0
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            try:
                total += os.lstat(os.path.join(above, name)).st_blocks * 512
            except OSError:  # gone meanwhile
                continue
    return total
