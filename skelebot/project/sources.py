"""A job's source: which program it names, and where the job's values go in a command line."""

import os
import posixpath
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from skelebot.errors import UsageError
from skelebot.model import Job, Param, Project
from skelebot.secret import Word

INTERPRETERS = {".py": ("python", "-u"), ".r": ("Rscript",), ".sh": ("bash",)}


def script(root: str, source: str) -> str | None:
    """Return the path of the script that `source` names, existing or not; None for a command line.

    A class's file is one, too.
    """
    source = source.strip()
    if named := class_source(root, source):
        return named.file
    suffix = os.path.splitext(source)[1].lower()
    if "\n" in source or os.path.isabs(source):
        return None
    path = os.path.join(root, source)
    if os.path.isfile(path):
        return source if suffix in INTERPRETERS or os.access(path, os.X_OK) else None
    # A command line can end like this too, but a single word is always a script.
    return source if suffix in INTERPRETERS and not re.search(r"\s", source) else None


class ClassSource(NamedTuple):
    """A class of the project. file: its path from the project's root."""

    file: str
    name: str


def class_source(root: str, source: str) -> ClassSource | None:
    """Return the class that `source` names as FILE.py:CLASS, existing or not; None for anything else."""
    source = source.strip()
    match = re.fullmatch(r"([^\n]+\.py):(\w+)", source)
    if not match or not match[2].isidentifier() or os.path.isabs(source):
        return None
    # An executable file may have such a name, and a command line with blanks may end like this.
    if os.path.exists(os.path.join(root, source)):
        return None
    is_file = os.path.isfile(os.path.join(root, match[1])) or not re.search(r"\s", source)
    return ClassSource(match[1], match[2]) if is_file else None


def job_params(project: Project, job: Job) -> tuple[Param, ...]:
    """Return a job's params: its own and, for a script, those of the root that it does not replace."""
    if not has_root_params(project, job):
        return job.params
    own = {param.name for param in job.params}
    return job.params + tuple(param for param in project.params if param.name not in own)


def has_root_params(project: Project, job: Job) -> bool:
    return bool(project.params) and script(project.root, job.source) is not None


def import_folders(root: str) -> tuple[str, ...]:
    """List the folders, from the project root, whose modules every Python job can import."""
    src = os.path.join(root, "src")
    is_package = os.path.exists(os.path.join(src, "__init__.py"))
    return (".", "src") if os.path.isdir(src) and not is_package else (".",)


def argv(project: Project, job: Job, arguments: tuple[Word, ...]) -> tuple[Word, ...]:
    """Return the program to run: an interpreter and its script or class, or bash and the author's text.

    Raises UsageError where arguments cannot follow the text.
    """
    if named := class_source(project.root, job.source):
        return (*_class_program(project, job, named), *arguments)
    path = script(project.root, job.source)
    if path is not None:
        interpreter = INTERPRETERS.get(posixpath.splitext(path)[1].lower())
        # A name that starts with a dash would be an option of the interpreter.
        word = f"./{path}" if path.startswith("-") or not interpreter else path
        return (*(interpreter or ()), word, *arguments)
    text = job.source.rstrip()
    if (job.args or job.params) and not _uses_arguments(text):
        if problem := _no_place_for_arguments(text):
            raise UsageError(
                f"{job.source_place}: {problem}, so the job's values cannot follow; "
                'write "$@" where they belong'
            )
        text += ' "$@"'
    return ("bash", "-c", text, job.name, *arguments)


def _class_program(project: Project, job: Job, source: ClassSource) -> tuple[str, ...]:
    """Return what builds a class and calls its method; `run_class.py` says how."""
    described = [f"{arg.name}=={arg.type}=value" for arg in job.args]
    described += [f"{p.name}={p.flag}={p.type}={p.accepts}" for p in job_params(project, job)]
    lines = "\n".join(described)
    return ("python", "-u", "-c", _run_class(), source.file, source.name, job.method, lines)


@cache
def _run_class() -> str:
    with open(os.path.join(os.path.dirname(__file__), "run_class.py"), encoding="utf-8") as file:
        return file.read()


