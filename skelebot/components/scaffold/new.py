"""`skelebot scaffold`: a new project, made from a template."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skelebot.components.scaffold import answers, render, source, templates
from skelebot.components.scaffold.answers import Asker, Question
from skelebot.components.scaffold.placing import offer
from skelebot.components.scaffold.render import KEEP, Files, Made
from skelebot.components.scaffold.source import BUILT_IN, DATA, Source
from skelebot.components.scaffold.templates import LANGUAGES, RECORD, Template
from skelebot.errors import UsageError


@dataclass(frozen=True)
class Chosen:
    """A template, and where it is from; `commit` is what a repository had."""

    source: Source
    commit: str | None
    template: Template


def scaffold(root: str, asker: Asker, force: bool, dry_run: bool) -> int:
    """Makes a project in the folder `root` and gives the exit code. Raises SkelebotError."""
    with tempfile.TemporaryDirectory(prefix="skelebot-") as scratch:
        chosen, found = _answered(root, asker, scratch)
        made = files(chosen.source, chosen.commit, chosen.template, found, scratch)
    made = {path: file for path, file in made.items() if not keeps_folder(root, path)}
    title = f"a project from the template {chosen.source.address}"
    return offer(root, made, title, asker, force, dry_run)


def files(
    from_: Source, commit: str | None, template: Template, found: Mapping[str, str], scratch: str
) -> Files:
    """All that the project gets. Raises ConfigError where the template is wrong, or an answer to it."""
    made = render.files(template, found)
    own = ", ".join(f"--var {p.var}={found[p.var]}" for p in template.prompts if found[p.var] != p.default)
    maker = f"with {own} the template" if own else "the template"
    render.check(made, tempfile.mkdtemp(dir=scratch), maker)
    return {**made, RECORD: Made(templates.record_text(from_, commit, found))}


def keeps_folder(root: str, path: str) -> bool:
    """Whether it would keep a folder that is there already, and may lie behind a link."""
    folder, name = os.path.split(path)
    return name == KEEP and os.path.isdir(os.path.join(root, folder))


# --- the answers, and the template, which is one of them ---


def _answered(root: str, asker: Asker, scratch: str) -> tuple[Chosen, dict[str, str]]:
    """Raises UsageError for answers that are missing or do not fit, before anybody is asked."""
    chosen = _choose(asker.given["--template"], scratch) if "--template" in asker.given else None
    questions = answers.about(root, {}, chosen.template.languages if chosen else (), of=_name(chosen))
    if chosen is None and asker.yes:
        chosen = _choose(_fitting(asker.answer(questions[-1]))[0], scratch)
    asker.require(
        questions if chosen else (*questions, _which(())), chosen.template.prompts if chosen else ()
    )
    found = {question.name: asker.answer(question) for question in questions}
    if chosen is None:
        chosen = _choose(asker.answer(_which(_fitting(found["language"]))), scratch)
    if found["language"] not in (chosen.template.languages or LANGUAGES):
        languages = " or ".join(chosen.template.languages)
        raise UsageError(f"the template {chosen.source.address} is for {languages}, not {found['language']}")
    return chosen, answers.prompted(chosen.template.prompts, asker, found)


def _choose(text: str, scratch: str) -> Chosen:
    found = source.parse(text)
    checkout = source.fetch(found, scratch)
    return Chosen(found, checkout.commit, templates.load(checkout.folder))


def _name(chosen: Chosen | None) -> str:
    return chosen.source.address if chosen else ""


def _fitting(language: str) -> list[str]:
    """The built-in templates for a language; the first one is the default."""
    return [name for name in BUILT_IN if language in templates.load(os.path.join(DATA, name)).languages]


def _which(fitting: Sequence[str]) -> Question:
    known = ", ".join(fitting)

    def check(text: str) -> str | None:
        try:
            kind = source.parse(text).kind
        except UsageError:
            kind = None
        fits = kind is not None and (kind != "built-in" or text in fitting)
        return None if fits else f"{known}, a Git URL or a folder"

    question = f"Template ({known}, or a Git URL or a folder, with @REF for a version)"
    return Question("template", question, "--template", next(iter(fitting), None), check)
