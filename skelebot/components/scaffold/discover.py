"""What a folder holds that can become part of a project. Files are only read, never run."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skelebot import console
from skelebot.components.scaffold import generate
from skelebot.components.scaffold.scripts import SHARED, Script, find_scripts, make_targets
from skelebot.errors import ConfigError, UsageError
from skelebot.files import open_regular
from skelebot.image import dependencies, pyproject

LANGUAGES = {".py": "Python", ".r": "R"}
# Packages that every R has: https://cran.r-project.org/doc/FAQ/R-FAQ.html#Add_002don-packages-in-R
_BASE_R = {
    *("R", "base", "compiler", "datasets", "grDevices", "graphics", "grid", "methods", "parallel"),
    *("splines", "stats", "stats4", "tcltk", "tools", "utils"),
}


@dataclass(frozen=True)
class FolderContents:
    """about: what is known about the project. python_path: folders of packages. skipped: what is not used."""

    about: dict[str, str]
    version: str
    python: tuple[str, ...]
    r: tuple[str, ...]
    scripts: tuple[Script, ...]
    shared: tuple[str, ...]
    python_path: tuple[str, ...]
    skipped: tuple[str, ...]


def discover(root: str) -> FolderContents:
    metadata, description = _pyproject(root), _description(root)
    skipped: list[str] = []
    scripts = list(find_scripts(root, metadata, skipped))
    about = {
        "name": metadata.get("name") or description.get("Package"),
        "description": metadata.get("description") or description.get("Title"),
        "language": _language(root, [script.path for script in scripts]),
    }
    version = metadata.get("version") or description.get("Version")
    return FolderContents(
        about={
            name: value for name, value in about.items() if isinstance(value, str) and value.isprintable()
        },
        version=version if isinstance(version, str) and version.isprintable() else generate.VERSION,
        python=tuple(_python(root)),
        r=tuple(_r(root, description)),
        scripts=tuple(scripts),
        shared=tuple(f"{name}/" for name in SHARED if os.path.isdir(os.path.join(root, name))),
        python_path=tuple(dict.fromkeys(script.base for script in scripts if script.base)),
        skipped=(*skipped, *make_targets(root)),
    )


def _language(root: str, scripts: list[str]) -> str:
    marks = {"Python": ("requirements.txt", "pyproject.toml", "setup.py"), "R": ("renv.lock", "DESCRIPTION")}
    found = {LANGUAGES.get(os.path.splitext(path)[1].lower()) for path in scripts}
    found |= {name for name, files in marks.items() for f in files if os.path.isfile(os.path.join(root, f))}
    return "R+Python" if {"Python", "R"} <= found else "R" if "R" in found else "Python"


def _python(root: str) -> Iterator[str]:
    """The entries for the files that name Python packages; warns about one that it cannot read."""
    for entry in ("req:requirements.txt", "proj:pyproject.toml"):
        path = entry.partition(":")[2]
        if os.path.isfile(os.path.join(root, path)):
            try:
                dependencies.python(root, (entry,))
            except ConfigError as error:
                console.warn(f"no dependencies were read from {path}: {error}")
                continue
            yield entry


def _r(root: str, description: dict[str, str]) -> Iterator[str]:
    """The lock file of renv, which names all packages, or those that a DESCRIPTION names."""
    if os.path.isfile(os.path.join(root, "renv.lock")):
        yield "renv:renv.lock"
        return
    for field in ("Depends", "Imports", "LinkingTo"):
        for part in description.get(field, "").split(","):
            name = re.match(r"\s*([A-Za-z][A-Za-z0-9.]*)", part)
            if name and name[1] not in _BASE_R:
                yield name[1]


def _pyproject(root: str) -> dict[str, Any]:
    try:
        project = pyproject.load(root, "pyproject.toml").get("project", {})
    except UsageError:
        return {}
    return project if isinstance(project, dict) else {}


def _description(root: str) -> dict[str, str]:
    """The fields of an R package's DESCRIPTION, each on one line.

    https://cran.r-project.org/doc/manuals/R-exts.html#The-DESCRIPTION-file
    """
    try:
        with open_regular(os.path.join(root, "DESCRIPTION")) as file:
            whole = re.sub(r"\n[ \t]+", " ", file.read().decode(errors="replace"))
    except OSError:
        return {}
    pairs = (line.partition(":") for line in whole.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}
