"""The SHA-256 of a file, computed while the file is transferred."""

import hashlib
import os
import queue
import threading
from contextlib import suppress

_BLOCK = 256 << 10  # bytes; fits into a processor's cache


class Checksum:
    """Computes in a thread of its own, so that neither the network nor the disk waits for it.

    The thread reads the file rather than being handed the blocks: they would be freed in another thread
    than the one that allocates them, which costs more than to read what was just read or written.
    """

    def __init__(self, path: str) -> None:
        self._path, self._digest, self._done = path, hashlib.sha256(), 0
        self._buffer = memoryview(bytearray(_BLOCK))
        # A signal may interrupt the caller of `add`, which could leave a condition broken.
        self._queue: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Checksum":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._queue.put(None)

    def add(self, count: int) -> None:
        """Report how many further bytes are complete from the beginning of the file."""
        self._queue.put(count)

    def sha256(self) -> str:
        """The checksum of the whole file, which is complete now. Raises OSError."""
        self._queue.put(None)
        self._thread.join()
        self._read(os.path.getsize(self._path))
        return self._digest.hexdigest()

    def _follow(self) -> None:
        end = 0
        with suppress(OSError):  # reading the rest will raise it again
            while (count := self._queue.get()) is not None:
                end += count
                if end:  # the file of a download begins with its first block
                    self._read(end)

    def _read(self, end: int) -> None:
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._done)
            while count := file.readinto(self._buffer[: max(0, end - self._done)]):
                self._digest.update(self._buffer[:count])
                self._done += count
