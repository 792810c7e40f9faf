"""Where a template is: with Skelebot, in a folder, or in a repository that git fetches."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import skelebot
from skelebot import console, git
from skelebot.errors import ProgramMissing, SkelebotError, UsageError, did_you_mean

BUILT_IN = ("default", "dash", "r")
DATA = os.path.join(os.path.dirname(skelebot.__file__), "templates")

_CLONE_SECONDS = 300
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*", re.ASCII)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[^/@:]+:")
_PASSWORD = re.compile(r"[a-z]+://[^/@]*:[^/@]*@", re.IGNORECASE)
_HTTP_USER = re.compile(r"(https?://)[^/@]*@", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A template that was named; `address` is its name, its folder, or what git takes."""

    kind: Literal["built-in", "folder", "git"]
    address: str
    ref: str | None = None


@dataclass(frozen=True)
class Checkout:
    """The folder that a template's files are in, and its commit where git knows one."""

    folder: str
    commit: str | None = None


def parse(text: str) -> Source:
    """What `NAME`, `URL[@REF]` or `FOLDER[@REF]` names. Raises UsageError."""
    if text in BUILT_IN:
        return Source("built-in", text)
    if not text.strip() or not text.isprintable() or text.startswith("-"):
        raise UsageError(f"{console.one_line(text)!r} names no template")
    start = _URL.match(text) or _SCP.match(text)
    if start:
        if _PASSWORD.match(text):
            raise UsageError("the template's address holds a password; leave it to git's credential helper")
        address, ref = _split_ref(text, start.end())
        return Source("git", _HTTP_USER.sub(r"\1", address), ref)
    path, ref = (text, None) if os.path.isdir(os.path.expanduser(text)) else _split_ref(text, 0)
    folder = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(folder):
        hint = did_you_mean(text, BUILT_IN)
        raise UsageError(f"{text!r} is no built-in template, no address and no folder{hint}")
    if _is_repository(folder):
        return Source("git", folder, ref)
    if ref is not None:
        raise UsageError(f"{_below(folder) or f'{folder} is not under git'}, so it has no {ref!r}")
    return Source("folder", folder)


def _split_ref(text: str, start: int) -> tuple[str, str | None]:
    """The address and what follows its last `@`, which is looked for from `start`."""
    at = text.rfind("@", start)
    if at < 0:
        return text, None
    if not _REF.fullmatch(text[at + 1 :]):
        raise UsageError(f"expected a branch, tag or commit after the @, found {text[at + 1 :]!r}")
    return text[:at], text[at + 1 :]


def _is_repository(folder: str) -> bool:
    bare = os.path.isfile(os.path.join(folder, "HEAD")) and os.path.isdir(os.path.join(folder, "objects"))
    return bare or os.path.lexists(os.path.join(folder, ".git"))


def _below(folder: str) -> str:
    """What is to be said of a folder within a repository; nothing of another one."""
    try:
        code, out, _ = git.ask(folder, "rev-parse", "--show-toplevel")
    except ProgramMissing:
        return ""
    top = console.one_line(out.removesuffix("\n"))
    return "" if code else f"{folder} is not the top of the git repository {top}, but a folder in it"


def fetch(source: Source, scratch: str) -> Checkout:
    """The template's files; those of a repository go below `scratch`. Raises SkelebotError."""
    if source.kind == "built-in":
        return Checkout(os.path.join(DATA, source.address))
    if source.kind == "folder":
        if below := _below(source.address):
            console.warn(f"{below}, so it is taken as it is now, and no project can follow its changes")
        return Checkout(source.address)
    _warn_of_changes(source.address)
    folder = clone(source.address, scratch)
    commit = resolve(folder, source.address, source.ref)
    check_out(folder, commit)
    return Checkout(folder, commit)


# --- git ---


def clone(address: str, scratch: str) -> str:
    """The folder below `scratch` of a repository with all that it has, nothing checked out."""
    folder = os.path.join(scratch, "template")
    # --no-local: git reads a folder as it reads a server, and copies no files of its repository.
    words = ("clone", "--quiet", "--no-local", "--no-checkout", "-c", "core.autocrlf=false")
    code, _, err = git.fetch(scratch, *words, "--", address, folder, timeout=_CLONE_SECONDS)
    if code:
        raise SkelebotError(f"{address} cannot be fetched: {_reason(err)}")
    return folder


def _reason(err: str) -> str:
    """git's complaint on one line, without its advice, which follows what is fatal."""
    lines = [line.strip() for line in err.splitlines() if line.strip() and not line.startswith("warning:")]
    fatal = next((i for i, line in enumerate(lines) if line.startswith("fatal:")), len(lines) - 1)
    return "; ".join(line.removeprefix("fatal: ") for line in lines[: fatal + 1]) or "git failed"


def resolve(folder: str, address: str, ref: str | None) -> str:
    """The commit of a branch, a tag or a commit's id; without one that of the default branch."""
    if ref is not None and not _REF.fullmatch(ref):
        raise UsageError(f"expected a branch, tag or commit, found {ref!r}")
    for name in (f"origin/{ref}", ref) if ref else ("HEAD",):
        code, out, _ = git.ask(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        if code == 0:
            return out.strip()
    raise SkelebotError(f"{address} has {f'no branch, tag or commit {ref!r}' if ref else 'no commit yet'}")


def check_out(folder: str, commit: str) -> None:
    """Puts the files of a commit into the clone. Raises SkelebotError."""
    words = ("-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", "--detach", commit)
    code, _, err = git.fetch(folder, *words)
    if code:
        raise SkelebotError(f"the template's commit {commit} cannot be checked out: {_reason(err)}")


def _warn_of_changes(address: str) -> None:
    with suppress(SkelebotError):  # a bare repository has no files to differ
        if os.path.isdir(address) and git.has_changes(address) is not False:
            console.warn(f"{address} has changes that are not committed; they are left out")
