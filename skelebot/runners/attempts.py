"""The folder of an attempt: what outlives whoever has started it, wherever its task runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from skelebot.errors import SkelebotError
from skelebot.files import open_lock, reason, replace_file, try_lock
from skelebot.model import Attempt, Task

# The variable that gives a recorded run's job the file to which it appends what it measures.
METRICS = "SKELEBOT_METRICS"


KILLED = (137, 143, 255)  # a container's exit code if its engine or its machine was restarted


class Lost(SkelebotError):
    """Nobody knows how a run has ended: what would have noted it was killed."""


class Unreachable(SkelebotError):
    """The place of a task does not answer; what runs there goes on."""


# Writes the exit code of its words to a file, whoever still waits for them. It lives on a signal that it gets
# together with them, as it has to see their end. usage: sh -c SCRIPT FILE PROGRAM [WORD ...]
_NOTING = (
    'trap : INT TERM HUP QUIT USR1 USR2 ALRM VTALRM PROF XCPU; "$@"; _sk=$?; echo $_sk 1<>"$0"; exit $_sk'
)
_ROOM = b" " * 8  # for the code, which is written over it: the job may have filled the disk


def noting_words(attempt: Attempt) -> tuple[str, ...]:
    """Return the words before a program, by which the code of its end is noted."""
    return ("/bin/sh", "-c", _NOTING, os.path.join(attempt.folder, "code"))


def code(attempt: Attempt) -> int | None:
    """Return the noted exit code; None where none is, or only a part of it."""
    with suppress(OSError, ValueError), open(os.path.join(attempt.folder, "code"), encoding="ascii") as file:
        text, end, _ = file.read().partition("\n")
        return int(text) if end else None
    return None


def note(attempt: Attempt, code: int) -> None:
    """Note the exit code where the job's side cannot. Raises OSError."""
    replace_file(os.path.join(attempt.folder, "code"), f"{code}\n".encode("ascii"))


def open_held_lock(attempt: Attempt) -> IO[str]:
    """Return the attempt's lock, held, for the job's processes to inherit, once there is room for the code.

    Raises SkelebotError.
    """
    path = os.path.join(attempt.folder, "code")
    try:
        with suppress(FileExistsError), open(path, "xb") as file:
            file.write(_ROOM)
        path = os.path.join(attempt.folder, "lock")
        lock = open_lock(path)
    except OSError as error:
        raise SkelebotError(f"{path} cannot be opened: {reason(error)}") from None
    if not try_lock(lock):
        lock.close()
        raise SkelebotError(f"{path} is held by another process; `fuser -v {path}` lists it")
    return lock


@contextmanager
def held_lock(task: Task) -> Iterator[tuple[int, ...]]:
    """Hold the lock of a task's attempt, if it is one's; yield what a program inherits."""
    if task.attempt is None:
        yield ()
        return
    with open_held_lock(task.attempt) as lock:
        yield (lock.fileno(),)


def is_held(attempt: Attempt) -> bool:
    """Tell whether a process of the attempt lives."""
    with suppress(OSError), open(os.path.join(attempt.folder, "lock"), encoding="ascii") as lock:
        return not try_lock(lock, shared=True)
    return False


def signal_holders(attempt: Attempt, signum: int) -> None:
    """Send a signal to the attempt's processes, whatever session they are in."""
    import psutil  # only for what a job leaves behind

    path = os.path.realpath(os.path.join(attempt.folder, "lock"))
    for each in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if each.pid != os.getpid() and any(file.path == path for file in each.open_files()):
                each.send_signal(signum)
