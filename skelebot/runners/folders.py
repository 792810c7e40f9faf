"""The folders of this machine that runners use: the mappings' host side, and Skelebot's own."""

import os
from contextlib import suppress

from skelebot.errors import SkelebotError, UsageError
from skelebot.model import Mount, Task

OWN = ".skelebot"


def own_folder(root: str) -> str:
    """Skelebot's folder in the project, which git is told to leave alone. Raises SkelebotError."""
    folder = os.path.join(root, OWN)
    try:
        os.makedirs(folder, exist_ok=True)
        ignore = os.path.join(folder, ".gitignore")
        if not os.path.exists(ignore):
            with open(ignore, "w", encoding="ascii") as file:
                file.write("*\n")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SkelebotError(f"{folder} cannot be written: {reason}") from None
    return folder


def make_folders(task: Task) -> None:
    """Makes the missing host folders as the caller, before an engine would make them as root."""
    for mount in task.mounts:
        _make_folder(mount)
    for inner in task.mounts:
        for outer in task.mounts:
            if inner.target.startswith(outer.target + "/") and not outer.read_only:
                below = inner.target[len(outer.target) + 1 :]
                if os.path.isdir(inner.source):
                    os.makedirs(os.path.join(outer.source, below), exist_ok=True)


def _make_folder(mount: Mount) -> None:
    """Makes the folder of a mapping where it is missing; one that is read-only must be there."""
    if os.path.exists(mount.source):
        return
    if mount.read_only:
        raise UsageError(f"the mapping {mount.source}:ro is not there; make it or leave :ro out")
    try:
        os.makedirs(mount.source, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SkelebotError(f"the mapped folder {mount.source} cannot be made: {reason}") from None


# --- where the project's containers may be ---


def remember_host(root: str, host: str | None) -> None:
    """Notes a Docker host on which the project runs something, for `ps` and the like to look at."""
    if host is None or host in known_hosts(root):
        return
    with suppress(OSError, SkelebotError), open(_hosts_file(root), "a", encoding="utf-8") as file:
        file.write(f"{host}\n")


def known_hosts(root: str) -> list[str]:
    """The Docker hosts that were named for the project's jobs, but for the default one."""
    with suppress(OSError), open(os.path.join(root, OWN, "hosts"), encoding="utf-8") as file:
        return list(dict.fromkeys(file.read().split()))
    return []


def _hosts_file(root: str) -> str:
    return os.path.join(own_folder(root), "hosts")
