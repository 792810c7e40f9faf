"""What a store of artifacts can do, whichever it is."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from skelebot.errors import SkelebotError

Progress = Callable[[int], None]  # is told how many more bytes have gone

BLOCK = 1 << 20


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
    """A file to push, as it was found. size: bytes."""

    path: str
    size: int
    stamp: tuple[int, ...]  # differs once the file has been written to or replaced

    @cached_property
    def sha256(self) -> str:
        """Reads all of it. Raises SkelebotError where it changes meanwhile, and OSError."""
        found = file_sha256(self.path)
        self.check()
        return found

    def check(self) -> None:
        """Raises SkelebotError where the file has changed since it was found."""
        try:
            is_same = _stamp(self.path) == self.stamp
        except OSError:
            is_same = False
        if not is_same:
            raise self.changed()

    def changed(self) -> SkelebotError:
        return SkelebotError(f"{self.path} changed while it was pushed; push it again")


def source(path: str) -> Source:
    """Raises OSError."""
    return Source(path, os.path.getsize(path), _stamp(path))


def _stamp(path: str) -> tuple[int, ...]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class Pushed:
    """What a push has done. sha256: of the file. sent: the bytes that went over the line."""

    sha256: str
    sent: int


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

    def push(self, key: str, source: Source, force: bool, progress: Progress) -> Pushed:
        """Stores a file. Raises AlreadyThere unless `force`, and OSError where the file cannot be read."""

    def pull(self, stored: Stored, part: str, progress: Progress, arrived: Progress) -> int:
        """Brings the object into the file `part`, going on where an earlier call was cut off.

        Gives the bytes that this call brought. `arrived` is told how many more bytes of the file, from
        its beginning on, are in their place. The folder of `part` is for this object alone; what the
        store notes there it finds again in the next call. Raises OSError where it cannot be written.
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
