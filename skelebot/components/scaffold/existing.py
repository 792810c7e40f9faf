"""`skelebot scaffold -e`: a project from what is in a folder."""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from skelebot import console, files
from skelebot.components.scaffold import answers, generate
from skelebot.components.scaffold.answers import Asker
from skelebot.components.scaffold.changes import confirm_and_apply
from skelebot.components.scaffold.config_text import head, yaml_text
from skelebot.components.scaffold.discover import LANGUAGES, FolderContents, discover
from skelebot.components.scaffold.generate import SCHEMA, Files, NewFile, schema_file
from skelebot.components.scaffold.gitignore import GITIGNORE, with_own_lines
from skelebot.components.scaffold.render import Answers
from skelebot.errors import SkelebotError
from skelebot.keys import image_name
from skelebot.project import read
from skelebot.project.read import FILE

_MOST_JOBS = 50


def adopt(
    root: str,
    asker: Asker,
    force: bool,
    dry_run: bool,
    reserved_names: Collection[str],
    schema: dict[str, Any],
) -> int:
    """Add what Skelebot needs to the folder `root`, and return the exit code. Raises SkelebotError.

    reserved_names: names that no job can have. schema: the JSON Schema of skelebot.yaml, for editors.
    """
    contents = discover(root)
    questions = answers.about(root, contents.about)
    asker.require(questions)
    given = {question.name: asker.answer(question) for question in questions}
    made: Files = {FILE: NewFile(config_text(contents, given, reserved_names).encode())}
    if not os.path.lexists(os.path.join(root, "VERSION")):
        made["VERSION"] = NewFile(f"{contents.version}\n".encode())
    with files.private_folder() as scratch:
        generate.check(made, scratch, "what is here")
    ignored, note = with_own_lines(root)
    made |= schema_file(schema) | ignored
    replaceable = set(made) if force else {GITIGNORE, SCHEMA}
    title = "a project from what is here"
    code = confirm_and_apply(root, made, title, asker, replaceable, dry_run, note)
    for line in (*contents.skipped, *_version_problem(root)):
        console.info(f"not used: {line}")
    return code


def _version_problem(root: str) -> Iterator[str]:
    """One line about a VERSION of another form; one that cannot be read is an error of the whole project."""
    from semver import Version

    with suppress(SkelebotError, UnicodeDecodeError):
        text = read.read_file(root, read.VERSION).decode("utf-8-sig").strip()
        if text.isprintable() and text and not Version.is_valid(text):
            yield f"VERSION: {text!r} is not a version such as 1.4.0; bump, push and publish need one"


_DEPENDENCIES = (
    "# What is installed. `numpy` is the newest version that fits, `numpy=1.26.4` just that one.\n"
)
_PYTHON_PATH = """\
# Where Python finds the packages of this folder.
"""
_IGNORES = """\
# Files to leave out of the image, as in .dockerignore. Jobs reach these folders as mappings.
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


def config_text(contents: FolderContents, given: Answers, reserved_names: Collection[str]) -> str:
    """A skelebot.yaml for the folder."""
    parts = [head(given)]
    if packages := _packages(contents, given["language"]):
        parts.append(_DEPENDENCIES + yaml_text({"dependencies": packages}))
    if contents.python_path:
        parts.append(
            _PYTHON_PATH + yaml_text({"environment": {"PYTHONPATH": ":".join(contents.python_path)}})
        )
    if contents.shared:
        parts.append(_IGNORES + yaml_text({"ignores": list(contents.shared)}))
    jobs = list(_jobs(contents, given["language"], reserved_names))
    parts.append(_JOBS + yaml_text({"jobs": jobs}) if jobs else _NO_JOBS)
    return "\n".join(parts)


def _packages(contents: FolderContents, language: str) -> Any:
    if language == "R+Python":
        return {
            name: list(entries)
            for name, entries in (("Python", contents.python), ("R", contents.r))
            if entries
        }
    return list(contents.python if language == "Python" else contents.r)


def _jobs(
    contents: FolderContents, language: str, reserved_names: Collection[str]
) -> Iterator[dict[str, Any]]:
    scripts = [script for script in contents.scripts if _fits(script.path, language)]
    if len(scripts) > _MOST_JOBS:
        console.warn(f"there are {len(scripts)} scripts; the first {_MOST_JOBS} become jobs")
    used = set(reserved_names)
    mappings = {"mappings": list(contents.shared)} if contents.shared else {}
    for script in scripts[:_MOST_JOBS]:
        name = _name(script.name or os.path.splitext(script.path)[0], used)
        used.add(name)
        job = {"name": name, "source": script.source, "help": script.help}
        keys = {"args": script.options.args, "params": script.options.params}
        yield {**job, **{key: value for key, value in keys.items() if value}, **mappings}


def _fits(path: str, language: str) -> bool:
    return LANGUAGES.get(os.path.splitext(path)[1].lower(), language) in language


def _name(path: str, used: Collection[str]) -> str:
    """A name for the job: the script's, without its suffix, with as many of its folders as make it unique."""
    parts = [image_name(part) or "job" for part in path.split(os.sep)]
    names = ["-".join(parts[i:]) for i in reversed(range(len(parts)))]
    names += [f"run-{names[-1]}", *(f"{names[-1]}-{i}" for i in range(2, _MOST_JOBS + 2))]
    return next(name for name in names if name not in used)
