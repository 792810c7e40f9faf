"""The tar by which a build sends its context to the engine."""

import io
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

from skelebot.image.context import ContextEntry, unreadable

if TYPE_CHECKING:
    import tarfile


def write_tar(
    stream: IO[bytes], entries: Iterable[ContextEntry], folder: str, dockerfile: tuple[str, str]
) -> None:
    """Write the entries below `folder`, and a Dockerfile given by its path and text.

    Raises SkelebotError for a file that cannot be read.
    """
    import tarfile  # only for builds

    path, text = dockerfile
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        _add_text(tar, path, text)
        if folder:  # also with nothing in it, which COPY would miss
            _add_folder(tar, folder)
        for entry in entries:
            if folder + entry.path != path:
                _add_entry(tar, entry, folder + entry.path)


def _add_text(tar: "tarfile.TarFile", name: str, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    info = tar.tarinfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _add_folder(tar: "tarfile.TarFile", name: str) -> None:
    info = tar.tarinfo(name)
    info.type, info.mode = b"5", 0o755  # tarfile.DIRTYPE
    tar.addfile(info)


def _add_entry(tar: "tarfile.TarFile", entry: ContextEntry, name: str) -> None:
    try:
        info = tar.gettarinfo(entry.file, name)
        if info is None or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
            return  # sockets and pipes have no content
        # Whose checkout it is does not matter in the image.
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        if info.isreg():
            with open(entry.file, "rb") as file:
                tar.addfile(info, file)
        else:
            tar.addfile(info)
    except FileNotFoundError:
        return  # gone since the folder was listed
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unreadable(entry.path, error) from None
