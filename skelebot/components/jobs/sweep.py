"""`queue --sweep`: a run for each combination of values, all of them or none."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from skelebot import console, options
from skelebot.component import CheckLinks, Link, Session
from skelebot.components.jobs import freeze
from skelebot.errors import ConfigError, UsageError, did_you_mean
from skelebot.files import open_regular, reason
from skelebot.model import DeclaredSweep, Param, Project, place_of
from skelebot.options import Value, Values
from skelebot.project import sweep as values_of
from skelebot.project.sweep import Axis, Domain, Range, Trial
from skelebot.runs import trial as trials_of
from skelebot.runs import workspace
from skelebot.runs.record import RunRecord, Sweep
from skelebot.runs.store import Store

_NEED_SWEEP = ("trials", "sampler", "seed", "goal", "prune", "fail-fast", "part", "again")


def is_meant(values: Values) -> bool:
    """Whether the options ask for a sweep. Raises UsageError for those of a sweep without one."""
    if values.get("sweep"):
        for other in ("now", "wait", "take-over"):
            if values.get(other):
                raise UsageError(f"queue: --sweep and --{other} do not go together; leave out one of them")
        return True
    for name in _NEED_SWEEP:
        if name in values:
            raise UsageError(f"queue: --{name} needs --sweep")
    return False


def queue(
    store: Store,
    session: Session,
    values: Values,
    links: Sequence[Link],
    check: CheckLinks,
    described: Callable[[RunRecord], RunRecord],
) -> int:
    """Check and freeze the chain once, and put a run of it into the queue for each trial."""
    plan = _Plan.of(session.project, values, links)
    chains = [_with_values(links, plan, trial) for trial in plan.samples]
    check(chains[0], chains[1:])
    if session.flags.dry_run:
        return _describe(plan)
    if not plan.trials:
        _report(())
        return 0
    base = described(freeze.freeze(store, session, chains[0], plan.params))
    name = str(values.get("name", "")) or plan.sweep.name
    base = replace(base, sweep=replace(plan.sweep, name=name, trials=len(plan.trials)), kept_as=base.uid)
    try:
        runs = [_run(base, trial) for trial in plan.trials]
        runs = runs if values.get("again") else _fresh(store, runs)
        added = store.add(runs, name_sweep=None if name else partial(values_of.default_name, plan.params))
    except BaseException:
        workspace.release(store, base, session.flags)
        raise
    _report(added)
    freeze.warn_of_unset(chains[0])
    if not added:
        workspace.release(store, base, session.flags)
    for run in added:
        console.out(str(run.number))
    return 0


def _with_values(links: Sequence[Link], plan: "_Plan", trial: Trial) -> list[Link]:
    """Return the chain with the values of a trial."""
    return [_changed(link, plan, trial) for link in links]


def _changed(link: Link, plan: "_Plan", trial: Trial) -> Link:
    own = {name: param for name, param in plan.params_of(link).items() if name in trial}
    if not own:
        return link
    keys = {arg.name: arg.key for arg in link.command.args}
    keys |= {param.name: param.name for param in link.command.params}
    given = {keys[param.name]: options.value(param, trial[name]) for name, param in own.items()}
    words = _words(link) if any(arg.key in given for arg in link.command.args) else link.words
    # As if it were typed.
    return link._replace(values={**link.values, **given}, words=words, is_needed=False)


def _words(link: Link) -> tuple[str, ...]:
    """Return the words of a link that lacks some of its args, with the others at the end."""
    values, params = link.values, link.command.params
    args = [str(values[arg.key]) for arg in link.command.args if arg.key in values]
    given = ((param, values[param.name]) for param in params if param.name in values)
    typed = [word for param, value in given for word in trials_of.typed_words(param, value)]
    return (link.command.name, *typed, *(("--", *args) if args else ()))


def _run(base: RunRecord, trial: Trial) -> RunRecord:
    filled = trials_of.with_values(base, trial) if trial else base
    return replace(filled, uid=os.urandom(16).hex())


def _fresh(store: Store, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs that no other one of the checkout is equal to, and say which there are."""
    if not runs or any(task.blanks for run in runs[:1] for task in run.tasks):
        return list(runs)
    known = {
        trials_of.identity(run): run
        for run in store.find(root=runs[0].root, states=("done", "queued", "running"))
        if run.own and run.project == runs[0].project
    }
    found = [known.get(trials_of.identity(run)) for run in runs]
    for state in ("done", "running", "queued"):
        if numbers := [str(run.number) for run in found if run and run.state == state]:
            combinations = console.counted(len(numbers), "combination")
            console.info(
                f"skipped {combinations} already {state} with the same files: {_listed(numbers)}; "
                "--again repeats"
            )
    return [run for run, other in zip(runs, found, strict=True) if other is None]


