"""A file in parts: which they are, several of them at once, and which have arrived."""

import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from skelebot.components.repository.store import BLOCK, Progress, Stored

PART = 8 << 20  # bytes; larger files have larger parts, as S3 allows 10,000
AT_ONCE = 10  # parts
_MOST = 10_000


@dataclass(frozen=True)
class Part:
    """A range of a file: its number from 1, where it starts, and its length."""

    number: int
    start: int
    size: int


def parts_of(size: int) -> list[Part]:
    length = max(PART, -(-size // _MOST))
    starts = range(0, size, length)
    return [Part(i + 1, start, min(length, size - start)) for i, start in enumerate(starts)]


class Stopped(BaseException):
    """The transfer is over for another reason; no Exception, which would be tried again."""


def heed(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def in_parallel(
    work: Callable[[Part, threading.Event], None], parts: Sequence[Part], after: Callable[[], None]
) -> None:
    """Does the work for all parts, a few at a time, and calls `after` each; raises its first failure.

    That, or a signal, ends it at once: the threads are told by the event, and those that wait for the
    network are not waited for.
    """
    shared, stop = iter(parts), threading.Event()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            for part in shared:
                work(part, stop)
                heed(stop)
                ended.put(None)
        except BaseException as error:
            ended.put(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in parts[:AT_ONCE]]
    try:
        for thread in threads:
            thread.start()
        for _ in parts:
            if error := ended.get():
                raise error
            after()
    finally:
        stop.set()


def range_md5(path: str, part: Part) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        file.seek(part.start)
        for start in range(0, part.size, BLOCK):
            digest.update(file.read(min(BLOCK, part.size - start)))
    return digest.hexdigest()


class Slice:
    """A range of an open file, as a file of its own that can be read again after a failure."""

    def __init__(self, file: Any, part: Part, progress: Progress, stop: threading.Event) -> None:
        self._file, self._part, self._at = file, part, 0
        self._progress, self._stop = progress, stop
        file.seek(part.start)

    def __len__(self) -> int:
        return self._part.size

    def read(self, size: int = -1) -> bytes:
        heed(self._stop)
        left = self._part.size - self._at
        # The library asks for pieces of 16 KiB, which are too small to be fast.
        wanted = left if size is None or size < 0 else max(size, BLOCK)
        block: bytes = self._file.read(min(wanted, left))
        if left and not block:
            raise Stopped  # the file has become shorter, and the server would wait for the rest
        self._move(self._at + len(block))
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        self._move({0: 0, 1: self._at, 2: self._part.size}[whence] + offset)
        self._file.seek(self._part.start + self._at)
        return self._at

    def tell(self) -> int:
        return self._at

    def _move(self, to: int) -> None:
        self._progress(to - self._at)
        self._at = to


class Record:
    """Which parts of a pull are there, kept beside the part file for the next call."""

    def __init__(self, path: str, stored: Stored) -> None:
        self.path, self._lock = path, threading.Lock()
        self._tag = f"{stored.tag} {stored.size} {PART}"
        self.numbers: set[int] = set()
        with suppress(OSError, ValueError, KeyError, TypeError), open(path, encoding="utf-8") as file:
            known = json.load(file)
            if known["tag"] == self._tag:
                self.numbers = set(known["parts"])

    def add(self, number: int) -> None:
        with self._lock:
            self.numbers.add(number)
            fresh = f"{self.path}.new"
            with open(fresh, "w", encoding="utf-8") as file:
                json.dump({"tag": self._tag, "parts": sorted(self.numbers)}, file)
            os.replace(fresh, self.path)
