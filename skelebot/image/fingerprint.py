"""The fingerprint of a Dockerfile and a context, by which an image is recognised as current.

It covers what an image would hold: paths, content, links and modes, but neither owners nor times, so
that the same tree has the same fingerprint on every machine. Hashes are kept by size, times and inode,
so that a gigabyte that has not changed is not read again.
"""

import json
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from skelebot.files import replace_file, sha256
from skelebot.image.context import ContextEntry, unreadable

# A file that changed this recently, in nanoseconds, may change again without its times showing it.
_RACY = 2_000_000_000

_KEEP_SECONDS = 30 * 86400  # if it is needed after all, it costs no more than the files' names and times

_GONE = "gone"  # the content of a file that was deleted since its folder was listed


class FingerprintCache:
    """The hashes of the files from earlier runs, in a folder of the project.

    A file of it that is lost or damaged only costs time.
    """

    def __init__(self, folder: str, variant: str) -> None:
        """variant: the name of the image, which decides what is left out."""
        self._folder, self._variant = folder, variant
        self._hashes: dict[str, list[object]] | None = None
        self._fresh: dict[str, list[object]] = {}

    def fingerprint(self, text: str, entries: list[ContextEntry], shadows: str) -> str:
        """Return the fingerprint of a Dockerfile and a context; `shadows` names the paths left out of it."""
        return self.remember(text, entries, shadows, lambda: self.hashed(text, entries))

    def remember(
        self,
        text: str,
        entries: Sequence[ContextEntry],
        name: str,
        make: Callable[[], str],
        still_holds: Callable[[str], bool] = lambda _: True,
    ) -> str:
        """Return what `make` returned for the same text and entries the last time, or call it.

        name: of the set of entries, of which the last state is remembered. still_holds: whether the
        remembered value is still of use.
        """
        stats = _stats(text, entries)
        file = os.path.join(self._folder, f"{self._variant}.{name}.stats")
        with suppress(OSError), open(file, "rb") as known:
            value, _, remembered = known.read().partition(b"\n")
            if remembered == stats and still_holds(made := value.decode("ascii", "replace")):
                return made
        racy = _racy(entries)  # before the files are read, which may take longer than a change stays recent
        made = make()
        if not racy:
            self._write(file, made.encode() + b"\n" + stats)
            self._remove_outdated()
        return made

    def hashed(self, text: str, entries: list[ContextEntry]) -> str:
        """Return the same from the content; files whose hash is known are not read again."""
        import hashlib  # only where something has changed

        whole = hashlib.sha256(text.encode("utf-8", "surrogateescape"))
        for entry in entries:
            fields = (entry.path, _kind(entry), self._content(entry))
            whole.update(b"\0" + "\0".join(fields).encode("utf-8", "surrogateescape"))
        self.save()
        return whole.hexdigest()

    def by_file(self, entries: list[ContextEntry]) -> dict[str, str]:
        """Return what distinguishes each entry's kind and content, by its path."""
        return {entry.path: f"{_kind(entry)} {self._content(entry)}" for entry in entries}

    def _content(self, entry: ContextEntry) -> str:
        if stat.S_ISLNK(entry.stat.st_mode):
            with suppress(FileNotFoundError):
                return os.readlink(entry.file)
            return _GONE
        if not stat.S_ISREG(entry.stat.st_mode):
            return ""
        known = self.recall(entry) or _file_hash(entry)
        self.note(entry, known)
        return known

    def recall(self, entry: ContextEntry) -> str | None:
        """Return the hash of a file that has not changed since it was noted."""
        known = self._known().get(entry.path)
        return str(known[4]) if known is not None and known[:4] == _mark(entry) else None

    def note(self, entry: ContextEntry, content: str) -> None:
        """Note the hash of a file, just read, for `save`; not if its next change may not show."""
        if not _racy([entry]):
            self._fresh[entry.path] = [*_mark(entry), content]

    def _known(self) -> dict[str, list[object]]:
        if self._hashes is None:
            self._hashes = {}
            with suppress(OSError, ValueError, AttributeError):
                with open(self._file_of_hashes(), encoding="utf-8") as file:
                    loaded = json.load(file)
                self._hashes = {k: v for k, v in loaded.items() if isinstance(v, list) and len(v) == 5}
        return self._hashes

    def save(self) -> None:
        """Add the new hashes; those of other files stay, as another job may need them."""
        if any(self._known().get(path) != mark for path, mark in self._fresh.items()):
            text = json.dumps(self._known() | self._fresh)
            self._write(self._file_of_hashes(), text.encode("utf-8", "surrogateescape"))

    def _file_of_hashes(self) -> str:
        return os.path.join(self._folder, f"{self._variant}.hashes")

    def _remove_outdated(self) -> None:
        """Remove what nobody has written for long, such as that of patterns which have changed since."""
        import time

        oldest = time.time() - _KEEP_SECONDS
        with suppress(OSError), os.scandir(self._folder) as files:
            for file in files:
                if file.name.endswith(".stats") and file.stat().st_mtime < oldest:
                    os.unlink(file.path)

    @staticmethod
    def _write(path: str, data: bytes) -> None:
        """Write a file of the cache; a read-only project or a full disk does not stop a run."""
        with suppress(OSError):
            replace_file(path, data)


def _mark(entry: ContextEntry) -> list[object]:
    """Return what changes with the content of a file."""
    return [entry.stat.st_size, entry.stat.st_mtime_ns, entry.stat.st_ctime_ns, entry.stat.st_ino]


def _stats(text: str, entries: Iterable[ContextEntry]) -> bytes:
    """Describe the text and the entries, so that a change shows without reading a file."""
    lines = [
        f"{e.path}\0{s.st_mode} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}"
        for e in entries
        for s in (e.stat,)
    ]
    return "\n".join([text, *lines]).encode("utf-8", "surrogateescape")


def _racy(entries: Iterable[ContextEntry]) -> bool:
    import time

    now = time.time_ns()
    # A time far ahead is that of a file server with another clock.
    changed = (e.stat.st_ctime_ns for e in entries if not stat.S_ISDIR(e.stat.st_mode))
    return any(now - _RACY < ctime < now + _RACY for ctime in changed)


def _kind(entry: ContextEntry) -> str:
    """Return type and mode; who else may write depends on the checkout's umask and does not count."""
    return f"{stat.S_IFMT(entry.stat.st_mode):o} {stat.S_IMODE(entry.stat.st_mode) & 0o7755:o}"


def _file_hash(entry: ContextEntry) -> str:
    try:
        return sha256(entry.file)
    except FileNotFoundError:
        return _GONE
    except OSError as error:
        raise unreadable(entry.path, error) from None
