"""Turn a job and its values into arguments, and these with their surroundings into a task."""

import os
import posixpath
import re
import zlib
from collections.abc import Iterator
from collections.abc import Mapping as Mapped

from skelebot import units
from skelebot.errors import UsageError
from skelebot.keys import seconds
from skelebot.model import (
    ALL_GPUS,
    NATIVE,
    WORKDIR,
    Flags,
    Job,
    Limits,
    Mapping,
    Mount,
    Param,
    Place,
    Project,
    Task,
    place_of,
)
from skelebot.options import Value, Values
from skelebot.project.needs import needed
from skelebot.project.read import DOTENV, FILE
from skelebot.project.sources import argv, class_source, job_params
from skelebot.secret import Secret, Word, read_env_file, reveal_all, typed_secret
from skelebot.value_types import mismatch


def task(project: Project, job: Job, values: Values, flags: Flags, caller: Mapped[str, str]) -> Task:
    """Return the task for `job` with the parsed `values`; `caller` is the caller's environment.

    Raises UsageError for a value that an environment reference brings and that does not fit its param,
    for a file of variables that cannot be read, and for a job that must not run natively and is asked to.
    """
    env = environment(project, job, caller)
    known = {**caller, **reveal_all(env, caller)}
    return Task(
        name=job.name,
        argv=argv(project, job, words(project, job, values, known)),
        root=project.root,
        project=project.name,
        place=place(project, job, flags),
        may_run_natively=job.native != "never",
        dependencies=project.entries("Python") if job.dependencies else (),
        python_version=project.python_version,
        mode=job.mode,
        ports=job.ports,
        mounts=mounts(project, job),
        env=env,
        user=project.user,
        limits=limits(project, job),
        timeout=seconds(job.timeout) if job.timeout else 0,
        shadowed=shadowed(job),
        dependency_places=project.entry_places("Python"),
        cluster=job.cluster,
        stdin=job.stdin,
    )


def place(project: Project, job: Job | None, flags: Flags) -> Place:
    """Where a job runs, or one of Skelebot's tools. Raises UsageError for `-n` where the job forbids it."""
    if job and job.native == "never" and flags.native:
        raise UsageError(f"{job.name} cannot run natively (native: never); leave out -n")
    if flags.native or (job and job.native == "always"):
        return NATIVE
    return Place.at(flags.docker_host or (job and job.host) or project.host)


def limits(project: Project, job: Job | None) -> Limits:
    """Return what a job may use, of each resource as the job says it, or else the root."""
    above, own = project.resources, job.resources if job else project.resources
    gpus = own.gpus or above.gpus or ("all" if project.gpu else "0")
    return Limits(
        units.cpus(own.cpus or above.cpus or ""),
        units.size(own.memory or above.memory or ""),
        units.size(own.shm or above.shm or ""),
        ALL_GPUS if gpus == "all" else int(gpus),
        units.size(own.disk or above.disk or ""),
    )


# --- the words ---


def words(project: Project, job: Job, values: Values, env: Mapped[str, str]) -> tuple[Word, ...]:
    """Return the source's arguments: the args, then each param under its full name."""
    args = [str(values[arg.key]) for arg in job.args]
    groups = words_of_params(project, job, values, env)
    return (*args, *(word for _, words in groups for word in words))


def words_of_params(
    project: Project, job: Job, values: Values, env: Mapped[str, str]
) -> Iterator[tuple[Param, list[Word]]]:
    """Yield each param of a job with its words, in the order in which the source gets them."""
    of_class = class_source(project.root, job.source) is not None
    for param in job_params(project, job):
        if param.name in values:
            yield param, param_words(param, values[param.name], of_class)
        elif (value := default(job.name, param, env)) is not None:
            secret = param.secret and param.reference
            yield (
                param,
                [param.flag, Secret("variable", secret)] if secret else param_words(param, value, of_class),
            )
        else:
            yield param, []


def default(job: str, param: Param, env: Mapped[str, str]) -> Value | None:
    """Return the value of a param of a job that was not given; None if it is not passed."""
    if param.reference:
        value = env.get(param.reference)
        if value is not None and (expected := mismatch(param, value)):
            found = "another value" if param.secret else repr(value)
            raise UsageError(f"{job}: {param.flag}: ${param.reference} is {found}, expected {expected}")
        return value
    if param.accepts == "boolean":
        return param.on
    return param.default or None if isinstance(param.default, tuple) else param.default


def param_words(param: Param, value: Value | None, repeated: bool = False) -> list[Word]:
    """Return the words of an option. repeated: as a class gets a list, with the option before each value."""
    if value is None or value is False:
        return []
    if value is True:
        return [param.flag]
    each = [typed_secret(v) if param.secret else v for v in ([value] if isinstance(value, str) else value)]
    return [word for v in each for word in (param.flag, v)] if repeated else [param.flag, *each]


