"""What Skelebot keeps for a project, in the folder `.skelebot`, which may be deleted at any time."""

import os
import zlib
from contextlib import suppress

from skelebot.errors import SkelebotError
from skelebot.files import reason

FOLDER = ".skelebot"


def own_folder(root: str) -> str:
    """The folder that Skelebot may write to for a project: `.skelebot`, which git ignores.

    Where the caller cannot write there, it is one in the caller's cache. Raises SkelebotError.
    """
    folder = os.path.join(root, FOLDER)
    try:
        _make(folder)
    except OSError as error:
        folder = folder_in_cache(root)
        try:
            _make(folder)
        except OSError:
            raise SkelebotError(f"{os.path.join(root, FOLDER)} cannot be written: {reason(error)}") from None
    return folder


def folder_in_cache(root: str) -> str:
    """What Skelebot keeps for this user alone about a checkout."""
    return os.path.join(cache_folder(), "checkouts", checkout_id(root))


def _make(folder: str) -> None:
    """Make the folder, for the caller to write to. Raises OSError."""
    os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(13, "Permission denied", folder)
    ignore = os.path.join(folder, ".gitignore")
    if not os.path.exists(ignore):
        with open(ignore, "w", encoding="ascii") as file:
            file.write("*\n")


def cache_folder() -> str:
    """The folder of what Skelebot keeps for a user, and could make again."""
    above = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(above, "skelebot")


def checkout_id(root: str) -> str:
    """What tells one checkout from every other, on this machine and on others: eight hexadecimal digits."""
    return f"{zlib.crc32(os.fsencode(f'{_machine()}{os.sep}{os.path.realpath(root)}')):08x}"


def _machine() -> str:
    """What tells this machine from others: https://www.freedesktop.org/software/systemd/man/machine-id.html"""
    with suppress(OSError), open("/etc/machine-id", encoding="ascii") as file:
        if found := file.read().strip():
            return found
    return os.uname().nodename


# --- where the project's runs may be ---


def remember_host(root: str, host: str | None) -> None:
    """Note a Docker host on which the project runs something, for `ps` and the like to look at.

    None, the default engine, is an empty line.
    """
    _remember(root, "hosts", host or "")


def known_hosts(root: str) -> tuple[str, ...]:
    """The Docker hosts that were named for the project's jobs, except the default one."""
    return tuple(filter(None, _lines(root, "hosts")))


def has_used_default_host(root: str) -> bool:
    return "" in _lines(root, "hosts")


# --- files that Skelebot writes for the user ---


def remember_output(root: str, path: str) -> None:
    """Record a file that was written for the user, so that the project's images leave it out."""
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
    if inside.split(os.sep)[0] != os.pardir:
        _remember(root, "outputs", inside)


def outputs(root: str) -> tuple[str, ...]:
    """The paths, from the project root, of the files that were written for the user."""
    return _lines(root, "outputs")


def _remember(root: str, name: str, line: str) -> None:
    if "\n" in line or line in _lines(root, name):
        return
    with suppress(OSError, SkelebotError):  # it is a help, and nothing depends on it
        path = os.path.join(own_folder(root), name)
        with open(path, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{line}\n")


def _lines(root: str, name: str) -> tuple[str, ...]:
    """The lines of a file of Skelebot's own, each once."""
    found: list[str] = []
    for folder in (os.path.join(root, FOLDER), folder_in_cache(root)):
        path = os.path.join(folder, name)
        with suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
            found += file.read().split("\n")[:-1]
    return tuple(dict.fromkeys(found))
