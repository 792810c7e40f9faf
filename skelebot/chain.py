"""Parse a chain of commands as a whole, check it, and run one link after the other."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from skelebot import console, help, options
from skelebot.component import Command, Link, Session
from skelebot.errors import ConfigError, Interrupted, SkelebotError, UsageError, did_you_mean
from skelebot.loader import Loader
from skelebot.model import Arg, Flags, Param
from skelebot.options import HelpWanted, UnexpectedArgument, UnknownOption, Values

OPTIONS = (
    Param("help", "h", accepts="boolean", help="Show this help, or a command's after its name"),
    Param("version", "v", accepts="boolean", help="Show the version of Skelebot"),
    Param("env", "e", help="Use the environment ENV: skelebot-ENV.yaml overrides skelebot.yaml"),
    Param(
        "docker-host",
        "d",
        placeholder="HOST",
        help="Use this Docker host or cluster: ssh://, tcp://, k8s://, a context",
        also=("--host",),
    ),
    Param("skip-build", "s", accepts="boolean", help="Use the last image without building"),
    Param("native", "n", accepts="boolean", help="Run on this machine, without Docker"),
    Param(
        "jobs",
        "j",
        default="1",
        type="int",
        min="1",
        max="9999",
        placeholder="N",
        help="Run up to N needed jobs at once",
    ),
    Param("force", accepts="boolean", help="Run the named jobs even if they are up to date"),
    Param("force-all", accepts="boolean", help="Run the jobs that they need, too"),
    Param("no-needs", accepts="boolean", help="Leave out the jobs that the named ones need"),
    Param("rehearse", accepts="boolean", help="Try the jobs in a copy of the project, on their small values"),
    Param("watch", accepts="boolean", help="Run again whenever a file changes that the jobs read"),
    Param("contact", "c", accepts="boolean", help="Show the project's contact"),
    Param("verbose", "V", accepts="boolean", help="Show each program that Skelebot runs"),
    Param("dry-run", accepts="boolean", help="Show what would be built and run, and do nothing"),
)


def split(argv: list[str]) -> list[list[str]]:
    chain = links_of(argv)
    if len(chain) > 1 and not all(chain):
        raise UsageError("a command is missing before or after a `+`; put a plus that is a value after --")
    return chain


def links_of(argv: list[str]) -> list[list[str]]:
    """Split a chain at each `+`; everything after `--` belongs to the link before it."""
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
    """Return the flags changed by the options before a command."""
    changes: dict[str, Any] = {name.replace("-", "_"): value for name, value in given.items()}
    for name in ("help", "version", "contact"):
        changes.pop(name, None)
    if "jobs" in changes:
        changes["jobs"] = int(changes["jobs"])
    return base._replace(**changes)


# --- running ---


def run(chain: list[list[str]], words: list[str], flags: Flags, loader: Loader) -> int:
    """Parse and run a chain, or show the help of the command for which it is wanted.

    words: of the first link, from its command on; flags: from the options before that.
    """
    queue, chain = _before_chain(chain, words, flags, loader)
    links = _links(chain, flags, loader, queue)
    if isinstance(links, Command):  # its help is wanted
        console.out("\n".join(help.of_command(links)))
        return 0
    if queue:
        return _queue(queue, links, chain, flags, loader)
    if flags.rehearse:
        return _rehearse(links, chain, flags, loader)
    if flags.watch:
        return _watch(links, chain, flags, loader)
    return _run_links(links, loader)


def _before_chain(
    chain: list[list[str]], words: list[str], flags: Flags, loader: Loader
) -> tuple[Link | None, list[list[str]]]:
    """Return the command that stands before a chain, with its own options, and the chain without it."""
    loaded = loader.load(flags, words[0]) if words else None
    command = loaded.commands.get(words[0]) if loaded else None
    if loaded is None or command is None or command.queue is None:
        return None, chain
    try:
        own, rest = options.parse_options(command.params, words[1:])
    except HelpWanted:
        return None, chain
    except UsageError as error:
        raise _refused(error, command) from None
    chain_of_its_own = command.default_chain(loaded.session, own) if command.default_chain else ()
    if rest and chain_of_its_own:
        raise UsageError(f"{command.name}: the sweep has a chain of its own; leave out {rest[0]}")
    rest = rest or list(chain_of_its_own)
    if not rest:
        raise UsageError(f"{command.name}: a job is missing; usage: skelebot {help.usage(command)}")
    before = chain[0][: len(chain[0]) - len(words)]
    return Link(command, loaded.session, own, tuple(words)), [*split([*before, *rest]), *chain[1:]]


def _queue(queue: Link, links: list[Link], chain: list[list[str]], flags: Flags, loader: Loader) -> int:
    """Check all links, rehearse them if that is wanted, and hand them to the command before the chain."""
    if flags.watch:
        raise UsageError(f"{queue.command.name} and --watch do not go together; leave out one of them")
    _check_attended(links, queue.command.name)
    if flags.rehearse:
        if code := _rehearse(links, chain, flags, loader, queue):
            return code
        links = [link._replace(session=_not_rehearsing(link.session)) for link in links]
    assert queue.command.queue
    return queue.command.queue(queue.session, queue.values, links, _check)


def _not_rehearsing(session: Session) -> Session:
    return session._replace(flags=session.flags._replace(rehearse=False))


def _rehearse(
    links: list[Link], chain: list[list[str]], flags: Flags, loader: Loader, queue: Link | None = None
) -> int:
    """Run the chain in a copy of the project, with the values that its jobs name for that."""
    from skelebot.components.jobs import rehearsal

    if flags.watch:
        raise UsageError("--rehearse and --watch do not go together; leave out one of them")
    if flags.skip_build:
        raise UsageError("--rehearse needs the image of what it tries; leave out -s")
    _check_attended(links, "--rehearse")
    rehearsal.check(links)
    if flags.dry_run:
        return _run_links([link._replace(values=rehearsal.values(link)) for link in links], loader)
    with rehearsal.workspace(links) as root:
        loader = loader.at(root)
        copies = _links(chain, flags, loader, queue)
        assert not isinstance(copies, Command)  # nobody has asked for help before
        code = _run_links([link._replace(values=rehearsal.values(link)) for link in copies], loader)
    if code == 0:
        console.info(f"the rehearsal of {', '.join(link.command.name for link in links)} went well")
    return code


def _watch(links: list[Link], chain: list[list[str]], flags: Flags, loader: Loader) -> int:
    """Run the chain, and again after each change of a file that its jobs read."""
    from skelebot.components.jobs import watch

    def parse() -> list[Link]:
        loader.forget()
        parsed = _links(chain, flags, loader)
        assert not isinstance(parsed, Command)  # nobody has asked for help before
        _check_attended(parsed, "--watch")
        return parsed

    _check_attended(links, "--watch")
    if flags.dry_run:
        return _run_links(links, loader)
    return watch.watch(links[0].session.project.root, parse, lambda each: _run_links(list(each), loader))


def _check_attended(links: list[Link], option: str) -> None:
    """Raise UsageError unless all links are jobs that Skelebot waits for."""
    for link in links:
        if link.command.job is None:
            raise UsageError(f"{option} runs jobs alone; leave out {link.command.name}")
        if link.command.job.mode == "d":
            raise UsageError(
                f"{option} waits for each job, and {link.command.name} has mode: d; leave it out"
            )


def _run_links(links: list[Link], loader: Loader) -> int:
    """Check and validate every link before the first one runs; a failing link ends the chain."""
    _check(links)
    if _are_recorded(links):
        from skelebot.components.jobs.recorded import recorded

        with recorded(links) as recording:
            return _run_each(recording, loader)
    return _run_each(links, loader)


def _are_recorded(links: list[Link]) -> bool:
    """Whether the project records what it runs, and something of the chain is."""
    from skelebot.components.runs import Runs  # the catalog has imported it

    components, flags = links[0].session.components, links[0].session.flags
    is_wanted = any(isinstance(component, Runs) and component.record for component in components)
    return is_wanted and not flags.dry_run and not flags.rehearse and any(link.command.job for link in links)


def _run_each(links: list[Link], loader: Loader) -> int:
    at = 0
    while at < len(links):
        count = _at_once(links, at)
        if code := _run_at_once(links, at, count) if count > 1 else _run_link(links, at):
            return code
        at += count
        links[at:] = _after(links[at - 1], links[at:], loader)
    return 0


def _check(links: Sequence[Link], variants: Sequence[Sequence[Link]] = ()) -> None:
    """Raise ConfigError with all mistakes if a link could not run or its values are not valid.

    variants: the same chain with other values, of which only what may depend on the values is checked.
    """
    others = list(_unchecked(links, variants))
    problems = [text for i in range(len(links)) for text in _problems(links, i)]
    problems += [text for variant, i in others for text in _problems(variant, i)]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    failures = list(_failed_validations(links))
    for variant, i in others:
        link = variant[i]
        found = link.command.validate(link.session, link.values) if link.command.validate else ()
        failures += (f"{text} ({_what_differs(link, links[i])})" for text in found)
    if failures:
        raise ConfigError(failures)


def _problems(links: Sequence[Link], at: int) -> Iterator[str]:
    """Yield what would keep a link from running."""
    link = links[at]
    try:
        if link.command.check:
            link.command.check(link.session, link.values, links[:at])
    except ConfigError as error:
        yield from error.problems
    except UsageError as error:
        yield str(error)


def _what_differs(link: Link, first: Link) -> str:
    """Return the values of a link that the same one of another chain does not have."""
    values = (f"{n} {v}" for n, v in link.values.items() if first.values.get(n) != v)
    return f"with {console.one_line(', '.join(values))}"


def _unchecked(
    links: Sequence[Link], variants: Sequence[Sequence[Link]]
) -> Iterator[tuple[Sequence[Link], int]]:
    """Yield each link of a variant whose values may be wrong, and are no other's before it."""
    places = [i for i, link in enumerate(links) if _depends_on_values(link.command)] if variants else []
    seen = {(i, tuple(links[i].values.items())) for i in places}
    for variant in variants:
        for i in places:
            if (found := (i, tuple(variant[i].values.items()))) not in seen:
                seen.add(found)
                yield variant, i


