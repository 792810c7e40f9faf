"""Import a plugin's class and check that it can be a component."""

import importlib
import os
import sys
import types
from dataclasses import is_dataclass
from typing import Any

from skelebot.component import Activation, Component
from skelebot.plugins.find import Plugin
from skelebot.project import schema


def load(plugin: Plugin) -> type[Component]:
    """Import the class of a plugin. Raises whatever its import raises."""
    name, _, attributes = plugin.target.partition(":")
    found: Any = _import_package(plugin) if plugin.owned else importlib.import_module(name)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise AttributeError(f"{name} has no {attributes}")
        found = getattr(found, attribute)
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise TypeError(f"{plugin.target} is not a subclass of skelebot.component.Component")
    if not isinstance(found.activation, Activation):
        raise TypeError(f"{plugin.target}.activation is not a skelebot.component.Activation")
    if is_dataclass(found) and (unreadable := schema.unreadable(found)):
        raise TypeError(f"{plugin.target}.{unreadable}")
    return found


def _import_package(plugin: Plugin) -> types.ModuleType:
    """Import the package of an installed plugin, whose folder is not on the path for others to find."""
    from importlib import util

    file = os.path.join(plugin.source, "__init__.py")
    spec = util.spec_from_file_location(plugin.name, file, submodule_search_locations=[plugin.source])
    if plugin.name in sys.modules or spec is None or spec.loader is None:
        raise ImportError(f"another Python module is named {plugin.name}")
    module = util.module_from_spec(spec)
    sys.modules[plugin.name] = module
    spec.loader.exec_module(module)
    return module
