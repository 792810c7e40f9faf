"""The facts of a run: what was frozen, and how far it is. Frozen values, stored as JSON."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from skelebot.model import NATIVE, Image, Param, Place, Task

State = Literal["queued", "running", "done", "failed", "stopped", "pruned"]
STATES: tuple[str, ...] = get_args(State)

# What a run may become. A running one is queued again if its processes died.
NEXT: dict[State, tuple[State, ...]] = {
    "queued": ("running", "stopped"),
    "running": ("done", "failed", "stopped", "pruned", "queued"),
    "failed": ("queued",),
    "stopped": ("queued",),
    "pruned": ("queued",),
    "done": (),
}


@dataclass(frozen=True)
class Metric:
    """What was measured under a name: how often, and the last, the lowest and the highest number.

    A number is None where it is not finite, which JSON cannot hold. step: that of the last line that had one.
    """

    name: str
    last: float | None
    min: float | None
    max: float | None
    count: int
    step: float | None = None


@dataclass(frozen=True)
class Sweep:
    """The sweep that a run is a trial of; all of its trials have the same.

    params: the swept ones, as `job.param`. goal: `min:METRIC` or `max:METRIC`, "" where there is none.
    sampler, seed: what draws the values, and values: from what, as a text for each param; empty where they
    were listed. trials: how many there are in all. prune: what ends hopeless trials. fail_fast: whether the
    first failure stops the rest.
    """

    name: str
    params: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    goal: str = ""
    sampler: str = ""
    seed: int = 0
    trials: int = 0
    prune: str = ""
    fail_fast: bool = False


@dataclass(frozen=True)
class Blank:
    """Where the words of a swept param or arg belong in a task's arguments, which do not have them yet.

    at: before which of these. is_repeated: whether a list's option stands before each of its values. place:
    which of the job's args it is, from 0; None for a param.
    """

    param: Param
    at: int
    is_repeated: bool = False
    place: int | None = None


@dataclass(frozen=True)
class TaskRecord:
    """One link of a run's chain.

    tree: the id of its files' snapshot. image, task: as they would run in the checkout. params: the values of
    its arguments and options by name. attempt: the number of the last one; failures: how many of them failed,
    of which it may have `retries` more. lost: whether one died with its processes. code: of the last attempt.
    cache: whether it takes over the outputs of the same task of another run.
    started, ended: of the last attempt, in seconds since 1970. key: of what decides its outputs; made: their
    fingerprint once it is done, or one for each where they are in the checkout; taken_from: the number of the
    run whose outputs it has taken over.
    machine: what the last attempt ran on, as `machine.of` gives it.
    blanks: of params whose values are chosen when the run starts.
    metrics: of the last attempt; bad_lines: how many lines of metrics could not be read; progress: how far it
    says it is, from 0 to 1. metric_files, metric_patterns: where they come from besides the file that the
    job is given: files that it leaves, and its output.
    """

    job: str
    tree: str
    image: Image
    task: Task
    params: tuple[tuple[str, Any], ...] = ()
    outputs: tuple[str, ...] = ()
    retries: int = 0
    cache: bool = False
    state: State = "queued"
    attempt: int = 0
    failures: int = 0
    lost: bool = False
    code: int | None = None
    started: float = 0.0
    ended: float = 0.0
    key: str = ""
    made: str = ""
    taken_from: int = 0
    machine: tuple[tuple[str, str], ...] = ()
    metrics: tuple[Metric, ...] = ()
    bad_lines: int = 0
    progress: float = 0.0
    metric_files: tuple[str, ...] = ()
    metric_patterns: tuple[tuple[str, str], ...] = ()
    blanks: tuple[Blank, ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long the last attempt has taken, or takes so far."""
        if not self.started:
            return None
        return max((self.ended or time.time()) - self.started, 0.0)


