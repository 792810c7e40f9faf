"""Run somebody else's template without letting it take all of the processor or the memory."""

import json
import os
import resource
import signal
from collections.abc import Callable
from typing import NoReturn

from skelebot.errors import ConfigError

_CPU_SECONDS = 2
_MEMORY = 2 << 30
_MOST_TEXT = 100 << 20


def within_limits(render: Callable[[], str], place: str) -> str:
    """The text that `render` gives, in a child process with limits.

    place: where the template stands, for the error. Raises ConfigError.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _answer_and_exit(render, writer)
    os.close(writer)
    try:
        with open(reader, "rb") as stream:
            answer = stream.read()
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    if status:
        raise ConfigError([f"{place}: takes more time or memory than a template may use"])
    text, problems = json.loads(answer)
    if problems:
        raise ConfigError(problems)
    return str(text)


def _answer_and_exit(render: Callable[[], str], writer: int) -> NoReturn:
    """Write the text and the problems as JSON, and end the process whatever happens."""
    status = 1
    try:
        for kind, limit in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, _CPU_SECONDS),
            (resource.RLIMIT_AS, _MEMORY),
        ):
            resource.setrlimit(kind, (limit, limit))
        text, problems = "", []
        try:
            text = render()
        except ConfigError as error:
            problems = error.problems
        if len(text) <= _MOST_TEXT:
            with open(writer, "wb") as stream:
                stream.write(json.dumps([text, problems]).encode())
            status = 0
    finally:
        os._exit(status)
