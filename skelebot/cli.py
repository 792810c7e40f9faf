"""From the words of a command line to an exit code."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import skelebot
from skelebot import catalog, console, foreground, options
from skelebot.component import Command, Component, Link, Session
from skelebot.errors import ConfigError, Interrupted, SkelebotError, UsageError, did_you_mean
from skelebot.model import Flags, Param, Project
from skelebot.options import HelpWanted, Values
from skelebot.plugins import find
from skelebot.project import nodes, read
from skelebot.project.nodes import Report

if TYPE_CHECKING:
    from skelebot.plugins.guard import Guard

OPTIONS = (
    Param("help", "h", accepts="boolean", help="Show this help, or a command's after its name"),
    Param("version", "v", accepts="boolean", help="Show the version of Skelebot"),
    Param("env", "e", help="The environment: skelebot-ENV.yaml over skelebot.yaml"),
    Param(
        "docker-host",
        "d",
        placeholder="HOST",
        help="The Docker host: ssh://, tcp:// or the name of a context",
    ),
    Param("skip-build", "s", accepts="boolean", help="Run on the image as it is, without building"),
    Param("native", "n", accepts="boolean", help="Run without Docker, on this machine"),
    Param("contact", "c", accepts="boolean", help="Show whom to ask about the project"),
    Param("verbose", "V", accepts="boolean", help="Show the programs that are run"),
    Param("dry-run", accepts="boolean", help="Show what would be built and run, and do nothing"),
)


def main(argv: list[str]) -> int:
    """Runs a command line and gives the exit code. The only place that catches SkelebotError."""
    try:
        console.any_text()
        foreground.install_signal_handlers()
        return _main(argv)
    except ConfigError as error:
        for problem in error.problems:
            console.error(problem)
        return error.code
    except Interrupted as error:
        console.error("interrupted")
        return error.code
    except SkelebotError as error:
        console.error(str(error))
        return error.code
    except BrokenPipeError:
        # Whoever read the output has gone, and there is nobody to tell.
        _give_up_stdout()
        return 141
    except OSError as error:
        _give_up_stdout()
        where = f"{error.filename}: " if error.filename else ""
        console.error(f"{where}{(error.strerror or str(error)).lower()}")
        return SkelebotError.code


def _give_up_stdout() -> None:
    """Keeps the interpreter from trying once more, as it ends, what could not be written."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _main(argv: list[str]) -> int:
    chain = _split(argv)
    given, words = options.parse_options(OPTIONS, chain[0])
    if given.get("version"):
        console.out(f"skelebot {skelebot.__version__}")
        return 0
    flags = with_options(Flags(), given)
    alone = len(chain) == 1 and not given.get("help")
    loader = Loader.here(words[0] if words and alone else "")
    if given.get("help") or (not words and len(chain) == 1 and not given.get("contact")):
        return _help(loader.load(flags))
    if given.get("contact"):
        return _contact(loader.load(flags).session)
    return _run_chain(chain, flags, loader)


def _split(argv: list[str]) -> list[list[str]]:
    chain = links_of(argv)
    if len(chain) > 1 and not all(chain):
        raise UsageError("a command is missing before or after a `+`; a plus as a value goes after --")
    return chain


def links_of(argv: list[str]) -> list[list[str]]:
    """The links of a chain: split at each `+`, up to a `--` that gives its link all that follows."""
    links: list[list[str]] = [[]]
    for i, word in enumerate(argv):
        if word == "--":
            links[-1] += argv[i:]
            break
        if word == "+":
            links.append([])
        else:
            links[-1].append(word)
    return links


def with_options(base: Flags, given: Values) -> Flags:
    """The flags as the options before a command change them."""
    changes = {name.replace("-", "_"): value for name, value in given.items()}
    for name in ("help", "version", "contact"):
        changes.pop(name, None)
    return base._replace(**changes)  # type: ignore[arg-type]


# --- the project ---


class _Loaded(NamedTuple):
    session: Session
    commands: dict[str, Command]


