"""The instructions of a Dockerfile, in short lines that a person can read.

https://docs.docker.com/reference/dockerfile/
"""

import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping

_WIDTH = 100
_INDENT = " \\\n    "
_MOST_TEXT = 64 << 10  # characters of a shell command, which is one argument
# Writes files, each given as its path and its text.
_WRITE = 'mkdir -p "$0" && while [ $# -gt 0 ]; do printf %s "$2" >"$1" && shift 2 || exit; done'


def exec_form(instruction: str, words: tuple[str, ...]) -> str:
    """An instruction whose words no shell reads; JSON escapes line ends."""
    return f"{instruction} {json.dumps(list(words))}"


def shell_form(instruction: str, command: str) -> str:
    """An instruction with the author's own shell text; as JSON where Docker would read it otherwise."""
    command = command.strip()
    odd = re.match(r"[\[<-]", command) or "<<" in command or command.endswith("\\")
    if odd or not command.isprintable():
        return exec_form(instruction, ("/bin/sh", "-c", command))
    return f"{instruction} {command}"


def run_all(*commands: str) -> str:
    """A RUN of shell commands, each of which has to succeed before the next."""
    return "RUN " + " \\\n && ".join(commands)


def run_program(program: str, words: Iterable[str]) -> str:
    """A RUN of one program with words that no shell changes, in as many lines as they need."""
    words = (program, *words)
    if any(not word.isprintable() or "<<" in word for word in words):
        return exec_form("RUN", words)
    lines = ["RUN"]
    for word in map(shlex.quote, words):
        if len(lines[-1]) + len(word) < _WIDTH or lines[-1] == "RUN":
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return _INDENT.join(lines)


def write_program(name: str, text: str) -> str:
    """The shell commands that write a program where all can call it, line by line."""
    path = f"/usr/local/bin/{name}"
    return f"{_write_lines(path, text)} \\\n && chmod 755 {path}"


def write_files(folder: str, files: Mapping[str, str]) -> str:
    """A RUN that writes files by their paths, line by line. folder: one to create before."""
    text = "".join(files.values())
    if "<<" in text or len(text) > _MOST_TEXT or not re.sub(r"[\n\t]", "", text).isprintable():
        words = [word for file in files.items() for word in file]
        return exec_form("RUN", ("sh", "-c", _WRITE, folder, *words))
    return run_all(f"mkdir -p {folder}", *(_write_lines(path, text) for path, text in files.items()))


def _write_lines(path: str, text: str) -> str:
    lines = map(shlex.quote, text.removesuffix("\n").split("\n"))
    return _INDENT.join(["printf '%s\\n'", *lines, f">{path}"])


def copy(source: str, target: str) -> str:
    if re.fullmatch(r"[\w./+,=~@][\w./+,=~@-]*", source, re.ASCII):
        return f"COPY {source} {target}"
    return exec_form("COPY", (source, target))


def copy_from(line: str, folder: str) -> str:
    """A COPY for a context that holds the files in a folder; other lines, and other forms, unchanged."""
    words = line.removeprefix("COPY ")
    if words == line or words.startswith("--"):
        return line
    *sources, target = json.loads(words) if words.startswith("[") else words.split()
    moved = (*(os.path.normpath(folder + source) for source in sources), target)
    return exec_form("COPY", moved) if words.startswith("[") else f"COPY {' '.join(moved)}"


def quoted(value: str) -> str:
    """A value of LABEL and ENV, in which Docker expands variables and knows quotes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


# --- packages of the system ---


def apt_install(packages: str, unless: str = "") -> str:
    """A RUN that installs packages of Debian, `unless` a shell command succeeds."""
    commands = (
        "apt-get update",
        f"DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {packages}",
        "rm -rf /var/lib/apt/lists/*",
    )
    if not unless:
        return run_all(*commands)
    return f"RUN {unless} || {{{_INDENT}" + " \\\n && ".join(commands) + "; }"
