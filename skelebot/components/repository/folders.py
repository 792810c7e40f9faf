"""Folders as artifacts: packed into one archive, and unpacked with nothing leaving its place."""

import errno
import os
import tarfile
import zlib
from typing import Any

from skelebot.components.repository.store import BLOCK, Unusable, reason
from skelebot.errors import SkelebotError


def pack(folder: str, archive: str) -> None:
    """Writes a folder as a .tar.gz whose bytes depend on the content alone.

    Raises SkelebotError, also for what `unpack` would refuse.
    """
    import gzip

    try:
        with (
            open(archive, "wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            tar.add(os.path.realpath(folder), arcname=".", filter=_anonymous)  # it may itself be a link
    except OSError as error:
        raise SkelebotError(f"{folder} cannot be packed: {reason(error)}") from None


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    _check(info)
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def unpack(archive: str, folder: str) -> None:
    """Unpacks into a new folder.

    Raises Unusable for what is no such archive, or has a path or link that would leave the folder, and
    OSError where the folder cannot be written.
    """
    import gzip

    links: set[str] = set()
    try:
        os.makedirs(folder)
        with gzip.open(archive) as packed, tarfile.open(fileobj=packed, mode="r:") as tar:
            for member in tar:
                _check(member)
                _check_way(member, links)
                tar.extract(_tamed(member), folder, set_attrs=True, numeric_owner=True, **_SAFE)
            while packed.read(BLOCK):
                pass  # up to the checksum at its end
        for link in links:
            _check_link(folder, link)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, ValueError, zlib.error) as error:
        raise Unusable(f"the archive is not one that can be unpacked: {error}") from None


# Python's own guard, in those versions that have it: https://docs.python.org/3/library/tarfile.html
_SAFE: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def _check(member: tarfile.TarInfo) -> None:
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
        raise Unusable(f"the folder's {member.name!r} is no file, folder or link; it is refused")


def _check_way(member: tarfile.TarInfo, links: set[str]) -> None:
    """Refuses what would be written or read through one of the archive's own links; collects these."""
    for path in (member.name, *([member.linkname] if member.islnk() else [])):
        words = os.path.normpath(path).split("/")
        if any("/".join(words[: i + 1]) in links for i in range(len(words))):
            raise _leaves(path)
    if member.issym():
        links.add(os.path.normpath(member.name))


def _check_link(folder: str, link: str) -> None:
    """Follows a link with all links in place: two that look harmless may lead out together."""
    root, path = os.path.realpath(folder), os.path.join(folder, link)
    try:
        target = os.path.realpath(path, strict=True)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise _leaves(link) from None
        target = os.path.realpath(path)
    if os.path.commonpath([root, target]) != root:
        raise _leaves(link)


def _tamed(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member as the caller's own, without the rights of others: no setuid, nothing unreadable."""
    member.uid, member.gid = os.getuid(), os.getgid()
    member.mode = (member.mode & 0o755) | (0o700 if member.isdir() else 0o600)
    return member


def _leaves(path: str) -> Unusable:
    return Unusable(f"the folder holds {path!r}, which would leave it; it is refused")
