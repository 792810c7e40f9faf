"""Skelebot's errors. Each has its message and its exit code."""

import signal
from collections.abc import Iterable

FAILED = 1
USAGE = 2
TIMED_OUT = 124
NOT_FOUND = 127


class SkelebotError(Exception):
    """An operation failed. The message is one line: what, where, and what to do next."""

    code = FAILED


class UsageError(SkelebotError):
    """The command line is wrong."""

    code = USAGE


class ConfigError(SkelebotError):
    """The configuration is wrong, or the values of jobs. `problems` has a line for each mistake."""

    code = USAGE

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ProgramMissing(SkelebotError):
    """A required program is not on this machine."""

    code = NOT_FOUND


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the signals that ask a program to end
GRACE = 10.0  # seconds that it has for that before it is killed


class Interrupted(BaseException):
    """A signal asked Skelebot to stop. The exit code is 128 plus the signal's number, as in a shell.

    Like KeyboardInterrupt it is not an Exception, so that no handler for failures catches it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.code = 128 + signum


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the nearest known one, or all if they are few."""
    import difflib  # only for a mistake

    lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(word.lower(), lower, 1, 0.6)
    if near:
        return f"; did you mean `{lower[near[0]]}`?"
    return f"; known: {', '.join(sorted(lower.values()))}" if 0 < len(lower) <= 40 else ""