def _listed(numbers: Sequence[str]) -> str:
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return f"run{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:10])}{more}"


def _report(added: Sequence[RunRecord]) -> None:
    sweep = added[0].sweep if added else None
    if not sweep:
        console.info("nothing was queued")
        return
    first, last = added[0].number, added[-1].number
    numbers = f", {first} to {last}" if len(added) > 1 else f", {first}"
    seed = f", seed {sweep.seed}" if sweep.sampler else ""
    console.info(f"queued {console.counted(len(added), 'run')}{numbers}, of the sweep {sweep.name}{seed}")


def _describe(plan: "_Plan") -> int:
    """List the runs that would be queued."""
    for trial in plan.trials:
        console.out(
            " ".join(f"{name}={console.one_line(text)}" for name, text in trial.items())
            or "values that are chosen when it starts"
        )
    runs = console.counted(len(plan.trials), "run")
    console.info(f"{runs} would be queued; nothing was, because of --dry-run")
    return 0


# --- what was asked for ---


def names(project: Project, values: Values) -> frozenset[str]:
    """Return the names of all that is swept, as they are written. Raises UsageError."""
    declared = [name for _, each in _declared(project, values) for name, _ in each.values]
    typed = [text.partition("=")[0] for text in _texts(values) if "=" in text]
    with suppress(ValueError):  # which is reported when the values are read
        for text in filter(_is_file, _texts(values)):
            declared += values_of.table(_content(text), text).names
    return frozenset((*declared, *typed))


def _is_file(text: str) -> bool:
    return "=" not in text and text.lower().endswith(".csv")


def _content(file: str) -> str:
    try:
        with open_regular(file) as opened:
            return opened.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"--sweep: {file} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f"--sweep: {file} cannot be read: {reason(error)}") from None


def chain(project: Project, values: Values) -> Sequence[str]:
    """Return the chain of the sweep that is queued by its name; () where there is none."""
    return next((values_of.words(declared.chain) for _, declared in _declared(project, values)), ())


def _texts(values: Values) -> tuple[str, ...]:
    texts = values.get("sweep") or ()
    assert isinstance(texts, tuple)
    return texts


def _declared(project: Project, values: Values) -> list[tuple[str, DeclaredSweep]]:
    """Return the sweeps that are meant by their names. Raises UsageError for one that there is not."""
    known = dict(project.sweeps)
    names = [text for text in _texts(values) if "=" not in text and not _is_file(text)]
    for name in names:
        if name not in known:
            hint = (
                did_you_mean(name, known) or "; write JOB.PARAM=VALUES, a file.csv, or declare it in `sweeps`"
            )
            raise UsageError(f"--sweep: there is no sweep {console.one_line(name)!r}{hint}")
    if len(names) > 1:
        raise UsageError("--sweep: name one sweep at a time")
    return [(name, known[name]) for name in names]


