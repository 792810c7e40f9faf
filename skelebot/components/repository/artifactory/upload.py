"""The body of a deployment."""

from typing import IO

from skelebot.components.repository.checksum import Checksum
from skelebot.components.repository.store import BLOCK, OnBytes, Upload


class Body:
    """A file that is being sent, can be sent again, and whose checksum is computed on the way."""

    def __init__(self, file: IO[bytes], upload: Upload, on_bytes: OnBytes) -> None:
        self._file, self._upload, self._on_bytes, self._reported = file, upload, on_bytes, 0
        self._checksum = Checksum(upload.path)

    def __enter__(self) -> "Body":
        self._checksum.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._checksum.__exit__()

    def sha256(self) -> str:
        return self._checksum.sha256()

    def __len__(self) -> int:
        return self._upload.size

    def read(self, size: int = -1) -> bytes:
        # The library asks for pieces of 16 KiB, which are too small to be fast.
        block = self._file.read(max(size, BLOCK) if size and size > 0 else size)
        at = self._file.tell()
        if not block and at < self._upload.size:
            raise self._upload.change_error()  # the server would wait for the rest
        if at > self._reported:  # not if it is sent again
            self._checksum.add(at - self._reported)
            self._on_bytes(at - self._reported)
            self._reported = at
        return block

    def rewind(self) -> None:
        self._file.seek(0)

    def tell(self) -> int:
        return self._file.tell()
