"""One artifact on its way: found, moved, checked and put in its place, whole or not at all."""

import errno
import fcntl
import hashlib
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from skelebot import console
from skelebot.components.repository import folders, names
from skelebot.components.repository.store import (
    BLOCK,
    AlreadyThere,
    Store,
    Stored,
    Unusable,
    forget,
    reason,
    source,
)
from skelebot.errors import SkelebotError
from skelebot.model import Project
from skelebot.project.read import parsed_version
from skelebot.project.state import own_folder

# Beside a target: what is about to take its place, and what was there before.
_NEW, _OLD = ".skelebot-new", ".skelebot-old"

_KEPT = 7 * 24 * 3600  # seconds for which what has come of a pull waits for the rest


@dataclass(frozen=True)
class Item:
    """An artifact with its place in the project and its key in the store."""

    name: str
    version: str | None
    key: str
    file: str
    is_folder: bool
    stored: Stored | None = None


@dataclass(frozen=True)
class Done:
    """What was transferred. path: of the file here. sent: the bytes that went over the line."""

    name: str
    version: str | None
    key: str
    path: str
    size: int
    sha256: str
    sent: int
    pulled: bool


def item(root: str, name: str, file: str, singular: bool, prefix: str, version: str | None) -> Item:
    """The artifact in a version; None for one that has none."""
    path = os.path.join(root, os.path.expanduser(file))
    is_folder = file.endswith("/") or os.path.isdir(path)
    number = None if singular else version
    ending = names.extension(file, is_folder)
    return Item(name, number, names.key(prefix, name, number, ending), os.path.normpath(path), is_folder)


# --- what is in the store ---


def _as_kept(store: Store, root: str, name: str, file: str, singular: bool, prefix: str) -> str:
    """`file`, with a folder's slash where just the store can tell that it is one.

    Which it does on a machine that has nothing at that path yet, of a name without an extension.
    """
    path = os.path.join(root, os.path.expanduser(file))
    if file.endswith("/") or names.extension(file, False) or os.path.lexists(path):
        return file
    keys = [stored.key for stored in store.list(f"{prefix}{name}")]
    if singular:
        there = {ending for ending in ("", names.FOLDER) if names.key(prefix, name, None, ending) in keys}
        return f"{file}/" if there == {names.FOLDER} else file
    as_folder = names.versions(keys, prefix, name, names.FOLDER)
    as_file = names.versions(keys, prefix, name, "").keys() - as_folder.keys()
    return f"{file}/" if as_folder and not as_file else file


def listed(
    store: Store, root: str, name: str, file: str, singular: bool, prefix: str
) -> list[tuple[Stored, str | None]]:
    """The objects of exactly this artifact with their versions, lowest first."""
    file = _as_kept(store, root, name, file, singular, prefix)
    one = item(root, name, file, singular, prefix, None)
    if singular:
        stored = store.head(one.key)
        return [(stored, None)] if stored else []
    found = {s.key: s for s in store.list(f"{prefix}{name}_v")}
    ending = names.extension(file, one.is_folder)
    known = names.versions(found, prefix, name, ending)
    return [(found[k], str(known[k])) for k in sorted(known, key=lambda k: known[k])]


def latest_of(listed: list[tuple[Stored, str | None]], project: Project, name: str) -> str | None:
    """The key that LATEST would take, or None where no version is compatible."""
    from semver import Version

    versions = {s.key: Version.parse(v) for s, v in listed if v is not None}
    if not versions:
        return listed[0][0].key if listed else None
    try:
        return names.latest(versions, parsed_version(project.version), name)
    except SkelebotError:
        return None


