"""A project becomes an Image, and an Image the text of a Dockerfile. Nothing here runs or writes."""

import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator

from skelebot.image import dependencies_r, ignores, installer
from skelebot.image.dependencies import Dependencies, Dependency
from skelebot.image.instructions import (
    apt_install,
    copy,
    copy_from,
    exec_form,
    quoted,
    run_program,
    shell_form,
    write_program,
)
from skelebot.model import WORKDIR, Image, Job, Project
from skelebot.project import plan
from skelebot.project.checks import primary_command
from skelebot.project.sources import argv, class_source, import_folders, job_params
from skelebot.secret import Word

PROJECT_LABEL = "skelebot.project"

_DEFAULT_PYTHON = "3.12"
# Of the official images with R the one with a tag for each minor version, a compiler, and a mirror that
# gives packages compiled for it: https://rocker-project.org/images/versioned/r-ver.html
_DEFAULT_R = "rocker/r-ver:4.5"


def image(
    project: Project,
    dependencies: Dependencies,
    job: Job | None = None,
    own_ignores: tuple[str, ...] = (),
    default_base: str | None = None,
    default_cran: str | None = None,
    env_files: Iterable[str] = (),
    with_outputs: bool = False,
) -> Image:
    """The image of a project, in which `job` runs.

    A job that leaves out files of its own has an image of its own. own_ignores, env_files, with_outputs:
    see `left_out`. default_base, default_cran: stand in for the official image, and for R's own mirror,
    where the project names none.
    """
    tag = f"{project.image}:{plan.tag(job.name)}" if job and job.ignores else f"{project.image}:latest"
    patterns = left_out(project, job, own_ignores, env_files, with_outputs)
    copied = tuple(dict.fromkeys(path for d in (*dependencies.r, *dependencies.python) for path in d.files))
    without = ignores.Ignores(patterns)
    entrypoint, command = _primary(project)
    kept = tuple(f"!{ignores.literal(path)}" for path in copied if without.excludes(path))
    return Image(
        tag=tag,
        project=project.name,
        base=base_image(project, default_base),
        context=project.root,
        shared_setup=tuple(_installer(dependencies)) if _is_shared(project) else (),
        setup=tuple(_setup(project, dependencies, project.build.cran or default_cran or "")),
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
        shadow_sets=_shadow_sets(project),
    )


def left_out(
    project: Project,
    job: Job | None,
    own_ignores: tuple[str, ...] = (),
    env_files: Iterable[str] = (),
    with_outputs: bool = False,
) -> tuple[str, ...]:
    """Return the patterns of what the image of a job leaves out.

    own_ignores: the lines of the project's .dockerignore. env_files: what no image is to hold. with_outputs:
    whether the image holds what jobs make, as it does when it leaves this machine. Otherwise each job that
    needs them has them mapped, so that a new result builds no image.
    """
    never = [ignores.literal(path) for path in sorted(_secret_paths(project.root, env_files))]
    if not with_outputs:
        never += [ignores.literal(output.path) for each in project.jobs for output in each.results]
    of_job = job.ignores if job else ()
    return (*ignores.DEFAULTS, *own_ignores, *project.ignores, *of_job, *never)


def _shadow_sets(project: Project) -> tuple[tuple[str, ...], ...]:
    """What is shadowed for each job, and for those of Skelebot's own tools that map the whole project."""
    of_jobs = (plan.shadowed(job) for job in project.jobs)
    return tuple(dict.fromkeys((*of_jobs, ("",))))


def _secret_paths(root: str, env_files: Iterable[str]) -> set[str]:
    """The files from the project root, as they are named and as links lead to them."""
    found = set()
    # Below an unknown home there is nothing of the project.
    for path in (os.path.join(root, os.path.expanduser(name)) for name in env_files):
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
    if project.language != "Python":
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


def text(image: Image, user: str = "") -> str:
    """The whole Dockerfile of an image, as anyone could build it. user: as for its first part."""
    return "\n".join([*first_part(image, (), user), *second_part(image, None, user)]) + "\n"


def first_part(image: Image, heavy: tuple[str, ...] = (), user: str = "") -> list[str]:
    """What comes before the project's files: the base, what is installed, and the `heavy` paths.

    user: the base's own, where it is not root, who cannot install.
    """
    lines = [f"FROM {image.base}", *(["USER root"] if user else []), *image.shared_setup]
    lines += [label_line([(PROJECT_LABEL, image.project)]), *image.setup]
    for path in heavy:
        target = f"{WORKDIR}/{path}"
        if os.path.isdir(os.path.join(image.context, path)):
            target += "/"
        lines.append(copy(path, target))
    return lines


