"""The last line that a running run has written, as text that no terminal obeys."""

import os
import re
from contextlib import suppress
from typing import NamedTuple

from skelebot import console
from skelebot.runs import workspace
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store

_TAIL = 4096  # bytes of a log that are looked at


class Current(NamedTuple):
    """The task that runs: its number from 1, its job, and how far it says it is, from 0 to 1."""

    number: int
    job: str
    progress: float


def current(run: RunRecord) -> Current | None:
    """Return the task that runs; None between two of them."""
    for number, task in enumerate(run.tasks, 1):
        if task.state == "running":
            return Current(number, task.job, task.progress)
    return None


def last_line(store: Store, run: RunRecord) -> str:
    """Return the last line of the log of the task that runs; "" without one."""
    task = current(run)
    if task is None:
        return ""
    at = task.number - 1
    path = os.path.join(workspace.attempt_folder(store, run, at, run.tasks[at].attempt), "log")
    data = b""
    with suppress(OSError), open(path, "rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - _TAIL, 0))
        data = file.read(_TAIL)
    return last_of(data)


# Escape sequences: with a text up to its end (OSC, DCS, ...), with parameters (CSI), and the short ones.
# https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
_ESCAPES = re.compile(
    r"\x1b[]PX^_].*?(?:\x07|\x1b\\|$)|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[ -/]*[0-~]?", re.DOTALL
)


def last_of(data: bytes) -> str:
    """Return the last line with text in it; a line that was written over counts as one."""
    text = _ESCAPES.sub("", data.decode("utf-8", "replace"))
    lines = (line.strip() for line in reversed(re.split(r"[\r\n]", text)))
    found = next(filter(None, lines), "")
    return console.masked(console.one_line(found.replace("\t", " ")))
