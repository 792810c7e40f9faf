"""What a Python file says of its classes, without an import."""

import ast
import os
from collections.abc import Iterator, Sequence

from skelebot.errors import did_you_mean
from skelebot.files import open_regular
from skelebot.project.sources import ClassSource


def problem(path: str, source: ClassSource, method: str) -> str | None:
    """Return what is sure to keep a method of a class from being called, or None."""
    if "." in os.path.basename(source.file)[: -len(".py")]:
        return f"the name of {source.file} has a dot, so it cannot be imported; rename it"
    tree = _tree(path)
    if tree is None or _is_bound_otherwise(tree, source.name):
        return None
    found = _classes(tree)
    if source.name not in found:
        return f"{source.file} has no class {source.name}{did_you_mean(source.name, found)}"
    if _has(found, found[source.name], method) is False:
        return f"the class {source.name} in {source.file} has no method {method}; add one"
    return None


def has_validate(path: str, source: ClassSource) -> bool:
    """Whether a class, or one in the same file that it derives from, has a method `validate`."""
    found = _classes(tree) if (tree := _tree(path)) else {}
    return source.name in found and _has(found, found[source.name], "validate") is True


def _tree(path: str) -> ast.Module | None:
    """Parse a file; None for one that this Python cannot read, though the job's may."""
    try:
        with open_regular(path) as file:
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """The statements of a level, those in an `if`, a `try` and the like included."""
    for node in body:
        yield node
        if not isinstance(node, ast.ClassDef | _FUNCTIONS):
            for block in ("body", "orelse", "handlers", "finalbody", "cases"):
                yield from _statements(getattr(node, block, ()))


def _classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _statements(tree.body) if isinstance(node, ast.ClassDef)}


def _is_bound_otherwise(tree: ast.Module, name: str) -> bool:
    """Whether something else than a class statement may give a name its meaning."""
    for node in ast.walk(tree):
        if isinstance(node, ast.alias) and (node.asname or node.name.partition(".")[0]) in (name, "*"):
            return True
        if isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load):
            return True
        if isinstance(node, _FUNCTIONS) and node.name in (name, "__getattr__"):
            return True
    return False


def _has(
    known: dict[str, ast.ClassDef], node: ast.ClassDef, method: str, below: tuple[str, ...] = ()
) -> bool | None:
    """Whether a class has a method; None if a base or a decorator from elsewhere may bring it."""
    for each in _statements(node.body):
        targets = {n.id for n in ast.walk(each) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        if getattr(each, "name", None) == method or method in targets:
            return True
    answers: list[bool | None] = [None] if node.decorator_list or node.keywords else []
    for base in node.bases:
        name = base.id if isinstance(base, ast.Name) else ""
        if name in known and name not in below:
            answers.append(_has(known, known[name], method, (*below, node.name, name)))
        elif name != "object":
            answers.append(None)
    return True if True in answers else None if None in answers else False
