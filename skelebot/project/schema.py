"""Convert YAML nodes into the model's values, and report every mistake with its place and a hint.

The schema is the annotations of the model's dataclasses.
"""

import re
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

import yaml

from skelebot.model import Arg, Environment, Json, Param, Project, Sections
from skelebot.project.nodes import TAG, Report, is_null, items, join, kind, place

_PLAIN = ("str", "int", "float", "bool", "timestamp", "null", "value", "merge")
_PLAIN_TAGS = {TAG + t for t in _PLAIN}
_BOOLEANS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


_BELOW_COMPONENTS = "is ignored here; move it below `components:`"

# Keys of former versions that nothing reads any more, and what to do with each. A file that has them loads.
FORMER: dict[type, dict[str, str]] = {
    Project: {
        "version": "is ignored; write the version to the file VERSION",
        "skelebotVersion": "is ignored; remove it",
        "env": "is ignored; the option -e names the environment",
        "artifacts": "is ignored here; move it below `repository:` below `components:`",
        **dict.fromkeys(("jupyter", "kerberos", "registry", "repository"), _BELOW_COMPONENTS),
        "plugins": "is ignored; put the settings of each plugin below `components:`, by its name",
        "copy": "is ignored; share files with a job through its `mappings`",
    },
    Arg: {"default": "is ignored; a value with a default is one of the `params`"},
    Param: {"isBoolean": "is ignored; write `accepts: boolean`"},
}

# Keys that only other files have.
_MISPLACED: dict[type, dict[str, str]] = {
    Project: {"merge": "only an environment's file can have it; move it to skelebot-ENV.yaml"}
}


# --- keys ---

_CACHE: dict[type, list[tuple[str, Field[Any]]]] = {}


def keys(cls: type) -> list[tuple[str, Field[Any]]]:
    """The keys of a record with their fields; fields without metadata are not the file's."""
    if cls not in _CACHE:
        own = fields(cls)
        if any(isinstance(field.type, str) for field in own):  # `from __future__ import annotations`
            meant = typing.get_type_hints(cls)
            for field in own:
                field.type = meant[field.name]
        _CACHE[cls] = [(yaml_name(f), f) for f in own if "help" in f.metadata]
    return _CACHE[cls]


def yaml_name(field: Field[Any]) -> str:
    if field.metadata.get("name"):
        return str(field.metadata["name"])
    first, *rest = field.name.split("_")
    return first + "".join(part.capitalize() for part in rest)


# --- values ---


def record(node: yaml.Node, cls: type, path: str, report: Report, **extra: Any) -> Any:
    """An instance of the dataclass `cls`, or None where a required key is missing or wrong.

    `extra` are fields that do not come from the file; `place` and `elsewhere` are filled in
    where the class has them.
    """
    known = dict(keys(cls))
    values = dict(extra)
    given: dict[str, yaml.Node] = {}
    if (short := _short_form(node, known)) is not None:
        pairs: Iterable[tuple[yaml.Node, yaml.Node]] = [short]
    else:
        pairs = items(node, path, report)
    for name, value in pairs:
        field = _field_named(name, cls, known, path, report)
        if field is None:
            continue
        if field.name in given:
            report.problem(name, join(path, name.value), f"`{yaml_name(field)}` is already given")
            continue
        given[field.name] = value
        loaded = _value_of(field, value, join(path, yaml_name(field)), report)
        if loaded is not MISSING:
            values[field.name] = loaded
    return _build(cls, values, given, node, path, report)


def _build(
    cls: type,
    values: dict[str, Any],
    given: dict[str, yaml.Node],
    node: yaml.Node,
    path: str,
    report: Report,
) -> Any:
    complete = True
    for field in fields(cls):
        if field.name == "place":
            values["place"] = f"{place(node)}: {path}"
        if field.name == "elsewhere" and report.has_merged:
            values["elsewhere"] = tuple(_elsewhere(cls, given, node, path))
        if field.name == "places":
            values["places"] = dict(_places(node, report))
        if field.default is MISSING and field.default_factory is MISSING:
            if field.name not in given and isinstance(node, yaml.MappingNode):
                text = f"`{yaml_name(field)}` is missing: {field.metadata['help'].lower()}"
                report.problem(node, path, text)
            if field.type is str:
                values.setdefault(field.name, "")  # to find the other mistakes too
            complete = complete and field.name in values
    return cls(**values) if complete else None


def _elsewhere(
    cls: type, given: dict[str, yaml.Node], node: yaml.Node, path: str
) -> Iterator[tuple[str, str]]:
    """Where each of a record's values stands that is from another file, as a merged one is."""
    file = node.start_mark.name
    if any(value.start_mark.name != file for value in given.values()):
        for name, field in keys(cls):
            if field.name in given and given[field.name].start_mark.name != file:
                yield name, f"{place(given[field.name])}: {join(path, name)}"


