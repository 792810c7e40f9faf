"""The body of a deployment."""

import hashlib
import threading
from io import FileIO
from queue import SimpleQueue

from skelebot.components.repository.store import OnBytes, Upload

_PIECE = 512 << 10  # bytes; several fit into a processor's cache
_PIECES = 4


class Body:
    """A file that is being sent, can be sent again, and whose checksum is computed on the way.

    A thread computes it from the memory that is sent, as to read the file twice takes a tenth longer. The
    memory is used in turns: what one thread allocates and another frees costs as much.
    """

    def __init__(self, file: FileIO, upload: Upload, on_bytes: OnBytes) -> None:
        self._file, self._upload, self._on_bytes, self._reported = file, upload, on_bytes, 0
        self._digest = hashlib.sha256()
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._filled: SimpleQueue[tuple[memoryview, memoryview] | None] = SimpleQueue()
        for _ in range(_PIECES):
            self._free.put(memoryview(bytearray(_PIECE)))

    def __enter__(self) -> "Body":
        threading.Thread(target=self._follow, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._filled.put(None)

    def _follow(self) -> None:
        while piece := self._filled.get():
            memory, fresh = piece
            self._digest.update(fresh)
            self._free.put(memory)

    def sha256(self) -> str:
        """The checksum of the whole file, of which the rest is read now. Raises OSError, SkelebotError."""
        while self._reported < self._upload.size:
            self.read()
        for memory in [self._free.get() for _ in range(_PIECES)]:  # until the thread has had them all
            self._free.put(memory)
        return self._digest.hexdigest()

    def __len__(self) -> int:
        return self._upload.size

    def read(self, _: int = -1) -> memoryview:
        """The next piece, which is there until the one after it is read.

        The library asks for 16 KiB, which would be too few to be fast.
        """
        memory = self._free.get()
        count = self._file.readinto(memory)
        at = self._file.tell()
        fresh = max(0, at - self._reported)  # none if it is sent again
        self._filled.put((memory, memory[count - fresh : count]))
        if not count and at < self._upload.size:
            raise self._upload.change_error()  # the server would wait for the rest
        if fresh:
            self._on_bytes(fresh)
            self._reported = at
        return memory[:count]

    def rewind(self) -> None:
        self._file.seek(0)

    def tell(self) -> int:
        return self._file.tell()
