"""From YAML to the model's values: every mistake found, each with its place and a hint.

The schema is the annotations of the model's dataclasses. YAML's nodes are read rather than PyYAML's
values, because only they know the line, and the text as it stands in the file: `1.0`, `010` and
`22:22` stay what the user wrote wherever text is meant.
"""

import re
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

import yaml
from yaml.scanner import ScannerError

from skelebot.errors import did_you_mean
from skelebot.model import Environment, Sections

# libyaml's parser reads a file of 500 jobs ten times faster; PyYAML can be built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"
_PLAIN = ("str", "int", "float", "bool", "timestamp", "null", "value", "merge")
_PLAIN_TAGS = {_TAG + t for t in _PLAIN}
_BOOLEANS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
_DEEPEST = 100
_OPENINGS_WITHOUT_RISK = 10_000


class Report:
    """What was found wrong while reading; the reading goes on, so that all of it is told at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []
        # Merge keys may name one mapping exponentially often; each is read once.
        self.values: dict[tuple[int, str, Any], Any] = {}
        self.items: dict[int, list[tuple[yaml.Node, yaml.Node]]] = {}

    def problem(self, node: yaml.Node, path: str, text: str) -> None:
        self._add(self.problems, node, path, text)

    def warning(self, node: yaml.Node, path: str, text: str) -> None:
        self._add(self.warnings, node, path, text)

    @staticmethod
    def _add(lines: list[str], node: yaml.Node, path: str, text: str) -> None:
        line = f"{place(node)}: {path}: {text}" if path else f"{place(node)}: {text}"
        if line not in lines:  # an alias is read at each of its uses, and wrong only once
            lines.append(line)


def place(node: yaml.Node) -> str:
    mark = node.start_mark
    return f"{mark.name}:{mark.line + 1}:{mark.column + 1}"


class Source:
    """A text with a name, as PyYAML reads it."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text, self._read = name, text, False

    def read(self, size: int = -1, /) -> str:
        if self._read:
            return ""
        self._read = True
        return self.text


