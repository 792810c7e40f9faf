"""The other side of probe.py: load a plugin and call its hooks, in a separate process."""

import json
import os
from collections.abc import Iterator
from typing import Any, NoReturn

from skelebot import catalog, launch
from skelebot.component import Activation, Check, Session
from skelebot.errors import SkelebotError
from skelebot.model import Flags
from skelebot.plugins.find import Plugin
from skelebot.plugins.guard import Guard, Guarded
from skelebot.project import read
from skelebot.project.nodes import Report, in_order


def main(request: dict[str, Any]) -> NoReturn:
    """Answer on stdout, which the plugin itself cannot write to, and end at once."""
    answer = os.dup(1)
    os.dup2(2, 1)
    guard = Guard(Plugin(**request["plugin"]))
    checks = list(_checks(guard, request["root"], Flags(**request["flags"]), request["own_checks"]))
    cls = guard.load()
    result = {
        "off": guard.off,
        "loads": cls is not None and not guard.clashes,
        "activation": (cls.activation if cls else Activation.CONFIGURED).name,
        "checks": [check._asdict() for check in checks],
    }
    os.write(answer, json.dumps(result).encode())
    os._exit(0)  # whatever the plugin has left running


def _checks(guard: Guard, root: str | None, flags: Flags, own_checks: bool) -> Iterator[Check]:
    """Check a plugin's settings and hooks; do nothing if it is not active."""
    name = f"plugin {guard.plugin.name}"
    project, report = read.project(root, flags.env) if root else (None, Report())
    components = catalog.active(project, report, [guard])
    for problem in in_order(report.problems):
        yield Check(name, problem, "fix it in skelebot.yaml")
    plugin = next((c for c in components if isinstance(c, Guarded)), None)
    if plugin is None or report.problems:
        return
    session = Session(project, components, flags, set(), set())
    catalog.commands(project, components)
    try:
        _amend(plugin, session)
        yield Check(name, guard.plugin.origin)
        yield from plugin.checks(session) if own_checks else ()
    except SkelebotError as error:
        yield Check.failed(name, SkelebotError(str(error).removeprefix(f"{name}: ")))


def _amend(plugin: Guarded, session: Session) -> None:
    """Let the plugin amend an image and a task of the project. Raises SkelebotError where it refuses."""
    if session.optional_project is None:
        return
    without_components = session._replace(components=())
    plugin.task(launch.tool(without_components, "doctor"), session.project)
    plugin.image(launch.image(without_components), session.project)