class _Plan(NamedTuple):
    """A sweep as it was asked for.

    swept: the params by `job.param`; trials: their values for each run, nothing where these are chosen when
    it starts. samples: values to check the chain with.
    """

    sweep: Sweep
    swept: dict[str, list[Param]]
    trials: list[Trial]
    samples: list[Trial]

    @property
    def params(self) -> tuple[str, ...]:
        return self.sweep.params

    def params_of(self, link: Link) -> dict[str, Param]:
        """Return the swept params and args of a link, by `job.param`."""
        return {name: param for name, param in _params(link).items() if name in self.swept}

    @classmethod
    def of(cls, project: Project, values: Values, links: Sequence[Link]) -> "_Plan":
        """Return what the options ask for. Raises UsageError, and ConfigError with all mistakes."""
        declared = _declared(project, values)
        name, own = declared[0] if declared else ("", None)
        settings = _settings(values, own)
        problems: list[str] = []
        reader = _Reader(links, bool(settings.trials), settings.sampler == "tpe", problems)
        for text in _texts(values):
            if "=" in text:
                param, _, offered = text.partition("=")
                reader.add(param, offered, f"--sweep {param}")
            elif _is_file(text):
                reader.add_file(text)
            elif own:
                for param, given in own.values:
                    reader.add(param, given, f"{place_of(own, 'values')}.{param}")
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return _planned(replace(settings, name=name), reader, values.get("part"))


def _settings(values: Values, own: DeclaredSweep | None) -> Sweep:
    """Return the sweep by its options, which come before what is declared. Raises UsageError."""
    trials = int(str(values.get("trials") or (own and own.trials) or 0))
    is_tpe = bool(own and own.sampler == "tpe")
    for name, is_given in (("sampler", is_tpe or "sampler" in values), ("seed", "seed" in values)):
        if is_given and not trials:
            raise UsageError(f"queue: --{name} draws values; add --trials N")
    given = values.get("seed", own.seed if own else None)
    sweep = Sweep(
        "",
        goal=str(values.get("goal", (own and own.goal) or "")),
        sampler=str(values.get("sampler") or (own.sampler if own else "random")) if trials else "",
        seed=int.from_bytes(os.urandom(2), "big") if given is None and trials else int(str(given or 0)),
        trials=trials,
        prune=str(values.get("prune") or (own and own.prune) or ""),
        fail_fast=bool(values.get("fail-fast") or (own and own.fail_fast)),
    )
    _check_settings(sweep, values)
    if "part" in values and trials and given is None:
        raise UsageError("queue: --part of values that are drawn needs the same --seed N on each machine")
    return sweep


def _check_settings(sweep: Sweep, values: Values) -> None:
    if sweep.goal or "goal" in values:
        try:
            trials_of.Goal.parse(sweep.goal)
        except ValueError as error:
            found = console.one_line(sweep.goal)
            raise UsageError(f"queue: --goal: expected {error}; found {found!r}") from None
    for name, needed in (("--sampler tpe", sweep.sampler == "tpe"), ("--prune", sweep.prune)):
        if needed and not sweep.goal:
            raise UsageError(f"queue: {name} compares what the runs measure; add --goal min:METRIC")
    if sweep.sampler == "tpe":
        from skelebot.runs import sampler

        sampler.check_installed()
        if "part" in values:
            raise UsageError("queue: --part does not go with --sampler tpe, whose runs learn from all others")


def _params(link: Link) -> dict[str, Param]:
    """Return what can be swept of a link, by `job.param`."""
    known = values_of.params(link.command.args, link.command.params)
    return {f"{link.command.name}.{name}": param for name, param in known.items()}


def _stored(param: Param, text: str) -> str:
    """Return a value as a run with it gives it back, such as `true` for `yes`; a wrong one as it is."""
    with suppress(ValueError):
        return trials_of.text(options.value(param, text))
    return text