def _depends_on_values(command: Command) -> bool:
    """Whether a command's check or validation looks at more of its values than their types."""
    types = (*(arg.type for arg in command.args), *(param.type for param in command.params))
    return "file" in types or command.validate is not None


def _links(
    chain: list[list[str]], flags: Flags, loader: Loader, queue: Link | None = None
) -> list[Link] | Command:
    """Return the links of a chain with those that they need, or the command whose help is wanted.

    queue: the command before the chain, which may give args that the chain lacks.
    """
    links: list[Link] = []
    for words in chain:
        link = _link(words, flags, loader, not links, queue)
        if isinstance(link, Command):
            return link
        links += [*_needed(link, links, loader), link]
    return links


def _needed(link: Link, earlier: list[Link], loader: Loader) -> Iterator[Link]:
    """Yield a link with its defaults for each job that has to run before a link and does not yet."""
    job, flags = link.command.job, link.session.flags
    if job is None or not job.needs or flags.no_needs:
        return
    from skelebot.project import needs  # only for a pipeline

    present = {each.command.name for each in earlier if each.session.flags.env == flags.env}
    loaded = loader.load(flags._replace(force=False), job.name)
    for need in needs.order(link.session.project, job):
        if need.name not in present:
            yield Link(loaded.commands[need.name], loaded.session, {}, (need.name,), is_needed=True)


