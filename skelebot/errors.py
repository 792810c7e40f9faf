"""What can go wrong; each error owns its message and the exit code it leads to."""

FAILED = 1
USAGE = 2
TIMED_OUT = 124
NOT_FOUND = 127


class SkelebotError(Exception):
    """An operation failed. The message is one line: what, where, and what to do next."""

    code = FAILED


class UsageError(SkelebotError):
    """The command line asks for something that cannot be done as it was typed."""

    code = USAGE


class ConfigError(SkelebotError):
    """The configuration is wrong; `problems` holds a line for each mistake."""

    code = USAGE

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ProgramMissing(SkelebotError):
    """A program that has to be run is not on this machine."""

    code = NOT_FOUND


class Interrupted(BaseException):
    """A signal asked Skelebot to stop; the exit code is the shell's, 128 and the signal's number.

    Like KeyboardInterrupt no Exception, so that nothing on the way takes it for a failure to live with.
    """

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.code = 128 + signum
