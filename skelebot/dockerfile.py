"""A project becomes an Image, and an Image the text of a Dockerfile. Nothing here runs or writes."""

import json
import os
import re
from collections.abc import Iterable

from skelebot import ignores, plan
from skelebot.config import job_params, script
from skelebot.dependencies import CHOOSE_INSTALLER, INSTALLER, Dependency
from skelebot.model import Image, Job, Project

PROJECT_LABEL = "skelebot.project"

_DEFAULT_PYTHON = "3.12"
# Of the official images with R the one with a tag for each minor version, a compiler, and a mirror that
# gives packages compiled for it: https://rocker-project.org/images/versioned/r-ver.html
_DEFAULT_R = "rocker/r-ver:4.5"


def image(
    project: Project,
    dependencies: tuple[Dependency, ...],
    job: Job | None = None,
    own_ignores: tuple[str, ...] = (),
    default_base: str | None = None,
    env_files: Iterable[str] = (),
) -> Image:
    """The image of a project, in which `job` runs.

    A job that leaves out files of its own has an image of its own. own_ignores: the lines of the
    project's .dockerignore. default_base: stands in for the official image where the project names
    none. env_files: what no image is to hold.
    """
    never = tuple(ignores.literal(path) for path in sorted(_secret_paths(project.root, env_files)))
    of_job = job.ignores if job else ()
    tag = f"{project.image}:{plan.tag(job.name)}" if job and of_job else f"{project.image}:latest"
    patterns = (*ignores.DEFAULTS, *own_ignores, *project.ignores, *of_job, *never)
    copied = tuple(dict.fromkeys(path for d in dependencies for path in d.files))
    left_out = ignores.Ignores(patterns)
    entrypoint, command = _primary(project)
    kept = tuple(f"!{ignores.literal(path)}" for path in copied if left_out.excludes(path))
    return Image(
        tag=tag,
        project=project.name,
        base=base_image(project, default_base),
        context=project.root,
        setup=tuple(_setup(project, dependencies)),
        lines=tuple(shell_form("RUN", command) for command in project.commands),
        user=project.user if project.user != "caller" else None,
        entrypoint=entrypoint,
        command=command,
        ignores=(*patterns, *kept),
        copied=copied,
        labels=tuple(_labels(project)),
        dockerfile=project.dockerfile,
        inherit=project.build.inherit,
        ephemeral=project.ephemeral,
        views=_views(project),
    )


def _views(project: Project) -> tuple[frozenset[str], ...]:
    """What is hidden for each job, and for those of Skelebot's own tools that map the whole project."""
    of_jobs = (plan.hidden(project, job) for job in project.jobs)
    return tuple(dict.fromkeys((*of_jobs, frozenset({""}))))


def _secret_paths(root: str, env_files: Iterable[str]) -> set[str]:
    """The files from the project root, as they are named and as links lead to them."""
    found = set()
    for path in (plan.env_file_path(root, name) for name in env_files):
        found |= {
            os.path.relpath(path, root),
            os.path.relpath(os.path.realpath(path), os.path.realpath(root)),
        }
    return {path for path in found if not path.startswith("..")}


def base_image(project: Project, default: str | None) -> str:
    if project.base_image:
        return project.base_image
    if default:
        return default
    if project.language == "R":
        return _DEFAULT_R
    return f"python:{project.python_version or _DEFAULT_PYTHON}-slim"


def _labels(project: Project) -> list[tuple[str, str]]:
    labels = []
    if project.maintainer:
        labels.append(("org.opencontainers.image.authors", project.maintainer))
    if project.version:
        labels.append(("org.opencontainers.image.version", project.version))
    return labels


# --- the text ---


def text(image: Image) -> str:
    """The whole Dockerfile of an image, as anyone could build it."""
    return "\n".join([*first_part(image), *second_part(image, None)]) + "\n"


