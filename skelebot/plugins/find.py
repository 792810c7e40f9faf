"""Plugins: components that are installed apart from Skelebot. They are found without importing them.

Every start looks for them, so this file is small; guard.py is for where there are some.
"""

import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

GROUP = "skelebot.components"  # of the entry points that name components
ATTRIBUTE = "COMPONENT"  # of an installed package: its component's class


class Plugin(NamedTuple):
    """A plugin that is installed.

    target: the module and the attribute of its class. source: the folder of its package, or of its
    distribution's metadata. owned: whether `skelebot plugin install` put it there.
    """

    name: str
    target: str
    source: str
    owned: bool

    @property
    def origin(self) -> str:
        """Where it comes from: its folder, or its distribution with the version."""
        if self.owned:
            return self.source
        name, _, version = os.path.splitext(os.path.basename(self.source))[0].partition("-")
        return f"{name} {version}".strip()


def folder() -> str:
    """Where installed plugins are kept: https://specifications.freedesktop.org/basedir-spec/latest/."""
    on_mac = sys.platform == "darwin"
    default = "~/Library/Application Support" if on_mac else "~/.local/share"
    return os.path.join(user_folder("XDG_DATA_HOME", default), "skelebot", "plugins")


def user_folder(variable: str, default: str) -> str:
    """The folder that a variable of the user's names, or the one that goes without saying."""
    named = os.environ.get(variable, "")
    return named if os.path.isabs(named) else os.path.expanduser(default)


def find() -> tuple[Plugin, ...]:
    """Every plugin, those that `plugin install` has kept first."""
    return (*_owned(), *_distributed())


def _owned() -> Iterator[Plugin]:
    place = folder()
    for name in _listed(place):
        source = os.path.join(place, name)
        if not name.startswith(".") and os.path.isdir(source):
            yield Plugin(name, f"{name}:{ATTRIBUTE}", source, True)


def _distributed() -> Iterator[Plugin]:
    """Those of installed distributions, of which the first on the path counts.

    importlib.metadata knows the same, and takes longer to import than Skelebot to start: see
    docs/architecture.md. https://packaging.python.org/en/latest/specifications/entry-points/
    """
    seen = set()
    for place in dict.fromkeys(sys.path):
        for name in _listed(place or "."):
            if name.endswith((".dist-info", ".egg-info")):
                distribution = name.partition("-")[0].lower()
                if distribution not in seen:
                    seen.add(distribution)
                    yield from _entry_points(os.path.join(place, name))


def _listed(place: str) -> list[str]:
    try:
        return sorted(os.listdir(place))
    except OSError:
        return []


def _entry_points(source: str) -> Iterator[Plugin]:
    try:
        with open(os.path.join(source, "entry_points.txt"), "rb") as file:
            data = file.read()
    except OSError:
        return
    if GROUP.encode() not in data:
        return
    group = ""
    for line in map(str.strip, data.decode(errors="replace").splitlines()):
        if line.startswith("["):
            group = line.strip("[] ")
        elif group == GROUP and "=" in line and line[0] not in "#;":
            name, _, target = line.partition("=")
            yield Plugin(name.strip(), target.partition("[")[0].replace(" ", ""), source, False)
