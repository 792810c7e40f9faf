"""The lines of a .gitignore for what Skelebot itself writes."""

import os

from skelebot import console, files
from skelebot.components.scaffold.generate import Files, NewFile

GITIGNORE = ".gitignore"
# What Skelebot writes itself; in each row, lines that serve as well are named after the first.
_IGNORED = (
    ("/.skelebot/", ".skelebot/", ".skelebot", "/.skelebot"),
    ("/Dockerfile", "Dockerfile"),
    ("/skelebot.schema.json", "skelebot.schema.json"),
)


def with_own_lines(root: str) -> tuple[Files, dict[str, str]]:
    """The .gitignore with the lines that it lacks, and what to print after its name; nothing without git."""
    path = os.path.join(root, GITIGNORE)
    try:
        with files.open_regular(path) as file:
            before = file.read()
    except OSError:
        if os.path.lexists(path) or not os.path.lexists(os.path.join(root, ".git")):
            return {}, {}
        before = b""
    if os.path.islink(path):
        return {}, {}
    present = {line.strip() for line in before.decode(errors="replace").splitlines()}
    own = [known[0] for known in _IGNORED if not present & set(known)]
    if "/Dockerfile" in own and os.path.lexists(os.path.join(root, "Dockerfile")):
        own.remove("/Dockerfile")  # a custom one, which Skelebot does not overwrite
    if not own:
        return {}, {}
    start = before if not before or before.endswith(b"\n") else before + b"\n"
    text = "".join(f"{line}\n" for line in ("# written by Skelebot", *own))
    lines = console.counted(len(own), "line")
    return {GITIGNORE: NewFile(start + text.encode())}, {GITIGNORE: f"{lines} added"}
