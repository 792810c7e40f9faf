"""The body of a deployment."""

import hashlib
from typing import IO

from skelebot.components.repository.store import BLOCK, OnBytes, Upload


class Body:
    """A file that is being sent, can be sent again, and whose checksum is computed on the way."""

    def __init__(self, file: IO[bytes], upload: Upload, on_bytes: OnBytes) -> None:
        self._file, self._upload, self._on_bytes, self._reported = file, upload, on_bytes, 0
        self._digest = hashlib.sha256()

    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __len__(self) -> int:
        return self._upload.size

    def read(self, size: int = -1) -> bytes:
        # The library asks for pieces of 16 KiB, which are too small to be fast.
        block = self._file.read(max(size, BLOCK) if size and size > 0 else size)
        if not block and self._file.tell() < self._upload.size:
            raise self._upload.change_error()  # the server would wait for the rest
        self._digest.update(block)
        further = max(0, self._file.tell() - self._reported)
        self._reported += further
        self._on_bytes(further)
        return block

    def rewind(self) -> None:
        self._file.seek(0)
        self._digest = hashlib.sha256()

    def tell(self) -> int:
        return self._file.tell()
