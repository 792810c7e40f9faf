"""Find the plugins that are installed, without importing them.

Every start looks for them, so this file is small; the rest of the room is for where there are some.
"""

import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

GROUP = "skelebot.components"  # the group of entry points for components
ATTRIBUTE = "COMPONENT"  # of an installed package: its component's class


class Plugin(NamedTuple):
    """A plugin that is installed.

    target: the module and the attribute of its class. source: the folder of its package, or of its
    distribution's metadata. owned: whether `skelebot plugin install` installed it.
    """

    name: str
    target: str
    source: str
    owned: bool

    @property
    def origin(self) -> str:
        """Where it comes from: its folder, or its distribution and version."""
        if self.owned:
            return self.source
        name, _, version = os.path.splitext(os.path.basename(self.source))[0].partition("-")
        return f"{name} {version}".strip()


def folder() -> str:
    """Return the folder of installed plugins: https://specifications.freedesktop.org/basedir-spec/latest/."""
    on_mac = sys.platform == "darwin"
    default = "~/Library/Application Support" if on_mac else "~/.local/share"
    return os.path.join(user_folder("XDG_DATA_HOME", default), "skelebot", "plugins")


def user_folder(variable: str, default: str) -> str:
    """The folder that an environment variable names, or the default."""
    named = os.environ.get(variable, "")
    return named if os.path.isabs(named) else os.path.expanduser(default)


def find() -> tuple[Plugin, ...]:
    """Every plugin, those of `plugin install` first."""
    return (*_owned(), *_distributed())


def _owned() -> Iterator[Plugin]:
    parent = folder()
    for name in _names_in(parent):
        source = os.path.join(parent, name)
        if not name.startswith(".") and os.path.isdir(source):
            yield Plugin(name, f"{name}:{ATTRIBUTE}", source, True)


def _distributed() -> Iterator[Plugin]:
    """Those of installed distributions, of which the first on the path counts.

    importlib.metadata would give the same, but its import takes longer than the whole start of Skelebot.
    https://packaging.python.org/en/latest/specifications/entry-points/
    """
    seen = set()
    for parent in dict.fromkeys(sys.path):
        for name in _names_in(parent or "."):
            if name.endswith((".dist-info", ".egg-info")):
                distribution = name.partition("-")[0].lower()
                if distribution not in seen:
                    seen.add(distribution)
                    yield from _entry_points(os.path.join(parent, name))


def _names_in(parent: str) -> list[str]:
    try:
        return sorted(os.listdir(parent))
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
