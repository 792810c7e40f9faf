"""`envs` and `config`: list the environments, and print the configuration of one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import is_dataclass, replace
from typing import Any, get_args

import yaml

from skelebot import console
from skelebot.component import Command, Component, Session
from skelebot.model import Job, Param, Project, Sections
from skelebot.options import Values
from skelebot.project import nodes, read, schema
from skelebot.project.nodes import Report
from skelebot.value_types import mismatch

DEFAULT = "[default]"


class Environments(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        return (_ENVS, _CONFIG)


def _envs(session: Session, values: Values) -> int:
    project = session.project
    rows = [(DEFAULT, read.FILE, project.env is None)]
    for name in read.environments(project.root):
        rows.append((name, read.environment_file(project.root, name), name == project.env))
    if values.get("json"):
        keys = ("name", "file", "active")
        _print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return 0
    marked = [(f"{'*' if active else ' '} {name}", file) for name, file, active in rows]
    console.table(("  NAME", "FILE"), marked, bare=True)
    return 0


def _config(session: Session, values: Values) -> int:
    project = session.project
    tree = _record(project)
    source = read.merged(project.root, project.env, Report()) if values.get("origin") else None
    if values.get("json"):
        _print_json(_plain(tree, (), source))
        return 0
    # One value per line, however long, so that its origin can follow it.
    text = yaml.serialize(tree, Dumper=yaml.SafeDumper, allow_unicode=True, width=float("inf"))
    console.out((_with_origins(text, source) if source else text).rstrip("\n"))
    return 0


def _print_json(value: Any) -> None:
    import json  # only where it is asked for

    console.out(json.dumps(value, indent=2))


_JSON = Param("json", accepts="boolean", help="Print the result as JSON")
_ENVS = Command("envs", "List the environments; * marks the active one", _envs, (), (_JSON,))
_CONFIG = Command(
    "config",
    "Print the resulting configuration, including defaults",
    _config,
    (),
    (Param("origin", "o", accepts="boolean", help="Show the file and line of each value"), _JSON),
)


# --- the configuration as YAML ---


def _record(value: Any) -> yaml.MappingNode:
    """The keys of a record that say something: of those which are empty by default, the others."""
    if isinstance(value, Param):
        value = _without_secret(value)
    pairs = []
    for name, field in schema.keys(type(value)):
        given = getattr(value, field.name)
        if given != field.default or not (given in (None, (), "") or is_dataclass(given)):
            pairs.append((_text(name), _node(given, field.type)))
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=False)


def _without_secret(param: Param) -> Param:
    if not param.secret or param.default is None or param.reference:
        return param
    # It has to be one of the choices, which show it anyway, true or false, or of the param's type.
    is_wrong = param.accepts == "boolean" or mismatch(param, "***")
    return replace(param, default=None if is_wrong else "***")


def _node(value: Any, want: Any) -> yaml.Node:
    if want == Sections:
        return _mapping((name, _copy(below, {})) for name, below in value)
    if (below := _of_mapping(value, want)) is not None:
        return _mapping((name, _node(given, below)) for name, given in value)
    if is_dataclass(value):
        return _record(value)
    if isinstance(value, tuple):
        return yaml.SequenceNode("tag:yaml.org,2002:seq", [_node(v, None) for v in value], flow_style=False)
    if isinstance(value, bool):
        return yaml.ScalarNode("tag:yaml.org,2002:bool", str(value).lower())
    if isinstance(value, int):
        return yaml.ScalarNode("tag:yaml.org,2002:int", str(value))
    return _text(value)


def _of_mapping(value: Any, want: Any) -> Any:
    """Return the type of the values of a mapping; None for any other value."""
    if not isinstance(value, tuple) or (value and not isinstance(value[0], tuple)):
        return None
    found = map(schema.of_mapping, (want, *get_args(want)))
    return next((below for below in found if below is not None), None)


def _text(value: str | None) -> yaml.ScalarNode:
    tag = "null" if value is None else "str"
    style = "|" if value and "\n" in value else None
    return yaml.ScalarNode(f"tag:yaml.org,2002:{tag}", "null" if value is None else value, style=style)


def _mapping(pairs: Iterable[tuple[str, yaml.Node]]) -> yaml.MappingNode:
    return yaml.MappingNode("tag:yaml.org,2002:map", [(_text(k), v) for k, v in pairs], flow_style=False)


def _copy(node: yaml.Node, known: dict[int, yaml.Node]) -> yaml.Node:
    """Copy a node of the file, with aliases and merges resolved."""
    if id(node) not in known:
        if isinstance(node, yaml.MappingNode):
            pairs = nodes.items(node, "", Report())
            known[id(node)] = _mapping((str(name.value), _copy(below, known)) for name, below in pairs)
        elif isinstance(node, yaml.SequenceNode):
            entries = [_copy(below, known) for below in node.value]
            known[id(node)] = yaml.SequenceNode(node.tag, entries, flow_style=False)
        else:
            assert isinstance(node, yaml.ScalarNode)
            known[id(node)] = yaml.ScalarNode(node.tag, node.value, style=node.style)
    return known[id(node)]


# --- where it comes from ---

Path = tuple[str | int, ...]
_MOST_ALIGNED = 60

_OLD = {name: f.metadata["old"] for cls in (Project, Job) for name, f in schema.keys(cls)}


def _origin(source: yaml.Node, path: Path) -> str:
    """Give the file and line of a value, or "default"."""
    node: yaml.Node | None = source
    for step in path:
        node = _below(node, step)
        if node is None:
            return "default"
    assert node
    return f"{node.start_mark.name}:{node.start_mark.line + 1}"


def _below(node: yaml.Node | None, step: str | int) -> yaml.Node | None:
    if isinstance(step, int):
        # A single entry is accepted in place of a list.
        return node.value[step] if isinstance(node, yaml.SequenceNode) else node
    found = {name.value: below for name, below in nodes.items(node, "", Report())} if node else {}
    return found.get(step) or found.get(_OLD.get(step))


def _with_origins(text: str, source: yaml.Node) -> str:
    """Append each value's origin as a comment; those of lines that are not long stand in one column."""
    tree = yaml.compose(text, yaml.SafeLoader)
    assert tree
    ends = []
    for path, node in _leaves(tree, (), set()):
        in_block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
        at = text.index("\n", node.start_mark.index) if in_block else node.end_mark.index
        ends.append((at, at - text.rfind("\n", 0, at), _origin(source, path)))
    column = max((length for _, length, _ in ends if length <= _MOST_ALIGNED), default=0)
    pieces, done = [], 0
    for at, length, origin in ends:
        pieces += [text[done:at], " " * (column - length), f"  # {origin}"]
        done = at
    return "".join([*pieces, text[done:]])


def _leaves(node: yaml.Node, path: Path, seen: set[int]) -> Iterator[tuple[Path, yaml.Node]]:
    """Yield each value with its path; a value that aliases repeat is in the text once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode) or not node.value:
        yield path, node
    for step, below in _children(node):
        yield from _leaves(below, (*path, step), seen)


def _children(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((name.value, below) for name, below in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from enumerate(node.value)


# --- the same as JSON ---

_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() in ("true", "yes", "on"),
    "int": lambda text: int(text) if text.isdigit() else text,
}


def _plain(node: yaml.Node, path: Path, source: yaml.Node | None) -> Any:
    """The values; with a source, each as an object that has its origin beside it."""
    if isinstance(node, yaml.MappingNode):
        return {name: _plain(below, (*path, name), source) for name, below in _children(node)}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(below, (*path, i), source) for i, below in _children(node)]
    convert = _SCALARS.get(node.tag.rpartition(":")[2], str)
    value = convert(node.value)
    return {"value": value, "origin": _origin(source, path)} if source else value
