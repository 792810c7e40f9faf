"""The text of a new project's skelebot.yaml."""

from typing import Any

import yaml

from skelebot.components.scaffold.render import Answers, Renderer
from skelebot.components.scaffold.templates import ABOUT, FILE, Template
from skelebot.project import nodes

_HEAD = """\
# yaml-language-server: $schema=skelebot.schema.json
# The line above is for your editor; `skelebot schema > skelebot.schema.json` renews the file it names.

"""


def head(answers: Answers, without: frozenset[str] = frozenset()) -> str:
    """The beginning of a skelebot.yaml, which describes the project."""
    known = [name for name in ABOUT if name not in without and (answers.get(name) or name == "name")]
    return _HEAD + "".join(yaml_text({name: answers[name]}) for name in known)


def yaml_text(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**6))


def template_config(renderer: Renderer, template: Template) -> bytes:
    """The head, and the template's part below it, whose keys replace those of the head."""
    text = _render_config(renderer, template.config)
    return "\n".join(filter(None, (head(renderer.answers, _keys(text)), text))).encode()


def _keys(text: str) -> frozenset[str]:
    """The keys of a part of a skelebot.yaml, which may hold only comments. Raises ConfigError."""
    if not any(line.strip() and line.lstrip()[0] != "#" for line in text.splitlines()):
        return frozenset()
    report = nodes.Report()
    node = nodes.parse(f"config of {FILE}, after rendering", text.encode(), report)
    keys = [name.value for name, _ in nodes.items(node, "", report)] if node else []
    report.raise_problems()
    return frozenset(keys)


def _render_config(renderer: Renderer, node: yaml.Node | None) -> str:
    if node is None or not node.value:
        return ""
    if isinstance(node, yaml.ScalarNode):
        return renderer.text(node.value, FILE, node.start_mark.line + 1)
    copy = _render_node(renderer, node, {})
    assert isinstance(copy, yaml.MappingNode)
    copy.flow_style = False  # as its keys are to stand below those of the head
    return str(yaml.serialize(copy, Dumper=yaml.SafeDumper, allow_unicode=True, width=10**6))


def _render_node(renderer: Renderer, node: Any, copies: dict[int, yaml.Node]) -> yaml.Node:
    """A copy of the node with its texts rendered; writing it adds the quotes that are needed."""
    if id(node) not in copies:
        if isinstance(node, yaml.ScalarNode):
            text = renderer.text(node.value, f"{nodes.place(node)}: config")
            copies[id(node)] = yaml.ScalarNode(node.tag, text, style=node.style)
        elif isinstance(node, yaml.SequenceNode):
            items = [_render_node(renderer, item, copies) for item in node.value]
            copies[id(node)] = yaml.SequenceNode(node.tag, items, flow_style=node.flow_style)
        else:
            pairs = [tuple(_render_node(renderer, part, copies) for part in pair) for pair in node.value]
            copies[id(node)] = yaml.MappingNode(node.tag, pairs, flow_style=node.flow_style)
    return copies[id(node)]