@dataclass(frozen=True)
class RunRecord:
    """One execution of a chain with its values.

    number: in this store; uid: in all of them. root: of the checkout that it was frozen from. chain: as
    typed. env: as -e names it. after: the numbers of the runs that it waits for. parent: the number of the
    run that it repeats. dirty: whether the checkout differed from the commit; None where that is unknown.
    images: their ids, by their names. packages: what is installed in them or in the environments, as ids of
    lists. variables: what the tasks take from elsewhere, with a keyed hash of each value. data: the
    fingerprints of read-only mappings. where: its tasks' places, as text. taken_to: the engines of other
    machines to which workers have taken it, which may still have its images. asked: what a running one is
    asked to become. own: whether its processes write to folders of its own; otherwise to the checkout. sweep:
    what it is a trial of. notify: the shell command to run at its end. mlflow: the address of the server that
    it is mirrored to; mlflow_run: its id there. kept_as: by which name its code and images are kept, of runs
    that share these; "" is its uid.
    """

    uid: str
    project: str
    root: str
    chain: tuple[str, ...]
    tasks: tuple[TaskRecord, ...]
    number: int = 0
    name: str = ""
    state: State = "queued"
    priority: int = 0
    tags: tuple[str, ...] = ()
    note: str = ""
    after: tuple[int, ...] = ()
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    commit: str = ""
    branch: str = ""
    remote: str = ""
    env: str = ""
    dirty: bool | None = None
    images: tuple[tuple[str, str], ...] = ()
    packages: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    data: tuple[tuple[str, str], ...] = ()
    where: str = ""
    taken_to: tuple[Place, ...] = ()
    parent: int = 0
    reason: str = ""
    asked: Literal["", "stop", "queue", "prune"] = ""
    own: bool = True
    sweep: Sweep | None = None
    notify: str = ""
    mlflow: str = ""
    mlflow_run: str = ""
    kept_as: str = ""

    @property
    def has_ended(self) -> bool:
        return self.state not in ("queued", "running")

    @property
    def metrics(self) -> dict[str, Metric]:
        """What was measured, by name; of two tasks that measure the same, the later one's."""
        return {metric.name: metric for task in self.tasks for metric in task.metrics}

    @property
    def names(self) -> tuple[str, ...]:
        """Return a name for each task: its job's, numbered from the second time that the chain has it."""
        return task_names([task.job for task in self.tasks])

    @property
    def shown_chain(self) -> str:
        return " ".join(self.chain)

    @property
    def is_movable(self) -> bool:
        """Whether it can be taken to an engine of another machine: it was frozen for the default one."""
        return self.own and all(task.task.place in (Place(), *self.taken_to) for task in self.tasks)

    @property
    def engine(self) -> Place | None:
        """The engine with an address at which all of its tasks run; None for this machine's."""
        places = {task.task.place for task in self.tasks}
        return next(iter(places)) if len(places) == 1 and not places & {Place(), NATIVE} else None

    def at_place(self, place: Place) -> "RunRecord":
        """Return the run with its tasks in another place, as far as they can be elsewhere."""
        movable = (Place(), *self.taken_to)
        tasks = tuple(
            replace(each, task=replace(each.task, place=place)) if each.task.place in movable else each
            for each in self.tasks
        )
        taken_to = self.taken_to if place == Place() else tuple(dict.fromkeys((*self.taken_to, place)))
        where = ", ".join(dict.fromkeys(str(each.task.place) for each in tasks))
        return replace(self, tasks=tasks, where=where, taken_to=taken_to)

    def at_home(self) -> "RunRecord":
        """Return the run with its tasks where they were frozen for."""
        return self.at_place(Place()) if self.taken_to else self

    def with_task(self, at: int, **changes: Any) -> "RunRecord":
        """Return the run with changes to one of its tasks."""
        tasks = list(self.tasks)
        tasks[at] = replace(tasks[at], **changes)
        return replace(self, tasks=tuple(tasks))

    def becoming(self, state: State, reason: str = "") -> "RunRecord":
        """Return the run in another state. Raises ValueError for one that it cannot become."""
        if state not in NEXT[self.state]:
            raise ValueError(f"a run that is {self.state} cannot become {state}")
        now = time.time()
        ended = now if state not in ("queued", "running") else 0.0
        started = now if state == "running" else 0.0 if state == "queued" else self.started
        run = self.at_home() if state == "queued" else self
        return replace(run, state=state, reason=reason, started=started, ended=ended, asked="")

    def asked_to(self, what: Literal["stop", "queue", "prune"]) -> "RunRecord":
        """Return a running run with what it is asked to become."""
        return replace(self, asked=what) if self.state == "running" else self


def task_names(jobs: Sequence[str]) -> tuple[str, ...]:
    """Return a name for each task of a chain, by their jobs, as `RunRecord.names`."""
    counts = [jobs[: at + 1].count(job) for at, job in enumerate(jobs)]
    return tuple(f"{job}#{n}" if n > 1 else job for job, n in zip(jobs, counts, strict=True))


def iso(seconds: float) -> str | None:
    """Return a time in ISO 8601, UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else None


def view(run: RunRecord) -> dict[str, Any]:
    """Return what `--json` and the Python API give of a run."""
    return {
        "run": run.number,
        "uid": run.uid,
        "project": run.project,
        "name": run.name or None,
        "sweep": run.sweep.name if run.sweep else None,
        "state": run.state,
        "chain": run.shown_chain,
        "tags": list(run.tags),
        "note": run.note or None,
        "priority": run.priority,
        "created": iso(run.created),
        "started": iso(run.started),
        "ended": iso(run.ended),
        "seconds": seconds(run),
        "commit": run.commit or None,
        "dirty": run.dirty,
        "tree": run.tasks[0].tree or None,
        "image": next((id for _, id in run.images), None),
        "where": run.where,
        "parent": run.parent or None,
        "params": {name: dict(task.params) for name, task in zip(run.names, run.tasks, strict=True)},
        "metrics": {
            name: {"last": metric.last, "min": metric.min, "max": metric.max, "count": metric.count}
            for name, metric in run.metrics.items()
        },
        "tasks": [
            {
                "job": task.job,
                "state": task.state,
                "attempt": task.attempt,
                "code": task.code,
                "seconds": None if task.seconds is None else round(task.seconds, 3),
                "progress": task.progress or None,
                "bad_lines": task.bad_lines,
            }
            for task in run.tasks
        ],
        "reason": run.reason or None,
    }


def seconds(run: RunRecord) -> float | None:
    """Return how long a run has taken, or takes so far, in seconds."""
    if not run.started:
        return None
    return round(max((run.ended or time.time()) - run.started, 0.0), 3)
