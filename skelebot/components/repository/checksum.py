"""The SHA-256 of a file, computed while the file is transferred."""

import hashlib
import os
import queue
import threading
from contextlib import suppress

from skelebot.components.repository.store import BLOCK

_MAX_BEHIND = 16  # blocks that may wait in memory


class Checksum:
    """Computes in a thread of its own, so that neither the network nor the disk waits for it."""

    def __init__(self, path: str) -> None:
        self._path, self._digest, self._done = path, hashlib.sha256(), 0
        # A signal may interrupt the caller of `add`, which could leave a condition broken.
        self._queue: queue.SimpleQueue[bytes | int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Checksum":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._queue.put(None)

    def add(self, data: bytes | int) -> None:
        """Report further bytes of the file, in order, or how many more of it are complete."""
        is_behind = self._queue.qsize() >= _MAX_BEHIND  # then it reads them from the file
        self._queue.put(len(data) if isinstance(data, bytes) and is_behind else data)

    def sha256(self) -> str:
        """The checksum of the whole file, which is complete now. Raises OSError."""
        self._queue.put(None)
        self._thread.join()
        self._read(os.path.getsize(self._path))
        return self._digest.hexdigest()

    def _follow(self) -> None:
        with suppress(OSError):  # reading the rest will raise it again
            while (data := self._queue.get()) is not None:
                if isinstance(data, bytes):
                    self._digest.update(data)
                    self._done += len(data)
                else:
                    self._read(self._done + data)

    def _read(self, end: int) -> None:
        with open(self._path, "rb") as file:
            file.seek(self._done)
            while block := file.read(min(BLOCK, end - self._done)):
                self._digest.update(block)
                self._done += len(block)
