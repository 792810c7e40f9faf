"""`bump`: set the project's next version in VERSION and, with --tag, in git."""

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from skelebot import console
from skelebot.component import Command, Component, Link, Session
from skelebot.errors import SkelebotError, UsageError
from skelebot.files import whole_file
from skelebot.keys import key, pattern
from skelebot.model import Arg, Param, Project
from skelebot.options import Values
from skelebot.project import read

if TYPE_CHECKING:
    from semver import Version

_PARTS = ("major", "minor", "patch")

_tag_form = pattern(
    r"(?![-./])(?!.*(\.\.|//|\.lock$|[./]$))[A-Za-z0-9_./+-]*\{version\}[A-Za-z0-9_./+-]*",
    "a tag with {version} in it, such as NAME-{version}",
)


@dataclass(frozen=True, repr=False, eq=False)
class Bump(Component):
    """The settings of `bump`."""

    tag: str = key("v{version}", help="The form of --tag's tags, such as NAME-{version}", check=_tag_form)

    def commands(self, project: Project | None) -> Iterable[Command]:
        params = (
            Param(
                "tag", "t", accepts="boolean", help=f"Commit VERSION and tag the commit {self._tag('1.5.0')}"
            ),
            Param("force", "f", accepts="boolean", help="Set a version that is not above the current one"),
        )
        return (
            Command(
                "bump",
                "Raise the project's version",
                self._run,
                (_VERSION,),
                params,
                _check,
                changes=True,
                predicted_version=_predicted_version,
            ),
        )

    def _tag(self, version: str) -> str:
        return self.tag.replace("{version}", version)

    def _run(self, session: Session, values: Values) -> int:
        project = session.project
        version = _predicted_version(session, values)
        repository, tag = (_repository(session) if values.get("tag") else None), self._tag(version)
        if repository:
            _check_free(repository, tag)
        if session.flags.dry_run:
            then = f", committed and tagged {tag}" if repository else ""
            console.out(f"VERSION {project.version or '(none)'} -> {version}{then}")
            return 0
        if repository:
            _commit(repository, f"{version}\n")
            _tag_commit(repository, tag)
        else:
            _write(project.root, f"{version}\n".encode())
        console.out(version)
        return 0


_VERSION = Arg("version", (), "major, minor, patch, or a version such as 1.5.0-rc.1", offered=_PARTS)


def _check(session: Session, values: Values, earlier: Sequence[Link]) -> None:
    """Check what no earlier link can change; the current version is read when the command runs."""
    word = str(values["<version>"])
    if word not in _PARTS and not _is_version(word):
        found = console.one_line(word)
        raise UsageError(
            f"bump: expected major, minor, patch or a version such as 1.5.0-rc.1; found {found!r}"
        )
    if values.get("tag"):
        _repository(session)


def _predicted_version(session: Session, values: Values) -> str:
    version = session.project.version
    return str(_next(version, str(values["<version>"]), bool(values.get("force"))))


# --- the version ---


def _is_version(word: str) -> bool:
    from semver import Version  # only where versions are compared

    return Version.is_valid(word)


def _next(text: str | None, word: str, force: bool) -> "Version":
    """The version that `word` asks for, where VERSION holds `text`. Raises SkelebotError."""
    from semver import Version

    if word not in _PARTS:
        wanted = Version.parse(word)
        if not force and _is_step_back(wanted, read.parsed_version(text)):
            raise SkelebotError(f"{wanted} is not above the current version, {text}; -f sets it anyway")
        return wanted
    # A pre-release is followed by its release: 1.5.0-rc.1 by 1.5.0, for minor as for patch. A build is not:
    # 1.4.2+build counts as 1.4.2.
    return read.parsed_version(text).replace(build=None).next_version(word)


def _is_step_back(wanted: "Version", current: "Version") -> bool:
    """Whether a version is not above the current one, nor another build of it."""
    return wanted < current or (wanted == current and wanted.build in (None, current.build))


def _write(root: str, data: bytes) -> None:
    """Replace VERSION, or the file that it links to. Raises SkelebotError."""
    path = os.path.realpath(os.path.join(root, read.VERSION))
    with whole_file(path) as file:
        with suppress(FileNotFoundError):
            _copy_mode(file.fileno(), os.stat(path))
        file.write(data)


