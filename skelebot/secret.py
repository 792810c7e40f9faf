"""Words that only a job may see: they travel as references, which are resolved when a program starts."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from skelebot.errors import SkelebotError, UsageError
from skelebot.files import open_regular, reason


class Secret(NamedTuple):
    """Where the value of a secret is, never the value itself.

    kind: an environment variable of whoever runs the program; a variable in an envFile; or a value that
    was typed, which this process alone knows. name: of the variable, or of the typed value. file: the
    absolute path of the envFile.
    """

    kind: Literal["variable", "file", "typed"]
    name: str
    file: str = ""

    def __repr__(self) -> str:
        return "***"

    def __str__(self) -> str:
        return "***"


Word = str | Secret

_typed: dict[str, str] = {}


def typed_secret(value: str) -> Secret:
    """A reference to a value that was typed; no other process can resolve it."""
    name = next((name for name, known in _typed.items() if known == value), None) or os.urandom(8).hex()
    _typed[name] = value
    return Secret("typed", name)


def display_text(word: Word) -> str:
    """A word as everyone may see it."""
    return str(word)


def reveal(word: Word, env: Mapping[str, str]) -> str:
    """The text of a word; `env` is where variables are looked up. Raises SkelebotError for a missing one."""
    return _text(word, env, {})


def reveal_all(variables: Iterable[tuple[str, Word]], env: Mapping[str, str]) -> dict[str, str]:
    """The text of each variable, as `reveal` gives it; each file is read once."""
    files: dict[str, dict[str, str | None]] = {}
    return {name: _text(word, env, files) for name, word in variables}


def _text(word: Word, env: Mapping[str, str], files: dict[str, dict[str, str | None]]) -> str:
    """files: the files that were read so far."""
    if isinstance(word, str):
        return word
    if word.kind == "file":
        if word.file not in files:
            files[word.file] = dict(read_env_file(word.file, word.file))
        value = files[word.file].get(word.name)
    else:
        value = (_typed if word.kind == "typed" else env).get(word.name)
    if value is not None:
        return value
    if word.kind == "typed":
        raise SkelebotError("a secret was typed in another process; put it into an environment variable")
    where = word.file or "the environment"
    raise SkelebotError(f"{word.name} is not set in {where}; set it")


# --- files of variables ---


def read_env_file(path: str, shown: str) -> Iterator[tuple[str, str | None]]:
    """The variables in a file, as python-dotenv reads them, without expanding `${NAME}`.

    None is the value of a bare NAME, which stands for the caller's own. shown: the file's name in errors.
    Raises UsageError. https://github.com/theskumar/python-dotenv#file-format
    """
    import io
    import re

    from dotenv.parser import parse_stream  # only where a project has such a file

    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {reason(error)}") from None
    except ValueError:
        raise UsageError(f"{shown!r} is not the name of a file") from None
    for binding in parse_stream(io.StringIO(text, newline=None)):
        is_name = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", binding.key or "_", re.ASCII)
        if binding.error or not is_name or "\0" in (binding.value or ""):
            above = binding.original.string[: -len(binding.original.string.lstrip())].count("\n")
            line = binding.original.line + above
            raise UsageError(f"{shown}:{line}: expected NAME=VALUE, the name of letters, digits and _")
        if binding.key is not None:
            yield binding.key, binding.value
