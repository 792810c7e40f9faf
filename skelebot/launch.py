"""Prepare and run what commands build or run: the project's image and its tasks."""

import os
import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from skelebot import console
from skelebot.component import Session
from skelebot.errors import ConfigError, UsageError
from skelebot.files import sweep
from skelebot.keys import cran_mirror
from skelebot.model import Image, Job, Language, Place, Project, Run, Task
from skelebot.project.checks import primary_command
from skelebot.project.read import env_files

if TYPE_CHECKING:
    from skelebot.image.dependencies import Dependencies, Reader
    from skelebot.process import Streams
    from skelebot.runners.runner import Launch


def image(
    session: Session, job: Job | None = None, also: tuple[str, ...] = (), with_outputs: bool = False
) -> Image:
    """Return the image of the project, or of a job with its own ignores, as amended by the components.

    also: more Python dependencies, installed last. with_outputs: whether it holds what the jobs make.
    Raises ConfigError.
    """
    from skelebot.image import dockerfile  # only for Docker

    project = session.project
    own_ignores, env_files = _patterns(project.root)
    image = dockerfile.image(
        project,
        _dependencies(project, also),
        job,
        own_ignores=own_ignores,
        default_base=os.environ.get("SKELEBOT_BASE_IMAGE"),
        default_cran=_cran_of_the_machine(),
        env_files=env_files,
        with_outputs=with_outputs,
    )
    for component in session.components:
        image = component.image(image, project)
    return image


def left_out(project: Project, job: Job) -> tuple[str, ...]:
    """Return the patterns of what the image of a job leaves out, before components amend it."""
    from skelebot.image import dockerfile

    return dockerfile.left_out(project, job, *_known_patterns(project.root))


def _patterns(root: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return what .dockerignore and Skelebot's own notes leave out, and every envFile."""
    from skelebot.image import ignores
    from skelebot.project.state import outputs

    return (*map(ignores.literal, outputs(root)), *ignores.of_user(root)), frozenset(env_files(root))


_known_patterns = cache(_patterns)  # as all jobs of a pipeline ask for them


def forget_files() -> None:
    """Read the project's files again next time, because something has run."""
    _known_patterns.cache_clear()
    if contents := sys.modules.get("skelebot.pipeline.contents"):  # otherwise nobody has looked at files
        contents.forget()


def check_primary_job(session: Session) -> None:
    """Raise ConfigError if an image that leaves this machine could not run its primary job."""
    if problems := list(primary_command(session.project)):
        raise ConfigError(problems)


def _dependencies(project: Project, also: tuple[str, ...]) -> "Dependencies":
    """Read all entries. Raises ConfigError with the mistakes in either language."""
    from skelebot.image import dependencies, dependencies_r

    readers: dict[Language, Reader] = {"Python": dependencies.python, "R": dependencies_r.r}
    found, problems = [], []
    for language, read in readers.items():
        entries = (*project.entries(language), *(also if language == "Python" else ()))
        try:
            found.append(read(project.root, entries, project.entry_places(language)))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return dependencies.Dependencies(*found)


def _cran_of_the_machine() -> str | None:
    mirror = os.environ.get("SKELEBOT_CRAN") or None
    if mirror and (expected := cran_mirror(mirror)):
        raise UsageError(f"SKELEBOT_CRAN: expected {expected}")
    return mirror


def fetch_dependencies(session: Session) -> None:
    """Download what a build needs but no builder can download. Raises SkelebotError."""
    project = session.project
    if session.flags.dry_run or session.flags.skip_build:
        return
    entries = project.entries("Python")
    if any(entry.startswith("ca_file:") for entry in entries):
        from skelebot.image import codeartifact, dependencies

        codeartifact.fetch(project.root, dependencies.python(project.root, entries))


def tool(session: Session, name: str, argv: tuple[str, ...] = (), only_docker: bool = False) -> Task:
    """Return a task of Skelebot's own with the project's host, variables and user.

    Raises UsageError for `-n` if the task needs Docker.
    """
    from skelebot.project import plan

    project = session.project
    if only_docker and session.flags.native:
        raise UsageError(f"{name} cannot run natively; leave out -n")
    return Task(
        name=name,
        argv=argv,
        root=project.root,
        dependencies=project.entries("Python"),
        python_version=project.python_version,
        project=project.name,
        place=plan.place(project, None, session.flags),
        may_run_natively=not only_docker,
        env=plan.environment(project, None, os.environ),
        user=project.user,
        limits=plan.limits(project, None),
        dependency_places=project.entry_places("Python"),
    )


def amended(session: Session, task: Task) -> Task:
    """Return the task as amended by each component."""
    for component in session.components:
        task = component.task(task, session.project)
    return replace(task, place=place(session, task.place))


def place(session: Session, place: Place) -> Place:
    """Return the place with what the components know of it."""
    for component in session.components:
        place = component.place(place, session.project)
    return place


def places(session: Session) -> list[Place]:
    """Return the engines and clusters that the project names or has used; with -d that one alone."""
    from skelebot.project import state

    project, named = session.project, session.flags.docker_host
    hosts = (named,) if named else (*named_hosts(project), *state.known_hosts(project.root))
    return list(dict.fromkeys(place(session, Place.at(host)) for host in hosts))


def named_hosts(project: Project) -> tuple[str | None, ...]:
    return (project.host, *(job.host for job in project.jobs if job.host))


def check(session: Session, image: Image, task: Task) -> None:
    """Raise SkelebotError for what is sure to keep the task from running."""
    from skelebot import runners

    if task.stdin and not task.place.is_cluster:
        raise UsageError(
            f"{task.name}: `stdin: true` is only available on a cluster; choose one with -d k8s://CONTEXT"
        )
    runners.at(task.place, session.flags).check(image, task)


def start(session: Session, image: Image, task: Task, streams: "Streams | None" = None) -> int:
    """Build if necessary, run the task and return its exit code; with --dry-run, describe it.

    streams: replace Skelebot's own. Raises SkelebotError.
    """
    from skelebot import foreground, process, runners  # not for the commands that only list what there is

    runner = runners.at(task.place, session.flags)
    if session.flags.dry_run:
        console.out(task.name)
        for line in runner.describe(image, task, session.described):
            console.out(f"  {line}")
        return 0
    sweep()
    if session.metrics and not task.is_detached:
        task = replace(task, metrics=session.metrics)
    streams, attend = session.aside[:2] if session.aside else (streams, foreground.attend)
    with (
        runner.prepare(image, task) as prepared,
        process.logged(streams or process.OWN, session.log) as logged,
    ):
        if session.note_image:
            session.note_image(runner.image_id(prepared))
        if task.is_detached:
            run, signum = foreground.begin(lambda launch: runner.start(prepared, task, process.OWN, launch))
            console.out(run.name)
            return 128 + signum if signum else 0

        def begin(launch: "Launch") -> Run:
            return runner.start(prepared, task, logged, launch)

        is_raw = logged == process.OWN and foreground.are_terminals() and not task.place.is_native
        return attend(begin, runner.wait, runner.signal, is_raw)


def prepare(session: Session, image: Image, task: Task) -> None:
    """Build what has changed, and run nothing. Raises SkelebotError."""
    from skelebot import runners

    sweep()
    with runners.at(task.place, session.flags).prepare(image, task):
        pass
