"""`package`: the project as a zip file, whose bytes depend on its files alone."""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from skelebot import console, launch
from skelebot.component import Command, Component, Session
from skelebot.errors import SkelebotError
from skelebot.files import reason
from skelebot.keys import image_name, key, not_blank, one_line
from skelebot.model import Param, Project
from skelebot.options import Values
from skelebot.project.plan import at_home

if TYPE_CHECKING:
    import zipfile

    from skelebot.image.context import ContextEntry


@dataclass(frozen=True, repr=False, eq=False)
class Package(Component):
    """The settings of `package`."""

    path: str | None = key(None, help="The zip file; NAME-VERSION.zip by default", check=not_blank)
    ignores: tuple[str, ...] = key((), help="Patterns of files that the zip leaves out", check=one_line)

    def commands(self, project: Project | None) -> Iterable[Command]:
        return (Command("package", "Package the project as a zip file", self._run, (), (_FORCE,)),)

    def _run(self, session: Session, values: Values) -> int:
        project = session.project
        target = self._target(project)
        # The end of the file by which a package is recognised, also on another machine.
        mark = f"skelebot package of {image_name(project.name)}".encode()
        if os.path.isfile(target) and not (values.get("force") or _ends_with(target, mark)):
            raise SkelebotError(
                f"{target} is not a package of this project; move it away, or replace it with -f"
            )
        entries = [entry for entry in self._files(session, target) if not _is_package(entry, mark)]
        _check(entries, project.root)
        if session.flags.dry_run:
            for line in (target, *(f"  {entry.path}" for entry in entries)):
                console.out(line)
            return 0
        console.out(_write_package(target, entries, mark, project.root))
        return 0

    def _target(self, project: Project) -> str:
        """The absolute path of the zip."""
        version = f"-{re.sub('[^A-Za-z0-9.+_-]', '-', project.version)}" if project.version else ""
        path = at_home(self.path) if self.path else f"{image_name(project.name)}{version}.zip"
        return os.path.join(project.root, path)

    def _files(self, session: Session, target: str) -> "list[ContextEntry]":
        """The files of the project's image without those in the package's own `ignores`."""
        from skelebot.image import context, ignores
        from skelebot.image.written import own_dockerfile

        image = launch.image(session, with_outputs=True)
        itself = os.path.relpath(os.path.realpath(target), os.path.realpath(image.context))
        # An image does not need a .dockerignore; building one from the package does.
        left_out = (*image.ignores, *own_dockerfile(image), "!.dockerignore", ignores.literal(itself))
        # The package's own patterns only leave out more: `!src` must not bring src/.env back.
        own = ignores.Ignores(self.ignores)
        found = context.walk(image.context, ignores.Ignores(left_out))
        return [entry for entry in found if not own.excludes(entry.path)]


_FORCE = Param("force", "f", accepts="boolean", help="Replace a file that is not a package of this project")


def _write_package(target: str, entries: "list[ContextEntry]", mark: bytes, root: str) -> str:
    """Write the zip and return its path with links followed. Raises SkelebotError."""
    from skelebot.files import output_path, whole_file
    from skelebot.project.state import remember_output

    os.makedirs(os.path.dirname(target), exist_ok=True)
    target = output_path(target)
    with whole_file(target) as file:
        _write(file, entries, mark)
    remember_output(root, target)
    return target


# --- what may be in it ---


def _is_package(entry: "ContextEntry", mark: bytes) -> bool:
    return entry.path.endswith(".zip") and stat.S_ISREG(entry.stat.st_mode) and _ends_with(entry.file, mark)


def _ends_with(file: str, mark: bytes) -> bool:
    try:
        with open(file, "rb") as zip:
            zip.seek(-min(len(mark), os.fstat(zip.fileno()).st_size), os.SEEK_END)
            return zip.read() == mark
    except OSError:
        return False


def _check(entries: "list[ContextEntry]", root: str) -> None:
    """Raise SkelebotError for entries that would not be the same on another machine."""
    if all(stat.S_ISDIR(entry.stat.st_mode) for entry in entries):
        raise SkelebotError("there is nothing to package: `ignores` leaves out all files")
    for entry in entries:
        mode = entry.stat.st_mode
        if stat.S_ISLNK(mode):
            _check_link(entry, root)
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _refused(entry, "is not a file, folder or link")
        try:
            entry.path.encode()
        except UnicodeEncodeError:
            raise _refused(entry, "has a name that is not UTF-8") from None


def _check_link(entry: "ContextEntry", root: str) -> None:
    """A link must lead to somewhere in the project, wherever that is unpacked."""
    link = os.readlink(entry.file)
    beside = os.path.normpath(os.path.join(os.path.dirname(entry.path), link))
    inside = os.path.realpath(root)
    leads_out = os.path.isabs(link) or beside.split("/")[0] == ".."
    if leads_out or os.path.commonpath([inside, os.path.realpath(entry.file)]) != inside:
        raise _refused(entry, f"is a link out of the project, to {link}")


def _refused(entry: "ContextEntry", why: str) -> SkelebotError:
    return SkelebotError(f"{entry.path} {why}; fix that, or add it to components.package.ignores")


# --- the zip ---


def _write(file: IO[bytes], entries: "list[ContextEntry]", mark: bytes) -> None:
    """Write a zip that does not depend on the times, owners and umask of this checkout."""
    import zipfile

    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = mark
        for entry in entries:
            try:
                _add(archive, entry)
            except OSError as error:
                if error.filename != entry.file:
                    raise
                raise _refused(entry, f"cannot be read: {reason(error)}") from None


def _add(archive: "zipfile.ZipFile", entry: "ContextEntry") -> None:
    import shutil
    import zipfile

    mode = entry.stat.st_mode
    is_folder, is_link = stat.S_ISDIR(mode), stat.S_ISLNK(mode)
    info = zipfile.ZipInfo(f"{entry.path}/" if is_folder else entry.path, (1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # Unix, whose modes and links the attributes are
    executable = is_folder or bool(mode & stat.S_IXUSR)
    info.external_attr = (stat.S_IFMT(mode) | (0o755 if executable else 0o644)) << 16
    if is_folder:
        info.external_attr |= 0x10  # as MS-DOS marks one
    if is_folder or is_link:
        archive.writestr(info, os.readlink(os.fsencode(entry.file)) if is_link else b"")
        return
    info.compress_type = zipfile.ZIP_DEFLATED
    info.file_size = entry.stat.st_size  # decides how many bytes its sizes take
    with open(entry.file, "rb") as source, archive.open(info, "w") as target:
        shutil.copyfileobj(source, target, 1 << 20)
