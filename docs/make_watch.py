"""Draw the picture of `runs --watch`, docs/runs-watch.svg, from what it really shows.

usage: python docs/make_watch.py FILE

Runs the `skelebot` on PATH.
tests/integration/test_runs_watch.py draws it and compares it with the one in docs/.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from make_demo import COLUMNS, read, svg

LINES = 12
PROJECT = """\
name: Storms
jobs:
- name: train
  source: train.sh
  native: always
  help: Fit a model
  environment: {TOP: null}
  params: [{name: rate, type: float, default: 0.1}]
"""
# Trains to 40 % or 70 %, and goes on once the picture is drawn.
TRAIN = """\
if [ -e "$TOP/drawing" ]; then
    done=$([ "$2" = 0.1 ] && echo 4 || echo 7)
    echo "epoch $done of 10: loss $(echo "1 $done" | awk '{printf "%.2f", $1 / $2}')"
    sleep 2
    echo "{\\"progress\\": 0.$done}" >>"$SKELEBOT_METRICS"
    until [ -e "$TOP/end" ]; do sleep 0.1; done
else
    sleep 3
fi
"""


def main(target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "storms"
        project.mkdir()
        (project / "skelebot.yaml").write_text(PROJECT, encoding="utf-8")
        (project / "train.sh").write_text(TRAIN, encoding="utf-8")
        env = {**os.environ, "TOP": folder, "SKELEBOT_STORE": f"{folder}/store", "TERM": "xterm"}
        for name in ("COLORTERM", "NO_COLOR"):
            env.pop(name, None)
        for _ in range(3):
            skelebot(project, env, "queue", "--now", "train")
        (Path(folder) / "drawing").touch()
        for rate in ("0.1", "0.5", "1", "2", "5"):
            skelebot(project, env, "queue", "--name", f"rate {rate}", "train", "--rate", rate)
        words = ("skelebot", "worker", "-j", "2", "--drain")
        worker = subprocess.Popen(words, cwd=project, env=env, stderr=subprocess.DEVNULL)
        try:
            lines = screen(project, env)
        finally:
            (Path(folder) / "end").touch()
            worker.wait()
    command = "\x1b[32m$\x1b[0m \x1b[1mskelebot runs --watch\x1b[0m"
    label = "The queue: two runs with their progress and last lines, and three that wait"
    Path(target).write_text(svg([command, *lines], label), encoding="utf-8")


def skelebot(project: Path, env: dict[str, str], *words: str) -> None:
    subprocess.run(("skelebot", *words), cwd=project, env=env, check=True, capture_output=True)


def screen(project: Path, env: dict[str, str]) -> list[str]:
    """Return the lines of the first screen on which both runs have said how far they are."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(project)
        os.execvpe("skelebot", ("skelebot", "runs", "--watch"), env)  # noqa: S606
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    output, end = "", time.monotonic() + 60
    while not ("40 %" in (last := output.split("\x1b[H")[-1]) and "70 %" in last and "leaves" in last):
        if time.monotonic() > end:
            raise SystemExit(f"the screen never came:\n{output}")
        output += os.read(terminal, 65536).decode(errors="replace")
    os.write(terminal, b"q")
    read(terminal)
    os.waitpid(pid, 0)
    lines = [re.sub(r"\x1b\[\?[^a-zA-Z]*[a-zA-Z]", "", line).rstrip() for line in last.split("\r\n")]
    return lines[: next(at for at, line in enumerate(lines) if "leaves" in line) + 1]


if __name__ == "__main__":
    main(sys.argv[1])
