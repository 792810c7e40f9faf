"""Files come into a folder all together or not at all, and over nothing that nobody spoke of."""

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from functools import partial

from skelebot import console, foreground
from skelebot.components.scaffold.answers import Asker
from skelebot.components.scaffold.render import Made
from skelebot.errors import FAILED, SkelebotError
from skelebot.project.read import FILE

# What becomes of each path; None: the file goes.
Changes = Mapping[str, Made | None]


def offer(
    root: str,
    changes: Changes,
    title: str,
    asker: Asker,
    replace: bool,
    dry_run: bool,
    notes: Mapping[str, str] | None = None,
) -> int:
    """Shows the changes, asks once, carries them out, and gives the exit code.

    notes: what to say beside a path. Raises SkelebotError, with nothing written, where something is in
    the way or cannot be written.
    """
    if found := clashes(root, changes, replace):
        more = f" and {len(found) - 20} more" if len(found) > 20 else ""
        advice = "; move it away" if replace else f"; {_ADVICE}"
        raise SkelebotError(f"nothing was written: {', '.join(found[:20])}{more}{advice}")
    say = console.out if dry_run else console.detail
    say(f"{title}, in {console.one_line(root)}:")
    for path in sorted({*changes, *(notes or {})}):
        note = (notes or {}).get(path) or (
            "written over" if os.path.lexists(os.path.join(root, path)) else ""
        )
        say(f"  {path}{f' ({note})' if note else ''}")
    if dry_run:
        return 0
    if not asker.confirm("Go on?"):
        console.info("nothing was written")
        return FAILED
    place(root, changes, replace)
    return 0


_ADVICE = "--force writes over files, and -e makes a project of what is there"


def clashes(root: str, changes: Changes, replace: bool) -> list[str]:
    """What stands in the way, a line for each. replace: files may be written over.

    A folder never, unless the changes remove all that it holds.
    """
    gone = {path for path, made in changes.items() if made is None}
    found = {_obstacle(root, path, replace, gone): None for path in changes}
    return [line for line in found if line]


def _obstacle(root: str, path: str, replace: bool, gone: Set[str]) -> str:
    parts = path.split("/")
    for i in range(1, len(parts)):
        above = "/".join(parts[:i])
        folder = os.path.join(root, above)
        if os.path.islink(folder):
            return f"{above} is a link, behind which nothing is written"
        if os.path.lexists(folder) and not os.path.isdir(folder) and above not in gone:
            return f"{above} is no folder"
    target = os.path.join(root, path)
    if os.path.isdir(target) and not os.path.islink(target):
        found = held(root, path)
        return "" if found and found <= gone else f"{path} is a folder"
    return f"{path} is there already" if os.path.lexists(target) and not replace else ""


def held(root: str, folder: str) -> set[str]:
    """The paths of what is in a folder, and in those below it; also of those that cannot be read."""
    top = os.path.join(root, folder)
    if os.path.islink(top) or not os.path.isdir(top):
        return set()
    shut: list[OSError] = []
    inside = [os.path.join(at, n) for at, ds, fs in os.walk(top, onerror=shut.append) for n in (*ds, *fs)]
    found = [path for path in inside if os.path.islink(path) or not os.path.isdir(path)]
    return {os.path.relpath(path, root) for path in (*found, *(error.filename for error in shut))}


def place(root: str, changes: Changes, replace: bool) -> None:
    """Carries the changes out, all of them or none. Raises SkelebotError."""
    try:
        stage = tempfile.mkdtemp(prefix=".skelebot-new-", dir=root)
    except OSError as error:
        raise SkelebotError(f"{root} cannot be written: {_reason(error)}") from None
    try:
        _stage(root, stage, changes)
        # From here it takes but a moment, in which nobody is to stop it half way.
        with foreground.uninterrupted(), _alone(root):
            _move(root, stage, changes, replace)
    except OSError as error:
        where = (error.filename or root).replace(f"{stage}/new/", "")
        raise SkelebotError(f"{where} cannot be written: {_reason(error)}; nothing was changed") from None
    finally:
        shutil.rmtree(os.path.join(stage, "new"), ignore_errors=True)
        _leave_nothing(stage)


def _leave_nothing(stage: str) -> None:
    """Removes the folder, but never what was there before and could not be put back."""
    for folder in (os.path.join(stage, "old"), stage):
        with suppress(OSError):
            os.rmdir(folder)
    if os.path.lexists(stage):
        console.warn(f"what was written over is still in {stage}")


@contextmanager
def _alone(root: str) -> Iterator[None]:
    """Lets one Skelebot at a time move files into a folder, where the disk knows locks."""
    number = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _stage(root: str, stage: str, changes: Changes) -> None:
    """Writes the new files to a folder on the same disk.

    Of a file that they replace they get the mode, but for the right to execute, which is as it is to be.
    """
    for path, made in changes.items():
        if made is None:
            continue
        staged = os.path.join(stage, "new", path)
        os.makedirs(os.path.dirname(staged), exist_ok=True)
        mode = 0o777 if made.executable else 0o666
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(made.content)
        target = os.path.join(root, path)
        if os.path.isfile(target) and not os.path.islink(target):
            shutil.copymode(target, staged)
            if made.executable != os.access(target, os.X_OK):
                mode = stat.S_IMODE(os.stat(target).st_mode)
                may = (mode & 0o444) >> 2  # execute what one may read
                os.chmod(staged, mode | may if made.executable else mode & ~0o111)


def _move(root: str, stage: str, changes: Changes, replace: bool) -> None:
    undo: list[Callable[[], None]] = []  # what takes each step back
    kept = os.path.join(stage, "old")
    os.mkdir(kept)
    # First what goes, as a folder may come in its place; last what makes the folder a project.
    order = sorted(changes, key=lambda path: (path == FILE, changes[path] is not None, path))
    try:
        for i, path in enumerate(order):
            target, old = os.path.join(root, path), os.path.join(kept, str(i))
            _make_folders(root, os.path.dirname(path), undo)
            if replace and os.path.lexists(target):
                os.rename(target, old)
                undo.append(partial(os.rename, old, target))
                if held(kept, str(i)):
                    raise OSError(errno.ENOTEMPTY, "it is a folder that is not empty", target)
            if changes[path] is not None:
                _put(os.path.join(stage, "new", path), target)
                undo.append(partial(os.remove, target))
    except BaseException:
        for step in reversed(undo):
            with suppress(OSError):
                step()
        raise
    shutil.rmtree(kept, ignore_errors=True)


def _make_folders(root: str, folder: str, undo: list[Callable[[], None]]) -> None:
    parts = folder.split("/") if folder else []
    for i in range(1, len(parts) + 1):
        path = os.path.join(root, *parts[:i])
        if not os.path.isdir(path):
            os.mkdir(path)
            undo.append(partial(os.rmdir, path))


def _put(staged: str, target: str) -> None:
    """Moves a file to where none is, also if another program makes one there at this moment."""
    try:
        os.link(staged, target)
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        if os.path.lexists(target):
            raise
        os.rename(staged, target)
