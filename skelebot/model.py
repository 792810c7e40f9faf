"""The values that pass through Skelebot. Frozen; nothing here reads a file or runs a program.

The dataclasses with `key(...)` fields are also the schema of skelebot.yaml (see schema.py): a field's
annotation is the type the YAML must have, and its name in the file is the camelCase of its own.
Small values that need no more are NamedTuples: every start makes the classes, theirs in a sixth of the time.
The others have no `repr`, which nothing needs, and share what compares them, for the same reason.
"""

import re
import zlib
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, NewType

from skelebot import keys, units
from skelebot.keys import key, not_blank, one_line
from skelebot.secret import Word


class ByValue:
    """What is equal to another of its class by its fields, as `dataclass` would make for each class."""

    def __eq__(self, other: object) -> bool:
        return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self) -> int:
        return hash(_compared(self))


def _compared(value: Any) -> tuple[Any, ...]:
    return tuple(getattr(value, each.name) for each in fields(value) if each.compare)


WORKDIR = "/app"  # the project's folder in a container

# Names with their values; None is the caller's own value of that name.
Environment = tuple[tuple[str, "str | None"], ...]
# What a key of YAML holds, as JSON, for whoever knows what that means; empty where the key is missing.
Json = NewType("Json", str)
# Names with the YAML node below them, for whoever knows what it should hold.
Sections = tuple[tuple[str, Any], ...]


# --- the configuration ---
# `place` is where a value stands in the files; `elsewhere` has the places of those of its keys that are
# from another file, as merged ones are.

Language = Literal["Python", "R"]
# Of a value on the command line; value_types.py says which texts each takes.
Type = Literal["text", "int", "float", "date", "path", "file"]


@dataclass(frozen=True, repr=False, eq=False)
class Arg(ByValue):
    """A required word that follows a command, by its position.

    offered: what shell completion suggests where `choices` do not say all that is allowed. is_rest: whether
    it is all words from there on.
    """

    name: str = key(help="The argument's name in help and errors", check=keys.option_name)
    choices: tuple[str, ...] = key((), help="The allowed values")
    help: str = key("", help="The argument's description")
    type: Type = key("text", help="What a value is: a number, a date, a path, an existing file, or any text")
    min: str | None = key(None, help="The least number, or the first date", check=one_line)
    max: str | None = key(None, help="The greatest number, or the last date", check=one_line)
    pattern: str | None = key(
        None, help="A Python regular expression for a whole value", check=keys.regular_expression
    )
    optional: bool = False
    is_rest: bool = False
    offered: tuple[str, ...] = ()
    place: str = ""
    elsewhere: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def key(self) -> str:
        """Its name among the values of a command, where a param may have the same."""
        return f"<{self.name}>"


@dataclass(frozen=True, repr=False, eq=False)
class Param(ByValue):
    """An option of a command: `--name value`, a flag, or a list of values."""

    name: str = key(help="The option's name; one letter takes one dash", check=keys.option_name)
    alt: str | None = key(None, help="Another name for the command line", check=keys.option_name)
    default: str | tuple[str, ...] | None = key(None, help="The value when the option is not given")
    choices: tuple[str, ...] = key((), help="The allowed values")
    accepts: Literal["value", "boolean", "list"] = key(
        "value", help="boolean: a flag; list: any number of values; otherwise one value"
    )
    help: str = key("", help="The option's description")
    type: Type = key("text", help="What a value is: a number, a date, a path, an existing file, or any text")
    min: str | None = key(None, help="The least number, or the first date", check=one_line)
    max: str | None = key(None, help="The greatest number, or the last date", check=one_line)
    pattern: str | None = key(
        None, help="A Python regular expression for a whole value", check=keys.regular_expression
    )
    secret: bool = key(False, help="Keep the value out of logs, argument lists and images")
    placeholder: str | None = None
    offered: tuple[str, ...] = ()  # what shell completion suggests besides files
    is_repeated: bool = False  # each use adds a value
    also: tuple[str, ...] = ()  # more spellings, which no help lists
    place: str = ""
    elsewhere: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def flag(self) -> str:
        """The option as the script gets it."""
        return dashed(self.name)

    @property
    def flags(self) -> tuple[str, ...]:
        """Every spelling on the command line that sets it."""
        return (self.flag,) if not self.alt else (dashed(self.alt), self.flag)

    @property
    def on(self) -> bool:
        """Whether it is a flag that is on by default."""
        default = self.default.lower() if isinstance(self.default, str) else ""
        return self.accepts == "boolean" and default in ("true", "yes", "on")

    @property
    def off(self) -> str | None:
        """The spelling that turns it off, of a flag that is on by default."""
        return f"--no-{self.name}" if self.on else None

    @property
    def reference(self) -> str | None:
        """The environment variable that the default names, as in `$NAME`."""
        match = isinstance(self.default, str) and re.fullmatch(REFERENCE, self.default, re.ASCII)
        return match[1] or match[2] if match else None


