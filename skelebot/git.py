"""Run git; no other module does.

A repository's own configuration can name programs: https://git-scm.com/docs/git#_security. Whoever asks a
question about a folder, which may have come in an archive, does not expect one of them to run.
"""

import os
from collections.abc import Callable, Iterable
from typing import IO

from skelebot import process
from skelebot.errors import SkelebotError
from skelebot.model import Step

# Options on the command line win over every file of settings and what those include.
_NO_PROGRAMS = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_NO_PROMPTS = (("GIT_TERMINAL_PROMPT", "0"), ("LC_ALL", "C"))
# A partial clone would fetch objects with programs that it names; and the index must not be written.
_OFFLINE = (("GIT_ALLOW_PROTOCOL", "none"), ("GIT_NO_LAZY_FETCH", "1"), ("GIT_OPTIONAL_LOCKS", "0"))
_CAN_RUN = r"^filter\..*\.(clean|smudge|process|required)$"


def ask(folder: str, *words: str, stdin: str | None = None, verbose: bool = False) -> tuple[int, str, str]:
    """Ask git about a folder, without other programs; returns exit code, stdout and stderr.

    Only `has_changes` may ask what compares files with the index, as filters are applied for that.
    Raises ProgramMissing.
    """
    return _capture(("-C", folder, *words), _OFFLINE, verbose=verbose, stdin=stdin)


def fetch(folder: str, *words: str, timeout: float | None = None) -> tuple[int, str, str]:
    """Run a git command that may reach other machines, with the caller's settings and keys.

    folder: a clone of Skelebot's own, or one without a repository. Raises ProgramMissing and TimeoutError.
    """
    return _capture(("-C", folder, *words), timeout=timeout)


def change(folder: str, *words: str, on_line: Callable[[str], None], verbose: bool) -> tuple[int, list[str]]:
    """Run a git command for the user, with their hooks and filters; returns exit code and output.

    Raises ProgramMissing.
    """
    step = Step(("git", "-C", folder, *words))
    process.trace(verbose, step)
    return process.tee(step, on_line)


def feed(folder: str, *words: str, write: Callable[[IO[bytes]], None]) -> None:
    """Let git read a stream, without other programs. Raises SkelebotError and ProgramMissing."""
    step = Step(("git", *_NO_PROGRAMS, "-C", folder, *words), env=(*_NO_PROMPTS, *_OFFLINE))
    code, _, err = process.pipe(step, write, lambda stdout: stdout.read())
    if code:
        raise SkelebotError(_failure(folder, words, err.splitlines()))


def _capture(
    words: tuple[str, ...],
    env: tuple[tuple[str, str], ...] = (),
    timeout: float | None = None,
    verbose: bool = False,
    stdin: str | None = None,
) -> tuple[int, str, str]:
    step = Step(("git", *_NO_PROGRAMS, *words), env=(*_NO_PROMPTS, *env), stdin=stdin)
    process.trace(verbose, step)
    return process.capture(step, timeout)


# --- repositories of Skelebot's own ---

