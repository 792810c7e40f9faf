"""How an artifact's versions are called in a store, and which of them is the latest compatible one."""

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from skelebot.errors import SkelebotError

if TYPE_CHECKING:
    from semver import Version

FOLDER = ".tar.gz"  # the ending under which a folder travels


def extension(file: str, is_folder: bool) -> str:
    """All of a file's name from its first dot that does not lead it: `.tar.gz` of `a/model.tar.gz`."""
    if is_folder:
        return FOLDER
    name = os.path.basename(file)
    dot = name.find(".", len(name) - len(name.lstrip(".")))
    return name[dot:] if dot > 0 else ""


def key(prefix: str, name: str, version: str | None, ending: str) -> str:
    """The name in the store; without a version, of an artifact that has but one."""
    return f"{prefix}{name}{f'_v{version}' if version else ''}{ending}"


def versions(keys: Iterable[str], prefix: str, name: str, ending: str) -> "dict[str, Version]":
    """The keys of exactly that artifact with their versions; look-alikes are left out."""
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


def latest(found: "dict[str, Version]", project: "Version", name: str) -> str:
    """The key of the highest version of the project's major version that is not above the project's.

    Raises SkelebotError, with the versions there are, where none is compatible.
    """
    compatible = {k: v for k, v in found.items() if v.major == project.major and v <= project}
    if compatible:
        return max(compatible, key=lambda k: compatible[k])
    there = ", ".join(str(v) for v in sorted(found.values())[-20:])
    there = there or "none at all; push one, or check the store's settings and the prefix"
    raise SkelebotError(f"no version of {name} is compatible with {project}; there are: {there}")
