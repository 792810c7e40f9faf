"""The project's file with an environment's file over it; imported only where there is an environment."""

import re
import typing
from dataclasses import is_dataclass
from typing import Any, TypeAlias

import yaml

from skelebot.model import REFERENCE, Job, Project
from skelebot.project import schema
from skelebot.project.nodes import TAG, Report, is_null, items, join
from skelebot.project.sources import job_params, script

_KEY = "merge"
_Pair: TypeAlias = tuple[yaml.Node, yaml.Node]  # a key with its value


def overlaid(base: yaml.Node, over: yaml.Node, report: Report) -> yaml.Node:
    """Return the base with each key of the environment merged into it, or in its place without `merge`."""
    keys = [pair for pair in items(over, "", report) if pair[0].value != _KEY]
    without_merge = yaml.MappingNode(over.tag, keys, over.start_mark, over.end_mark)
    report.has_merged = merges(over, report)
    return _Overlay(report, report.has_merged).mapping(base, without_merge, Project, "")


def merges(over: yaml.Node, report: Report) -> bool:
    """Tell whether an environment's file is merged with the base, key by key."""
    for name, value in items(over, "", report):
        if name.value == _KEY and not is_null(value):
            return schema.value(value, bool, _KEY, report) is True
    return False


class _Overlay:
    """Put the nodes of one file over those of another. The nodes of both files stay as they are."""

    def __init__(self, report: Report, is_deep: bool) -> None:
        self._report, self._is_deep = report, is_deep
        # Aliases may bring the same two nodes together exponentially often; they are merged once.
        self._known: dict[tuple[int, int, Any], yaml.Node] = {}

    def mapping(self, base: yaml.Node, over: yaml.Node, want: Any, path: str) -> yaml.Node:
        """Return the keys of both in the base's order, the new ones last; `want` is the schema's type."""
        record = _record_in(want)
        fields = dict(schema.keys(record)) if record else {}
        now = {str(field.metadata["old"]): name for name, field in fields.items() if field.metadata["old"]}
        new: dict[Any, _Pair] = {}
        for pair in items(over, path, self._report):
            key = now.get(str(pair[0].value), str(pair[0].value))
            new[id(pair) if key in new else key] = pair  # both spellings in one file stay a mistake
        pairs = []
        for pair in items(base, path, self._report):
            key = now.get(str(pair[0].value), str(pair[0].value))
            above, below = new.pop(key, None), fields[key].type if key in fields else None
            pairs.append(self._pair(pair, above, below, join(path, key)) if above else pair)
        return yaml.MappingNode(TAG + "map", [*pairs, *new.values()], base.start_mark, base.end_mark)

    def _pair(self, base: _Pair, over: _Pair, want: Any, path: str) -> _Pair:
        if not self._is_deep:
            return over
        if base[0].value == "name" and base[1].value == over[1].value:
            return base  # the other only says which entry is meant
        return over[0], self._node(base[1], over[1], want, path)

    def _node(self, base: yaml.Node, over: yaml.Node, want: Any, path: str) -> yaml.Node:
        known = (id(base), id(over), want)
        if known not in self._known:
            self._known[known] = self._merged(base, over, want, path)
        return self._known[known]

    def _merged(self, base: yaml.Node, over: yaml.Node, want: Any, path: str) -> yaml.Node:
        own, new = self._named(base, want, path), self._named(over, want, path)
        if own is not None and new is not None:
            entries = self._list(own, new, _record_in(want), path)
            return yaml.SequenceNode(TAG + "seq", entries, base.start_mark, base.end_mark)
        if isinstance(base, yaml.MappingNode) and isinstance(over, yaml.MappingNode):
            return self.mapping(base, over, want, path)
        return over

    def _named(self, node: yaml.Node, want: Any, path: str) -> list[yaml.Node] | None:
        """Return the entries of a list of named things, and None of anything else.

        Where the schema does not know the list, each entry must have a name that no other has.
        """
        record = _record_in(want) if typing.get_origin(want) is tuple else None
        is_known = record is not None and "name" in dict(schema.keys(record))
        if is_known and isinstance(node, yaml.MappingNode):
            return [node]  # accepted in place of a list
        if not isinstance(node, yaml.SequenceNode):
            return None
        names = {name.value for entry in node.value if (name := self._name(entry, path))}
        return node.value if is_known or len(names) == len(node.value) else None

    def _list(
        self, base: list[yaml.Node], over: list[yaml.Node], record: type | None, path: str
    ) -> list[yaml.Node]:
        new: dict[Any, yaml.Node] = {}
        for entry in over:
            name = self._name(entry, path)
            if name is not None and name.value in new:
                self._report.problem(name, path, f"there is already an entry named {name.value!r}")
            new[name.value if name else id(entry)] = entry
        entries = []
        for i, entry in enumerate(base):
            name = self._name(entry, path)
            over_it = new.pop(name.value, None) if name else None
            entries.append(self._node(entry, over_it, record, f"{path}[{i}]") if over_it else entry)
        return [*entries, *new.values()]

    def _name(self, entry: yaml.Node, path: str) -> yaml.ScalarNode | None:
        """Return what an entry of a list says as its `name`."""
        pairs = items(entry, path, self._report) if isinstance(entry, yaml.MappingNode) else ()
        for name, value in pairs:
            if name.value == "name" and isinstance(value, yaml.ScalarNode) and not is_null(value):
                return value
        return None


def _record_in(want: Any) -> type | None:
    """Return the record that a type is or holds, as in `tuple[Job, ...]`."""
    return next((w for w in (want, *typing.get_args(want)) if isinstance(w, type) and is_dataclass(w)), None)


# --- variables that an environment loses ---


def warn_of_lost_variables(base: yaml.Node, over: yaml.Node, project: Project, report: Report) -> None:
    """Warn of the base's variables that jobs refer to and the environment's own `environment` leaves out."""
    before, now = _environment(base, report), _environment(over, report)
    if merges(over, report) or not before or not now or not isinstance(before[1], yaml.MappingNode):
        return
    kept = dict(project.environment)
    for variable, value in items(before[1], "environment", report):
        job = None if variable.value in kept else _referring(project, variable.value, not is_null(value))
        if job:
            report.warning(
                now[0],
                "environment",
                f"{variable.value} is no longer set, but {job.name} refers to it; "
                "repeat it here, or add `merge: true`",
            )


def _environment(node: yaml.Node, report: Report) -> _Pair | None:
    return next((pair for pair in items(node, "", report) if pair[0].value == "environment"), None)


def _referring(project: Project, variable: str, has_value: bool) -> Job | None:
    """Return the first job that names a variable as $NAME or ${NAME} and does not get it otherwise.

    A file of variables may hold it. So may the caller's variables, which a param's default refers to
    as well; has_value: whether it was more than the caller's own.
    """
    for job in () if project.env_file or project.dotenv else project.jobs:
        if job.env_file or variable in dict(job.environment):
            continue
        sources = (source for source in (job.source, job.validate) if source)
        lines = "\n".join(source for source in sources if script(project.root, source) is None)
        names = [m[1] or m[2] for m in re.finditer(rf"(?<!\\){REFERENCE}", lines, re.ASCII)]
        names += [p.reference for p in job_params(project, job) if has_value and p.reference]
        if variable in names:
            return job
    return None
