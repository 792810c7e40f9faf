"""Find the project, read its files, and check what holds between the parts of a configuration."""

import codecs
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

import yaml

from skelebot.errors import ConfigError, SkelebotError, UsageError, did_you_mean
from skelebot.model import Job, Packages, Param, Project
from skelebot.project import schema
from skelebot.project.sources import script

if TYPE_CHECKING:
    from semver import Version

FILE = "skelebot.yaml"
VERSION = "VERSION"


def find_root() -> str | None:
    """The nearest folder with a skelebot.yaml, from the current one upwards; None without any."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current folder does not exist any more; change into another") from None
    while True:
        if os.path.lexists(os.path.join(folder, FILE)):
            return folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def read(root: str, env: str | None) -> tuple[Project | None, schema.Report]:
    """The project below `root` in the environment `env`, and what is wrong with its files.

    The project is None where too much is wrong for one. Problems of the components' settings are
    the catalog's to add, so the caller raises what the report holds (see `raise_problems`).
    """
    report = schema.Report()
    node = merged(root, env, report)
    if node is None:
        return None, report
    version = _version(root, report)
    project = schema.record(node, Project, "", report, root=root, env=env, version=version)
    if project is not None:
        report.problems.extend(p for p in _checks(project) if p not in report.problems)
    return project, report


def merged(root: str, env: str | None, report: schema.Report) -> yaml.Node | None:
    """What the project's file says, and the environment's over it; None where one cannot be read."""
    base = _compose(root, FILE, report)
    over = None if env is None else _compose(root, environment_file(root, env), report)
    if base is None or (env is not None and over is None):
        return None
    return _overlay(base, over, report) if over else base


def raise_problems(report: schema.Report) -> None:
    """Raises ConfigError with every problem of the report."""
    if report.problems:
        raise ConfigError(in_order(report))


def in_order(report: schema.Report) -> list[str]:
    """The problems of the report, in the order of the files' lines."""
    return sorted(report.problems, key=_by_line)


def _by_line(problem: str) -> tuple[str, int, int]:
    match = re.match(r"([^:]*):(\d+):(\d+):", problem)
    return (match[1], int(match[2]), int(match[3])) if match else ("", 0, 0)


def environments(root: str) -> list[str]:
    """The names of the environments that have a file, sorted."""
    names = (re.fullmatch(r"skelebot-(.+)\.yaml", f) for f in os.listdir(root))
    return sorted(match[1] for match in names if match)


def env_files(root: str) -> set[str]:
    """Every file that an `envFile` of any environment names: none of them belongs into an image.

    Raises ConfigError for a file that cannot tell, as it is no YAML.
    """
    found: set[str] = set()
    for name in (FILE, *(f"skelebot-{env}.yaml" for env in environments(root))):
        data, report = read_file(root, name), schema.Report()
        node = schema.parse(name, data, report)
        if node is None and re.search(rb"(?m)^\s*[^#\s]", data.removeprefix(codecs.BOM_UTF8)):
            reason = "until it is mended, its envFile could get into an image"
            raise ConfigError([f"{problem}; {reason}" for problem in report.problems])
        found |= set(_values_of("envFile", node)) if node else set()
    return found


def _values_of(key: str, node: yaml.Node) -> Iterator[str]:
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        name, below = child if isinstance(child, tuple) else (None, child)
        if name is not None and name.value == key and isinstance(below, yaml.ScalarNode):
            yield below.value
        yield from _values_of(key, below)


