"""`--watch`: run a chain again whenever a file changes that its jobs read."""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import PurePosixPath
from types import FrameType
from typing import NoReturn

import watchfiles

from skelebot import console, foreground, launch
from skelebot.component import Link
from skelebot.components.jobs.files import named as named_files
from skelebot.errors import STOPPING, ConfigError, Interrupted, SkelebotError
from skelebot.files import reason
from skelebot.image import context, ignores
from skelebot.image.context import ContextEntry
from skelebot.image.ignores import Ignores
from skelebot.model import Job, Project, project_path
from skelebot.pipeline import contents
from skelebot.project import needs
from skelebot.project.read import env_files
from skelebot.project.sources import script

_STEP = 50  # milliseconds; changes that follow each other faster count as one


def watch(root: str, parse: Callable[[], Sequence[Link]], run: Callable[[Sequence[Link]], int]) -> int:
    """Run the links, and again after each change, until a signal ends it.

    parse: reads the project and gives the links. Raises Interrupted, and SkelebotError where the system
    cannot watch the files.
    """
    files = _Files(root)
    changes = _changes(root, files)
    before: set[str] = set()
    next(changes)  # from now on none is missed
    while True:
        _run_once(files, parse, run)
        during = next(changes)
        if often := during & before:  # otherwise it would never stop
            console.warn(
                f"{_names(root, often)}: changes whenever the job runs; name it in outputs or ignores"
            )
        before, changed = during, during - before
        if not changed:
            console.info("waiting for a change; Ctrl-C ends")
            # Where these messages go may be a file of the project, too.
            changed = next(changes) - often or next(filter(None, changes))
        console.info(f"{_names(root, changed)} changed")


def _changes(root: str, files: "_Files") -> Iterator[set[str]]:
    """Yield what has changed, without end: nothing after 50 ms without a change.

    What changes while nobody asks is not lost.
    """
    signums: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        signums.append(signum)
        raise Interrupted(signum)

    watched = watchfiles.watch(
        root,
        watch_filter=files.is_read,
        step=_STEP,
        rust_timeout=_STEP,
        yield_on_timeout=True,
        ignore_permission_denied=True,  # what cannot be read is no input
    )
    try:
        with foreground.handled(interrupt, STOPPING):
            for changes in watched:
                yield {path for _, path in changes}
    except KeyboardInterrupt:  # what watchfiles makes of an exception in a handler
        raise Interrupted(signums[0] if signums else STOPPING[0]) from None
    except OSError as error:
        raise SkelebotError(
            f"{root} cannot be watched: {reason(error)}; set WATCHFILES_FORCE_POLLING=1"
        ) from None


def _run_once(
    files: "_Files", parse: Callable[[], Sequence[Link]], run: Callable[[Sequence[Link]], int]
) -> None:
    """Run once. A failure is reported and no reason to end: the next change may be its remedy."""
    launch.forget_files()
    try:
        links = parse()
        files.follow(links)
        code = run(links)
    except SkelebotError as error:
        for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
            console.error(problem)
    except BrokenPipeError:
        raise
    except OSError as error:  # such as a file that somebody is replacing
        console.error(f"{error.filename}: {reason(error)}" if error.filename else reason(error))
    else:
        if code - 128 in STOPPING:
            raise Interrupted(code - 128)


def _names(root: str, paths: Collection[str]) -> str:
    names = sorted(os.path.relpath(path, root) for path in paths)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class _Files:
    """Which files the jobs of the links read; the configuration is always one of them."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._rules: list[tuple[Ignores | None, Ignores]] = []
        self._folders: set[str] = set()  # of what the jobs declare that they read

    def follow(self, links: Sequence[Link]) -> None:
        """Watch for what the jobs of these links read, and the jobs that they need."""
        jobs: dict[str, tuple[Project, Job]] = {}
        for link in links:
            if link.command.job:
                jobs[link.command.name] = (link.session.project, link.command.job)
        named = Ignores([ignores.literal(path) for path in self._named(links)])
        self._rules = [(named, Ignores(())), *(self._rule(*each) for each in jobs.values())]
        read = (entry.path for _, job in jobs.values() for entry in self._inputs(job))
        self._folders = {str(folder) for path in read for folder in PurePosixPath(path).parents}

    def _inputs(self, job: Job) -> Iterator[ContextEntry]:
        for text in job.inputs or ():
            yield from contents.matching(self._root, job, text)

    def _named(self, links: Sequence[Link]) -> Iterator[str]:
        """Yield the files of variables, and those that the links' values name."""
        yield from env_files(self._root)
        for link in links:
            if job := link.command.job:
                yield from (text for _, text, _ in named_files(link.session.project, job, link.values))

    def _rule(self, project: Project, job: Job) -> tuple[Ignores | None, Ignores]:
        """Return the patterns of what a job reads, None for everything, and of what it does not."""
        if job.inputs is None:
            return None, Ignores(launch.left_out(project, job))
        made = [output for each in (*needs.needed(project, job), job) for output in each.results]
        scripts = (script(project.root, source) for source in (job.source, job.validate or ""))
        named = (*filter(None, scripts), *self._targets(job))
        read = (*map(project_path, job.inputs), *map(ignores.literal, named))
        return Ignores(read), Ignores((*ignores.DEFAULTS, *(ignores.literal(output.path) for output in made)))

    def _targets(self, job: Job) -> Iterator[str]:
        """Yield what the job's inputs lead to, where they are links."""
        yield from (self._real(e.path) for e in self._inputs(job) if stat.S_ISLNK(e.stat.st_mode))
        fixed = (contents.fixed_part(project_path(text)) for text in job.inputs or ())
        yield from (self._real(path) for path in fixed if path and self._real(path) != path)

    def _real(self, path: str) -> str:
        """Return a path from the project's root with its links followed."""
        return os.path.relpath(os.path.realpath(os.path.join(self._root, path)), os.path.realpath(self._root))

    def is_read(self, change: watchfiles.Change, path: str) -> bool:
        """Tell whether a change of a path is a reason to run."""
        inside = os.path.relpath(path, self._root)
        if re.fullmatch(r"skelebot(-.+)?\.yaml", inside):
            return True
        if change == watchfiles.Change.deleted and inside in self._folders:  # it was moved as a whole
            return True
        names = {inside, self._real(inside)}  # the system may report a file by any link above it
        return any(
            not any(map(left_out.excludes, names))
            and (read is None or any(self._is_read(change, name, read, left_out) for name in names))
            for read, left_out in self._rules
        )

    def _is_read(self, change: watchfiles.Change, inside: str, read: Ignores, left_out: Ignores) -> bool:
        return read.excludes(inside) or self._holds(change, inside, read, left_out)

    def _holds(self, change: watchfiles.Change, folder: str, read: Ignores, left_out: Ignores) -> bool:
        """Tell whether a path is that of a folder that was moved here with something that is read."""
        if change != watchfiles.Change.added or not os.path.isdir(os.path.join(self._root, folder)):
            return False
        try:
            return any(read.excludes(e.path) for e in context.walk(self._root, left_out, below=folder))
        except SkelebotError:  # what cannot be read is no input
            return False
