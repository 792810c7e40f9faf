"""Try a job that has failed again."""

from collections.abc import Callable
from dataclasses import replace

from skelebot import console
from skelebot.errors import STOPPING, SkelebotError
from skelebot.model import Job, Task


class Incomplete(SkelebotError):
    """A job ended with 0 and has not made what it declares."""


VARIABLE = "SKELEBOT_ATTEMPT"  # which attempt it is, from 1
_ENDS = (0, *(128 + signum for signum in STOPPING))  # success, or somebody asked it to end


def with_retries(job: Job, task: Task, start: Callable[[Task], int], pause: Callable[[float], object]) -> int:
    """Start the task until it succeeds or has no attempts left; gives the last one's exit code.

    start: raises Incomplete where outputs are missing. pause: waits for some seconds, and raises Interrupted
    if Skelebot is asked to end meanwhile.
    """
    if not job.retries:
        return start(task)
    last = job.retries + 1
    for attempt in range(1, last):
        try:
            code = start(_numbered(task, attempt))
            failure = f"{job.name} failed with exit code {code}"
        except Incomplete as error:
            code, failure = error.code, str(error)
        if code in _ENDS:
            return code
        wait = min(2 ** (attempt - 1), 60)
        console.info(f"{failure}; attempt {attempt + 1} of {last} in {wait} s")
        pause(wait)
    return start(_numbered(task, last))


def _numbered(task: Task, attempt: int) -> Task:
    return replace(task, env=(*task.env, (VARIABLE, str(attempt))))
