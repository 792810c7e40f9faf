"""Which components there are, which are active, and what they offer together."""

import importlib
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

from skelebot import console, schema
from skelebot.component import Activation, Command, Component, Session
from skelebot.config import FILE
from skelebot.model import Project
from skelebot.options import Values


@dataclass(frozen=True)
class Entry:
    """A component by its name, without importing it; `commands` are the names of its commands."""

    name: str
    target: str
    activation: Activation
    commands: tuple[str, ...] = ()

    def load(self) -> type[Component]:
        module, _, name = self.target.partition(":")
        return cast(type[Component], getattr(importlib.import_module(module), name))


BUILT_IN = (
    Entry("jobs", "skelebot.components.jobs:Jobs", Activation.PROJECT),
    Entry("ports", "skelebot.components.ports:Ports", Activation.PROJECT),
    Entry(
        "containers",
        "skelebot.components.containers:Containers",
        Activation.PROJECT,
        ("ps", "logs", "stop", "exec", "clean"),
    ),
    Entry("kerberos", "skelebot.components.kerberos:Kerberos", Activation.CONFIGURED),
    Entry(
        "repository",
        "skelebot.components.repository:Repository",
        Activation.CONFIGURED,
        ("push", "pull", "artifacts"),
    ),
)

_OWN_COMMANDS = ("schema",)


def active(project: Project | None, report: schema.Report) -> tuple[Component, ...]:
    """The components that take part, with their settings; what is wrong with those is reported."""
    sections = dict(project.components) if project else {}
    if project:
        _check_names(project, report)
    made = []
    for entry in BUILT_IN:
        if entry.activation in _activations(project, entry, sections):
            component = _configured(entry.load(), entry.name, sections.get(entry.name), report)
            if component is not None:
                made.append(component)
    return tuple(made)


def _activations(project: Project | None, entry: Entry, sections: dict[str, Any]) -> tuple[Activation, ...]:
    if project is None:
        return (Activation.ALWAYS, Activation.OUTSIDE)
    configured = (Activation.CONFIGURED,) if entry.name in sections else ()
    return (Activation.ALWAYS, Activation.PROJECT, *configured)


def _configured(cls: type[Component], name: str, node: Any, report: schema.Report) -> Component | None:
    if node is None or not is_dataclass(cls):
        return cls()
    path = f"components.{name}"
    before = len(report.problems)
    component = cast("Component | None", schema.record(node, cls, path, report))
    if component is not None and len(report.problems) == before:
        for problem in component.problems():
            report.problem(node, path, problem)
    return component


def _check_names(project: Project, report: schema.Report) -> None:
    sections = dict(project.components)
    offered = (e for e in BUILT_IN if e.activation in _activations(project, e, sections))
    reserved = {*_OWN_COMMANDS, *(name for entry in offered for name in entry.commands)}
    for job in project.jobs:
        if job.name in reserved:
            report.problems.append(
                f"{job.place}.name: {job.name!r} is a command of Skelebot; choose another name"
            )
    known = {entry.name for entry in BUILT_IN}
    for name, node in project.components:
        if name not in known:
            hint = schema.did_you_mean(name, known)
            text = f"unknown component, whose plugin may not be installed{hint}"
            report.warning(node, schema.join("components", name), text)


def commands(project: Project | None, components: tuple[Component, ...]) -> dict[str, Command]:
    """Every command that is offered, by name: the project's jobs first."""
    found = {c.name: c for component in components for c in component.commands(project)}
    return found | {"schema": _SCHEMA}


# --- the schema: only the catalog knows every component ---


def json_schema() -> dict[str, Any]:
    """The JSON Schema of skelebot.yaml with the settings of every built-in component."""
    whole = schema.json_schema(Project)
    settings: dict[str, Any] = {}
    for entry in BUILT_IN:
        cls = entry.load()
        if is_dataclass(cls) and fields(cls):
            settings[entry.name] = schema.json_schema(cls)
    described = {"description": "Settings of the components, by name"}
    sections = {"type": ["object", "null"], "properties": settings}
    whole["properties"]["components"] = sections | described
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": FILE, **whole}


def _print_schema(session: Session, values: Values) -> int:
    import json

    console.out(json.dumps(json_schema(), indent=2))
    return 0


_SCHEMA = Command("schema", "Print the JSON Schema of skelebot.yaml, for editors", _print_schema)
