"""What a mapped folder here and its volume on another machine differ in, and how each file crosses over."""

import os
import stat
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, NamedTuple, cast

from skelebot.errors import SkelebotError
from skelebot.files import PART, reason, sha256


class FileState(NamedTuple):
    """A file, folder or link: `kind` is f, d or l; `link` is where a link leads.

    mtime, ctime: in nanoseconds. Whoever writes sets the former as they like; the latter is the system's own.
    """

    kind: str
    size: int
    mtime: int
    mode: int
    link: str
    ctime: int = 0

    def is_same(self, other: "FileState | None") -> bool:
        """Tell whether it looks like a state of the other side, which has a ctime of its own."""
        if other is None or self.kind != other.kind:
            return False
        facts = {"f": (self.size, self.mtime, self.mode), "l": (self.link,), "d": ()}
        others = {"f": (other.size, other.mtime, other.mode), "l": (other.link,), "d": ()}
        return facts[self.kind] == others[other.kind]

    def is_unchanged(self, before: "FileState | None") -> bool:
        """Tell whether nobody has written to it since an earlier state of the same side."""
        return self.is_same(before) and (self.kind != "f" or before is None or self.ctime == before.ctime)


class Agreement(NamedTuple):
    """What each side had of a path when they were last in step."""

    here: FileState
    there: FileState


Listing = dict[str, FileState]
# None for what was on its way there.
Agreed = dict[str, Agreement | None]


@dataclass(frozen=True)
class Transfers:
    """The paths to send, to delete there, and to fetch, parents first.

    clash: what the job has made of another kind than what is here.
    """

    send: list[str] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    fetch: list[str] = field(default_factory=list)
    clash: list[str] = field(default_factory=list)

    @property
    def parts(self) -> tuple[list[str], list[str], list[str]]:
        return self.send, self.delete, self.fetch


def compare(here: Listing, there: Listing, agreed: Agreed) -> Transfers:
    """What it takes to bring both sides in step.

    A side that still has what was agreed on takes the other's; where both have changed, the later
    write wins. A file that is missing there is sent: nothing is deleted here.
    """
    found = Transfers()
    in_the_way = {path for path, own in here.items() if own.kind != "d" and _is_folder(there.get(path))}
    for path in sorted({*here, *there}):
        own, other, known = here.get(path), there.get(path), agreed.get(path)
        if own and other and own.is_same(other) and (known is None or _are_unchanged(own, other, known)):
            continue
        if other and _is_theirs(path, own, other, agreed) and not _is_below(path, in_the_way):
            found.fetch.append(path)
        else:
            is_other_kind = own is not None and other is not None and own.kind != other.kind
            if is_other_kind and other and not (known and other.is_unchanged(known.there)):
                found.clash.append(path)
            if other and (own is None or is_other_kind):
                found.delete.append(path)
            if own:
                found.send.append(path)
    return found


def _are_unchanged(own: FileState, other: FileState, known: Agreement) -> bool:
    return own.is_unchanged(known.here) and other.is_unchanged(known.there)


def _is_theirs(path: str, own: FileState | None, other: FileState, agreed: Agreed) -> bool:
    """Whether the other side's is what a job wrote, rather than what is left of an older state."""
    known = agreed.get(path)
    on_its_way = path in agreed and known is None
    if on_its_way or (known and other.is_unchanged(known.there)):
        return False
    if own is None:
        return True
    if own.kind != other.kind:
        return False
    is_own_unchanged = known is not None and own.is_unchanged(known.here)
    return is_own_unchanged or other.mtime > own.mtime or own.is_same(other)


def _is_folder(entry: FileState | None) -> bool:
    return entry is not None and entry.kind == "d"


def _is_below(path: str, tops: set[str]) -> bool:
    parts = path.split("/")
    return bool(tops) and any("/".join(parts[:n]) in tops for n in range(1, len(parts)))


# --- what there is ---

_KINDS = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}


def entry_of(path: str) -> FileState | None:
    """What stands at a path, links not followed; None for nothing, and for sockets and pipes."""
    try:
        status = os.lstat(path)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        link = os.readlink(path) if kind == "l" else ""
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if kind is None:
        return None
    return FileState(kind, status.st_size, status.st_mtime_ns, mode, link, status.st_ctime_ns)


