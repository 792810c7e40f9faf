"""`--rehearse`: run a chain once on small values in a copy of the project, to see its outputs saved."""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

from skelebot import console, launch, runners
from skelebot.component import Link
from skelebot.components.jobs import files, run
from skelebot.components.jobs.run import is_below
from skelebot.errors import SkelebotError, UsageError
from skelebot.files import locked, reason, remove_tree
from skelebot.image import context
from skelebot.image.ignores import Ignores
from skelebot.model import Job, project_path
from skelebot.options import Values
from skelebot.pipeline import contents
from skelebot.project import plan
from skelebot.project.read import env_files
from skelebot.project.state import FOLDER, own_folder


@contextmanager
def workspace(links: Sequence[Link]) -> Iterator[str]:
    """Yield the root of a copy of the project, without outputs, and remove it afterwards.

    It holds what images hold and what the jobs name: inputs and read-only mappings by links, so nothing large
    is copied, other mappings as copies, so that nothing is written to the project. Raises SkelebotError.
    """
    root = links[0].session.project.root
    # Always the same, as an engine takes each folder for a checkout.
    top = os.path.join(own_folder(root), "rehearsal")
    with locked(f"{top}.lock", on_wait=lambda: console.info("waiting for another rehearsal to end")):
        copy = _Copy(top, root, (os.path.join(root, FOLDER), *_made(links)))
        # A killed one may have left results, which are not to pass for those of this one.
        _remove(copy, links)
        try:
            _fill(copy, links)
            console.info("rehearsing in a copy of the project, which is removed afterwards")
            yield copy.of(root)
        finally:
            with suppress(SkelebotError):  # the next one tries again, and reports it
                _remove(copy, links)


def values(link: Link) -> Values:
    """Return the link's values, with those that its job names for a rehearsal."""
    job = link.command.job
    assert job is not None  # the command line has seen to that
    replaced = dict(link.values)
    by_name = {arg.name: arg.key for arg in job.args}
    for name, text in job.rehearse:
        param = next((param for param in link.command.params if param.name == name), None)
        key = by_name.get(name, name)
        if param and param.accepts == "boolean":
            replaced[key] = (text or "").lower() in ("true", "yes", "on")
        else:
            replaced[key] = (text or "",) if param and param.accepts == "list" else text or ""
    return replaced


def check(links: Sequence[Link]) -> None:
    """Raise UsageError for an arg that has no value, as that is swept."""
    for link in links:
        known = values(link)
        for arg in link.command.args:
            if arg.key not in known:
                raise UsageError(
                    f"--rehearse: {link.command.name} needs one value of {arg.name}; add it to its `rehearse`"
                )


# --- the copy ---


def _made(links: Sequence[Link]) -> Iterator[str]:
    """Yield the outputs of all jobs, which a rehearsal makes itself."""
    for project in (link.session.project for link in links):
        for job in project.jobs:
            yield from (os.path.join(project.root, output.path) for output in job.results)


def _remove(copy: "_Copy", links: Sequence[Link]) -> None:
    """Remove the copy, and what engines keep for it. Raises SkelebotError if an engine does not answer."""
    try:
        _forget(copy, links)
    finally:
        remove_tree(copy.top)


def _forget(copy: "_Copy", links: Sequence[Link]) -> None:
    """Let each engine of the links remove what it keeps for the copy."""
    done = set()
    for link, job in ((link, link.command.job) for link in links):
        assert job is not None  # the command line has seen to that
        image, task, _ = run.prepare(link.session, job, values(link))
        if (image.tag, task.place) not in done:
            done.add((image.tag, task.place))
            runner = runners.at(task.place, link.session.flags)
            runner.forget(replace(image, context=copy.of(copy.root)))


def _fill(copy: "_Copy", links: Sequence[Link]) -> None:
    """Copy what the jobs may write to; then link what they only read, and the native environments."""
    jobs = [(link, link.command.job) for link in links if link.command.job]
    try:
        os.mkdir(copy.top, 0o700)
        for link, job in jobs:
            for entry in context.walk(copy.root, Ignores(launch.left_out(link.session.project, job))):
                copy.add_file(entry.file)
            for path in _mapped(copy, link, job, read_only=False):
                copy.add_tree(path)
        for link, job in jobs:
            for path in _read(copy, link, job):
                copy.link(path)
        _share_environments(copy, jobs)
    except OSError as error:
        raise SkelebotError(f"the project cannot be copied for a rehearsal: {reason(error)}") from None


