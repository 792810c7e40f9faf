"""A job and the values it was given become the words to run, and those with their surroundings a task."""

import os
import posixpath
import re
import zlib
from collections.abc import Mapping as Mapped

from skelebot.errors import UsageError
from skelebot.model import Environment, Flags, Job, Mapping, Mount, Param, Project, Secret, Task, seconds
from skelebot.options import Value, Values
from skelebot.project.read import FILE, read_file
from skelebot.project.sources import argv, job_params

WORKDIR = "/app"


def task(project: Project, job: Job, values: Values, flags: Flags, caller: Mapped[str, str]) -> Task:
    """What running `job` with the parsed `values` means; `caller` is the caller's environment.

    Raises UsageError for a value that an environment reference brings and the choices do not hold,
    and for an envFile that cannot be read.
    """
    env = environment(project, job, caller)
    known = {**caller, **dict(env)}
    return Task(
        name=job.name,
        argv=argv(project, job, words(project, job, values, known)),
        root=project.root,
        dependencies=project.entries("Python"),
        python_version=project.python_version,
        native="always" if flags.native and job.native == "optional" else job.native,
        host=flags.docker_host or job.host or project.host,
        mode=job.mode,
        ports=job.ports,
        mounts=mounts(project, job),
        env=env,
        user=project.user,
        gpu=project.gpu,
        timeout=seconds(job.timeout) if job.timeout else 0,
        shadowed=shadowed(job),
        dependency_places=project.entry_places("Python"),
    )


# --- the words ---


def words(project: Project, job: Job, values: Values, env: Mapped[str, str | None]) -> tuple[str, ...]:
    """What the script gets: the args, then each param under its full name."""
    given = [str(values[arg.key]) for arg in job.args]
    for param in job_params(project, job):
        value = values[param.name] if param.name in values else default(param, env)
        given += param_words(param, value)
    return tuple(given)


def default(param: Param, env: Mapped[str, str | None]) -> Value | None:
    """The value of a param that was not given; None where it is not to be passed."""
    if param.reference:
        value = env.get(param.reference)
        if value is not None and param.choices and value not in param.choices:
            found = "another value" if param.secret else repr(value)
            expected = " or ".join(param.choices)
            raise UsageError(f"{param.flag}: ${param.reference} is {found}, expected {expected}")
        return value
    if param.accepts == "boolean":
        return param.on
    return param.default or None if isinstance(param.default, tuple) else param.default


def param_words(param: Param, value: Value | None) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [param.flag]
    each = [value] if isinstance(value, str) else value
    return [param.flag, *(Secret(v) if param.secret else v for v in each)]


# --- the surroundings ---


def mounts(project: Project, job: Job) -> tuple[Mount, ...]:
    """The job's mappings, each once. Raises UsageError with the place of one below an unknown home."""
    found = []
    for number, text in enumerate(job.mappings):
        try:
            found.append(mount(project.root, text))
        except UsageError as error:
            raise UsageError(f"{job.place}.mappings[{number}]: {error}") from None
    return tuple(dict.fromkeys(found))


def mount(root: str, text: str) -> Mount:
    mapping = Mapping.parse(text)
    local = at_home(mapping.local)
    source = os.path.normpath(os.path.join(root, local))
    return Mount(source, posixpath.normpath(mapping.container), mapping.read_only)


def targets(job: Job) -> tuple[str, ...]:
    """Where the job's mappings lie in the container."""
    return tuple(posixpath.normpath(Mapping.parse(text).container) for text in job.mappings)


def shadowed(job: Job) -> tuple[str, ...]:
    """The project's paths over which the job's mappings lie in the container; "" is all of it."""
    inside = {t[len(WORKDIR) + 1 :] for t in targets(job) if f"{t}/".startswith(f"{WORKDIR}/")}
    return tuple(sorted(inside))


def tag(name: str) -> str:
    """A job's name as the tag of its own image."""
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:100]
    # Two names that look alike as tags are still two images.
    return f"job-{clean}" if clean == name else f"job-{clean}-{zlib.crc32(name.encode()):08x}"


def environment(project: Project, job: Job | None, caller: Mapped[str, str]) -> tuple[tuple[str, str], ...]:
    """The variables of a job: the root's file, the root's own, the job's file, the job's own."""
    layers: list[Environment] = []
    sources = [(project.env_file, project.environment)]
    sources += [(job.env_file, job.environment)] if job else []
    for env_file, own in sources:
        layers += [read_env_file(project.root, env_file) if env_file else (), own]
    merged: dict[str, str] = {}
    for name, value in (pair for layer in layers for pair in layer):
        if value is not None:
            merged[name] = value
        elif name in caller:
            merged[name] = caller[name]
    return tuple(merged.items())


def at_home(path: str) -> str:
    """A path with the caller's home for a leading `~`. Raises UsageError where that is not known."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UsageError(f"{path}: the home folder is not known; set HOME")
    return expanded


def read_env_file(root: str, name: str) -> Environment:
    """The lines of a file in the format of `docker run --env-file`: NAME=VALUE, NAME, # comment.

    https://docs.docker.com/reference/cli/docker/container/run/#env. Raises UsageError.
    """
    try:
        data = read_file(root, at_home(name))
    except UsageError as error:
        raise UsageError(f"envFile: {error}; make it, or mend envFile in {FILE}") from None
    pairs: list[tuple[str, str | None]] = []
    for number, line in enumerate(data.decode("utf-8-sig", "surrogateescape").split("\n"), 1):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        variable, given, value = line.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable, re.ASCII) or "\0" in value:
            raise UsageError(f"{name}:{number}: expected NAME=VALUE, the name of letters, digits and _")
        pairs.append((variable, value if given else None))
    return tuple(pairs)