REFERENCE = r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})"


def dashed(name: str) -> str:
    return f"-{name}" if len(name) == 1 else f"--{name}"


class Mapping(NamedTuple):
    """A folder of the host that a job sees in its container.

    local: from the project root, from `~` or absolute. container: absolute, or from `~`. is_shared: whether
    it says that several runs may write there.
    """

    local: str
    container: str
    read_only: bool = False
    is_shared: bool = False

    @classmethod
    def parse(cls, text: str) -> "Mapping":
        """`data/`, `local:container`, either with a trailing `:ro` or `:rw`. Raises ValueError."""
        expected = "FOLDER or LOCAL:CONTAINER, with :ro at the end for read-only"
        parts = text.split(":")
        mode = parts.pop() if len(parts) > 1 and parts[-1] in ("ro", "rw") else ""
        if len(parts) > 2 or not all(p.strip() for p in parts) or not text.isprintable():
            raise ValueError(expected)
        local, container = parts[0], parts[-1]
        if len(parts) == 1 and not local.startswith(("/", "~")):
            container = f"{WORKDIR}/{local}"
        if not (container.startswith(("/", "~/")) or container == "~"):
            container = f"/{container}"
        if _resolve_dots(container) in ("/", ""):
            raise ValueError("a folder of the container other than / itself")
        return cls(local, container, mode == "ro", mode == "rw")


mapping_text = keys.read_by(Mapping.parse)


