"""`runs gc`: remove old runs, after their bytes were shown."""

import json
import time

from skelebot import console, units
from skelebot.component import Session
from skelebot.components.runs.work import checkout_or_all
from skelebot.errors import UsageError
from skelebot.options import Values
from skelebot.runs import collect
from skelebot.runs import store as stores
from skelebot.runs.record import RunRecord, view
from skelebot.runs.store import Store


def gc(session: Session, values: Values) -> int:
    if not values.get("older") and not values.get("keep"):
        raise UsageError("runs gc: say what may go, as in `--older 90d` or `--keep 20`")
    store, outputs_only = stores.opened(), bool(values.get("outputs-only"))
    root = checkout_or_all(session, bool(values.get("all")))
    runs = _expired(store, root, _age(values), int(str(values.get("keep") or 0)))
    sizes = [(run, collect.size(store, run, outputs_only)) for run in runs]
    if outputs_only:
        sizes = [(run, size) for run, size in sizes if size]
    environments = {} if outputs_only else collect.unused_environments(store, runs)
    _show(sizes, outputs_only, bool(values.get("json")))
    if environments:
        counted = console.counted(len(environments), "Python environment")
        console.info(f"{counted} that no other run has, {console.size(sum(environments.values()))}")
    if values.get("dry-run") or session.flags.dry_run:
        console.info("nothing was removed, because of --dry-run")
        return 0
    removed = 0
    for run, size in sizes:
        if collect.remove(store, run, outputs_only, session.flags):
            removed += size
        elif store.states([run.number]):
            console.info(f"run {run.number} stays, as it is in use again")
    removed += sum(size for path, size in environments.items() if collect.remove_environment(store, path))
    freed = collect.sweep(store)
    console.info(f"{console.size(removed + freed)} were removed")
    return 0


def _age(values: Values) -> int:
    text = str(values.get("older") or "0s")
    try:
        return units.age(text)
    except ValueError:
        raise UsageError(
            f"runs gc: --older: expected an age such as 90d or 12h; found {console.one_line(text)!r}"
        ) from None


def _expired(store: Store, root: str | None, older: int, keep: int) -> list[RunRecord]:
    needed = {number for run in store.find(states=("queued",)) for number in run.after}
    return collect.expired(store.find(root=root), time.time(), older, keep, needed)


def _show(sizes: list[tuple[RunRecord, int]], outputs_only: bool, as_json: bool) -> None:
    """Show what is about to go, with its bytes."""
    if as_json:
        console.out(json.dumps([{**view(run), "bytes": size} for run, size in sizes], indent=2))
        return
    rows = [
        (
            str(run.number),
            run.project,
            run.state,
            console.one_line(run.name or run.shown_chain),
            f"{console.duration(max(time.time() - (run.ended or run.created), 0))} ago",
            console.size(size),
        )
        for run, size in sizes
    ]
    console.table(("RUN", "PROJECT", "STATE", "CHAIN", "ENDED", "SIZE"), rows)
    what = "the outputs of " if outputs_only else ""
    total = console.size(sum(size for _, size in sizes))
    console.info(f"{what}{console.counted(len(sizes), 'run')}, {total}")
