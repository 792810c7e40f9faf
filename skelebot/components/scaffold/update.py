"""`skelebot template update`: what has changed in the template comes into the project, and its edits stay."""

import os
import tempfile
from dataclasses import dataclass, replace

from skelebot import console, git
from skelebot.components.scaffold import answers, new, render, source, templates
from skelebot.components.scaffold.answers import Asker
from skelebot.components.scaffold.placing import held, offer
from skelebot.components.scaffold.render import Files, Made
from skelebot.components.scaffold.source import Source
from skelebot.components.scaffold.templates import ABOUT, RECORD, Record, Template
from skelebot.errors import FAILED, SkelebotError, UsageError

_MOST_CONFLICTS = 127  # which git counts; a higher exit code is an error


@dataclass(frozen=True)
class Change:
    """What becomes of a file, and what is said of it.

    made: its new content, None where it goes. keep: it stays as it is. look: why somebody has to look at it.
    """

    note: str
    made: Made | None = None
    keep: bool = False
    look: str = ""


_BOTH_CHANGED = "the template and you have both changed it"
_TAKEN = "something else is in its place, so the template's file was left out"


def update(root: str, asker: Asker, to: str | None, dry_run: bool) -> int:
    """Merges the template's changes into the project in `root`; 1 where there are conflicts.

    Raises SkelebotError, with nothing written.
    """
    record = templates.read_record(root)
    if record.commit is None:
        raise UsageError(_why_not(record))
    if not dry_run:
        asker.require([])
    with tempfile.TemporaryDirectory(prefix="skelebot-") as scratch:
        before, after, label = _both(record, asker, to, scratch)
        found = {path: _change(root, path, before, after, label, scratch) for path in before | after}
    changes = _beside_folders(root, {path: change for path, change in found.items() if change})
    if not changes:
        console.info(f"there is nothing new in {label}")
        return 0
    return _carry_out(root, changes, f"what has changed in {label}", asker, dry_run)


def _why_not(record: Record) -> str:
    if record.version:
        return (
            f"the template {record.template} came with Skelebot {record.version}, which has no other version "
            "of it to compare with; only a template under git can be updated"
        )
    return (
        f"the template {record.template} was not under git, or not at the top of its repository, so nothing "
        "tells what has changed in it"
    )


def _carry_out(root: str, changes: dict[str, Change], title: str, asker: Asker, dry_run: bool) -> int:
    made = {path: change.made for path, change in changes.items() if not change.keep}
    notes = {path: change.note for path, change in changes.items()}
    code = offer(root, made, title, asker, True, dry_run, notes)
    if code or dry_run:
        return code
    for why in (_BOTH_CHANGED, _TAKEN):
        if paths := sorted(path for path, change in changes.items() if change.look == why):
            console.warn(f"look at {', '.join(paths)}: {why}")
            code = FAILED
    return code


# --- the files of the template, as they were and as they are ---


def _both(record: Record, asker: Asker, to: str | None, scratch: str) -> tuple[Files, Files, str]:
    """What the template made of the project's answers, what it makes of them now, and its name."""
    assert record.commit
    folder = source.clone(record.template, scratch)
    was = Source("git", record.template, record.ref)
    now = replace(was, ref=to or record.ref)
    given = {name: value or "" for name, value in record.answers}
    commit = source.resolve(folder, now.address, now.ref)
    source.check_out(folder, source.resolve(folder, was.address, record.commit))
    before = render.files(templates.load(folder), given)
    before[RECORD] = Made(templates.record_text(was, record.commit, given))
    source.check_out(folder, commit)
    template = templates.load(folder)
    after = new.files(now, commit, template, _answers(template, asker, given), scratch)
    return before, after, f"{now.address}{f'@{now.ref}' if now.ref else ''}"


