"""Read the project once for each environment in a chain, with the commands that it offers."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from skelebot import catalog, console
from skelebot.component import Command, Component, Session
from skelebot.errors import ConfigError, UsageError
from skelebot.model import Flags, Project
from skelebot.plugins import find
from skelebot.project import nodes, read
from skelebot.project.nodes import Report

if TYPE_CHECKING:
    from skelebot.plugins.guard import Guard


class Loaded(NamedTuple):
    session: Session
    commands: dict[str, Command]


class Loader:
    """Read the project once for each environment in the chain.

    command: the only command of the line, if it has one. main: runs another command line. warned: the
    warnings that were printed, each of them once.
    """

    def __init__(
        self,
        root: str | None,
        command: str = "",
        main: Callable[[list[str]], int] = len,
        warned: set[str] | None = None,
    ) -> None:
        self._root, self._command, self._main = root, command, main
        self._warned: set[str] = set() if warned is None else warned
        self._known: dict[str | None, Loaded] = {}
        self._plugins: list[Guard] | None = None
        self._described: set[str] = set()
        self._outdated: set[str] = set()

    def load(self, flags: Flags, command: str = "") -> Loaded:
        """Load the project and its commands. Raises ConfigError if `command` needs a valid configuration."""
        if flags.env not in self._known:
            self._known[flags.env] = self._read(flags.env)
        known = self._known[flags.env]
        if _needs_valid_config(command, known.session.optional_project):
            self._known[flags.env] = known = _without_problems(known, self._warned)
        session = known.session._replace(
            flags=flags, main=self._main, described=self._described, outdated=self._outdated
        )
        return known._replace(session=session)

    def at(self, root: str) -> "Loader":
        """Return a loader for a copy of the project."""
        return Loader(root, self._command, self._main, self._warned)

    def forget(self) -> None:
        """Read the project again next time, because its files have changed."""
        self._known.clear()

    def _read(self, env: str | None) -> Loaded:
        if self._root is None:
            if env is not None:
                raise UsageError(f"{read.NO_PROJECT}, so no environment {env!r}")
            return _loaded(None, catalog.active(None, Report(), self._guards(None)))
        try:
            project, report = read.project(self._root, env)
        except UsageError as error:
            return _wrong([str(error)], [])
        components = catalog.active(project, report, self._guards(project)) if project else ()
        if report.problems:
            return _wrong(nodes.in_order(report.problems), nodes.in_order(report.warnings))
        return _loaded(project, components, warnings=nodes.in_order(report.warnings))

    def _guards(self, project: Project | None) -> "list[Guard]":
        """Return the installed plugins, switched off if the command must work without them."""
        if self._plugins is None:
            self._plugins = []
            if found := find.find():
                from skelebot.plugins.guard import Guard

                off = None if _needs_valid_config(self._command, project) else "not asked for"
                self._plugins = [Guard(plugin, off) for plugin in found]
        return self._plugins


def _needs_valid_config(command: str, project: Project | None) -> bool:
    """Whether a command, or a job of its name, needs a valid configuration."""
    is_job = project is not None and any(job.name == command for job in project.jobs)
    return is_job or catalog.needs_valid_config(command)


def _wrong(problems: Sequence[str], warnings: Sequence[str]) -> Loaded:
    """Return what is available with a wrong configuration: the same as outside a project."""
    return _loaded(None, catalog.active(None, Report()), problems, warnings)


def _loaded(
    project: Project | None,
    components: tuple[Component, ...],
    problems: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Loaded:
    names, schema = catalog.names(), catalog.whole_schema
    session = Session(
        project, components, Flags(), set(), set(), tuple(problems), tuple(warnings), names, schema
    )
    return Loaded(session, catalog.commands(project, components))


def _without_problems(loaded: Loaded, warned: set[str]) -> Loaded:
    """Print the warnings that are not in `warned`, and add them. Raises ConfigError if there are problems."""
    for warning in loaded.session.warnings:
        if warning not in warned:
            console.warn(warning)
    warned.update(loaded.session.warnings)
    if loaded.session.problems:
        raise ConfigError(list(loaded.session.problems))
    return loaded._replace(session=loaded.session._replace(warnings=()))
