"""Install and remove the plugins in the user's data folder.

A plugin is a link `NAME` to a folder `.NAME-…/NAME` beside it, so that one rename installs or replaces it.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder

from skelebot.components.plugin import package
from skelebot.errors import SkelebotError, UsageError, did_you_mean
from skelebot.files import locked, private_folder
from skelebot.plugins import find
from skelebot.plugins.find import ATTRIBUTE, Plugin
from skelebot.plugins.probe import Probe, probe
from skelebot.project import read

SECONDS = 60  # that a plugin may take to load


def install(path: str, force: bool) -> tuple[Plugin, Probe]:
    """Install the plugin of a zip file or a folder, if it loads. Raises SkelebotError.

    force: replace one of the same name.
    """
    with package.opened(path) as found, _locked_folder() as folder:
        name = found.name
        _check_name(name, folder, force)
        stage = tempfile.mkdtemp(prefix=f".{name}-", dir=folder)
        try:
            found.write(stage)
            plugin = Plugin(name, f"{name}:{ATTRIBUTE}", os.path.join(stage, name), True)
            result = _probe(plugin)
            if not result.loads:
                raise SkelebotError(f"{path} was not installed: {result.off}")
            os.symlink(os.path.join(os.path.basename(stage), name), os.path.join(stage, "link"))
            os.replace(os.path.join(stage, "link"), os.path.join(folder, name))
        finally:
            _remove_unused(folder)
    return plugin, result


def _probe(plugin: Plugin) -> Probe:
    """Probe the plugin in a project that only names it."""
    with private_folder() as root:
        with open(os.path.join(root, read.FILE), "w", encoding="ascii") as file:
            file.write(f"name: probe\ncomponents:\n  {plugin.name}:\n")
        return probe(plugin, SECONDS, root)


def _check_name(name: str, folder: str, force: bool) -> None:
    for plugin in find.find():
        if plugin.name == name and not plugin.owned:
            raise SkelebotError(f"{plugin.origin} already provides the plugin {name}; uninstall it first")
    link = os.path.join(folder, name)
    if os.path.lexists(link) and not os.path.islink(link):
        raise SkelebotError(f"{link} was not made by Skelebot; move it away first")
    if os.path.exists(link) and not force:
        raise SkelebotError(f"the plugin {name} is already installed; replace it with -f")
    # Where the current folder is on the path, it may be the one that the plugin is developed in.
    others = [entry for entry in sys.path if os.path.realpath(entry) != os.getcwd()]
    spec = PathFinder.find_spec(name, others)
    if name in sys.stdlib_module_names or (spec and spec.origin):
        raise SkelebotError(f"another Python module is named {name}; rename the plugin's package")


def remove(name: str) -> None:
    """Remove an installed plugin. Raises UsageError and SkelebotError for what `install` did not make."""
    with _locked_folder() as folder:
        link = os.path.join(folder, name)
        # Installed ones last, as a distribution may have one of the same name.
        known = {plugin.name: plugin for plugin in sorted(find.find(), key=lambda each: each.owned)}
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"there is no plugin {name!r}{hint}")
        if not known[name].owned:
            raise UsageError(f"{known[name].origin} provides the plugin {name}; uninstall it, as with pip")
        if not os.path.islink(link):
            raise SkelebotError(f"{link} was not made by Skelebot; remove it by hand")
        os.unlink(link)
        _remove_unused(folder)


@contextmanager
def _locked_folder() -> Iterator[str]:
    """The folder of the plugins, in which nobody else installs or removes one meanwhile."""
    folder = find.folder()
    os.makedirs(folder, exist_ok=True)
    with locked(os.path.join(folder, ".lock")):
        yield folder


def _remove_unused(folder: str) -> None:
    """Remove the folders that no link names: those that were replaced, removed, or left by a failure."""
    names = os.listdir(folder)
    links = [os.path.join(folder, name) for name in names]
    used = {os.readlink(link).split("/")[0] for link in links if os.path.islink(link)}
    for name in names:
        if name not in used and re.fullmatch(r"\.\w+-\w{8}", name):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
