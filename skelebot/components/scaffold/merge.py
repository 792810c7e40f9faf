"""What a change of the template means for one file of the project."""

import os
import tempfile
from dataclasses import dataclass, replace

from skelebot import git
from skelebot.components.scaffold.generate import Files, NewFile
from skelebot.components.scaffold.new import keeps_existing_folder
from skelebot.components.scaffold.record import RECORD
from skelebot.errors import SkelebotError

_MOST_CONFLICTS = 127  # which git counts; a higher exit code is an error

BOTH_CHANGED = "the template and you have both changed it"
OCCUPIED = "something else is at this path, so the template's file was left out"
_LEFT_ALONE = "kept: removed from the template but changed here"


@dataclass(frozen=True)
class Change:
    """What becomes of a file, and what is printed about it.

    new: its new content; None: it is removed. leave: nothing happens to it. look: why the user has to look
    at it.
    """

    note: str
    new: NewFile | None = None
    leave: bool = False
    look: str = ""


def file_change(root: str, path: str, before: Files, after: Files, label: str, scratch: str) -> Change | None:
    """The change of one file; None if there is nothing to do. Raises SkelebotError."""
    old, fresh = before.get(path), after.get(path)
    target = os.path.join(root, path)
    if old == fresh:
        return None
    if os.path.lexists(target) and (os.path.islink(target) or not os.path.isfile(target)):
        return _occupied(target, fresh)
    mine = _read(target)
    if mine:
        old, fresh = (file and _with_line_ends(file, mine.content) for file in (old, fresh))
    if mine and fresh:
        fresh = _keep_unchanged(mine, old, fresh)
    if mine == fresh or (fresh and keeps_existing_folder(root, path)):
        return None
    if path == RECORD or _content(mine) in (_content(old), _content(fresh)):
        return Change("changed" if old and fresh else "new" if fresh else "removed", fresh)
    if mine is None:
        return Change("skipped: you removed it", leave=True)
    if fresh is None:
        return Change(_LEFT_ALONE, leave=True)
    return _merge(mine.content, _content(old) or b"", fresh, label, scratch)


def _occupied(target: str, fresh: NewFile | None) -> Change:
    """The change of a file in whose place is a folder, a link or the like."""
    if fresh is None:
        return Change(_LEFT_ALONE, leave=True)
    if os.path.islink(target) or not os.path.isdir(target):
        return Change("skipped: not an ordinary file here", leave=True, look=OCCUPIED)
    return Change("new", fresh)  # if the folder goes, see update._beside_folders


def _with_line_ends(file: NewFile, like: bytes) -> NewFile:
    """The file with the line ends of `like`, unless either is mixed or binary.

    An editor or git's core.autocrlf may have changed them in the whole project.
    """
    contents = (file.content, like)
    kinds = [(c.count(b"\r\n"), c.count(b"\n")) for c in contents]
    if any(b"\0" in c for c in contents) or any(crlf not in (0, lf) for crlf, lf in kinds):
        return file
    lines = file.content.replace(b"\r\n", b"\n")
    return replace(file, content=lines.replace(b"\n", b"\r\n") if kinds[1][0] else lines)


def _keep_unchanged(mine: NewFile, old: NewFile | None, fresh: NewFile) -> NewFile:
    """The template's file, with the project's content or mode if the template has not changed its own."""
    if old is None or old.executable == fresh.executable:
        fresh = replace(fresh, executable=mine.executable)
    return replace(fresh, content=mine.content) if _content(old) == fresh.content else fresh


def _content(file: NewFile | None) -> bytes | None:
    return file.content if file else None


def _read(path: str) -> NewFile | None:
    try:
        with open(path, "rb") as file:
            return NewFile(file.read(), os.access(path, os.X_OK))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _merge(mine: bytes, old: bytes, fresh: NewFile, label: str, scratch: str) -> Change:
    """Let git merge two changes to one file. Raises SkelebotError."""
    if any(b"\0" in content for content in (mine, old, fresh.content)):
        return Change("kept: binary, and changed here too", leave=True, look=BOTH_CHANGED)
    folder = tempfile.mkdtemp(dir=scratch)
    paths = [_write(folder, name, c) for name, c in (("mine", mine), ("old", old), ("new", fresh.content))]
    labels = ("-L", "yours", "-L", "the template before", "-L", label)
    code, _, err = git.ask(scratch, "merge-file", "--quiet", *labels, *paths)
    if code > _MOST_CONFLICTS:
        raise SkelebotError(f"git merge-file failed: {' '.join(err.split())}")
    with open(paths[0], "rb") as file:
        merged = replace(fresh, content=file.read())
    if code:
        return Change("conflict: look for <<<<<<<", merged, look=BOTH_CHANGED)
    return Change("merged with your changes", merged)


def _write(folder: str, name: str, content: bytes) -> str:
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(content)
    return path
