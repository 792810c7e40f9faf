"""A plain folder as a store, also on a network share."""

import contextlib
import errno
import os
from collections.abc import Iterator
from datetime import datetime, timezone

from skelebot.components.repository.store import (
    BLOCK,
    AlreadyThere,
    Progress,
    Stored,
    file_sha256,
    forget,
    reason,
)
from skelebot.errors import SkelebotError

_SUM = ".sha256"  # beside each object a file with its checksum, as sha256sum writes it

# What file systems without hard links say, as some network shares.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalStore:
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def check(self) -> None:
        """Reads the folder, if it is there; the first push makes it."""
        next(iter(self.list("")), None)

    def list(self, prefix: str) -> Iterator[Stored]:
        folder = os.path.join(self._folder, os.path.dirname(prefix))
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return
        except OSError as error:
            raise SkelebotError(f"{folder} cannot be read: {reason(error)}") from None
        for name in names:
            key = os.path.join(os.path.dirname(prefix), name)
            if key.startswith(prefix) and not name.endswith((_SUM, ".part")):
                found = self._found(key)
                if found:
                    yield found

    def head(self, key: str) -> Stored | None:
        return self._found(key)

    def _found(self, key: str) -> Stored | None:
        path = self._path(key)
        try:
            stat = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SkelebotError(f"{path} cannot be read: {reason(error)}") from None
        if os.path.isdir(path):
            return None
        modified = datetime.fromtimestamp(stat.st_mtime, timezone.utc).isoformat(timespec="seconds")
        tag = f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}"
        return Stored(key, stat.st_size, modified, self._sum(path), tag)

    @staticmethod
    def _sum(path: str) -> str | None:
        with contextlib.suppress(OSError), open(path + _SUM, encoding="ascii") as file:
            return file.read(64)
        return None

    def _path(self, key: str) -> str:
        path = os.path.normpath(os.path.join(self._folder, key))
        if not path.startswith(os.path.normpath(self._folder) + os.sep):
            raise SkelebotError(f"{key} would lie outside of the store {self._folder}; mend the prefix")
        return path

    def push(self, key: str, file: str, sha256: str, force: bool, progress: Progress) -> int:
        path = self._path(key)
        if not force and os.path.lexists(path):
            raise AlreadyThere(key)
        part = f"{path}.{os.getpid()}.part"
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            sent = _copy(file, part, 0, progress)
            if file_sha256(part) != sha256:
                raise SkelebotError(f"{file} changed while it was pushed; push it again")
            self._place(part, path, force)
            _write(path + _SUM, f"{sha256}  {os.path.basename(path)}\n")
        except OSError as error:
            raise SkelebotError(f"{path} cannot be written: {reason(error)}") from None
        finally:
            forget(part)
        return sent

    @staticmethod
    def _place(part: str, path: str, force: bool) -> None:
        if force:
            forget(path + _SUM)  # a wrong checksum is worse than none
            os.replace(part, path)
            return
        # Either fails where the path is taken, also when two try at once.
        try:
            try:
                os.link(part, path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with open(path, "xb"):
                    os.replace(part, path)
        except FileExistsError:
            raise AlreadyThere(os.path.basename(path)) from None

    def pull(self, stored: Stored, part: str, progress: Progress) -> int:
        have = os.path.getsize(part) if os.path.exists(part) else 0
        progress(have)
        try:
            return _copy(self._path(stored.key), part, have, progress)
        except OSError as error:
            raise SkelebotError(f"{stored.key} cannot be pulled: {reason(error)}") from None


def _copy(source: str, target: str, start: int, progress: Progress) -> int:
    sent = 0
    with open(source, "rb") as src, open(target, "ab" if start else "wb") as dst:
        src.seek(start)
        while block := src.read(BLOCK):
            dst.write(block)
            sent += len(block)
            progress(len(block))
    return sent


def _write(path: str, text: str) -> None:
    fresh = f"{path}.{os.getpid()}.part"
    with open(fresh, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.replace(fresh, path)