class Loader:
    """Reads the project once for each environment that the chain names."""

    def __init__(self, root: str | None, plugins: "Sequence[Guard]") -> None:
        self._root, self._plugins = root, plugins
        self._known: dict[str | None, _Loaded] = {}

    @classmethod
    def here(cls, command: str) -> "Loader":
        """For the project that the current folder belongs to, and a command that stands alone."""
        return cls(read.find_root(), _plugins(command))

    def load(self, flags: Flags, command: str = "") -> _Loaded:
        """What there is for a command. Raises ConfigError unless it runs without a valid one."""
        if flags.env not in self._known:
            self._known[flags.env] = self._read(flags.env)
        known = self._known[flags.env]
        if catalog.needs_valid_config(command):
            self._known[flags.env] = known = _sound(known)
        return known._replace(session=known.session._replace(flags=flags))

    def forget(self) -> None:
        """Lets the project be read again, whose files have changed."""
        self._known.clear()

    def _read(self, env: str | None) -> _Loaded:
        if self._root is None:
            if env is not None:
                raise UsageError(f"{read.NO_PROJECT}, so no environment {env!r}")
            return _loaded(None, catalog.active(None, Report(), self._plugins))
        try:
            project, report = read.project(self._root, env)
        except UsageError as error:
            return _wrong([str(error)], [])
        components = catalog.active(project, report, self._plugins) if project else ()
        if report.problems:
            return _wrong(nodes.in_order(report.problems), nodes.in_order(report.warnings))
        return _loaded(project, components, warnings=nodes.in_order(report.warnings))


def _wrong(problems: Sequence[str], warnings: Sequence[str]) -> _Loaded:
    """What there is where the configuration is wrong: no more than outside of a project."""
    return _loaded(None, catalog.active(None, Report()), problems, warnings)


