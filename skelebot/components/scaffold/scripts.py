"""The scripts in a folder, and how a job would run them. They are only read, never run."""

import ast
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skelebot.components.scaffold.script_options import Options, runs_at_import
from skelebot.components.scaffold.script_options import options as read_options
from skelebot.files import open_regular
from skelebot.keys import image_name

_SCRIPTS = (".py", ".r", ".sh")
SHARED = ("data", "models", "output", "outputs", "results")  # folders that hold what jobs read and write
# Folders that hold no scripts of the project, besides those that begin with a dot.
_SKIPPED = {
    *("__pycache__", "build", "dist", "env", "node_modules", "packrat", "renv", "site-packages", "venv"),
    *("doc", "docs", "notebooks", "test", "tests", *SHARED),
}


@dataclass(frozen=True)
class Script:
    """What can become a job.

    path: its file. source: how a job runs it. base: the folder to import its package from. name: unless
    the file gives it one.
    """

    path: str
    source: str
    help: str
    base: str = ""
    name: str = ""
    options: Options = Options([], [], [])


def find_scripts(root: str, pyproject: dict[str, Any], skipped: list[str]) -> Iterator[Script]:
    """Entry points first. skipped: gets what cannot become a job, in words."""
    used = set()
    for script in _entry_points(root, pyproject, skipped):
        used.add(script.path)
        yield script
    for path in sorted(_scripts(root, skipped)):
        if path not in used:
            yield _script(root, path, skipped)


def _scripts(root: str, skipped: list[str]) -> Iterator[str]:
    """The paths of what can be run: shell scripts, R scripts, and Python with a main part."""
    is_package = os.path.isfile(os.path.join(root, "DESCRIPTION"))
    for folder, names, files in os.walk(root):
        names[:] = [
            n for n in sorted(names) if n not in _SKIPPED and n[0] != "." and not (is_package and n == "R")
        ]
        for name in sorted(files):
            path = os.path.relpath(os.path.join(folder, name), root)
            suffix = os.path.splitext(name)[1].lower()
            if (
                suffix in _SCRIPTS
                and name[0] not in ".-"
                and name != "setup.py"
                and path.isprintable()
                and os.path.isfile(os.path.join(folder, name))  # which a pipe or a dangling link is not
                and (suffix != ".py" or _has_main(root, path, skipped))
            ):
                yield path


def _has_main(root: str, path: str, skipped: list[str]) -> bool:
    tree = _tree(os.path.join(root, path))
    if tree is None:
        skipped.append(f"{path}: Python {sys.version_info[0]}.{sys.version_info[1]} cannot read it")
        return False
    tests = [node.test for node in tree.body if isinstance(node, ast.If)]
    if any(isinstance(n, ast.Name) and n.id == "__name__" for test in tests for n in ast.walk(test)):
        return True
    if runs_at_import(tree):
        skipped.append(f'{path}: it has no `if __name__ == "__main__":`')
    return False


def _tree(path: str) -> ast.Module | None:
    try:
        with open(path, "rb") as file:
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _script(root: str, path: str, skipped: list[str]) -> Script:
    if os.path.splitext(path)[1].lower() != ".py":
        return Script(path, path, f"Run {path}")
    base, module = _module(root, path)
    return _python_script(root, path, f"python -m {module}" if module else path, base, "", skipped)


def _python_script(root: str, path: str, source: str, base: str, name: str, skipped: list[str]) -> Script:
    tree = _tree(os.path.join(root, path)) or ast.Module([], [])
    first = (ast.get_docstring(tree) or "").partition("\n")[0].strip()
    options = read_options(tree)
    if options.skipped:
        skipped.append(f"{path}: a job cannot express {', '.join(options.skipped)}")
    return Script(
        path, source, first if first and first.isprintable() else f"Run {path}", base, name, options
    )


def _module(root: str, path: str) -> tuple[str, str]:
    """The folder to import a file's package from, and the file as a module; both empty outside a package."""
    base = os.path.dirname(path)
    while base and os.path.isfile(os.path.join(root, base, "__init__.py")):
        base = os.path.dirname(base)
    if base == os.path.dirname(path):
        return "", ""
    parts = os.path.splitext(os.path.relpath(path, base or os.curdir))[0].split(os.sep)
    parts = parts[:-1] if parts[-1] in ("__main__", "__init__") else parts
    return (base, ".".join(parts)) if all(part.isidentifier() for part in parts) else ("", "")


def _entry_points(root: str, pyproject: dict[str, Any], skipped: list[str]) -> Iterator[Script]:
    """The scripts that a pyproject.toml names.

    https://packaging.python.org/en/latest/specifications/entry-points/
    """
    named = pyproject.get("scripts")
    for name, target in named.items() if isinstance(named, dict) else ():
        match = re.fullmatch(r"\s*([\w.]+)\s*:\s*([\w.]+)\s*(\[.*\])?", str(target))
        path, base = _file_of(root, match[1]) if match else ("", "")
        if match and path and image_name(name):
            function = match[2].partition(".")[0]
            call = f"python -c 'from {match[1]} import {function}; raise SystemExit({match[2]}())'"
            source = f"python -m {match[1]}" if _has_main(root, path, []) else call
            yield _python_script(root, path, source, base, image_name(name), skipped)
        else:
            skipped.append(f"pyproject.toml: the script {name!r} is not in a file of this folder")


def _file_of(root: str, module: str) -> tuple[str, str]:
    """The file of a module and the folder to import it from; both empty if it is not in this project."""
    stems = {os.path.join(base, *module.split(".")): base for base in ("", "src")}
    paths = {f"{stem}{end}": base for stem, base in stems.items() for end in (".py", "/__init__.py")}
    return next(((p, base) for p, base in paths.items() if os.path.isfile(os.path.join(root, p))), ("", ""))


def make_targets(root: str) -> Iterator[str]:
    """One line about the targets of a Makefile: https://www.gnu.org/software/make/manual/make.html#Rules"""
    try:
        with open_regular(os.path.join(root, "Makefile")) as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return
    rules = re.findall(r"^([A-Za-z0-9][\w -]*):(?![=:])", text, re.MULTILINE)
    if names := list(dict.fromkeys(" ".join(rules).split())):
        yield f"Makefile: {', '.join(names)}; a job for one has `source: make {names[0]}`"
