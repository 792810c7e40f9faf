"""Search a job's output with the patterns of its project, none of which may keep a run from ending.

On a line of forty letters, `(a+)+b` takes longer than anybody can wait. Nothing in this process could
interrupt that, as no other thread runs meanwhile. So another process searches, which the kernel ends in time.
"""

import json
import signal
import sys
from collections.abc import Iterator, Sequence

from skelebot import process
from skelebot.errors import SkelebotError
from skelebot.model import Step
from skelebot.runs import search_process

_SECONDS = 5.0  # of CPU time for one pattern in the lines of a question; an ordinary one takes a millisecond


class Search:
    """Patterns, and the process that searches with them, from the first question on.

    names: of the patterns that are still searched for; problems: why others are not.
    """

    def __init__(self, patterns: Sequence[tuple[str, str]]) -> None:
        """patterns: a name, and what has one group."""
        self._patterns = list(patterns)
        self._helper: process.Helper | None = None
        self.problems: list[str] = []

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self._patterns]

    def texts(self, lines: Sequence[str]) -> Iterator[dict[str, str | None]]:
        """Yield for each line what the patterns find in it, by their names; nothing without patterns."""
        while self._patterns:
            answer = self._answer(json.dumps(lines).encode("ascii") + b"\n")
            if answer.endswith(b"\n"):
                for pairs in json.loads(answer.lstrip(b".")):
                    yield {self._patterns[number][0]: text for number, text in pairs}
                return
            self._leave_out(answer.count(b".") - 1)

    def _answer(self, question: bytes) -> bytes:
        """Return the answer to a question, without its end if the process has ended meanwhile."""
        if self._helper is None:
            try:
                self._helper = process.Helper(Step((sys.executable, "-I", "-S", search_process.__file__)))
            except SkelebotError:
                return b""
            patterns = [[pattern for _, pattern in self._patterns], _SECONDS]
            question = json.dumps(patterns).encode("ascii") + b"\n" + question
        return self._helper.ask(question)

    def _leave_out(self, at: int) -> None:
        """Search no more for the pattern during which the process was ended, or for none."""
        code = self.close()
        if code != -signal.SIGVTALRM or at < 0:
            self.give_up("the process that searches it has ended")
            return
        name, _ = self._patterns.pop(at)
        self.problems.append(
            f"the pattern of the metric {name} takes too long, so not all of the output was searched for it; "
            "write it without a repetition inside another one"
        )

    def give_up(self, why: str) -> None:
        """Search for nothing any more."""
        self.problems.append(f"not all of the output was searched for {', '.join(self.names)}: {why}")
        self._patterns.clear()

    def close(self) -> int:
        """End the process; return its exit code."""
        if self._helper is None:
            return 0
        helper, self._helper = self._helper, None
        return helper.close()
