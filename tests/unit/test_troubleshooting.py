"""The symptoms in docs/troubleshooting.md are messages of the package."""

import ast
import re
from pathlib import Path

import pytest

import skelebot
from skelebot.project.read import NO_PROJECT

PACKAGE = Path(skelebot.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
SYMPTOMS = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def text(node: ast.AST) -> str | None:
    """A text of the program, in which `…` stands for each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w+\}", "…", node.value)  # filled in by `format`
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) or "…" for part in node.values)
    return None


@pytest.fixture(scope="module")
def messages() -> str:
    nodes = (node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    return "\n".join([NO_PROJECT, *filter(None, map(text, nodes))])


def test_there_are_symptoms() -> None:
    assert len(SYMPTOMS) > 10


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_each_symptom_is_a_message(symptom: str, messages: str) -> None:
    assert symptom in messages
