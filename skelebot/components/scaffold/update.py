"""`skelebot template update`: bring the template's changes into the project, and keep its own."""

from dataclasses import replace

from skelebot import console, files
from skelebot.components.scaffold import answers, fetch, generate, templates
from skelebot.components.scaffold.answers import Asker
from skelebot.components.scaffold.apply import files_in
from skelebot.components.scaffold.changes import confirm_and_apply
from skelebot.components.scaffold.generate import Files, NewFile
from skelebot.components.scaffold.location import Location
from skelebot.components.scaffold.merge import BOTH_CHANGED, OCCUPIED, Change, file_change
from skelebot.components.scaffold.new import LocatedTemplate, all_files
from skelebot.components.scaffold.record import RECORD, Record, read_record, record_text
from skelebot.components.scaffold.templates import ABOUT, Template
from skelebot.errors import FAILED, UsageError


def update(root: str, asker: Asker, to: str | None, dry_run: bool) -> int:
    """Merge the template's changes into the project in `root`; 1 if there are conflicts.

    Raises SkelebotError, with nothing written.
    """
    record = read_record(root)
    if record.commit is None:
        raise UsageError(_why_not(record))
    if not dry_run:
        asker.require([])
    was = Location("git", record.template, record.ref)
    now = replace(was, ref=to or record.ref)
    with files.private_folder() as scratch:
        before, after = _both_versions(record, was, now, asker, scratch)
        found = {path: file_change(root, path, before, after, str(now), scratch) for path in before | after}
    changes = _beside_folders(root, {path: change for path, change in found.items() if change})
    if not changes:
        console.info(f"nothing has changed in {now}")
        return 0
    return _carry_out(root, changes, f"what has changed in {now}", asker, dry_run)


def _why_not(record: Record) -> str:
    if record.version:
        return (
            f"the template {record.template} came with Skelebot {record.version}, which has no other version "
            "to compare it with; only a template under git can be updated"
        )
    return (
        f"the template {record.template} was not under git, or not at the top of its repository, so its "
        "changes are not known"
    )


def _carry_out(root: str, changes: dict[str, Change], title: str, asker: Asker, dry_run: bool) -> int:
    written = {path: change.new for path, change in changes.items() if not change.leave}
    notes = {path: change.note for path, change in changes.items()}
    code = confirm_and_apply(root, written, title, asker, True, dry_run, notes)
    if code or dry_run:
        return code
    for why in (BOTH_CHANGED, OCCUPIED):
        if paths := sorted(path for path, change in changes.items() if change.look == why):
            console.warn(f"look at {', '.join(paths)}: {why}")
            code = FAILED
    return code


def _both_versions(
    record: Record, was: Location, now: Location, asker: Asker, scratch: str
) -> tuple[Files, Files]:
    """The files that the template made before, and those that it makes now."""
    folder = fetch.clone(record.template, scratch)
    given = {name: value or "" for name, value in record.answers}
    commit = fetch.resolve(folder, now)
    fetch.check_out(folder, fetch.resolve(folder, replace(was, ref=record.commit)))
    before = generate.project_files(templates.load(folder), given)
    before[RECORD] = NewFile(record_text(was, record.commit, given))
    fetch.check_out(folder, commit)
    template = templates.load(folder)
    located = LocatedTemplate(now, commit, template)
    return before, all_files(located, _answers(template, asker, given), scratch)


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
    left = Change("a folder with files of your own is here; left alone", leave=True, look=OCCUPIED)
    return {
        path: left if change.new and files_in(root, path) - removed else change
        for path, change in changes.items()
    }
