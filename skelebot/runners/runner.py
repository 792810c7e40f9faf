"""What a runner is: it runs tasks in one place, and knows the runs that there are."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

from skelebot.errors import SkelebotError
from skelebot.model import Image, Place, Project, Run, Step, Task
from skelebot.process import OWN, Streams


class Capacity(NamedTuple):
    """What the machine of a place has: CPUs, bytes of memory, GPUs; None where their number is not known."""

    cpus: float
    memory: int
    gpus: int | None = 0


# Entered for the moment in which a program begins, so that nothing comes between it and its run.
Launch = Callable[[], AbstractContextManager[object]]


class Removed(NamedTuple):
    """Something that has gone, and the bytes that came free with it."""

    name: str
    size: int


class Cleaned(NamedTuple):
    """What `clean` has removed in one place; `is_complete` unless a job that runs may need the rest."""

    runs: Sequence[Removed]
    images: Sequence[Removed] = ()
    is_complete: bool = True


class Runner(Protocol):
    """Runs tasks in one place. All of it can be called from any thread; `SkelebotError` is raised by each."""

    @property
    def place(self) -> Place: ...

    @property
    def is_far(self) -> bool:
        """Whether it is on another machine, which does not see this one's folders."""

    def check(self, image: Image, task: Task) -> None:
        """Raise SkelebotError for what is sure to keep the task from running."""

    def describe(self, image: Image, task: Task, described: set[str]) -> list[str]:
        """The lines that --dry-run shows for it.

        described: the Dockerfiles that were shown before; one that is not among them is added and shown.
        """

    def surroundings(self, image: Image, task: Task) -> dict[str, str]:
        """What a result depends on besides the job and its files, by name: image, environment."""

    def prepare(self, image: Image, task: Task) -> AbstractContextManager[Any]:
        """Build the image or the environment where something has changed; it stays while the block lasts."""

    def start(self, prepared: Any, task: Task, streams: Streams = OWN, launch: Launch = nullcontext) -> Run:
        """Start the task and return at once."""

    def capacity(self, image: Image | None = None) -> Capacity:
        """What the place's machine has. image: of a task that needs GPUs, by which they are counted."""

    def image_id(self, prepared: Any) -> str:
        """The id of the image that a task is about to run in; "" where there is none."""

    def pin(self, prepared: Any, name: str) -> str:
        """Keep the image or environment of a recorded run, by a tag; gives the id of the image or ""."""

    def receive(self, image: Image, name: str, source: Place) -> Image:
        """The image of a recorded run as this place has it, sent here once from where it is pinned."""

    def packages(self, prepared: Any, task: Task) -> list[str]:
        """What is installed in the image or the environment: NAME==VERSION, sorted."""

    def unpin(self, image: Image, name: str) -> None:
        """Let the image of a recorded run be removed that has been pinned by that name."""

    def adopt(self, task: Task) -> Run | None:
        """The run of the task's attempt that another process has started; None where none of it is left."""

    def wait(self, run: Run) -> int:
        """The job's own exit code, once it has ended and its results are in place.

        The run may be one that another process started.
        """

    def signal(self, run: Run, signum: int, delivered: bool = False) -> None:
        """Pass a signal on to a run that this process started; `delivered`: the terminal has done so."""

    def bring_metrics(self, run: Run) -> bool:
        """Bring the file with what a run has measured up to date, if it does not write to it here.

        Tells whether that takes a transfer.
        """

    def runs(self, project: Project, every_checkout: bool = False) -> list[Run]:
        """The project's runs of this checkout, running or kept, the last one first."""

    def logs(self, run: Run, follow: bool = False, streams: Streams = OWN) -> int:
        """Write what a run has written, stdout and stderr apart, and give 0 when that went well."""

    def send(self, run: Run, source: bytes | int, has_end: bool) -> None:
        """Send lines, or those from a descriptor, to a run with `stdin: true`.

        has_end: whether its input ends with them.
        """

    def stop(self, runs: Sequence[Run]) -> None:
        """Ask those that run to end, and end what does not within ten seconds; results come back."""

    def remove(self, runs: Sequence[Run]) -> Iterable[Removed]:
        """Remove runs that have ended, once their results are back."""

    def clean(self, image: Image, runs: Sequence[Run], every_checkout: bool) -> Cleaned:
        """Remove those of the runs that do not run, and what no run of the project needs any more."""

    def forget(self, image: Image) -> None:
        """Remove what the place keeps for the checkout of an image, whose folder is about to go."""

    def shell(self, run: Run, user: str | None, words: tuple[str, ...]) -> Step | None:
        """The program that runs these words beside a run, as its user; None where a run has no inside."""


def no_records(run: Run) -> SkelebotError:
    return SkelebotError(f"{run.job} takes no records; add `stdin: true` to the job, and start it again")


def has_ended(job: str) -> SkelebotError:
    return SkelebotError(f"{job} has ended, and takes no more records; `skelebot {job}` starts it again")


def superseded(runs: Iterable[Run], task: Task) -> list[Run]:
    """The ended runs that go when the task starts: the one rule about what is kept."""
    if task.retention != "last":
        return []
    return [run for run in runs if run.job == task.name and run.state == "exited"]