class _Reader:
    """Reads what is swept, and notes all mistakes in it.

    is_drawn: whether values are drawn; is_open: whether that happens when a run starts.
    """

    def __init__(self, links: Sequence[Link], is_drawn: bool, is_open: bool, problems: list[str]) -> None:
        self._links, self._is_drawn, self._is_open = links, is_drawn, is_open
        self._problems = problems
        self.known: dict[str, list[Param]] = {}
        for link in links:
            for name, param in _params(link).items():
                self.known.setdefault(name, []).append(param)
        self.domains: dict[str, Domain] = {}
        self.axes: list[Axis] = []

    def add(self, name: str, given: str | tuple[str, ...], where: str) -> None:
        """Add the values of a param: a text as it is typed, or a list."""
        try:
            full = self._resolved(name)
            found = values_of.domain(given) if isinstance(given, str) else given
            if not self._is_drawn:
                found = values_of.values(found)
        except ValueError as error:
            self._problems.append(f"{where}: {error}")
            return
        for param in self.known[full]:
            self._problems += [f"{where}: {each}" for each in values_of.unfit(param, found, self._is_open)]
        if isinstance(found, Range):
            self.domains[full] = found
            return
        texts = dict.fromkeys(_stored(self.known[full][0], text) for text in found)
        self.domains[full] = tuple(texts)
        self.axes.append(Axis((full,), tuple((text,) for text in texts), where))

    def add_file(self, name: str) -> None:
        """Add the lines of a CSV file."""
        if self._is_drawn:
            self._problems.append(f"--sweep {name}: a file lists its runs; leave out --trials")
            return
        try:
            axis = values_of.table(_content(name), name)
        except ValueError as error:
            self._problems.append(str(error))
            return
        names = tuple(filter(None, (self._named(name, axis.where) for name in axis.names)))
        if len(names) < len(axis.names):
            return
        for i, point in enumerate(axis.points):
            for full, value in zip(names, point, strict=True):
                for param in self.known[full]:
                    wrong = values_of.unfit(param, (value,), False)
                    self._problems += [f"{axis.place(i)}: {full}: {each}" for each in wrong]
        first = [self.known[full][0] for full in names]
        points = tuple(tuple(map(_stored, first, point)) for point in axis.points)
        columns = zip(*points, strict=True)
        self.domains |= {full: tuple(dict.fromkeys(c)) for full, c in zip(names, columns, strict=True)}
        self.axes.append(axis._replace(names=names, points=points))

    def _named(self, name: str, where: str) -> str:
        try:
            return self._resolved(name)
        except ValueError as error:
            self._problems.append(f"{where}: {error}")
            return ""

    def _resolved(self, name: str) -> str:
        """Return the `job.param` that a name means. Raises ValueError for one that cannot be swept."""
        full = values_of.resolve(name, self.known)
        if full in self.domains:
            raise ValueError(f"{full} is swept twice; leave out one of them")
        self.domains[full] = ()  # so that a second one is noticed even if this one is wrong
        for link in self._links:
            for param in link.command.params:
                if f"{link.command.name}.{param.name}" != full:
                    continue
                if param.secret:
                    raise ValueError(f"{full} is a secret, and secrets are not stored")
                if param.name in link.values:
                    raise ValueError(f"{full} is swept, and given in the chain; leave out {param.flag} there")
        return full


def _planned(sweep: Sweep, reader: _Reader, part: Value | None) -> _Plan:
    """Return the sweep with its trials. Raises UsageError and ConfigError."""
    try:
        every = _trials(sweep, reader)
        trials = every if part is None else values_of.part(every, str(part))
    except ValueError as error:
        raise UsageError(f"queue: {error}") from None
    params = tuple(reader.domains)
    texts = tuple(map(values_of.text, reader.domains.values())) if sweep.sampler else ()
    sweep = replace(sweep, params=params, values=texts)
    swept = {name: reader.known[name] for name in params}
    is_open = sweep.sampler == "tpe"
    samples = values_of.drawn(reader.domains, 1, sweep.seed) if is_open else trials or every[:1]
    if problems := list(dict.fromkeys(_unfit(swept, samples))):
        raise ConfigError(problems)
    return _Plan(sweep, swept, trials, samples)


def _trials(sweep: Sweep, reader: _Reader) -> list[Trial]:
    if sweep.sampler == "tpe":
        return [{} for _ in range(sweep.trials)]
    if sweep.trials:
        return values_of.drawn(reader.domains, sweep.trials, sweep.seed)
    return values_of.grid(reader.axes)


def _unfit(swept: dict[str, list[Param]], trials: Sequence[Trial]) -> Iterator[str]:
    """Yield what is wrong with values that were drawn, as a range may offer what a param does not take."""
    for name, text in dict.fromkeys(pair for trial in trials for pair in trial.items()):
        for param in swept[name]:
            try:
                options.value(param, text)
            except ValueError as error:
                yield f"--sweep {name}: {error}"
