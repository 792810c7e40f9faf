"""What a template.yaml holds, and what a project remembers of the template that it was made from."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import yaml

import skelebot
from skelebot.components.scaffold.source import Source
from skelebot.errors import UsageError
from skelebot.model import Environment, key, not_blank, one_line, pattern
from skelebot.project import nodes, schema
from skelebot.project.nodes import Report
from skelebot.project.read import read_file

FILE = "template.yaml"
RECORD = ".skelebot-template.yaml"

# What a template may use besides the answers to its own prompts.
ABOUT = ("name", "description", "maintainer", "contact", "language")
LANGUAGES = ("Python", "R", "R+Python")

_variable = pattern(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name: letters, digits and underscores")


@dataclass(frozen=True)
class Prompt:
    """A question of the template's own."""

    var: str = key(help="The variable that holds the answer", check=_variable)
    message: str = key(help="The question", check=not_blank)
    default: str | None = key(None, help="The answer where none is given", check=one_line)
    choices: tuple[str, ...] = key((), help="The answers that are allowed", check=one_line)
    place: str = ""


@dataclass(frozen=True)
class File:
    """A file of the project, and the one of the template that it is made of."""

    name: str = key(help="Its path in the project; one that comes out empty is left out", check=one_line)
    template: str = key(help="The path of its text in the template", check=not_blank)
    render: bool = key(True, help="Replace the variables; false copies the file as it is")
    place: str = ""


@dataclass(frozen=True)
class Template:
    """A whole template.yaml, and the folder that it is in."""

    languages: tuple[Literal["Python", "R", "R+Python"], ...] = key((), help="What it can be made for")
    prompts: tuple[Prompt, ...] = key((), help="Its questions")
    dirs: tuple[str, ...] = key((), help="Folders of the project", check=one_line)
    files: tuple[File, ...] = key((), help="Files of the project")
    config: yaml.Node | None = key(None, help="Keys of skelebot.yaml, or a text that has them")
    folder: str = ""


def load(folder: str) -> Template:
    """The template in a folder. Raises ConfigError with every mistake, and UsageError."""
    report = Report()
    name = os.path.join(folder, FILE)
    if not os.path.isfile(name):
        raise UsageError(f"there is no {FILE} in {folder}, so it is no template")
    root = nodes.parse(FILE, read_file(folder, FILE), report)
    template = schema.record(root, Template, "", report, folder=folder) if root is not None else None
    if template is not None:
        report.problems += [p for p in _problems(template) if p not in report.problems]
    report.raise_problems()
    assert isinstance(template, Template)
    return template


def _problems(template: Template) -> Iterator[str]:
    seen = list(ABOUT)
    for prompt in template.prompts:
        if prompt.var in seen:
            yield f"{prompt.place}.var: there is a variable named {prompt.var!r} already"
        seen.append(prompt.var)
        default = prompt.default
        if prompt.choices and default is not None and default not in prompt.choices and "{" not in default:
            yield f"{prompt.place}.default: {default!r} is not among the choices"
    node = template.config
    is_text = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
    if node is not None and not (is_text or isinstance(node, yaml.MappingNode)):
        yield f"{nodes.place(node)}: config: expected keys with values, or their text after a `|`"


# --- what a project remembers ---


@dataclass(frozen=True)
class Record:
    """Where the project's template came from, and what was answered."""

    template: str = key(help="Its name, address or folder", check=not_blank)
    ref: str | None = key(None, help="The branch, tag or commit that was asked for", check=not_blank)
    commit: str | None = key(
        None, help="The commit that was taken", check=pattern(r"[0-9a-f]{40,64}", "the id of a commit")
    )
    version: str | None = key(None, help="The Skelebot that the template came with")
    answers: Environment = key((), help="What was answered", check=_variable)


_RECORD_HEAD = "# The project's template, for `skelebot template update`: keep this file in git.\n"


def record_text(source: Source, commit: str | None, answers: Mapping[str, str]) -> bytes:
    version = skelebot.__version__ if source.kind == "built-in" else None
    values = {"template": source.address, "ref": source.ref, "commit": commit, "version": version}
    known = {name: value for name, value in values.items() if value is not None}
    text = yaml.safe_dump({**known, "answers": dict(answers)}, sort_keys=False, allow_unicode=True, width=200)
    return (_RECORD_HEAD + text).encode()


def read_record(root: str) -> Record:
    """What the project in `root` remembers. Raises ConfigError, and UsageError without a record."""
    if not os.path.lexists(os.path.join(root, RECORD)):
        raise UsageError(f"there is no {RECORD} in {root}: the project was not made from a template")
    report = Report()
    node = nodes.parse(RECORD, read_file(root, RECORD), report)
    record = schema.record(node, Record, "", report) if node is not None else None
    report.raise_problems()
    assert isinstance(record, Record)
    return record
