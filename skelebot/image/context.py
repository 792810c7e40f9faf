"""What a build sends to the engine: the project's files less the ignored ones, and their fingerprint.

The fingerprint covers what an image would hold: paths, content, links and modes, and neither owners
nor times, so that the same tree has the same one on every machine. What was hashed is remembered by
size, times and inode, so that a gigabyte which has not changed is not read again.
"""

import io
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, NamedTuple

from skelebot.errors import SkelebotError
from skelebot.image.ignores import Ignores

if TYPE_CHECKING:
    import tarfile

# A file that changed this recently, in nanoseconds, may change again without its times showing it.
_RACY = 2_000_000_000

_MOST_LAYERS = 20

_GONE = "gone"  # the content of a file that was deleted since its folder was listed


class Entry(NamedTuple):
    """A file, folder or link of the context; `path` is from the project root, with slashes."""

    path: str
    file: str
    stat: os.stat_result


def walk(root: str, ignores: Ignores, hidden: frozenset[str] = frozenset()) -> list[Entry]:
    """Everything in the context, sorted folder by folder, less the paths `hidden` and what is below.

    Raises SkelebotError for a folder that cannot be read.
    """
    found: list[Entry] = []
    _walk(root, "", ignores, hidden, found)
    return found


def _walk(folder: str, prefix: str, ignores: Ignores, hidden: frozenset[str], found: list[Entry]) -> None:
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda e: e.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(prefix.rstrip("/") or ".", error) from None
    for entry in entries:
        path = prefix + entry.name
        if path in hidden:
            continue
        excluded = ignores.excludes_entry(path, entry.name)
        if not excluded:
            try:  # `suppress` would take a twentieth of the walk's time
                found.append(Entry(path, entry.path, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue  # what is gone by now is not in the context
        if entry.is_dir(follow_symlinks=False) and not (excluded and ignores.skips(path)):
            _walk(entry.path, path + "/", ignores, hidden, found)


def _unreadable(path: str, error: OSError) -> SkelebotError:
    reason = (error.strerror or str(error)).lower()
    return SkelebotError(f"{path} cannot be read: {reason}; mend that or add it to `ignores`")


# --- the fingerprint ---


class Memory:
    """What is known of the files' content from earlier runs, in a folder of the project's own.

    Every file in it is written whole; a lost or torn one costs time, and nothing else.
    """

    def __init__(self, folder: str, variant: str) -> None:
        """variant: the name of the image, which decides what is left out."""
        self._folder, self._variant = folder, variant
        self._hashes: dict[str, list[object]] | None = None
        self._fresh: dict[str, list[object]] = {}

    def fingerprint(self, text: str, entries: list[Entry], view: str) -> str:
        """The fingerprint of a Dockerfile and a context; `view` names what was hidden from the walk."""
        stats = _stats(text, entries)
        file = os.path.join(self._folder, f"{self._variant}.{view}.stats")
        with suppress(OSError), open(file, "rb") as known:
            if (remembered := known.read()).partition(b"\n")[2] == stats:
                return remembered[:64].decode("ascii", "replace")
        fingerprint = self.hashed(text, entries)
        if not _racy(entries):
            self._write(file, fingerprint.encode() + b"\n" + stats)
        return fingerprint

    def hashed(self, text: str, entries: list[Entry]) -> str:
        """The same from the content alone; files that are known are not read again."""
        import hashlib  # only where something has changed

        whole = hashlib.sha256(text.encode("utf-8", "surrogateescape"))
        for entry in entries:
            fields = (entry.path, _kind(entry), self._content(entry))
            whole.update(b"\0" + "\0".join(fields).encode("utf-8", "surrogateescape"))
        self._save()
        return whole.hexdigest()

    def _content(self, entry: Entry) -> str:
        if stat.S_ISLNK(entry.stat.st_mode):
            with suppress(FileNotFoundError):
                return os.readlink(entry.file)
            return _GONE
        if not stat.S_ISREG(entry.stat.st_mode):
            return ""
        mark = [entry.stat.st_size, entry.stat.st_mtime_ns, entry.stat.st_ctime_ns, entry.stat.st_ino]
        known = self._known().get(entry.path)
        if known is None or known[:4] != mark:
            known = [*mark, _file_hash(entry)]
        if not _racy([entry]):
            self._fresh[entry.path] = known
        return str(known[4])

    def _known(self) -> dict[str, list[object]]:
        if self._hashes is None:
            self._hashes = {}
            with suppress(OSError, ValueError, AttributeError):
                with open(self._file_of_hashes(), encoding="utf-8") as file:
                    loaded = json.load(file)
                self._hashes = {k: v for k, v in loaded.items() if isinstance(v, list) and len(v) == 5}
        return self._hashes

    def _save(self) -> None:
        """Keeps what is known of files that were not looked at this time: another view may hold them."""
        if any(self._known().get(path) != mark for path, mark in self._fresh.items()):
            text = json.dumps(self._known() | self._fresh)
            self._write(self._file_of_hashes(), text.encode("utf-8", "surrogateescape"))

    def _file_of_hashes(self) -> str:
        return os.path.join(self._folder, f"{self._variant}.hashes")

    @staticmethod
    def _write(path: str, data: bytes) -> None:
        """A project that cannot be written, or a full disk, is no reason not to run."""
        fresh = f"{path}.{os.getpid()}"
        with suppress(OSError):
            try:
                with open(fresh, "wb") as file:
                    file.write(data)
                os.replace(fresh, path)
            except OSError:
                os.unlink(fresh)
                raise


def _stats(text: str, entries: list[Entry]) -> bytes:
    """All that tells whether something has changed, without reading a file."""
    lines = [
        f"{e.path}\0{s.st_mode} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}"
        for e in entries
        for s in (e.stat,)
    ]
    return "\n".join([text, *lines]).encode("utf-8", "surrogateescape")


def _racy(entries: Iterable[Entry]) -> bool:
    import time

    now = time.time_ns()
    # A time far ahead is that of a file server with another clock.
    changed = (e.stat.st_ctime_ns for e in entries if not stat.S_ISDIR(e.stat.st_mode))
    return any(now - _RACY < ctime < now + _RACY for ctime in changed)


def _kind(entry: Entry) -> str:
    """The type and mode; who else may write depends on the umask of the checkout and does not count."""
    return f"{stat.S_IFMT(entry.stat.st_mode):o} {stat.S_IMODE(entry.stat.st_mode) & 0o7755:o}"


def _file_hash(entry: Entry) -> str:
    import hashlib

    digest = hashlib.sha256()
    try:
        with open(entry.file, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError:
        return _GONE
    except OSError as error:
        raise _unreadable(entry.path, error) from None
    return digest.hexdigest()


# --- heavy parts ---


def heavy(entries: list[Entry], limit: int) -> list[str]:
    """The files and folders of at least `limit` bytes that deserve a layer of their own.

    A folder that is heavy by what lies somewhere below it is divided further; one that is heavy by
    the sum of many small files is taken whole. The project root is never taken. Where there would be
    more layers than an image has room for, the limit rises until folders stand for what is in them.
    """
    sizes = folder_sizes(entries)
    taken = _at_least(limit, sizes)
    while len(taken) > _MOST_LAYERS:
        limit *= 2
        taken = _at_least(limit, sizes)
    return sorted(taken)


def _at_least(limit: int, sizes: dict[str, int]) -> list[str]:
    taken: list[str] = []
    for path in sorted(sizes, key=lambda p: p.count("/"), reverse=True):
        inside = sum(sizes[t] for t in taken if t.startswith(path + "/"))
        if sizes[path] - inside >= limit:
            taken = [t for t in taken if not t.startswith(path + "/")] + [path]
    return taken


def folder_sizes(entries: list[Entry]) -> dict[str, int]:
    """The bytes of each file and folder, by path."""
    sizes: dict[str, int] = {}
    for entry in entries:
        if stat.S_ISREG(entry.stat.st_mode):
            path = entry.path
            while path:
                sizes[path] = sizes.get(path, 0) + entry.stat.st_size
                path = path.rpartition("/")[0]
    return sizes


def is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == f or path.startswith(f + "/") for f in folders)


# --- the tar ---


def write_tar(stream: IO[bytes], entries: Iterable[Entry], folder: str, dockerfile: tuple[str, str]) -> None:
    """Writes the entries below `folder`, and a Dockerfile given by its path and text.

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


def _add_entry(tar: "tarfile.TarFile", entry: Entry, name: str) -> None:
    try:
        info = tar.gettarinfo(entry.file, name)
        if info is None or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
            return  # sockets and pipes have no content
        # Whose checkout it is does not matter in the image.
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mode = stat.S_IMODE(info.mode)
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
        raise _unreadable(entry.path, error) from None


def largest(entries: list[Entry], count: int = 3) -> Iterator[tuple[str, int]]:
    """The largest files and folders at the root, with their bytes."""
    sizes = folder_sizes(entries)
    top = sorted((p for p in sizes if "/" not in p), key=lambda p: sizes[p], reverse=True)
    return ((path, sizes[path]) for path in top[:count])
