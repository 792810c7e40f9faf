"""Components, which add commands to the command line and change what is built and run."""

from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from skelebot.errors import UsageError
from skelebot.model import Arg, Flags, Image, Job, Param, Place, Project, Task
from skelebot.options import Values
from skelebot.project.read import NO_PROJECT

if TYPE_CHECKING:
    from skelebot.process import Streams
    from skelebot.runs.record import RunRecord


class Activation(Enum):
    """When a component is active."""

    ALWAYS = "inside and outside a project"
    PROJECT = "inside a project"
    OUTSIDE = "outside a project"
    CONFIGURED = "inside a project whose `components` name it"


class Component:
    """The hooks, each of which changes nothing unless it is overridden.

    The fields of a component that is a dataclass are the schema of its settings. activation: when a
    plugin takes part; for the built-in ones the catalog says it, which does not import them to know.
    """

    activation: ClassVar[Activation] = Activation.CONFIGURED

    def problems(self) -> Iterable[str]:
        """Return problems with the settings beyond their types."""
        return ()

    def commands(self, project: Project | None) -> Iterable["Command"]:
        """Return the commands to add. project: None outside a project."""
        return ()

    def image(self, image: Image, project: Project) -> Image:
        """Return the image with what the component needs."""
        return image

    def task(self, task: Task, project: Project) -> Task:
        """Return the task with what the component adds to it."""
        return task

    def recorded(self, run: "RunRecord") -> "RunRecord":
        """Return the run that is to be queued with what a built-in component adds to its record."""
        return run

    def place(self, place: Place, project: Project) -> Place:
        """Return the place with what the component knows of it."""
        return place

    def checks(self, session: "Session") -> Iterable["Check"]:
        """Return the component's lines for `skelebot doctor`."""
        return ()


class Check(NamedTuple):
    """A line of `skelebot doctor`: what was checked, what was found, what to do if that is wrong."""

    name: str
    found: str
    advice: str | None = None

    @classmethod
    def failed(cls, name: str, error: Exception) -> "Check":
        """The check that an error ended, whose line says what was wrong; and then what to do."""
        found, _, advice = str(error).partition("; ")
        return cls(name, found, advice or "fix that and run doctor again")


class Aside(NamedTuple):
    """How a job runs beside others: where its output goes, and who waits for it and passes signals on.

    attend: takes what `foreground.attend` takes. pause: takes what `time.sleep` takes, and raises Interrupted
    if Skelebot is asked to end meanwhile.
    """

    streams: "Streams"
    attend: Callable[..., int]
    pause: Callable[[float], object]


class Session(NamedTuple):
    """What a command works with: the project, the components and the flags.

    described: the Dockerfiles that --dry-run has shown for this command line, each of them once. outdated:
    the jobs that it has found to run. aside: how a job runs that is not alone in front.
    problems: what is wrong with the configuration, in which case there is no project; warnings: what
    is doubtful in it. Only a command that needs no valid configuration sees either (catalog.BuiltIn).
    reserved_names: the names of Skelebot's own commands. schema: makes the JSON Schema of skelebot.yaml.
    main: runs another command line. record: runs a job by what is given to it, and records that. log: a file
    that gets the output as well; metrics: one that gets what the job measures. note_image: gets the id of the
    image that a job runs in.
    """

    optional_project: Project | None
    components: tuple[Component, ...]
    flags: Flags
    described: set[str]
    outdated: set[str]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reserved_names: frozenset[str] = frozenset()
    schema: Callable[[], dict[str, Any]] = dict
    aside: "Aside | None" = None
    main: Callable[[list[str]], int] = len
    record: "Callable[[Session, Callable[[Session], int]], int] | None" = None
    log: str = ""
    metrics: str = ""
    note_image: "Callable[[str], object] | None" = None

    @property
    def project(self) -> Project:
        """Return the project that a command works on. Raises UsageError outside a project."""
        if self.optional_project is None:
            raise UsageError(f"{NO_PROJECT}; change into a project")
        return self.optional_project

    @property
    def hidden_commands(self) -> tuple[str, ...]:
        """Return Skelebot's own commands whose names jobs of the project have."""
        jobs = self.optional_project.jobs if self.optional_project else ()
        return tuple(job.name for job in jobs if job.name in self.reserved_names)


class Command(NamedTuple):
    """A command of the command line.

    check: raises what would keep it from running, before any link of its chain runs. validate: gives what
    the job's own validation finds wrong, once all links have passed their checks. job: the one that
    it runs, of those that run one. is_up_to_date: whether there is nothing for it to do. bind: gives the
    command for the job whose name and values follow it, as in `why train --rate 1`. queue: of a command that
    stands before a chain: what it does with the chain's links, given what checks these. default_chain: gives
    the chain of such a command where none is typed. given_args: gives the names of args, as `arg` or
    `job.arg`, whose values such a command has itself, so that the chain lacks them. verbs: gives the commands
    by whose names it goes on, as in `runs show`. changes: whether it changes the project's files, which the
    links after it read again. predicted_version: gives the project's version after it, for the links of a
    --dry-run.
    """

    name: str
    help: str
    run: Callable[[Session, Values], int]
    args: Sequence[Arg] = ()
    params: Sequence[Param] = ()
    check: Callable[[Session, Values, "Sequence[Link]"], None] | None = None
    job: Job | None = None
    is_up_to_date: Callable[[Session, Values], bool] | None = None
    bind: Callable[["Link"], "Command"] | None = None
    queue: Callable[[Session, Values, "Sequence[Link]", "CheckLinks"], int] | None = None
    default_chain: Callable[[Session, Values], Sequence[str]] | None = None
    given_args: Callable[[Session, Values], Collection[str]] | None = None
    verbs: Callable[[], "Sequence[Command]"] = tuple
    changes: bool = False
    predicted_version: Callable[[Session, Values], str] | None = None
    validate: Callable[[Session, Values], Iterable[str]] | None = None


class Link(NamedTuple):
    """A command of a chain with the values of its arguments; `words` are as typed.

    is_needed: whether nobody typed it, but another link's job needs it.
    """

    command: Command
    session: Session
    values: Values
    words: tuple[str, ...]
    is_needed: bool = False


# Raises what keeps a chain, or a variant of it with other values, from running.
CheckLinks = Callable[[Sequence[Link], Sequence[Sequence[Link]]], None]
