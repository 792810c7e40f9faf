"""`plugin`: install, list and remove plugins."""

from collections.abc import Iterable

from skelebot import console
from skelebot.component import Activation, Command, Component, Session
from skelebot.errors import UsageError
from skelebot.model import Arg, Param, Project
from skelebot.options import Values
from skelebot.plugins import find

_ARGS = (
    Arg("action", ("install", "list", "remove"), "What to do"),
    Arg("plugin", (), "The zip file or folder to install, or the plugin to remove", optional=True),
)
_PARAMS = (
    Param("force", "f", accepts="boolean", help="Replace an installed plugin of the same name"),
    Param("json", accepts="boolean", help="Print the list as JSON"),
)


class PluginCommand(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        return (Command("plugin", "Install, list and remove plugins", _run, _ARGS, _PARAMS),)


def _run(session: Session, values: Values) -> int:
    action, subject = values["<action>"], values.get("<plugin>")
    if action == "list":
        if subject is not None:
            raise UsageError("plugin list: unexpected argument")
        return _list(as_json=bool(values.get("json")))
    if not isinstance(subject, str):
        wanted = "a zip file or a folder" if action == "install" else "the name of a plugin"
        raise UsageError(f"plugin {action}: {wanted} is missing")
    if session.flags.dry_run:
        console.out(f"{action} {subject}")
        return 0
    return _install(subject, bool(values.get("force"))) if action == "install" else _remove(subject)


def _list(as_json: bool) -> int:
    import json  # like what installs, only where it is asked for

    found = find.find()
    if as_json:
        rows = [{"name": p.name, "origin": p.origin, "target": p.target, "owned": p.owned} for p in found]
        console.out(json.dumps(rows, indent=2))
        return 0
    pairs = [(plugin.name, plugin.origin) for plugin in found]
    if console.is_stdout_terminal():
        console.table(("NAME", "ORIGIN"), pairs)
    else:
        for pair in pairs:
            console.out(" ".join(pair))
    if not found:
        console.info("no plugins are installed; see `skelebot plugin -h`")
    return 0


_USE = {
    Activation.CONFIGURED: "it is active where `components` in skelebot.yaml names it",
    Activation.PROJECT: "it is active in every project",
    Activation.OUTSIDE: "it is active outside projects",
    Activation.ALWAYS: "it is always active",
}


def _install(path: str, force: bool) -> int:
    from skelebot.components.plugin.install import install

    plugin, result = install(path, force)
    if result.off:
        console.warn(f"{plugin.name} fails with its default settings: {result.off}")
    console.info(f"the plugin {plugin.name} is installed; {_USE[result.activation]}")
    return 0


def _remove(name: str) -> int:
    from skelebot.components.plugin.install import remove

    remove(name)
    console.info(f"removed the plugin {name}")
    return 0
