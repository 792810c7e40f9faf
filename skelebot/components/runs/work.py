"""`worker`: work off the queue of runs."""

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from skelebot import console, foreground, units
from skelebot.component import Session
from skelebot.components.runs import Runs
from skelebot.errors import ConfigError, UsageError
from skelebot.model import Place
from skelebot.options import Values
from skelebot.project.read import NO_PROJECT
from skelebot.runs import places, worker
from skelebot.runs import store as stores
from skelebot.runs.record import iso
from skelebot.runs.store import Store
from skelebot.runs.worker import Plan


def work(session: Session, values: Values) -> int:
    if values.get("list") and values.get("stop"):
        raise UsageError("worker: --list and --stop do not go together; leave out one of them")
    store = stores.opened()
    if values.get("list"):
        return _list(store, bool(values.get("json")))
    if values.get("json"):
        raise UsageError("worker: --json is for the list; add --list")
    root = checkout(session, bool(values.get("all")))
    if values.get("stop"):
        return _stop(store, root, session.flags.dry_run)
    plan = Plan(root, _slots(values), bool(values.get("drain")), _keep_free(session))
    if session.flags.dry_run:
        waiting = store.counts(root).get("queued", 0)
        console.out(f"take up to {sum(plan.slots.values())} at once of {waiting} queued runs")
        return 0
    store.check_writable()
    if values.get("detach"):
        return _detach(store, plan, session)
    return worker.work(store, plan, session.flags)


def _slots(values: Values) -> dict[Place, int]:
    """Return the slots in each place. Raises UsageError."""
    others = places.parse(values.get("on", ()) or ())  # type: ignore[arg-type]
    here = int(str(values.get("jobs", "0" if others else "1")))
    if not here and not others:
        raise UsageError("worker: -j 0 leaves it without slots; give those on other machines with --on")
    return ({places.HERE: here} if here else {}) | others


def checkout(session: Session, every: bool) -> str | None:
    """Return the root whose runs are meant, or None for all. Raises UsageError outside a project."""
    if every:
        return None
    if session.optional_project is None:
        raise UsageError(f"{NO_PROJECT}; change into a project, or add --all")
    return session.optional_project.root


def checkout_or_all(session: Session, every: bool) -> str | None:
    """Return the root whose runs are meant, or None for all: where that is wanted, or outside a project.

    Raises ConfigError for a project whose configuration is wrong: whoever works in it does not mean all.
    """
    if not every:
        check_project(session)
    return checkout(session, every or session.optional_project is None)


def check_project(session: Session) -> None:
    """Raise ConfigError if there is a project here whose configuration is wrong; `runs` starts anyway."""
    if session.problems:
        raise ConfigError(list(session.problems))


def _keep_free(session: Session) -> int:
    own = next((each for each in session.components if isinstance(each, Runs)), None)
    return units.size(own.keep_free) if own and own.keep_free else 0


def _detach(store: Store, plan: Plan, session: Session) -> int:
    """Work in a process of its own, in the background, whose messages go to a file of the store."""
    folder = os.path.join(store.folder, "workers")
    os.makedirs(folder, exist_ok=True)
    sys.stdout.flush()
    with foreground.uninterrupted():
        pid = os.fork()
    if pid:
        console.info(f"the worker is process {pid}; its messages go to {folder}/{pid}.log")
        console.out(str(pid))
        return 0
    os.setsid()
    path = os.path.join(folder, f"{os.getpid()}.log")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(stream, number)
    return worker.work(store, plan, session.flags)


def _list(store: Store, as_json: bool) -> int:
    found = worker.workers(store)
    if as_json:
        facts = [{**each, "started": iso(float(str(each["started"])))} for each in found]
        console.out(json.dumps(facts, indent=2))
        return 0
    if not found:
        console.info("no worker is running; `skelebot worker -d` starts one")
        return 0
    rows = [
        (str(each["pid"]), _shown_slots(each), _ago(each["started"]), str(each["root"] or "all projects"))
        for each in found
    ]
    console.table(("PROCESS", "SLOTS", "SINCE", "RUNS OF"), rows)
    return 0


def _shown_slots(facts: Mapping[str, Any]) -> str:
    """Return the slots of a worker, with their places if it has some on other machines."""
    by_place: dict[str, int] = facts.get("places", {})
    if set(by_place) <= {places.THIS_MACHINE}:
        return str(facts["slots"])
    return ", ".join(f"{count} on {place}" for place, count in by_place.items())


def _ago(began: object) -> str:
    return console.duration(max(time.time() - float(str(began)), 0))


def _stop(store: Store, root: str | None, dry_run: bool) -> int:
    """Ask the workers of a checkout, or all, to end once their runs have."""
    asked = [each for each in worker.workers(store) if root is None or each["root"] == root]
    if dry_run:
        console.out(f"stop {console.counted(len(asked), 'worker')}")
        return 0
    for each in asked:
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(str(each["pid"])), worker.STOP)
    console.info(
        f"{console.counted(len(asked), 'worker')} asked to end; runs that have begun go on to their end"
    )
    return 0
