"""A template and the answers become the files of a project, in memory."""

import json
import os
import posixpath
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from skelebot.components.scaffold.source import DATA
from skelebot.components.scaffold.templates import ABOUT, FILE, RECORD, File, Template
from skelebot.errors import ConfigError, SkelebotError
from skelebot.model import image_name
from skelebot.project import nodes, read
from skelebot.project.nodes import Report
from skelebot.project.state import OWN

VERSION = "0.1.0"
KEEP = ".gitkeep"  # lets git keep a folder that is empty

Answers = Mapping[str, str]


@dataclass(frozen=True)
class Made:
    """A file of a project."""

    content: bytes
    executable: bool = False


Files = dict[str, Made]


def files(template: Template, answers: Answers) -> Files:
    """Every file of the project, by its path. Raises ConfigError for what the template does wrong."""
    renderer = Renderer(answers)
    made: Files = {}
    for file in template.files:
        path = _path(renderer.text(file.name, f"{file.place}.name"), f"{file.place}.name")
        if path is None:
            continue
        if path in (read.FILE, RECORD):
            raise ConfigError([f"{file.place}.name: {path} is made by Skelebot; use `config`"])
        if path in made:
            raise ConfigError([f"{file.place}.name: there is a file {path} already"])
        made[path] = _made(renderer, template.folder, file)
    for i, name in enumerate(template.dirs):
        place = f"template.yaml: dirs[{i}]"
        path = _path(renderer.text(name, place), place)
        if path is not None and not any(known.startswith(f"{path}/") for known in made):
            made[f"{path}/{KEEP}"] = Made(b"")
    made = {**_of_every_project(renderer), **made, read.FILE: Made(_skelebot_yaml(renderer, template))}
    _check_folders(made)
    return made


def _made(renderer: "Renderer", folder: str, file: File) -> Made:
    path = _source(folder, file)
    with open(path, "rb") as source:
        content = source.read()
    if file.render:
        content = renderer.content(content, file.template)
    return Made(content, os.access(path, os.X_OK))


def _of_every_project(renderer: "Renderer") -> Files:
    """What a project has whose template says nothing about it."""
    made = {"VERSION": Made(f"{VERSION}\n".encode())}
    for path, name in (("README.md", "README.md"), (".gitignore", "gitignore")):
        made[path] = Made(renderer.content(read.read_file(DATA, name), name))
    return made


# --- paths ---


def _path(text: str, place: str) -> str | None:
    """The path in the project; None for an empty one. Raises ConfigError for one that leads elsewhere."""
    if not text.strip():
        return None
    path = posixpath.normpath(text)
    if not text.isprintable() or path.startswith(("/", "../")) or path in (".", ".."):
        raise ConfigError([f"{place}: expected a path inside of the project, found {text!r}"])
    if ".git" in path.lower().split("/") or path.split("/")[0] == OWN:
        raise ConfigError([f"{place}: {path!r} belongs to git or to Skelebot; a template cannot write there"])
    return path


def _source(folder: str, file: File) -> str:
    """The file of the template that it names. Raises ConfigError for one outside, also behind a link."""
    top = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(top, file.template))
    inside = os.path.relpath(path, top).split(os.sep)
    if inside[0] == ".." or ".git" in map(str.lower, inside):
        raise ConfigError([f"{file.place}.template: {file.template!r} is outside of the template"])
    if not os.path.isfile(path):
        raise ConfigError([f"{file.place}.template: there is no file {file.template!r} in the template"])
    return path


def _check_folders(made: Files) -> None:
    for path in made:
        for parent in _parents(path):
            if parent in made:
                raise ConfigError([f"template.yaml: {parent} is to be a file, and a folder for {path}"])


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


# --- text ---