def found(
    store: Store, project: Project, name: str, file: str, singular: bool, prefix: str, version: str
) -> Item:
    """The artifact as the store has it, in a version or the latest compatible one.

    Raises SkelebotError where it is not there.
    """
    file = _as_kept(store, project.root, name, file, singular, prefix)
    one = item(project.root, name, file, singular, prefix, version)
    if version == "LATEST" and not singular:
        current = parsed_version(project.version)
        keys = [stored.key for stored in store.list(f"{prefix}{name}_v")]
        versions = names.versions(keys, prefix, name, names.extension(file, one.is_folder))
        one = item(
            project.root, name, file, False, prefix, str(versions[names.latest(versions, current, name)])
        )
    stored = store.head(one.key)
    if stored is None:
        raise SkelebotError(f"{one.key} is not in the store; see `skelebot artifacts {name}`")
    return Item(one.name, one.version, one.key, one.file, one.is_folder, stored)


# --- push ---


def push(store: Store, one: Item, force: bool) -> Callable[[], Done]:
    """Checks what can be checked before a byte moves, and gives what moves them."""
    problem: SkelebotError | None = None
    try:
        _check_push(store, one, force)
    except SkelebotError as error:
        problem = error

    def act() -> Done:
        if problem:
            raise problem
        try:
            with _as_file(one) as file:
                return _pushed(store, one, file, force)
        except OSError as error:
            raise SkelebotError(f"{one.file} cannot be pushed: {reason(error)}") from None

    return act


def _check_push(store: Store, one: Item, force: bool) -> None:
    if not os.path.exists(one.file):
        raise SkelebotError(f"there is no file {one.file}; make it first, or mend `file`")
    if one.is_folder and not os.path.isdir(one.file):
        raise SkelebotError(f"{one.file} is a file, but `file` ends in a slash as a folder's does")
    store.check()
    if not force and store.head(one.key):
        raise AlreadyThere(one.key)


def _pushed(store: Store, one: Item, file: str, force: bool) -> Done:
    found = source(file)
    with console.progress(f"pushing {one.key}", found.size) as tell:
        pushed = store.push(one.key, found, force, tell)
    return Done(one.name, one.version, one.key, one.file, found.size, pushed.sha256, pushed.sent, False)


@contextmanager
def _as_file(one: Item) -> Iterator[str]:
    """The artifact as one file; a folder is packed outside of the project."""
    if not one.is_folder:
        yield one.file
        return
    with tempfile.TemporaryDirectory(prefix="skelebot-") as folder:
        archive = os.path.join(folder, "archive.tar.gz")
        folders.pack(one.file, archive)
        yield archive


# --- pull ---


def pull(store: Store, one: Item, root: str, override: bool) -> Callable[[], Done]:
    def act() -> Done:
        assert one.stored
        target = one.file if override else os.path.join(root, os.path.basename(one.key))
        if one.is_folder and not override:
            target = target.removesuffix(names.FOLDER)
        try:
            return _pulled(store, one, one.stored, root, target)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = "; free some space and run again to go on" if full else ""
            raise SkelebotError(f"{target} cannot be written: {reason(error)}{hint}") from None

    return act


def _pulled(store: Store, one: Item, stored: Stored, root: str, target: str) -> Done:
    parts = os.path.join(own_folder(root), "parts")
    os.makedirs(parts, exist_ok=True)
    lock = os.path.join(parts, f"{_digest(target)}.lock")
    with _alone(lock, f"waiting for another pull to {target}"):
        _clear_away(target)
        with _arriving(parts, one.key, stored) as part:
            with _Sum(part) as total:
                with console.progress(f"pulling {one.key}", stored.size) as tell:
                    sent = store.pull(stored, part, tell, total.arrived)
                sha256 = total.sha256()
            _check(part, one, stored, sha256)
            _place(part, target, one.is_folder)
    return Done(one.name, one.version, one.key, target, stored.size, sha256, sent, True)


def _check(part: str, one: Item, stored: Stored, sha256: str) -> None:
    """Raises Unusable where what arrived is not what was stored."""
    if os.path.getsize(part) != stored.size or (stored.sha256 and stored.sha256 != sha256):
        raise Unusable(f"{one.key} arrived damaged; nothing was replaced, run again")


