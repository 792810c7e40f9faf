"""`runs rerun`: the same run again, at once or queued, and compared with the first bit by bit."""

import os

from skelebot import console
from skelebot.component import Session
from skelebot.components.runs import change
from skelebot.components.runs.look import number_of
from skelebot.errors import SkelebotError, UsageError
from skelebot.model import Flags
from skelebot.options import Values
from skelebot.runs import repeat, workspace
from skelebot.runs import store as stores
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store


def rerun(session: Session, values: Values) -> int:
    store = stores.opened()
    run, check = store.get(number_of(values)), bool(values.get("check"))
    if values.get("ignore") and not check:
        raise UsageError("runs rerun: --ignore names what --check leaves out; add --check")
    if check:
        _ensure_comparable(store, run)
    for line in repeat.other_machine(run):
        console.info(line)
    changes = repeat.changes(store, run, session.flags)
    for line in changes:
        console.warn(line)
    if changes and not values.get("anyway") and not session.flags.dry_run:
        raise SkelebotError(
            f"run {run.number} cannot be repeated as it was, see above; `--anyway` runs what there is now"
        )
    if session.flags.dry_run:
        console.out(f"run {run.shown_chain} again, as run {run.number} was")
        return 0
    again = _add(store, run, bool(values.get("now")) or check, session.flags)
    if not check and not values.get("now"):
        console.out(str(again.number))
        return 0
    code = change.run_now(store, again.number, session.flags, or_wait=check)
    if not check:
        return code
    ignored = values.get("ignore") or ()
    assert isinstance(ignored, tuple)
    return _compare(store, run, store.get(again.number), ignored)


def _add(store: Store, run: RunRecord, at_once: bool, flags: Flags) -> RunRecord:
    again = repeat.freeze(store, run, flags)
    try:
        (added,) = store.add([again.becoming("running") if at_once else again])
    except BaseException:
        workspace.release(store, again, flags)
        raise
    return added


# --- comparing ---


def _ensure_comparable(store: Store, run: RunRecord) -> None:
    """Raise SkelebotError where there is nothing of the first run to compare with."""
    if run.state != "done":
        raise SkelebotError(f"run {run.number} is {run.state}; --check compares with a run that is done")
    has_outputs = any(task.outputs for task in run.tasks)
    if has_outputs and not run.own and not any(task.made for task in run.tasks):
        raise SkelebotError(f"run {run.number} made nothing, as it was up to date; leave out --check")
    if has_outputs and not os.path.isdir(workspace.outputs_folder(store, run)):
        raise SkelebotError(f"the outputs of run {run.number} were removed; leave out --check")


def _compare(store: Store, run: RunRecord, again: RunRecord, ignored: tuple[str, ...]) -> int:
    if again.state != "done":
        console.error(f"run {again.number} is {again.state}, so it is not compared: {again.reason}")
        return 1
    found = repeat.compare(store, run, again, ignored)
    same = console.counted(len(found.same), "file") if run.own else ", ".join(found.same) or "nothing"
    if not found.differing:
        console.info(f"run {again.number} made the same as run {run.number}: {same}")
        return 0
    for name, how in found.differing.items():
        console.error(f"{name}: {how}")
    names = ", ".join(found.differing)
    console.info(f"run {again.number} differs from run {run.number} in {names}; the same: {same}")
    return 1
