"""Push or pull one artifact, checked, whole or not at all."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from skelebot import console
from skelebot.components.repository import archive, contents, names, target
from skelebot.components.repository.checksum import Checksum
from skelebot.components.repository.find import Item
from skelebot.components.repository.partial import partial_file, target_lock
from skelebot.components.repository.store import AlreadyStored, Store, Stored, Unusable, Upload
from skelebot.errors import SkelebotError
from skelebot.files import private_folder, reason
from skelebot.project.state import remember_output


@dataclass(frozen=True)
class Result:
    """What was transferred. path: of the file here. sent: the bytes that went over the network."""

    name: str
    version: str | None
    key: str
    path: str
    size: int
    sha256: str
    sent: int


# --- push ---


def push(store: Store, item: Item, root: str, force: bool) -> Callable[[], Result]:
    """Check what can be checked before a byte moves, and return the transfer. Raises SkelebotError."""
    if not os.path.exists(item.path):
        raise SkelebotError(f"there is no file {item.path}; create it first, or fix `file`")
    if not (os.path.isfile(item.path) or os.path.isdir(item.path)):
        raise SkelebotError(f"{item.path} is not an ordinary file; fix `file`")
    if item.is_folder and not os.path.isdir(item.path):
        raise SkelebotError(f"{item.path} is a file, but `file` ends in a slash, which means a folder")
    store.check()
    if not force and store.head(item.key):
        raise AlreadyStored(item.key)

    def transfer() -> Result:
        try:
            known = contents.scan(item.path) if item.is_folder else {}
            with _as_file(item) as path:
                result = _push(store, item, path, force)
            if item.is_folder:
                contents.save(root, item.path, known)
            return result
        except OSError as error:
            raise SkelebotError(f"{item.path} cannot be pushed: {reason(error)}") from None

    return transfer


def _push(store: Store, item: Item, path: str, force: bool) -> Result:
    upload = Upload.of(path, item.origin)
    with console.progress(f"pushing {item.key}", upload.size) as on_bytes:
        pushed = store.push(item.key, upload, force, on_bytes)
    return Result(item.name, item.version, item.key, item.path, upload.size, pushed.sha256, pushed.sent)


@contextmanager
def _as_file(item: Item) -> Iterator[str]:
    """Yield the artifact as one file; a folder is packed outside the project."""
    if not item.is_folder:
        yield item.path
        return
    with private_folder() as folder:
        packed = os.path.join(folder, "archive.tar.gz")
        archive.pack(item.path, packed)
        yield packed


# --- pull ---


def pull(store: Store, item: Item, root: str, override: bool) -> Callable[[], Result]:
    """Return the transfer of an item that is in the store. override: replace the configured file."""
    stored = item.stored
    assert stored
    path = item.path if override else os.path.join(root, os.path.basename(item.key))
    if item.is_folder and not override:
        path = path.removesuffix(names.ARCHIVE)

    def transfer() -> Result:
        try:
            return _pull(store, item, stored, root, path)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = "; free some space and run again to resume" if full else ""
            raise SkelebotError(f"{path} cannot be written: {reason(error)}{hint}") from None

    return transfer


def _pull(store: Store, item: Item, stored: Stored, root: str, path: str) -> Result:
    place = target.resolve(path)
    with target_lock(root, place):
        target.recover(place)
        with partial_file(root, item.key, stored) as part:
            with Checksum(part) as checksum:
                with console.progress(f"pulling {item.key}", stored.size) as on_bytes:
                    sent = store.pull(stored, part, on_bytes, checksum.add)
                sha256 = checksum.sha256()
            _check(part, stored, sha256)
            if item.is_folder:
                target.put_folder(part, place, root)
            else:
                target.put_file(part, place, store.is_executable(stored))
            if path != item.path:  # a copy beside the configured file is left out of images and packages
                remember_output(root, path)
    return Result(item.name, item.version, item.key, path, stored.size, sha256, sent)


def _check(part: str, stored: Stored, sha256: str) -> None:
    """Raises Unusable if what arrived is not what was stored."""
    if os.path.getsize(part) != stored.size or (stored.sha256 and stored.sha256 != sha256):
        raise Unusable(f"{stored.key} arrived damaged; nothing was replaced, run again")
