"""A plain folder as a store, also on a network share."""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from datetime import datetime, timezone

from skelebot.components.repository.store import (
    BLOCK,
    AlreadyThere,
    Progress,
    Pushed,
    Source,
    Stored,
    file_sha256,
    forget,
    reason,
)
from skelebot.errors import SkelebotError

_SUM = ".sha256"  # beside each object a file with its checksum, as sha256sum writes it

_PART = ".skelebot-part"  # what is on its way has another name, with something random before this
_IS_PART = re.compile(r"\.[0-9a-f]{8}" + re.escape(_PART))
_DEAD = 24 * 3600  # seconds after which a part that nobody writes to is that of a killed push

# What file systems without hard links say, as some network shares.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalStore:
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def check(self) -> None:
        """Reads the folder, if it is there; otherwise the first push is to make it."""
        next(iter(self.list("")), None)
        folder = above = os.path.abspath(self._folder)
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if above != folder and not (os.path.isdir(above) and os.access(above, os.W_OK)):
            why = f"it is not there, and cannot be made in {above}"
            raise SkelebotError(f"{self._folder} cannot be written: {why}; mend `local`")

    def list(self, prefix: str) -> Iterator[Stored]:
        folder = os.path.join(self._folder, os.path.dirname(prefix))
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return
        except OSError as error:
            raise SkelebotError(f"{folder} cannot be read: {reason(error)}") from None
        there = set(names)
        for name in names:
            key = os.path.join(os.path.dirname(prefix), name)
            if key.startswith(prefix) and not name.endswith(_PART) and not _is_sum(name, there):
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

    def push(self, key: str, source: Source, force: bool, progress: Progress) -> Pushed:
        path = self._path(key)
        if not force and os.path.lexists(path):
            raise AlreadyThere(key)
        part, sha256 = _part(path), source.sha256
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            sent = _copy(source.path, part, 0, progress, _nobody)
            _drop_dead(path, os.stat(part).st_mtime)
            if file_sha256(part) != sha256:
                raise source.changed()
            self._place(part, path, force)
            _write(path + _SUM, f"{sha256}  {os.path.basename(path)}\n")
        except OSError as error:
            raise SkelebotError(f"{path} cannot be written: {reason(error)}") from None
        finally:
            forget(part)
        return Pushed(sha256, sent)

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

    def pull(self, stored: Stored, part: str, progress: Progress, arrived: Progress) -> int:
        have = os.path.getsize(part) if os.path.exists(part) else 0
        progress(have)
        arrived(have)
        try:
            return _copy(self._path(stored.key), part, have, progress, arrived)
        except OSError as error:
            raise SkelebotError(f"{stored.key} cannot be pulled: {reason(error)}") from None


def _nobody(count: int) -> None:
    """Is told of bytes, and does nothing."""


def _copy(source: str, target: str, start: int, progress: Progress, arrived: Progress) -> int:
    sent = 0
    with open(source, "rb") as src, open(target, "ab" if start else "wb") as dst:
        src.seek(start)
        while block := src.read(BLOCK):
            dst.write(block)
            dst.flush()
            sent += len(block)
            progress(len(block))
            arrived(len(block))
    return sent


def _part(path: str) -> str:
    return f"{path}.{secrets.token_hex(4)}{_PART}"


def _drop_dead(path: str, now: float) -> None:
    """Removes what killed pushes of that object have left. now: by the clock that stamps files there."""
    folder, name = os.path.split(path)
    for other in os.listdir(folder):
        if other.startswith(name) and _IS_PART.fullmatch(other.removeprefix(name).removeprefix(_SUM)):
            with contextlib.suppress(OSError):
                if now - os.stat(os.path.join(folder, other)).st_mtime > _DEAD:
                    os.unlink(os.path.join(folder, other))


def _is_sum(name: str, there: set[str]) -> bool:
    return name.endswith(_SUM) and name.removesuffix(_SUM) in there


def _write(path: str, text: str) -> None:
    fresh = _part(path)
    with open(fresh, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.replace(fresh, path)
