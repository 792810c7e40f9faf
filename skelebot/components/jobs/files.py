"""Whether the files that a job's values name are there, natively or in its container."""

import os
import posixpath
from collections.abc import Iterator, Sequence

from skelebot.component import Link, Session
from skelebot.components.jobs.run import is_below, may_write, prepare
from skelebot.console import one_line
from skelebot.errors import UsageError
from skelebot.image.ignores import Ignores
from skelebot.model import WORKDIR, Job, Project
from skelebot.options import Values
from skelebot.project import plan
from skelebot.project.sources import job_params
from skelebot.secret import reveal_all


def check(session: Session, job: Job, values: Values, earlier: Sequence[Link]) -> None:
    """Raise UsageError for a value of type `file` that names none, unless an earlier link may write it."""
    texts = list(named(session.project, job, values))
    if not texts:
        return
    is_native = plan.place(session.project, job, session.flags).is_native
    found = None if is_native else _Container(session, job, values)
    for name, text, is_secret in texts:
        path = os.path.normpath(os.path.join(session.project.root, text))
        problem = None
        if found:
            path, problem = found.locate(posixpath.normpath(posixpath.join(WORKDIR, text)))
        if path and not problem and not any(_may_make(link, path) for link in earlier):
            problem = _missing(path, session.project.root)
        if problem and is_secret:  # the reason would have parts of the path
            raise UsageError(f"{job.name}: {name}: expected a file that exists where the job runs")
        if problem:
            hint = _hint(session.project.root, text)
            raise UsageError(f"{job.name}: {name}: {one_line(text)!r} {problem}{hint}")


def named(project: Project, job: Job, values: Values) -> Iterator[tuple[str, str, bool]]:
    """Yield what values of type `file` hold, with their names, and whether they are secrets."""
    for arg in job.args:
        if arg.type == "file":
            yield arg.name, str(values[arg.key]), False
    params = [param for param in job_params(project, job) if param.type == "file"]
    known = _variables(project, job) if any(param.reference for param in params) else {}
    for param in params:
        value = values[param.name] if param.name in values else plan.default(job.name, param, known)
        for text in (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ():
            yield param.flag, text, param.secret


def _variables(project: Project, job: Job) -> dict[str, str]:
    return {**os.environ, **reveal_all(plan.environment(project, job, os.environ), os.environ)}


def _missing(path: str, root: str) -> str | None:
    if os.path.isdir(path):
        return "is a folder; name a file"
    folder = root if is_below(path, root) else os.path.dirname(path)
    return None if os.path.exists(path) else f"does not exist in {one_line(folder)}"


def _hint(root: str, text: str) -> str:
    """What to write instead, where the path counts from the current folder, or is that of this machine."""
    path = os.path.normpath(os.path.join(os.getcwd(), text))
    meant = os.path.relpath(path, root)
    if meant == os.path.normpath(text) or not is_below(path, root) or not os.path.isfile(path):
        return ""
    return f"; paths count from the project's root: write {one_line(meant)}"


def _may_make(link: Link, path: str) -> bool:
    """Whether an earlier link may write a file; one that runs natively may write anywhere in the project."""
    job, project = link.command.job, link.session.optional_project
    if job is None or project is None:
        return False
    is_native = plan.place(project, job, link.session.flags).is_native
    return may_write(link, path) or (is_native and is_below(path, project.root))


class _Container:
    """The files that a job's container will have, by the paths that it sees."""

    def __init__(self, session: Session, job: Job, values: Values) -> None:
        image, _, task = prepare(session, job, values)
        self._root, self._mounts = session.project.root, task.mounts
        self._left_out = None if image.dockerfile else Ignores(image.ignores)

    def locate(self, path: str, links: int = 40) -> tuple[str, str | None]:
        """Return the file of this machine that is at a path, links followed, and why there is none.

        The file is empty if it cannot be known.
        """
        covering = plan.covering(self._root, self._mounts, path)
        if not covering and any(mount.target.startswith("~") for mount in self._mounts):
            return "", None  # whose home that is, the image says
        if not covering:
            folder = posixpath.dirname(path)
            mapping = f", such as {folder}:ro" if folder != "/" else ""
            return path, f"is not in the image; add a mapping of its folder{mapping}"
        top, target = covering.source, covering.target
        below = posixpath.relpath(path, target)
        link = next(filter(lambda each: os.path.islink(os.path.join(top, each)), _parts(below)), None)
        if covering not in self._mounts and self._left_out and self._left_out.excludes(link or below):
            return path, "is not in the image, as the ignores leave it out; add a mapping of its folder"
        if link is None or not links:
            return os.path.normpath(os.path.join(top, below)), None
        goal = os.readlink(os.path.join(top, link)), posixpath.relpath(below, link)
        real, problem = self.locate(
            posixpath.normpath(posixpath.join(target, posixpath.dirname(link), *goal)), links - 1
        )
        is_new = problem and not problem.startswith("is a link")
        return real, f"is a link to {one_line(goal[0])}, which {problem}" if is_new else problem


def _parts(path: str) -> Iterator[str]:
    """Yield the folders on the way to a path, and itself."""
    words = path.split("/")
    return ("/".join(words[: i + 1]) for i in range(len(words)))
