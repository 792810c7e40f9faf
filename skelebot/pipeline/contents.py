"""Which files a job reads and which it makes, and what is in them."""

import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from skelebot.errors import SkelebotError
from skelebot.image import context
from skelebot.image.context import ContextEntry
from skelebot.image.fingerprint import FingerprintCache
from skelebot.image.ignores import DEFAULTS, Ignores, literal
from skelebot.model import Job, Output, project_path
from skelebot.project.state import own_folder


class Contents(NamedTuple):
    """Files with what is in them. `label` keeps sets of files apart in the cache of fingerprints."""

    root: str
    entries: tuple[ContextEntry, ...]
    label: str

    def fingerprint(self) -> str:
        """Return the fingerprint of names, modes and content; what has not changed is not read again.

        Raises SkelebotError for a file that cannot be read.
        """
        return self._cache().fingerprint("", list(self.entries), self.label)

    def by_file(self) -> dict[str, str]:
        """Return the hash of each file, by its path."""
        return self._cache().by_file(self._files())

    def marks(self) -> tuple[object, ...]:
        """Return what changes whenever somebody writes to one of the files, or adds or removes one."""
        return tuple(
            (e.path, e.stat.st_size, e.stat.st_mtime_ns, e.stat.st_ctime_ns, e.stat.st_ino)
            for e in self._files()
        )

    def has_files(self) -> bool:
        return bool(self._files())

    def _files(self) -> list[ContextEntry]:
        return [entry for entry in self.entries if not stat.S_ISDIR(entry.stat.st_mode)]

    def _cache(self) -> FingerprintCache:
        return FingerprintCache(own_folder(self.root), "files")


def forget() -> None:
    """Look at the files again next time, because a job may have changed them."""
    _all_files.cache_clear()
    _matching.cache_clear()


# --- what a job reads ---


def inputs(root: str, job: Job, left_out: tuple[str, ...]) -> Contents:
    """Return the job's inputs: those it declares, or else all that its image holds.

    left_out: the patterns of what the image leaves out. Raises SkelebotError for what cannot be read.
    """
    if not job.inputs:
        return Contents(root, _all_files(root, left_out), _label("all", *left_out))
    entries = {entry.path: entry for text in job.inputs for entry in matching(root, job, text)}
    own = tuple(str(output) for output in job.results)
    return Contents(
        root, tuple(entries[path] for path in sorted(entries)), _label("of", *job.inputs, "", *own)
    )


def named(root: str, job: Job, words: Iterable[str]) -> Contents:
    """Return the files that words of a command line name, less what the job makes itself."""
    paths = {os.path.relpath(os.path.join(root, word), root): os.path.join(root, word) for word in words}
    own = {path for path in paths if any(output.holds(path) for output in job.results)}
    files = sorted(path for path in paths.keys() - own if os.path.isfile(paths[path]))
    entries = tuple(ContextEntry(path, paths[path], os.stat(paths[path])) for path in files)
    return Contents(root, entries, _label("named", *files))


def matching(root: str, job: Job, text: str) -> tuple[ContextEntry, ...]:
    """Return the files and folders that one of the job's inputs names."""
    own = tuple(literal(output.path) for output in job.results)
    return _matching(root, project_path(text), own)


def fixed_part(path: str) -> str:
    """Return the folders of a pattern before its first wildcard; of a plain path, all of it."""
    parts = path.split("/")
    count = next((i for i, part in enumerate(parts) if re.search(r"[*?\[\\]", part)), len(parts))
    return "/".join(parts[:count])


@cache
def _all_files(root: str, left_out: tuple[str, ...]) -> tuple[ContextEntry, ...]:
    return tuple(_behind_links(root, context.walk(root, Ignores(left_out)), set()))


@cache
def _matching(root: str, path: str, own: tuple[str, ...]) -> tuple[ContextEntry, ...]:
    fixed = fixed_part(path)
    top = os.path.join(root, fixed)
    try:
        found = [ContextEntry(fixed, top, os.lstat(top))] if fixed else []
    except (FileNotFoundError, NotADirectoryError):
        return ()
    ignores = Ignores((*DEFAULTS, *own))
    if os.path.isdir(top):
        found += context.walk(root, ignores, below=fixed)
    if path != fixed:
        pattern = Ignores((path,))
        found = [entry for entry in found if pattern.excludes(entry.path)]
    return tuple(_behind_links(root, found, {os.path.realpath(top)}))


def _behind_links(root: str, entries: Iterable[ContextEntry], seen: set[str]) -> Iterator[ContextEntry]:
    """Yield the entries, each link followed by what it leads to, which a native job reads through it.

    Raises SkelebotError for a link to a folder outside the project, which may be a whole disk.
    """
    for entry in entries:
        yield entry
        if not stat.S_ISLNK(entry.stat.st_mode):
            continue
        target = os.path.realpath(entry.file)
        if target in seen or not os.path.exists(target):
            continue
        seen.add(target)
        yield ContextEntry(f"{entry.path}/", target, os.stat(target))
        if os.path.isdir(target):
            if not f"{target}/".startswith(f"{os.path.realpath(root)}/"):
                raise SkelebotError(
                    f"the link {entry.path} leads out of the project; name it in `inputs`, or in `ignores`"
                )
            below = context.walk(target, Ignores(DEFAULTS))
            yield from _behind_links(root, (e._replace(path=f"{entry.path}/{e.path}") for e in below), seen)


# --- what a job makes ---


def outputs(root: str, job: Job) -> Contents:
    """Return what there is of the job's outputs. Raises SkelebotError for what cannot be read."""
    entries = tuple(entry for output in job.results for entry in made(root, output))
    return Contents(root, entries, _label("made", *map(str, job.results)))


def made(root: str, output: Output) -> list[ContextEntry]:
    """Return the files and folders of one output; none where it does not exist."""
    top = os.path.join(root, output.path)
    try:
        entry = ContextEntry(output.path, top, os.stat(top))
    except (FileNotFoundError, NotADirectoryError):
        return []
    below = context.walk(root, Ignores(()), below=output.path) if os.path.isdir(top) else []
    return [entry, *below]


def missing(root: str, job: Job) -> list[Output]:
    """Return the outputs that do not exist, or are folders without a file."""
    return [output for output in job.results if not _exists(root, output)]


def _exists(root: str, output: Output) -> bool:
    files = [entry for entry in made(root, output) if not stat.S_ISDIR(entry.stat.st_mode)]
    is_file = len(files) == 1 and files[0].path == output.path
    return bool(files) and is_file is not output.is_folder


def _label(*words: str) -> str:
    return f"{zlib.crc32(chr(10).join(words).encode('utf-8', 'surrogateescape')):08x}"