# No settings but those of the repository itself; older versions of git look for them in HOME alone.
_OWN = (
    *(("GIT_CONFIG_GLOBAL", os.devnull), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_ATTR_NOSYSTEM", "1")),
    *(("HOME", os.devnull), ("XDG_CONFIG_HOME", os.devnull), ("GIT_NO_REPLACE_OBJECTS", "1")),
)


def own_step(repository: str, *words: str, stdin: str | None = None) -> Step:
    """Return the step that runs git in a bare repository of Skelebot's own, without the user's settings."""
    argv = ("git", f"--git-dir={repository}", *_NO_PROGRAMS, *words)
    env = (*_NO_PROMPTS, *_OFFLINE, *_OWN)
    return Step(argv, cwd=repository, env=env, stdin=stdin, without="GIT_")


def own_answer(repository: str, *words: str, stdin: str | None = None) -> str:
    """Return git's output there. Raises SkelebotError with the last line of its error, and ProgramMissing."""
    code, out, err = process.capture(own_step(repository, *words, stdin=stdin))
    if code:
        raise SkelebotError(_failure(repository, words, err.splitlines()))
    return out


def own_change(repository: str, *words: str, pass_fds: tuple[int, ...]) -> None:
    """Run git there; its processes inherit `pass_fds`, and so a lock that must last as long as they do.

    Raises SkelebotError and ProgramMissing.
    """
    code, lines = process.tee(own_step(repository, *words), lambda _: None, pass_fds=pass_fds)
    if code:
        raise SkelebotError(_failure(repository, words, lines))


def _failure(repository: str, words: tuple[str, ...], lines: list[str]) -> str:
    said = [line for line in lines if line.strip()] or ["it ended without a reason"]
    return f"{repository}: git {words[0]} failed: {said[-1].removeprefix('fatal: ')}"


# --- questions about a folder ---


def answer(folder: str, *words: str, stdin: str | None = None) -> str:
    """Return git's output. Raises SkelebotError with the first line of its error, which may be empty."""
    code, out, err = ask(folder, *words, stdin=stdin)
    if code:
        raise SkelebotError(err.strip().partition("\n")[0])
    return out


# --- changes ---


def has_changes(folder: str, exclude: Iterable[str] = ()) -> bool | None:
    """Whether the files in a folder differ from the commit, new ones included; None: only a filter knows.

    exclude: paths in the folder that do not count. Raises SkelebotError.
    """
    filters = _filters(folder)
    if any("=" in name for name in filters):
        return None  # git has no option that switches this filter off
    off = [o for name in filters for key in ("clean", "process", "smudge") for o in _option(name, key, "")]
    off += [option for name in filters for option in _option(name, "required", "false")]
    # Git would look into submodules by their own configuration.
    words = ("--porcelain", "-z", "--no-renames", "--untracked-files=normal", "--ignore-submodules=dirty")
    scope = (".", *(f":(exclude,literal){path}" for path in exclude))
    lines = [line for line in answer(folder, *off, "status", *words, "--", *scope).split("\0") if line]
    doubtful = _filtered(folder, [line[3:] for line in lines if line[:2] == " M"], filters)
    if len(lines) > len(doubtful):
        return True
    inner = [has_changes(path) for path in _submodules(folder)]
    return True if True in inner else None if doubtful or None in inner else False


def _option(name: str, key: str, value: str) -> tuple[str, str]:
    return "-c", f"filter.{name}.{key}={value}"


def _filters(folder: str) -> set[str]:
    """Return the names of all filters that git knows there, including those in the user's configuration."""
    code, out, err = ask(folder, "config", "--null", "--name-only", "--get-regexp", _CAN_RUN)
    if code > 1:  # 1: there are none
        raise SkelebotError(err.strip().partition("\n")[0])
    return {key.partition(".")[2].rpartition(".")[0] for key in out.split("\0") if key}


def _filtered(folder: str, paths: list[str], filters: set[str]) -> list[str]:
    """Return the paths, relative to the repository's top, that one of the filters applies to."""
    if not paths or not filters:
        return []
    top = answer(folder, "rev-parse", "--show-toplevel").removesuffix("\n")
    found = answer(top, "check-attr", "-z", "--stdin", "filter", stdin="".join(f"{p}\0" for p in paths))
    values = found.split("\0")[2::3]
    return [path for path, name in zip(paths, values, strict=True) if name in filters]


def _submodules(folder: str) -> list[str]:
    """Return the folders of checked-out submodules."""
    entries = answer(folder, "ls-files", "--stage", "-z", "--", ".").split("\0")
    links = [entry.partition("\t")[2] for entry in entries if entry.startswith("160000 ")]
    return [os.path.join(folder, p) for p in links if os.path.lexists(os.path.join(folder, p, ".git"))]