def _mapped(copy: "_Copy", link: Link, job: Job, read_only: bool) -> Iterator[str]:
    """Yield the folders of the job's mappings, except those with absolute paths, which are no others here."""
    project, copied = link.session.project, replace(link.session.project, root=copy.of(copy.root))
    is_native = plan.place(project, job, link.session.flags).is_native
    for mount, inside in zip(plan.mounts(project, job), plan.mounts(copied, job), strict=True):
        if mount.read_only is not read_only:
            continue
        if mount.source != inside.source:
            yield mount.source
        elif not read_only and not is_native:
            console.warn(f"{job.name}: {mount.source} is not copied; what the rehearsal writes there stays")


def _read(copy: "_Copy", link: Link, job: Job) -> Iterator[str]:
    """Yield what the job only reads, and images may leave out."""
    project, root = link.session.project, copy.root
    for text in job.inputs or ():
        fixed = contents.fixed_part(project_path(text))
        found = (entry.file for entry in contents.matching(root, job, text))
        yield from (os.path.join(root, fixed),) if fixed else found
    yield from _mapped(copy, link, job, read_only=True)
    named = list(env_files(root))
    if plan.place(project, job, link.session.flags).is_native:
        named += (text for _, text, _ in files.named(project, job, values(link)))
    for path in named:
        if not os.path.isabs(os.path.expanduser(path)):
            yield os.path.normpath(os.path.join(root, path))


def _share_environments(copy: "_Copy", jobs: Sequence[tuple[Link, Job]]) -> None:
    """Prepare the native environments in the project, and let the copy use them."""
    for link, job in jobs:
        run.prepare_natively(link.session, job, values(link))
    shared, own = own_folder(copy.root), os.path.join(copy.of(copy.root), FOLDER)
    os.makedirs(own, exist_ok=True)
    for name in os.listdir(shared):
        if name.startswith("venv") and os.path.isdir(os.path.join(shared, name)):
            os.symlink(os.path.join(shared, name), os.path.join(own, name))


class _Copy(NamedTuple):
    """A copy of some of this machine's files, each at its whole path below `top`, so that `../data` is there.

    root: that of the project. left_out: files and folders that are not copied.
    """

    top: str
    root: str
    left_out: tuple[str, ...]

    def of(self, path: str) -> str:
        """Return where the copy of a path is."""
        return f"{self.top}{path}"

    def add_file(self, path: str) -> None:
        """Copy a file, a link, or a folder without what is in it; leave out anything else, such as a pipe."""
        target, mode = self.of(path), os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            os.makedirs(target, exist_ok=True)
        elif not os.path.lexists(target) and (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
        if stat.S_ISLNK(mode) and not os.path.isabs(goal := os.readlink(path)):
            goal = os.path.normpath(os.path.join(os.path.dirname(path), goal))
            if not is_below(goal, self.root):
                self.link(goal)

    def add_tree(self, path: str) -> None:
        """Copy a file, or a folder with what is in it."""
        if self._leaves_out(path):
            return
        if os.path.islink(self.of(path)):
            os.unlink(self.of(path))  # what is written to it would be written to the project
        if os.path.isfile(path):
            self.add_file(path)
        for folder, names, others in os.walk(path):
            os.makedirs(self.of(folder), exist_ok=True)
            names[:] = [name for name in names if not self._leaves_out(os.path.join(folder, name))]
            for name in (*names, *others):
                if not self._leaves_out(inside := os.path.join(folder, name)):
                    self.add_file(inside)

    def link(self, path: str, whole: bool = True) -> None:
        """Let the copy have a file or folder that it lacks, without copying it.

        A folder is one link, unless the copy has something of it, or may not have all of it. The files of
        such a folder are hard links, which are right in a container too.
        """
        target = self.of(path)
        is_folder = os.path.isdir(path) and (whole or not os.path.islink(path))
        in_part = not whole or os.path.isdir(target) or any(is_below(each, path) for each in self.left_out)
        if self._leaves_out(path) or not os.path.exists(path):
            return
        if is_folder and in_part:
            os.makedirs(target, exist_ok=True)
            for name in os.listdir(path):
                self.link(os.path.join(path, name), whole=False)
        elif not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with suppress(FileNotFoundError):
                os.unlink(target)  # a link to what is not copied
            if whole:
                os.symlink(os.path.realpath(path), target)
            else:
                self._add_same_file(path)

    def _add_same_file(self, path: str) -> None:
        if not os.path.islink(path):
            with suppress(OSError):  # on another disk, or somebody else's
                os.link(path, self.of(path))
                return
        self.add_file(path)

    def _leaves_out(self, path: str) -> bool:
        return any(is_below(path, each) for each in self.left_out)
