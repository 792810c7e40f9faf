"""The dependencies that a pyproject.toml names.

https://packaging.python.org/en/latest/specifications/pyproject-toml/#declaring-project-metadata-the-project-table
"""

import os
import re
import sys
from typing import Any

from skelebot.errors import UsageError, did_you_mean
from skelebot.files import open_regular, reason

_FORMS = {
    **dict.fromkeys(("name", "version", "description", "requires-python"), "text"),
    **dict.fromkeys(("dependencies", "keywords", "classifiers", "license-files", "dynamic"), "list of text"),
    **dict.fromkeys(("urls", "scripts", "gui-scripts"), "table of text"),
    **dict.fromkeys(("authors", "maintainers"), "list of table of text"),
    **dict.fromkeys(("readme", "license"), "text or table of text"),
    "entry-points": "table of table of text",
    "optional-dependencies": "table of list of text",
}
_TYPES = {"text": str, "list": list, "table": dict}
_NAME = re.compile(r"[A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9]", re.IGNORECASE | re.ASCII)


def dependencies(root: str, path: str, extras: set[str] | None) -> list[tuple[str, str]]:
    """Return the requirements with the keys they stand under: all extras, or those that are chosen.

    Raises UsageError with the file and the key that is wrong.
    """
    content = load(root, path)
    try:
        return _dependencies(content, extras)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def load(root: str, path: str) -> dict[str, Any]:
    """Read the file. Raises UsageError."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        with open_regular(os.path.join(root, path)) as file:
            loaded: dict[str, Any] = tomllib.loads(file.read().decode())
            return loaded
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a pyproject.toml: {error}") from None


def _dependencies(content: dict[str, Any], extras: set[str] | None) -> list[tuple[str, str]]:
    project = content.get("project", {})
    _check(project)
    _check_dynamic(content, with_extras=extras is None or bool(extras))
    groups = {normalized(n): (n, texts) for n, texts in project.get("optional-dependencies", {}).items()}
    wanted = list(groups) if extras is None else [_extra(name, groups) for name in sorted(extras)]
    itself = normalized(project.get("name", ""))
    found = [("project.dependencies", text) for text in project.get("dependencies", [])]
    for name in wanted:  # which grows: a group that names the project itself stands for others
        key, texts = groups[name]
        found += [(f"project.optional-dependencies.{key}", text) for text in texts]
        others = (normalized(e) for text in texts if _package(text) == itself for e in _extras(text))
        wanted += [other for other in dict.fromkeys(others) if other in groups and other not in wanted]
    found = [(key, text) for key, text in found if _package(text) != itself]
    if not found:
        raise UsageError(f"there are no dependencies under [project]{_elsewhere(content)}")
    _check_sources(content, {_package(text) for _, text in found})
    return found


def _extra(name: str, groups: dict[str, tuple[str, list[str]]]) -> str:
    if normalized(name) not in groups:
        hint = did_you_mean(name, groups)
        raise UsageError(f"there is no {name!r} under project.optional-dependencies{hint}")
    return normalized(name)


def _package(requirement: str) -> str:
    """Return the name of the package that a requirement is for."""
    return normalized(re.split(r"[^\w.-]", requirement.strip())[0])


def _extras(requirement: str) -> list[str]:
    match = re.match(r"[\w.-]+\s*\[([^]]*)\]", requirement.strip())
    return re.findall(r"[\w.-]+", match[1]) if match else []


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- what is wrong ---


def _check(project: object) -> None:
    """Raise UsageError for what the standard does not allow."""
    if not isinstance(project, dict):
        raise UsageError(f"project: expected a table, found {_kind(project)}")
    for key, form in _FORMS.items():
        if key in project:
            _check_form(project[key], form, f"project.{key}")
    dynamic = project.get("dynamic", [])
    for key in project:
        if key in dynamic:
            raise UsageError(f"project.{key}: the key is in project.dynamic too; remove it from one of them")
    if project and not _NAME.fullmatch(name := project.get("name", "")):
        raise UsageError(f"project.name: expected a name, found {repr(name) if name else 'none'}")
    _check_extras(project.get("optional-dependencies", {}))
    if project and "version" not in {*project, *dynamic}:
        raise UsageError(
            "project.version: expected a version, or 'version' in project.dynamic; found neither"
        )


def _check_extras(extras: dict[str, Any]) -> None:
    """Each extra has a name, and no two the same; `-`, `_` and `.` are one."""
    seen: dict[str, str] = {}
    for name in extras:
        if not _NAME.fullmatch(name):
            raise UsageError(f"project.optional-dependencies: expected a name, found {name!r}")
        if other := seen.get(normalized(name)):
            raise UsageError(f"project.optional-dependencies: {other} and {name} are one name; rename one")
        seen[normalized(name)] = name


def _check_form(value: object, form: str, key: str) -> None:
    for each in form.split(" or "):
        kind, _, of = each.partition(" of ")
        if not isinstance(value, _TYPES[kind]):
            continue
        if isinstance(value, dict):
            for name, part in value.items():
                _check_form(part, of, f"{key}.{name}")
        elif isinstance(value, list):
            for number, part in enumerate(value):
                _check_form(part, of, f"{key}[{number}]")
        return
    raise UsageError(f"{key}: expected a {form}, found {_kind(value)}")


def _kind(value: object) -> str:
    return next((f"a {kind}" for kind in ("list", "table") if isinstance(value, _TYPES[kind])), repr(value))


def _table(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return a table of another tool, of whose form nothing is known; an empty one where there is none."""
    found: Any = content
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _check_dynamic(content: dict[str, Any], with_extras: bool) -> None:
    """Raise UsageError where only the build backend knows the dependencies."""
    dynamic = _table(content, "project").get("dynamic", [])
    for key in ("dependencies", *(["optional-dependencies"] if with_extras else [])):
        if key not in dynamic:
            continue
        file = _table(content, "tool", "setuptools", "dynamic", key).get("file", [])
        files = [file] if isinstance(file, str) else file
        instead = " and ".join(f"req:{name}" for name in files) or "req: with a requirements file"
        raise UsageError(
            f"project.dynamic: only the build backend knows the {key}; use {instead}, or list them under "
            f"project.{key}"
        )


def _elsewhere(content: dict[str, Any]) -> str:
    """Return where the dependencies are instead, and how to get a file that can be read."""
    if _table(content, "tool", "poetry", "dependencies"):
        return ", and tool.poetry is not read; run `poetry export -o requirements.txt` and use req:"
    if _table(content, "dependency-groups"):
        return ", and [dependency-groups] is not read; use req: with a requirements file"
    if "dev-dependencies" in _table(content, "tool", "uv"):
        return ", and tool.uv is not read; run `uv export -o requirements.txt` and use req:"
    return ""


def _check_sources(content: dict[str, Any], names: set[str]) -> None:
    """Raise UsageError for a package that a tool's own table takes from another place."""
    poetry = _table(content, "tool", "poetry", "dependencies")
    elsewhere = {"git", "path", "url", "file", "source"}
    from_poetry = [n for n, value in poetry.items() if isinstance(value, dict) and elsewhere & value.keys()]
    for key, command, found in (
        ("uv.sources", "uv export --no-emit-project", _table(content, "tool", "uv", "sources")),
        ("poetry.dependencies", "poetry export", from_poetry),
    ):
        for name in found:
            if normalized(name) in names:
                raise UsageError(
                    f"tool.{key}.{name}: only {command.split()[0]} reads where this package comes from; run "
                    f"`{command} -o requirements.txt` and use req:requirements.txt"
                )
