"""What a store of artifacts can do, whichever it is."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from skelebot.errors import SkelebotError

Progress = Callable[[int], None]  # is told how many more bytes have gone

BLOCK = 1 << 18


@dataclass(frozen=True)
class Stored:
    """An object in a store. size: bytes. modified: ISO 8601, in UTC. sha256: where the store tells it."""

    key: str
    size: int
    modified: str
    sha256: str | None = None
    tag: str = ""  # changes with the content


@dataclass(frozen=True)
class Source:
    """A file to push, as it was when its checksum was taken. size: bytes."""

    path: str
    size: int
    sha256: str
    stamp: tuple[int, ...]  # differs once the file has been written to or replaced

    def check(self) -> None:
        """Raises SkelebotError where the file has changed since."""
        if _stamp(self.path) != self.stamp:
            raise SkelebotError(f"{self.path} changed while it was pushed; push it again")


def source(path: str) -> Source:
    """Reads the file once. Raises OSError."""
    stamp = _stamp(path)
    found = Source(path, os.path.getsize(path), file_sha256(path), stamp)
    found.check()
    return found


def _stamp(path: str) -> tuple[int, ...]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


class AlreadyThere(SkelebotError):
    """The store has that version; nothing was sent."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is in the store already; bump the version, or replace it with -f")


class Unusable(SkelebotError):
    """What has arrived can never be put in its place, and is not kept for another call."""


class Store(Protocol):
    """Methods raise SkelebotError with one line that says what was wrong with the store."""

    def check(self) -> None:
        """Raises SkelebotError where the store cannot be reached or does not let one in."""

    def list(self, prefix: str) -> Iterable[Stored]:
        """The objects whose key starts with `prefix`, over all pages."""

    def head(self, key: str) -> Stored | None:
        """The object of that key, with its SHA-256 where it is known, or None."""

    def push(self, key: str, source: Source, force: bool, progress: Progress) -> int:
        """Stores a file and gives the bytes sent. Raises AlreadyThere unless `force`."""

    def pull(self, stored: Stored, part: str, progress: Progress) -> int:
        """Brings the object into the file `part`, going on where an earlier call was cut off.

        Gives the bytes that this call brought. The folder of `part` is for this object alone; what the
        store notes there it finds again in the next call.
        """


def file_sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def forget(*paths: str) -> None:
    for path in paths:
        if os.path.lexists(path):
            os.unlink(path)
