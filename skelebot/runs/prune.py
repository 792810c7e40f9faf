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


def behind(own: float, step: float, others: Sequence[Curve], is_max: bool) -> float | None:
    """Return the others' median if a trial is hopeless; None if it may go on.

    own: its best number so far, with that of the others up to the same step is compared, as single
    numbers vary. others: of trials that are done.
    """
    known = [best for each in others if (best := _best_up_to(each, step, is_max)) is not None]
    if len(known) < TRIALS:
        return None
    middle = median(known)
    return middle if (own < middle if is_max else own > middle) else None


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
    measured = {metric.name: metric for metric in run.tasks[at].metrics}.get(goal.metric)
    own = (measured.max if goal.is_max else measured.min) if measured else None
    if not measured or own is None or measured.count < POINTS:
        return ""
    step = measured.count - 1 if measured.step is None else measured.step
    others = store.find(root=run.root, sweep=run.sweep.name, states=("done",))
    curves = [_ended(_file(store, each, at), goal.metric) for each in others if len(each.tasks) > at]
    middle = behind(own, step, curves, goal.is_max)
    if middle is None:
        return ""
    return (
        f"its best {goal.metric} up to step {step:g} is {own:.6g}; the median of the sweep's other runs is "
        f"{middle:.6g}"
    )


def _file(store: Store, run: RunRecord, at: int) -> str:
    return workspace.metrics_file(workspace.attempt_of(store, run, at))


@cache  # it has ended
def _ended(path: str, metric: str) -> Curve:
    return metrics.series(path).get(metric, [])
