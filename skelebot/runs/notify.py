"""Run the project's own command when a run has ended, or the queue: `components.experiments.notify`.

It is run at most once for each end, which is recorded first: who is killed in between has not run it.
"""

import json
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from skelebot import console, process
from skelebot.errors import SkelebotError
from skelebot.model import Step
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store

LIMIT = 10.0  # seconds
# Keeps no more of what a command writes than the end of its errors: ten seconds of `yes` are gigabytes.
_SHELL = ("bash", "-c", 'set -o pipefail; bash -c "$1" 2>&1 >/dev/null | tail -c 4000', "notify")
BUSY = "busy "  # begins the name of a setting: for the checkout of that root, the end of the queue is due


def run_ended(run: RunRecord, code: int) -> None:
    """Run the command of a run that has ended with that exit code; a failure is a warning."""
    if run.notify:
        _call(run.notify, run.root, str(run.number), run.state, code, run.name or run.shown_chain)


def _call(command: str, root: str, number: str, state: str, code: int, name: str) -> None:
    facts = {"RUN": number, "STATE": state, "CODE": str(code), "NAME": name}
    env = tuple((f"SKELEBOT_{each}", value) for each, value in facts.items())
    folder = root if os.path.isdir(root) else "/"
    try:
        ended, err, _ = process.capture(Step((*_SHELL, command), env=env, cwd=folder), LIMIT)
    except TimeoutError:
        console.warn(f"notify: the command took longer than {LIMIT:.0f} seconds and was killed")
    except SkelebotError as error:
        console.warn(f"notify: {error}")
    else:
        if ended:
            last = next(iter(err.strip().splitlines()[-1:]), "")
            console.warn(f"notify: the command ended with exit code {ended}{f': {last}' if last else ''}")


# --- the end of the queue ---


def note_busy(store: Store, run: RunRecord) -> None:
    """Note, before a run begins, that its checkout's queue is to end with its command."""
    if not run.notify:
        return
    name, noted = f"{BUSY}{run.root}", store.setting(f"{BUSY}{run.root}")
    facts = [run.notify, run.project]
    if not noted or json.loads(noted)[:2] != facts:
        store.set(name, json.dumps([*facts, json.loads(noted)[2] if noted else time.time()]))


class EndedQueue(NamedTuple):
    """The queue of a checkout that has become empty. code: 1 if a run has failed meanwhile."""

    command: str
    root: str
    project: str
    code: int


def take_ended_queues(store: Store, root: str | None) -> list[EndedQueue]:
    """Return the queues of that checkout, or all, that have become empty; nobody else gets them again."""
    found = []
    for name in store.settings(BUSY):
        its_root = name.removeprefix(BUSY)
        is_meant = root in (None, its_root) and not store.is_busy(its_root)
        if is_meant and (noted := store.take_if_idle(name, its_root)):
            command, project, since = json.loads(noted)
            found.append(EndedQueue(command, its_root, project, int(store.has_failed(its_root, since))))
    return found


def queues_ended(queues: Sequence[EndedQueue]) -> None:
    """Run the commands of queues that have become empty."""
    for each in queues:
        _call(each.command, each.root, "", "empty", each.code, each.project)