def parse(name: str, data: bytes, report: Report) -> yaml.Node | None:
    """The root node of a YAML text, or None with the problem reported; `name` is for messages."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        report.problems.append(
            f"{name}:{line}:1: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        )
        return None
    try:
        _check_depth(Source(name, text))
        node: yaml.Node | None = yaml.compose(Source(name, text), _Loader)
    except yaml.YAMLError as error:
        report.problems.append(_yaml_problem(name, text, error))
        return None
    if node is None:
        report.problems.append(
            f"{name}:1:1: the file is empty; it needs keys with values, as in `name: my-project`"
        )
    elif wrong := _loop_or_depth(node, (), set()):
        report.problem(wrong[0], "", wrong[1])
        return None
    return node


def _check_depth(source: Source) -> None:
    """Raises ScannerError for a text nested deeper than any configuration is.

    PyYAML composes recursively in C and dies of a full stack at some 20,000 levels; only a text with
    at least half as many openings can reach that, so the others are spared the second reading.
    """
    openings = sum(source.text.count(opening) for opening in ("[", "{", "- ", "-\n", ":", "?"))
    if openings < _OPENINGS_WITHOUT_RISK:
        return
    depth = 0
    for event in yaml.parse(source, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise ScannerError(None, None, "it is nested too deep", event.start_mark)  # type: ignore[arg-type]
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _yaml_problem(name: str, text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None)
    if mark:
        where = f"{name}:{mark.line + 1}:{mark.column + 1}"
    else:  # a character that YAML does not allow
        bad = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
        before = text[: bad.start()] if bad else ""
        where = f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    return f"{where}: this is not YAML: {what or 'it cannot be read'}"


def _loop_or_depth(node: yaml.Node, above: tuple[int, ...], seen: set[int]) -> tuple[yaml.Node, str] | None:
    """The node at which an alias closes a circle, or the nesting leaves all measure, and what it is."""
    if isinstance(node, yaml.ScalarNode):
        return None
    if id(node) in above:
        return node, "the alias contains itself"
    if len(above) > _DEEPEST:
        return node, "this is nested too deep"
    if id(node) in seen:
        return None
    seen.add(id(node))
    for child in _children(node):
        if wrong := _loop_or_depth(child, (*above, id(node)), seen):
            return wrong
    return None


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    for item in node.value:
        if isinstance(item, tuple):
            yield from item
        else:
            yield item


# --- reading ---


def items(node: yaml.Node, path: str, report: Report) -> list[tuple[yaml.Node, yaml.Node]]:
    """The pairs of a mapping with text keys, `<<` merged in, duplicates reported."""
    if id(node) not in report.items:
        report.items[id(node)] = _items(node, path, report)
    return report.items[id(node)]


def _items(node: yaml.Node, path: str, report: Report) -> list[tuple[yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        report.problem(node, path, f"expected keys with values, found {kind(node)}")
        return []
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for name, value in node.value:
        if name.tag == _TAG + "merge":
            for pair in _merged(value, path, report):
                merged.setdefault(pair[0].value, pair)
        elif not isinstance(name, yaml.ScalarNode):
            report.problem(name, path, f"expected a key, found {kind(name)}")
        elif name.value in own:
            first = own[name.value][0].start_mark.line + 1
            report.problem(name, join(path, name.value), f"the key is on line {first} already")
        else:
            own[name.value] = (name, value)
    return list({**merged, **own}.values())


def _merged(node: yaml.Node, path: str, report: Report) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        yield from items(source, path, report)


def record(node: yaml.Node, cls: type, path: str, report: Report, **extra: Any) -> Any:
    """An instance of the dataclass `cls`, or None where a required key is missing or wrong.

    `extra` are fields that do not come from the file; `place` is filled in where the class has it.
    """
    known = dict(keys(cls))
    values = dict(extra)
    given: dict[str, Field[Any]] = {}
    if (short := _short_form(node, known)) is not None:
        pairs: Iterable[tuple[yaml.Node, yaml.Node]] = [short]
    else:
        pairs = items(node, path, report)
    for name, value in pairs:
        field = _field_named(name, known, path, report)
        if field is None:
            continue
        if field.name in given:
            report.problem(name, join(path, name.value), f"`{yaml_name(field)}` is given already")
            continue
        given[field.name] = field
        loaded = _value_of(field, value, join(path, yaml_name(field)), report)
        if loaded is not MISSING:
            values[field.name] = loaded
    return _build(cls, values, given, node, path, report)


def _build(
    cls: type,
    values: dict[str, Any],
    given: dict[str, Field[Any]],
    node: yaml.Node,
    path: str,
    report: Report,
) -> Any:
    complete = True
    for field in fields(cls):
        if field.name == "place":
            values["place"] = f"{place(node)}: {path}"
        if field.name == "places":
            values["places"] = dict(_places(node, report))
        if field.default is MISSING and field.default_factory is MISSING:
            if field.name not in given and isinstance(node, yaml.MappingNode):
                text = f"`{yaml_name(field)}` is missing: {field.metadata['help'].lower()}"
                report.problem(node, path, text)
            if field.type is str:
                values.setdefault(field.name, "")  # so that what else is wrong is found too
            complete = complete and field.name in values
    return cls(**values) if complete else None


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
                return yaml.ScalarNode(_TAG + "str", name, node.start_mark, node.end_mark), node
    return None


def _field_named(
    name: yaml.Node, known: dict[str, Field[Any]], path: str, report: Report
) -> Field[Any] | None:
    if name.value in known:
        return known[name.value]
    for present, field in known.items():
        if field.metadata["old"] == name.value:
            report.warning(name, join(path, name.value), f"is now spelt `{present}`")
            return field
    report.problem(name, join(path, name.value), f"unknown key{did_you_mean(name.value, known)}")
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
    if want is int:
        return _integer(node, path, report)
    if want == Environment:
        return _environment(node, path, report, check)
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
        return _sequence(node, inside[0], path, report, check)
    return _union(node, inside, path, report, check)


def _union(node: yaml.Node, inside: tuple[Any, ...], path: str, report: Report, check: Any) -> Any:
    wants = [w for w in inside if w is not types.NoneType]
    fitting = wants
    if isinstance(node, yaml.SequenceNode):
        fitting = [w for w in wants if typing.get_origin(w) is tuple]
    elif isinstance(node, yaml.MappingNode):
        fitting = [w for w in wants if is_dataclass(w)]
    return value(node, (fitting or wants)[0], path, report, check)


def _text(node: yaml.Node, path: str, report: Report, check: Any) -> Any:
    if not isinstance(node, yaml.ScalarNode) or is_null(node):
        report.problem(node, path, f"expected text, found {kind(node)}")
        return MISSING
    text: str = node.value
    if node.tag not in _PLAIN_TAGS:
        report.problem(node, path, f"the tag {node.tag} is not known here; expected text")
    elif "\0" in text or not _encodable(text):
        report.problem(node, path, "expected text without NUL and without half characters")
    elif check and (expected := check(text)):
        shown = re.sub(r"//[^/@]*@", "//***@", text)  # an address may have a password
        report.problem(node, path, f"expected {expected}; found {shown!r}")
    else:
        return text
    return MISSING


def _encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _boolean(node: yaml.Node, path: str, report: Report) -> Any:
    if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "bool":
        return _BOOLEANS[node.value.lower()]
    report.problem(node, path, f"expected true or false, found {kind(node)}")
    return MISSING


def _integer(node: yaml.Node, path: str, report: Report) -> Any:
    if isinstance(node, yaml.ScalarNode) and node.value.isascii() and node.value.isdigit():
        return int(node.value[:18])
    report.problem(node, path, f"expected a whole number, found {kind(node)}")
    return MISSING


def _choice(node: yaml.Node, choices: tuple[str, ...], path: str, report: Report) -> Any:
    text = _text(node, path, report, None)
    if text is MISSING or text in choices:
        return text
    hint = did_you_mean(text, choices) if len(choices) > 3 else ""
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


def _sequence(node: yaml.Node, want: Any, path: str, report: Report, check: Any) -> Any:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not isinstance(node, yaml.SequenceNode):
        if isinstance(node, yaml.MappingNode) and not is_dataclass(want):
            report.problem(node, path, f"expected a list, found {kind(node)}")
            return MISSING
        report.warning(node, path, "one entry stands where a list is meant; put `- ` before it")
    loaded = [value(n, want, f"{path}[{i}]", report, check) for i, n in enumerate(nodes)]
    return tuple(v for v in loaded if v is not MISSING)


def is_null(node: yaml.Node) -> bool:
    return node.tag == _TAG + "null"


def or_empty(node: yaml.Node) -> yaml.Node:
    """The node; for nothing an empty mapping at its place."""
    return yaml.MappingNode(_TAG + "map", [], node.start_mark, node.end_mark) if is_null(node) else node


def kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "keys with values"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if is_null(node):
        return "nothing"
    text = node.value if len(node.value) < 40 else node.value[:37] + "..."
    names = {"bool": "the boolean", "int": "the number", "float": "the number"}
    return f"{names.get(node.tag.removeprefix(_TAG), 'the text')} {text!r}"


def join(path: str, name: str) -> str:
    name = name if name.isprintable() else repr(name)
    return f"{path}.{name}" if path else name


# --- names ---


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
    if want in (str, bool, int, Environment, Sections):
        return True
    if is_dataclass(want):
        return unreadable(typing.cast(type, want)) is None
    if origin is typing.Literal:
        return all(isinstance(choice, str) for choice in inside)
    if origin is tuple:
        return inside[1:] == (...,) and _is_readable(inside[0])
    others = [option for option in inside if option is not types.NoneType]
    return origin in (types.UnionType, typing.Union) and all(map(_is_readable, others))


# --- the same, for editors ---


def json_schema(cls: type) -> dict[str, Any]:
    """The JSON Schema (draft 7) of a record: https://json-schema.org/draft-07/schema."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, field in keys(cls):
        properties[name] = {**_json_type(field.type), "description": field.metadata["help"]}
        if field.metadata["old"]:
            old = {"deprecationMessage": f"Now spelt {name}"}
            properties[field.metadata["old"]] = {**properties[name], **old}
        if field.default is MISSING:
            required.append(name)
        else:
            properties[name] = {"anyOf": [properties[name], {"type": "null"}]} | {
                "description": field.metadata["help"]
            }
    whole = {"type": "object", "properties": properties, "additionalProperties": False}
    short = [_json_type(f.type) for _, f in keys(cls) if f.metadata["short"]]
    whole |= {"required": required} if required else {}
    return {"anyOf": [whole, *short]} if short else whole


def _json_type(want: Any) -> dict[str, Any]:
    simple: dict[Any, dict[str, Any]] = {
        str: {"type": ["string", "number", "boolean"]},
        bool: {"type": "boolean"},
        int: {"type": "integer", "minimum": 0},
        Environment: {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        },
        Sections: {"type": ["object", "null"]},
    }
    if want in simple:
        return simple[want]
    if is_dataclass(want):
        return json_schema(typing.cast(type, want))
    origin, inside = typing.get_origin(want), typing.get_args(want)
    if origin is typing.Literal:
        return {"enum": list(inside)}
    if origin is tuple:
        item = _json_type(inside[0])
        return {"anyOf": [{"type": "array", "items": item}, item]}
    options = [_json_type(w) for w in inside if w is not types.NoneType]
    return options[0] if len(options) == 1 else {"anyOf": options}
