"""`prime`: build what runs need, and save the project's image to a file."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

from skelebot import console, launch
from skelebot.component import Command, Component, Link, Session
from skelebot.errors import UsageError
from skelebot.model import Image, Param, Project, Task
from skelebot.options import Values

_OUTPUT = Param(
    "output", "o", placeholder="FILE", help="Save the project's image to this file; .tar.gz compresses it"
)

_COMPRESSED = (".gz", ".tgz")
_UNKNOWN = (".zst", ".xz", ".bz2", ".zip", ".7z")


class Prime(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        text = "Build everything that the jobs run in"
        return (Command("prime", text, _run, params=(_OUTPUT,), check=_check),)


def _check(session: Session, values: Values, earlier: Sequence[Link]) -> None:
    """Raise UsageError or ConfigError if it cannot build or save."""
    output, task = _output(values), _task(session)
    if output and task.place.is_native:
        raise UsageError("a native run has no image to save; leave out -n, or -o")
    if not task.place.is_native:
        launch.check_primary_job(session)
    for image in _images(session, output is not None):
        launch.check(session, image, task)


def _run(session: Session, values: Values) -> int:
    output, task = _output(values), _task(session)
    if task.place.is_native:
        if session.flags.dry_run:
            return launch.start(session, launch.image(session), task)
        launch.prepare(session, launch.image(session), task)
        return 0
    launch.fetch_dependencies(session)
    images = _images(session, output is not None)
    if session.flags.dry_run:
        return _show(images, output)
    for image in images[1 if output else 0 :]:
        launch.prepare(session, image, task)
    if output:
        _save(images[0], task, session, output)
        console.out(output)
    return 0


def _task(session: Session) -> Task:
    """Return a task that does nothing; only its preparation matters."""
    return replace(launch.tool(session, "prime", ("true",)), may_run_natively=False)


def _images(session: Session, is_saved: bool) -> list[Image]:
    """Return the project's image, which is saved with outputs, and those of jobs with their own ignores."""
    project = session.project
    jobs = [job for job in project.jobs if job.ignores and job.native != "always"]
    return [launch.image(session, with_outputs=is_saved), *(launch.image(session, job) for job in jobs)]


def _show(images: list[Image], output: str | None) -> int:
    for image in images:
        console.out(f"build {image.tag}")
    if output:
        console.out(f"save {images[0].tag} to {output}")
    return 0


# --- the file ---


def _output(values: Values) -> str | None:
    """Return the path of the output. Raises UsageError if it cannot be written."""
    from skelebot.files import output_path

    given = values.get("output")
    if not isinstance(given, str):
        return None
    if given.endswith(_UNKNOWN):
        raise UsageError(f"expected a name that ends in .tar or .tar.gz; found {given}")
    return output_path(given)


def _save(image: Image, task: Task, session: Session, path: str) -> None:
    from skelebot import files
    from skelebot.project import state
    from skelebot.runners.docker import release

    with release.released(image, task, session.flags) as (client, found):
        console.info(f"saving {image.tag} to {path}")
        with files.whole_file(path) as file:
            with _packed(file, path) as target:
                release.save(client, found, image.tag, target)
            state.remember_output(image.context, path)


@contextmanager
def _packed(file: IO[bytes], path: str) -> Iterator[IO[bytes]]:
    if not path.endswith(_COMPRESSED):
        yield file
        return
    import gzip

    # Without name and time, the same image gives the same file.
    with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        yield packed  # type: ignore[misc]
