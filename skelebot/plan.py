"""A job and the values it was given become the words to run, and those with their surroundings a task."""

import os
import posixpath
import re
from collections.abc import Mapping as Mapped

from skelebot.config import job_params, read_file
from skelebot.errors import UsageError
from skelebot.model import (
    Environment,
    Flags,
    Job,
    Mapping,
    Mount,
    Param,
    Project,
    Secret,
    Task,
    seconds,
)
from skelebot.options import Value, Values
from skelebot.schema import did_you_mean

WORKDIR = "/app"

_INTERPRETERS = {".py": ("python", "-u"), ".r": ("Rscript",), ".sh": ("bash",)}


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
        dependencies=project.dependencies if "Python" in project.language else (),
        python_version=project.python_version,
        native=job.native,
        host=flags.docker_host or job.host or project.host,
        mode=job.mode,
        ports=job.ports,
        mounts=tuple(dict.fromkeys(mount(project.root, text) for text in job.mappings)),
        env=env,
        user=project.user,
        gpu=project.gpu,
        timeout=seconds(job.timeout) if job.timeout else 0,
        hidden=hidden(project, job),
    )


# --- the source ---


def script(root: str, source: str) -> str | None:
    """The path of the script that `source` names, whether or not it is there; None for a command line."""
    suffix = posixpath.splitext(source)[1].lower()
    path = os.path.join(root, source)
    if "\n" in source or "\0" in source:
        return None
    if os.path.isfile(path):
        return source if suffix in _INTERPRETERS or os.access(path, os.X_OK) else None
    # A last word of a command line may end so too: only a single word can be nothing else.
    return source if suffix in _INTERPRETERS and not re.search(r"\s", source) else None


def argv(project: Project, job: Job, job_words: tuple[str, ...]) -> tuple[str, ...]:
    """The program to run: an interpreter and its script, or bash and the author's own text.

    Raises UsageError where the words have no place in the text.
    """
    path = script(project.root, job.source)
    if path is not None:
        interpreter = _INTERPRETERS.get(posixpath.splitext(path)[1].lower())
        return (*interpreter, path, *job_words) if interpreter else (f"./{path}", *job_words)
    text = job.source.rstrip()
    if job.args or job.params:
        uses_words, ends_in_comment = _scan(text)
        if not uses_words:
            if ends_in_comment:
                raise UsageError(
                    f"{job.place}.source: ends in a comment, which would swallow the job's values; "
                    'write "$@" where they belong'
                )
            text += ' "$@"'
    return ("bash", "-c", text, job.name, *job_words)


_TOKEN = re.compile(
    r"""
      \\.                                   # an escaped character
    | '[^']*'                               # text that the shell takes as it is
    | (?P<words> \$(?:[@*#1-9]|\{[@*\#1-9]) )
    | (?P<quote> " )
    | (?P<comment> (?:^|(?<=\s))\# [^\n]* (?P<end>\Z)? )
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)


def _scan(text: str) -> tuple[bool, bool]:
    """Whether a command line uses the job's words itself, and whether it ends in a comment."""
    at, quoted = 0, False
    while match := _TOKEN.search(text, at):
        at = match.end()
        if match["words"]:
            return True, False
        if match["quote"]:
            quoted = not quoted
        elif quoted and match[0][0] in "'#":
            at = match.start() + 1  # nothing special between double quotes
        elif match["end"] is not None:
            return False, True
    return False, False


# --- the words ---


def words(project: Project, job: Job, values: Values, env: Mapped[str, str | None]) -> tuple[str, ...]:
    """What the script gets: the args, then each param under its full name."""
    given = [str(values[arg.name]) for arg in job.args]
    for param in job_params(project, job, script(project.root, job.source) is not None):
        value = values.get(param.name, default(param, env))
        given += param_words(param, value)
    return tuple(given)


def default(param: Param, env: Mapped[str, str | None]) -> Value | None:
    """The value of a param that was not given; None where it is not to be passed."""
    if param.reference:
        value = env.get(param.reference)
        if value is not None and param.choices and value not in param.choices:
            raise UsageError(
                f"{param.flag}: ${param.reference} is {value!r}, expected "
                f"{' or '.join(param.choices)}{did_you_mean(value, param.choices)}"
            )
        return value
    if param.accepts == "boolean":
        return param.default == "true"
    return param.default


def param_words(param: Param, value: Value | None) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [param.flag]
    each = [value] if isinstance(value, str) else value
    return [param.flag, *(Secret(v) if param.secret else v for v in each)]


# --- the surroundings ---


def mount(root: str, text: str) -> Mount:
    mapping = Mapping.parse(text)
    local = os.path.expanduser(mapping.local)
    source = os.path.normpath(os.path.join(root, local))
    return Mount(source, posixpath.normpath(mapping.container), mapping.read_only)


def hidden(project: Project, job: Job) -> frozenset[str]:
    """The project's paths over which the job's mappings lie in the container."""
    targets = (mount(project.root, text).target for text in job.mappings)
    return frozenset(t.removeprefix(f"{WORKDIR}/") for t in targets if t.startswith(f"{WORKDIR}/"))


def tag(name: str) -> str:
    """A job's name as the tag of its own image."""
    return "job-" + (re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:100] or "x")


def environment(project: Project, job: Job, caller: Mapped[str, str]) -> tuple[tuple[str, str], ...]:
    """The variables of a job: the root's file, the root's own, the job's file, the job's own."""
    layers: list[Environment] = []
    for env_file, own in (
        (project.env_file, project.environment),
        (job.env_file, job.environment),
    ):
        layers += [read_env_file(project.root, env_file) if env_file else (), own]
    merged: dict[str, str] = {}
    for name, value in (pair for layer in layers for pair in layer):
        if value is not None:
            merged[name] = value
        elif name in caller:
            merged[name] = caller[name]
    return tuple(merged.items())


def env_file_path(root: str, name: str) -> str:
    return os.path.join(root, os.path.expanduser(name))


def read_env_file(root: str, name: str) -> Environment:
    """The lines of a file in the format of `docker run --env-file`: NAME=VALUE, NAME, # comment.

    https://docs.docker.com/reference/cli/docker/container/run/#env. Raises UsageError.
    """
    data = read_file(root, os.path.expanduser(name))
    pairs: list[tuple[str, str | None]] = []
    for number, line in enumerate(data.decode("utf-8-sig", "surrogateescape").splitlines(), 1):
        line = line.lstrip()
        if not line or line.startswith("#"):
            continue
        variable, given, value = line.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", variable) or "\0" in value:
            raise UsageError(f"{name}:{number}: expected NAME=VALUE, with a name that has no blanks")
        pairs.append((variable, value if given else None))
    return tuple(pairs)
