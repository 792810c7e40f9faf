"""Completion in real shells, with the TAB key on a terminal.

What was completed is not read off the screen: the finished line is run, and its job prints its words.
"""

import os
import shutil
import signal
from collections.abc import Iterator

import pytest
from harness import Sandbox, Terminal, with_skelebot

YAML = """\
name: demo
jobs:
- name: train
  source: printf '<%s>' "$@"; echo '<end>'
  help: "Trains: slowly, and with care"
  args:
  - {name: model, choices: [logistic, forest, two words]}
  params:
  - {name: level, alt: l, choices: [debug, info, error], help: How much it tells}
  - {name: file}
  - {name: ratio, choices: ["one:alpha", "one:beta", "two:beta"]}
- {name: trial, source: echo "tried $WHERE", help: Tries, environment: {WHERE: here}}
- {name: "data:load", source: echo loaded, help: Loads}
components:
  repository:
    local: ../store
    artifacts: [{name: weights, file: w.pkl}]
"""

# How each shell is started, and what makes it ask, as the documentation says.
START = {
    "bash": "exec bash --norc --noprofile -i",
    "zsh": "exec zsh -f -i",
    "fish": "exec fish --no-config -i",
}
SET_UP = {
    "bash": 'eval "$(skelebot completion bash)"',
    "zsh": 'autoload -U compinit; compinit -u -D; eval "$(skelebot completion zsh)"',
    "fish": "skelebot completion fish | source",
}


class Shell(Terminal):
    """An interactive shell that completes."""

    def __init__(self, sandbox: Sandbox, shell: str) -> None:
        super().__init__(with_skelebot(sandbox).with_env(TERM="xterm", PS1="$ "), START[shell])
        self.name = shell
        self.enter(SET_UP[shell] + "; echo set-''up", "set-up")

    def enter(self, keys: str, expected: str) -> None:
        """Types a line, with TABs, and waits for what it prints."""
        self.output = b""
        self.send(keys.encode() + b"\r")
        self.expect(expected)


@pytest.fixture(params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest, sandbox: Sandbox) -> Iterator[Shell]:
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    sandbox.write("skelebot.yaml", YAML)
    sandbox.write("VERSION", "1.0.0\n")
    sandbox.write("skelebot-production.yaml", "environment: {WHERE: far away}\n")
    sandbox.write("my file.txt", "")
    sandbox.write("sub/skelebot.yaml", "jobs: {\n")
    shell = Shell(sandbox, request.param)
    yield shell
    os.kill(shell.pid, signal.SIGKILL)  # bash may miss SIGHUP while it completes
    shell.close()


def test_every_kind_of_word(shell: Shell) -> None:
    shell.enter("skelebot -n tra\tlog\t--lev\tinf\t", "<logistic><--level><info><end>")
    shell.enter("skelebot -n tria\t+ -n tra\tfor\t", "tried here")
    shell.expect("<forest><end>")
    shell.enter("skelebot -n data:l\t", "loaded")
    shell.enter("skelebot -n train forest --level=de\t", "<forest><--level><debug><end>")
    shell.enter("skelebot -n train tw\t", "<two words><end>")
    shell.enter("skelebot -n train 'tw\t", "<two words><end>")
    shell.enter("skelebot -n train forest --ratio one:b\t", "<--ratio><one:beta><end>")
    shell.enter("skelebot -n train forest --ratio=tw\t", "<--ratio><two:beta><end>")
    shell.enter("skelebot -n train forest --file my\t", "<--file><my file.txt><end>")
    shell.enter("skelebot -e pro\tenv\t", "* production")
    shell.enter("skelebot --env=pro\tenv\t", "* production")
    shell.enter("skelebot --dry\tpul\twei\tLAT\t", "pull weights LATEST")
    shell.enter(
        "mkdir new; cd new; skelebot --dry-run scaffold -fy --template das\t; cd ..", "src/dashboard.py"
    )
    shell.enter("cd . && skelebot -n tra\tfor\t", "<forest><end>")
    # A broken project says nothing until something is run.
    shell.enter("cd sub; skelebot tra\t\t; echo still-''here", "still-here")
    assert shell.output.count(b"ERROR") == 1
    shell.enter("cd ..; echo ba''ck", "back")
    shell.send(b"skelebot tr\t\t")
    shell.expect("trial" if shell.name == "bash" else "Tries")  # a list, with what each means
