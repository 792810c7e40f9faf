"""Run a command line and return an exit code."""

import os
import sys

import skelebot
from skelebot import chain, console, foreground, help, options
from skelebot.component import Session
from skelebot.errors import ConfigError, Interrupted, SkelebotError, UsageError
from skelebot.loader import Loaded, Loader
from skelebot.model import Flags
from skelebot.project import read


def main(argv: list[str]) -> int:
    """Run a command line and return its exit code. Only this function catches SkelebotError."""
    try:
        console.any_text()
        foreground.install_signal_handlers()
        return _main(argv)
    except ConfigError as error:
        for problem in error.problems:
            console.error(problem)
        return error.code
    except Interrupted as error:
        console.error("interrupted")
        return error.code
    except SkelebotError as error:
        console.error(str(error))
        return error.code
    except BrokenPipeError:
        # The reader of the output has gone, so there is nobody to report to.
        _give_up_stdout()
        return 141
    except OSError as error:
        _give_up_stdout()
        where = f"{error.filename}: " if error.filename else ""
        console.error(f"{where}{(error.strerror or str(error)).lower()}")
        return SkelebotError.code


def _give_up_stdout() -> None:
    """Keep the interpreter from writing the rest of stdout again at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _main(argv: list[str]) -> int:
    links = chain.split(argv)
    given, words = options.parse_options(chain.OPTIONS, links[0])
    if given.get("version"):
        console.out(f"skelebot {skelebot.__version__}")
        return 0
    flags = chain.with_options(Flags(), given)
    alone = len(links) == 1 and not given.get("help")
    loader = Loader(read.find_root(), words[0] if words and alone else "", _main)
    if given.get("help") or (not words and len(links) == 1 and not given.get("contact")):
        return _help(words, loader.load(flags))
    if given.get("contact"):
        return _contact(loader.load(flags).session)
    if words[:1] == ["help"] and "help" not in loader.load(flags).commands:
        return _help(words[1:], loader.load(flags))
    return chain.run(links, words, flags, loader)


def _help(words: list[str], loaded: Loaded) -> int:
    """Print the overview, or the help of a command."""
    if words and words[0] not in loaded.commands:
        raise help.unknown(words[0], *loaded)
    lines = help.of_command(loaded.commands[words[0]]) if words else help.overview(*loaded, chain.OPTIONS)
    console.out("\n".join(lines))
    return 0


def _contact(session: Session) -> int:
    if not session.project.contact:
        raise UsageError(f"the project has no contact; add `contact:` to {read.FILE}")
    console.out(session.project.contact)
    return 0
