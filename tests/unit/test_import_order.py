"""The order in which the files of Skelebot build upon each other; it leaves no room for a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import skelebot

ROOT = Path(skelebot.__file__).parent

# A file imports only from those before its own, anywhere in its text.
ORDER = (
    *("errors", "console", "model", "schema", "options", "shell", "config", "plan"),
    *("dependencies", "dependencies_r", "codeartifact", "ignores", "context", "dockerfile", "runners"),
    *(
        "component",
        "launch",
        "plugins",
        "guard",
        "components",
        "catalog",
        "trial",
        "artifacts",
        "cli",
        "complete",
        "__main__",
    ),
)

FILES = sorted(path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py"))


def imports(parts: tuple[str, ...]) -> Iterator[str]:
    """The full names of what a file imports, those inside of functions included."""
    for node in ast.walk(ast.parse(ROOT.joinpath(*parts).with_suffix(".py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{parts}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Those of Skelebot's own files, as their parts; names inside of a file are left out."""
    for name in imports(parts):
        first, *rest = name.split(".")
        if first == "skelebot" and rest and rest[0] in ORDER:
            inside = (*rest[:2], "__init__") in FILES or tuple(rest[:2]) in FILES
            yield tuple(rest[:2] if inside else rest[:1])


def test_every_file_has_its_place_in_the_order() -> None:
    assert {parts[0] for parts in FILES} == {*ORDER, "__init__"}


def test_a_file_imports_only_from_those_before_it() -> None:
    wrong = []
    for parts in FILES:
        for other in own_imports(parts):
            if ORDER.index(other[0]) >= ORDER.index(parts[0]) and other[0] != parts[0]:
                wrong.append((parts, other))
    assert wrong == []


def test_no_component_imports_another() -> None:
    for parts in FILES:
        if parts[0] == "components":
            of_others = [o for o in own_imports(parts) if o[0] == "components" and o[1:2] != parts[1:2]]
            assert of_others == [], parts


def test_the_files_of_a_folder_import_each_other_without_a_circle() -> None:
    before = {
        name: i
        for i, name in enumerate(
            [
                "folders",
                "engine",
                "lent",
                "build",
                "release",
                "sync",
                "remote",
                "native",
                "docker",
                "__init__",
            ]
        )
    }
    for parts in FILES:
        if parts[0] == "runners":
            for other in own_imports(parts):
                if other[0] == "runners":
                    assert before[other[1]] < before[parts[1]], (parts, other)


def test_only_one_file_runs_programs() -> None:
    wanted = {"subprocess", "pty", "os.system", "os.popen"}
    assert [parts for parts in FILES if wanted & set(imports(parts)) and parts != ("shell",)] == []


def test_the_package_itself_imports_nothing() -> None:
    assert list(imports(("__init__",))) == []
