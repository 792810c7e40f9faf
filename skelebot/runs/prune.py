"""Whether a trial is hopeless: worse than half of the others were at the same step."""

from collections.abc import Sequence
from functools import cache
from statistics import median

from skelebot.runs import metrics, workspace
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store
from skelebot.runs.trial import Goal

TRIALS = 5  # that are done and got as far, before any is ended
POINTS = 3  # that a trial has measured itself, before it is ended

# Pairs of a step and a number.
Curve = Sequence[tuple[float, float]]


def behind(own: Curve, others: Sequence[Curve], is_max: bool) -> tuple[float, float] | None:
    """Return the best number of a hopeless trial so far, and the others' median; None if it may go on.

    The best up to the same step is compared, as single numbers vary. others: of trials that are done.
    """
    if len(own) < POINTS:
        return None
    step = max(step for step, _ in own)
    known = [best for each in others if (best := _best_up_to(each, step, is_max)) is not None]
    mine = _best_up_to(own, step, is_max)
    if mine is None or len(known) < TRIALS:
        return None
    middle = median(known)
    return (mine, middle) if (mine < middle if is_max else mine > middle) else None


def _best_up_to(curve: Curve, step: float, is_max: bool) -> float | None:
    """Return the best number up to a step; None for a curve that does not get as far."""
    if not curve or max(at for at, _ in curve) < step:
        return None
    numbers = [number for at, number in curve if at <= step]
    return (max if is_max else min)(numbers, default=None)


# --- of a run ---


def hopeless(store: Store, run: RunRecord) -> str:
    """Return why a run should end before its time, by what it has measured so far; "" if it may go on.

    It is asked after each change of the metrics, in a thread beside the run's own.
    """
    at = next((at for at, task in enumerate(run.tasks) if task.state == "running"), None)
    if run.sweep is None or not run.sweep.prune or at is None:
        return ""
    goal = Goal.parse(run.sweep.goal)
    own = metrics.series(_file(store, run, at)).get(goal.metric, [])
    if len(own) < POINTS:
        return ""
    others = store.find(root=run.root, sweep=run.sweep.name, states=("done",))
    curves = [_ended(_file(store, each, at), goal.metric) for each in others if len(each.tasks) > at]
    if (found := behind(own, curves, goal.is_max)) is None:
        return ""
    mine, middle = found
    return (
        f"its best {goal.metric} up to step {own[-1][0]:g} is {mine:.6g}; the median of the sweep's other "
        f"runs is {middle:.6g}"
    )


def _file(store: Store, run: RunRecord, at: int) -> str:
    return workspace.metrics_file(workspace.attempt_of(store, run, at))


@cache  # it has ended
def _ended(path: str, metric: str) -> Curve:
    return metrics.series(path).get(metric, [])