class _Sum:
    """The SHA-256 of a file, taken by a thread of its own while the file arrives."""

    def __init__(self, path: str) -> None:
        self._path, self._digest, self._done = path, hashlib.sha256(), 0
        # A signal may interrupt whoever tells of bytes; a condition could be left broken by that.
        self._news: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "_Sum":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._news.put(None)

    def arrived(self, count: int) -> None:
        """So many more bytes, from the beginning on, are there."""
        self._news.put(count)

    def sha256(self) -> str:
        """Of the whole file, which is there now. Raises OSError."""
        self._news.put(None)
        self._thread.join()
        self._read(os.path.getsize(self._path))
        return self._digest.hexdigest()

    def _follow(self) -> None:
        there = 0
        with suppress(OSError):  # which the reading of the rest will meet again
            while (count := self._news.get()) is not None:
                there += count
                self._read(there)

    def _read(self, end: int) -> None:
        with open(self._path, "rb") as file:
            file.seek(self._done)
            while block := file.read(min(BLOCK, end - self._done)):
                self._digest.update(block)
                self._done += len(block)


@contextmanager
def _arriving(parts: str, key: str, stored: Stored) -> Iterator[str]:
    """A file for what has arrived so far, the same in the next call, and only one call's at a time.

    It is kept where the call fails, unless it is Unusable; after a week it goes in any case.
    """
    folder = os.path.join(parts, _digest(f"{key}\0{stored.size}\0{stored.sha256 or stored.tag}"))
    with _alone(f"{folder}.lock", f"waiting for another pull of {key}"):
        os.makedirs(folder, exist_ok=True)
        os.utime(folder)
        _drop_old(parts)
        try:
            yield os.path.join(folder, "data")
        except Unusable:
            _remove(folder)
            raise
        _remove(folder)


def _drop_old(parts: str) -> None:
    """Removes what nobody has gone on with."""
    oldest = time.time() - _KEPT
    for name in os.listdir(parts):
        path = os.path.join(parts, name)
        with suppress(FileNotFoundError):  # which is what another pull has removed
            if os.lstat(path).st_mtime < oldest:
                _remove(path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


@contextmanager
def _alone(path: str, waiting: str) -> Iterator[None]:
    """Holds a lock file, which goes when the lock does."""
    while True:
        with open(path, "w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.info(waiting)
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_at(lock.fileno(), path):
                continue  # the one before has removed the file that was waited for
            try:
                yield
            finally:
                forget(path)
            return


def _is_at(number: int, path: str) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except FileNotFoundError:
        return False


# --- in its place ---


def _place(part: str, target: str, is_folder: bool) -> None:
    """Puts what arrived in its place in one step; what was there before is replaced."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        if is_folder:
            folders.unpack(part, target + _NEW)
            _swap(target)
        else:
            _replace(part, target)
    finally:
        _remove(target + _NEW)


def _swap(target: str) -> None:
    """Puts the new folder in the place of the old one, which is put back where that fails."""
    try:
        if os.path.lexists(target):
            os.rename(target, target + _OLD)
        os.rename(target + _NEW, target)
    finally:
        _clear_away(target)


def _clear_away(target: str) -> None:
    """Ends what a swap has left undone, also one of a call that was killed."""
    if os.path.lexists(target + _OLD) and not os.path.lexists(target):
        os.rename(target + _OLD, target)
    _remove(target + _OLD)
    _remove(target + _NEW)


def _replace(part: str, target: str) -> None:
    if os.path.isdir(target):
        raise SkelebotError(f"{target} is a folder, and the artifact a file; move the folder away")
    try:
        os.replace(part, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(part, target + _NEW)  # on the target's own disk
        os.replace(target + _NEW, target)


def _remove(path: str) -> None:
    """Removes a file, or a folder with all that is in it, also where that is write-protected."""
    if os.path.islink(path) or not os.path.isdir(path):
        forget(path)
        return
    try:
        os.chmod(path, 0o700)
        for folder, inner, _ in os.walk(path):
            for one in (os.path.join(folder, name) for name in inner):
                if not os.path.islink(one):
                    os.chmod(one, 0o700)
        shutil.rmtree(path)
    except OSError as error:
        raise SkelebotError(f"{path} cannot be removed: {reason(error)}; remove it yourself") from None
