"""What a folder holds that can become part of a project. Files are only read, never run."""

import ast
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skelebot import console
from skelebot.components.scaffold import generate
from skelebot.errors import ConfigError
from skelebot.image import dependencies

LANGUAGES = {".py": "Python", ".r": "R"}
_SCRIPTS = (".py", ".r", ".sh")
_SHARED = ("data", "models", "output", "outputs", "results")  # folders that hold what jobs read and write
# Folders that hold no scripts of the project, besides those that begin with a dot.
_SKIPPED = {
    *("__pycache__", "build", "dist", "env", "node_modules", "packrat", "renv", "site-packages", "venv"),
    *("doc", "docs", "notebooks", "test", "tests", *_SHARED),
}
# Packages that every R has: https://cran.r-project.org/doc/FAQ/R-FAQ.html#Add_002don-packages-in-R
_BASE_R = {
    *("R", "base", "compiler", "datasets", "grDevices", "graphics", "grid", "methods", "parallel"),
    *("splines", "stats", "stats4", "tcltk", "tools", "utils"),
}


@dataclass(frozen=True)
class FolderContents:
    """about: what is known about the project. scripts: their paths and what they do."""

    about: dict[str, str]
    version: str
    python: tuple[str, ...]
    r: tuple[str, ...]
    scripts: tuple[tuple[str, str], ...]
    shared: tuple[str, ...]


def discover(root: str) -> FolderContents:
    scripts = sorted(_scripts(root))
    pyproject, description = _pyproject(root), _description(root)
    about = {
        "name": pyproject.get("name") or description.get("Package"),
        "description": pyproject.get("description") or description.get("Title"),
        "language": _language(root, scripts),
    }
    version = pyproject.get("version") or description.get("Version")
    return FolderContents(
        about={
            name: value for name, value in about.items() if isinstance(value, str) and value.isprintable()
        },
        version=version if isinstance(version, str) and version.isprintable() else generate.VERSION,
        python=tuple(_python(root)),
        r=tuple(_r(root, description)),
        scripts=tuple((path, _purpose(root, path)) for path in scripts),
        shared=tuple(f"{name}/" for name in _SHARED if os.path.isdir(os.path.join(root, name))),
    )


def _scripts(root: str) -> Iterator[str]:
    """The paths of what can be run: shell scripts, R scripts, and Python with a main part."""
    is_package = os.path.isfile(os.path.join(root, "DESCRIPTION"))
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if n not in _SKIPPED and n[0] != "." and not (is_package and n == "R")]
        for name in files:
            path = os.path.relpath(os.path.join(folder, name), root)
            suffix = os.path.splitext(name)[1].lower()
            if (
                suffix in _SCRIPTS
                and name[0] not in ".-"
                and path.isprintable()
                and os.path.isfile(os.path.join(folder, name))  # which a pipe or a dangling link is not
                and _is_run(root, path, suffix)
            ):
                yield path


def _is_run(root: str, path: str, suffix: str) -> bool:
    if suffix != ".py":
        return True
    tree = _tree(os.path.join(root, path))
    tests = [node.test for node in tree.body if isinstance(node, ast.If)] if tree else []
    return any(isinstance(n, ast.Name) and n.id == "__name__" for test in tests for n in ast.walk(test))


def _tree(path: str) -> ast.Module | None:
    try:
        with open(path, "rb") as file:
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # no script that today's Python could run


def _purpose(root: str, path: str) -> str:
    """The first line of a Python script's docstring; of other scripts just how they are called."""
    tree = _tree(os.path.join(root, path)) if path.endswith(".py") else None
    first = ((tree and ast.get_docstring(tree)) or "").partition("\n")[0].strip()
    return first if first and first.isprintable() else f"Run {path}"


def _language(root: str, scripts: list[str]) -> str:
    marks = {"Python": ("requirements.txt", "pyproject.toml", "setup.py"), "R": ("renv.lock", "DESCRIPTION")}
    found = {LANGUAGES.get(os.path.splitext(path)[1].lower()) for path in scripts}
    found |= {name for name, files in marks.items() for f in files if os.path.isfile(os.path.join(root, f))}
    return "R+Python" if {"Python", "R"} <= found else "R" if "R" in found else "Python"


def _python(root: str) -> Iterator[str]:
    """The entries for the files that name Python packages; one that Skelebot cannot read is told of."""
    for entry in ("req:requirements.txt", "proj:pyproject.toml"):
        path = entry.partition(":")[2]
        if os.path.isfile(os.path.join(root, path)):
            try:
                dependencies.python(root, (entry,))
            except ConfigError as error:
                console.warn(f"{path} gives no dependencies: {error}")
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
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    path = os.path.join(root, "pyproject.toml")
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, "rb") as file:
            project = tomllib.load(file).get("project", {})
    except (OSError, ValueError):
        return {}
    return project if isinstance(project, dict) else {}


def _description(root: str) -> dict[str, str]:
    """The fields of an R package's DESCRIPTION, each on one line.

    https://cran.r-project.org/doc/manuals/R-exts.html#The-DESCRIPTION-file
    """
    path = os.path.join(root, "DESCRIPTION")
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            whole = re.sub(r"\n[ \t]+", " ", file.read())
    except OSError:
        return {}
    pairs = (line.partition(":") for line in whole.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}
