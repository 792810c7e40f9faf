"""Changes to a folder's files: what is in their way, and who agrees to them."""

import os
from collections.abc import Mapping, Set

from skelebot import console
from skelebot.components.scaffold.answers import Asker
from skelebot.components.scaffold.apply import Changes, apply_changes, files_in
from skelebot.errors import FAILED, SkelebotError

_MOST_NAMED = 20
_ADVICE = "--force overwrites files, and -e turns what is here into a project"


def confirm_and_apply(
    root: str,
    changes: Changes,
    title: str,
    asker: Asker,
    replaceable: Set[str],
    dry_run: bool,
    notes: Mapping[str, str] | None = None,
) -> int:
    """Show the changes, ask once, apply them, and return the exit code.

    replaceable: the files that may be overwritten. notes: what to print after a path. Raises SkelebotError,
    with nothing written, if something is in the way or cannot be written.
    """
    if found := obstacles(root, changes, replaceable):
        rest = len(found) - _MOST_NAMED
        more = f" and {rest} more" if rest > 0 else ""
        advice = "move it away" if replaceable >= changes.keys() else _ADVICE
        raise SkelebotError(f"nothing was written: {', '.join(found[:_MOST_NAMED])}{more}; {advice}")
    say = console.out if dry_run else console.detail
    say(f"{title}, in {console.one_line(root)}:")
    notes = notes or {}
    for path in sorted({*changes, *notes}):
        exists = os.path.lexists(os.path.join(root, path))
        note = notes.get(path) or ("overwritten" if exists else "")
        say(f"  {path} ({note})" if note else f"  {path}")
    if dry_run:
        return 0
    if not asker.confirm("Continue?"):
        console.info("nothing was written")
        return FAILED
    apply_changes(root, changes, replaceable)
    return 0


def obstacles(root: str, changes: Changes, replaceable: Set[str]) -> list[str]:
    """What is in the way of the changes, in words.

    replaceable: the files that may be overwritten; a folder never, unless the changes remove all its files.
    """
    removed = {path for path, new in changes.items() if new is None}
    found = {_obstacle(root, path, path in replaceable, removed): None for path in changes}
    return [text for text in found if text]


def _obstacle(root: str, path: str, replace: bool, removed: Set[str]) -> str:
    parts = path.split("/")
    for i in range(1, len(parts)):
        above = "/".join(parts[:i])
        folder = os.path.join(root, above)
        if os.path.islink(folder):
            return f"{above} is a link, and Skelebot does not write through links"
        if os.path.lexists(folder) and not os.path.isdir(folder) and above not in removed:
            return f"{above} is not a folder"
    target = os.path.join(root, path)
    if os.path.isdir(target) and not os.path.islink(target):
        found = files_in(root, path)
        return "" if found and found <= removed else f"{path} is a folder"
    return f"{path} already exists" if os.path.lexists(target) and not replace else ""
