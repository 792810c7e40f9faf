"""Write whole files or nothing, lock files, and explain OSErrors."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from skelebot.errors import SkelebotError, UsageError

PART = ".skelebot-part"  # suffix of a file that is still being written


def reason(error: OSError | UnicodeError) -> str:
    """Return an OSError's reason in lower case, without the file's name."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def open_regular(path: str) -> IO[bytes]:
    """Open a file for reading. Raises OSError, also for a pipe or a device, which might never end."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return open(number, "rb")
    os.close(number)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "is a directory", path)
    raise OSError(22, "is not an ordinary file", path)


# --- writing ---


def replace_file(path: str, data: bytes, mode: int = 0o666) -> None:
    """Write a whole file; if that fails, the old one stays. Raises OSError."""
    with _replacement(path, mode) as file:
        file.write(data)


@contextmanager
def _replacement(path: str, mode: int = 0o666) -> Iterator[IO[bytes]]:
    fresh = f"{path}.{os.urandom(4).hex()}{PART}"
    try:
        with open(fresh, "xb", opener=lambda p, flags: os.open(p, flags, mode)) as file:
            yield file
        os.replace(fresh, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(fresh)
        raise


def copy_file(source: str, target: str) -> None:
    """Copy a whole file with its permissions, in the place of what is there; blocks are shared if possible.

    Raises OSError.
    """
    import shutil

    with open_regular(source) as file, _replacement(target, 0o600) as copy:
        if not share_blocks(file, copy):
            shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        os.fchmod(copy.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode))


@contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
    """Yield a file that replaces the old one when the block succeeds; otherwise nothing changes.

    The data is on the disk by then. Raises SkelebotError if the file cannot be written.
    """
    try:
        with _replacement(path) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # some file servers report only now that there is no room
    except OSError as error:
        if error.filename is None or str(error.filename).endswith(PART):
            raise SkelebotError(f"{path} cannot be written: {reason(error)}") from None
        raise


_FICLONE = 0x40049409  # ioctl_ficlone(2)


def share_blocks(source: IO[bytes], target: IO[bytes]) -> bool:
    """Let an empty open file have the content of another, if the file system can without a copy."""
    import fcntl

    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def output_path(text: str) -> str:
    """Return the absolute path of an output file given relative to the current folder, links followed.

    Raises UsageError if no file can be written there.
    """
    if text == "-":  # elsewhere the standard output
        raise UsageError("only a file can be written here; name one, or ./- for a file of that name")
    path = os.path.realpath(text)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise UsageError(f"{text} cannot be written: there is no folder {folder}; create it first")
    if os.path.isdir(path) or text.endswith("/"):
        raise UsageError(f"{text} is a folder; name a file in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"{text} is not an ordinary file; choose another name")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{text} cannot be written: no permission to write in the folder {folder}")
    return path


def sha256(path: str) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal. Raises OSError."""
    import hashlib  # not for a run in which nothing has changed

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --- locks ---


@contextmanager
def locked(
    path: str, *, shared: bool = False, on_wait: Callable[[], None] | None = None
) -> Iterator[IO[str]]:
    """Hold the lock of a file, which is created if missing; yields it, for a child to inherit.

    on_wait: called once if somebody else holds the lock. The file is never opened through a link, which
    others could put into a folder for all. Raises OSError.
    """
    with open_lock(path) as file:
        take_lock(file, shared=shared, on_wait=on_wait)
        yield file


@contextmanager
def temporary_lock(path: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file that is removed with it; on_wait as in `locked`. Raises OSError."""
    while True:
        with locked(path, on_wait=on_wait) as lock:
            if not _is_at(lock.fileno(), path):
                continue  # the former holder removed the file that this call waited for
            try:
                yield
            finally:
                with suppress(OSError):
                    os.unlink(path)
            return


def _is_at(number: int, path: str) -> bool:
    """Whether an open file is the one with that name."""
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except FileNotFoundError:
        return False


def open_lock(path: str) -> IO[str]:
    """Open the file of a lock, which somebody else may have made. Raises OSError."""

    def opener(path: str, flags: int) -> int:
        try:
            return os.open(path, flags | os.O_NOFOLLOW, 0o666)
        except PermissionError:
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)  # enough, except on some file servers
            raise

    return open(path, "a", encoding="ascii", opener=opener)


def take_lock(
    file: IO[str] | int, *, shared: bool = False, on_wait: Callable[[], None] | None = None
) -> None:
    """Wait for the lock of an open file, or change the kind of a lock that is held."""
    import fcntl

    if not try_lock(file, shared=shared):
        if on_wait:
            on_wait()
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def try_lock(file: IO[str] | int, *, shared: bool = False) -> bool:
    """Take the lock of an open file unless another process holds it."""
    import fcntl  # the ground floor of every start; locks are for those that build or run

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --- temporary folders ---

_PREFIX = "skelebot-private-"


@contextmanager
def private_folder() -> Iterator[str]:
    """Yield a new temporary folder that only this user can read, and remove it afterwards.

    This process locks it, so that `sweep` can recognise what a killed process has left.
    """
    folder, number = _locked_folder(_new_folder)
    try:
        yield folder
    finally:
        remove_tree(folder)
        os.close(number)


def _new_folder() -> str:
    import tempfile  # costs a tenth of the start-up

    return tempfile.mkdtemp(prefix=_PREFIX, dir=_temporary_folder())


def _locked_folder(make: Callable[[], str]) -> tuple[str, int]:
    import fcntl

    while True:
        folder = make()
        try:
            number = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another process swept it away already
        with suppress(BlockingIOError):
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.isdir(folder):
                return folder, number
        os.close(number)  # or it is sweeping it right now


def sweep() -> None:
    """Remove this user's temporary folders that no living process holds."""
    top = _temporary_folder()
    with suppress(OSError):
        for name in os.listdir(top):
            if name.startswith(_PREFIX):
                _sweep(os.path.join(top, name))


def _sweep(folder: str) -> None:
    import fcntl

    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            if os.fstat(number).st_uid == os.getuid():
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(folder)
        finally:
            os.close(number)


def _temporary_folder() -> str:
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - each folder there is private


def remove_tree(path: str) -> None:
    """Remove a folder of our own as far as possible, with folders in it that nobody may write to."""
    import shutil

    for folder, names, _ in os.walk(path):
        for name in names:
            inside = os.path.join(folder, name)
            if not os.path.islink(inside) and not os.access(inside, os.W_OK | os.X_OK):
                with suppress(OSError):
                    os.chmod(inside, 0o700)
    shutil.rmtree(path, ignore_errors=True)
