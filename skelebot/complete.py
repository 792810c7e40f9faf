"""Complete a command line for a shell, silently and without running anything.

The shell's part is click's script (see components/completion.py). The protocol is click's, too:
https://click.palletsprojects.com/en/stable/shell-completion/. The words are in COMP_WORDS, COMP_CWORD is
the index of the one to complete, and each line of the answer has a type and a value. click itself is not
used here, because its import takes longer than everything else.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from skelebot import chain, options
from skelebot.component import Command
from skelebot.loader import Loader
from skelebot.model import Arg, Flags, Param
from skelebot.project import read


class Candidate(NamedTuple):
    """A word that fits; with `is_file`, the typed part of a file's name, for the shell to complete."""

    value: str
    help: str = ""
    is_file: bool = False


class Line(NamedTuple):
    """The words before the cursor, from the one after `skelebot`, and the word at the cursor.

    done: how much of it the shell keeps and does not want to see again. quoted: whether it begins with
    a quotation mark.
    """

    words: list[str]
    word: str
    done: int = 0
    quoted: bool = False


def answer() -> int:
    """Write the candidates to stdout, or none if anything is wrong; the exit code is always 0."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the command itself reports mistakes
    with suppress(Exception):
        shell = os.environ["_SKELEBOT_COMPLETE"].removesuffix("_complete")
        line = _LINES[shell](os.environ["COMP_WORDS"], os.environ["COMP_CWORD"])
        found = (_ANSWERS[shell](c, line) for c in candidates(line.words, line.word))
        text = "".join(f"{each}\n" for each in found if each)
        sys.stdout.buffer.write(os.fsencode(text))
        sys.stdout.flush()
    return 0


# --- what could come next ---


class Where(NamedTuple):
    """What a word could be: a value, one of the options, one of the commands."""

    value: Arg | Param | None = None
    options: tuple[Param, ...] = ()
    commands: tuple[Command, ...] = ()


def candidates(words: Sequence[str], word: str) -> Iterator[Candidate]:
    """Yield the words that begin with `word` and can follow `words`. Raises any error in those."""
    flag, equals, value = word.partition("=")
    if equals and flag.startswith("--"):
        of = _where([*words, flag]).value
        found = _values(of, value) if isinstance(of, Param) else iter(())
        found = (c._replace(value=f"{flag}={c.value}") for c in found)
    else:
        found = _found(_where(words), word)
    yield from (c for c in found if c.is_file or (c.value.startswith(word) and c.value.isprintable()))


def _found(where: Where, word: str) -> Iterator[Candidate]:
    if word.startswith("-") and where.options:
        for param in where.options:
            yield from (
                Candidate(flag, param.help) for flag in dict.fromkeys((*param.flags, param.off)) if flag
            )
        return
    yield from (Candidate(command.name, command.help) for command in where.commands)
    yield from _values(where.value, word)


def _where(words: Sequence[str]) -> Where:
    """Find out what can follow `words`. Raises any error in them or in the project."""
    *before, link = chain.links_of(list(words))
    flags = Flags()
    if before:
        flags = chain.with_options(flags, options.parse_options(chain.OPTIONS, before[0]).values)
    values, rest, param = options.upcoming(chain.OPTIONS, link, stop=True)
    if param:
        return Where(param)
    name = rest[0] if rest else ""
    commands = Loader(read.find_root(), name).load(chain.with_options(flags, values), name).commands
    if not rest:
        return Where(options=chain.OPTIONS, commands=tuple(commands.values()))
    command = commands[name]
    if command.queue:
        return _in_queued(command, rest[1:], commands)
    if not rest[1:] and command.verbs():
        verbs = (verb._replace(name=verb.name.partition(" ")[2]) for verb in command.verbs())
        return _in_command(command, rest[1:])._replace(commands=tuple(verbs))
    if verb := next((verb for verb in command.verbs() if rest[1:2] == [verb.name.partition(" ")[2]]), None):
        command, rest = verb, rest[1:]
    if command.bind:  # a job and its values
        name, *rest = rest[1:] or [""]
        jobs = tuple(command for command in commands.values() if command.job)
        if name.startswith("-"):
            return _in_command(command, [name, *rest])
        return (
            _in_command(commands[name], rest) if name else Where(options=tuple(command.params), commands=jobs)
        )
    return _in_command(command, rest[1:])


def _in_queued(command: Command, words: list[str], commands: Mapping[str, Command]) -> Where:
    """What can follow in a link before whose job a command with options of its own stands."""
    _, rest, param = options.upcoming(command.params, words, stop=True)
    if param:
        return Where(param)
    if rest:
        return _in_command(commands[rest[0]], rest[1:])
    return Where(options=(*command.params, _HELP), commands=tuple(c for c in commands.values() if c.job))


def _in_command(command: Command, words: list[str]) -> Where:
    _, rest, param = options.upcoming(command.params, words, stop=False)
    if param and param.accepts != "list":
        return Where(param)
    flags = () if "--" in words else (*command.params, _HELP)
    arg = command.args[len(rest)] if len(rest) < len(command.args) else None
    return Where(param or arg, flags)


_HELP = Param("help", "h", accepts="boolean", help="Show the command's help")


def _values(of: Arg | Param | None, word: str) -> Iterator[Candidate]:
    if of is None:
        return
    if of in chain.OPTIONS:
        yield from map(Candidate, _environments() if of.name == "env" else ())
    elif known := of.choices or of.offered:
        if isinstance(of, Param) and of.offered:
            yield Candidate(word, is_file=True)  # first, as bash's script drops what it got before
        yield from map(Candidate, known)
    elif of.type in ("text", "path", "file") and not (isinstance(of, Param) and of.secret):
        root = read.find_root() if of.type != "text" else None
        if root in (None, os.getcwd()):
            yield Candidate(word, is_file=True)
        else:
            yield from _paths_below(str(root), word)


def _paths_below(root: str, word: str) -> list[Candidate]:
    """Return the files that fit a path from the root; the shell lists those of the current folder.

    Of a folder that alone fits, what is in it, as the shell puts a blank after a single candidate.
    """
    folder, name = os.path.split(word)
    paths = []
    with suppress(OSError), os.scandir(os.path.join(root, folder)) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            if entry.name.startswith(name) and (name or entry.name[0] != "."):
                paths.append(os.path.join(folder, entry.name) + ("/" if entry.is_dir() else ""))
    below = _paths_below(root, paths[0]) if len(paths) == 1 and paths[0].endswith("/") else []
    return below or [Candidate(path) for path in paths]


def _environments() -> list[str]:
    root = read.find_root()
    return read.environments(root) if root else []


# --- each shell's way to ask ---


def _words(text: str) -> list[str]:
    """Split a command line into words without quotes; the last word may be incomplete."""
    if not re.search(r"['\"\\]", text):
        return text.split()
    import shlex  # only imported if needed

    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    found = []
    try:
        for word in lexer:
            found.append(word)
    except ValueError:
        found.append(lexer.token)
    return found


def _after_skelebot(words: list[str]) -> list[str]:
    """Remove the command and what precedes it, such as variables. An alias is the first word."""
    names = [os.path.basename(word) for word in words]
    return words[names.index("skelebot") + 1 if "skelebot" in names else 1 :]


_BREAK = re.compile(r"[=:@]+")


def _of_bash(text: str, at: str) -> Line:
    """Read bash's input: one word per line, with its quotes, and split at `=`, `:` and `@`.

    It expects back only what follows the last split.
    """
    pieces = text.split("\n")[: int(at) + 1]
    typed: list[str] = []
    for i, piece in enumerate(pieces):
        if typed and (_BREAK.fullmatch(piece) or _BREAK.fullmatch(pieces[i - 1])):
            typed[-1] += piece
        else:
            typed.append(piece)
    *words, word = ["".join(_words(each)) for each in typed]
    last = "" if _BREAK.fullmatch(pieces[-1]) else "".join(_words(pieces[-1]))
    return Line(_after_skelebot(words), word, len(word) - len(last), pieces[-1][:1] in ("'", '"'))


def _of_zsh(text: str, at: str) -> Line:
    """Read zsh's input: the words as typed, including those after the cursor."""
    words = _words(text)
    cut = int(at)
    return Line(_after_skelebot(words[:cut]), words[cut] if cut < len(words) else "")