def _answers(template: Template, asker: Asker, given: dict[str, str]) -> dict[str, str]:
    """The answers of before, those that are given now, and those to prompts that are new."""
    about = {name: given.get(name, "") for name in ABOUT}
    kept = {f"--var {p.var}": given[p.var] for p in template.prompts if p.var in given}
    asker = replace(asker, given={**kept, **asker.given})
    if any(f"--var {p.var}" not in asker.given for p in template.prompts):
        asker.require([], template.prompts)
    return answers.prompted(template.prompts, asker, about)


def _beside_folders(root: str, changes: dict[str, Change]) -> dict[str, Change]:
    """The changes without files in place of folders where anything is left that the changes do not remove."""
    gone = {path for path, change in changes.items() if not (change.keep or change.made)}
    left = Change("a folder with files of your own is here; left alone", keep=True, look=_TAKEN)
    return {
        path: left if change.made and held(root, path) - gone else change for path, change in changes.items()
    }


# --- one file ---

_LEFT_ALONE = "removed from the template, changed here; left alone"


def _change(root: str, path: str, before: Files, after: Files, label: str, scratch: str) -> Change | None:
    """What the template's change means for the project's file; None where nothing is to be done."""
    old, fresh = before.get(path), after.get(path)
    target = os.path.join(root, path)
    if old == fresh:
        return None
    if os.path.lexists(target) and (os.path.islink(target) or not os.path.isfile(target)):
        if fresh is None:
            return Change(_LEFT_ALONE, keep=True)
        if os.path.islink(target) or not os.path.isdir(target):
            return Change("no plain file here; left alone", keep=True, look=_TAKEN)
        return Change("new", fresh)  # if the folder goes, see _beside_folders
    mine = _read(target)
    if mine and fresh:
        fresh = _with_what_stays(mine, old, fresh)
    if mine == fresh or (fresh and new.keeps_folder(root, path)):
        return None
    if path == RECORD or _content(mine) in (_content(old), _content(fresh)):
        return Change("changed" if old and fresh else "new" if fresh else "removed", fresh)
    if mine is None:
        return Change("changed in the template, removed here; left out", keep=True)
    if fresh is None:
        return Change(_LEFT_ALONE, keep=True)
    return _merge(mine.content, _content(old) or b"", fresh, label, scratch)


def _with_what_stays(mine: Made, old: Made | None, fresh: Made) -> Made:
    """The template's file, with the project's content or mode where the template has not changed its own."""
    if old is None or old.executable == fresh.executable:
        fresh = replace(fresh, executable=mine.executable)
    return replace(fresh, content=mine.content) if _content(old) == fresh.content else fresh


def _content(made: Made | None) -> bytes | None:
    return made.content if made else None


def _read(path: str) -> Made | None:
    try:
        with open(path, "rb") as file:
            return Made(file.read(), os.access(path, os.X_OK))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _merge(mine: bytes, old: bytes, fresh: Made, label: str, scratch: str) -> Change:
    """git's merge of two changes to one file. Raises SkelebotError."""
    if any(b"\0" in content for content in (mine, old, fresh.content)):
        return Change("no text, and changed here too; left alone", keep=True, look=_BOTH_CHANGED)
    folder = tempfile.mkdtemp(dir=scratch)
    paths = [_write(folder, name, c) for name, c in (("mine", mine), ("old", old), ("new", fresh.content))]
    labels = ("-L", "yours", "-L", "the template as it was", "-L", label)
    code, _, err = git.ask(scratch, "merge-file", "--quiet", *labels, *paths)
    if code > _MOST_CONFLICTS:
        raise SkelebotError(f"git merge-file failed: {' '.join(err.split())}")
    with open(paths[0], "rb") as file:
        merged = replace(fresh, content=file.read())
    if code:
        return Change("conflict: look for <<<<<<<", merged, look=_BOTH_CHANGED)
    return Change("merged with your changes", merged)


def _write(folder: str, name: str, content: bytes) -> str:
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(content)
    return path
