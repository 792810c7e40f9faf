"""Parse a command line into options and values, and describe them for the help.

The rules are those of getopt_long, without abbreviations and with lists. argparse changes or refuses some
values (a second `--`, `-1e5`, a value that starts with a dash), and 500 parsers would slow down the help;
see docs/architecture.md.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, NoReturn

from skelebot.console import one_line
from skelebot.errors import UsageError, did_you_mean
from skelebot.model import Arg, Param
from skelebot.value_types import facts, mismatch

Value = str | bool | tuple[str, ...]
Values = dict[str, Value]

_NUMBER = r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"


class Parsed(NamedTuple):
    """The options' values by name, and the rest of the words."""

    values: Values
    rest: list[str]


def parse_options(params: Sequence[Param], words: Sequence[str]) -> Parsed:
    """Parse options up to the first word that is neither an option nor its value.

    Raises UsageError and HelpWanted.
    """
    return _Reader(params).read(list(words), stop=True)


def parse(args: Sequence[Arg], params: Sequence[Param], words: Sequence[str]) -> Values:
    """Parse a command's words into values; args can stand anywhere, and are stored under their `key`.

    Raises UsageError, and HelpWanted at the first -h.
    """
    values, rest = _Reader(params).read(list(words), stop=False)
    missing = [arg.name for arg in args[len(rest) :] if not arg.optional]
    if missing:
        what = "argument" if len(missing) == 1 else "arguments"
        raise UsageError(f"missing {what}: {', '.join(missing)}")
    if len(rest) > len(args) and not (args and args[-1].is_rest):
        raise UnexpectedArgument(rest[len(args)])
    for arg, word in zip(args, rest, strict=False):
        _check(arg.name, arg, word)
        values[arg.key] = word
    if args and args[-1].is_rest:
        values[args[-1].key] = more = tuple(rest[len(args) - 1 :])
        for word in more:
            _check(args[-1].name, args[-1], word)
    return values


def value(param: Param, text: str) -> Value:
    """Return the value of an option that a text stands for where each has one text: a list's has blanks.

    Raises ValueError with what it should be.
    """
    if param.accepts == "boolean":
        if text.lower() not in _SWITCHES:
            raise ValueError(f"expected true or false; found {one_line(text)!r}")
        return _SWITCHES[text.lower()]
    if param.accepts == "list":
        import shlex  # only for a text that is not the shell's

        try:
            words = tuple(shlex.split(text))
        except ValueError:
            raise ValueError(f"expected words with closed quotes; found {one_line(text)!r}") from None
        if not words:
            raise ValueError("expected at least one value")
    else:
        words = (text,)
    for word in words:
        if expected := mismatch(param, word):
            raise ValueError(f"expected {expected}; found {one_line(word)!r}")
    return words if param.accepts == "list" else text


_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Next(NamedTuple):
    """What the next word would be: the value of `param`, or else an argument after those in `rest`."""

    values: Values
    rest: list[str]
    param: Param | None


_MARK = "\0"  # cannot be typed


def upcoming(params: Sequence[Param], words: Sequence[str], stop: bool) -> Next:
    """Find out what a word after `words` would be. With `stop`, options end at the first other word.

    Raises UsageError and HelpWanted.
    """
    free = [replace(param, choices=(), type="text", pattern=None) for param in params]
    values, rest = _Reader(free).read([*words, _MARK], stop)
    for param in params:
        value = values.get(param.name)
        if value == _MARK or (isinstance(value, tuple) and _MARK in value):
            return Next(values, rest, param)
    return Next(values, rest[:-1], None)


class HelpWanted(Exception):
    """-h or --help was given as an option."""


class UnknownOption(UsageError):
    """An option that there is not. typed: the arguments from it on."""

    def __init__(self, message: str, typed: list[str]) -> None:
        super().__init__(message)
        self.typed = typed


class UnexpectedArgument(UsageError):
    """An argument more than a command takes."""

    def __init__(self, word: str) -> None:
        super().__init__(f"unexpected argument {one_line(word)!r}")
        self.word = word


_HELP = ("-h", "--help")


