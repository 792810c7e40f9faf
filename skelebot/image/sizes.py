"""How large the parts of a context are, and which of them deserve a layer of their own."""

import stat
from collections.abc import Iterator

from skelebot.image.context import ContextEntry

_MOST_LAYERS = 20


def heavy_paths(entries: list[ContextEntry], limit: int) -> list[str]:
    """List the files and folders of at least `limit` bytes that deserve a layer of their own.

    A folder that is heavy because of something below it is divided further; one that is heavy as the
    sum of many small files becomes one layer. The project root is never one of them. Where there would
    be more layers than an image has room for, the limit rises until folders stand for what is in them.
    """
    sizes = folder_sizes(entries)
    chosen = _at_least(limit, sizes)
    while len(chosen) > _MOST_LAYERS:
        limit *= 2
        chosen = _at_least(limit, sizes)
    return sorted(chosen)


def _at_least(limit: int, sizes: dict[str, int]) -> list[str]:
    chosen: list[str] = []
    for path in sorted(sizes, key=lambda p: p.count("/"), reverse=True):
        inside = sum(sizes[t] for t in chosen if t.startswith(path + "/"))
        if sizes[path] - inside >= limit:
            chosen = [t for t in chosen if not t.startswith(path + "/")] + [path]
    return chosen


def folder_sizes(entries: list[ContextEntry]) -> dict[str, int]:
    """Return the bytes of each file and folder, by path."""
    sizes: dict[str, int] = {}
    for entry in entries:
        if stat.S_ISREG(entry.stat.st_mode):
            path = entry.path
            while path:
                sizes[path] = sizes.get(path, 0) + entry.stat.st_size
                path = path.rpartition("/")[0]
    return sizes


def largest(entries: list[ContextEntry], count: int = 3) -> Iterator[tuple[str, int]]:
    """Yield the largest files and folders at the root, with their bytes."""
    sizes = folder_sizes(entries)
    top = sorted((p for p in sizes if "/" not in p), key=lambda p: sizes[p], reverse=True)
    return ((path, sizes[path]) for path in top[:count])
