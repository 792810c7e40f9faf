"""`skelebot scaffold -e`: a project from what is in a folder, none of which is changed."""

import os
from collections.abc import Collection, Iterator
from typing import Any

from skelebot import console, files
from skelebot.components.scaffold import answers, generate
from skelebot.components.scaffold.answers import Asker
from skelebot.components.scaffold.changes import confirm_and_apply
from skelebot.components.scaffold.config_text import head, yaml_text
from skelebot.components.scaffold.discover import LANGUAGES, FolderContents, discover
from skelebot.components.scaffold.generate import Files, NewFile
from skelebot.components.scaffold.render import Answers
from skelebot.model import image_name
from skelebot.project.read import FILE

_MOST_JOBS = 50


def adopt(root: str, asker: Asker, force: bool, dry_run: bool, reserved_names: Collection[str]) -> int:
    """Add what Skelebot needs to the folder `root`, and return the exit code. Raises SkelebotError.

    reserved_names: names that no job can have.
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
    return confirm_and_apply(root, made, "a project from what is here", asker, force, dry_run)


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


def config_text(contents: FolderContents, given: Answers, reserved_names: Collection[str]) -> str:
    """A skelebot.yaml for the folder."""
    parts = [head(given)]
    if packages := _packages(contents, given["language"]):
        parts.append(_DEPENDENCIES + yaml_text({"dependencies": packages}))
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
    scripts = [(path, help) for path, help in contents.scripts if _fits(path, language)]
    if len(scripts) > _MOST_JOBS:
        console.warn(f"there are {len(scripts)} scripts; the first {_MOST_JOBS} become jobs")
    used = set(reserved_names)
    for path, help in scripts[:_MOST_JOBS]:
        name = _name(path, used)
        used.add(name)
        mappings = {"mappings": list(contents.shared)} if contents.shared else {}
        yield {"name": name, "source": path, "help": help, **mappings}


def _fits(path: str, language: str) -> bool:
    return LANGUAGES.get(os.path.splitext(path)[1].lower(), language) in language


def _name(path: str, used: Collection[str]) -> str:
    """A name for the job: the script's, with as many of its folders as make it unique."""
    parts = [image_name(part) or "job" for part in os.path.splitext(path)[0].split(os.sep)]
    names = ["-".join(parts[i:]) for i in reversed(range(len(parts)))]
    names += [f"run-{names[-1]}", *(f"{names[-1]}-{i}" for i in range(2, _MOST_JOBS + 2))]
    return next(name for name in names if name not in used)
