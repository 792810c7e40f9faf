"""A template and the answers become the files of a project, in memory."""

import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skelebot import files
from skelebot.components.scaffold.config_text import template_config
from skelebot.components.scaffold.location import DATA
from skelebot.components.scaffold.record import RECORD
from skelebot.components.scaffold.render import Answers, Renderer
from skelebot.components.scaffold.templates import FILE, Template, TemplateFile, path_inside
from skelebot.errors import ConfigError
from skelebot.project import read
from skelebot.project.state import FOLDER

VERSION = "0.1.0"
KEEP = ".gitkeep"  # lets git keep an empty folder


@dataclass(frozen=True)
class NewFile:
    """The content of a file that is to be written."""

    content: bytes
    executable: bool = False


Files = dict[str, NewFile]

SCHEMA = "skelebot.schema.json"


def schema_file(schema: dict[str, Any]) -> Files:
    """The file that the first line of a skelebot.yaml names, for editors."""
    return {SCHEMA: NewFile(f"{json.dumps(schema, indent=2)}\n".encode())}


def project_files(template: Template, answers: Answers) -> Files:
    """Every file of the project, by its path. Raises ConfigError for mistakes in the template."""
    renderer = Renderer(answers)
    made: Files = {}
    for file in template.files:
        path = _path(renderer.text(file.name, f"{file.place}.name"), f"{file.place}.name")
        if path is None:
            continue
        if path in (read.FILE, RECORD):
            raise ConfigError([f"{file.place}.name: Skelebot writes {path} itself; use `config`"])
        if path in made:
            raise ConfigError([f"{file.place}.name: another file already has the path {path}"])
        made[path] = _render_file(renderer, template.folder, file)
    for i, name in enumerate(template.dirs):
        place = f"{FILE}: dirs[{i}]"
        path = _path(renderer.text(name, place), place)
        if path is not None and not any(known.startswith(f"{path}/") for known in made):
            made[f"{path}/{KEEP}"] = NewFile(b"")
    own = {read.FILE: NewFile(template_config(renderer, template))}
    made = {**_default_files(renderer), **made, **own}
    _check_folders(made)
    return made


def _render_file(renderer: Renderer, folder: str, file: TemplateFile) -> NewFile:
    path = _template_path(folder, file)
    with files.open_regular(path) as source:
        content = source.read()
    if file.render:
        content = renderer.content(content, file.template)
    return NewFile(content, os.access(path, os.X_OK))


def _default_files(renderer: Renderer) -> Files:
    """What a project gets unless its template has a file of that name."""
    made = {"VERSION": NewFile(f"{VERSION}\n".encode())}
    for path, name in (("README.md", "README.md"), (".gitignore", "gitignore")):
        made[path] = NewFile(renderer.content(read.read_file(DATA, name), name))
    return made


def check(made: Files, folder: str, maker: str) -> None:
    """Raise ConfigError, which blames `maker`, if Skelebot could not read the project.

    folder: an empty one to try it in.
    """
    for path in {read.FILE, "VERSION"} & made.keys():
        with open(os.path.join(folder, path), "wb") as file:
            file.write(made[path].content)
    _, report = read.project(folder, None)
    if report.problems:
        raise ConfigError([f"{maker} leads to an invalid {problem}" for problem in report.problems])


# --- paths ---


def _path(text: str, place: str) -> str | None:
    """The path in the project; None for an empty one. Raises ConfigError for one that leads elsewhere."""
    if not text.strip():
        return None
    path = posixpath.normpath(text)
    if not text.isprintable() or path.startswith(("/", "../")) or path in (".", ".."):
        raise ConfigError([f"{place}: expected a path inside the project, found {text!r}"])
    if ".git" in path.lower().split("/") or path.split("/")[0] == FOLDER:
        raise ConfigError([f"{place}: {path!r} belongs to git or to Skelebot; a template cannot write there"])
    return path


def _template_path(folder: str, file: TemplateFile) -> str:
    """The file of the template that it names. Raises ConfigError for one outside, also behind a link."""
    path = path_inside(folder, file.template)
    if path is None:
        raise ConfigError([f"{file.place}.template: {file.template!r} is outside the template"])
    if not os.path.isfile(path):
        raise ConfigError([f"{file.place}.template: the template has no file {file.template!r}"])
    return path


def _check_folders(made: Files) -> None:
    for path in made:
        for parent in _parents(path):
            if parent in made:
                raise ConfigError([f"{FILE}: {parent} would be a file, and also a folder for {path}"])


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path
