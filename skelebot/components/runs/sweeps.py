"""Look at a sweep: its runs with the best first, and which that is."""

import json
from collections.abc import Sequence

from skelebot import console
from skelebot.component import Session
from skelebot.components.runs.work import checkout_or_all
from skelebot.errors import SkelebotError, UsageError, did_you_mean
from skelebot.options import Values
from skelebot.runs import store as stores
from skelebot.runs import trial
from skelebot.runs.record import RunRecord, view
from skelebot.runs.store import Store
from skelebot.runs.trial import Goal


def ranked(
    store: Store, root: str | None, values: Values, runs: list[RunRecord]
) -> tuple[list[RunRecord], list[str]]:
    """Return the runs, the best first if a sweep was asked for; and what its table is not to lack."""
    if "sweep" not in values:
        if "goal" in values:
            raise UsageError("runs: --goal needs --sweep")
        return runs, []
    goal = _goal(store, root, str(values["sweep"]), runs, values)
    params = (name for run in runs if run.sweep for name in run.sweep.params)
    most = int(str(values["last"])) if "last" in values else None
    return trial.ranked(runs, goal)[:most], [*dict.fromkeys(params), *([goal.metric] if goal else [])]


def _goal(
    store: Store, root: str | None, name: str, runs: Sequence[RunRecord], values: Values
) -> Goal | None:
    """Return by what the runs of a sweep are sorted. Raises UsageError for a sweep that there is not."""
    if not runs:
        check_known(store, root, name)
    if "goal" not in values:
        return trial.goal_of(runs)
    try:
        return Goal.parse(str(values["goal"]))
    except ValueError as error:
        raise UsageError(f"--goal: expected {error}") from None


def check_known(store: Store, root: str | None, name: str) -> None:
    """Raise UsageError for a sweep that there is not."""
    known = {run.sweep.name for run in store.find(root=root) if run.sweep}
    if name not in known:
        hint = did_you_mean(name, known) or ("" if known else "; no run here is of one yet")
        raise UsageError(f"there is no sweep {console.one_line(name)!r}{hint}")


def best(session: Session, values: Values) -> int:
    """Print the number of the best run of a sweep, of those that are done."""
    store = stores.opened()
    root = checkout_or_all(session, every=False)
    name = str(values["<sweep>"])
    runs = store.find(root=root, sweep=name)
    goal = _goal(store, root, name, runs, values)
    if goal is None:
        raise UsageError(f"the sweep {name} has no goal; add --goal min:METRIC or max:METRIC")
    found = [run for run in trial.ranked(runs, goal) if run.state == "done" and goal.value(run) is not None]
    if not found:
        raise SkelebotError(f"no run of the sweep {name} is done and has measured {goal.metric}")
    console.out(json.dumps(view(found[0]), indent=2) if values.get("json") else str(found[0].number))
    return 0
