"""What a task may use of a machine: as lines for people, and checked before it starts."""

import os
from contextlib import suppress

from skelebot.errors import SkelebotError
from skelebot.model import ALL_GPUS, Task
from skelebot.runners.runner import Capacity
from skelebot.units import size_text


def describe(task: Task) -> list[str]:
    """The line of --dry-run; none where there are no limits."""
    limits = task.limits
    texts = {
        "cpus": f"{limits.cpus:g}",
        "memory": size_text(limits.memory),
        "shm": size_text(limits.shm),
        "gpus": "all" if limits.gpus == ALL_GPUS else str(limits.gpus),
        "disk": size_text(limits.disk),
    }
    named = [f"{name} {text}" for name, text in texts.items() if getattr(limits, name)]
    return [f"limits   {', '.join(named)}"] if named else []


def capacity(with_gpus: bool) -> Capacity:
    """What this machine has. with_gpus: whether to ask for GPUs, which takes a moment."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    count = 0
    if with_gpus:
        from skelebot.runners import gpus

        with suppress(SkelebotError):  # the run will say what is wrong
            count = len(gpus.visible(gpus.devices(), os.environ.get(gpus.VISIBLE)))
    return Capacity(os.cpu_count() or 1, memory, count)


def check_disk(task: Task, *folders: str) -> None:
    """Raise SkelebotError if the disk of one of the folders has less free space than the task needs."""
    for folder in folders if task.limits.disk else ():
        try:
            disk = os.statvfs(folder)
        except OSError:
            continue  # the engine's own folder, which may be in another machine or another's alone
        if (free := disk.f_bavail * disk.f_frsize) < task.limits.disk:
            raise SkelebotError(
                f"{task.name} needs {size_text(task.limits.disk)} of free disk space, and {folder} has "
                f"{size_text(free)}; free some, or lower resources.disk"
            )


def out_of_memory(task: Task) -> str:
    """What is said about a job that was killed for its memory."""
    return f"{task.name} ran out of its memory ({size_text(task.limits.memory)}); raise resources.memory"