class _Reader:
    def __init__(self, params: Sequence[Param]) -> None:
        self.flags = {flag: param for param in params for flag in (*param.flags, *param.also)}
        self.offs = {param.off: param for param in params if param.off}
        self.values: Values = {}

    def read(self, words: list[str], stop: bool) -> Parsed:
        self.words = words
        rest: list[str] = []
        while words:
            word = self.word = words.pop(0)
            if word == "--":
                rest += words
                break
            if not self._is_option(word):
                rest.append(word)
                if stop:
                    rest += words
                    break
            elif word.startswith("--") or word in self.flags:
                self._long(word, words)
            else:
                self._short(word, words)
        return Parsed(self.values, rest)

    def _is_option(self, word: str) -> bool:
        if word[:1] != "-" or word == "-":
            return False
        return word[:2] in self.flags or not re.fullmatch(_NUMBER, word, re.ASCII | re.IGNORECASE)

    def _long(self, word: str, words: list[str]) -> None:
        flag, given, value = (word, "", "") if word in self.flags else word.partition("=")
        if flag in self.offs and not given:
            self.values[self.offs[flag].name] = False
            return
        param = self.flags.get(flag)
        if param is None or (given and param.accepts == "boolean"):
            self._refuse(flag, param)
        self._take(param, flag, [value] if given else None, words)

    def _short(self, word: str, words: list[str]) -> None:
        """Read combined one-letter options; the last may be followed directly by its value."""
        for i, letter in enumerate(word[1:], 2):
            flag = f"-{letter}"
            param = self.flags.get(flag)
            if param is None:
                self._refuse(word if i == 2 else flag, None)
            if param.accepts != "boolean":
                self._take(param, flag, [word[i:]] if word[i:] else None, words)
                return
            self.values[param.name] = True

    def _take(self, param: Param, flag: str, value: list[str] | None, words: list[str]) -> None:
        if param.accepts == "boolean":
            self.values[param.name] = True
            return
        taken = value if value is not None else self._following(param, flag, words)
        for word in taken:
            _check(flag, param, word)
        if param.accepts == "list" or param.is_repeated:
            before = self.values.get(param.name, ())
            self.values[param.name] = (*before, *taken) if isinstance(before, tuple) else ()
        else:
            self.values[param.name] = taken[0]

    def _following(self, param: Param, flag: str, words: list[str]) -> list[str]:
        if param.accepts == "list":
            count = next((i for i, w in enumerate(words) if self._is_option(w)), len(words))
            taken, words[:count] = words[:count], []
            return taken
        if not words or words[0] in (*self.flags, *self.offs, *_HELP, "--"):
            joined = f"{flag}=VALUE" if flag.startswith("--") else f"{flag}VALUE"
            raise UsageError(f"{flag} expects a value; write one that looks like an option as {joined}")
        return [words.pop(0)]

    def _refuse(self, flag: str, param: Param | None) -> NoReturn:
        if param:
            raise UsageError(f"{flag} takes no value")
        if flag in _HELP:
            raise HelpWanted
        hint = did_you_mean(flag, [*self.flags, *self.offs])
        raise UnknownOption(f"unknown option {one_line(flag)}{hint}", [self.word, *self.words])


def _check(name: str, of: Arg | Param, word: str) -> None:
    if expected := mismatch(of, word):
        found = "" if isinstance(of, Param) and of.secret else f"; found {one_line(word)!r}"
        raise UsageError(f"{name}: expected {expected}{found}")


# --- help ---


def usage(args: Sequence[Arg], params: Sequence[Param]) -> str:
    """Return a command's usage, such as `[options] DATE`."""
    words = ["[options]"] if params else []
    for arg in args:
        shown = _placeholder(arg.name, arg.choices)
        shown += f" [{shown} ...]" if arg.is_rest and not arg.optional else " ..." if arg.is_rest else ""
        words.append(f"[{shown}]" if arg.optional else shown)
    return " ".join(words)


def describe(args: Sequence[Arg], params: Sequence[Param]) -> Iterator[tuple[str, str]]:
    """Yield a row of help for each argument and option: its spelling and its description."""
    for arg in args:
        # `usage` has the choices.
        yield _placeholder(arg.name, ()), _with_facts(arg.help, [] if arg.choices else facts(arg))
    for param in params:
        yield _spelling(param), _with_facts(param.help, [*_choices(param), *_default(param)])


def _spelling(param: Param) -> str:
    flags = ", ".join(dict.fromkeys(param.flags))
    if param.off:
        return f"{flags}, {param.off}"
    value = value_shown(param)
    return flags + {"boolean": "", "list": f" [{value} ...]", "value": f" {value}"}[param.accepts]


def value_shown(param: Param) -> str:
    """What stands for the value of an option in help."""
    return param.placeholder or _placeholder(param.name, ())


def _placeholder(name: str, choices: tuple[str, ...]) -> str:
    return "{" + ",".join(choices) + "}" if choices else re.sub(r"\W+", "_", name).upper()


def _choices(param: Param) -> list[str]:
    return [f"one of {', '.join(param.choices)}"] if param.choices else facts(param)


def _default(param: Param) -> list[str]:
    if param.default is None:
        return []
    default = param.default if isinstance(param.default, str) else " ".join(param.default)
    return [f"default: {'***' if param.secret and not param.reference else default}"]


def _with_facts(help: str, facts: list[str]) -> str:
    return " ".join([help.strip(), *([f"({'; '.join(facts)})"] if facts else [])]).strip()


def table(rows: Sequence[tuple[str, str]], left: int = 0) -> list[str]:
    """Format rows as two columns, the second wrapped to the terminal's width.

    left: the least width of the first, so that several tables line up.
    """
    import textwrap  # only for help

    width = _terminal_width()
    left = min(max([left, *(len(row[0]) for row in rows)]), 28)
    lines = []
    for head, text in rows:
        wrapped = textwrap.wrap(text, max(width - left - 4, 20), break_on_hyphens=False) or [""]
        if len(head) > left:
            lines.append(f"  {head}")
            head = ""
        lines.append(f"  {head:<{left}}  {wrapped[0]}".rstrip())
        lines += [" " * (left + 4) + more for more in wrapped[1:]]
    return lines


def wrapped(text: str) -> list[str]:
    """Wrap a paragraph to the terminal's width."""
    import textwrap

    return textwrap.wrap(text, _terminal_width()) or [""]


def _terminal_width() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return max(int(columns), 40)
    try:
        return max(os.get_terminal_size(1).columns, 40)
    except OSError:
        return 100
