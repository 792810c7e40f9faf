"""Put what was pulled where it belongs, whole or not at all."""

import errno
import os
import shutil
from contextlib import suppress

from skelebot.components.repository import archive, contents
from skelebot.components.repository.store import make_executable
from skelebot.errors import SkelebotError
from skelebot.files import reason

# Beside a target: its replacement, and what was there before.
_NEW, _OLD = ".skelebot-new", ".skelebot-old"


def resolve(path: str) -> str:
    """The file that a pull writes: where a link leads. Raises SkelebotError if that has no folder."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.islink(path) and not os.path.isdir(folder):
        raise SkelebotError(f"{path} links to {target}, and there is no folder {folder}; create it first")
    return target


def put_file(part: str, target: str, is_executable: bool) -> None:
    """Replace a file in one step. Raises SkelebotError and OSError."""
    if os.path.isdir(target):
        raise SkelebotError(f"{target} is a folder, and the artifact a file; move the folder away")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if is_executable:
        make_executable(part)
    try:
        os.replace(part, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        try:
            shutil.copy(part, target + _NEW)  # on the target's own disk
            os.replace(target + _NEW, target)
        finally:
            remove(target + _NEW)


def put_folder(part: str, target: str, root: str) -> None:
    """Replace a version's files in a folder by those of an archive in one step; other files stay.

    Raises SkelebotError and OSError.
    """
    if os.path.lexists(target) and not os.path.isdir(target):
        raise SkelebotError(f"{target} is a file, and the artifact a folder; move the file away")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        archive.unpack(part, target + _NEW)
        known, fresh = contents.load(root, target), contents.scan(target + _NEW)
        if os.path.isdir(target):
            contents.keep_others(target, target + _NEW, known)
            known = {path: stamp for path, stamp in known.items() if os.path.lexists(f"{target}/{path}")}
        contents.save(root, target, {**known, **fresh})  # before the swap, after which a kill could hit
        _swap_folders(target)
    finally:
        remove(target + _NEW)


def recover(target: str) -> None:
    """Finish or undo a replacement that was interrupted, also one of a killed process."""
    if os.path.lexists(target + _OLD) and not os.path.lexists(target):
        os.rename(target + _OLD, target)
    remove(target + _OLD)
    remove(target + _NEW)


def _swap_folders(target: str) -> None:
    """Put the new folder in the place of the old one, which returns if that fails."""
    try:
        if os.path.lexists(target):
            os.rename(target, target + _OLD)
        os.rename(target + _NEW, target)
    finally:
        recover(target)


def remove(path: str) -> None:
    """Remove a file, or a folder with its content, even if that is write-protected; no error if missing."""
    if os.path.islink(path) or not os.path.isdir(path):
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    try:
        os.chmod(path, 0o700)
        for folder, inner, _ in os.walk(path):
            for one in (os.path.join(folder, name) for name in inner):
                if not os.path.islink(one):
                    os.chmod(one, 0o700)
        shutil.rmtree(path)
    except OSError as error:
        raise SkelebotError(f"{path} cannot be removed: {reason(error)}; remove it yourself") from None
