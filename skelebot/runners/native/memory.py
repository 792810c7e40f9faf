"""A memory limit for a native job and all that it starts: a control group of the kernel's.

https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/memory.html. Where systemd has the
groups to itself, it is asked for one.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from skelebot import process
from skelebot.errors import SkelebotError
from skelebot.model import Step

_TOP = "/sys/fs/cgroup"
_NAME = "skelebot-"  # begins the names of the groups


class Group(Protocol):
    """A group with a limit, for one run.

    words: what stands before the job's own words, and puts the job into the group. fds: what it inherits.
    open_fds: what Skelebot has open for it.
    """

    @property
    def words(self) -> tuple[str, ...]: ...

    @property
    def fds(self) -> tuple[int, ...]: ...

    @property
    def open_fds(self) -> tuple[int, ...]: ...

    def end(self) -> bool:
        """Whether one of the job's processes was killed for its memory; the group goes."""

    def forget(self) -> None:
        """Leave the group to another process, or to nobody."""


def group(limit: int) -> Group | None:
    """A group whose processes together get no more memory than `limit` bytes; None if there is no way."""
    if os.path.exists(f"{_TOP}/cgroup.controllers"):
        return _scope(limit) or _first(_made_v2, _parents_v2(), limit)
    return _first(_made_v1, (_own_folder(f"{_TOP}/memory", "memory"),), limit)


# --- groups that Skelebot makes itself ---


@dataclass(frozen=True)
class Folder:
    """A group that is a folder of its own, and the file in it that counts what was killed."""

    path: str
    counter: str

    @property
    def words(self) -> tuple[str, ...]:
        return ("bash", "-c", 'echo 0 >"$0" && exec "$@"', f"{self.path}/cgroup.procs")

    @property
    def fds(self) -> tuple[int, ...]:
        return ()

    open_fds = fds

    def end(self) -> bool:
        killed = _has_killed(_read(f"{self.path}/{self.counter}"))
        with suppress(OSError):  # what the job has left in the background keeps it
            os.rmdir(self.path)
        return killed

    def forget(self) -> None: ...


def _has_killed(counts: str) -> bool:
    return any(line.startswith("oom_kill ") and not line.endswith(" 0") for line in counts.splitlines())


def _first(
    made: Callable[[str, int], Folder], parents: Iterator[str] | tuple[str, ...], limit: int
) -> Folder | None:
    for parent in parents:
        _sweep(parent)
        path = os.path.join(parent, _NAME + os.urandom(6).hex())
        if not os.access(f"{parent}/cgroup.procs", os.W_OK):
            continue  # nothing that is below it could be moved
        try:
            os.mkdir(path)
        except OSError:
            continue
        try:
            return made(path, limit)
        except OSError:
            os.rmdir(path)
    return None


def _made_v1(path: str, limit: int) -> Folder:
    _write(f"{path}/memory.limit_in_bytes", limit)
    with suppress(OSError):  # a kernel that does not count what is swapped out
        _write(f"{path}/memory.memsw.limit_in_bytes", 2 * limit)  # as Docker does
    return Folder(path, "memory.oom_control")


def _made_v2(path: str, limit: int) -> Folder:
    _write(f"{path}/memory.max", limit)
    with suppress(OSError):
        _write(f"{path}/memory.swap.max", limit)
    return Folder(path, "memory.events")


def _parents_v2() -> Iterator[str]:
    """The groups below which one with a limit can be made: this process's own, or the one above it.

    The kernel gives no limits below a group that has processes itself, except the topmost. A limit of this
    process's own group is not to be escaped from.
    """
    own = _own_folder(_TOP, "")
    above = (os.path.dirname(own),) if _read(f"{own}/memory.max").strip() == "max" else ()
    for path in (own, *above):
        if "memory" in _read(f"{path}/cgroup.subtree_control").split():
            yield path


def _own_folder(top: str, controller: str) -> str:
    """The folder of this process's group; in a container the mounted top, whose name is another outside."""
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") and os.path.isdir(folder := f"{top}{path}".rstrip("/")):
            return folder
    return top


def _sweep(parent: str) -> None:
    """Remove the empty groups that killed processes have left; a young one may be about to be used."""
    with suppress(OSError):
        for entry in os.scandir(parent):
            if entry.name.startswith(_NAME) and time.time() - entry.stat().st_mtime > 60:
                with suppress(OSError):
                    os.rmdir(entry.path)


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return file.read()
    return ""


def _write(path: str, value: object) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(str(value))


# --- a scope of systemd's ---

_OWN = '"/sys/fs/cgroup$(cut -d: -f3- /proc/self/cgroup)/'
# systemd removes a scope with its last process. Therefore one stays, no child of the job's, until it gets a
# byte or nobody is left to send one; then it writes what was counted.
_SCRIPT = rf"""
_sk_ask=$0 _sk_tell=$1
shift
( (
    trap '' INT
    read -r -n 1 -u "$_sk_ask"
    cat {_OWN}memory.events" >&"$_sk_tell"
) </dev/null >/dev/null 2>&1 & )
eval "exec $_sk_ask<&- $_sk_tell>&-"
exec "$@"
"""


@dataclass(frozen=True)
class Scope:
    """A group of systemd's. ask, tell: two pipes, each as the number to read from and the one to write to."""

    run: tuple[str, ...]
    ask: tuple[int, int]
    tell: tuple[int, int]

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.run, "bash", "-c", _SCRIPT, *map(str, self.fds))

    @property
    def fds(self) -> tuple[int, ...]:
        return self.ask[0], self.tell[1]

    @property
    def open_fds(self) -> tuple[int, ...]:
        return (*self.ask, *self.tell)

    def end(self) -> bool:
        for number in self.fds:
            os.close(number)
        with suppress(BrokenPipeError):  # it was stopped, as the job was
            os.write(self.ask[1], b"\n")
        os.close(self.ask[1])
        with open(self.tell[0], encoding="ascii", errors="replace") as file:
            return _has_killed(file.read())

    def forget(self) -> None:
        for number in self.open_fds:
            os.close(number)


def _scope(limit: int) -> Scope | None:
    """A scope; None where systemd does not give one, or one without a limit."""
    program = process.find_program("systemd-run")
    if program is None:
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    whose = () if os.getuid() == 0 else ("--user",)
    # Some versions would replace $NAME in the job's words, and others do not know the option.
    for as_typed in (("--expand-environment=no",), ()):
        run = (program, *whose, "--scope", "--quiet", "--collect", *as_typed)
        run += (f"--property=MemoryMax={limit}", f"--property=MemorySwapMax={limit}", "--")
        probe = Step((*run, "bash", "-c", f'cat {_OWN}memory.max"'))
        with suppress(SkelebotError, TimeoutError):
            if process.capture(probe, timeout=10)[1].strip() == str(limit // page * page):
                return Scope(run, os.pipe(), os.pipe())
    return None
