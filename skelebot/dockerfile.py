"""A project becomes an Image, and an Image the text of a Dockerfile. Nothing here runs or writes."""

import json
import os
import re

from skelebot import plan
from skelebot.config import job_params
from skelebot.context import DEFAULT_IGNORES, literal
from skelebot.dependencies import Dependency
from skelebot.errors import ConfigError
from skelebot.model import Image, Job, Project

PROJECT_LABEL = "skelebot.project"

_DEFAULT_PYTHON = "3.12"


def image(
    project: Project,
    dependencies: tuple[Dependency, ...],
    job_ignores: tuple[str, ...] = (),
    own_ignores: tuple[str, ...] = (),
    default_base: str | None = None,
) -> Image:
    """The image of a project, for a job that leaves out `job_ignores` as well.

    own_ignores: the lines of the project's .dockerignore. default_base: stands in for the official
    image where the project names none.
    """
    env_files = tuple(
        literal(os.path.normpath(name))
        for name in dict.fromkeys((project.env_file, *(job.env_file for job in project.jobs)))
        if name
    )
    return Image(
        tag=project.image,
        base=base_image(project, default_base),
        context=project.root,
        lines=tuple(_lines(project, dependencies)),
        ignores=(*DEFAULT_IGNORES, *own_ignores, *project.ignores, *job_ignores, *env_files),
        dockerfile=project.dockerfile,
        labels=tuple(_labels(project)),
    )


def base_image(project: Project, default: str | None) -> str:
    if project.base_image:
        return project.base_image
    if default:
        return default
    if project.language == "R":
        return "r-base:latest"
    return f"python:{project.python_version or _DEFAULT_PYTHON}-slim"


def text(image: Image) -> str:
    """The Dockerfile of an image that names none of its own."""
    return with_labels("\n".join([f"FROM {image.base}", *image.lines]), image)


def with_labels(text: str, image: Image) -> str:
    """A Dockerfile's text with the image's labels at its end."""
    labels = (f"LABEL {quoted(name)}={quoted(value)}\n" for name, value in image.labels)
    return text.rstrip("\n") + "\n" + "".join(labels)


def _labels(project: Project) -> list[tuple[str, str]]:
    labels = [(PROJECT_LABEL, project.image)]
    if project.maintainer:
        labels.append(("org.opencontainers.image.authors", project.maintainer))
    if project.version:
        labels.append(("org.opencontainers.image.version", project.version))
    return labels


def _lines(project: Project, dependencies: tuple[Dependency, ...]) -> list[str]:
    lines = []
    if project.timezone:
        zone = f"/usr/share/zoneinfo/{project.timezone}"
        lines += [f"ENV TZ={quoted(project.timezone)}", exec_form("RUN", ("test", "-f", zone))]
    if project.build.packages:
        words = " ".join(project.build.packages)
        lines.append(
            "RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "
            f"--no-install-recommends {words} && rm -rf /var/lib/apt/lists/*"
        )
    lines += [shell_form("RUN", command) for command in project.build.commands]
    lines.append(f"WORKDIR {plan.WORKDIR}")
    lines += _install(dependencies)
    lines.append(exec_form("COPY", (".", plan.WORKDIR + "/")))
    lines += [shell_form("RUN", command) for command in project.commands]
    if project.user and project.user != "caller":
        lines.append(f"USER {project.user}")
    return lines + _primary(project)


def _install(dependencies: tuple[Dependency, ...]) -> list[str]:
    """A step for each entry, so that one added at the bottom finds those above it in the cache.

    The nth step names the entries 1 to n: they are resolved together, and a conflict fails.
    """
    lines: list[str] = []
    words: list[str] = []
    files: set[str] = set()
    for dependency in dependencies:
        for path in dependency.files:
            if path not in files:
                lines.append(exec_form("COPY", (path, f"{plan.WORKDIR}/{path}")))
                files.add(path)
        words += dependency.words
        pip = ("python", "-m", "pip", "install", "--no-cache-dir", "--root-user-action=ignore")
        lines.append(exec_form("RUN", (*pip, *words)))
    return lines


# --- the primary job ---


def _primary(project: Project) -> list[str]:
    if not project.primary_job:
        return []
    job = next(job for job in project.jobs if job.name == project.primary_job)
    if project.primary_exe == "ENTRYPOINT":
        return [exec_form("ENTRYPOINT", plan.argv(project, job, ()))]
    return [exec_form("CMD", primary_command(project, job))]


def primary_command(project: Project, job: Job) -> tuple[str, ...]:
    """The words of the image's CMD: the job with its defaults.

    Where defaults are environment references, a shell puts the container's values in their places;
    all other words reach it as arguments, so that it expands nothing else.
    """
    words: list[str] = []
    script: list[str] = []

    def add(literal: str) -> str:
        words.append(literal)
        return f'"${{{len(words)}}}"'

    referenced = False
    for word in plan.argv(project, job, ()):
        script.append(add(word))
    for param in job_params(project, job, plan.script(project.root, job.source) is not None):
        if param.reference:
            referenced = True
            script.append(f'${{{param.reference}+{add(param.flag)} "${param.reference}"}}')
        elif param.secret and param.default is not None:
            raise ConfigError(
                [f"{param.place}.default: a secret of the primary job stays out of the image; use $NAME"]
            )
        else:
            script += [add(w) for w in plan.param_words(param, plan.default(param, {}))]
    if not referenced:
        return tuple(words)
    return ("sh", "-c", "exec " + " ".join(script), job.name, *words)


# --- writing ---


def exec_form(instruction: str, words: tuple[str, ...]) -> str:
    """An instruction whose words no shell reads.

    JSON escapes line ends, and what Docker would take for its own variables is spelt out.
    """
    return f"{instruction} {json.dumps(list(words))}"


def shell_form(instruction: str, command: str) -> str:
    """An instruction with the author's own shell text; as JSON where Docker would read it otherwise."""
    command = command.strip()
    if re.match(r"[\[<-]", command) or command.endswith("\\") or not command.isprintable():
        return exec_form(instruction, ("/bin/sh", "-c", command))
    return f"{instruction} {command}"


def quoted(value: str) -> str:
    """A value of LABEL and ENV, in which Docker expands variables and knows quotes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
