"""From a YAML text to PyYAML's nodes, each of which knows its place; what is wrong is collected.

Nodes are read rather than PyYAML's values, because only they know the line, and the original text
in the file: `1.0`, `010` and `22:22` stay what the user wrote wherever text is meant.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from yaml.scanner import ScannerError

from skelebot.errors import ConfigError, did_you_mean

# libyaml's parser reads a file of 500 jobs ten times faster; PyYAML can be built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

TAG = "tag:yaml.org,2002:"
_DEEPEST = 100
_OPENINGS_WITHOUT_RISK = 10_000
_TOO_DEEP = "it is nested too deeply"
_MOST_LINES = 100  # that are shown of what is wrong


class Report:
    """The mistakes found so far; reading continues, so that all are reported at once."""

    def __init__(self) -> None:
        self.problems: dict[str, None] = {}
        self.warnings: dict[str, None] = {}
        self.has_merged = False  # whether values below one node may be from two files
        # Merge keys may refer to one mapping exponentially often, so each is read once.
        self.values: dict[tuple[int, str, Any], Any] = {}
        # With the node itself, so that no other node can get its id.
        self.items: dict[int, tuple[yaml.Node, list[tuple[yaml.Node, yaml.Node]]]] = {}

    def problem(self, node: yaml.Node, path: str, text: str) -> None:
        self.problems[_line(node, path, text)] = None

    def warning(self, node: yaml.Node, path: str, text: str) -> None:
        self.warnings[_line(node, path, text)] = None

    def hint(self, word: str, known: Iterable[str]) -> str:
        """What an unknown word may mean; nothing once there are more problems than are shown."""
        enough = len(self.problems) + len(self.warnings) > _MOST_LINES
        return "" if enough else did_you_mean(word, known)

    def raise_problems(self) -> None:
        """Raises ConfigError with what is wrong."""
        if self.problems:
            raise ConfigError(in_order(self.problems))


def in_order(lines: Iterable[str]) -> list[str]:
    """Problems or warnings in the order of the files' lines; of very many, the first and the count."""
    ordered = sorted(lines, key=_by_line)
    more = len(ordered) - _MOST_LINES
    return [*ordered[:_MOST_LINES], *([f"there are {more:,} more; fix these first"] if more > 0 else [])]


def _line(node: yaml.Node, path: str, text: str) -> str:
    return f"{place(node)}: {path}: {text}" if path else f"{place(node)}: {text}"


def _by_line(problem: str) -> tuple[str, int, int]:
    match = re.match(r"([^:]*):(\d+):(\d+):", problem)
    return (match[1], int(match[2]), int(match[3])) if match else ("", 0, 0)


def place(node: yaml.Node) -> str:
    mark = node.start_mark
    return f"{mark.name}:{mark.line + 1}:{mark.column + 1}"


class _NamedText:
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
        report.problems[
            f"{name}:{line}:1: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ] = None
        return None
    try:
        _check_depth(_NamedText(name, text))
        node: yaml.Node | None = yaml.compose(_NamedText(name, text), _Loader)
    except yaml.YAMLError as error:
        report.problems[_yaml_problem(name, text, error)] = None
        return None
    if node is None:
        report.problems[
            f"{name}:1:1: the file is empty; it needs keys with values, as in `name: my-project`"
        ] = None
    elif wrong := _loop_or_depth(node, (), set()):
        report.problem(wrong[0], "", wrong[1])
        return None
    return node


def _check_depth(source: _NamedText) -> None:
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
                raise ScannerError(None, None, _TOO_DEEP, event.start_mark)  # type: ignore[arg-type]
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _yaml_problem(name: str, text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    if "nesting depth" in what:  # libyaml 0.2.6 has its own limit
        what = _TOO_DEEP
    if mark:
        where = f"{name}:{mark.line + 1}:{mark.column + 1}"
    else:  # a character that YAML does not allow
        bad = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
        before = text[: bad.start()] if bad else ""
        where = f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    return f"{where}: this is not YAML: {what}"


def _loop_or_depth(node: yaml.Node, above: tuple[int, ...], seen: set[int]) -> tuple[yaml.Node, str] | None:
    """The node at which an alias closes a circle, or the nesting leaves all measure, and what it is."""
    if isinstance(node, yaml.ScalarNode):
        return None
    if id(node) in above:
        return node, "the alias contains itself"
    if len(above) > _DEEPEST:
        return node, "this is nested too deeply"
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


def items(node: yaml.Node, path: str, report: Report) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return a mapping's pairs with text keys, with `<<` merged and duplicates reported."""
    if id(node) not in report.items:
        report.items[id(node)] = node, _items(node, path, report)
    return report.items[id(node)][1]


def _items(node: yaml.Node, path: str, report: Report) -> list[tuple[yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        report.problem(node, path, f"expected keys with values, found {kind(node)}")
        return []
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for name, value in node.value:
        if name.tag == TAG + "merge":
            for pair in _merged(value, path, report):
                merged.setdefault(pair[0].value, pair)
        elif not isinstance(name, yaml.ScalarNode):
            report.problem(name, path, f"expected a key, found {kind(name)}")
        elif name.value in own:
            first = own[name.value][0].start_mark.line + 1
            report.problem(name, join(path, name.value), f"the key is already on line {first}")
        else:
            own[name.value] = (name, value)
    return list({**merged, **own}.values())


def _merged(node: yaml.Node, path: str, report: Report) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        yield from items(source, path, report)


def is_null(node: yaml.Node) -> bool:
    return node.tag == TAG + "null"


def or_empty(node: yaml.Node) -> yaml.Node:
    """Return the node, or an empty mapping at its place."""
    return yaml.MappingNode(TAG + "map", [], node.start_mark, node.end_mark) if is_null(node) else node


def kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "keys with values"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if is_null(node):
        return "nothing"
    text = node.value if len(node.value) < 40 else node.value[:37] + "..."
    names = {"bool": "the boolean", "int": "the number", "float": "the number"}
    return f"{names.get(node.tag.removeprefix(TAG), 'the text')} {text!r}"


def join(path: str, name: str) -> str:
    name = name if name.isprintable() else repr(name)
    return f"{path}.{name}" if path else name
