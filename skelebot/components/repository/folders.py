"""Folders as artifacts: packed into one archive, and unpacked with nothing leaving its place."""

import os
import tarfile
from typing import Any

from skelebot.errors import SkelebotError


def pack(folder: str, archive: str) -> None:
    """Writes a folder as a .tar.gz whose bytes depend on the content alone. Raises SkelebotError."""
    import gzip

    try:
        with (
            open(archive, "wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            tar.add(folder, arcname=".", filter=_anonymous)
    except OSError as error:
        raise SkelebotError(f"{folder} cannot be packed: {(error.strerror or str(error)).lower()}") from None


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def unpack(archive: str, folder: str) -> None:
    """Unpacks into a new folder. Raises SkelebotError for a path or link that would leave it."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                _check(member)
                tar.extract(member, folder, set_attrs=True, numeric_owner=False, **_SAFE)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise SkelebotError(f"the archive is not one that can be unpacked: {error}") from None
    except OSError as error:
        raise SkelebotError(f"{folder} cannot be written: {(error.strerror or str(error)).lower()}") from None


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
            raise SkelebotError(f"the archive holds {target!r}, which would leave its folder; it is refused")
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise SkelebotError(f"the archive holds {member.name!r}, which is no file; it is refused")
