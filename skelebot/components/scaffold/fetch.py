"""Fetch a template's files, by git where it is in a repository."""

import os
from contextlib import suppress
from dataclasses import dataclass

from skelebot import console, git
from skelebot.components.scaffold.location import DATA, REF, Location, below_a_repository
from skelebot.errors import SkelebotError, UsageError

_CLONE_SECONDS = 300


@dataclass(frozen=True)
class TemplateFiles:
    """The folder with a template's files, and their commit where git knows one."""

    folder: str
    commit: str | None = None


def fetch(location: Location, scratch: str) -> TemplateFiles:
    """Fetch a template; the files of a repository go below `scratch`. Raises SkelebotError."""
    if location.kind == "built-in":
        return TemplateFiles(os.path.join(DATA, location.address))
    if location.kind == "folder":
        if below := below_a_repository(location.address):
            console.warn(f"{below}: its current files are used, and the project cannot be updated from it")
        return TemplateFiles(location.address)
    _warn_of_changes(location.address)
    folder = clone(location.address, scratch)
    commit = resolve(folder, location)
    check_out(folder, commit, location)
    return TemplateFiles(folder, commit)


def _warn_of_changes(address: str) -> None:
    if not os.path.isdir(address):
        return
    with suppress(SkelebotError):  # a bare repository has no files that could differ
        changes = git.has_changes(address)
        if changes is not False:
            has = "has" if changes else "may have"
            console.warn(f"{address} {has} changes that are not committed; they are left out")


def clone(address: str, scratch: str) -> str:
    """Clone a repository without checking anything out; returns the folder, which is below `scratch`."""
    folder = os.path.join(scratch, "template")
    # --no-local: git reads a folder as it reads a server, and copies no files of its repository.
    words = ("clone", "--quiet", "--no-local", "--no-checkout", "-c", "core.autocrlf=false")
    code, _, err = git.fetch(scratch, *words, "--", address, folder, timeout=_CLONE_SECONDS)
    if code:
        raise SkelebotError(f"{address} could not be fetched: {_reason(err)}")
    return folder


def _reason(err: str) -> str:
    """Git's error on one line, without the advice that follows what is fatal."""
    lines = [line.strip() for line in err.splitlines() if line.strip() and not line.startswith("warning:")]
    fatal = next((i for i, line in enumerate(lines) if line.startswith("fatal:")), len(lines) - 1)
    return "; ".join(line.removeprefix("fatal: ") for line in lines[: fatal + 1]) or "git failed"


def resolve(folder: str, location: Location) -> str:
    """The commit of a branch, a tag or a commit's id; without one that of the default branch.

    Raises SkelebotError.
    """
    ref = location.ref
    if ref is not None and not REF.fullmatch(ref):
        raise UsageError(f"expected a branch, tag or commit, found {ref!r}")
    for name in (f"origin/{ref}", ref) if ref else ("HEAD",):
        code, out, _ = git.ask(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        if code == 0:
            return out.strip()
    missing = f"no branch, tag or commit {ref!r}" if ref else "no commit yet"
    raise SkelebotError(f"{location.address} has {missing}")


def check_out(folder: str, commit: str, location: Location) -> None:
    """Put the files of a commit into the clone, with those of its submodules. Raises SkelebotError."""
    words = ("-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", "--detach", commit)
    code, _, err = git.fetch(folder, *words)
    if code:
        raise SkelebotError(f"the template's commit {commit} could not be checked out: {_reason(err)}")
    if os.path.isfile(os.path.join(folder, ".gitmodules")):
        # Git takes a submodule from a local folder only where the caller vouches for it.
        local = ("-c", "protocol.file.allow=always") if os.path.isdir(location.address) else ()
        update = ("submodule", "--quiet", "update", "--init", "--recursive", "--force")
        code, _, err = git.fetch(folder, *local, *update, timeout=_CLONE_SECONDS)
        if code:
            raise SkelebotError(f"the template's submodules could not be fetched: {_reason(err)}")


def history(folder: str, commit: str, most: int) -> list[str]:
    """The newest commits that led to a commit, itself included, the newest first."""
    return git.answer(folder, "rev-list", f"--max-count={most}", commit).split()
