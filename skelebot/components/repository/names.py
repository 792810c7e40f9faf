"""The names of an artifact's versions in a store, and which of them is the latest compatible one."""

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from skelebot.errors import SkelebotError

if TYPE_CHECKING:
    from semver import Version

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


def versions(keys: Iterable[str], prefix: str, name: str, ending: str) -> "dict[str, Version]":
    """The keys of exactly that artifact with their versions; similar names are left out."""
    from semver import Version  # only where versions are compared

    form = re.compile(re.escape(f"{prefix}{name}_v") + "(.+)" + re.escape(ending), re.DOTALL)
    found = {}
    for candidate in keys:
        match = form.fullmatch(candidate)
        if match and Version.is_valid(match[1]):
            found[candidate] = Version.parse(match[1])
    return found


def is_version(text: str) -> bool:
    from semver import Version

    return Version.is_valid(text)


def latest(found: "dict[str, Version]", project: "Version") -> str | None:
    """The key of the highest version with the project's major version that is not above the project's."""
    compatible = {k: v for k, v in found.items() if v.major == project.major and v <= project}
    return max(compatible, key=lambda k: compatible[k]) if compatible else None


def no_compatible_version(found: "dict[str, Version]", project: "Version", name: str) -> SkelebotError:
    there = ", ".join(str(v) for v in sorted(found.values())[-20:])
    there = there or "none at all; push one, or check the store's settings and the prefix"
    return SkelebotError(f"no version of {name} is compatible with {project}; there are: {there}")