def _of_fish(text: str, at: str) -> Line:
    """Read fish's input: the text up to the cursor, and the word at the cursor, which may be empty."""
    words = _words(text)
    word = words.pop() if at else ""
    return Line(_after_skelebot(words), word)


# --- each shell's way to be answered ---


def _for_bash(candidate: Candidate, line: Line) -> str:
    """Format for bash, which inserts the value unchanged once `read` has removed backslashes."""
    if candidate.is_file:
        return "file,"
    value = candidate.value[line.done :]
    if line.quoted:  # nothing that quotes or `read` would change
        return f"plain,{value}" if re.fullmatch(r"[\w%+=:,./@^~ -]*", value) else ""
    escaped = re.sub(r"[^\w%+=:,./@^-]", r"\\\g<0>", value)
    return "plain," + escaped.replace("\\", "\\\\")


def _for_zsh(candidate: Candidate, line: Line) -> str:
    """Format for zsh: three lines, none of them empty; a value with help is split at a colon."""
    if candidate.is_file:
        return f"file\n{candidate.value or '_'}\n_"
    help = _one_line(candidate.help)
    value = candidate.value.replace("\\", "\\\\").replace(":", "\\:") if help else candidate.value
    return f"plain\n{value}\n{help or '_'}"


def _for_fish(candidate: Candidate, line: Line) -> str:
    """Format for fish, which cuts a line off at its second comma."""
    if candidate.is_file:
        return f"file,{candidate.value}"
    if "," in candidate.value:
        return ""
    return f"plain,{candidate.value}\t{_one_line(candidate.help).replace(',', ';')}".rstrip("\t")


def _one_line(text: str) -> str:
    return " ".join(text.split())


_LINES = {"bash": _of_bash, "zsh": _of_zsh, "fish": _of_fish}
_ANSWERS = {"bash": _for_bash, "zsh": _for_zsh, "fish": _for_fish}
