"""Find the project and read its files."""

import codecs
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from skelebot import files
from skelebot.errors import ConfigError, SkelebotError, UsageError, did_you_mean
from skelebot.model import Project
from skelebot.project import checks, nodes, schema
from skelebot.project.nodes import Report

if TYPE_CHECKING:
    from semver import Version

FILE = "skelebot.yaml"
VERSION = "VERSION"
DOTENV = ".env"
NO_PROJECT = f"no {FILE} in this folder or its parents"


def find_root() -> str | None:
    """Return the nearest folder with a skelebot.yaml, from the current one upwards, or None."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current folder no longer exists; change to another") from None
    while True:
        if os.path.lexists(os.path.join(folder, FILE)):
            return folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def project(root: str, env: str | None) -> tuple[Project | None, Report]:
    """The project below `root` in the environment `env`, and what is wrong with its files.

    The project is None where too much is wrong for one. Problems of the components' settings are
    the catalog's to add, so the caller raises what the report holds (`Report.raise_problems`).
    """
    report = Report()
    files = _files(root, env, report)
    if files is None:
        return None, report
    base, over = files
    node = _overlaid(base, over, report)
    version = _version(root, report)
    found: Project | None = schema.record(node, Project, "", report, root=root, env=env, version=version)
    if found is not None:
        report.problems |= dict.fromkeys(checks.problems(found))
        for text in checks.primary_command(found):
            report.warnings[f"{text}; `prime` and `publish` fail until then"] = None
        if over is not None:
            from skelebot.project import overlay  # only with an environment

            overlay.warn_of_lost_variables(base, over, found, report)
    return found, report


def merged(root: str, env: str | None, report: Report) -> yaml.Node | None:
    """Return the project's file with the environment's over it; None if one cannot be read."""
    files = _files(root, env, report)
    return _overlaid(*files, report) if files else None


def _files(root: str, env: str | None, report: Report) -> tuple[yaml.Node, yaml.Node | None] | None:
    """Parse the project's file and the environment's, if there is one; None if either is wrong."""
    base = nodes.parse(FILE, read_file(root, FILE), report)
    if env is None:
        return (base, None) if base else None
    name = environment_file(root, env)
    over = nodes.parse(name, read_file(root, name), report)
    return (base, over) if base and over else None


def _overlaid(base: yaml.Node, over: yaml.Node | None, report: Report) -> yaml.Node:
    if over is None:
        return base
    from skelebot.project import overlay  # only with an environment

    return overlay.overlaid(base, over, report)


def environments(root: str) -> list[str]:
    """The names of the environments that have a file, sorted."""
    names = (re.fullmatch(r"skelebot-(.+)\.yaml", f) for f in os.listdir(root))
    return sorted(match[1] for match in names if match)


def env_files(root: str) -> set[str]:
    """Every file of variables that any environment may use: none of them belongs in an image.

    Raises ConfigError for a file that is not YAML.
    """
    names = (FILE, *(f"skelebot-{env}.yaml" for env in environments(root)))
    return {path for name in names for path in _env_files_in(name, read_file(root, name))}


@cache  # as all jobs of a pipeline ask for them
def _env_files_in(name: str, data: bytes) -> frozenset[str]:
    found: set[str] = set()
    report = Report()
    node = nodes.parse(name, data, report)
    if node is None and re.search(rb"(?m)^\s*[^#\s]", data.removeprefix(codecs.BOM_UTF8)):
        why = "fix it, because its envFile could otherwise get into an image"
        raise ConfigError([f"{problem}; {why}" for problem in report.problems])
    for key, value in _scalars(node, set()) if node else ():
        found |= {value} if key == "envFile" else set()
        found |= {DOTENV} if key == "dotenv" and value.lower() in ("true", "yes", "on") else set()
    return frozenset(found)


def _scalars(node: yaml.Node, seen: set[int]) -> Iterator[tuple[Any, str]]:
    """Yield each text below a node with its key, those that aliases repeat once."""
    if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    for child in node.value:
        name, below = child if isinstance(child, tuple) else (None, child)
        if name is not None and isinstance(below, yaml.ScalarNode):
            yield name.value, below.value
        yield from _scalars(below, seen)


def read_file(root: str, name: str) -> bytes:
    """Read a file of the project. Raises UsageError."""
    try:
        with files.open_regular(os.path.join(root, name)) as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {files.reason(error)}") from None
    except ValueError:
        raise UsageError(f"{name!r} is not the name of a file") from None


def environment_file(root: str, env: str) -> str:
    """Return the name of an environment's file. Raises UsageError if it does not exist."""
    known = environments(root)
    if env not in known:
        hint = did_you_mean(env, known) or "; there is no skelebot-*.yaml in the project"
        raise UsageError(f"unknown environment {env!r}{hint}")
    return f"skelebot-{env}.yaml"


def _version(root: str, report: Report) -> str | None:
    """Read VERSION; None if it does not exist."""
    if not os.path.exists(os.path.join(root, VERSION)):
        return None
    try:
        version = read_file(root, VERSION).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        version = "\0"
    if not version.isprintable():
        report.problems[f"{VERSION}:1:1: expected one line with the version, such as 1.4.0"] = None
        return None
    return version or None


def parsed_version(text: str | None) -> "Version":
    """Parse a project's version (https://semver.org). Raises SkelebotError if it is missing or invalid."""
    from semver import Version  # only where versions are compared

    if text is None:
        raise SkelebotError(f"the project has no version; write one such as 0.1.0 to {VERSION}")
    try:
        return Version.parse(text)
    except ValueError:
        raise SkelebotError(f"{VERSION} holds {text!r}, not a version such as 1.4.0") from None
