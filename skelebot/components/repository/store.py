"""What every store of artifacts can do."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from skelebot.errors import SkelebotError
from skelebot.files import open_regular

OnBytes = Callable[[int], None]  # called with each number of further bytes
OnPrefix = Callable[[int], None]  # called with each number of further bytes, complete from the beginning

BLOCK = 1 << 20

# Where a file comes from, by name: run, uid, commit. Each store keeps it with the object.
Origin = tuple[tuple[str, str], ...]
ORIGIN_NAMES = ("run", "uid", "commit")


@dataclass(frozen=True)
class Stored:
    """An object in a store. size: bytes. modified: ISO 8601, in UTC. sha256: if the store knows it.

    origin: the recorded run that made it, where the store gives that with the object.
    """

    key: str
    size: int
    modified: str
    sha256: str | None = None
    tag: str = ""  # changes with the content
    is_executable: bool = False
    origin: Origin = ()


@dataclass(frozen=True)
class Upload:
    """A file to push. size: bytes. stamp: differs once the file has been written to or replaced.

    origin: the recorded run that made it.
    """

    path: str
    size: int
    stamp: tuple[int, ...]
    is_executable: bool
    origin: Origin = ()

    @classmethod
    def of(cls, path: str, origin: Origin = ()) -> "Upload":
        """Raises OSError."""
        is_executable = bool(os.stat(path).st_mode & stat.S_IXUSR)
        return cls(path, os.path.getsize(path), _stamp(path), is_executable, origin)

    @cached_property
    def sha256(self) -> str:
        """Read the whole file. Raises SkelebotError if it changes meanwhile, and OSError."""
        digest = file_sha256(self.path)
        self.ensure_unchanged()
        return digest

    def ensure_unchanged(self) -> None:
        """Raises SkelebotError if the file has changed since the push began."""
        try:
            is_same = _stamp(self.path) == self.stamp
        except OSError:
            is_same = False
        if not is_same:
            raise self.change_error()

    def change_error(self) -> SkelebotError:
        return SkelebotError(f"{self.path} changed while it was pushed; push it again")


def _stamp(path: str) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Pushed:
    """The result of a push. sha256: of the file. sent: the bytes that went over the network."""

    sha256: str
    sent: int


class AlreadyStored(SkelebotError):
    """The store has that version; nothing was stored."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is already in the store; bump the version, or replace it with -f")


class Unusable(SkelebotError):
    """What arrived can never be used, and is not kept for another attempt."""


def oversized(stored: Stored) -> Unusable:
    """The error for a server that goes on after the size that it announced."""
    return Unusable(
        f"{stored.key} arrived damaged: the server sent more than the {stored.size} bytes that it announced; "
        "nothing was replaced, run again"
    )


class Store(Protocol):
    """Each method raises SkelebotError if the store fails."""

    def check(self) -> None:
        """Raises SkelebotError if the store cannot be reached or refuses access."""

    def check_write(self) -> None:
        """Raises SkelebotError if nothing can be pushed to the store; changes nothing there."""

    def list(self, prefix: str) -> Iterable[Stored]:
        """The objects whose key starts with `prefix`, over all pages."""

    def head(self, key: str) -> Stored | None:
        """The object of that key, with its SHA-256 if the store knows it, or None."""

    def push(self, key: str, upload: Upload, force: bool, on_bytes: OnBytes) -> Pushed:
        """Store a file. Raises AlreadyStored unless `force`, and OSError if the file cannot be read."""

    def pull(self, stored: Stored, part: str, on_bytes: OnBytes, on_prefix: OnPrefix) -> int:
        """Download the object into the file `part`, resuming an earlier call that was interrupted.

        Returns the bytes that this call downloaded. on_prefix: called with what is complete from the
        beginning of the file. The folder of `part` is for this object alone;
        what the store writes there is kept for the next call. Raises OSError if it cannot be written.
        """

    def is_executable(self, stored: Stored) -> bool:
        """Whether the file that was pushed could be executed."""


def make_executable(path: str) -> None:
    """Let everyone execute a file who can read it."""
    mode = os.stat(path).st_mode
    os.chmod(path, mode | (mode & 0o444) >> 2)


def file_sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