def read_file(root: str, name: str) -> bytes:
    """The content of a file of the project. Raises UsageError."""
    try:
        with open(os.path.join(root, name), "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except ValueError:
        raise UsageError(f"{name!r} is not the name of a file") from None


def environment_file(root: str, env: str) -> str:
    """The name of an environment's file. Raises UsageError where there is none."""
    known = environments(root)
    if env not in known:
        hint = did_you_mean(env, known) or "; there is no skelebot-*.yaml here"
        raise UsageError(f"unknown environment {env!r}{hint}")
    return f"skelebot-{env}.yaml"


def _compose(root: str, name: str, report: schema.Report) -> yaml.Node | None:
    return schema.parse(name, read_file(root, name), report)


def _overlay(base: yaml.Node, over: yaml.Node, report: schema.Report) -> yaml.Node:
    """The base's mapping with each top-level key of the environment's replacing the whole of its own."""
    now = {str(f.metadata["old"]): schema.yaml_name(f) for f in fields(Project) if f.metadata.get("old")}
    kept: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for node in (base, over):
        kept |= {str(now.get(n.value, n.value)): (n, v) for n, v in schema.items(node, "", report)}
    return yaml.MappingNode(base.tag, list(kept.values()), base.start_mark, base.end_mark)


def _version(root: str, report: schema.Report) -> str | None:
    """The text of VERSION, or None without such a file."""
    if not os.path.exists(os.path.join(root, VERSION)):
        return None
    try:
        version = read_file(root, VERSION).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        version = "\0"
    if not version.isprintable():
        report.problems.append(f"{VERSION}:1:1: expected one line with the version, as in 1.4.0")
        return None
    return version or None


def parsed_version(text: str | None) -> "Version":
    """A project's version as one of https://semver.org. Raises SkelebotError where it is missing or none."""
    from semver import Version  # only where versions are compared

    if text is None:
        raise SkelebotError(f"the project has no version; write one to {VERSION}, as in 0.1.0")
    try:
        return Version.parse(text)
    except ValueError:
        raise SkelebotError(f"{VERSION} holds {text!r}, not a version such as 1.4.0") from None


# --- what holds between the parts ---

_BOOLEANS = ("true", "yes", "on", "false", "no", "off")


def job_params(project: Project, job: Job, is_script: bool) -> tuple[Param, ...]:
    """The params of a job: its own, and for a script those of the root that it does not hide."""
    own = {param.name for param in job.params}
    return job.params + tuple(p for p in project.params if is_script and p.name not in own)


def _checks(project: Project) -> Iterator[str]:
    seen: dict[str, Job] = {}
    for job in project.jobs:
        if job.name and job.name in seen:
            yield f"{job.place}.name: there is a job named {job.name!r} already"
        seen[job.name] = job
        yield from _check_args(job)
        is_script = bool(project.params) and script(project.root, job.source) is not None
        yield from _check_flags(job_params(project, job, is_script), job.params)
        for param in job.params:
            yield from _check_param(param)
    yield from _check_languages(project)
    yield from _check_flags(project.params, project.params)
    for param in project.params:
        yield from _check_param(param)
    if project.primary_job and project.primary_job not in seen:
        hint = did_you_mean(project.primary_job, seen)
        yield f"{project.places['primaryJob']}: there is no job named {project.primary_job!r}{hint}"
    elif project.primary_job and project.primary_exe == "CMD":
        yield from _check_command(project, seen[project.primary_job])
    if project.timezone and not _is_timezone(project.timezone):
        yield f"{project.places['timezone']}: {_timezones_like(project.timezone)}"


def _check_languages(project: Project) -> Iterator[str]:
    """Each list of dependencies belongs to a language of the project."""
    listed = project.dependencies
    if not isinstance(listed, Packages):
        if listed and project.language == "R+Python":
            where = project.places["dependencies"]
            yield f"{where}: with language R+Python, expected a list below `R:` and one below `Python:`"
        return
    for name, entries in (("R", listed.r), ("Python", listed.python)):
        if entries and name not in project.language.split("+"):
            yield (
                f"{project.places[f'dependencies.{name}']}: the project's language is {project.language}; "
                f"for packages of {name} too, write `language: R+Python`"
            )


def _check_args(job: Job) -> Iterator[str]:
    names = [arg.name for arg in job.args]
    for i, arg in enumerate(job.args):
        if arg.name in {*names[:i], *(param.name for param in job.params)}:
            yield f"{arg.place}.name: the job has a value named {arg.name!r} already"


def _check_flags(params: tuple[Param, ...], own: tuple[Param, ...]) -> Iterator[str]:
    """Every flag has one meaning; a clash with a root's param is reported at the job's own."""
    taken = {"-h": "help", "--help": "help"}
    for param in filter(lambda p: p.name, params):
        claims = {*param.flags, *([param.off] if param.off else [])}
        for flag in sorted(claims & taken.keys()):
            at = param if param in own else next((p for p in own if p.name == taken[flag]), param)
            other = taken[flag] if at is param else param.name
            yield f"{at.place}: {flag} is claimed by {other!r} already; choose another name or alt"
        taken |= dict.fromkeys(claims, param.name)


def _check_param(param: Param) -> Iterator[str]:
    at, default = f"{param.place}.default", param.default
    if param.accepts == "boolean":
        if isinstance(default, tuple) or (default or "no").lower() not in _BOOLEANS:
            yield f"{at}: expected true or false for a boolean, found {default!r}"
        if param.choices:
            yield f"{param.place}.choices: a boolean takes no value to choose"
        return
    if isinstance(default, tuple) and param.accepts != "list":
        yield f"{at}: a list of values needs `accepts: list`"
    values = default if isinstance(default, tuple) else (default,)
    for value in values:
        chosen = value is None or not param.choices or value in param.choices or param.reference
        if not chosen:
            found = "the default" if param.secret else repr(value)
            yield f"{at}: {found} is not among the choices: {', '.join(param.choices)}"


def _check_command(project: Project, job: Job) -> Iterator[str]:
    """An image's CMD runs its job with the defaults alone, and shows them to everyone."""
    if job.args:
        yield (
            f"{job.place}.args: the primary job cannot take arguments as CMD; give it params with "
            "defaults, or set primaryExe: ENTRYPOINT"
        )
    for param in job_params(project, job, True):
        if param.secret and param.default is not None and not param.reference:
            yield (f"{param.place}.default: a secret of the primary job would stand in the image; use $NAME")


def _timezones_like(name: str) -> str:
    import zoneinfo

    hint = did_you_mean(name, zoneinfo.available_timezones())
    return f"expected a name of the time zone database, as in Europe/Berlin; found {name!r}{hint}"


def _is_timezone(name: str) -> bool:
    import zoneinfo  # only where a time zone is configured

    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        # Without any database on this machine the name can only be judged by its form.
        known = any(os.path.isdir(folder) for folder in zoneinfo.TZPATH)
        return not known and re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", name) is not None
    return True