def _copy_mode(fd: int, before: os.stat_result) -> None:
    """Give a new file the mode of the old one, and its owner if the caller may."""
    with suppress(PermissionError):
        os.fchown(fd, before.st_uid, before.st_gid)
    os.fchmod(fd, stat.S_IMODE(before.st_mode))


# --- git ---


class _Repository(NamedTuple):
    """The repository that a project's folder belongs to."""

    root: str
    verbose: bool

    def ask(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of git."""
        from skelebot import git  # only for --tag

        return git.ask(self.root, *words, verbose=self.verbose)

    def change(self, *words: str) -> None:
        """Run git with its output shown as it comes, as hooks may have much to say. Raises SkelebotError."""
        from skelebot import git

        code, lines = git.change(self.root, *words, on_line=console.detail, verbose=self.verbose)
        if code:
            last = [line for line in lines if line.strip()][-1:]
            named = [line for line in lines if line.startswith(("fatal: ", "error: "))]
            why = (named or last or [f"exit code {code}"])[0]
            raise SkelebotError(f"git {words[0]} failed: {why}")


def _repository(session: Session) -> _Repository:
    """The project's repository. Raises SkelebotError without one."""
    repository = _Repository(session.project.root, session.flags.verbose)
    code, answer, said = repository.ask("rev-parse", "--is-inside-work-tree")
    if code or answer.strip() != "true":
        why = (said.strip().splitlines() or ["a bare repository has no files"])[0].removeprefix("fatal: ")
        raise SkelebotError(f"{repository.root} cannot be tagged: {why}; leave --tag out, or fix it with git")
    return repository


def _check_free(repository: _Repository, tag: str) -> None:
    code, _, _ = repository.ask("rev-parse", "--quiet", "--verify", f"refs/tags/{tag}")
    if code == 0:
        raise SkelebotError(
            f"the tag {tag} already exists, so VERSION was kept; bump to another version, or set this "
            "project's own form of tags with components.bump.tag"
        )


def _commit(repository: _Repository, text: str) -> None:
    """Write and commit VERSION alone, or leave it as it was. Raises SkelebotError."""
    before = _content(repository.root)
    untracked = not repository.ask("ls-files", "--", read.VERSION)[1]
    if untracked and repository.ask("check-ignore", "--quiet", "--", read.VERSION)[0] == 0:
        raise SkelebotError(f"git ignores {read.VERSION}, which --tag commits; remove it from .gitignore")
    _write(repository.root, text.encode())
    try:
        if untracked:
            repository.change("add", "--", read.VERSION)
        if not _is_committed(repository, text):
            # Of what else has changed or is staged, nothing goes along.
            message = f"Version {text.strip()}"
            repository.change("commit", "--quiet", "-m", message, "--only", "--", read.VERSION)
    except BaseException:
        from skelebot import foreground

        with foreground.uninterrupted():
            if not _is_committed(repository, text):
                _restore(repository, before, untracked)
        raise


def _content(root: str) -> bytes | None:
    try:
        return read.read_file(root, read.VERSION)
    except UsageError:
        return None


def _is_committed(repository: _Repository, text: str) -> bool:
    code, committed, _ = repository.ask("cat-file", "-p", f"HEAD:./{read.VERSION}")
    return code == 0 and committed == text


def _restore(repository: _Repository, before: bytes | None, untracked: bool) -> None:
    if untracked:
        repository.ask("update-index", "--force-remove", "--", read.VERSION)
    if before is None:
        os.unlink(os.path.join(repository.root, read.VERSION))
    else:
        _write(repository.root, before)


def _tag_commit(repository: _Repository, tag: str) -> None:
    try:
        repository.change("tag", "-a", "-m", tag, tag)
    except SkelebotError as error:
        raise SkelebotError(
            f"VERSION is committed but not tagged: {error}; fix that, then run `git tag -a -m {tag} {tag}`"
        ) from None
    console.info(f"committed VERSION and tagged it {tag}; `git push --follow-tags` pushes both")
