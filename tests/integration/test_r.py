"""Projects in R: the words of a job, and packages from a mirror of their own, with a real R."""

import pytest
from harness import R_BASE, Sandbox, job, project

pytestmark = [pytest.mark.engine, pytest.mark.r]

SHOW = 'cat(commandArgs(trailingOnly = TRUE), sep = "\\x1e")\n'

# Beside what a shell would change: the options of R, of Rscript and of the script that starts R.
WORDS = [
    "a b", "", "$HOME", "$(id)", "`id`", "'", '"', "\\", "\\n", "a\nb", "*", "~", ";", "&&", "-", "--", "+",
    "é", "日本", "\t", "a=b", "~+~", "~n~", "-1e5", "x" * 5000,
    "-e", "print(1)", "--args", "--version", "--help", "-h", "-g", "Tk", "--gui=X11", "-d", "gdb",
    "--debugger=gdb", "--encoding=latin1", "--encoding", "-f", "x.R", "--file=x.R", "--vanilla", "--no-save",
    "--slave", "--interactive", "--arch", "--arch=x", "RHOME", "CMD", "--print-home", "--verbose", "-q", "-s",
    "--default-packages=x", "--min-vsize=1", "--max-ppsize=1", "--restore", "--no-readline", "--ess",
]  # fmt: skip


def test_words_arrive_as_they_were_typed(sandbox: Sandbox, name: str) -> None:
    sandbox.write("src/my show.R", SHOW)
    show = job("src/my show.R", args="[{name: word}]", params="[{name: xs, accepts: list}]")
    project(sandbox, name, show, language="R", baseImage=R_BASE)
    listed = [f"--xs={word}" for word in WORDS]
    for first in ("-e", "--args", "-g"):
        out = sandbox.ok("run", *listed, "--", first)
        assert out.split("\x1e") == [first, "--xs", *WORDS]
