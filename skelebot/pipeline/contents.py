"""Which files a job reads and which it makes, and what is in them."""

import itertools
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import NamedTuple

from skelebot.errors import SkelebotError, UsageError
from skelebot.image import context
from skelebot.image.context import ContextEntry
from skelebot.image.fingerprint import FingerprintCache
from skelebot.image.ignores import DEFAULTS, Ignores, literal
from skelebot.model import Job, Output, Project, place_of, project_path
from skelebot.project import needs
from skelebot.project.sources import script
from skelebot.project.state import own_folder


class Contents(NamedTuple):
    """Files with what is in them. `label` keeps sets of files apart in the cache of fingerprints."""

    root: str
    entries: tuple[ContextEntry, ...]
    label: str

    def fingerprint(self, folder: str = "") -> str:
        """Return the fingerprint of names, modes and content; what has not changed is not read again.

        folder: where that is kept; "" for the project's own. Raises SkelebotError for a file that cannot be
        read.
        """
        return self._cache(folder).fingerprint("", list(self.entries), self.label)

    def by_file(self) -> dict[str, str]:
        """Return the hash of each file, by its path."""
        return self._cache().by_file(self._files())

    def marks(self) -> dict[str, object]:
        """Return, by path, what changes whenever somebody writes to a file, though it is changed back."""
        return {
            e.path: (e.stat.st_size, e.stat.st_mtime_ns, e.stat.st_ctime_ns, e.stat.st_ino)
            for e in self._files()
        }

    def _files(self) -> list[ContextEntry]:
        return [entry for entry in self.entries if not _is_folder(entry)]

    def _cache(self, folder: str = "") -> FingerprintCache:
        return FingerprintCache(folder or own_folder(self.root), "files")


class Read(NamedTuple):
    """What there is on the disk that decides what a job makes. needed: the outputs of what it needs."""

    script: Contents
    inputs: Contents
    needed: dict[str, Contents]

    def marks(self) -> dict[str, object]:
        """Return, by path, what changes whenever somebody writes to a file, though it is changed back."""
        return {
            path: mark
            for each in (*self.needed.values(), self.script, self.inputs)
            for path, mark in each.marks().items()
        }


def read_by(project: Project, job: Job, left_out: tuple[str, ...]) -> Read:
    """Return what a job reads. left_out: the patterns of what its image leaves out.

    Raises SkelebotError for what cannot be read.
    """
    root = project.root
    made = {need.name: outputs(root, need.results) for need in needs.needed(project, job)}
    return Read(_script(root, job), inputs(root, job, left_out), made)


_generation = 0  # which walks count; one that began before `forget` is not to be found after it


def forget() -> None:
    """Look at the files again next time, because a job may have changed them."""
    global _generation
    _generation += 1
    _all_files.cache_clear()
    _matching.cache_clear()


# --- what a job reads ---


def _script(root: str, job: Job) -> Contents:
    """Return the script that the job's source names, or nothing for a command line."""
    path = script(root, job.source)
    if path is None:
        return Contents(root, (), "")
    file = os.path.join(root, path)
    try:
        return Contents(root, (ContextEntry(path, file, os.stat(file)),), _label("source", path))
    except FileNotFoundError:
        return Contents(root, (), "")
    except OSError as error:
        raise context.unreadable(path, error) from None


def inputs(root: str, job: Job, left_out: tuple[str, ...]) -> Contents:
    """Return the files that are the job's inputs: those it declares, or else all that its image holds.

    Folders do not count: git does not keep empty ones, and those above outputs are made by the first run.
    """
    if job.inputs is None:
        return Contents(root, _all_files(root, left_out, _generation), _label("all", *left_out))
    entries = {entry.path: entry for text in job.inputs for entry in matching(root, job, text)}
    own = tuple(str(output) for output in job.results)
    found = tuple(entry for _, entry in sorted(entries.items()) if not _is_folder(entry))
    return Contents(root, found, _label("of", *job.inputs, "", *own))


def named(root: str, job: Job, words: Iterable[str]) -> Contents:
    """Return the files that words of a command line name, less what the job makes itself."""
    paths = {os.path.relpath(os.path.join(root, word), root): os.path.join(root, word) for word in words}
    own = {path for path in paths if any(output.holds(path) for output in job.results)}
    files = sorted(path for path in paths.keys() - own if os.path.isfile(paths[path]))
    entries = tuple(ContextEntry(path, paths[path], os.stat(paths[path])) for path in files)
    return Contents(root, entries, _label("named", job.name))  # not one for each value ever given


def matching(root: str, job: Job, text: str) -> tuple[ContextEntry, ...]:
    """Return the files and folders that one of the job's inputs names. Raises UsageError for no pattern."""
    own = tuple(literal(output.path) for output in job.results)
    named = tuple(map(project_path, job.inputs or ()))
    try:
        return _matching(root, project_path(text), named, own, _generation)
    except UsageError:
        place = f"{place_of(job, 'inputs')}[{(job.inputs or ()).index(text)}]"
        raise UsageError(f"{place}: {text!r} is not a pattern; close the bracket, or write \\[") from None


