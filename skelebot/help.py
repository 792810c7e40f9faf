"""What -h prints, and what an argument that is not a command may have meant; all of it as text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import skelebot
from skelebot import console, options
from skelebot.component import Command, Session
from skelebot.errors import UsageError, did_you_mean
from skelebot.model import Param, Project
from skelebot.project.read import FILE, NO_PROJECT

# The headings of Skelebot's own commands, the most used first.
GROUPS = (
    ("pipelines", ("graph", "why")),
    ("running jobs", ("ps", "logs", "wait", "send", "stop", "exec", "clean")),
    ("experiments", ("queue", "worker", "runs", "ui")),
    ("artifacts", ("push", "pull", "artifacts")),
    ("images", ("prime", "publish")),
    ("clusters", ("cluster", "deploy", "pause", "resume", "undeploy")),
    ("notebooks", ("jupyter",)),
    ("the project", ("scaffold", "template", "bump", "package", "envs", "config", "schema")),
    ("Skelebot", ("doctor", "plugin", "completion")),
)

# What to add below `components` for the commands of a component that has to be configured.
_STORE = "`repository: {local: {path: FOLDER}, artifacts: [{name: model, file: model.pkl}]}`"
_NEEDED = {
    **dict.fromkeys(("push", "pull", "artifacts"), ("repository", _STORE, "docs/artifacts.md")),
    "publish": ("registry", "`registry: {host: docker.io, user: your-name}`", "docs/publishing.md"),
    "cluster": ("cluster", "`cluster: {context: NAME}`", "docs/kubernetes.md"),
}

_SCHEDULED = "give a job a `schedule`, see docs/schedules.md"

# What people type who expect the command of another tool.
_MEANT = {
    **dict.fromkeys(("init", "new", "create"), "`skelebot scaffold` creates a project"),
    **dict.fromkeys(("list", "ls", "jobs", "commands"), "`skelebot -h` lists the jobs and commands"),
    **dict.fromkeys(("deploy", "pause", "resume", "undeploy"), _SCHEDULED),
    "version": "`skelebot --version` shows the version of Skelebot",
    "run": "a job's name is the command: `skelebot JOB`",
    "build": "`skelebot prime` builds the image",
    "status": "`skelebot ps` lists the containers",
}


def unknown(word: str, session: Session, commands: Mapping[str, Command]) -> UsageError:
    """The error for an argument that is not a command here, with what to do instead."""
    name = console.one_line(word)
    if session.optional_project is None:
        if word in session.reserved_names:
            return UsageError(f"{name} needs a project: {NO_PROJECT}; `skelebot scaffold` creates one")
        what = _MEANT.get(word, "change into a project, or create one with `skelebot scaffold`")
        return UsageError(f"unknown command {name!r}: {NO_PROJECT}; {what}")
    if word in _NEEDED:
        component, lines, page = _NEEDED[word]
        return UsageError(
            f"{word} needs components.{component}; add {lines} below `components:` in {FILE}, see {page}"
        )
    hint = f"; {_MEANT[word]}" if word in _MEANT else did_you_mean(word, commands)
    return UsageError(f"unknown command {name!r}{hint}")


def flag_of(params: Iterable[Param], typed: Sequence[str]) -> tuple[str, str] | None:
    """The flag that the first argument is, and how to type it with its value; None for none of these."""
    flags = {flag: param for param in params for flag in (*param.flags, *param.also)}
    word = typed[0]
    flag = word.partition("=")[0] if word.startswith("--") else word[:2]
    if flag not in flags:
        return None
    takes_next = flags[flag].accepts == "value" and word == flag
    value = [*typed[1:2], options.value_shown(flags[flag])][:1] if takes_next else []
    return flag, " ".join(map(console.one_line, (word, *value)))


def overview(session: Session, commands: Mapping[str, Command], params: Sequence[Param]) -> Iterator[str]:
    """What the project can do, or Skelebot outside a project."""
    yield from _heading(session.optional_project)
    yield ""
    yield "usage: skelebot [options] COMMAND [arguments] [+ COMMAND [arguments] ...]"
    widest = max(map(len, commands))
    groups = list(_grouped(commands))
    if session.optional_project is None:  # what creates a project comes first
        groups.sort(key=lambda group: all(command.name != "scaffold" for command in group[1]))
    for title, members in groups:
        yield f"\n{title}:"
        yield from options.table([(command.name, _summary(command)) for command in members], widest)
    for name in session.hidden_commands:
        yield f"\nThe job {name} replaces Skelebot's command of the same name; rename the job to use that."
    yield "\noptions (before the command):"
    yield from options.table(list(options.describe((), params)))
    yield f"\nskelebot COMMAND -h shows the help of a command. Skelebot {skelebot.__version__}"


def _heading(project: Project | None) -> Iterator[str]:
    if project is None:
        yield f"{console.bold('skelebot')}: {NO_PROJECT}"
        return
    facts = [project.version or "", f"environment {project.env}" if project.env else ""]
    yield " · ".join([console.bold(project.name), *filter(None, facts)])
    if project.description:
        yield from options.wrapped(project.description)


def _grouped(commands: Mapping[str, Command]) -> Iterator[tuple[str, list[Command]]]:
    """The commands under their headings: the jobs, Skelebot's own, and those of plugins."""
    own = {name for _, names in GROUPS for name in names}
    jobs = [command for command in commands.values() if command.job]
    others = {name: command for name, command in commands.items() if not command.job}
    yield from [("jobs", jobs)] if jobs else []
    for title, names in GROUPS:
        if members := [others[name] for name in names if name in others]:
            yield title, members
    if plugins := [command for name, command in others.items() if name not in own]:
        yield "plugins", plugins


def of_command(command: Command) -> Iterator[str]:
    """The help of one command."""
    yield f"usage: skelebot {usage(command)}"
    yield ""
    yield from options.wrapped(_summary(command))
    rows = list(options.describe(command.args, command.params))
    count = len(command.args)
    for title, part in (("arguments", rows[:count]), ("options", rows[count:])):
        if part:
            yield f"\n{title}:"
            yield from options.table(part)
    if verbs := command.verbs():
        yield "\nand, each with -h for its own help:"
        yield from options.table([(verb.name, verb.help) for verb in verbs])


def usage(command: Command) -> str:
    return f"{command.name} {options.usage(command.args, command.params)}".rstrip()


def _summary(command: Command) -> str:
    if not command.job:
        return command.help
    source = command.job.source.strip().splitlines()
    more = " ..." if len(source) > 1 else ""
    return f"{command.help.strip()} [{source[0] if source else ''}{more}]"
