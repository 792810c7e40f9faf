"""What every store of artifacts can do."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from skelebot.errors import SkelebotError

OnBytes = Callable[[int], None]  # called with each number of further bytes

BLOCK = 1 << 20


@dataclass(frozen=True)
class Stored:
    """An object in a store. size: bytes. modified: ISO 8601, in UTC. sha256: if the store knows it."""

    key: str
    size: int
    modified: str
    sha256: str | None = None
    tag: str = ""  # changes with the content


@dataclass(frozen=True)
class Upload:
    """A file to push. size: bytes. stamp: differs once the file has been written to or replaced."""

    path: str
    size: int
    stamp: tuple[int, ...]

    @classmethod
    def of(cls, path: str) -> "Upload":
        """Raises OSError."""
        return cls(path, os.path.getsize(path), _stamp(path))

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
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


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


class Store(Protocol):
    """Each method raises SkelebotError if the store fails."""

    def check(self) -> None:
        """Raises SkelebotError if the store cannot be reached or refuses access."""

    def list(self, prefix: str) -> Iterable[Stored]:
        """The objects whose key starts with `prefix`, over all pages."""

    def head(self, key: str) -> Stored | None:
        """The object of that key, with its SHA-256 if the store knows it, or None."""

    def push(self, key: str, upload: Upload, force: bool, on_bytes: OnBytes) -> Pushed:
        """Store a file. Raises AlreadyStored unless `force`, and OSError if the file cannot be read."""

    def pull(self, stored: Stored, part: str, on_bytes: OnBytes, on_prefix: OnBytes) -> int:
        """Download the object into the file `part`, resuming an earlier call that was interrupted.

        Returns the bytes that this call downloaded. on_prefix: called with the number of further bytes
        that are complete from the beginning of the file. The folder of `part` is for this object alone;
        what the store writes there is kept for the next call. Raises OSError if it cannot be written.
        """


def file_sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