def second_part(image: Image, first: str | None, user: str = "") -> list[str]:
    """The project's files and what follows them, on the image `first` or in the same Dockerfile."""
    lines = [f"FROM {first}"] if first else []
    lines.append(copy(".", WORKDIR + "/"))
    lines += image.lines
    lines += [label_line(image.labels)] if image.labels else []
    user = image.user or user
    if user:
        lines.append(f"USER {user}")
    for instruction, words in (("ENTRYPOINT", image.entrypoint), ("CMD", image.command)):
        lines += [exec_form(instruction, words)] if words is not None else []
    return lines


def from_folder(lines: list[str], folder: str) -> list[str]:
    """The lines for a context that holds the project's files in a folder."""
    return [copy_from(line, folder) for line in lines]


def label_stages(text: str, project: str, labels: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Label a custom Dockerfile for the classic builder: each stage with the project, the last with all.

    That builder leaves images of stages and of failed builds behind, with no other sign of whose they
    are. BuildKit leaves none. Also gives the labels that found no place, as the text ends within an
    instruction; each label that is an option of the build costs a step.
    """
    # https://docs.docker.com/reference/dockerfile/#escape
    directive = re.match(r"(?:#\s*\w+\s*=.*\n)*?#\s*escape\s*=\s*`\s*$", text, re.IGNORECASE | re.MULTILINE)
    lines: list[str] = []
    instruction = ""
    for line in text.split("\n"):
        lines.append(line)
        if re.match(r"\s*(#|$)", line):
            continue  # comments and empty lines may stand within an instruction
        instruction += line.rstrip()
        if instruction.endswith("`" if directive else "\\"):
            instruction = instruction[:-1]
            continue
        if re.match(r"\s*FROM\s", instruction, re.IGNORECASE):
            lines.append(label_line([(PROJECT_LABEL, project)]))
        instruction = ""
    if instruction:
        return "\n".join(lines), labels
    return "\n".join([*lines, label_line(sorted(labels.items())), ""]), {}


def with_inherited_settings(
    lines: list[str], cache: str, mounts: tuple[str, ...], env: tuple[tuple[str, str], ...]
) -> list[str]:
    """The lines with mounts, which only BuildKit knows, and variables for each RUN alone.

    The cache is the installer's: what other commands write there belongs into the image. The base
    image's own variables would win over ARG.
    """
    pairs = [f"{name}={value}" for name, value in env]
    return [_inheriting(line, cache, mounts, pairs) if line.startswith("RUN ") else line for line in lines]


def _inheriting(line: str, cache: str, mounts: tuple[str, ...], pairs: list[str]) -> str:
    own = (cache,) if installer.INSTALLER in line else ()
    options = "".join(f"--mount={mount} " for mount in (*own, *mounts))
    return f"RUN {options}{_with_env(line[4:], pairs)}"


def _with_env(command: str, pairs: list[str]) -> str:
    if not pairs:
        return command
    if command.startswith("["):
        return json.dumps(["env", *pairs, *json.loads(command)])
    return f"export {' '.join(pairs)}; {command}"


def label_line(labels: Iterable[tuple[str, str]]) -> str:
    """All of them in one instruction: the classic builder runs a container for each."""
    return "LABEL " + " \\\n    ".join(f"{_label_name(name)}={quoted(value)}" for name, value in labels)


def _label_name(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name, re.ASCII) else quoted(name)


# --- before the files ---


def _is_shared(project: Project) -> bool:
    """Whether the installer can stand before all that is the project's own, for all projects to share.

    `build.commands` may bring what it needs: Python, a certificate, an index.
    """
    return project.language == "Python" and not project.build.commands


def _installer(dependencies: Dependencies) -> list[str]:
    return installer.steps(installer.only_pip(dependencies.python)) if dependencies.python else []


def _setup(project: Project, dependencies: Dependencies, cran: str) -> list[str]:
    lines = _timezone(project.timezone) if project.timezone else []
    if project.build.packages:
        lines.append(apt_install(" ".join(project.build.packages)))
    lines += [shell_form("RUN", command) for command in project.build.commands]
    lines.append(f"WORKDIR {WORKDIR}")
    if project.language == "R+Python" or (project.language == "R" and dependencies.python):
        lines += _python("" if project.base_image else project.python_version or "")
    lines += _install(dependencies, cran, [] if _is_shared(project) else _installer(dependencies))
    if project.language != "R":
        lines.append(_python_path(project.root))
    return lines


def _timezone(name: str) -> list[str]:
    file = f"/usr/share/zoneinfo/{name}"
    return [
        f"ENV TZ={quoted(name)}",
        f"{apt_install('tzdata', unless=f'test -f {file}')} || true",
        f"RUN test -f {file} \\\n"
        f" || {{ echo 'the image has no time zone {name}; add tzdata to its base' >&2; exit 1; }}",
        f"RUN ln -snf {file} /etc/localtime && echo {name} >/etc/timezone",
    ]


def _python(version: str) -> list[str]:
    """Python beside R: an image with R seldom has it, or only without pip. It is the distribution's."""
    lines = [
        apt_install("python3 python3-pip", unless="python3 -m pip --version >/dev/null 2>&1"),
        'RUN command -v python >/dev/null || ln -s "$(command -v python3)" /usr/local/bin/python',
    ]
    if version:
        lines.append(
            f'RUN case "$(python -V)." in "Python {version}."*) exit;; esac; \\\n'
            f'    echo "the image has $(python -V), and pythonVersion is {version};" \\\n'
            "        'name a baseImage that has R and that Python' >&2; exit 1"
        )
    return lines


def _python_path(root: str) -> str:
    """The folders whose modules all jobs can import, before those of the base image."""
    folders = ":".join(posixpath.normpath(f"{WORKDIR}/{f}") for f in import_folders(root))
    return f'ENV PYTHONPATH="{folders}${{PYTHONPATH:+:$PYTHONPATH}}"'


# The .Rprofile of a project with renv would put a library of its own, empty here, in the image's place:
# https://rstudio.github.io/renv/reference/config.html
_NO_OWN_LIBRARY = 'ENV RENV_CONFIG_AUTOLOADER_ENABLED="FALSE"'


def _install(dependencies: Dependencies, cran: str, python_installer: list[str]) -> list[str]:
    """A step for each entry, so that one added at the bottom finds those above it in the cache.

    R's come first, as they take longer. The nth step of Python's names the entries 1 to n: they are
    resolved together, and a conflict fails. R's installer itself remembers what came before.
    """
    lines: list[str] = []
    crowded = len(dependencies.r) + len(dependencies.python) > _MOST_STEPS
    if dependencies.r:
        lines += [_NO_OWN_LIBRARY, f"RUN {dependencies_r.CHECK_R}"]
        # A base that Skelebot has made may have a record of its own packages.
        lines.append("RUN rm -f /usr/local/share/skelebot-r-packages")
        lines.append(f"RUN {write_program(dependencies_r.INSTALLER, dependencies_r.script())}")
    for group in _groups(dependencies.r, crowded):
        lines += [line for line in _needed(group) if line not in lines]
        lines.append(run_program(dependencies_r.INSTALLER, (cran, *_words(group))))
    lines += python_installer
    so_far: tuple[str, ...] = ()
    for group in _groups(dependencies.python, crowded):
        lines += [line for line in _needed(group) if line not in lines]
        so_far += _words(group)
        lines.append(run_program(installer.INSTALLER, so_far))
    return lines


_MOST_STEPS = 60  # an image has at most some 120 layers, and an entry may need three


def _groups(dependencies: tuple[Dependency, ...], crowded: bool) -> list[tuple[Dependency, ...]]:
    """The entries that share a step: each has its own, but of very many only the last ones."""
    together = (len(dependencies) - 1) // 10 * 10 if crowded else 0
    tens = [dependencies[i : i + 10] for i in range(0, together, 10)]
    return tens + [(dependency,) for dependency in dependencies[together:]]


def _needed(group: tuple[Dependency, ...]) -> Iterator[str]:
    """What has to be in the image before the entries can be installed."""
    for dependency in group:
        for path in dependency.files:
            end = "/" if dependency.fetch else ""
            yield copy(path, f"{WORKDIR}/{path}{end}")
        if dependency.git:
            yield apt_install("git ca-certificates", unless="command -v git >/dev/null")


def _words(group: tuple[Dependency, ...]) -> tuple[str, ...]:
    return tuple(word for dependency in group for word in dependency.words)


# --- the primary job ---


def _primary(project: Project) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """The entrypoint and the command of the image; None where they are the base's own."""
    if not project.primary_job or any(primary_command(project)):
        return None, None
    job = next(job for job in project.jobs if job.name == project.primary_job)
    if project.primary_exe == "ENTRYPOINT":
        return tuple(map(str, argv(project, job, ()))), None
    # An entrypoint of the base would take the command for its arguments.
    return (), command_of(project, job)


def command_of(project: Project, job: Job) -> tuple[str, ...]:
    """The words of the image's CMD: the job with its defaults.

    Where defaults are environment references, a shell puts the container's values in their places;
    all other words reach it as arguments, so that it expands nothing else.
    """
    words: list[str] = []
    shell: list[str] = []

    def add(word: Word) -> str:
        words.append(str(word))
        return f'"${{{len(words)}}}"'

    referenced = False
    of_class = class_source(project.root, job.source) is not None
    for word in argv(project, job, ()):
        shell.append(add(word))
    for param in job_params(project, job):
        if param.reference:
            referenced = True
            shell.append(f'${{{param.reference}+{add(param.flag)} "${param.reference}"}}')
        else:
            shell += [add(w) for w in plan.param_words(param, plan.default(job.name, param, {}), of_class)]
    if not referenced:
        return tuple(words)
    return ("sh", "-c", "exec " + " ".join(shell), job.name, *words)
