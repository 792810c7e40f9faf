"""The folders of this machine that runners use: the mappings' host side, and Skelebot's own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from skelebot import shell
from skelebot.errors import SkelebotError, UsageError
from skelebot.ignores import PART
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


# --- files that Skelebot writes for the user ---


def output_path(text: str) -> str:
    """The absolute path of a file to be written, named from the current folder; links are followed.

    Raises UsageError where no file can be put.
    """
    path = os.path.realpath(text)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise UsageError(f"{text} cannot be written: there is no folder {folder}; make it first")
    if os.path.isdir(path) or text.endswith("/"):
        raise UsageError(f"{text} is a folder; name a file in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"{text} is no ordinary file; name another")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{text} cannot be written: the folder {folder} does not let you")
    return path


@contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
    """A file that takes its place when the block has ended well, and else leaves what was there.

    Raises SkelebotError where it cannot be written.
    """
    part = os.path.join(os.path.dirname(path), f".{os.urandom(6).hex()}{PART}")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # some file servers tell only now that there is no room
        os.replace(part, path)
    except BaseException as error:
        with shell.undisturbed(), suppress(OSError):
            os.unlink(part)
        if isinstance(error, OSError) and error.filename in (None, part):
            reason = (error.strerror or str(error)).lower()
            raise SkelebotError(f"{path} cannot be written: {reason}") from None
        raise


def remember_output(root: str, path: str) -> None:
    """Notes a file that was written for the user, so that the project's images leave it out."""
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
    if inside.split(os.sep)[0] == os.pardir or "\n" in inside or inside in outputs(root):
        return
    with suppress(OSError, SkelebotError):  # a project that cannot be written holds no such file
        file_of_outputs = os.path.join(own_folder(root), "outputs")
        with open(file_of_outputs, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{inside}\n")


def outputs(root: str) -> tuple[str, ...]:
    """The paths, from the project root, of the files that were written for the user."""
    with suppress(OSError):
        file_of_outputs = os.path.join(root, OWN, "outputs")
        with open(file_of_outputs, encoding="utf-8", errors="surrogateescape") as file:
            return tuple(dict.fromkeys(file.read().split("\n")[:-1]))
    return ()
