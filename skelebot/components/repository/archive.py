"""Pack a folder into one archive, and unpack it without writing outside the folder."""

import errno
import os
import tarfile
import zlib
from stat import S_ISREG
from typing import Any

from skelebot import console
from skelebot.components.repository.store import BLOCK, Unusable
from skelebot.errors import SkelebotError
from skelebot.files import reason


def pack(folder: str, archive: str) -> None:
    """Write a folder as a .tar.gz whose bytes depend on the content alone.

    Raises SkelebotError, also for what `unpack` would refuse.
    """
    import gzip

    folder = os.path.realpath(folder)  # it may be a link
    try:
        size = {_UNPACKED_SIZE: str(_size_of(folder))}
        with (
            open(archive, "wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, pax_headers=size) as tar,
        ):
            tar.add(folder, arcname=".", filter=_anonymous)
    except OSError as error:
        raise SkelebotError(f"{folder} cannot be packed: {reason(error)}") from None


def _size_of(folder: str) -> int:
    """The bytes of all files in a folder. Raises OSError."""
    paths = [os.path.join(top, name) for top, _, names in os.walk(folder) for name in names]
    return sum(stat.st_size for path in paths if S_ISREG((stat := os.lstat(path)).st_mode))


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    _check_member(info)
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def unpack(archive: str, folder: str) -> None:
    """Unpack into a new folder.

    Raises Unusable if the file is not such an archive, has a path or link that leaves the folder, or unpacks
    to more than it may, and OSError if the folder cannot be written.
    """
    import gzip

    links: set[str] = set()
    allowance = max(_MAX_RATIO * os.path.getsize(archive), BLOCK)
    try:
        os.makedirs(folder)
        with gzip.open(archive) as packed:
            stream: Any = _Limited(packed, allowance)
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                limit = _announced_size(tar) or allowance
                stream.limit = limit + allowance  # the headers are compressed too
                total = 0
                for member in tar:
                    _check_member(member)
                    _check_path(member, links)
                    total += member.size
                    if total > limit:
                        raise _too_large(limit)
                    tar.extract(_without_rights(member), folder, set_attrs=True, numeric_owner=True, **_SAFE)
            while stream.read(BLOCK):
                pass  # up to the checksum at the end
        for link in links:
            _check_link(folder, link)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, ValueError, zlib.error) as error:
        raise Unusable(f"the archive cannot be unpacked: {error}") from None


_UNPACKED_SIZE = "SKELEBOT.unpacked"  # the global header with the bytes of all files in an archive
_MAX_RATIO = 200  # of the bytes in an archive without that header to those of the archive


class _Limited:
    """A stream for tarfile that reports when more than `limit` bytes are read from it."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self.limit = stream, limit
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        self._check(size)
        data: bytes = self._stream.read(size)
        self._check(0)
        return data

    def seek(self, position: int) -> int:
        if position > self.limit:
            raise _too_large(self.limit)
        return int(self._stream.seek(position))

    def _check(self, further: int) -> None:
        if self._stream.tell() + further > self.limit + 2 * BLOCK:  # tarfile reads ahead by as much
            raise _too_large(self.limit)


def _announced_size(tar: tarfile.TarFile) -> int | None:
    text = tar.pax_headers.get(_UNPACKED_SIZE, "")
    return int(text) if text.isdecimal() else None


def _too_large(limit: int) -> Unusable:
    return Unusable(f"the archive unpacks to more than {console.size(limit)}; it is refused, push it again")


# Python's own check, in the versions that have it: https://docs.python.org/3/library/tarfile.html
_SAFE: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def _check_member(member: tarfile.TarInfo) -> None:
    targets = [member.name]
    if member.issym():
        targets.append(os.path.join(os.path.dirname(member.name), member.linkname))
    if member.islnk():
        targets.append(member.linkname)
    for target in targets:
        clean = os.path.normpath(target)
        if os.path.isabs(clean) or clean == ".." or clean.startswith("../"):
            raise _leaves(target)
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise Unusable(f"the folder's {member.name!r} is not a file, folder or link")


def _check_path(member: tarfile.TarInfo, links: set[str]) -> None:
    """Refuse to write or read through one of the archive's own links; collect these."""
    for path in (member.name, *([member.linkname] if member.islnk() else [])):
        names = os.path.normpath(path).split("/")
        if any("/".join(names[: i + 1]) in links for i in range(len(names))):
            raise _leaves(path)
    if member.issym():
        links.add(os.path.normpath(member.name))


def _check_link(folder: str, link: str) -> None:
    """Follow a link with all links in place: two harmless ones may lead out together."""
    root, path = os.path.realpath(folder), os.path.join(folder, link)
    try:
        target = os.path.realpath(path, strict=True)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise _leaves(link) from None
        target = os.path.realpath(path)
    if os.path.commonpath([root, target]) != root:
        raise _leaves(link)


def _without_rights(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member as the caller's own: no setuid, not writable by others, readable by the caller."""
    member.uid, member.gid = os.getuid(), os.getgid()
    member.mode = (member.mode & 0o755) | (0o700 if member.isdir() else 0o600)
    return member


def _leaves(path: str) -> Unusable:
    return Unusable(f"the folder holds {path!r}, which leads out of it")
