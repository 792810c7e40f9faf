"""What a native run has of the machine: the devices that are its own, its memory limit, its threads."""

import math
import os
from typing import TYPE_CHECKING, NamedTuple

from skelebot import console
from skelebot.errors import ProgramMissing
from skelebot.model import Step, Task
from skelebot.process import find_program
from skelebot.runners.attempts import METRICS, noting_words
from skelebot.runners.native.environment import Environment
from skelebot.secret import Word, reveal, reveal_all

if TYPE_CHECKING:
    from skelebot.runners.gpus import Devices
    from skelebot.runners.native.memory import Group

# By which the libraries for numbers learn how many threads to start; otherwise each starts one for every CPU.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",
)


class Held(NamedTuple):
    """The devices and the memory group of a run; None where it needs none, or there is no way."""

    devices: "Devices | None" = None
    memory: "Group | None" = None

    @property
    def fds(self) -> tuple[int, ...]:
        """What the job's processes inherit."""
        return (*(self.devices.fds if self.devices else ()), *(self.memory.fds if self.memory else ()))

    @property
    def open_fds(self) -> tuple[int, ...]:
        """What Skelebot has open for them."""
        return (*(self.devices.fds if self.devices else ()), *(self.memory.open_fds if self.memory else ()))

    def step(self, task: Task, prepared: Environment) -> Step:
        """The program to start for the task. Raises ProgramMissing."""
        env = (*_threads(task), *task.env, *prepared.variables)
        env += self.devices.variables if self.devices else ()
        env += ((METRICS, task.metrics),) if task.metrics else ()
        words = self.memory.words if self.memory else ()
        words += noting_words(task.attempt) if task.attempt else ()
        if words:
            _check_program(task.argv, {**os.environ, **reveal_all(env, os.environ)})
        return Step((*words, *task.argv), task.root, env)

    def end(self) -> bool:
        """Give everything back; whether a process was killed for its memory."""
        if self.devices:
            self.devices.release()
        return self.memory is not None and self.memory.end()

    def leave(self) -> None:
        """Leave everything to the process that was forked for the run."""
        if self.devices:
            self.devices.release()
        if self.memory:
            self.memory.forget()


def hold(task: Task) -> Held:
    """Take what the task needs. Raises SkelebotError if there are too few free devices."""
    devices = memory = None
    if task.limits.gpus > 0:
        from skelebot.runners import gpus  # only for a job that needs some

        env = {**os.environ, **reveal_all(task.env, os.environ)}
        devices = gpus.take(task, env, _holding_containers)
    if task.limits.memory:
        from skelebot.runners.native.memory import group

        memory = group(task.limits.memory)
        if memory is None:
            console.warn(
                f"{task.name}: this system cannot limit a native job's memory; it runs without a limit"
            )
    return Held(devices, memory)


def _holding_containers() -> dict[str, str]:
    from skelebot.runners.docker.runs import local_gpu_holders

    return local_gpu_holders()


def _threads(task: Task) -> tuple[tuple[str, str], ...]:
    count = str(max(math.ceil(task.limits.cpus), 1))
    return tuple((name, count) for name in THREADS if task.limits.cpus and name not in os.environ)


def _check_program(argv: tuple[Word, ...], env: dict[str, str]) -> None:
    """Raise ProgramMissing as for a program that is started without a shell before it."""
    name = reveal(argv[0], env)
    if "/" not in name and find_program(name, path=env.get("PATH", os.defpath)) is None:
        raise ProgramMissing(f"{name} is not installed, or not on PATH")
