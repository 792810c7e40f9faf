"""The GPUs of a machine: which are free, and which a run holds for itself alone.

A run holds the lock of a file for each of its devices. Its processes inherit the lock: it lasts as long as
they do, however Skelebot ends. A detached container has no process here, and holds devices by a label.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import IO, NamedTuple

from skelebot import console, process
from skelebot.errors import NOT_FOUND, ProgramMissing, SkelebotError
from skelebot.files import open_lock, reason, take_lock, try_lock
from skelebot.model import Step, Task

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Where all users of a machine find the same locks. A user cannot rename what is another's there.
_LOCK = "/tmp/skelebot-gpu-{}.lock"  # noqa: S108 - opened without following links, and never written to
_PATIENCE = 60.0  # nvidia-smi wakes sleeping devices


# Gives what runs nvidia-smi, by its words, on the machine whose GPUs are meant.
Asking = Callable[[tuple[str, ...]], Step]


def _here(words: tuple[str, ...]) -> Step:
    return Step(words)


class DriverMissing(SkelebotError):
    """This machine has no nvidia-smi, which a native run would need as well."""

    code = NOT_FOUND


class Device(NamedTuple):
    """A GPU: its number and its lasting name, as nvidia-smi shows them."""

    number: str
    uuid: str


class Devices(NamedTuple):
    """The devices that a run has for itself, and their locks, which its processes inherit."""

    devices: tuple[Device, ...] = ()
    fds: tuple[int, ...] = ()

    @property
    def variables(self) -> tuple[tuple[str, str], ...]:
        """What shows a process these devices only."""
        # CUDA itself numbers the devices by their speed.
        numbers = ",".join(device.number for device in self.devices)
        return (("CUDA_DEVICE_ORDER", "PCI_BUS_ID"), (VISIBLE, numbers)) if numbers else ()

    def release(self) -> None:
        """Give up this process's part of the locks."""
        for number in self.fds:
            os.close(number)


def take(
    task: Task,
    env: Mapping[str, str],
    other_holders: Callable[[], Mapping[str, str]] = dict,
    asking: Asking = _here,
) -> Devices:
    """Take as many devices as the task needs: free ones, which no other run holds.

    env: the caller's variables, which may name the devices to choose from. other_holders: gives who holds
    devices otherwise than by a lock, by their lasting names; called once locks are held. asking: on which
    machine they are.
    Raises SkelebotError.
    """
    count = task.limits.gpus
    if count <= 0:
        return Devices()
    allowed, busy = visible(devices(asking), env.get(VISIBLE)), busy_devices(asking)
    holders = {
        device: f"process {' and '.join(busy[device.uuid])}" for device in allowed if device.uuid in busy
    }
    with _open_lock("choice") as choice, ExitStack() as files:
        take_lock(choice)  # nobody is to find a device held that another only looks at
        locks = {}
        for device in allowed:
            if device not in holders:
                lock = files.enter_context(_open_lock(device.uuid))
                if try_lock(lock):
                    locks[device] = lock
                else:
                    holders[device] = _holder(lock)
        # A detached run lets its locks go once its container runs: whoever has the lock sees that one.
        others = other_holders() if locks else {}
        holders |= {device: others[device.uuid] for device in locks if device.uuid in others}
        free = [device for device in locks if device not in holders][:count]
        if len(free) < count:
            raise SkelebotError(_too_few(task, len(free), allowed, holders, env))
        # The locks of the others go with the block.
        return Devices(tuple(free), tuple(os.dup(locks[device].fileno()) for device in free))


def _too_few(
    task: Task, free: int, allowed: list[Device], holders: Mapping[Device, str], env: Mapping[str, str]
) -> str:
    within = f" ({VISIBLE}={env[VISIBLE]})" if VISIBLE in env else ""
    held = "; ".join(f"device {d.number} is held by {holders[d]}" for d in allowed if d in holders)
    needed = console.counted(task.limits.gpus, "free GPU")
    return (
        f"{task.name} needs {needed}, found {free} of {len(allowed)}{within}{held and f': {held}'}; "
        "wait for them, or see `nvidia-smi`"
    )


# --- what nvidia-smi shows ---


def devices(asking: Asking = _here) -> list[Device]:
    """All devices of a machine. Raises SkelebotError."""
    return [Device(*row) for row in _query("gpu=index,uuid", asking)]


def can_be_listed(asking: Asking) -> bool:
    """Tell whether the devices of a machine can be asked for."""
    try:
        return bool(devices(asking))
    except SkelebotError:
        return False


def busy_devices(asking: Asking = _here) -> dict[str, list[str]]:
    """The processes that compute on each device, by the device's lasting name."""
    busy: dict[str, list[str]] = {}
    for uuid, pid in _query("compute-apps=gpu_uuid,pid", asking):
        busy.setdefault(uuid, []).append(pid)
    return busy


def models() -> tuple[list[str], list[str]]:
    """The models of all devices of this machine, and their drivers' versions. Raises SkelebotError."""
    rows = list(_query("gpu=name,driver_version"))
    return [model for model, _ in rows], [driver for _, driver in rows]


def _query(what: str, asking: Asking = _here) -> Iterator[list[str]]:
    step = asking(("nvidia-smi", f"--query-{what}", "--format=csv,noheader"))
    try:
        code, out, err = process.capture(step, _PATIENCE)
    except TimeoutError:
        code, out, err = 1, "", f"no answer within {_PATIENCE:g} seconds"
    except ProgramMissing as error:
        raise DriverMissing(
            f"{error}, so this machine's GPUs are not known; install its driver, or remove resources.gpus"
        ) from None
    if code != 0:
        said = " ".join((err.strip() or out.strip()).split()) or f"exit code {code}"
        raise SkelebotError(f"nvidia-smi failed: {said}; run it to see why")
    rows = ([field.strip() for field in line.split(",")] for line in out.splitlines())
    return (row for row in rows if len(row) == 2)


def visible(devices: Iterable[Device], names: str | None) -> list[Device]:
    """Those that CUDA_VISIBLE_DEVICES names: by number, or by the beginning of the lasting name."""
    if names is None:
        return list(devices)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    return [
        device
        for device in devices
        if any(name == device.number or (len(name) > 4 and device.uuid.startswith(name)) for name in wanted)
    ]


# --- the locks ---


def _open_lock(name: str) -> IO[str]:
    """Open the file of a device's lock, or of the one held for the choice. Raises SkelebotError."""
    path = _LOCK.format(re.sub("[^A-Za-z0-9-]", "-", name))
    try:
        file = open_lock(path)
    except OSError as error:
        raise SkelebotError(
            f"the lock {path} of the GPUs cannot be opened: {reason(error)}; remove it"
        ) from None
    with suppress(OSError):
        os.fchmod(file.fileno(), 0o644)  # whatever the umask: others have to open it
    return file


def _holder(lock: IO[str]) -> str:
    """Who holds the lock of a file: the process that has taken it, or one that has inherited it."""
    inode = str(os.fstat(lock.fileno()).st_ino)
    with suppress(OSError, IndexError), open("/proc/locks", encoding="ascii") as file:
        for _, kind, _, _, pid, where, *_ in map(str.split, file):  # proc_locks(5)
            if kind == "FLOCK" and where.endswith(f":{inode}") and os.path.exists(f"/proc/{pid}"):
                return f"process {pid}"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid != str(os.getpid()) and _has_open(pid, lock.name):
            return f"process {pid}"
    return "a run of another user"


def _has_open(pid: str, path: str) -> bool:
    """Whether a process has a file open; False for those of others, which do not show it."""
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}") == path:
                    return True
    return False
