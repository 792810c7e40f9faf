"""A cache of the plugins that need no import, because they are active only if configured.

Each line holds the plugin's target, its folder, the file of its class, and what changes with that file.
"""

import os
import sys
from contextlib import suppress

from skelebot.component import Component
from skelebot.files import replace_file
from skelebot.plugins.find import Plugin, user_folder


def is_idle(plugin: Plugin) -> bool:
    """Whether an earlier run found that the plugin is active only if configured."""
    return any(line.startswith(_key(plugin)) and _is_current(line) for line in _lines())


def remember(plugin: Plugin, cls: type[Component]) -> None:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    others = [line for line in _lines() if not line.startswith(_key(plugin)) and _is_current(line)]
    text = "\n".join([*others, f"{_key(plugin)}{file}\t{_state(file)}"])
    with suppress(OSError):  # it is imported once more the next time
        os.makedirs(os.path.dirname(_cache_file()), exist_ok=True)
        replace_file(_cache_file(), text.encode(errors="surrogateescape"))


def _key(plugin: Plugin) -> str:
    return f"{plugin.target}\t{os.path.realpath(plugin.source)}\t"


def _is_current(line: str) -> bool:
    file, _, state = line.rpartition("\t")
    return state != "" and state == _state(file.rpartition("\t")[2])


def _state(file: str) -> str:
    """What changes with a file; empty where there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return ""
    return f"{status.st_mtime_ns} {status.st_size}"


def _lines() -> list[str]:
    try:
        with open(_cache_file(), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().split("\n")
    except OSError:
        return []


def _cache_file() -> str:
    return os.path.join(user_folder("XDG_CACHE_HOME", "~/.cache"), "skelebot", "idle-plugins")