def _places(node: yaml.Node, report: Report) -> Iterator[tuple[str, str]]:
    """Where each value below a mapping stands, and each entry of those that are lists.

    Also those of the mappings right below it; further down aliases may be without number.
    """
    for path, below in _named(node, "", report):
        deeper = _named(below, path, report) if isinstance(below, yaml.MappingNode) else ()
        for name, value in ((path, below), *deeper):
            yield name, f"{place(value)}: {name}"
            if isinstance(value, yaml.SequenceNode):
                for i, entry in enumerate(value.value):
                    yield f"{name}[{i}]", f"{place(entry)}: {name}[{i}]"


def _named(node: yaml.Node, path: str, report: Report) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((join(path, name.value), below) for name, below in items(node, path, report))


def _short_form(node: yaml.Node, known: dict[str, Field[Any]]) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.ScalarNode):
        for name, field in known.items():
            if field.metadata["short"]:
                return yaml.ScalarNode(TAG + "str", name, node.start_mark, node.end_mark), node
    return None


def _field_named(
    name: yaml.Node, cls: type, known: dict[str, Field[Any]], path: str, report: Report
) -> Field[Any] | None:
    if name.value in known:
        return known[name.value]
    for present, field in known.items():
        if field.metadata["old"] == name.value:
            report.warning(name, join(path, name.value), f"is now named `{present}`")
            return field
    if name.value in FORMER.get(cls, ()):
        report.warning(name, join(path, name.value), FORMER[cls][name.value])
        return None
    misplaced = _MISPLACED.get(cls, {})
    hint = report.hint(name.value, (*known, *misplaced))
    report.problem(name, join(path, name.value), misplaced.get(name.value) or f"unknown key{hint}")
    return None


def _value_of(field: Field[Any], node: yaml.Node, path: str, report: Report) -> Any:
    """The field's value; MISSING for an empty optional key, and for a wrong one (reported)."""
    if is_null(node):
        if field.default is MISSING:
            report.problem(node, path, f"is empty: {field.metadata['help'].lower()}")
        return MISSING
    return value(node, field.type, path, report, field.metadata["check"])


def value(node: yaml.Node, want: Any, path: str, report: Report, check: Any = None) -> Any:
    """The node as the type `want`, or MISSING with the problem reported."""
    if isinstance(node, yaml.ScalarNode):
        return _value(node, want, path, report, check)
    # Aliases may name one node exponentially often; it is read once.
    known = (id(node), repr(want), check)
    if known not in report.values:
        report.values[known] = _value(node, want, path, report, check)
    return report.values[known]


def _value(node: yaml.Node, want: Any, path: str, report: Report, check: Any) -> Any:
    if want is str:
        return _text(node, path, report, check)
    if want is bool:
        return _boolean(node, path, report)
    if want in _OTHERS:
        return _OTHERS[want](node, path, report, check)
    if want is yaml.Node:
        return node  # for whoever knows what it should hold
    if want == Sections:
        return tuple((name.value, below) for name, below in items(node, path, report))
    if is_dataclass(want):
        made = record(node, typing.cast(type, want), path, report)
        return MISSING if made is None else made
    origin, inside = typing.get_origin(want), typing.get_args(want)
    if origin is typing.Literal:
        return _choice(node, inside, path, report)
    if origin is tuple:
        below = of_mapping(want)
        read, kind = (_sequence, inside[0]) if below is None else (_mapping, below)
        return read(node, kind, path, report, check)
    return _union(node, inside, path, report, check)


def _union(node: yaml.Node, inside: tuple[Any, ...], path: str, report: Report, check: Any) -> Any:
    wants = [w for w in inside if w is not types.NoneType]
    fitting = wants
    if isinstance(node, yaml.SequenceNode):
        fitting = [w for w in wants if typing.get_origin(w) is tuple and w != Environment]
    elif isinstance(node, yaml.MappingNode):
        fitting = [w for w in wants if is_dataclass(w) or w == Environment]
    return value(node, (fitting or wants)[0], path, report, check)


def _text(node: yaml.Node, path: str, report: Report, check: Any) -> Any:
    if not isinstance(node, yaml.ScalarNode) or is_null(node):
        report.problem(node, path, f"expected text, found {kind(node)}")
        return MISSING
    text: str = node.value
    if node.tag not in _PLAIN_TAGS:
        report.problem(node, path, f"the tag {node.tag} is unknown; expected text")
    elif "\0" in text or not _encodable(text):
        report.problem(node, path, "expected text without NUL and lone surrogates")
    elif check and (expected := check(text)):
        shown = re.sub(r"//[^/@]*@", "//***@", text)  # an address may have a password
        report.problem(node, path, f"expected {expected}; found {shown!r}")
    else:
        return text
    return MISSING


