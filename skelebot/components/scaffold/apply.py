"""Write changes into a folder, all of them or none."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from functools import partial

from skelebot import console, files, foreground
from skelebot.components.scaffold.generate import NewFile
from skelebot.errors import SkelebotError
from skelebot.project.read import FILE

# What becomes of each path; None: the file is removed.
Changes = Mapping[str, NewFile | None]


def apply_changes(root: str, changes: Changes, replaceable: Set[str]) -> None:
    """Apply the changes, all of them or none. Raises SkelebotError."""
    try:
        stage = tempfile.mkdtemp(prefix=".skelebot-new-", dir=root)
    except OSError as error:
        raise SkelebotError(f"{root} cannot be written: {files.reason(error)}") from None
    try:
        _stage(root, stage, changes)
        # The rest takes a moment, in which nothing may stop it half way.
        with foreground.uninterrupted(), _folder_lock(root):
            _move(root, stage, changes, replaceable)
    except OSError as error:
        where = (error.filename or root).replace(f"{stage}/new/", "")
        raise SkelebotError(
            f"{where} cannot be written: {files.reason(error)}; nothing was changed"
        ) from None
    finally:
        shutil.rmtree(os.path.join(stage, "new"), ignore_errors=True)
        _remove_stage(stage)


def _remove_stage(stage: str) -> None:
    """Remove the folder, but never a file of before that could not be put back."""
    for folder in (os.path.join(stage, "old"), stage):
        with suppress(OSError):
            os.rmdir(folder)
    if os.path.lexists(stage):
        console.warn(f"what was overwritten is still in {stage}")


@contextmanager
def _folder_lock(root: str) -> Iterator[None]:
    """Let one Skelebot at a time move files into a folder, if the disk supports locks."""
    number = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):
            files.take_lock(number)
        yield
    finally:
        os.close(number)


def _stage(root: str, stage: str, changes: Changes) -> None:
    """Write the new files to a folder on the same disk.

    A file that replaces another gets its mode, apart from the right to execute.
    """
    for path, new in changes.items():
        if new is None:
            continue
        staged = os.path.join(stage, "new", path)
        os.makedirs(os.path.dirname(staged), exist_ok=True)
        mode = 0o777 if new.executable else 0o666
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(new.content)
        target = os.path.join(root, path)
        if os.path.isfile(target) and not os.path.islink(target):
            shutil.copymode(target, staged)
            if new.executable != os.access(target, os.X_OK):
                mode = stat.S_IMODE(os.stat(target).st_mode)
                execute = (mode & 0o444) >> 2  # readable for everyone
                os.chmod(staged, mode | execute if new.executable else mode & ~0o111)


def _move(root: str, stage: str, changes: Changes, replaceable: Set[str]) -> None:
    undo: list[Callable[[], None]] = []  # the opposite of each step
    before = os.path.join(stage, "old")
    os.mkdir(before)
    try:
        for i, path in enumerate(in_order(changes)):
            target, old = os.path.join(root, path), os.path.join(before, str(i))
            _make_folders(root, os.path.dirname(path), undo)
            if path in replaceable and os.path.lexists(target):
                os.rename(target, old)
                undo.append(partial(os.rename, old, target))
                if files_in(before, str(i)):
                    raise OSError(errno.ENOTEMPTY, "it is a folder that is not empty", target)
            if changes[path] is not None:
                put(os.path.join(stage, "new", path), target)
                undo.append(partial(os.remove, target))
    except BaseException:
        for step in reversed(undo):
            with suppress(OSError):
                step()
        raise
    shutil.rmtree(before, ignore_errors=True)


def in_order(changes: Changes) -> list[str]:
    """First what is removed, as a folder may take its place; last what makes the folder a project."""
    return sorted(changes, key=lambda path: (path == FILE, changes[path] is not None, path))


def _make_folders(root: str, folder: str, undo: list[Callable[[], None]]) -> None:
    parts = folder.split("/") if folder else []
    for i in range(1, len(parts) + 1):
        path = os.path.join(root, *parts[:i])
        if not os.path.isdir(path):
            os.mkdir(path)
            undo.append(partial(os.rmdir, path))


def put(staged: str, target: str) -> None:
    """Move a file to where none is, also if another program creates one there at this moment."""
    try:
        os.link(staged, target)
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        if os.path.lexists(target):
            raise
        os.rename(staged, target)


def files_in(root: str, folder: str) -> set[str]:
    """The paths of the files in a folder and those below it; also of folders that cannot be read."""
    top = os.path.join(root, folder)
    if os.path.islink(top) or not os.path.isdir(top):
        return set()
    errors: list[OSError] = []
    inside = [os.path.join(at, n) for at, ds, fs in os.walk(top, onerror=errors.append) for n in (*ds, *fs)]
    found = [path for path in inside if os.path.islink(path) or not os.path.isdir(path)]
    return {os.path.relpath(path, root) for path in (*found, *(error.filename for error in errors))}
