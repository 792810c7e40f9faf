"""A plain folder as a store, also on a network share."""

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from stat import S_ISREG, S_IXUSR

from skelebot.components.repository.store import (
    BLOCK,
    ORIGIN_NAMES,
    AlreadyStored,
    OnBytes,
    OnPrefix,
    Origin,
    Pushed,
    Stored,
    Upload,
    file_sha256,
    make_executable,
)
from skelebot.errors import SkelebotError
from skelebot.files import PART, open_regular, reason

_SUM = ".sha256"  # the checksum of an object is in a file beside it, as sha256sum writes it

_PENDING_SUM = re.compile(rf"(.+){re.escape(_SUM)}\.[0-9a-f]{{8}}{re.escape(PART)}", re.DOTALL)
_IS_PART = re.compile(r"\.[0-9a-f]{8}" + re.escape(PART))  # what is being written ends like this
_ABANDONED_SECONDS = 24 * 3600  # after which a file that is being written is a killed push's

# The errors of file systems without hard links, such as some network shares.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalStore:
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def check(self) -> None:
        """Read the folder if it exists; otherwise the first push must be able to create it."""
        next(iter(self.list("")), None)
        folder = above = os.path.abspath(self._folder)
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if above != folder and not (os.path.isdir(above) and os.access(above, os.W_OK)):
            why = f"it does not exist, and cannot be created in {above}"
            raise SkelebotError(f"{self._folder} cannot be written: {why}; fix `local`")

    def check_write(self) -> None:
        if os.path.isdir(self._folder) and not os.access(self._folder, os.W_OK | os.X_OK):
            raise SkelebotError("permission denied; ask for the right to write to the folder")

    def list(self, prefix: str) -> Iterator[Stored]:
        folder = os.path.join(self._folder, os.path.dirname(prefix))
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return
        except OSError as error:
            raise SkelebotError(f"{folder} cannot be read: {reason(error)}") from None
        existing, pending = set(names), _pending_sums(names)
        for name in names:
            key = os.path.join(os.path.dirname(prefix), name)
            if key.startswith(prefix) and not name.endswith(PART) and not _is_sum(name, existing):
                stored = self._stored(key, pending.get(name, ()))
                if stored:
                    yield stored

    def head(self, key: str) -> Stored | None:
        folder, name = os.path.split(self._path(key))
        with contextlib.suppress(OSError):
            return self._stored(key, _pending_sums(os.listdir(folder)).get(name, ()))
        return self._stored(key, ())

    def _stored(self, key: str, pending: Sequence[str]) -> Stored | None:
        path = self._path(key)
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SkelebotError(f"{path} cannot be read: {reason(error)}") from None
        if not S_ISREG(status.st_mode):
            return None
        modified = datetime.fromtimestamp(status.st_mtime, timezone.utc).isoformat(timespec="seconds")
        tag = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
        sha256, is_executable = _sum_of(path, pending), bool(status.st_mode & S_IXUSR)
        return Stored(key, status.st_size, modified, sha256, tag, is_executable, _origin_of(path))

    def _path(self, key: str) -> str:
        path = os.path.normpath(os.path.join(self._folder, key))
        if not path.startswith(os.path.normpath(self._folder) + os.sep):
            raise SkelebotError(f"{key} would be outside the store {self._folder}; fix the prefix")
        return path

    def push(self, key: str, upload: Upload, force: bool, on_bytes: OnBytes) -> Pushed:
        path = self._path(key)
        if not force and os.path.lexists(path):
            raise AlreadyStored(key)
        ending = f".{os.urandom(4).hex()}{PART}"
        part, part_of_sum, sha256 = path + ending, path + _SUM + ending, upload.sha256
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            sent = _copy(upload.path, part, 0, upload.size, on_bytes, _ignore)
            if file_sha256(part) != sha256:
                raise upload.change_error()
            if upload.is_executable:
                make_executable(part)
            with open(part_of_sum, "x", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"{sha256}  {os.path.basename(path)}\n")
                # A line of sha256sum's that is a comment.
                file.writelines(f"# {name} {value}\n" for name, value in upload.origin)
            with _locked(os.path.dirname(path)):
                try:
                    _place(part, path, force)
                except (OSError, AlreadyStored):
                    _remove(part_of_sum)
                    raise
                now = os.stat(part_of_sum).st_mtime
                os.replace(part_of_sum, path + _SUM)
            _remove_abandoned(path, now)
        except OSError as error:
            raise SkelebotError(f"{path} cannot be written: {reason(error)}") from None
        finally:
            _remove(part)
        return Pushed(sha256, sent)

    def pull(self, stored: Stored, part: str, on_bytes: OnBytes, on_prefix: OnPrefix) -> int:
        have = os.path.getsize(part) if os.path.exists(part) else 0
        on_bytes(have)
        on_prefix(have)
        try:
            return _copy(self._path(stored.key), part, have, stored.size, on_bytes, on_prefix)
        except OSError as error:
            raise SkelebotError(f"{stored.key} cannot be pulled: {reason(error)}") from None

    def is_executable(self, stored: Stored) -> bool:
        return stored.is_executable


