"""Draw the picture in the README, docs/demo.svg, from what the example project really prints.

usage: python docs/make_demo.py FILE

Runs the `skelebot` on PATH with a Docker engine; SKELEBOT_BASE_IMAGE names another base image.
tests/integration/test_demo.py draws it and compares it with the one in docs/.
"""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from xml.sax.saxutils import escape

EXAMPLE = Path(__file__).parent.parent / "examples" / "iris"
COMMANDS = ("skelebot -h", "skelebot score")
BUILT = "\x1b[2m(the image is built)\x1b[0m"

COLUMNS = 92
CELL, LINE, MARGIN, BAR = 8.4, 19, 18, 34  # in pixels
STYLES = {
    "1": "font-weight='bold' fill='#ffffff'",
    "2": "fill='#7d8590'",
    "32": "fill='#7ee787'",
    "33": "fill='#d29922'",
    "90": "fill='#484f58'",
}
LABEL = "The help of the example, and a run of its jobs"


def main(target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "iris"
        leave = shutil.ignore_patterns("data", "models", "output", ".skelebot", "Dockerfile")
        shutil.copytree(EXAMPLE, project, ignore=leave)
        # Another name, as the test of the README builds the example on the same engine.
        settings = project / "skelebot.yaml"
        settings.write_text(settings.read_text(encoding="utf-8").replace("name: Iris\n", "name: Irises\n"))
        lines = [line for command in COMMANDS for line in session(command, project)]
    Path(target).write_text(svg(lines), encoding="utf-8")


def session(command: str, project: Path) -> list[str]:
    """The lines that a terminal shows for a command; one line stands for those of a build."""
    output, built = run(command, project)
    return [f"\x1b[32m$\x1b[0m \x1b[1m{command}\x1b[0m", *([BUILT] if built else []), *output, ""]


def run(command: str, project: Path) -> tuple[list[str], bool]:
    """What a command prints on a terminal, and whether it wrote to stderr."""
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    with tempfile.TemporaryFile() as errors:
        # Without a terminal as stdin, as a job with a whole terminal would mix stderr into stdout.
        streams = {"stdin": subprocess.DEVNULL, "stdout": terminal, "stderr": errors}
        # The terminal says how wide it is, whatever the caller's is.
        env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        child = subprocess.Popen(command.split(), cwd=project, env=env, **streams)
        os.close(terminal)
        text = read(ours)
        code = child.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if code:
        raise SystemExit(f"{command} ended with {code}:\n{said}")
    return text.rstrip().splitlines(), bool(said)


def read(terminal: int) -> str:
    data = b""
    try:
        while part := os.read(terminal, 65536):
            data += part
    except OSError:  # on Linux: the other side has closed
        pass
    os.close(terminal)
    return data.decode()


def svg(lines: list[str], label: str = LABEL) -> str:
    width = COLUMNS * CELL + 2 * MARGIN
    height = BAR + len(lines) * LINE + MARGIN
    texts = "\n".join(text(line, BAR + (row + 1) * LINE) for row, line in enumerate(lines))
    dots = "".join(
        f"<circle cx='{20 + 20 * i}' cy='18' r='6' fill='{colour}'/>"
        for i, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return f"""<svg xmlns='http://www.w3.org/2000/svg' width='{width:.0f}' height='{height:.0f}' \
viewBox='0 0 {width:.0f} {height:.0f}' role='img' aria-label='{label}'>
<style>text {{ white-space: pre }}</style>
<rect width='100%' height='100%' rx='9' fill='#0d1117'/>
{dots}
<g font-family="ui-monospace, 'SFMono-Regular', Menlo, Consolas, 'DejaVu Sans Mono', monospace" \
font-size='14' fill='#c9d1d9' xml:space='preserve'>
{texts}
</g>
</svg>
"""


def text(line: str, y: float) -> str:
    """A line as SVG; each run of one style is as wide as its cells, in any font."""
    parts, column, style = [], 0, ""
    for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
        if piece.startswith("\x1b["):
            style = STYLES.get(piece[2:-1], "")
        elif piece:
            where = f"x='{MARGIN + column * CELL:.1f}' y='{y:.0f}' textLength='{len(piece) * CELL:.1f}'"
            parts.append(f"<text {where} {style}>{escape(piece)}</text>")
            column += len(piece)
    return "".join(parts)


if __name__ == "__main__":
    main(sys.argv[1])
