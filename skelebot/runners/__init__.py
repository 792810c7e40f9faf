"""Where a task can run. A runner is a module with the two functions of the protocol below."""

import importlib
from typing import Protocol, cast

from skelebot.errors import UsageError
from skelebot.model import Flags, Image, Task
from skelebot.process import Streams


class Runner(Protocol):
    def run(self, image: Image, task: Task, flags: Flags, streams: Streams | None = None) -> int:
        """Prepares what the task needs, runs it, and gives its own exit code.

        streams: what it has in the place of Skelebot's own. Raises SkelebotError where it could not be run.
        """

    def check(self, image: Image, task: Task) -> None:
        """Raises SkelebotError for what is sure to keep it from running."""

    def describe(self, image: Image, task: Task, flags: Flags) -> list[str]:
        """The lines that --dry-run shows for it."""


def is_native(task: Task, flags: Flags) -> bool:
    """Whether the task runs outside of Docker. Raises UsageError where it must not and is asked to."""
    if flags.native and task.native == "never":
        raise UsageError(f"{task.name} cannot run natively (native: never); leave -n out")
    return flags.native or task.native == "always"


def choose(task: Task, flags: Flags) -> Runner:
    name = "native" if is_native(task, flags) else "docker.container"
    return cast(Runner, importlib.import_module(f"skelebot.runners.{name}"))
