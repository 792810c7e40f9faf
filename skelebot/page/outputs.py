"""The files that a run has made, as far as a page may show them: no link is followed."""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from skelebot.runs import outputs, workspace
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store

# The only types that a browser is to show; all others are for downloading.
PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
MOST = 1000  # files that a page lists


class Made(NamedTuple):
    """A file that a run has made. path: from the project's root."""

    path: str
    size: int

    @property
    def is_picture(self) -> bool:
        return picture_type(self.path) != ""


def picture_type(path: str) -> str:
    """Return the type of a picture by its name; "" for any other file."""
    return PICTURES.get(os.path.splitext(path)[1].lower(), "")


def made(store: Store, run: RunRecord) -> list[Made]:
    """Return the ordinary files among a run's outputs."""
    paths = {output.path for task in run.tasks for output in workspace.results(task)}
    try:
        found = outputs.listing(workspace.outputs_folder(store, run), sorted(paths))
    except OSError:  # a job is changing them
        return []
    return [
        Made(path, status.st_size)
        for path, status in found.items()
        if stat.S_ISREG(status.st_mode) and path.isprintable()
    ]


def opened(store: Store, run: RunRecord, path: str) -> int | None:
    """Open a file that a run has made; return its descriptor, None where it has made none of that name."""
    declared = (output for task in run.tasks for output in workspace.results(task))
    if not any(output.holds(path) for output in declared):
        return None
    return open_beneath(workspace.outputs_folder(store, run), path)


def open_beneath(top: str, path: str) -> int | None:
    """Open an ordinary file below a folder, without following a link on the way; None if that fails."""
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        return None
    try:
        at = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for number, part in enumerate(parts):
            folder = os.O_DIRECTORY if number < len(parts) - 1 else os.O_NONBLOCK
            at = _open_in(at, part, folder)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(at).st_mode):
        return at
    os.close(at)
    return None


def _open_in(above: int, name: str, flags: int) -> int:
    """Open an entry of an open folder, which is closed. Raises OSError, also for a link."""
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=above)
    finally:
        os.close(above)


def blocks(number: int, size: int) -> Iterator[bytes]:
    """Yield the first bytes of an open file, which may grow meanwhile, and close it."""
    with open(number, "rb") as file:
        while data := file.read(min(1 << 18, size)):
            size -= len(data)
            yield data
