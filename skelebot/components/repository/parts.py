"""A file in parts: their ranges, transferring several at once, and which have arrived."""

import hashlib
import json
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from skelebot.components.repository.store import BLOCK, OnBytes, Stored
from skelebot.files import replace_file

PART_SIZE = 8 << 20  # bytes; larger files have larger parts, as S3 allows 10,000
AT_ONCE = 10  # parts
_MAX_PARTS = 10_000


@dataclass(frozen=True)
class Part:
    """A range of a file: its number from 1, its start, and its length."""

    number: int
    start: int
    size: int


def parts_of(size: int) -> list[Part]:
    length = max(PART_SIZE, -(-size // _MAX_PARTS))
    starts = range(0, size, length)
    return [Part(i + 1, start, min(length, size - start)) for i, start in enumerate(starts)]


class Cancelled(BaseException):
    """The transfer has ended for another reason; not an Exception, which would be retried."""


def check_stop(stop: threading.Event) -> None:
    if stop.is_set():
        raise Cancelled


def in_parallel(
    transfer: Callable[[Part, threading.Event], None], parts: Sequence[Part], after: Callable[[], None]
) -> None:
    """Transfer all parts, a few at a time, and call `after` each; raise the first failure.

    A failure or a signal ends it at once: the event tells the threads, and those that wait for the
    network are not waited for.
    """
    remaining, stop = iter(parts), threading.Event()
    outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            for part in remaining:
                transfer(part, stop)
                check_stop(stop)
                outcomes.put(None)
        except BaseException as error:
            outcomes.put(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in parts[:AT_ONCE]]
    try:
        for thread in threads:
            thread.start()
        for _ in parts:
            if error := outcomes.get():
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

    def __init__(self, file: Any, part: Part, on_bytes: OnBytes, stop: threading.Event) -> None:
        self._file, self._part, self._at = file, part, 0
        self._on_bytes, self._stop = on_bytes, stop
        file.seek(part.start)

    def __len__(self) -> int:
        return self._part.size

    def read(self, size: int = -1) -> bytes:
        check_stop(self._stop)
        left = self._part.size - self._at
        # The library asks for pieces of 16 KiB, which are too small to be fast.
        wanted = left if size is None or size < 0 else max(size, BLOCK)
        block: bytes = self._file.read(min(wanted, left))
        if left and not block:
            raise Cancelled  # the file has become shorter, and the server would wait for the rest
        self._move(self._at + len(block))
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        self._move({0: 0, 1: self._at, 2: self._part.size}[whence] + offset)
        self._file.seek(self._part.start + self._at)
        return self._at

    def tell(self) -> int:
        return self._at

    def _move(self, to: int) -> None:
        self._on_bytes(to - self._at)
        self._at = to


class Record:
    """The parts of a download that have arrived, kept beside its file for the next call."""

    def __init__(self, path: str, stored: Stored) -> None:
        self.path, self._lock = path, threading.Lock()
        self._tag = f"{stored.tag} {stored.size} {PART_SIZE}"
        self.numbers: set[int] = set()
        with suppress(OSError, ValueError, KeyError, TypeError), open(path, encoding="utf-8") as file:
            known = json.load(file)
            if known["tag"] == self._tag:
                self.numbers = set(known["parts"])

    def add(self, number: int) -> None:
        with self._lock:
            self.numbers.add(number)
            known = {"tag": self._tag, "parts": sorted(self.numbers)}
            replace_file(self.path, json.dumps(known).encode())
