"""The machine that a task runs on, as far as a result may depend on it."""

import os
from contextlib import suppress
from functools import cache

from skelebot.errors import SkelebotError
from skelebot.model import Task

Machine = tuple[tuple[str, str], ...]  # names and texts: host, cpu, gpu, driver


def of(task: Task) -> Machine:
    """Return this machine, with its GPUs only if the task asks for some; of another one just its address."""
    if task.place.host:
        return (("host", task.place.host),)
    return (("host", os.uname().nodename), ("cpu", _cpu()), *(_gpus() if task.limits.gpus else ()))


@cache
def _cpu() -> str:
    """Return the model of the processor: the first of all, each of which proc_cpuinfo(5) describes."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file.read(4096).splitlines():
            name, _, text = line.partition(":")
            if name.strip() == "model name":
                return text.strip()
    return os.uname().machine


def _gpus() -> Machine:
    from skelebot.runners import gpus

    with suppress(SkelebotError):  # the job says what is wrong
        models, drivers = map(dict.fromkeys, gpus.models())
        return (("gpu", ", ".join(models)), ("driver", ", ".join(drivers)))
    return ()