def _loaded(
    project: Project | None,
    components: tuple[Component, ...],
    problems: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> _Loaded:
    session = Session(project, components, Flags(), tuple(problems), tuple(warnings), catalog.names())
    return _Loaded(session, catalog.commands(project, components))


def _sound(loaded: _Loaded) -> _Loaded:
    """The same, once its warnings are told. Raises ConfigError where there is something wrong."""
    for warning in loaded.session.warnings:
        console.warn(warning)
    if loaded.session.problems:
        raise ConfigError(list(loaded.session.problems))
    return loaded._replace(session=loaded.session._replace(warnings=()))


def _plugins(command: str) -> "list[Guard]":
    """The plugins that are installed, asleep where the command is to work whatever they are like."""
    found = find.find()
    if not found:
        return []
    from skelebot.plugins.guard import Guard

    off = None if catalog.needs_valid_config(command) else "not asked for"
    return [Guard(plugin, off) for plugin in found]


def _contact(session: Session) -> int:
    if not session.project.contact:
        raise UsageError(f"no contact is named; add `contact:` to {read.FILE}")
    console.out(session.project.contact)
    return 0


# --- the chain ---


def _run_chain(chain: list[list[str]], flags: Flags, loader: Loader) -> int:
    """Parses and checks every link before the first runs; a link that fails ends the chain."""
    links: list[Link] = []
    for words in chain:
        try:
            links.append(_link(words, flags, loader, first=not links))
        except _CommandHelp as wanted:
            return wanted.show()
    for i, link in enumerate(links):
        if link.command.check:
            link.command.check(link.session, link.values, links[:i])
    for i in range(len(links)):
        if code := _run_link(links[i], [later.command.name for later in links[i + 1 :]]):
            return code
        links[i + 1 :] = _after(links[i], links[i + 1 :], loader)
    return 0


def _after(link: Link, later: list[Link], loader: Loader) -> list[Link]:
    """The links after one that has run, in the project as that one has left it, or would have."""
    if later and link.session.flags.dry_run and link.command.predicted_version:
        version = link.command.predicted_version(link.session, link.values)
        return [_at_version(each, version) for each in later]
    if later and link.command.changes:
        loader.forget()
        return [_again(each, loader) for each in later]
    return later


def _at_version(link: Link, version: str) -> Link:
    project = replace(link.session.project, version=version)
    return link._replace(session=link.session._replace(optional_project=project))


def _again(link: Link, loader: Loader) -> Link:
    """The link in the project as it is now. Raises ConfigError, and UsageError where it has gone."""
    loaded = loader.load(link.session.flags, link.command.name)
    command = loaded.commands.get(link.command.name)
    if command is None:
        raise _unknown(link.command.name, loaded)
    return Link(command, loaded.session, link.values, link.words)


def _run_link(link: Link, later: list[str]) -> int:
    not_run = f"; not run: {', '.join(later)}" if later else ""
    try:
        code = link.command.run(link.session, link.values)
    except Interrupted:
        if later:
            console.error(f"{link.command.name} was interrupted{not_run}")
        raise
    except SkelebotError as error:
        if later:
            console.error(f"{link.command.name} failed{not_run}")
        raise error
    if code and later:
        console.error(f"{link.command.name} ended with exit code {code}{not_run}")
    return code


class _CommandHelp(Exception):
    def __init__(self, command: Command) -> None:
        self.command = command

    def show(self) -> int:
        return _command_help(self.command)


def _link(words: list[str], flags: Flags, loader: Loader, first: bool) -> Link:
    given, rest = options.parse_options(OPTIONS, words)
    for name in ("help", "version", "contact"):
        if not first and name in given:
            raise UsageError(f"--{name} stands before the first command of a chain")
    loaded = loader.load(with_options(flags, given), rest[0] if rest else "")
    if not rest:
        raise UsageError("a command is missing; see skelebot -h")
    command = loaded.commands.get(rest[0])
    if command is None:
        raise _unknown(rest[0], loaded)
    try:
        values = options.parse(command.args, command.params, rest[1:])
    except HelpWanted:
        raise _CommandHelp(command) from None
    except UsageError as error:
        usage = f"{command.name} {options.usage(command.args, command.params)}".rstrip()
        raise UsageError(f"{command.name}: {error}; usage: skelebot {usage}") from None
    return Link(command, loaded.session, values, tuple(rest))


def _unknown(word: str, loaded: _Loaded) -> UsageError:
    if loaded.session.optional_project is None:
        return UsageError(f"{console.one_line(word)!r} is not a command outside a project: {read.NO_PROJECT}")
    hint = did_you_mean(word, loaded.commands)
    return UsageError(f"unknown command {console.one_line(word)!r}{hint}")


# --- help ---


def _help(loaded: _Loaded) -> int:
    project = loaded.session.optional_project
    for line in (*_heading(project), *_command_list(loaded)):
        console.out(line)
    return 0


def _heading(project: Project | None) -> Iterator[str]:
    if project:
        facts = [project.version or "", f"environment {project.env}" if project.env else ""]
        yield " · ".join([console.bold(project.name), *filter(None, facts)])
        if project.description:
            yield from options.wrapped(project.description)
    else:
        yield f"{console.bold('skelebot')}: {read.NO_PROJECT}"
    yield ""
    yield "usage: skelebot [options] COMMAND [words] [+ COMMAND [words] ...]"


def _command_list(loaded: _Loaded) -> Iterator[str]:
    jobs = [c for c in loaded.commands.values() if c.job]
    others = [c for c in loaded.commands.values() if not c.job]
    for title, found in (("jobs", jobs), ("commands", others)):
        if found:
            yield f"\n{title}:"
            yield from options.table([(c.name, _summary(c)) for c in found])
    yield "\noptions, before the command:"
    yield from options.table(list(options.describe((), OPTIONS)))
    yield f"\nskelebot COMMAND -h tells about one of them. Skelebot {skelebot.__version__}"


def _summary(command: Command) -> str:
    if not command.job:
        return command.help
    source = command.job.source.strip().splitlines()
    more = " ..." if len(source) > 1 else ""
    return f"{command.help.strip()} [{source[0] if source else ''}{more}]"


def _command_help(command: Command) -> int:
    usage = f"skelebot {command.name} {options.usage(command.args, command.params)}".rstrip()
    lines = [f"usage: {usage}", "", *options.wrapped(_summary(command))]
    rows = list(options.describe(command.args, command.params))
    count = len(command.args)
    for title, part in (("arguments", rows[:count]), ("options", rows[count:])):
        if part:
            lines += ["", f"{title}:", *options.table(part)]
    for line in lines:
        console.out(line)
    return 0
