"""The host side of a task's mappings."""

import os

from skelebot.errors import SkelebotError, UsageError
from skelebot.files import reason
from skelebot.model import Mount, Task


def make_folders(task: Task) -> None:
    """Create missing host folders as the caller, before an engine would create them as root.

    The file for metrics is among them.
    """
    if task.metrics:
        _make_file(task.metrics)
    for mount in task.mounts:
        _make_folder(mount)
    for inner in task.mounts:
        for outer in task.mounts:
            if inner.target.startswith(outer.target + "/") and not outer.read_only:
                below = inner.target[len(outer.target) + 1 :]
                if os.path.isdir(inner.source):
                    os.makedirs(os.path.join(outer.source, below), exist_ok=True)


def _make_file(path: str) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise SkelebotError(f"{path} cannot be created: {reason(error)}") from None


def is_missing(mount: Mount) -> bool:
    """Whether a read-only mapping does not exist, which nothing makes."""
    return mount.read_only and not os.path.exists(mount.source)


def missing(mount: Mount) -> UsageError:
    return UsageError(f"the mapping {mount.source}:ro does not exist; create it or leave out :ro")


def _make_folder(mount: Mount) -> None:
    """Make the folder of a mapping where it is missing; one that is read-only must be there."""
    if os.path.exists(mount.source):
        return
    if mount.read_only:
        raise missing(mount)
    try:
        os.makedirs(mount.source, exist_ok=True)
    except OSError as error:
        raise SkelebotError(f"the mapped folder {mount.source} cannot be created: {reason(error)}") from None
