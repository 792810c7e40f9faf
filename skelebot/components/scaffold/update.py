"""`skelebot template update`: bring the template's changes into the project, and keep its own."""

import os
from dataclasses import replace

from skelebot import console, files
from skelebot.components.scaffold import answers, fetch, generate, templates
from skelebot.components.scaffold.answers import Asker
from skelebot.components.scaffold.apply import files_in
from skelebot.components.scaffold.changes import confirm_and_apply
from skelebot.components.scaffold.generate import NewFile
from skelebot.components.scaffold.location import Location
from skelebot.components.scaffold.merge import BOTH_CHANGED, OCCUPIED, Change, file_change
from skelebot.components.scaffold.new import LocatedTemplate, all_files
from skelebot.components.scaffold.record import RECORD, Record, read_record, record_text
from skelebot.components.scaffold.templates import ABOUT, Template
from skelebot.errors import FAILED, SkelebotError, UsageError

_MOST_COMMITS = 100  # that are compared with the project


def update(root: str, asker: Asker, to: str | None, from_scratch: bool, dry_run: bool) -> int:
    """Merge the template's changes into the project in `root`; 1 if there are conflicts.

    to: the branch, tag or commit; by default as before. from_scratch: find the version that the project is
    nearest to, instead of the recorded one. Raises SkelebotError, with nothing written.
    """
    record = read_record(root)
    if record.commit is None:
        raise UsageError(_why_not(record))
    if not dry_run:
        asker.require([])
    was = Location("git", record.template, record.ref)
    now = replace(was, ref=to or record.ref)
    with files.private_folder() as scratch:
        folder = fetch.clone(record.template, scratch)
        commit = fetch.resolve(folder, now)
        given = {name: value or "" for name, value in record.answers}
        base = _nearest(root, folder, commit, now, given) if from_scratch else _recorded(folder, was, record)
        if from_scratch and base == commit:
            console.info(f"the newest version of {now} is the closest: what differs counts as your change")
        fetch.check_out(folder, base, was)
        before = generate.project_files(templates.load(folder), given)
        before[RECORD] = NewFile(record_text(was, record.commit, given))
        fetch.check_out(folder, commit, now)
        located = LocatedTemplate(now, commit, templates.load(folder))
        after = all_files(located, _answers(located.template, asker, given), scratch)
        found = {path: file_change(root, path, before, after, str(now), scratch) for path in before | after}
    changes = _beside_folders(root, {path: change for path, change in found.items() if change})
    if not changes:
        console.info(f"nothing has changed in {now}")
        return 0
    return _carry_out(root, changes, f"changes in {now}", asker, dry_run)


def _why_not(record: Record) -> str:
    if record.version:
        return (
            f"the template {record.template} came with Skelebot {record.version}, which has no other version "
            "to compare it with; only a template in git can be updated"
        )
    return (
        f"the template {record.template} was not in git, or not at the top of its repository, so its "
        "changes are not known"
    )


def _carry_out(root: str, changes: dict[str, Change], title: str, asker: Asker, dry_run: bool) -> int:
    written = {path: change.new for path, change in changes.items() if not change.leave}
    notes = {path: change.note for path, change in changes.items()}
    code = confirm_and_apply(root, written, title, asker, set(written), dry_run, notes)
    if code or dry_run:
        return code
    for why in (BOTH_CHANGED, OCCUPIED):
        if paths := sorted(path for path, change in changes.items() if change.look == why):
            console.warn(f"check {', '.join(paths)}: {why}")
            code = FAILED
    return code


def _recorded(folder: str, was: Location, record: Record) -> str:
    """The commit that the project was made from or last updated to. Raises SkelebotError."""
    try:
        return fetch.resolve(folder, replace(was, ref=record.commit))
    except SkelebotError:
        raise SkelebotError(
            f"{record.template} no longer has the commit {record.commit}, as its history was rewritten; "
            "--from-scratch compares the project with the nearest version instead"
        ) from None


def _nearest(root: str, folder: str, commit: str, now: Location, given: dict[str, str]) -> str:
    """The commit whose files have most lines in common with the project's; the newest of several."""
    mine: dict[str, set[bytes]] = {}
    best, most = commit, None
    for candidate in fetch.history(folder, commit, _MOST_COMMITS):
        try:
            fetch.check_out(folder, candidate, now)
            made = generate.project_files(templates.load(folder), given)
        except SkelebotError:
            continue  # no template yet, or one that the answers do not fit
        for path in made.keys() - mine.keys():
            mine[path] = _lines(os.path.join(root, path))
        same = sum(_same_lines(mine[path], file.content) for path, file in made.items())
        if most is None or same > most:
            best, most = candidate, same
    return best


def _lines(path: str) -> set[bytes]:
    try:
        with files.open_regular(path) as file:
            return {line.rstrip() for line in file}
    except OSError:
        return set()


def _same_lines(mine: set[bytes], content: bytes) -> int:
    """How many lines of the content the project has, less those that it does not have."""
    return sum(1 if line.rstrip() in mine else -1 for line in content.splitlines())


def _answers(template: Template, asker: Asker, given: dict[str, str]) -> dict[str, str]:
    """The answers of before, those that are given now, and those to new prompts."""
    about = {name: given.get(name, "") for name in ABOUT}
    earlier = {f"--var {p.var}": given[p.var] for p in template.prompts if p.var in given}
    asker = replace(asker, given={**earlier, **asker.given})
    if any(f"--var {p.var}" not in asker.given for p in template.prompts):
        asker.require([], template.prompts)
    return answers.prompted(template.prompts, asker, about)


def _beside_folders(root: str, changes: dict[str, Change]) -> dict[str, Change]:
    """Leave out files whose place is taken by a folder that the changes do not empty."""
    removed = {path for path, change in changes.items() if not (change.leave or change.new)}
    left = Change("skipped: your folder here has files", leave=True, look=OCCUPIED)
    return {
        path: left if change.new and files_in(root, path) - removed else change
        for path, change in changes.items()
    }