def _failed_validations(links: Sequence[Link]) -> Iterator[str]:
    """Yield what the validations find wrong, except of links that will not run."""
    if not any(link.command.validate for link in links):
        return
    something_runs = False
    for link in links:
        something_runs = something_runs or not _is_up_to_date(link)
        if link.command.validate and something_runs:
            yield from link.command.validate(link.session, link.values)


def _is_up_to_date(link: Link) -> bool:
    command = link.command
    return command.is_up_to_date is not None and command.is_up_to_date(link.session, link.values)


def _at_once(links: list[Link], at: int) -> int:
    """Count the links from there on that -j lets run at once: those that nobody typed."""
    flags = links[at].session.flags
    if flags.jobs == 1 or flags.dry_run:
        return 1
    count = 0
    while links[at + count].is_needed:
        count += 1
    return max(count, 1)


def _run_at_once(links: list[Link], at: int, count: int) -> int:
    from skelebot.components.jobs import parallel

    code, waiting = parallel.run(links[at : at + count], links[at].session.flags.jobs)
    if code:
        later = (each.command.name for each in links[at + count :])
        console.error(f"not run: {', '.join((*waiting, *later))}")
    return code


def _after(link: Link, later: list[Link], loader: Loader) -> list[Link]:
    """Update the later links to the project as the link has changed it, or would have."""
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
    """Look the link up again in the changed project. Raises ConfigError, and UsageError if it is gone."""
    loaded = loader.load(link.session.flags, link.command.name)
    command = loaded.commands.get(link.command.name)
    if command is None:
        raise help.unknown(link.command.name, *loaded)
    session = loaded.session._replace(record=link.session.record)
    return link._replace(command=command, session=session)


def _run_link(links: list[Link], at: int) -> int:
    """Run one link of a chain. If it fails, report it and the links that do not run."""
    link, count = links[at], len(links)
    later = [each.command.name for each in links[at + 1 :]]
    not_run = f"; not run: {', '.join(later)}" if later else ""
    if not link.session.flags.dry_run and _is_up_to_date(link):
        console.info(f"{link.command.name} is up to date")
        return 0
    with _announced(link, at, count):
        try:
            code = link.command.run(link.session, link.values)
        except Interrupted:
            if count > 1:
                console.error(f"{link.command.name} was interrupted{not_run}")
            raise
        except SkelebotError:
            if count > 1:
                console.error(f"{link.command.name} failed{not_run}")
            raise
        if code and count > 1:
            console.error(f"{link.command.name} ended with exit code {code}{not_run}")
        return code


