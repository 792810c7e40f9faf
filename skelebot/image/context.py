"""The files that a build sends to the engine: those of the project less the ignored ones."""

import os
from collections.abc import Collection, Iterable
from typing import NamedTuple

from skelebot import files
from skelebot.errors import SkelebotError
from skelebot.image.ignores import Ignores


class ContextEntry(NamedTuple):
    """A file, folder or link of the context; `path` is from the project root, with slashes."""

    path: str
    file: str
    stat: os.stat_result


def walk(root: str, ignores: Ignores, shadowed: Collection[str] = (), below: str = "") -> list[ContextEntry]:
    """List the context, sorted folder by folder, without the paths `shadowed` and what is below them.

    below: a folder to which the list is limited. Raises SkelebotError for a folder that cannot be read.
    """
    found: list[ContextEntry] = []
    _walk(os.path.join(root, below), f"{below}/" if below else "", ignores, shadowed, found)
    return found


def _walk(
    folder: str, prefix: str, ignores: Ignores, shadowed: Collection[str], found: list[ContextEntry]
) -> None:
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda e: e.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(prefix.rstrip("/") or ".", error) from None
    for entry in entries:
        path = prefix + entry.name
        if path in shadowed:
            continue
        excluded = ignores.excludes_entry(path, entry.name)
        if not excluded:
            try:  # `suppress` would take a twentieth of the walk's time
                found.append(ContextEntry(path, entry.path, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue  # what is gone by now is not in the context
        if entry.is_dir(follow_symlinks=False) and not (excluded and ignores.skips(path)):
            _walk(entry.path, path + "/", ignores, shadowed, found)


def unreadable(path: str, error: OSError) -> SkelebotError:
    return SkelebotError(f"{path} cannot be read: {files.reason(error)}; fix that or add it to `ignores`")


def is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == f or path.startswith(f + "/") for f in folders)
