"""What differs between two runs. Takes and returns values alone; of code it knows just the listings."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from skelebot.runs.record import RunRecord, TaskRecord, seconds
from skelebot.runs.snapshot import Entry
from skelebot.secret import Secret, display_text

Kind = Literal[
    "jobs",
    "params",
    "metrics",
    "command",
    "where",
    "image",
    "packages",
    "variables",
    "data",
    "duration",
    "machine",
]

SECRET, OTHER_SECRET, UNKNOWN_SECRET = "a secret", "another secret", "a secret of another store"


class Difference(NamedTuple):
    """One fact in which two runs differ; before, after: None where a run does not have it."""

    kind: Kind
    name: str
    before: Any
    after: Any


def differences(
    a: RunRecord,
    b: RunRecord,
    packages: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> list[Difference]:
    """Return in which facts two runs differ, besides their code.

    packages: the versions of what is installed for each, by name, as far as that is known.
    """
    tables: dict[Kind, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "jobs": ({"": _jobs(a)}, {"": _jobs(b)}),
        "params": (params(a), params(b)),
        "metrics": (metrics(a), metrics(b)),
        "command": _commands(a, b),
        "where": (_place(a), _place(b)),
        "image": (dict(a.images), dict(b.images)),
        "packages": packages,
        "variables": _variables(a, b),
        "data": (data(a), data(b)),
        "duration": ({"": seconds(a)}, {"": seconds(b)}),
        "machine": _machines(a, b),
    }
    return [each for kind, (before, after) in tables.items() for each in _differing(kind, before, after)]


def is_same(found: list[Difference]) -> bool:
    """Tell whether none of the differences matters: no two runs take equally long, and any machine may do."""
    return all(each.kind in ("duration", "machine") for each in found)


def _differing(kind: Kind, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Difference(kind, name, before.get(name), after.get(name))


def _tasks(run: RunRecord) -> dict[str, TaskRecord]:
    return dict(zip(run.names, run.tasks, strict=True))


def _jobs(run: RunRecord) -> str:
    return " + ".join(task.job for task in run.tasks)


def params(run: RunRecord) -> dict[str, Any]:
    """Return the parameters of all tasks by `job.name`."""
    return {f"{of}.{name}": value for of, task in _tasks(run).items() for name, value in task.params}


def metrics(run: RunRecord) -> dict[str, Any]:
    """Return the last value of each metric; as text where it is not finite."""
    return {name: "nan" if each.last is None else each.last for name, each in run.metrics.items()}


def machine(tasks: Iterable[TaskRecord]) -> dict[str, str]:
    """Return what of a machine a result may depend on, by name; all of it where tasks ran on several."""
    found: dict[str, dict[str, None]] = {}
    for name, text in (each for task in tasks for each in task.machine):
        found.setdefault(name, {})[text] = None
    return {name: ", ".join(texts) for name, texts in found.items()}


def _machines(a: RunRecord, b: RunRecord) -> tuple[dict[str, str], dict[str, str]]:
    """Return the machines of both, unless one of them has not begun or does not know."""
    before, after = machine(a.tasks), machine(b.tasks)
    return (before, after) if before and after else ({}, {})


def _commands(a: RunRecord, b: RunRecord) -> tuple[dict[str, str], dict[str, str]]:
    """Return the command lines of those jobs whose parameters do not explain how they differ."""
    first, second = _tasks(a), _tasks(b)
    unexplained = [name for name in first if name in second and first[name].params == second[name].params]
    before, after = ({name: _command(of[name]) for name in unexplained} for of in (first, second))
    return before, after


def _command(task: TaskRecord) -> str:
    return " ".join(map(display_text, task.task.argv))


def _place(run: RunRecord) -> dict[str, str]:
    return {"place": run.where, "environment": run.env}


def _variables(a: RunRecord, b: RunRecord) -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables of both, of a secret only whether it is the same one."""
    hashes_a, hashes_b = dict(a.variables), dict(b.variables)
    before, after = (
        plain_variables(a) | dict.fromkeys(hashes_a, SECRET),
        plain_variables(b) | dict.fromkeys(hashes_b, SECRET),
    )
    for name in hashes_a.keys() & hashes_b.keys():
        if not (hashes_a[name] and hashes_b[name]):
            after[name] = UNKNOWN_SECRET
        elif hashes_a[name] != hashes_b[name]:
            after[name] = OTHER_SECRET
    return before, after


def plain_variables(run: RunRecord) -> dict[str, str]:
    """Return the variables by name; where tasks have different values of one, by `job.name`."""
    found: dict[str, dict[str, str]] = {}
    for of, task in _tasks(run).items():
        for name, value in task.task.env:
            if not isinstance(value, Secret):
                found.setdefault(name, {})[of] = value
    return {
        name if len(set(values.values())) == 1 else f"{of}.{name}": value
        for name, values in found.items()
        for of, value in values.items()
    }


def data(run: RunRecord) -> dict[str, str]:
    """Return the fingerprints of mapped files, by their names."""
    return {data_name(run, source): fingerprint or "missing" for source, fingerprint in run.data}


def data_name(run: RunRecord, source: str) -> str:
    """Return the path of what is mapped: from the project's root if it is in the project."""
    inside = os.path.relpath(source, run.root)
    return source if inside.startswith("../") else inside


# --- code ---


def pairs_of_trees(a: RunRecord, b: RunRecord) -> dict[tuple[str, str], list[str]]:
    """Return the pairs of snapshots that differ, each with the jobs that had them."""
    before, found = _tasks(a), dict[tuple[str, str], list[str]]()
    for name, task in _tasks(b).items():
        pair = before.get(name, a.tasks[0]).tree, task.tree
        if pair[0] != pair[1]:
            found.setdefault(pair, []).append(name)
    return found


def changed_files(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> dict[str, str]:
    """Return what has become of each path that differs: added, removed, changed, or mode."""
    found = {}
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            found[path] = "added" if old is None else "removed"
        elif old != new:
            found[path] = "mode" if (old.id, old.size) == (new.id, new.size) else "changed"
    return found
