"""From the arguments typed to the exit code; where streams matter, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .helpers import write

ENV = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
ENV["PYTHONPATH"] = os.pathsep.join(sys.path)


def skelebot(folder: Path, *argv: str, **streams: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "skelebot", *argv], cwd=folder, env=ENV, **streams)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """A project whose job ends with exit code 7."""
    write(tmp_path, "name: demo\njobs: [{name: fail, source: exit 7, help: Fails}]\n")
    return tmp_path


def test_a_full_stderr_does_not_change_a_jobs_exit_code(failing: Path) -> None:
    with open("/dev/full", "wb") as full:
        assert skelebot(failing, "-n", "-V", "fail", stderr=full).wait(60) == 7


def test_a_stderr_that_nobody_reads_does_not_change_a_jobs_exit_code(failing: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert skelebot(failing, "-n", "-V", "fail", stderr=writer).wait(60) == 7
    finally:
        os.close(writer)


def test_a_closed_stderr_does_not_change_a_jobs_exit_code(failing: Path) -> None:
    command = f"exec 2>&-; exec {sys.executable} -m skelebot -n -V fail"
    assert subprocess.run(["bash", "-c", command], cwd=failing, env=ENV, check=False).returncode == 7