def _place(part: str, path: str, force: bool) -> None:
    """Give a complete file its name. Raises AlreadyStored unless `force`."""
    if force:
        os.replace(part, path)
        return
    # Either fails if the path exists, also when two processes try at once.
    try:
        try:
            os.link(part, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with open(path, "xb"):
                os.replace(part, path)
    except FileExistsError:
        raise AlreadyStored(os.path.basename(path)) from None


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Keep the objects of pushes to a folder together with their checksums, if its file system has locks."""
    number = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _ignore(count: int) -> None:
    """Nobody follows these bytes."""


def _copy(source: str, target: str, start: int, end: int, on_bytes: OnBytes, on_prefix: OnPrefix) -> int:
    at = start
    with open_regular(source) as src, open(target, "ab" if start else "wb") as dst:
        src.seek(start)
        while block := src.read(min(BLOCK, end - at)):
            dst.write(block)
            dst.flush()
            at += len(block)
            on_bytes(len(block))
            on_prefix(len(block))
    return at - start


def _remove_abandoned(path: str, now: float) -> None:
    """Remove what killed pushes of that object left. now: by the clock of that file system."""
    folder, name = os.path.split(path)
    for other in os.listdir(folder):
        if other.startswith(name) and _IS_PART.fullmatch(other.removeprefix(name).removeprefix(_SUM)):
            with contextlib.suppress(OSError):
                if now - os.stat(os.path.join(folder, other)).st_mtime > _ABANDONED_SECONDS:
                    os.unlink(os.path.join(folder, other))


def _pending_sums(names: Iterable[str]) -> dict[str, list[str]]:
    """The files in which pushes have noted a checksum before they place an object, by the object's name."""
    pending: dict[str, list[str]] = {}
    for name in names:
        if match := _PENDING_SUM.fullmatch(name):
            pending.setdefault(match[1], []).append(name)
    return pending


def _sum_of(path: str, pending: Sequence[str]) -> str | None:
    """The checksum that was recorded for an object.

    A push that was killed while it replaced the object has left two: the content tells which is valid.
    """
    folder = os.path.dirname(path)
    files = [path + _SUM, *(os.path.join(folder, name) for name in pending)]
    sums = {sha256 for file in files if (sha256 := _read_sum(file))}
    if len(sums) > 1:
        with contextlib.suppress(OSError):
            actual = file_sha256(path)
            return actual if actual in sums else min(sums)
    return next(iter(sums), None)


def _read_sum(file: str) -> str | None:
    with contextlib.suppress(OSError, ValueError), open_regular(file) as opened:
        text = opened.read(64).decode("ascii").lower()
        return text if re.fullmatch("[0-9a-f]{64}", text) else None
    return None


def _origin_of(path: str) -> Origin:
    with contextlib.suppress(OSError, UnicodeError), open_regular(path + _SUM) as opened:
        words = [line.split() for line in opened.read(4096).decode("utf-8").splitlines()[1:]]
        return tuple((w[1], w[2]) for w in words if w[:1] == ["#"] and len(w) == 3 and w[1] in ORIGIN_NAMES)
    return ()


def _is_sum(name: str, existing: set[str]) -> bool:
    return name.endswith(_SUM) and name.removesuffix(_SUM) in existing
