"""`skelebot scaffold -e`: a project made of what is in a folder, of which nothing is changed."""

import ast
import os
import re
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from skelebot import console
from skelebot.components.scaffold import answers, render
from skelebot.components.scaffold.answers import Asker
from skelebot.components.scaffold.placing import offer
from skelebot.components.scaffold.render import Answers, Files, Made, yaml_text
from skelebot.errors import ConfigError
from skelebot.image import dependencies
from skelebot.model import image_name
from skelebot.project.read import FILE

_MOST_JOBS = 50
_LANGUAGES = {".py": "Python", ".r": "R"}
_SCRIPTS = (".py", ".r", ".sh")
_SHARED = ("data", "models", "output", "outputs", "results")  # folders that hold what jobs read and write
# Where no scripts of the project's own are to be looked for, besides folders that begin with a dot.
_PASSED_OVER = {
    *("__pycache__", "build", "dist", "env", "node_modules", "packrat", "renv", "site-packages", "venv"),
    *("doc", "docs", "notebooks", "test", "tests", *_SHARED),
}
# Packages that every R has: https://cran.r-project.org/doc/FAQ/R-FAQ.html#Add_002don-packages-in-R
_BASE_R = {
    *("R", "base", "compiler", "datasets", "grDevices", "graphics", "grid", "methods", "parallel"),
    *("splines", "stats", "stats4", "tcltk", "tools", "utils"),
}


@dataclass(frozen=True)
class Found:
    """What a folder holds. about: what is known of the project. scripts: their paths and what they do."""

    about: dict[str, str]
    version: str
    python: tuple[str, ...]
    r: tuple[str, ...]
    scripts: tuple[tuple[str, str], ...]
    shared: tuple[str, ...]


def adopt(root: str, asker: Asker, force: bool, dry_run: bool, taken: Collection[str]) -> int:
    """Adds what Skelebot needs to the folder `root`, and gives the exit code. Raises SkelebotError.

    taken: names that no job can have.
    """
    found = look(root)
    questions = answers.about(root, found.about)
    asker.require(questions)
    given = {question.name: asker.answer(question) for question in questions}
    made: Files = {FILE: Made(text(found, given, taken).encode())}
    if not os.path.lexists(os.path.join(root, "VERSION")):
        made["VERSION"] = Made(f"{found.version}\n".encode())
    with tempfile.TemporaryDirectory(prefix="skelebot-") as scratch:
        render.check(made, scratch, "what is there")
    return offer(root, made, "a project of what is there", asker, force, dry_run)


# --- what is there ---


def look(root: str) -> Found:
    scripts = sorted(_scripts(root))
    pyproject, description = _pyproject(root), _description(root)
    about = {
        "name": pyproject.get("name") or description.get("Package"),
        "description": pyproject.get("description") or description.get("Title"),
        "language": _language(root, scripts),
    }
    version = pyproject.get("version") or description.get("Version")
    return Found(
        about={
            name: value for name, value in about.items() if isinstance(value, str) and value.isprintable()
        },
        version=version if isinstance(version, str) and version.isprintable() else render.VERSION,
        python=tuple(_python(root)),
        r=tuple(_r(root, description)),
        scripts=tuple((path, _purpose(root, path)) for path in scripts),
        shared=tuple(f"{name}/" for name in _SHARED if os.path.isdir(os.path.join(root, name))),
    )


def _scripts(root: str) -> Iterator[str]:
    """The paths of what can be run: shell scripts, R scripts, and Python with a main part."""
    is_package = os.path.isfile(os.path.join(root, "DESCRIPTION"))
    for folder, names, files in os.walk(root):
        names[:] = [
            n for n in names if n not in _PASSED_OVER and n[0] != "." and not (is_package and n == "R")
        ]
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
    found = {_LANGUAGES.get(os.path.splitext(path)[1].lower()) for path in scripts}
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


# --- what becomes of it ---

_DEPENDENCIES = (
    "# What is installed. `numpy` is the newest version that fits, `numpy=1.26.4` just that one.\n"
)
_IGNORES = """\
# What the image leaves out, written as in a .dockerignore. The jobs reach these folders as mappings.
"""
_JOBS = """\
# Each job is a command: `skelebot NAME`. Options that a script takes go under its `params`, values without a
# name under its `args`, and folders that it reads or writes under its `mappings`.
"""
_NO_JOBS = """\
# Each job is a command. This one would be `skelebot train`:
# jobs:
# - name: train
#   source: src/train.py
#   help: Train the model
#   mappings:
#   - models/
"""


def text(found: Found, given: Answers, taken: Collection[str]) -> str:
    """A skelebot.yaml for what was found."""
    parts = [render.head(given)]
    if packages := _packages(found, given["language"]):
        parts.append(_DEPENDENCIES + yaml_text({"dependencies": packages}))
    if found.shared:
        parts.append(_IGNORES + yaml_text({"ignores": list(found.shared)}))
    jobs = list(_jobs(found, given["language"], taken))
    parts.append(_JOBS + yaml_text({"jobs": jobs}) if jobs else _NO_JOBS)
    return "\n".join(parts)


def _packages(found: Found, language: str) -> Any:
    if language == "R+Python":
        return {
            name: list(entries) for name, entries in (("Python", found.python), ("R", found.r)) if entries
        }
    return list(found.python if language == "Python" else found.r)


def _jobs(found: Found, language: str, taken: Collection[str]) -> Iterator[dict[str, Any]]:
    scripts = [(path, help) for path, help in found.scripts if _fits(path, language)]
    if len(scripts) > _MOST_JOBS:
        console.warn(f"there are {len(scripts)} scripts; the first {_MOST_JOBS} become jobs")
    used = set(taken)
    for path, help in scripts[:_MOST_JOBS]:
        name = _name(path, used)
        used.add(name)
        mappings = {"mappings": list(found.shared)} if found.shared else {}
        yield {"name": name, "source": path, "help": help, **mappings}


def _fits(path: str, language: str) -> bool:
    return _LANGUAGES.get(os.path.splitext(path)[1].lower(), language) in language


def _name(path: str, used: Collection[str]) -> str:
    """A name for the job: the script's, with as many of its folders as it takes to be the only one."""
    parts = [image_name(part) or "job" for part in os.path.splitext(path)[0].split(os.sep)]
    names = ["-".join(parts[i:]) for i in reversed(range(len(parts)))]
    names += [f"run-{names[-1]}", *(f"{names[-1]}-{i}" for i in range(2, _MOST_JOBS + 2))]
    return next(name for name in names if name not in used)