@contextmanager
def _announced(link: Link, at: int, count: int) -> Iterator[None]:
    """Print a heading for each link of a chain, and how long it took, if stderr is a terminal."""
    if count == 1 or link.session.flags.dry_run or not console.is_terminal():
        yield
        return
    import time

    console.info(f"{link.command.name} ({at + 1} of {count})")
    begin = time.monotonic()
    try:
        yield
    finally:
        console.info(f"{link.command.name} took {time.monotonic() - begin:.1f} s")


def _link(
    words: list[str], flags: Flags, loader: Loader, first: bool, queue: Link | None = None
) -> Link | Command:
    """Return a link with the values of its arguments, or the command alone if its help is wanted."""
    flagged, rest = options.parse_options(OPTIONS, words)
    for name in ("help", "version", "contact", "rehearse", "watch"):
        if not first and name in flagged:
            raise UsageError(f"--{name} goes before the first command of a chain")
    loaded = loader.load(with_options(flags, flagged), rest[0] if rest else "")
    if not rest:
        raise UsageError("a command is missing; see skelebot -h")
    command = loaded.commands.get(rest[0])
    if command is None:
        raise help.unknown(rest[0], *loaded)
    if verb := next((verb for verb in command.verbs() if rest[1:2] == [verb.name.partition(" ")[2]]), None):
        command, rest = verb, rest[1:]
    own = ("-h", "--help", *(flag for param in command.params for flag in param.flags))
    if command.bind and not (rest[1:2] and rest[1] in own):
        return _bound(command.bind, rest, loaded.session, loader)
    args = _args(command, queue)
    try:
        values = options.parse(args, command.params, rest[1:])
    except HelpWanted:
        return command
    except UsageError as error:
        swept = " and ".join(arg.name for arg in command.args if arg not in args)
        more = f", beside the values of {swept} that are swept" if swept else ""
        raise _refused(error, command, more, queue) from None
    return Link(command, loaded.session, values, tuple(rest))


def _args(command: Command, queue: Link | None) -> list[Arg]:
    """Return the args that a command takes, without those that a sweep before the chain gives."""
    if queue is None or queue.command.given_args is None:
        return list(command.args)
    given = queue.command.given_args(queue.session, queue.values)
    return [arg for arg in command.args if not _is_given(command, arg, given)]


def _is_given(command: Command, arg: Arg, names: Collection[str]) -> bool:
    """Whether an arg is among these names, and means no param of the same name."""
    is_named = arg.name in names or f"{command.name}.{arg.name}" in names
    return is_named and all(param.name != arg.name for param in command.params)


def _bound(
    bind: Callable[[Link], Command], words: list[str], session: Session, loader: Loader
) -> Link | Command:
    """Return the link of a command that is about a job, whose name and values follow it."""
    if not words[1:]:
        raise UsageError(f"{words[0]}: missing argument: the job; usage: skelebot {words[0]} JOB [VALUES]")
    link = _link(words[1:], session.flags, loader, first=False)
    return link if isinstance(link, Command) else Link(bind(link), session, {}, tuple(words))


def _refused(error: UsageError, command: Command, more: str = "", queue: Link | None = None) -> UsageError:
    """Return the error for a command's words, which says where an option of Skelebot's own belongs."""
    if isinstance(error, UnknownOption) and (text := _misplaced(error.typed, command, queue)):
        return UsageError(text)
    verbs = [verb.name.partition(" ")[2] for verb in command.verbs()]
    if isinstance(error, UnexpectedArgument) and error.word in verbs:
        return UsageError(f"{error.word} goes before the options: skelebot {command.name} {error.word}")
    if isinstance(error, UnexpectedArgument) and verbs:
        return UsageError(f"{command.name}: {error}{did_you_mean(error.word, verbs)}")
    return UsageError(f"{command.name}: {error}{more}; usage: skelebot {help.usage(command)}")


def _misplaced(typed: Sequence[str], command: Command, queue: Link | None) -> str | None:
    """Say where an option goes that stands after a command and belongs before it; None for any other."""
    kind = "job" if command.job else "command"
    before = queue.command.name if queue else ""
    if queue and (own := help.flag_of(queue.command.params, typed)):
        return f"{own[0]} goes before the {kind}: skelebot {before} {own[1]} {command.name}"
    if found := help.flag_of(OPTIONS, typed):
        words = " ".join(filter(None, (found[1], before, command.name)))
        return f"{found[0]} goes before the {kind}: skelebot {words}"
    return None