def _resolve_dots(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return ("" if path.startswith("~") else "/") + "/".join(parts)


class Output(NamedTuple):
    """What a job makes: a folder of the project, or a file below one. path: from the project root."""

    path: str
    is_folder: bool

    @classmethod
    def parse(cls, text: str) -> "Output":
        """Read `models/` or `models/model.pkl`; without a dot in its last part, it is a folder.

        Raises ValueError.
        """
        expected = "a folder of the project such as models/, or a file in one such as models/model.pkl"
        path = project_path(text)
        output = cls(path, text.endswith("/") or "." not in path.rpartition("/")[2])
        if "*" in path or "?" in path:
            raise ValueError(f"{expected}, without a pattern")
        if not output.folder or path.partition("/")[0] in (".git", ".skelebot"):
            raise ValueError(expected)
        return output

    @property
    def folder(self) -> str:
        """The folder that is mapped for it; empty for a file that is not in one."""
        return self.path if self.is_folder else self.path.rpartition("/")[0]

    def __str__(self) -> str:
        return f"{self.path}/" if self.is_folder else self.path

    def holds(self, path: str) -> bool:
        """Whether it is that path, or a folder above it."""
        return path == self.path or path.startswith(self.path + "/")


def project_path(text: str) -> str:
    """Return a path from the project root, without dots; "" is the root. Raises ValueError outside it."""
    path = _resolve_dots(text).lstrip("/")
    is_inside = not text.startswith(("/", "~")) and ".." not in text.split("/")
    if not is_inside or not text.strip() or not text.isprintable():
        raise ValueError("a path in the project, from its root")
    return path


def _input(text: str) -> None:
    if text.startswith("!"):
        raise ValueError("what the job reads, as nothing can be left out with `!` here")
    if not project_path(text):
        raise ValueError("files, folders or patterns below the project's root")


@dataclass(frozen=True, repr=False, eq=False)
class Resources(ByValue):
    """What a job needs, as it is written."""

    cpus: str | None = key(None, help="CPUs: a number, or thousandths such as 500m", check=keys.cpus)
    # Docker's least, with which hardly a program starts.
    memory: str | None = key(None, help="The memory limit, such as 4g", check=keys.size_pattern(6 * units.M))
    shm: str | None = key(
        None, help="The size of the container's /dev/shm, such as 1g", check=keys.size_pattern(1)
    )
    gpus: str | None = key(None, help="GPUs: a number, each for this job alone; or all", check=keys.gpus)
    disk: str | None = key(None, help="Disk space that must be free at the start", check=keys.size_pattern(1))


@dataclass(frozen=True, repr=False, eq=False)
class Claim(ByValue):
    """A PersistentVolumeClaim that is made where it is missing, as it is written."""

    size: str = key(help="Its size, such as 50g", check=keys.size_pattern(1))
    storage_class: str | None = key(None, help="Its storage class", check=keys.dns_name)
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = key(
        "ReadWriteOnce", help="ReadWriteMany: runs on several nodes can use it at once"
    )


@dataclass(frozen=True, repr=False, eq=False)
class Cluster(ByValue):
    """How jobs run on a Kubernetes cluster, as it is written."""

    context: str | None = key(None, help="The context of kubectl that k8s:// means", check=not_blank)
    namespace: str | None = key(None, help="The namespace of the jobs", check=keys.dns_name)
    service_account: str | None = key(None, help="The service account of the pods", check=keys.dns_name)
    node_selector: Json = key(Json(""), help="Labels that a node must have", check=keys.json_object)
    tolerations: Json = key(Json(""), help="Taints of nodes that the pods tolerate", check=keys.json_list)
    priority_class: str | None = key(None, help="The priority class of the pods", check=keys.dns_name)
    image_pull_secrets: tuple[str, ...] = key(
        (), help="Secrets of the namespace with which it pulls the image", check=keys.dns_name
    )
    local_queue: str | None = key(
        None, help="The local queue of Kueue that admits the jobs", check=keys.dns_name
    )
    mesh: bool | None = key(
        None, help="Whether a service mesh may add its sidecar (default: as it is set up)"
    )
    keep: str | None = key(None, help="How long results wait for a client that is lost", check=keys.timeout)
    claim: str | Claim | None = key(
        None,
        help="The claim on which mapped folders stay: a name, or the size of the project's own",
        check=keys.dns_name,
    )
    pod_spec: Json = key(Json(""), help="What is merged into the pod, lists by name", check=keys.json_object)


@dataclass(frozen=True, repr=False, eq=False)
class Job(ByValue):
    """One thing that the project can do."""

    name: str = key(help="The command that runs the job", check=keys.job_name)
    source: str = key(
        help="A script in the project, FILE.py:CLASS, or a bash command line", check=keys.some_text
    )
    help: str = key(help="What the job does, for `skelebot -h`")
    mode: Literal["i", "it", "d"] = key("i", help="i or it: in the foreground; d: in the background")
    native: Literal["optional", "always", "never"] = key(
        "optional", help="Whether the job can, must (always) or must not (never) run natively"
    )
    host: str | None = key(None, help="The Docker host or cluster to run on", check=keys.host)
    args: tuple[Arg, ...] = key((), help="Required values, in this order")
    params: tuple[Param, ...] = key((), help="Options")
    mappings: tuple[str, ...] = key(
        (), help="Folders shared with the container", check=mapping_text, old="mapped"
    )
    ports: tuple[str, ...] = key((), help="Published ports, HOST:CONTAINER", check=keys.ports)
    ignores: tuple[str, ...] = key(
        (), help="Patterns of files to leave out of this job's image", check=one_line, old="ignore"
    )
    environment: Environment = key((), help="Environment variables of the job", check=keys.variable_name)
    env_file: str | None = key(None, help="A file of NAME=VALUE lines for the environment", check=not_blank)
    timeout: str | None = key(
        None, help="The time limit: seconds, or a value such as 10m", check=keys.timeout
    )
    validate: str | None = key(
        None, help="A source that checks the values before any job of a chain runs", check=keys.some_text
    )
    resources: Resources = key(Resources(), help="What the job needs; each key overrides the root's")
    cluster: Cluster = key(
        Cluster(), help="How the job runs on a cluster; each key overrides the component's"
    )
    schedule: str | None = key(
        None,
        help="When `skelebot deploy` has the job run by itself, as in cron: 0 3 * * *",
        check=keys.schedule,
    )
    retries: int = key(
        0, help="How often a job that has failed is tried again", check=keys.whole_number(0, 100)
    )
    stdin: bool = key(False, help="Whether a job in the background takes records from `skelebot send`")
    dependencies: bool = key(True, help="Whether a native run needs the project's Python packages")
    needs: tuple[str, ...] = key((), help="Jobs that run before, where they are not up to date")
    inputs: tuple[str, ...] | None = key(
        None,
        help="Files, folders and patterns that the job reads; by default all of the image",
        check=keys.read_by(_input),
    )
    outputs: tuple[str, ...] = key(
        (), help="Folders and files that the job makes", check=keys.read_by(Output.parse)
    )
    metrics: tuple[str, ...] | Environment = key(
        (), help="JSON files with what the job measures, or a pattern of its output for each number"
    )
    rehearse: Environment = key((), help="Values for a quick trial with --rehearse, by arg or param")
    cache: bool = key(False, help="Whether a queued run takes over what another has made from the same")
    method: Literal["run", "validate"] = "run"  # of the class, where the source is one
    place: str = ""
    elsewhere: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def results(self) -> tuple[Output, ...]:
        """Its outputs, as values."""
        return tuple(map(Output.parse, self.outputs))

    @property
    def metric_files(self) -> tuple[str, ...]:
        return tuple(each for each in self.metrics if isinstance(each, str))

    @property
    def metric_patterns(self) -> tuple[tuple[str, str], ...]:
        """The pattern of each number in the job's output, by its name."""
        return tuple((each[0], each[1] or "") for each in self.metrics if not isinstance(each, str))

    @property
    def source_place(self) -> str:
        """Where the source stands in the configuration."""
        is_other = self.method == "validate" and self.source == self.validate
        return place_of(self, "validate" if is_other else "source")


def _sweep_name(text: str) -> str | None:
    if problem := not_blank(text):
        return problem
    is_other = "=" in text or text.lower().endswith(".csv")
    return "a name without `=` that does not end in .csv" if is_other else None


@dataclass(frozen=True, repr=False, eq=False)
class DeclaredSweep(ByValue):
    """A sweep that is queued by its name: a chain, and the values that its runs try."""

    chain: str = key(help="The jobs with their values, with a + between them", check=not_blank)
    values: tuple[tuple[str, str | tuple[str, ...]], ...] = key(
        help="The values to try, by JOB.PARAM: a list, or a range such as 1..5"
    )
    trials: int | None = key(
        None, help="How many runs draw their values", check=keys.whole_number(1, 100_000)
    )
    sampler: Literal["random", "tpe"] = key("random", help="What draws them; tpe needs Optuna")
    seed: int | None = key(None, help="Draws the same values again", check=keys.whole_number(0, 2**32 - 1))
    goal: str | None = key(
        None,
        help="The metric to look at: min:METRIC or max:METRIC",
        check=keys.pattern(r"(min|max):.+", "min:METRIC or max:METRIC, such as min:loss"),
    )
    prune: Literal["median"] | None = key(None, help="End trials that are worse than others were")
    fail_fast: bool = key(False, help="Stop what waits of the sweep when a run fails")
    place: str = ""
    elsewhere: tuple[tuple[str, str], ...] = field(default=(), compare=False)


@dataclass(frozen=True, repr=False, eq=False)
class Build(ByValue):
    """What an image needs besides the dependencies."""

    packages: tuple[str, ...] = key((), help="Debian packages", check=keys.debian_package)
    commands: tuple[str, ...] = key((), help="Shell lines to run before the dependencies")
    inherit: tuple[Literal["pip", "proxy", "ca", "netrc"], ...] = key(
        (), help="Settings of your machine that the build uses"
    )
    cran: str | None = key(None, help="The CRAN mirror for R packages", check=keys.cran_mirror)


@dataclass(frozen=True, repr=False, eq=False)
class Packages(ByValue):
    """The dependencies of a project with two languages."""

    python: tuple[str, ...] = key((), name="Python", help="Python packages to install", check=not_blank)
    r: tuple[str, ...] = key((), name="R", help="R packages to install", check=not_blank)


@dataclass(frozen=True, repr=False, eq=False)
class Project(ByValue):
    """A whole skelebot.yaml, with where it was read."""

    name: str = key(help="The project's name", check=keys.project_name)
    description: str = key("", help="One or two sentences about the project")
    maintainer: str = key("", help="The person or team responsible for it", check=one_line)
    contact: str = key("", help="Where to ask about it", check=one_line)
    language: Literal["Python", "R", "R+Python"] = key("Python", help="The languages in the image")
    python_version: str | None = key(
        None, help="The Python of the default base image", check=keys.python_version
    )
    base_image: str | None = key(None, help="The image to start from", check=keys.image_reference)
    host: str | None = key(None, help="The Docker host or cluster to run on", check=keys.host)
    timezone: str | None = key(None, help="The time zone of the image, such as Europe/Berlin")
    ephemeral: bool = key(False, help="Do not write a Dockerfile to the project folder")
    dependencies: tuple[str, ...] | Packages = key(
        (), help="Packages to install; with R+Python a list for each language", check=not_blank
    )
    ignores: tuple[str, ...] = key(
        (), help="Patterns of files to leave out of the image", check=one_line, old="ignore"
    )
    commands: tuple[str, ...] = key((), help="Shell lines to run when the image is built")
    jobs: tuple[Job, ...] = key((), help="The project's jobs")
    params: tuple[Param, ...] = key((), help="Options of every job whose source is a script")
    ports: tuple[str, ...] = key((), help="Published ports of every job", check=keys.ports)
    primary_job: str | None = key(None, help="The job that the image runs without Skelebot")
    primary_exe: Literal["CMD", "ENTRYPOINT"] = key("CMD", help="How the image runs its primary job")
    gpu: bool = key(False, help="Give the containers all GPUs, as `resources: {gpus: all}` does")
    resources: Resources = key(Resources(), help="What every job needs")
    user: str | None = key(
        None, help="The user of the jobs: caller, root, a name or UID[:GID]", check=keys.user
    )
    build: Build = key(Build(), help="What else the image needs")
    dockerfile: str | None = key(None, help="A custom Dockerfile to build instead", check=not_blank)
    environment: Environment = key((), help="Environment variables of every job", check=keys.variable_name)
    env_file: str | None = key(None, help="A file of NAME=VALUE lines for every job", check=not_blank)
    dotenv: bool = key(False, help="Whether the file .env holds variables for every job")
    components: Sections = key((), help="Settings of the components, by name")
    sweeps: tuple[tuple[str, DeclaredSweep], ...] = key((), help="Sweeps to queue by name", check=_sweep_name)
    root: str = ""
    env: str | None = None
    version: str | None = None
    places: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def image(self) -> str:
        """The name of the project's image, without a registry or a tag."""
        name = keys.image_name(self.name)
        if self.env is None:
            return name
        # An environment may have a name that leaves nothing; it is not to share the others' image.
        return f"{name}-{keys.image_name(self.env) or format(zlib.crc32(self.env.encode()), 'x')}"

    def entries(self, language: Language) -> tuple[str, ...]:
        """The dependencies that are Python's, or R's."""
        if isinstance(self.dependencies, Packages):
            return self.dependencies.python if language == "Python" else self.dependencies.r
        return self.dependencies if language == self.language else ()

    def entry_places(self, language: Language) -> tuple[str, ...]:
        """Where each of these entries stands in the configuration."""
        above = f"dependencies.{language}" if isinstance(self.dependencies, Packages) else "dependencies"
        names = (f"{above}[{i}]" for i in range(len(self.entries(language))))
        return tuple(self.places.get(name, name) for name in names)


def place_of(value: Arg | Param | Job | DeclaredSweep, key: str) -> str:
    """Return where a key of a value stands, with its path."""
    return dict(value.elsewhere).get(key) or f"{value.place}.{key}"


# --- what is built and run ---


class Place(NamedTuple):
    """Where a task runs: natively on this machine, or in a container of an engine.

    host: of the engine or cluster, as `-d` takes it; None is the engine that the client takes by itself.
    """

    kind: Literal["docker", "native", "cluster"] = "docker"
    host: str | None = None

    @classmethod
    def at(cls, host: str | None) -> "Place":
        """Return the place that `host` or `-d` means."""
        return cls("cluster" if host and host.startswith(keys.CLUSTER) else "docker", host)

    @property
    def is_native(self) -> bool:
        return self.kind == "native"

    @property
    def is_cluster(self) -> bool:
        return self.kind == "cluster"

    @property
    def engine(self) -> str | None:
        """The host of the engine that builds its images: for a cluster the default one."""
        return None if self.is_cluster else self.host

    def __str__(self) -> str:
        return "native" if self.is_native else self.host or "default"


NATIVE = Place("native")


class Step(NamedTuple):
    """One program to run, as words.

    `env` is added to Skelebot's own environment, less the variables whose names begin with `without`.
    """

    argv: tuple[Word, ...]
    cwd: str | None = None
    env: tuple[tuple[str, Word], ...] = ()
    stdin: str | None = None
    without: str | None = None


class Registry(NamedTuple):
    """Where a cluster gets an image from: repository is the name without a tag, aws the login for ECR."""

    server: str
    repository: str
    is_aws: bool = False
    region: str | None = None
    profile: str | None = None


@dataclass(frozen=True, repr=False, eq=False)
class Image(ByValue):
    """What to build, in this order of lines: `base`, `shared_setup`, `setup`, the project's files, `lines`.

    tag: the name it gets. project: whose it is. context: the folder of the files, of which `ignores`
    are left out. copied: files that `setup` needs. dockerfile: a custom one, instead of the
    lines. shared_setup: what is the same for all projects, so that they share its steps in the cache.
    inherit: which settings of the caller the build may use. ephemeral: leave no Dockerfile for
    the user to see. shadow_sets: for each kind of job the paths that its mappings lie over. user,
    entrypoint, command: how the bare image runs; None where the base's own stand. pinned: the id of one
    that was built before, to be used as it is. registry: where clusters get it from.
    """

    tag: str
    project: str
    base: str
    context: str
    setup: tuple[str, ...] = ()
    shared_setup: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    user: str | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    ignores: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    dockerfile: str | None = None
    copied: tuple[str, ...] = ()
    inherit: tuple[str, ...] = ()
    ephemeral: bool = False
    shadow_sets: tuple[tuple[str, ...], ...] = ()
    pinned: str = ""
    registry: Registry | None = None


class Mount(NamedTuple):
    """A mapping whose host side is absolute; the container side may begin with `~`.

    output: whether the job writes its results there.
    """

    source: str
    target: str
    read_only: bool = False
    output: bool = False


ALL_GPUS = -1


class Limits(NamedTuple):
    """What a task may use: a number of CPUs, bytes, a number of GPUs or ALL_GPUS; 0 is no limit.

    disk: bytes that must be free at the start.
    """

    cpus: float = 0.0
    memory: int = 0
    shm: int = 0
    gpus: int = 0
    disk: int = 0


class Attempt(NamedTuple):
    """One try of a recorded run's task, which outlives whoever has started it.

    folder: of its files: `lock`, which the job's processes hold, `run`, which process it is, and `code`,
    which the job's side writes. token: what tells it from every other, on every engine.
    """

    folder: str
    token: str


# Which ended runs of a job stay: none, the last one (for its logs), or all of them.
Keep = Literal["none", "last", "all"]


@dataclass(frozen=True, repr=False, eq=False)
class Task(ByValue):
    """What to run: `argv` with its surroundings, and in which place.

    project: the name of the project whose it is. dependencies: those of Python, for an environment of the
    task's own; venv: its name, one for each set; dependency_places: where the first of them stand in the
    configuration. may_run_natively: whether a message may propose that. mode: `d` for detached.
    shadowed: the project's paths that the mounts lie over, whose content in the image nobody sees.
    keep: which ended runs of the job stay; None is the last of a detached one, and none otherwise.
    attempt: of a recorded run. environments: the folder for Python environments; "" is the root's own.
    metrics: the file here that takes what a recorded run's job measures. stdin: whether it takes records
    from whoever sends them.
    """

    name: str
    argv: tuple[Word, ...]
    root: str
    project: str = ""
    place: Place = Place()
    may_run_natively: bool = True
    dependencies: tuple[str, ...] = ()
    python_version: str | None = None
    mode: str = "i"
    ports: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: tuple[tuple[str, Word], ...] = ()
    user: str | None = None
    limits: Limits = Limits()
    timeout: float = 0
    shadowed: tuple[str, ...] = ()
    venv: str = "venv"
    dependency_places: tuple[str, ...] = ()
    keep: Keep | None = None
    attempt: Attempt | None = None
    environments: str = ""
    metrics: str = ""
    cluster: Cluster = Cluster()
    stdin: bool = False

    @property
    def is_detached(self) -> bool:
        return self.mode == "d"

    @property
    def retention(self) -> Keep:
        """Which ended runs of the job stay."""
        return self.keep or ("last" if self.is_detached else "none")


WAITING = ("queued", "pulling", "waiting")  # states of a run on a cluster that has not begun


class Run(NamedTuple):
    """One execution of a task, wherever it is.

    id: what the place itself calls it, unique there; name: what people call it. checkout, root: of the
    project's folder that it was started from. state: created, running, paused, exited or one of WAITING.
    code: its exit code, once that is known. began, ended: in ISO 8601.
    """

    id: str
    name: str
    project: str
    job: str
    place: Place
    checkout: str = ""
    root: str = ""
    state: str = "running"
    code: int | None = None
    began: str = ""
    ended: str = ""

    @property
    def is_running(self) -> bool:
        return self.state in ("running", "paused", *WAITING)


class Flags(NamedTuple):
    """The options before the command. jobs: how many of those that are needed run at once."""

    env: str | None = None
    docker_host: str | None = None
    skip_build: bool = False
    native: bool = False
    verbose: bool = False
    dry_run: bool = False
    jobs: int = 1
    force: bool = False
    force_all: bool = False
    no_needs: bool = False
    watch: bool = False
    rehearse: bool = False