def _as_json(node: yaml.Node, path: str, report: Report, check: Any) -> Any:
    import json  # only where there is such a key

    try:
        text = json.dumps(yaml.constructor.SafeConstructor().construct_document(node))
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        report.problem(node, path, f"expected what JSON can hold; {str(error).splitlines()[0]}")
        return MISSING
    if check and (expected := check(text)):
        report.problem(node, path, f"expected {expected}, found {kind(node)}")
        return MISSING
    return Json(text)


def _encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _boolean(node: yaml.Node, path: str, report: Report) -> Any:
    if isinstance(node, yaml.ScalarNode) and node.tag == TAG + "bool":
        return _BOOLEANS[node.value.lower()]
    report.problem(node, path, f"expected true or false, found {kind(node)}")
    return MISSING


def _integer(node: yaml.Node, path: str, report: Report, check: Any) -> Any:
    text = node.value if isinstance(node, yaml.ScalarNode) else ""
    is_number = text.isascii() and text.isdigit()
    expected = (check(text) if check else None) or (None if is_number else "a whole number")
    if expected is None:
        return int(text[:18])
    report.problem(node, path, f"expected {expected}, found {kind(node)}")
    return MISSING


def _choice(node: yaml.Node, choices: tuple[str, ...], path: str, report: Report) -> Any:
    text = _text(node, path, report, None)
    if text is MISSING or text in choices:
        return text
    hint = report.hint(text, choices) if len(choices) > 3 else ""
    report.problem(node, path, f"expected {' or '.join(choices)}; found {text!r}{hint}")
    return MISSING


def _environment(node: yaml.Node, path: str, report: Report, check: Any) -> Any:
    pairs = []
    for name, below in items(node, path, report):
        if check and (expected := check(name.value)):
            report.problem(name, path, f"expected {expected}; found {name.value!r}")
            continue
        text = None if is_null(below) else _text(below, join(path, name.value), report, None)
        if text is not MISSING:
            pairs.append((name.value, text))
    return tuple(pairs)


def of_mapping(want: Any) -> Any:
    """Return the type of the values of a mapping, which is a tuple of pairs; None for any other type."""
    inside = typing.get_args(want)
    is_mapping = typing.get_origin(want) is tuple and typing.get_origin(inside[0]) is tuple
    return typing.get_args(inside[0])[1] if is_mapping else None


def _mapping(node: yaml.Node, want: Any, path: str, report: Report, check: Any) -> Any:
    pairs = []
    for name, below in items(node, path, report):
        if check and (expected := check(name.value)):
            report.problem(name, path, f"expected {expected}; found {name.value!r}")
        elif (loaded := value(below, want, join(path, name.value), report)) is not MISSING:
            pairs.append((name.value, loaded))
    return tuple(pairs)


def _sequence(node: yaml.Node, want: Any, path: str, report: Report, check: Any) -> Any:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not isinstance(node, yaml.SequenceNode):
        if isinstance(node, yaml.MappingNode) and not is_dataclass(want):
            report.problem(node, path, f"expected a list, found {kind(node)}")
            return MISSING
        report.warning(node, path, "expected a list; put `- ` before this entry")
    loaded = [value(n, want, f"{path}[{i}]", report, check) for i, n in enumerate(nodes)]
    return tuple(v for v in loaded if v is not MISSING)


_OTHERS: dict[Any, typing.Callable[..., Any]] = {int: _integer, Environment: _environment, Json: _as_json}


# --- whether a record can be read at all ---


def unreadable(cls: type) -> str | None:
    """What is wrong with a record as the schema of settings, of those that others write; or None."""
    keys(cls)
    for field in fields(cls):
        if field.init and "help" not in field.metadata:
            return f"{field.name} is not declared with key(...)"
        if field.init and not _is_readable(field.type):
            return f"{field.name} is of a type that settings cannot have"
    return None


def _is_readable(want: Any) -> bool:
    origin, inside = typing.get_origin(want), typing.get_args(want)
    if want in (str, bool, int, Environment, Json, Sections):
        return True
    if is_dataclass(want):
        return unreadable(typing.cast(type, want)) is None
    if origin is typing.Literal:
        return all(isinstance(choice, str) for choice in inside)
    if origin is tuple:
        return inside[1:] == (...,) and _is_readable(inside[0])
    others = [option for option in inside if option is not types.NoneType]
    return origin in (types.UnionType, typing.Union) and all(map(_is_readable, others))
