"""What a Python file says of its classes, without an import."""

import ast
import os
from collections.abc import Iterator, Sequence

from skelebot.errors import did_you_mean
from skelebot.files import open_regular
from skelebot.project.sources import ClassSource, import_folders


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
    node, shown = found[source.name], f"the class {source.name} in {source.file}"
    if _has(found, node, method) is False:
        return f"{shown} has no method {method}; add one"
    if _has(found, node, "__init__") is False and _has(found, node, "__new__") is False:
        return f"{shown} takes no values; add `def __init__(self, values)`"
    return None


def has_validate(root: str, source: ClassSource) -> bool:
    """Whether a class, or one in the project's files that it derives from, has a method `validate`."""
    return _validates(root, source.file, source.name, ())


def _validates(root: str, file: str, name: str, below: tuple[tuple[str, str], ...]) -> bool:
    if (file, name) in below or not (tree := _tree(os.path.join(root, file))):
        return False
    below = (*below, (file, name))
    if node := _classes(tree).get(name):
        return _defines(node, "validate") or any(
            _validates(root, file, ast.unparse(base).partition("[")[0], below) for base in node.bases
        )
    return any(_validates(root, *other, below) for other in _imported(root, file, tree, name))


def _imported(root: str, file: str, tree: ast.Module, name: str) -> Iterator[tuple[str, str]]:
    """Yield where in the project a name of a file may come from: a file, and the name in it."""
    for node in _statements(tree.body):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        module, level = (node.module, node.level) if isinstance(node, ast.ImportFrom) else (None, 0)
        for alias in node.names:
            known = alias.asname or alias.name
            if known == "*" or f"{name}.".startswith(f"{known}."):
                original = name if known == "*" else alias.name + name[len(known) :]
                dotted, _, there = (f"{module}.{original}" if module else original).rpartition(".")
                yield from ((path, there) for path in _module_files(root, file, dotted, level))


def _module_files(root: str, file: str, dotted: str, level: int) -> Iterator[str]:
    """Yield the files of the project that a module may be; level: the dots before it."""
    folder = os.path.dirname(file)
    folders = [os.path.join(folder, *[".."] * (level - 1))] if level else [folder, *import_folders(root)]
    for above in folders:
        path = os.path.normpath(os.path.join(above, *dotted.split(".")))
        yield from (p for p in (f"{path}.py", f"{path}/__init__.py") if os.path.isfile(os.path.join(root, p)))


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


def _defines(node: ast.ClassDef, method: str) -> bool:
    for each in _statements(node.body):
        targets = {n.id for n in ast.walk(each) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        if getattr(each, "name", None) == method or method in targets:
            return True
    return False


def _has(
    known: dict[str, ast.ClassDef], node: ast.ClassDef, method: str, below: tuple[str, ...] = ()
) -> bool | None:
    """Whether a class has a method; None if a base or a decorator from elsewhere may bring it."""
    if _defines(node, method):
        return True
    answers: list[bool | None] = [None] if node.decorator_list or node.keywords else []
    for base in node.bases:
        name = base.id if isinstance(base, ast.Name) else ""
        if name in known and name not in below:
            answers.append(_has(known, known[name], method, (*below, node.name, name)))
        elif name != "object":
            answers.append(None)
    return True if True in answers else None if None in answers else False
