"""The image that a Jupyter server runs in, and the task that runs it."""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from skelebot import launch
from skelebot.component import Session
from skelebot.components.jupyter.options import ServerOptions, joined
from skelebot.errors import UsageError
from skelebot.image import ignores
from skelebot.model import WORKDIR, Image, Job, Mount, Project, Task
from skelebot.project import plan
from skelebot.runners.docker.client import Client

if TYPE_CHECKING:
    from skelebot.components.jupyter import Jupyter

_PACKAGE = "notebook"  # requires JupyterLab, so that one image and one environment serve for both
_PORT_IN_CONTAINER = 8888  # each container has its own


def image_and_task(settings: "Jupyter", session: Session, options: ServerOptions) -> tuple[Image, Task]:
    """What to build and what to run. Raises UsageError and ConfigError."""
    project = session.project
    if "Python" not in project.language:
        raise UsageError("jupyter: Jupyter needs Python; set `language: R+Python`")
    task = _task(settings, session, project)
    added = () if _has_jupyter(task.dependencies, options.lab) else (_PACKAGE,)
    native = task.place.is_native
    root = project.root if native else WORKDIR
    task = replace(task, argv=_argv(own_options(options, native), root))
    if native:
        image = Image(project.image, project.name, base="", context=project.root)
        return image, launch.amended(session, _native(task, added))
    if task.place.is_cluster:
        raise _far(f"the cluster {task.place}")
    _refuse_remote(task.place.host)
    port = f"{joined(options.bind, options.port)}:{_PORT_IN_CONTAINER}"
    # Without the root's ports, which jobs publish: one of them may be running.
    return _image(session, project, added), replace(launch.amended(session, task), ports=(port,))


def own_options(options: ServerOptions, native: bool) -> ServerOptions:
    """The options with the address and port that the server itself listens on."""
    return options if native else replace(options, bind="0.0.0.0", port=_PORT_IN_CONTAINER)  # noqa: S104


def _argv(options: ServerOptions, root: str) -> tuple[str, ...]:
    """The program that starts the server; `root` is the project's folder as the server sees it."""
    folder = os.path.normpath(os.path.join(root, options.folder))
    # Without the empty socket, one in Jupyter's configuration would replace the port.
    listen = (f"--ip={options.bind}", f"--port={options.port}", "--port-retries=0", "--ServerApp.sock=")
    others = (f"--notebook-dir={folder}", "--no-browser", "--allow-root")
    return ("python", "-c", _start_script(), options.module, *listen, *others)


def _start_script() -> str:
    with open(os.path.join(os.path.dirname(__file__), "start_server.py"), encoding="utf-8") as file:
        return file.read()


def _task(settings: "Jupyter", session: Session, project: Project) -> Task:
    job = Job("jupyter", "jupyter", "jupyter", environment=settings.environment)
    more = (plan.mount(project.root, text) for text in settings.mappings)
    return replace(
        launch.tool(session, "jupyter"),
        mounts=(Mount(project.root, WORKDIR), *more),
        env=plan.environment(project, job, os.environ),
        user=project.user or "caller",  # notebooks belong to the caller as soon as they are saved
        # Which files a custom Dockerfile uses is not known.
        shadowed=() if project.dockerfile else ("",),
    )


def _has_jupyter(dependencies: Iterable[str], lab: bool) -> bool:
    """Whether an entry names the server's package, or one that requires it."""
    names = (re.match(r"\s*([\w.-]*)", entry) for entry in dependencies)
    enough = {_PACKAGE, "jupyter", "jupyterlab"} if lab else {_PACKAGE, "jupyter"}
    return any(match[1].lower() in enough for match in names if match)


def _native(task: Task, added: tuple[str, ...]) -> Task:
    """The task outside a container; if Jupyter has to be added, in an environment that jobs do not use."""
    return replace(task, dependencies=(*task.dependencies, *added), venv="venv-jupyter") if added else task


def _image(session: Session, project: Project, added: tuple[str, ...]) -> Image:
    """The project's image; if Jupyter has to be added, another one that shares its layers."""
    if not added or project.dockerfile:
        return launch.image(session)
    image = launch.image(session, also=added)
    # The project folder is mapped over the image's files, which only its `commands` need.
    kept = (f"!{ignores.literal(path)}" for path in image.copied)
    shadowed = () if project.commands else ("*", *kept)
    tag = f"{project.image}:jupyter"
    return replace(image, tag=tag, ignores=(*image.ignores, *shadowed), ephemeral=True)


def _refuse_remote(host: str | None) -> None:
    client = Client(host)
    if client.is_remote:
        raise _far(f"the engine at {client.where}", "log in there with `ssh -L 8888:127.0.0.1:8888`, or ")


def _far(where: str, other: str = "") -> UsageError:
    return UsageError(
        f"jupyter: {where} cannot see this project folder, where notebooks are saved; "
        f"{other}use this machine with -d default or -n"
    )
