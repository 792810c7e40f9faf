"""Waiting for files and signals."""

import subprocess
import sys

import pytest

WAIT = """
import os, signal, sys
from skelebot.wake import awake
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
reading, writing = os.pipe()
with awake() as waiting, open(reading, "rb") as file:
    {before}
    waiting.wait(file)
    print("awake")
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("signal.raise_signal(signal.SIGUSR1)", "handled\nawake\n"),
        ("os.write(writing, b'x')", "awake\n"),
    ],
)
def test_what_comes_just_before_a_wait_ends_it(before: str, said: str) -> None:
    words = (sys.executable, "-c", WAIT.format(before=before))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (said, "")
