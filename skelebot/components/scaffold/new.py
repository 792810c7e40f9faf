"""`skelebot scaffold`: a new project from a template."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skelebot import files
from skelebot.components.scaffold import answers, fetch, generate, location, templates
from skelebot.components.scaffold.answers import Asker, Question
from skelebot.components.scaffold.changes import confirm_and_apply
from skelebot.components.scaffold.generate import KEEP, SCHEMA, Files, NewFile, schema_file
from skelebot.components.scaffold.location import BUILT_IN, DATA, Location
from skelebot.components.scaffold.record import RECORD, record_text
from skelebot.components.scaffold.templates import LANGUAGES, Template
from skelebot.errors import UsageError


@dataclass(frozen=True)
class LocatedTemplate:
    """A template, and where it came from; `commit` is the one that a repository had."""

    location: Location
    commit: str | None
    template: Template


def scaffold(root: str, asker: Asker, force: bool, dry_run: bool, schema: dict[str, Any]) -> int:
    """Create a project in the folder `root` and return the exit code. Raises SkelebotError.

    schema: the JSON Schema of skelebot.yaml, which is written for editors.
    """
    with files.private_folder() as scratch:
        located, values = _template_and_answers(root, asker, scratch)
        made = all_files(located, values, scratch)
    made = {path: file for path, file in made.items() if not keeps_existing_folder(root, path)}
    made = schema_file(schema) | made
    title = f"a project from the template {located.location.address}"
    return confirm_and_apply(root, made, title, asker, set(made) if force else {SCHEMA}, dry_run)


def all_files(located: LocatedTemplate, values: Mapping[str, str], scratch: str) -> Files:
    """Every file of the project and the record. Raises ConfigError if the template or an answer is wrong."""
    prompts = located.template.prompts
    made = generate.project_files(located.template, values)
    own = ", ".join(f"--var {p.var}={values[p.var]}" for p in prompts if values[p.var] != p.default)
    maker = f"with {own} the template" if own else "the template"
    generate.check(made, tempfile.mkdtemp(dir=scratch), maker)
    return {**made, RECORD: NewFile(record_text(located.location, located.commit, values))}


def keeps_existing_folder(root: str, path: str) -> bool:
    """Whether the file would only keep a folder that already exists, perhaps behind a link."""
    folder, name = os.path.split(path)
    return name == KEEP and os.path.isdir(os.path.join(root, folder))


# --- the answers, and the template, which is one of them ---


def _template_and_answers(root: str, asker: Asker, scratch: str) -> tuple[LocatedTemplate, dict[str, str]]:
    """The template and the answers. Raises UsageError for missing or wrong ones before it asks anything."""
    located = _locate(asker.given["--template"], scratch) if "--template" in asker.given else None
    languages, address = (located.template.languages, located.location.address) if located else ((), "")
    questions = answers.about(root, {}, languages, of=address)
    if located is None and asker.yes:
        located = _locate(_fitting(asker.answer(questions[-1]))[0], scratch)
    asker.require(
        questions if located else (*questions, _which(())), located.template.prompts if located else ()
    )
    values = {question.name: asker.answer(question) for question in questions}
    if located is None:
        located = _locate(asker.answer(_which(_fitting(values["language"]))), scratch)
    template = located.template
    if values["language"] not in (template.languages or LANGUAGES):
        expected = " or ".join(template.languages)
        raise UsageError(
            f"the template {located.location.address} is for {expected}, not {values['language']}"
        )
    return located, answers.prompted(template.prompts, asker, values)


def _locate(text: str, scratch: str) -> LocatedTemplate:
    found = location.parse(text)
    fetched = fetch.fetch(found, scratch)
    return LocatedTemplate(found, fetched.commit, templates.load(fetched.folder))


def _fitting(language: str) -> list[str]:
    """The built-in templates for a language; the first one is the default."""
    return [name for name in BUILT_IN if language in templates.load(os.path.join(DATA, name)).languages]


def _which(fitting: Sequence[str]) -> Question:
    known = ", ".join(fitting)

    def check(text: str) -> str | None:
        try:
            kind = location.parse(text).kind
        except UsageError:
            kind = None
        fits = kind is not None and (kind != "built-in" or text in fitting)
        return None if fits else f"{known}, a Git URL or a folder"

    question = f"Template ({known}, or a Git URL or a folder, with @REF for a version)"
    return Question("template", question, "--template", next(iter(fitting), None), check)