# --- the surroundings ---


def mounts(project: Project, job: Job) -> tuple[Mount, ...]:
    """Return the job's mappings, its outputs, and what the jobs make that it needs, each once.

    Raises UsageError, with the place, below an unknown home.
    """
    by_target: dict[str, Mount] = {}
    for number, text in enumerate(job.mappings):
        try:
            mapped = mount(project.root, text)
        except UsageError as error:
            raise UsageError(f"{place_of(job, 'mappings')}[{number}]: {error}") from None
        by_target[mapped.target] = mapped
    for output in job.results:
        made = mount_in_place(project.root, output.folder, output=True)
        by_target[made.target] = made
    for need in needed(project, job):
        for output in need.results:
            made = mount_in_place(project.root, output.folder, read_only=True)
            if not any(f"{made.target}/".startswith(f"{target}/") for target in by_target):
                by_target[made.target] = made
    return tuple(by_target.values())


def mount_in_place(root: str, path: str, read_only: bool = False, output: bool = False) -> Mount:
    """Return the mount of a path of the project at its place in the container."""
    return Mount(os.path.join(root, path), posixpath.join(WORKDIR, path), read_only, output)


def mount(root: str, text: str) -> Mount:
    mapping = Mapping.parse(text)
    local = at_home(mapping.local)
    source = os.path.normpath(os.path.join(root, local))
    return Mount(source, posixpath.normpath(mapping.container), mapping.read_only)


def covering(root: str, mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """Return what a path of the container is below: a mount, or the project in the image; or None."""
    known = (*mounts, Mount(root, WORKDIR))
    return max(
        (mount for mount in known if f"{path}/".startswith(f"{mount.target}/")),
        key=lambda each: len(each.target),
        default=None,
    )


def targets(job: Job) -> tuple[str, ...]:
    """Return where the job's mappings are in the container."""
    return tuple(posixpath.normpath(Mapping.parse(text).container) for text in job.mappings)


def shadowed(job: Job) -> tuple[str, ...]:
    """Return the project's paths that the job's mappings cover in the container; "" is all of it."""
    inside = {t[len(WORKDIR) + 1 :] for t in targets(job) if f"{t}/".startswith(f"{WORKDIR}/")}
    return tuple(sorted(inside))


def tag(name: str) -> str:
    """Return the tag of a job's own image."""
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:100]
    # Different names must not give the same tag.
    return f"job-{clean}" if clean == name else f"job-{clean}-{zlib.crc32(name.encode()):08x}"


def environment(project: Project, job: Job | None, caller: Mapped[str, str]) -> tuple[tuple[str, Word], ...]:
    """The variables of a job: .env, the root's file, the root's own, the job's file, the job's own.

    The caller's own values, and those of files, are references: neither is to be stored.
    """
    merged: dict[str, Word] = {**_variables_of_dotenv(project.root, caller)} if project.dotenv else {}
    sources = [(project.env_file, project.environment)]
    sources += [(job.env_file, job.environment)] if job else []
    for env_file, own in sources:
        merged |= _variables_of_file(project.root, env_file, caller) if env_file else {}
        for name, value in own:
            if value is not None:
                merged[name] = value
            elif name in caller:
                merged[name] = Secret("variable", name)
    return tuple(merged.items())


def _variables_of_file(root: str, name: str, caller: Mapped[str, str]) -> dict[str, Secret]:
    path = ""
    try:
        path = os.path.join(root, at_home(name))
        pairs = dict(read_env_file(path, name))
    except UsageError as error:
        hint = "" if os.path.isfile(path) else f"; create it, or correct envFile in {FILE}"
        raise UsageError(f"envFile: {error}{hint}") from None
    bare = {n: Secret("variable", n) for n, value in pairs.items() if value is None and n in caller}
    return {n: Secret("file", n, path) for n, value in pairs.items() if value is not None} | bare


def _variables_of_dotenv(root: str, caller: Mapped[str, str]) -> dict[str, Secret]:
    """The variables in the file .env, if there is one; the caller's own of these names come first."""
    path = os.path.join(root, DOTENV)
    if not os.path.lexists(path):
        return {}
    try:
        pairs = dict(read_env_file(path, DOTENV))
    except UsageError as error:
        raise UsageError(f"{error}; correct it, or remove `dotenv: true` from {FILE}") from None
    own = {n: Secret("variable", n) for n in pairs if n in caller}
    return {n: Secret("file", n, path) for n, value in pairs.items() if value is not None} | own


def at_home(path: str) -> str:
    """Replace a leading `~` with the caller's home. Raises UsageError if that is unknown."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UsageError(f"{path}: the home folder is unknown; set HOME")
    return expanded
