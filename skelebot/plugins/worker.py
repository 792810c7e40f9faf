"""A plugin that is tried: the other side of guard.try_out, in a process of its own."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NoReturn

from skelebot import catalog, launch
from skelebot.component import Activation, Check, Session
from skelebot.errors import SkelebotError
from skelebot.model import Flags
from skelebot.plugins.find import Plugin
from skelebot.plugins.guard import Guard, Guarded
from skelebot.project import config, schema


def main(request: dict[str, Any]) -> NoReturn:
    """Answers on stdout, to which nothing of the plugin's comes, and ends at once."""
    answer = os.dup(1)
    os.dup2(2, 1)
    guard = Guard(Plugin(**request["plugin"]))
    checks = list(_tried(guard, request["root"], Flags(**request["flags"]), request["look"]))
    cls = guard.load()
    result = {
        "off": guard.off,
        "loads": cls is not None and not guard.clashes,
        "activation": (cls.activation if cls else Activation.CONFIGURED).name,
        "checks": [asdict(check) for check in checks],
    }
    os.write(answer, json.dumps(result).encode())
    os._exit(0)  # whatever the plugin has left running


def _tried(guard: Guard, root: str | None, flags: Flags, look: bool) -> Iterator[Check]:
    """What its settings, its hooks and its own checks come to; nothing where it takes no part."""
    name = f"plugin {guard.plugin.name}"
    project, report = config.read(root, flags.env) if root else (None, schema.Report())
    components = catalog.active(project, report, [guard])
    for problem in config.in_order(report):
        yield Check(name, problem, "mend it in skelebot.yaml")
    plugin = next((c for c in components if isinstance(c, Guarded)), None)
    if plugin is None or report.problems:
        return
    session = Session(project, components, flags)
    catalog.commands(project, components)
    try:
        _amend(plugin, session)
        yield Check(name, guard.plugin.origin)
        yield from plugin.checks(session) if look else ()
    except SkelebotError as error:
        yield Check.failed(name, SkelebotError(str(error).removeprefix(f"{name}: ")))


def _amend(plugin: Guarded, session: Session) -> None:
    """Lets the plugin amend an image and a task of the project. Raises SkelebotError where it refuses."""
    if session.optional_project is None:
        return
    bare = session._replace(components=())
    plugin.task(launch.tool(bare, "doctor"), session.project)
    plugin.image(launch.image(bare), session.project)