def first_part(image: Image, heavy: tuple[str, ...] = (), user: str = "") -> list[str]:
    """What comes before the project's files: the base, what is installed, and the `heavy` paths.

    user: the base's own, where it is not root, who cannot install.
    """
    lines = [f"FROM {image.base}", _label((PROJECT_LABEL, image.project))]
    lines += ["USER root"] * bool(user)
    lines += image.setup
    for path in heavy:
        target = f"{plan.WORKDIR}/{path}"
        if os.path.isdir(os.path.join(image.context, path)):
            target += "/"
        lines.append(exec_form("COPY", (path, target)))
    return lines


def second_part(image: Image, first: str | None, user: str = "") -> list[str]:
    """The project's files and what follows them, on the image `first` or in the same Dockerfile."""
    lines = [f"FROM {first}"] if first else []
    lines.append(exec_form("COPY", (".", plan.WORKDIR + "/")))
    lines += image.lines
    lines += map(_label, image.labels)
    user = image.user or user
    lines += [f"USER {user}"] * bool(user)
    for instruction, words in (("ENTRYPOINT", image.entrypoint), ("CMD", image.command)):
        lines += [exec_form(instruction, words)] if words is not None else []
    return lines


def from_folder(lines: list[str], folder: str) -> list[str]:
    """The lines for a context that holds the project's files in a folder."""
    return [_copied_from(line, folder) if line.startswith("COPY [") else line for line in lines]


def _copied_from(line: str, folder: str) -> str:
    *sources, target = json.loads(line.removeprefix("COPY "))
    return exec_form("COPY", (*(os.path.normpath(folder + s) for s in sources), target))


def labelled(text: str, project: str) -> list[str]:
    """The lines of a user's Dockerfile with the project's label on each of its stages."""
    lines: list[str] = []
    for line in text.splitlines():
        continued = bool(lines) and lines[-1].rstrip().endswith("\\")
        lines.append(line)
        if re.match(r"\s*FROM\s[^\\]*$", line, re.IGNORECASE) and not continued:
            lines.append(_label((PROJECT_LABEL, project)))
    return lines


def with_loan(
    lines: list[str], cache: str, mounts: tuple[str, ...], env: tuple[tuple[str, str], ...]
) -> list[str]:
    """The lines with mounts, which only BuildKit knows, and variables for each RUN alone.

    The cache is the installer's: what other commands write there belongs into the image. The base
    image's own variables would win over ARG.
    """
    pairs = [f"{name}={value}" for name, value in env]
    return [_lent(line, cache, mounts, pairs) if line.startswith("RUN ") else line for line in lines]


def _lent(line: str, cache: str, mounts: tuple[str, ...], pairs: list[str]) -> str:
    own = (cache,) if INSTALLER in line else ()
    options = "".join(f"--mount={mount} " for mount in (*own, *mounts))
    return f"RUN {options}{_with_env(line[4:], pairs)}"


def _with_env(command: str, pairs: list[str]) -> str:
    if not pairs:
        return command
    if command.startswith("["):
        return json.dumps(["env", *pairs, *json.loads(command)])
    return f"export {' '.join(pairs)}; {command}"


def _label(label: tuple[str, str]) -> str:
    return f"LABEL {quoted(label[0])}={quoted(label[1])}"


# --- before the files ---

_APT = "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
_APT_END = "rm -rf /var/lib/apt/lists/*"

_TIMEZONE = f"""\
[ -f "/usr/share/zoneinfo/$1" ] || {{ {_APT} tzdata && {_APT_END}; }} || true
[ -f "/usr/share/zoneinfo/$1" ] ||
    {{ echo "the image has no time zone $1; add tzdata to its base" >&2; exit 1; }}
ln -snf "/usr/share/zoneinfo/$1" /etc/localtime && echo "$1" >/etc/timezone"""

_GIT = f"command -v git >/dev/null || {{ {_APT} git ca-certificates && {_APT_END}; }}"


