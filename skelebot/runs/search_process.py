"""Search lines with patterns: a program that `search` runs by its path, and that imports nothing of Skelebot.

The first line of its input has the patterns, and how many seconds each may search the lines of a question.
Each other line is a question: a list of lines. The answer is a dot whenever a pattern begins, and then a
line: for each line of the question, pairs of a pattern's number and what its group has found.
"""

import json
import re
import signal
import sys


def main() -> None:
    texts, seconds = json.loads(sys.stdin.readline())
    patterns = list(map(re.compile, texts))
    for question in sys.stdin:
        lines = json.loads(question)
        found: list[list[tuple[int, str | None]]] = [[] for _ in lines]
        for number, pattern in enumerate(patterns):
            _write(".")
            # When its CPU time is over, the kernel ends this process, whatever it does then.
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            for line, pairs in zip(lines, found, strict=True):
                if match := pattern.search(line):
                    pairs.append((number, match[1]))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        _write(f"{json.dumps(found)}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
