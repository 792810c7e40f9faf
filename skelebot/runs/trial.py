"""A trial of a sweep: its values in its tasks, what it is equal to, and how good it is. Values alone."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from skelebot import options
from skelebot.model import Param
from skelebot.options import Value
from skelebot.project import plan
from skelebot.runs.record import Blank, RunRecord, TaskRecord

# --- its values ---


def with_values(run: RunRecord, values: Mapping[str, str]) -> RunRecord:
    """Return the run with its blanks filled in; values: texts by `job.param`."""
    found = [
        [
            (blank, options.value(blank.param, values[f"{task.job}.{blank.param.name}"]))
            for blank in task.blanks
        ]
        for task in run.tasks
    ]
    tasks = tuple(map(_filled, run.tasks, found))
    return replace(run, tasks=tasks, chain=_chain(run, found))


def _filled(task: TaskRecord, found: Sequence[tuple[Blank, Value]]) -> TaskRecord:
    if not found:
        return task
    argv = list(task.task.argv)
    for blank, value in reversed(found):  # so that the places of the others stay
        is_arg = blank.place is not None
        argv[blank.at : blank.at] = (
            [str(value)] if is_arg else plan.param_words(blank.param, value, blank.is_repeated)
        )
    params = {**dict(task.params), **{blank.param.name: value for blank, value in found}}
    work = replace(task.task, argv=tuple(argv))
    return replace(task, task=work, params=tuple(params.items()), blanks=())


def typed_words(param: Param, value: Value) -> list[str]:
    """Return the words by which a value is typed."""
    if isinstance(value, bool):
        return [param.flag] if value else [param.off] if param.off else []
    if isinstance(value, str) and not value.startswith("-") and value != "+":
        return [param.flag, value]
    equals = "=" if param.flag.startswith("--") else ""
    return [f"{param.flag}{equals}{text}" for text in ((value,) if isinstance(value, str) else value)]


def _chain(run: RunRecord, found: Sequence[Sequence[tuple[Blank, Value]]]) -> tuple[str, ...]:
    """Return the chain as it would be typed with these values for each task, in its links that were typed."""
    links: list[list[str]] = [[]]
    for word in run.chain:
        if word == "+":
            links.append([])
        else:
            links[-1].append(word)
    at = 0
    for task, pairs in zip(run.tasks, found, strict=True):
        if at < len(links) and links[at][:1] == [task.job]:  # otherwise another job needs it
            links[at] = _typed(links[at], pairs)
            at += 1
    return tuple(word for link in links for word in (*link, "+"))[:-1]


def _typed(link: list[str], found: Sequence[tuple[Blank, Value]]) -> list[str]:
    """Return the words of a link with these values. If an arg is swept, the other args are after a `--`."""
    job, *words = link
    more = [word for blank, value in found if blank.place is None for word in typed_words(blank.param, value)]
    if all(blank.place is None for blank, _ in found):
        return [job, *more, *words]
    at = words.index("--") if "--" in words else len(words)
    args = words[at + 1 :]
    for blank, value in found:
        if blank.place is not None:
            args.insert(blank.place, str(value))
    if any(text.startswith("-") or text == "+" for text in args):
        return [job, *more, *words[:at], "--", *args]
    return [job, *args, *more, *words[:at]]


def values_of(run: RunRecord) -> dict[str, str]:
    """Return the values of the swept params, as texts, of those that the run has."""
    assert run.sweep
    params = {f"{task.job}.{name}": value for task in run.tasks for name, value in task.params}
    return {name: text(params[name]) for name in run.sweep.params if name in params}


def text(value: Value) -> str:
    """Return a value as `options.value` reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    import shlex  # only for a list

    return shlex.join(value)


def identity(run: RunRecord) -> Hashable:
    """Return what two runs share that do the same: the files, images, arguments, variables and data."""
    tasks = tuple(
        (task.job, task.tree, task.image.pinned, task.task.argv, task.task.env, task.task.mounts)
        for task in run.tasks
    )
    return tasks, run.packages, run.variables, run.data, run.at_home().where


# --- how good it is ---


class Goal(NamedTuple):
    """What a sweep looks for: the lowest or the highest value of a metric."""

    metric: str
    is_max: bool

    @classmethod
    def parse(cls, text: str) -> "Goal":
        """Read `min:loss` or `max:f1`. Raises ValueError."""
        direction, _, metric = text.partition(":")
        if direction not in ("min", "max") or not metric:
            raise ValueError("min:METRIC or max:METRIC, such as min:loss")
        return cls(metric, direction == "max")

    def value(self, run: RunRecord) -> float | None:
        """Return the last number that a run has measured; None where there is none, or it is not finite."""
        metric = run.metrics.get(self.metric)
        return metric.last if metric and metric.last is not None and math.isfinite(metric.last) else None

    def rank(self, run: RunRecord) -> tuple[bool, float, int]:
        """Return by what runs are sorted, the best first: those without a value last."""
        value = self.value(run)
        number = 0.0 if value is None else -value if self.is_max else value
        return value is None, number, run.number


def ranked(runs: Iterable[RunRecord], goal: Goal | None) -> list[RunRecord]:
    """Return the runs of a sweep, the best first; without a goal, the first one first."""
    return sorted(runs, key=goal.rank if goal else lambda run: (False, 0.0, run.number))


def goal_of(runs: Iterable[RunRecord]) -> Goal | None:
    """Return the goal of a sweep: the one that the last of its trials has."""
    goals = {run.number: run.sweep.goal for run in runs if run.sweep and run.sweep.goal}
    return Goal.parse(goals[max(goals)]) if goals else None
