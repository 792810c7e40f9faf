"""Get artifacts in jobs and notebooks.

from skelebot import artifacts

path = artifacts.pull("model", "LATEST")
"""

import builtins
from pathlib import Path
from typing import BinaryIO

from skelebot import catalog
from skelebot.components.repository import Repository
from skelebot.errors import SkelebotError, UsageError
from skelebot.project.read import FILE, NO_PROJECT, find_root
from skelebot.project.read import project as read_project


def pull(
    name: str, version: str = "LATEST", *, override: bool = False, prefix: str = "", env: str | None = None
) -> Path:
    """Pull an artifact from the project's store and return its path.

    The project is that of the current folder, in the environment `env`. override: replace the configured
    file. Raises SkelebotError.
    """
    root = find_root()
    if root is None:
        raise UsageError(f"{NO_PROJECT}; change into a project")
    project, report = read_project(root, env)
    components = catalog.active(project, report) if project else ()
    report.raise_problems()
    for component in components:
        if project and isinstance(component, Repository):
            return Path(component.pull_one(project, name, version, override, prefix))
    raise UsageError(f"there is no store; add `components.repository` to {FILE}")


def read(name: str, version: str = "LATEST", *, prefix: str = "", env: str | None = None) -> bytes:
    """Pull an artifact and return its content. Raises SkelebotError, also if it is a folder."""
    with open(name, version, prefix=prefix, env=env) as file:
        return file.read()


def open(name: str, version: str = "LATEST", *, prefix: str = "", env: str | None = None) -> BinaryIO:
    """Pull an artifact and open it. Raises SkelebotError, also if it is a folder."""
    path = pull(name, version, prefix=prefix, env=env)
    if path.is_dir():
        raise SkelebotError(f"{name} is a folder, pulled to {path}; get its path with `artifacts.pull`")
    return builtins.open(path, "rb")
