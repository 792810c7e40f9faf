"""The order in which the files of Skelebot build upon each other; it leaves no room for a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import skelebot

ROOT = Path(skelebot.__file__).parent

# A file imports only from those before its own, anywhere in its text; a room's files from those before the
# room, and from each other.
ORDER = (
    *(
        "errors",
        "wake",
        "console",
        "files",
        "secret",
        "units",
        "cron",
        "keys",
        "model",
        "json_form",
        "process",
        "git",
        "foreground",
    ),
    *("value_types", "options"),
    *("project", "image", "runners", "pipeline", "runs", "page"),
    *("component", "launch", "plugins", "components", "catalog"),
    *("plugins.worker", "artifacts", "metrics", "help", "loader", "chain", "cli", "complete", "__main__"),
)
# The order within a room.
ROOMS = {
    "project": (
        "__init__",
        "run_class",
        "sources",
        "classes",
        "nodes",
        "schema",
        "overlay",
        "json_schema",
        "needs",
        "sweep",
        "checks",
        "read",
        "plan",
        "state",
        "versions",
    ),
    "image": (
        *("__init__", "requirements", "pyproject", "dependencies", "dependencies_r", "codeartifact"),
        *("ignores", "context", "fingerprint", "sizes", "tar", "instructions", "installer", "dockerfile"),
        "written",
    ),
    "runners.docker": (
        *(
            *("client", "labels", "container", "inherited", "build_source", "builder"),
            *("transfer", "cleanup", "images", "release", "push", "login", "sync", "exchange", "volumes"),
            *("metrics", "runs", "attended", "start", "__init__"),
        ),
    ),
    "runners.native": ("environment", "memory", "held", "records", "__init__"),
    "runners.kubernetes": (
        *(
            "client",
            "manifest",
            "pod",
            "logs",
            "input",
            "files",
            "image",
            "turn",
            "run",
            "schedule",
            "__init__",
        ),
    ),
    "runners": (
        *("folders", "attempts", "runner", "gpus", "limits"),
        *("docker", "native", "kubernetes", "__init__"),
    ),
    "pipeline": ("__init__", "contents", "key", "record", "reasons"),
    "runs": (
        *("record", "metrics", "trial", "store", "snapshot", "difference", "provenance", "outside"),
        *("packages", "outputs", "environments"),
        *("workspace", "machine", "cache", "sampler", "prune", "search_process", "search"),
        *("measure", "mirror", "notify", "supervise"),
        *("places", "worker", "estimate", "repeat", "branch", "collect", "bundle", "__init__"),
    ),
    "page": (
        *("__init__", "text", "rows", "facts", "figures", "outputs", "guard", "pages"),
        *("run_page", "queue_page", "runs_page", "compare_page", "sweep_page", "app", "serve"),
    ),
    "plugins": ("__init__", "find", "idle", "limit", "load", "typecheck", "guard", "probe", "worker"),
}

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
        if first != "skelebot" or not rest:
            continue
        for length in range(len(rest), 0, -1):
            found = tuple(rest[:length])
            if found in FILES or (*found, "__init__") in FILES:
                yield found
                break


def place(parts: tuple[str, ...]) -> int:
    """Where a file stands in the order: by its own entry, or by its room's."""
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(ORDER.index(name) for name in names if name in ORDER)


def test_every_file_has_its_place_in_the_order() -> None:
    assert {parts[0] for parts in FILES} == {*(name.split(".")[0] for name in ORDER), "__init__"}


def test_a_file_imports_only_from_those_before_it() -> None:
    wrong = [
        (parts, other)
        for parts in FILES
        if parts != ("__init__",)
        for other in own_imports(parts)
        if place(other) > place(parts) or (place(other) == place(parts) and other[0] != parts[0])
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_the_files_of_a_room_import_each_other_without_a_circle(room: str) -> None:
    names, above = ROOMS[room], tuple(room.split("."))
    there = {parts[len(above)] for parts in FILES if parts[: len(above)] == above}
    assert there == set(names)
    for parts in FILES:
        if parts[: len(above)] == above:
            own = names.index(parts[len(above)])
            inside = [o for o in own_imports(parts) if o[: len(above)] == above and len(o) > len(above)]
            assert [o for o in inside if names.index(o[len(above)]) > own] == [], parts


def test_no_component_imports_another() -> None:
    for parts in FILES:
        if parts[0] == "components":
            of_others = [o for o in own_imports(parts) if o[0] == "components" and o[1:2] != parts[1:2]]
            assert of_others == [], parts


def test_the_commands_for_runs_know_no_place_of_their_own() -> None:
    """A new kind of place joins without a change there: they ask what every runner answers."""
    for parts in FILES:
        if parts[:2] == ("components", "runs"):
            kinds = {("runners", kind) for kind in ("docker", "native", "kubernetes")}
            assert [o for o in own_imports(parts) if o[:2] in kinds] == []


def test_only_one_file_runs_programs() -> None:
    wanted = {"subprocess", "pty", "os.system", "os.popen"}
    assert [parts for parts in FILES if wanted & set(imports(parts)) and parts != ("process",)] == []


def test_the_package_itself_imports_nothing() -> None:
    assert list(imports(("__init__",))) == []