_PIECE = r"""
      \\.                                                        # an escaped character
    | \$?'(?:(?<=\$')(?:[^'\\]|\\.)*|[^']*)'                      # text that the shell takes as it is
    | (?P<comment> (?:^|(?<=[\s;&|()]))\#[^\n]* )
    | (?P<here> (?<!<)<<-?(?!<)\s*[\w'"\\] )
    | (?P<arguments> \$(?:[@*#1-9] | \{(?=[@*1-9]|\#[}@*])) )
    | [$<>]\( | \$\{ | .
    """
_PIECE_IN_QUOTES = r"\\. | (?P<arguments> \$(?:[@*#1-9] | \{(?=[@*1-9]|\#[}@*])) ) | \$\( | \$\{ | ."
_CLOSED_BY = {'"': '"', "`": "`", "(": ")", "$(": ")", "<(": ")", ">(": ")", "${": "}"}

# A command begins after these, so the shell would run the first argument.
_OPEN_END = r"(^|[;&|!({`]|(^|\s)(then|do|else|elif|if|while|until|in|time))$"


def _pieces(text: str) -> Iterator[tuple[re.Match[str], bool]]:
    """Each piece of a command line, and whether it is in quotes or parentheses, or is one of them.

    For why bash is not asked, see docs/architecture.md.
    """
    plain, quoted = (re.compile(p, re.VERBOSE | re.DOTALL | re.MULTILINE) for p in (_PIECE, _PIECE_IN_QUOTES))
    awaited, at = [""], 0
    while match := (quoted if awaited[-1] == '"' else plain).match(text, at):
        piece, at, depth = match[0], match.end(), len(awaited)
        if piece == awaited[-1]:
            awaited.pop()
        elif piece in _CLOSED_BY and (piece != "(" or awaited[-1] != '"'):
            awaited.append(_CLOSED_BY[piece])
        yield match, min(depth, len(awaited)) > 1


def _uses_arguments(text: str) -> bool:
    """Whether a command line says where the job's arguments go."""
    return any(match.lastgroup == "arguments" for match, _ in _pieces(text))


def _outline(text: str) -> str:
    """Return a command line without comments, with `_` for everything in quotes and parentheses."""
    outline = ""
    for match, inside in _pieces(text):
        piece = match[0]
        if piece != "\\\n" and match.lastgroup != "comment":  # a line that goes on
            outline += "_" if inside or (len(piece) > 1 and piece not in _CLOSED_BY) else piece
    return outline


# Parts of an outline.
_REDIRECTION = r"(?:\d+|\{\w+\})?(?:&>>?|[<>]&|<<<|<>|>>|>\||[<>](?!\())\s*(?:[<>]\()?[^\s<>]+"
_ASSIGNMENT = r"[A-Za-z_]\w*(?:\[[^\]]*\])?\+?=[^\s<>]*"
_NO_COMMAND = rf"\s*(?:(?:!|time|-p|exec)\s+)*(?:(?:{_ASSIGNMENT}|{_REDIRECTION})(?:\s+|(?=[<>])|\Z))+"
_COMPOUND = (
    r"(?:(?:^|[;&|\n()]|\}\s|\b(?:in|fi|done|esac)\s)\s*(?:done|fi|esac|\})|(?<![$<>=])\(_*\)|\s\]\])"
    rf"(?:\s*{_REDIRECTION})*\Z"
)


def _no_place_for_arguments(text: str) -> str | None:
    """Return why arguments cannot be appended to a command line, or None."""
    for match, _ in _pieces(text):
        if match.lastgroup == "comment" and match.end() == len(text):
            return "the source ends in a comment"
        if match.lastgroup == "here":
            return "the source has a here-document"
    outline = _outline(text)
    last = re.split(r";|\n|(?<!>)\||(?<![<>])&(?!>)", outline)[-1]
    if re.search(_OPEN_END, text) or re.fullmatch(_NO_COMMAND, last):
        return "the source ends where a command would begin"
    if re.search(_COMPOUND, outline):
        return "the source ends in a compound command"
    if text.endswith((">", "<")):
        return "the source ends in a redirection without a file"
    return "the source ends in a backslash" if text.endswith("\\") else None
