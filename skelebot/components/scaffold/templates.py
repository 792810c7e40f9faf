"""What a template.yaml holds."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import yaml

from skelebot.errors import UsageError
from skelebot.keys import key, not_blank, one_line, pattern
from skelebot.project import nodes, schema
from skelebot.project.read import read_file

FILE = "template.yaml"

# What a template may use besides the answers to its own prompts.
ABOUT = ("name", "description", "maintainer", "contact", "language")
LANGUAGES = ("Python", "R", "R+Python")

variable = pattern(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name: letters, digits and underscores")


@dataclass(frozen=True)
class Prompt:
    """A question that the template asks."""

    var: str = key(help="The variable that holds the answer", check=variable)
    message: str = key(help="The question", check=not_blank)
    default: str | None = key(None, help="The default answer", check=one_line)
    choices: tuple[str, ...] = key((), help="The allowed answers", check=one_line)
    place: str = ""


@dataclass(frozen=True)
class TemplateFile:
    """A file of the project, and the file of the template that it is made from."""

    name: str = key(help="Its path in the project; a file whose path is empty is left out", check=one_line)
    template: str = key(help="The path of its content in the template", check=not_blank)
    render: bool = key(True, help="Replace the variables; false copies the file unchanged")
    place: str = ""


@dataclass(frozen=True)
class Template:
    """A whole template.yaml, and the folder that it is in."""

    languages: tuple[Literal["Python", "R", "R+Python"], ...] = key((), help="The languages it supports")
    prompts: tuple[Prompt, ...] = key((), help="Its questions")
    dirs: tuple[str, ...] = key((), help="Folders of the project", check=one_line)
    files: tuple[TemplateFile, ...] = key((), help="Files of the project")
    config: yaml.Node | None = key(None, help="Keys of skelebot.yaml, or a text that has them")
    folder: str = ""


def load(folder: str) -> Template:
    """Read the template in a folder. Raises ConfigError with every mistake, and UsageError."""
    report = nodes.Report()
    path = path_inside(folder, FILE)
    if path is None:
        raise UsageError(f"{FILE} in {folder} is a link out of the template; put the file itself there")
    if not os.path.isfile(path):
        raise UsageError(f"{folder} is not a template: it has no {FILE}")
    root = nodes.parse(FILE, read_file(folder, FILE), report)
    template = schema.record(root, Template, "", report, folder=folder) if root is not None else None
    if template is not None:
        report.problems |= dict.fromkeys(_problems(template))
    report.raise_problems()
    assert isinstance(template, Template)
    return template


def path_inside(folder: str, name: str) -> str | None:
    """The path of a template's file with links followed; None if it leads out of the template."""
    top = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(top, name))
    parts = os.path.relpath(path, top).split(os.sep)
    return None if parts[0] == ".." or ".git" in map(str.lower, parts) else path


def _problems(template: Template) -> Iterator[str]:
    seen = list(ABOUT)
    for prompt in template.prompts:
        if prompt.var in seen:
            yield f"{prompt.place}.var: another variable is already named {prompt.var!r}"
        seen.append(prompt.var)
        default = prompt.default
        if prompt.choices and default is not None and default not in prompt.choices and "{" not in default:
            yield f"{prompt.place}.default: {default!r} is not among the choices"
    node = template.config
    is_text = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    if node is not None and not (is_text or isinstance(node, yaml.MappingNode)):
        yield f"{nodes.place(node)}: config: expected keys with values, or their text after a `|`"
