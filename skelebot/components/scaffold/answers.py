"""The questions, and their answers: from options, from defaults, or typed by a person."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from skelebot import console, git
from skelebot.components.scaffold.render import Renderer
from skelebot.components.scaffold.templates import ABOUT, LANGUAGES, Prompt
from skelebot.errors import SkelebotError, UsageError, did_you_mean
from skelebot.keys import Validator, one_line
from skelebot.model import Project
from skelebot.options import Values


@dataclass(frozen=True)
class Question:
    """A question. option: what answers it on the command line. check: as for console.prompt."""

    name: str
    text: str
    option: str
    default: str | None
    check: Validator

    @property
    def fallback(self) -> str | None:
        """The default, if it passes the check."""
        return None if self.default is None or self.check(self.default) else self.default


@dataclass(frozen=True)
class Asker:
    """Answers from the options (`given`, by their spelling), with `yes` from the defaults, else typed."""

    given: Mapping[str, str]
    yes: bool

    def require(self, questions: Iterable[Question], prompts: Iterable[Prompt] = ()) -> None:
        """Raise UsageError with every missing option if there is no terminal to ask on."""
        if not self.yes and console.can_ask():
            return
        without = {q.option: q.fallback is None for q in questions}
        without |= {f"--var {prompt.var}": prompt.default is None for prompt in prompts}
        missing = [o for o, needed in without.items() if o not in self.given and (needed or not self.yes)]
        if not self.yes:
            more = f"{', '.join(missing)} and -y, or just -y for the defaults" if missing else "-y"
            raise UsageError(f"there is no terminal to ask on; give {more}")
        if missing:
            raise UsageError(f"no value and no default for: {', '.join(missing)}")

    def answer(self, question: Question) -> str:
        """The answer to a question. Raises UsageError if an option gave one that does not fit."""
        given = self.given.get(question.option)
        if given is None:
            self.require([question])
            if self.yes:
                return str(question.fallback)
            return console.prompt(question.text, question.fallback, question.check)
        if expected := question.check(given):
            raise UsageError(f"{question.option}: expected {expected}; found {console.one_line(given)!r}")
        return given

    def confirm(self, question: str) -> bool:
        """Ask whether to continue."""
        if self.yes:
            return True
        return console.prompt(f"{question} (yes, no)", "yes", _one_of(YES_OR_NO)) in YES_OR_NO[:2]


YES_OR_NO = ("yes", "y", "no", "n")


def asker(values: Values) -> Asker:
    """The source of a command's answers. Raises UsageError for a --var that is not NAME=VALUE."""
    given = {f"--{name}": str(values[name]) for name in (*ABOUT, "template") if name in values}
    words = values.get("var", ())
    for word in words if isinstance(words, tuple) else ():
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--var: expected NAME=VALUE, found {console.one_line(word)!r}")
        given[f"--var {name}"] = value
    return Asker(given, bool(values.get("yes")))


# --- about the project ---


def about(
    root: str, known: Mapping[str, str], languages: Sequence[str] = (), of: str = ""
) -> tuple[Question, ...]:
    """The questions about every project.

    known: defaults that were found in the folder. languages: those of the template `of`; by default all.
    """
    languages = languages or LANGUAGES
    language = choice("language", "Language", languages, known.get("language", languages[0]))
    if of:
        language = replace(language, check=_one_of(languages, f" for the template {of}"))
    return (
        _about("name", "Project name", known.get("name", os.path.basename(root))),
        _about("description", "Description (one or two sentences)", known.get("description", "")),
        _about("maintainer", "Maintainer", known.get("maintainer") or _of_git("user.name")),
        _about("contact", "Contact", known.get("contact") or _of_git("user.email")),
        language,
    )


def _about(name: str, text: str, default: str) -> Question:
    checks = {field.name: field.metadata.get("check") for field in fields(Project)}
    return Question(name, text, f"--{name}", default, checks[name] or one_line)


def choice(name: str, text: str, choices: Sequence[str], default: str | None) -> Question:
    return Question(name, f"{text} ({', '.join(choices)})", f"--{name}", default, _one_of(choices))


def _one_of(choices: Sequence[str], more: str = "") -> Validator:
    expected = " or ".join(choices) + more
    return lambda text: None if text in choices else expected


def _of_git(key: str) -> str:
    """The value of a git setting; empty without git."""
    try:
        return git.ask(os.curdir, "config", "--get", key)[1].strip()
    except SkelebotError:
        return ""


# --- of the template ---


def prompted(prompts: Sequence[Prompt], asker: Asker, answers: Mapping[str, str]) -> dict[str, str]:
    """The answers, with those to the template's prompts, whose defaults may use the ones before.

    Raises UsageError for a --var that the template does not ask for.
    """
    known = [prompt.var for prompt in prompts]
    for option in asker.given:
        name = option.removeprefix("--var ")
        if name != option and name not in known:
            hint = did_you_mean(name, known) or "; it has no questions"
            raise UsageError(f"--var: the template has no {console.one_line(name)!r}{hint}")
    found = dict(answers)
    for prompt in prompts:
        found[prompt.var] = asker.answer(_question(prompt, found))
    return found


def _question(prompt: Prompt, answers: Mapping[str, str]) -> Question:
    default = prompt.default
    if default is not None:
        default = Renderer(answers).text(default, f"{prompt.place}.default")
    option = f"--var {prompt.var}"
    if prompt.choices:
        return replace(choice(prompt.var, prompt.message, prompt.choices, default), option=option)
    return Question(prompt.var, prompt.message, option, default, one_line)