def _setup(project: Project, dependencies: tuple[Dependency, ...]) -> list[str]:
    lines = []
    if project.timezone:
        lines += [f"ENV TZ={quoted(project.timezone)}"]
        lines += [exec_form("RUN", ("sh", "-c", _TIMEZONE, "timezone", project.timezone))]
    if project.build.packages:
        lines.append(f"RUN {_APT} {' '.join(project.build.packages)} && {_APT_END}")
    lines += [shell_form("RUN", command) for command in project.build.commands]
    lines.append(f"WORKDIR {plan.WORKDIR}")
    return lines + _install(dependencies)


def _install(dependencies: tuple[Dependency, ...]) -> list[str]:
    """A step for each entry, so that one added at the bottom finds those above it in the cache.

    The nth step names the entries 1 to n: they are resolved together, and a conflict fails.
    """
    if not dependencies:
        return []
    lines = [exec_form("RUN", ("sh", "-c", CHOOSE_INSTALLER))]
    words: list[str] = []
    copied: set[str] = set()
    has_git = False
    for number, dependency in enumerate(dependencies, 1):
        for path in dependency.files:
            if path not in copied:
                end = "/" if dependency.fetch else ""
                lines.append(exec_form("COPY", (path, f"{plan.WORKDIR}/{path}{end}")))
                copied.add(path)
        if dependency.git and not has_git:
            lines.append(f"RUN {_GIT}")
            has_git = True
        words += dependency.words
        if _has_step(number, len(dependencies)):
            lines.append(exec_form("RUN", (INSTALLER, *words)))
    return lines


def _has_step(number: int, count: int) -> bool:
    """Whether the entry has a step of its own; of very many only each tenth and the last ones.

    An image has at most some 120 layers.
    """
    return count <= 60 or number % 10 == 0 or number > (count - 1) // 10 * 10


# --- the primary job ---


def _primary(project: Project) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """The entrypoint and the command of the image; None where they are the base's own."""
    if not project.primary_job:
        return None, None
    job = next(job for job in project.jobs if job.name == project.primary_job)
    if project.primary_exe == "ENTRYPOINT":
        return plan.argv(project, job, ()), None
    # An entrypoint of the base would take the command for its arguments.
    return (), primary_command(project, job)


def primary_command(project: Project, job: Job) -> tuple[str, ...]:
    """The words of the image's CMD: the job with its defaults.

    Where defaults are environment references, a shell puts the container's values in their places;
    all other words reach it as arguments, so that it expands nothing else.
    """
    words: list[str] = []
    shell: list[str] = []

    def add(literal: str) -> str:
        words.append(literal)
        return f'"${{{len(words)}}}"'

    referenced = False
    for word in plan.argv(project, job, ()):
        shell.append(add(word))
    for param in job_params(project, job, script(project.root, job.source) is not None):
        if param.reference:
            referenced = True
            shell.append(f'${{{param.reference}+{add(param.flag)} "${param.reference}"}}')
        else:
            shell += [add(w) for w in plan.param_words(param, plan.default(param, {}))]
    if not referenced:
        return tuple(words)
    return ("sh", "-c", "exec " + " ".join(shell), job.name, *words)


# --- writing ---


def exec_form(instruction: str, words: tuple[str, ...]) -> str:
    """An instruction whose words no shell reads; JSON escapes line ends."""
    return f"{instruction} {json.dumps(list(words))}"


def shell_form(instruction: str, command: str) -> str:
    """An instruction with the author's own shell text; as JSON where Docker would read it otherwise."""
    command = command.strip()
    odd = re.match(r"[\[<-]", command) or "<<" in command or command.endswith("\\")
    if odd or not command.isprintable():
        return exec_form(instruction, ("/bin/sh", "-c", command))
    return f"{instruction} {command}"


def quoted(value: str) -> str:
    """A value of LABEL and ENV, in which Docker expands variables and knows quotes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
