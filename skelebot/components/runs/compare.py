"""`runs diff`: what differs between two runs, and nothing else."""

import json
import os
from typing import Any

from skelebot import console
from skelebot.component import Session
from skelebot.components.runs.look import shown
from skelebot.errors import UsageError
from skelebot.options import Values
from skelebot.runs import difference, packages, snapshot
from skelebot.runs import store as stores
from skelebot.runs.difference import Difference
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store


def diff(session: Session, values: Values) -> int:
    """Print what differs; return 0 if two runs are the same, and 1 if they differ."""
    if values.get("stat") and values.get("full"):
        raise UsageError("runs diff: --stat and --full do not go together; leave out one of them")
    store = stores.opened()
    a, b = (store.get(int(str(values[f"<{name}>"]))) for name in ("run", "other"))
    found = difference.differences(a, b, (packages.of(store, a.packages), packages.of(store, b.packages)))
    is_same = difference.is_same(found) and not difference.pairs_of_trees(a, b)
    if values.get("json"):
        console.out(json.dumps(_as_json(store, a, b, found, is_same, bool(values.get("full"))), indent=2))
    else:
        _print(store, a, b, found, bool(values.get("full")))
        if is_same:
            console.info(f"run {a.number} and run {b.number} are the same")
    return 0 if is_same else 1


def _print(store: Store, a: RunRecord, b: RunRecord, found: list[Difference], full: bool) -> None:
    rows = [(each.kind, each.name, _text(each, each.before), _text(each, each.after)) for each in found]
    console.table(("", "", f"RUN {a.number}", f"RUN {b.number}"), rows)
    is_coloured = console.is_stdout_terminal() and not os.environ.get("NO_COLOR")
    for (before, after), jobs in difference.pairs_of_trees(a, b).items():
        named = "" if len(jobs) == len(b.tasks) else f" of {', '.join(jobs)}"
        console.out(f"code{named}")
        text = snapshot.difference(store.folder, before, after, stat_only=not full, colour=is_coloured)
        console.out(text.rstrip("\n"))


def _text(of: Difference, value: Any) -> str:
    if value is None:
        return "-"
    if of.kind == "duration":
        return console.duration(value)
    if of.kind == "data":
        return str(value)[:12]
    return shown(value)


def _as_json(
    store: Store, a: RunRecord, b: RunRecord, found: list[Difference], is_same: bool, full: bool
) -> dict[str, Any]:
    """Return the differences by kind and name, each as a pair of values."""
    result: dict[str, Any] = {"runs": [a.number, b.number], "same": is_same}
    for each in found:
        pair = [each.before, each.after]
        if each.name:
            result.setdefault(each.kind, {})[each.name] = pair
        else:
            result[each.kind] = pair
    code: dict[str, str] = {}
    patch = ""
    for before, after in difference.pairs_of_trees(a, b):
        contents = (snapshot.contents(store.folder, tree) for tree in (before, after))
        code |= difference.changed_files(*contents)
        patch += snapshot.difference(store.folder, before, after) if full else ""
    return result | ({"code": code} if code else {}) | ({"patch": patch} if patch else {})
