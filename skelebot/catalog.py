"""The components: which exist, which are active, and what they offer together."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from skelebot import console
from skelebot.component import Activation, Command, Component, Session
from skelebot.model import Project
from skelebot.options import Values
from skelebot.project import nodes, schema
from skelebot.project.nodes import Report
from skelebot.project.read import FILE

if TYPE_CHECKING:
    from skelebot.plugins.guard import Guard  # imported at a start only if there are plugins


class BuiltIn(NamedTuple):
    """A built-in component, by name, not yet imported.

    commands: the names of its commands. needs_valid_config: whether they run only where the
    configuration is valid; the others run anyway, then without a project and without plugins. So do those
    in `anyway`.
    """

    name: str
    target: str
    activation: Activation
    commands: tuple[str, ...] = ()
    needs_valid_config: bool = True
    anyway: tuple[str, ...] = ()

    def load(self) -> type[Component]:
        module, _, name = self.target.partition(":")
        return cast(type[Component], getattr(importlib.import_module(f"skelebot.components.{module}"), name))


_OF_RUNS = ("ps", "logs", "wait", "send", "stop", "exec", "clean", "worker", "runs", "ui")

_OF_SCHEDULES = ("deploy", "pause", "resume", "undeploy")

BUILT_IN = (
    BuiltIn("jobs", "jobs:Jobs", Activation.PROJECT, ("why", "graph", "queue", *_OF_SCHEDULES)),
    BuiltIn("ports", "ports:Ports", Activation.PROJECT),
    BuiltIn("experiments", "runs:Runs", Activation.ALWAYS, _OF_RUNS, anyway=("runs", "ui")),
    BuiltIn("kerberos", "kerberos:Kerberos", Activation.CONFIGURED),
    BuiltIn("prime", "prime:Prime", Activation.PROJECT, ("prime",)),
    BuiltIn("scaffold", "scaffold:Scaffold", Activation.ALWAYS, ("scaffold", "template")),
    BuiltIn("jupyter", "jupyter:Jupyter", Activation.PROJECT, ("jupyter",)),
    BuiltIn("repository", "repository:Repository", Activation.CONFIGURED, ("push", "pull", "artifacts")),
    BuiltIn("registry", "registry:Registry", Activation.CONFIGURED, ("publish",)),
    BuiltIn("cluster", "cluster:ClusterSettings", Activation.CONFIGURED, ("cluster",)),
    BuiltIn("plugin", "plugin:PluginCommand", Activation.ALWAYS, ("plugin",), needs_valid_config=False),
    BuiltIn("doctor", "doctor:Doctor", Activation.ALWAYS, ("doctor",), needs_valid_config=False),
    BuiltIn("bump", "bump:Bump", Activation.PROJECT, ("bump",)),
    BuiltIn("environments", "environments:Environments", Activation.PROJECT, ("envs", "config")),
    BuiltIn(
        "completion", "completion:Completion", Activation.ALWAYS, ("completion",), needs_valid_config=False
    ),
    BuiltIn("package", "package:Package", Activation.PROJECT, ("package",)),
)

_OWN_COMMANDS = ("schema",)

# Components of former versions, and where their settings belong today.
_FORMER = {"artifactory": "is ignored; move it below `repository:`, and its `artifacts` beside it"}


def needs_valid_config(command: str) -> bool:
    """Whether a command needs a valid configuration."""
    others = (entry.anyway if entry.needs_valid_config else entry.commands for entry in BUILT_IN)
    return command not in (*_OWN_COMMANDS, *(name for names in others for name in names))


def active(project: Project | None, report: Report, plugins: "Sequence[Guard]" = ()) -> tuple[Component, ...]:
    """Return the active components with their settings, and report mistakes in those.

    plugins: the installed ones; they are activated like built-in components.
    """
    sections = dict(project.components) if project else {}
    if project:
        _check_names(project, report, plugins)
    made = []
    for entry in BUILT_IN:
        if entry.activation in _activations(project, entry.name, sections):
            component = _configured(entry.load(), entry.name, sections.get(entry.name), report)
            if component is not None:
                made.append(component)
    for guard in _without_clashes(plugins):
        if component := _plugged_in(guard, project, sections, report):
            made.append(component)
    return tuple(made)


def _activations(project: Project | None, name: str, sections: dict[str, Any]) -> tuple[Activation, ...]:
    if project is None:
        return (Activation.ALWAYS, Activation.OUTSIDE)
    configured = (Activation.CONFIGURED,) if name in sections else ()
    return (Activation.ALWAYS, Activation.PROJECT, *configured)


def _configured(cls: type[Component], name: str, node: Any, report: Report) -> Component | None:
    path = f"components.{name}"
    if node is None:
        return cls()
    if name in dict(schema.keys(Project)):
        report.warning(node, path, "is ignored here; move it out of `components:`, to the left margin")
        return cls()
    node = nodes.or_empty(node)
    if not is_dataclass(cls):
        for key, _ in nodes.items(node, path, report):
            report.problem(key, nodes.join(path, key.value), f"{name} has no settings; remove the key")
        return cls()
    before = len(report.problems)
    component = cast("Component | None", schema.record(node, cls, path, report))
    if component is not None and len(report.problems) == before:
        for problem in component.problems():
            report.problem(node, path, problem)
    return component


def _check_names(project: Project, report: Report, plugins: "Sequence[Guard]") -> None:
    known = {*(entry.name for entry in BUILT_IN), *(guard.plugin.name for guard in plugins)}
    for name, node in project.components:
        if name not in known:
            text = f"unknown component; its plugin may not be installed{report.hint(name, known)}"
            report.warning(node, nodes.join("components", name), _FORMER.get(name, text))


def names() -> frozenset[str]:
    """Return the names of all commands that Skelebot can have in a project."""
    return frozenset((*_OWN_COMMANDS, *(name for entry in BUILT_IN for name in entry.commands)))


# --- plugins among them ---


def _without_clashes(plugins: "Sequence[Guard]") -> "Iterator[Guard]":
    """Switch off plugins whose name is taken, and return the others."""
    owners = {entry.name: "a built-in component" for entry in BUILT_IN}
    for guard in plugins:
        name = guard.plugin.name
        if name in owners and guard.off is None:
            guard.clash(f"{owners[name]} has the same name")
        owners.setdefault(name, f"the plugin of {guard.plugin.origin}")
        if guard.off is None:
            yield guard


def _plugged_in(
    guard: "Guard", project: Project | None, sections: dict[str, Any], report: Report
) -> Component | None:
    """Return the plugin's component if it is active here."""
    from skelebot.plugins.guard import Guarded

    name = guard.plugin.name
    if name not in sections and guard.is_idle():
        return None
    cls = guard.load()
    if cls is None or cls.activation not in _activations(project, name, sections):
        return None

    def configured() -> Component | None:
        return _configured(cls, name, sections.get(name), report)

    component = guard.attempt("its settings", configured, None)
    return Guarded(component, guard) if component else None


