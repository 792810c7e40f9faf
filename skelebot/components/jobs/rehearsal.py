"""`--rehearse`: run a chain once on small values in a copy of the project, to see its outputs saved."""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from skelebot import console, launch
from skelebot.component import Link
from skelebot.errors import SkelebotError, UsageError
from skelebot.files import locked, reason
from skelebot.image import context
from skelebot.image.ignores import Ignores
from skelebot.model import Job, Project, project_path
from skelebot.options import Values
from skelebot.pipeline import contents
from skelebot.project import plan
from skelebot.project.read import env_files
from skelebot.project.state import own_folder


@contextmanager
def workspace(links: Sequence[Link]) -> Iterator[str]:
    """Yield the root of a copy of the project, without outputs, and remove it afterwards.

    It holds what images hold and what the jobs name: inputs and read-only mappings by links, so nothing large
    is copied, other mappings as copies, so that nothing is written to the project. Raises SkelebotError.
    """
    for link in links:
        if link.command.job is None:
            raise UsageError(f"--rehearse runs jobs alone; leave out {link.command.name}")
        if link.command.job.mode == "d":
            raise UsageError(
                f"--rehearse waits for each job, and {link.command.name} has mode: d; leave it out"
            )
    project = links[0].session.project
    top = own_folder(project.root)
    root = os.path.join(top, "rehearsal")  # always the same, as an engine takes each folder for a checkout
    with locked(f"{root}.lock", on_wait=lambda: console.info("waiting for another rehearsal to end")):
        shutil.rmtree(root, ignore_errors=True)  # a killed one may have left it
        try:
            _fill(project, links, top, root)
            console.info("rehearsing in a copy of the project, which is removed afterwards")
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)


def values(link: Link) -> Values:
    """Return the link's values, with those that its job names for a rehearsal."""
    job = link.command.job
    assert job is not None  # `workspace` has seen to that
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


# --- the copy ---


def _fill(project: Project, links: Sequence[Link], top: str, root: str) -> None:
    try:
        os.mkdir(root, 0o700)
        _copy(project, [link.command.job for link in links if link.command.job], root)
        _share_environments(links, top, root)
    except OSError as error:
        raise SkelebotError(f"the project cannot be copied for a rehearsal: {reason(error)}") from None


def _copy(project: Project, jobs: list[Job], root: str) -> None:
    for job in jobs:
        for entry in context.walk(project.root, Ignores(launch.left_out(project, job))):
            _copy_file(entry.file, os.path.join(root, entry.path))
    for name in env_files(project.root):
        path = os.path.join(project.root, name)
        if os.path.isfile(path) and not os.path.isabs(os.path.expanduser(name)):
            _copy_file(path, os.path.join(root, name))
    made = [output for each in project.jobs for output in each.results]
    for job in jobs:
        for text in job.inputs:
            path = contents.fixed_part(project_path(text))
            if path and not any(output.holds(path) for output in made):
                _link(os.path.join(project.root, path), os.path.join(root, path))
        for mount in plan.mounts(project, job):
            path = os.path.relpath(mount.source, project.root)
            if path.split(os.sep)[0] != os.pardir and not any(output.holds(path) for output in made):
                (_link if mount.read_only else _copy_tree)(mount.source, os.path.join(root, path))


def _copy_file(source: str, target: str) -> None:
    """Copy a file, a link, or a folder without what is in it; anything else, such as a pipe, is left out."""
    mode = os.lstat(source).st_mode
    if stat.S_ISDIR(mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target) and (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)


def _copy_tree(source: str, target: str) -> None:
    for folder, names, files in os.walk(source):
        inside = os.path.join(target, os.path.relpath(folder, source))
        for name in (*names, *files):
            _copy_file(os.path.join(folder, name), os.path.join(inside, name))


def _link(source: str, target: str) -> None:
    """Put a link where the copy lacks something; a folder that is there in part is completed."""
    if os.path.isdir(target) and os.path.isdir(source):
        for name in os.listdir(source):
            _link(os.path.join(source, name), os.path.join(target, name))
    elif os.path.exists(source) and not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.path.realpath(source), target)


def _share_environments(links: Sequence[Link], top: str, root: str) -> None:
    """Prepare the native environments in the project, and let the copy use them."""
    from skelebot.components.jobs import run

    own = os.path.join(root, os.path.basename(top))
    os.makedirs(own)
    for link in links:
        if link.command.job:
            run.prepare_natively(link.session, link.command.job, values(link))
    for name in os.listdir(top):
        if name.startswith("venv") and os.path.isdir(os.path.join(top, name)):
            os.symlink(os.path.join(top, name), os.path.join(own, name))
