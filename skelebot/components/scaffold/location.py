"""Where a template is: with Skelebot, in a folder, or in a git repository."""

import os
import re
from dataclasses import dataclass
from typing import Literal

import skelebot
from skelebot import console, git
from skelebot.errors import ProgramMissing, UsageError, did_you_mean

BUILT_IN = ("default", "dash", "r")
DATA = os.path.join(os.path.dirname(skelebot.__file__), "templates")

REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*", re.ASCII)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[^/@:]+:")
_PASSWORD = re.compile(r"[a-z]+://[^/@]*:[^/@]*@", re.IGNORECASE)
_HTTP_USER = re.compile(r"(https?://)[^/@]*@", re.IGNORECASE)


@dataclass(frozen=True)
class Location:
    """Where a template is; `address` is its name, its folder, or a URL for git."""

    kind: Literal["built-in", "folder", "git"]
    address: str
    ref: str | None = None

    def __str__(self) -> str:
        return f"{self.address}@{self.ref}" if self.ref else self.address


def parse(text: str) -> Location:
    """Read `NAME`, `URL[@REF]` or `FOLDER[@REF]`. Raises UsageError."""
    if text in BUILT_IN:
        return Location("built-in", text)
    if not text.strip() or not text.isprintable() or text.startswith("-"):
        raise UsageError(f"{console.one_line(text)!r} is not a template")
    start = _URL.match(text) or _SCP.match(text)
    if start:
        if _PASSWORD.match(text):
            raise UsageError(
                "the template's address contains a password; use git's credential helper instead"
            )
        address, ref = _split_ref(text, start.end())
        return Location("git", _HTTP_USER.sub(r"\1", address), ref)
    path, ref = (text, None) if os.path.isdir(os.path.expanduser(text)) else _split_ref(text, 0)
    folder = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(folder):
        hint = did_you_mean(text, BUILT_IN)
        raise UsageError(f"{text!r} is not a built-in template, a URL or a folder{hint}")
    if _is_repository(folder):
        return Location("git", folder, ref)
    if ref is not None:
        raise UsageError(f"{below_a_repository(folder) or f'{folder} is not in git'}, so it has no {ref!r}")
    return Location("folder", folder)


def _split_ref(text: str, start: int) -> tuple[str, str | None]:
    """The address and what follows its last `@` at or after `start`."""
    at = text.rfind("@", start)
    if at < 0:
        return text, None
    if not REF.fullmatch(text[at + 1 :]):
        raise UsageError(f"expected a branch, tag or commit after the @, found {text[at + 1 :]!r}")
    return text[:at], text[at + 1 :]


def _is_repository(folder: str) -> bool:
    bare = os.path.isfile(os.path.join(folder, "HEAD")) and os.path.isdir(os.path.join(folder, "objects"))
    return bare or os.path.lexists(os.path.join(folder, ".git"))


def below_a_repository(folder: str) -> str:
    """A sentence about a folder inside a repository; empty for any other folder."""
    try:
        code, out, _ = git.ask(folder, "rev-parse", "--show-toplevel")
    except ProgramMissing:
        return ""
    top = console.one_line(out.removesuffix("\n"))
    return "" if code else f"{folder} is a folder inside the git repository {top}, not its top"