def listed(folder: str, own: str, part: str) -> Listing:
    """What is below a folder of this machine, which is made where it has gone; `own` is Skelebot's.

    part: the name of what is on its way; where a killed transfer has left one, it is removed. Raises
    SkelebotError.
    """
    found: Listing = {}
    try:
        os.makedirs(folder, exist_ok=True)
        _list(folder, "", own, part, found)
    except OSError as error:
        raise SkelebotError(f"{error.filename or folder} cannot be read: {reason(error)}") from None
    return found


def _list(folder: str, prefix: str, own: str, part: str, found: Listing) -> None:
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name == part:
            with suppress(OSError):
                os.unlink(path)
        elif not name.endswith(PART) and path != own and (entry := entry_of(path)):
            found[prefix + name] = entry
            if entry.kind == "d":
                _list(path, f"{prefix}{name}/", own, part, found)


def parse_listing(data: bytes) -> dict[int, Listing]:
    """The listing of several volumes as `find` prints it: of each, by its number, what is below it.

    Seven fields for each, all ended by a zero: kind, size, seconds of both times, mode, where a link leads,
    NUMBER/PATH.
    """
    found: dict[int, Listing] = {}
    fields = [os.fsdecode(text) for text in data.split(b"\0")]
    for at in range(0, len(fields) - 7, 7):
        kind, size, mtime, ctime, mode, link, whole = fields[at : at + 7]
        number, _, path = whole.partition("/")
        times = nanoseconds(mtime), nanoseconds(ctime)
        entry = FileState(kind, int(size), times[0], int(mode, 8) & 0o777, link, times[1])
        found.setdefault(int(number), {})[path] = entry
    return found


def nanoseconds(text: str) -> int:
    """Of a time as `find` and tar's extended headers write it: seconds with any number of decimals."""
    whole, _, rest = text.partition(".")
    part = int(f"{rest:0<9}"[:9])
    return int(whole) * 10**9 + (-part if whole.startswith("-") else part)


def _decimal(nanoseconds: int) -> str:
    whole, part = divmod(abs(nanoseconds), 10**9)
    return f"{'-' * (nanoseconds < 0)}{whole}.{part:09d}"


def checksum(path: str) -> str:
    """SHA-256 of a file, in hexadecimal; of one that is not there, nothing. Raises SkelebotError."""
    try:
        return sha256(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise SkelebotError(f"{path} cannot be read: {reason(error)}") from None


# --- one file ---

Moved = Callable[[int], None]  # called with each number of transferred bytes


def add(tar: tarfile.TarFile, name: str, path: str, moved: Moved) -> None:
    """Add what is at a path, with its time to the nanosecond in an extended header.

    Raises SkelebotError where it cannot be read.
    """
    try:
        info = tar.gettarinfo(path, name)
        tar.inodes = {}  # type: ignore[attr-defined] # a second name of a file is sent as a file too
        info.pax_headers = {"mtime": _decimal(os.lstat(path).st_mtime_ns)}
        if info.isreg():
            with open(path, "rb") as file:
                tar.addfile(info, cast(IO[bytes], _Counted(file, moved)))
        else:
            tar.addfile(info)
    except FileNotFoundError:
        return  # gone since it was listed
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SkelebotError(f"{path} cannot be sent: {reason(error)}") from None


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], moved: Moved) -> None:
        self._file, self._moved = file, moved

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._moved(len(data))
        return data


def put(tar: tarfile.TarFile, member: tarfile.TarInfo, target: str, part: str, moved: Moved) -> None:
    """Put a member of a tar into its place, whole or not at all; `part` is its name until then.

    Raises OSError, and tarfile.TarError for a tar that ends too early.
    """
    fresh = os.path.join(os.path.dirname(target), part)
    try:
        if member.isdir():
            os.mkdir(target)
            os.chmod(target, (member.mode & 0o777) | 0o700)
        elif member.issym():
            os.symlink(member.linkname, fresh)
            os.replace(fresh, target)
        elif source := tar.extractfile(member):
            copy(source, fresh, member, moved)
            os.replace(fresh, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(fresh)
        raise


def copy(source: IO[bytes], fresh: str, member: tarfile.TarInfo, moved: Moved) -> None:
    """Write a file of a tar, which nobody else can read before it has the mode that it had there."""
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        while block := source.read(1 << 20):
            file.write(block)
            moved(len(block))
    os.chmod(fresh, member.mode & 0o777)
    time = mtime(member)
    os.utime(fresh, ns=(time, time))


def mtime(member: tarfile.TarInfo) -> int:
    """When a member of a tar was written, in nanoseconds."""
    return nanoseconds(member.pax_headers.get("mtime", str(member.mtime)))
