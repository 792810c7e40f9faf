"""The names of an artifact's versions in a store, and which of them is the latest compatible one."""

import os
from collections.abc import Iterable

from skelebot.errors import SkelebotError
from skelebot.project.versions import is_above, precedence

ARCHIVE = ".tar.gz"  # the extension of a folder's archive


def extension(file: str, is_folder: bool) -> str:
    """A file's name from its first dot that is not a leading one: `.tar.gz` of `a/model.tar.gz`."""
    if is_folder:
        return ARCHIVE
    name = os.path.basename(file)
    dot = name.find(".", len(name) - len(name.lstrip(".")))
    return name[dot:] if dot > 0 else ""


def key(prefix: str, name: str, version: str | None, ending: str) -> str:
    """The name in the store; an artifact without versions has None."""
    return f"{prefix}{name}{f'_v{version}' if version else ''}{ending}"


def versions(keys: Iterable[str], prefix: str, name: str, ending: str) -> dict[str, str]:
    """The keys of exactly that artifact with their versions, lowest first; similar names are left out."""
    start, ranked = f"{prefix}{name}_v", []
    for candidate in keys:
        if candidate.startswith(start) and candidate.endswith(ending):
            version = candidate[len(start) : len(candidate) - len(ending)]
            if rank := precedence(version):
                ranked.append((rank, candidate, version))
    return {candidate: version for _, candidate, version in sorted(ranked)}


def is_version(text: str) -> bool:
    return precedence(text) is not None


def latest(versions: dict[str, str], project: str) -> str | None:
    """The key of the version to use for a project's version, or None if none is compatible.

    It is the project's own version if it is there. Otherwise it is the highest with the same major version
    that is not above it. versions: lowest first.
    """
    current = precedence(project)
    assert current
    for key, version in versions.items():
        if version == project:
            return key
    for key, version in reversed(versions.items()):
        rank = precedence(version)
        if rank and rank[0][0] == current[0][0] and not is_above(rank, current):
            return key
    return None


def no_compatible_version(versions: dict[str, str], project: str, name: str) -> SkelebotError:
    there = ", ".join(list(versions.values())[-20:])
    there = there or "none at all; push one, or check the store's settings and the prefix"
    return SkelebotError(f"no version of {name} is compatible with {project}; there are: {there}")