class Renderer:
    """Jinja in its sandbox, with the answers as variables; an unknown variable is an error."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self._jinja = SandboxedEnvironment(
            undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
        )
        self._jinja.filters |= {"quoted": _quoted, "slug": image_name}

    def content(self, content: bytes, name: str) -> bytes:
        """The content of a file of the template. Raises ConfigError."""
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise ConfigError([f"{name}: this is not UTF-8; `render: false` copies it as it is"]) from None
        return self.text(text, name, 0).encode()

    def text(self, text: str, place: str, above: int | None = None) -> str:
        """The text with its variables replaced. Raises ConfigError.

        above: of a text of several lines, how many lines of the file `place` stand above it.
        """
        jinja = self._jinja.overlay(newline_sequence="\r\n") if "\r\n" in text else self._jinja
        try:
            code = jinja.compile(text, filename=place)
            return jinja.template_class.from_code(jinja, code, dict(jinja.globals)).render(self.answers)
        except SkelebotError:
            raise  # a signal
        except Exception as error:  # a template can raise whatever its expressions do
            where = place if above is None else f"{place}:{above + _line(error, place)}"
            raise ConfigError([f"{where}: {_said(error)}"]) from None


def _quoted(value: object) -> str:
    """A text in double quotes, as YAML, JSON, Python and R read it."""
    return json.dumps(str(value), ensure_ascii=False)


def _line(error: Exception, place: str) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == place and frame.lineno]
    return int(getattr(error, "lineno", None) or (lines[-1] if lines else 1))


def _said(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())


# --- skelebot.yaml ---

_HEAD = """\
# yaml-language-server: $schema=skelebot.schema.json
# The line above is for your editor; `skelebot schema > skelebot.schema.json` makes the file it names.

"""


def head(answers: Answers, without: frozenset[str] = frozenset()) -> str:
    """The begin of a skelebot.yaml, which says what the project is."""
    known = [name for name in ABOUT if name not in without and (answers.get(name) or name == "name")]
    return _HEAD + "".join(yaml_text({name: answers[name]}) for name in known)


def yaml_text(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**6))


def _skelebot_yaml(renderer: Renderer, template: Template) -> bytes:
    """The head, and the template's part below it, whose keys replace those of the head."""
    text = _config(renderer, template.config)
    return "\n".join(filter(None, (head(renderer.answers, _keys(text)), text))).encode()


def _keys(text: str) -> frozenset[str]:
    """The keys of a part of a skelebot.yaml, which may hold nothing but comments. Raises ConfigError."""
    if not any(line.strip() and line.lstrip()[0] != "#" for line in text.splitlines()):
        return frozenset()
    report = Report()
    node = nodes.parse(f"config of {FILE}, as it comes out", text.encode(), report)
    keys = [name.value for name, _ in nodes.items(node, "", report)] if node else []
    report.raise_problems()
    return frozenset(keys)


def _config(renderer: Renderer, node: yaml.Node | None) -> str:
    if node is None or not node.value:
        return ""
    if isinstance(node, yaml.ScalarNode):
        return renderer.text(node.value, FILE, node.start_mark.line + 1)
    rendered = _rendered(renderer, node, {})
    assert isinstance(rendered, yaml.MappingNode)
    rendered.flow_style = False  # as its keys are to stand below those of the head
    return str(yaml.serialize(rendered, Dumper=yaml.SafeDumper, allow_unicode=True, width=10**6))


def _rendered(renderer: Renderer, node: Any, known: dict[int, yaml.Node]) -> yaml.Node:
    """A copy of the node with the variables in its texts replaced; writing it quotes what has to be."""
    if id(node) not in known:
        if isinstance(node, yaml.ScalarNode):
            text = renderer.text(node.value, f"{nodes.place(node)}: config")
            known[id(node)] = yaml.ScalarNode(node.tag, text, style=node.style)
        elif isinstance(node, yaml.SequenceNode):
            items = [_rendered(renderer, item, known) for item in node.value]
            known[id(node)] = yaml.SequenceNode(node.tag, items, flow_style=node.flow_style)
        else:
            pairs = [tuple(_rendered(renderer, part, known) for part in pair) for pair in node.value]
            known[id(node)] = yaml.MappingNode(node.tag, pairs, flow_style=node.flow_style)
    return known[id(node)]


def check(made: Files, folder: str, maker: str) -> None:
    """Raises ConfigError, which blames `maker`, where Skelebot could not read the project.

    folder: an empty one to try it in.
    """
    for path in {read.FILE, "VERSION"} & made.keys():
        with open(os.path.join(folder, path), "wb") as file:
            file.write(made[path].content)
    _, report = read.project(folder, None)
    if report.problems:
        raise ConfigError([f"{maker} makes a wrong {problem}" for problem in report.problems])