def commands(project: Project | None, components: tuple[Component, ...]) -> dict[str, Command]:
    """Return all commands by name: the project's jobs first, which replace others of their names."""
    found: dict[str, Command] = {}
    for component in components:
        offered = {command.name: command for command in component.commands(project)}
        if guard := getattr(component, "guard", None):  # it is a plugin's
            offered = _without_jobs_names(offered, guard, found, project)
        for name, command in offered.items():
            found.setdefault(name, command)
    found.setdefault("schema", _SCHEMA)
    return found


def _without_jobs_names(
    offered: dict[str, Command], guard: "Guard", found: dict[str, Command], project: Project | None
) -> dict[str, Command]:
    """Return a plugin's commands without those named like a job.

    The name of another command switches the plugin off. A job's does not, as a project must not
    depend on who has installed what: there the job is meant, and a warning says so.
    """
    jobs = {job.name for job in project.jobs} if project else set()
    reserved = {*names(), *found} - jobs
    if clashing := sorted(offered.keys() & reserved):
        guard.clash(f"the command {clashing[0]!r} already exists")
        return {}
    for name in sorted(offered.keys() & jobs):
        console.warn(f"{name!r} runs the project's job, not the command of the plugin {guard.plugin.name}")
    return {name: command for name, command in offered.items() if name not in jobs}


# --- the schema: only the catalog knows every component ---


def whole_schema() -> dict[str, Any]:
    """Return the JSON Schema of skelebot.yaml with the settings of every built-in component."""
    from skelebot.project import json_schema  # only to print it

    whole = json_schema.of(Project)
    needed = json_schema.requirements(Project)
    settings: dict[str, Any] = {}
    needed_by: dict[str, Any] = {}
    for entry in BUILT_IN:
        cls = entry.load()
        if is_dataclass(cls) and fields(cls):
            settings[entry.name] = {"anyOf": [json_schema.of(cls), {"type": "null"}]}
            needed_by[entry.name] = json_schema.requirements(cls)
    described = {"description": "Settings of the components, by name"}
    sections = {"type": ["object", "null"], "properties": settings}
    whole["properties"]["components"] = sections | described
    needed["properties"]["components"] = {"properties": needed_by}
    whole["properties"]["merge"] = {
        "type": ["boolean", "null"],
        "description": "For skelebot-ENV.yaml: merge its keys with the base's; false: replace those",
    }
    # Only the file of an environment has this key; what is missing there is in skelebot.yaml.
    whole |= {"if": {"required": ["merge"]}, "else": needed}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": FILE, **whole}


def _print_schema(session: Session, values: Values) -> int:
    import json

    console.out(json.dumps(whole_schema(), indent=2))
    return 0


_SCHEMA = Command("schema", "Print the JSON Schema of skelebot.yaml, for editors", _print_schema)
