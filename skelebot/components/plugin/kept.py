"""The plugins that are kept in the user's data folder.

A plugin is a link `NAME` to a folder `.NAME-…/NAME` beside it, so that it comes, and gives way to another,
in one step.
"""

import fcntl
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
from skelebot.plugins import find, guard
from skelebot.plugins.find import ATTRIBUTE, Plugin
from skelebot.plugins.guard import Trial
from skelebot.project import config

SECONDS = 60  # that a plugin may take to load


def install(path: str, force: bool) -> tuple[Plugin, Trial]:
    """Keeps the plugin of a zip file or a folder, if it loads. Raises SkelebotError.

    force: it takes the place of one with its name.
    """
    with package.opened(path) as found, _alone() as place:
        name = found.name
        _check_name(name, place, force)
        stage = tempfile.mkdtemp(prefix=f".{name}-", dir=place)
        try:
            found.write(stage)
            plugin = Plugin(name, f"{name}:{ATTRIBUTE}", os.path.join(stage, name), True)
            trial = _tried(plugin)
            if not trial.loads:
                raise SkelebotError(f"{path} was not installed: {trial.off}")
            os.symlink(os.path.join(os.path.basename(stage), name), os.path.join(stage, "link"))
            os.replace(os.path.join(stage, "link"), os.path.join(place, name))
        finally:
            _sweep(place)
    return plugin, trial


def _tried(plugin: Plugin) -> Trial:
    """The plugin in a project that does no more than to name it."""
    with tempfile.TemporaryDirectory(prefix="skelebot-") as root:
        with open(os.path.join(root, config.FILE), "w", encoding="ascii") as file:
            file.write(f"name: trial\ncomponents:\n  {plugin.name}:\n")
        return guard.try_out(plugin, SECONDS, root)


def _check_name(name: str, place: str, force: bool) -> None:
    for plugin in find.find():
        if plugin.name == name and not plugin.owned:
            raise SkelebotError(
                f"the plugin {name} is there already, of {plugin.origin}; uninstall that first"
            )
    kept = os.path.join(place, name)
    if os.path.lexists(kept) and not os.path.islink(kept):
        raise SkelebotError(f"{kept} was not made by Skelebot; move it away first")
    if os.path.exists(kept) and not force:
        raise SkelebotError(f"the plugin {name} is installed already; replace it with -f")
    # Where the current folder is on the path, it may be the one that the plugin is developed in.
    others = [folder for folder in sys.path if os.path.realpath(folder) != os.getcwd()]
    spec = PathFinder.find_spec(name, others)
    if name in sys.stdlib_module_names or (spec and spec.origin):
        raise SkelebotError(f"there is another Python module named {name}; rename the plugin's package")


def remove(name: str) -> None:
    """Raises UsageError where there is no such plugin, and SkelebotError where it is not Skelebot's."""
    with _alone() as place:
        kept = os.path.join(place, name)
        # Skelebot's own last, as a distribution may have one of the same name.
        known = {plugin.name: plugin for plugin in sorted(find.find(), key=lambda each: each.owned)}
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"there is no plugin {name!r}{hint}")
        if not known[name].owned:
            raise UsageError(f"the plugin {name} is of {known[name].origin}; uninstall that, as with pip")
        if not os.path.islink(kept):
            raise SkelebotError(f"{kept} was not made by Skelebot; remove it by hand")
        os.unlink(kept)
        _sweep(place)


@contextmanager
def _alone() -> Iterator[str]:
    """The folder of the plugins, in which nobody else installs or removes one meanwhile."""
    place = find.folder()
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(place, ".lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield place


def _sweep(place: str) -> None:
    """Removes the folders that no link names: of what failed, was replaced, was removed, was killed."""
    names = os.listdir(place)
    links = [os.path.join(place, name) for name in names]
    used = {os.readlink(link).split("/")[0] for link in links if os.path.islink(link)}
    for name in names:
        if name not in used and re.fullmatch(r"\.\w+-\w{8}", name):
            shutil.rmtree(os.path.join(place, name), ignore_errors=True)
