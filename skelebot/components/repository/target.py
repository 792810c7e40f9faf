"""Put what was pulled where it belongs, whole or not at all."""

import errno
import os
import shutil
from contextlib import suppress

from skelebot.components.repository import archive
from skelebot.errors import SkelebotError
from skelebot.files import reason

# Beside a target: its replacement, and what was there before.
_NEW, _OLD = ".skelebot-new", ".skelebot-old"


def replace_target(part: str, target: str, is_folder: bool) -> None:
    """Replace a file, or a folder by what an archive holds, in one step. Raises SkelebotError, OSError."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        if is_folder:
            archive.unpack(part, target + _NEW)
            _swap_folders(target)
        else:
            _replace_file(part, target)
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


def _replace_file(part: str, target: str) -> None:
    if os.path.isdir(target):
        raise SkelebotError(f"{target} is a folder, and the artifact a file; move the folder away")
    try:
        os.replace(part, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(part, target + _NEW)  # on the target's own disk
        os.replace(target + _NEW, target)


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