def fixed_part(path: str) -> str:
    """Return the folders of a pattern before its first wildcard; of a plain path, all of it."""
    parts = path.split("/")
    count = next((i for i, part in enumerate(parts) if re.search(r"[*?\[\\]", part)), len(parts))
    return "/".join(parts[:count])


@cache
def _all_files(root: str, left_out: tuple[str, ...], generation: int) -> tuple[ContextEntry, ...]:
    ignores = Ignores(left_out)
    refuse = partial(_refuse, remedy=", or name the link in `inputs` or `ignores`")
    entries = _with_targets(root, context.walk(root, ignores), ignores, os.path.realpath(root), refuse)
    return tuple(entry for entry in entries if not _is_folder(entry))


@cache
def _matching(
    root: str, path: str, named: tuple[str, ...], own: tuple[str, ...], generation: int
) -> tuple[ContextEntry, ...]:
    fixed = fixed_part(path)
    pattern = Ignores((path,)) if path != fixed else None
    top = os.path.join(root, fixed)
    try:
        found = [ContextEntry(fixed, top, os.lstat(top))] if fixed else []
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise context.unreadable(fixed, error) from None
    ignores = Ignores((*DEFAULTS, *own))
    if os.path.isdir(top):
        found += context.walk(root, ignores, below=fixed)
    if pattern:
        links = [e for e in found if stat.S_ISLNK(e.stat.st_mode) and not pattern.excludes(e.path)]
        behind = (_with_targets(root, [link], ignores, None, lambda _: None) for link in links)
        found = [e for e in itertools.chain(found, *behind) if pattern.excludes(e.path)]

    def refuse(link: str) -> None:
        if link not in named:  # then it counts by itself
            _refuse(link, ", or name the link in `inputs`, too")

    walked = os.path.realpath(top) if not pattern and os.path.isdir(top) else None
    return tuple(_with_targets(root, found, ignores, walked, refuse))


def _with_targets(
    root: str,
    entries: Iterable[ContextEntry],
    ignores: Ignores,
    walked: str | None,
    outside: Callable[[str], None],
    seen: set[str] | None = None,
) -> Iterator[ContextEntry]:
    """Yield the entries, each link followed by what it leads to, which a native job reads through it.

    walked: the folder whose files are among the entries, each once. outside: gets each link to a folder
    outside the project, which is not followed, as it may be a whole disk.
    """
    seen = set() if seen is None else seen
    for entry in entries:
        yield entry
        if not stat.S_ISLNK(entry.stat.st_mode):
            continue
        target = os.path.realpath(entry.file)
        if target not in seen and not (walked and context.is_below(target, (walked,))):
            seen.add(target)
            behind = _behind(root, entry.path, target, ignores, outside)
            yield from _with_targets(root, behind, ignores, walked, outside, seen)


def _behind(
    root: str, link: str, target: str, ignores: Ignores, outside: Callable[[str], None]
) -> list[ContextEntry]:
    """Return what a link leads to, less what is ignored; nothing for one that leads nowhere."""
    try:
        entry = ContextEntry(f"{link}/", target, os.stat(target))
    except OSError:  # whoever reads through it fails, too
        return []
    inside = os.path.relpath(target, os.path.realpath(root))
    is_inside = inside.split(os.sep)[0] != os.pardir
    if is_inside and ignores.excludes(inside):
        return []
    if not _is_folder(entry):
        return [entry]
    if not is_inside:
        outside(link)
        return []
    path = "" if inside == "." else inside
    below = context.walk(root, ignores, below=path)
    return [entry, *(e._replace(path=f"{link}/{e.path[len(path) :].lstrip('/')}") for e in below)]


def _refuse(link: str, remedy: str = "") -> None:
    raise SkelebotError(
        f"the link {link} leads to a folder outside the project; move that into the project{remedy}"
    )


# --- what a job makes ---


def outputs(root: str, results: Sequence[Output]) -> Contents:
    """Return what there is of a job's outputs. Raises SkelebotError for what cannot be read."""
    entries: list[ContextEntry] = []
    for output in results:
        top = os.path.realpath(os.path.join(root, output.path))
        entries += _with_targets(root, made(root, output), Ignores(DEFAULTS), top, _refuse)
    return Contents(root, tuple(entries), _label("made", *map(str, results)))


def made(root: str, output: Output) -> list[ContextEntry]:
    """Return the files and folders of one output; none where it does not exist."""
    top = os.path.join(root, output.path)
    try:
        entry = ContextEntry(output.path, top, os.stat(top))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise context.unreadable(str(output), error) from None
    below = context.walk(root, Ignores(()), below=output.path) if os.path.isdir(top) else []
    return [entry, *below]


def missing(root: str, outputs: Iterable[Output]) -> list[Output]:
    """Return the outputs that do not exist, or are folders without a file."""
    return [output for output in outputs if not _exists(root, output)]


def _exists(root: str, output: Output) -> bool:
    files = [entry for entry in made(root, output) if not _is_folder(entry)]
    is_file = len(files) == 1 and files[0].path == output.path
    return bool(files) and is_file is not output.is_folder


def _is_folder(entry: ContextEntry) -> bool:
    return stat.S_ISDIR(entry.stat.st_mode)


def _label(*words: str) -> str:
    return f"{zlib.crc32(chr(10).join(words).encode('utf-8', 'surrogateescape')):08x}"
