"""What has to hold between the parts of a configuration, beyond the type of each."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from skelebot.errors import did_you_mean
from skelebot.model import Arg, DeclaredSweep, Job, Packages, Param, Project, place_of, project_path
from skelebot.model import Mapping as Mapped
from skelebot.project import needs
from skelebot.project.nodes import join
from skelebot.project.sources import class_source, has_root_params, job_params
from skelebot.value_types import NOUNS, ORDERED, exceeds, expectation, is_of, mismatch

_BOOLEANS = ("true", "yes", "on", "false", "no", "off")


def problems(project: Project) -> Iterator[str]:
    """Return the problems between the parts of a configuration, with their places."""
    seen: dict[str, Job] = {}
    inherited = _flag_names(project.params)
    for job in project.jobs:
        if job.name and job.name in seen:
            yield f"{place_of(job, 'name')}: there is already a job named {job.name!r}"
        seen[job.name] = job
        yield from _check_args(project, job)
        yield from _check_mode(job)
        yield from _check_flags(job.params, inherited if has_root_params(project, job) else {})
        yield from _check_rehearsal(project, job)
        yield from _check_metrics(job)
        for param in job.params:
            yield from _check_param(param)
    wrong = list(needs.problems(project))
    yield from wrong
    if project.sweeps and not wrong:
        yield from _check_sweeps(project, seen)
    yield from _check_languages(project)
    yield from _check_flags(project.params, {})
    for param in project.params:
        yield from _check_param(param)
    if project.primary_job and project.primary_job not in seen:
        hint = did_you_mean(project.primary_job, seen)
        yield f"{project.places['primaryJob']}: there is no job named {project.primary_job!r}{hint}"
    if project.timezone and not _is_timezone(project.timezone):
        yield f"{project.places['timezone']}: {_timezones_like(project.timezone)}"


def _check_sweeps(project: Project, jobs: Mapping[str, Job]) -> Iterator[str]:
    """The chain of each sweep has jobs alone, and its values fit their params."""
    from skelebot.project import sweep  # only where there is one

    for _, declared in project.sweeps:
        at = place_of(declared, "chain")
        try:
            names = sweep.jobs(declared.chain)
        except ValueError as error:
            yield f"{at}: {error}"
            continue
        if unknown := [name for name in names if name not in jobs]:
            yield from (f"{at}: there is no job {name!r}{did_you_mean(name, jobs)}" for name in unknown)
            continue
        chain = [job for name in names for job in (*needs.order(project, jobs[name]), jobs[name])]
        known = {
            f"{job.name}.{name}": param
            for job in chain
            for name, param in sweep.params(job.args, job_params(project, job)).items()
        }
        if not declared.values:
            yield f"{place_of(declared, 'values')}: expected at least one param with the values to try"
        for name, given in declared.values:
            where = join(place_of(declared, "values"), name)
            yield from (f"{where}: {each}" for each in _unfit_for_sweep(declared, name, given, known))


def _unfit_for_sweep(
    declared: DeclaredSweep, name: str, given: str | tuple[str, ...], known: Mapping[str, Param]
) -> Iterator[str]:
    """Yield what is wrong with the values of a param of a sweep."""
    from skelebot.project import sweep

    try:
        param = known[sweep.resolve(name, known)]
        found = sweep.domain(given) if isinstance(given, str) else given
        found = found if declared.trials else sweep.values(found)
    except ValueError as error:
        yield str(error)
        return
    if param.secret:
        yield "is a secret, and secrets are not stored; leave it out"
    elif not found:
        yield "expected a list of values, or a range such as 1..5"
    else:
        yield from sweep.unfit(param, found, declared.sampler == "tpe")


def _check_languages(project: Project) -> Iterator[str]:
    """Each list of dependencies belongs to a language of the project."""
    listed = project.dependencies
    if not isinstance(listed, Packages):
        if listed and project.language == "R+Python":
            where = project.places["dependencies"]
            yield f"{where}: with language R+Python, expected a list below `R:` and one below `Python:`"
        return
    for name, entries in (("R", listed.r), ("Python", listed.python)):
        if entries and name not in project.language.split("+"):
            yield (
                f"{project.places[f'dependencies.{name}']}: the project's language is {project.language}; "
                f"for packages of {name} too, write `language: R+Python`"
            )


def _check_mode(job: Job) -> Iterator[str]:
    if job.retries and job.mode == "d":
        at = place_of(job, "retries")
        yield f"{at}: a job with mode d is not tried again; remove `retries` or `mode: d`"
    if job.stdin and job.mode != "d":
        at = place_of(job, "stdin")
        yield f"{at}: a job in the foreground reads what is piped into it; remove `stdin` or add `mode: d`"
    if job.stdin and job.schedule:
        at = place_of(job, "stdin")
        yield f"{at}: nobody sends records to a job that runs by a schedule; remove `stdin` or `schedule`"


def _check_metrics(job: Job) -> Iterator[str]:
    """Each pattern has a group, and each file is where it outlives a container."""
    for name, text in job.metric_patterns:
        if problem := _problem_of_pattern(text):
            yield f"{join(place_of(job, 'metrics'), name)}: {problem}"
    kept = [output.folder for output in job.results]
    kept += [mapping.local for mapping in map(Mapped.parse, job.mappings) if not mapping.read_only]
    folders = [f"{os.path.normpath(folder)}/" for folder in kept]
    for number, text in enumerate(job.metric_files):
        at = f"{place_of(job, 'metrics')}[{number}]"
        try:
            path = project_path(text)
        except ValueError as error:
            yield f"{at}: expected {error}; found {text!r}"
            continue
        if job.native != "always" and not any(f == "./" or path.startswith(f) for f in folders):
            remedy = "add its folder to the job's `outputs`" if "/" in path else "write it to an output"
            yield f"{at}: {text} is lost with the job's container; {remedy}"


def _problem_of_pattern(text: str) -> str | None:
    """Return what is wrong with the pattern of a number, if anything is."""
    try:
        groups = re.compile(text).groups
    except (re.error, RecursionError, OverflowError) as error:
        return f"{text!r} is not a regular expression: {error}"
    if groups != 1:
        example = r"'loss=(\S+)'"
        return f"expected a pattern with one group, around the number, such as {example}; found {text!r}"
    return None


def _check_args(project: Project, job: Job) -> Iterator[str]:
    # A class gets all of its values by their names; elsewhere an arg and a param of the root stay apart.
    of_class = class_source(project.root, job.source) is not None
    names = {param.name for param in (job_params(project, job) if of_class else job.params)}
    for arg in job.args:
        if arg.name in names:
            yield f"{place_of(arg, 'name')}: the job already has a value named {arg.name!r}"
        names.add(arg.name)
        yield from _check_type(arg)


def _check_rehearsal(project: Project, job: Job) -> Iterator[str]:
    """Each value for a rehearsal is one of the job's."""
    if not job.rehearse:
        return
    values: tuple[Arg | Param, ...] = (*job.args, *job_params(project, job))
    known = {value.name: value for value in values}
    at = place_of(job, "rehearse")
    for name, text in job.rehearse:
        if name not in known:
            yield f"{at}: the job has no arg or param {name!r}{did_you_mean(name, known)}"
        elif text is None:
            yield f"{join(at, name)}: is empty; write the value for a quick trial"
        elif not any(_check_type(known[name])) and (problem := _unfit(known[name], text, "the value")):
            yield f"{join(at, name)}: {problem}"


def _check_flags(params: Sequence[Param], inherited: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Every flag has one meaning.

    inherited: the flags of the root's params, which are checked once rather than with each job.
    """
    own = {param.name for param in params}
    owners = {"-h": "help", "--help": "help"}
    for param in filter(lambda p: p.name, params):
        for flag in sorted(_claims(param)):
            others = (name for name in inherited.get(flag, ()) if name not in own)
            if other := owners.get(flag) or next(others, None):
                of_alt = dict(param.elsewhere).get("alt") if flag not in (param.flag, param.off) else None
                at = of_alt or param.place
                yield f"{at}: {flag} already belongs to {other!r}; choose another name or alt"
            owners[flag] = param.name


def _claims(param: Param) -> set[str]:
    return {*param.flags, *([param.off] if param.off else [])}


def _flag_names(params: Sequence[Param]) -> dict[str, list[str]]:
    """The names of the params that have each flag; more than one where they clash."""
    names: dict[str, list[str]] = {}
    for param in filter(lambda p: p.name, params):
        for flag in _claims(param):
            names.setdefault(flag, []).append(param.name)
    return names


def _check_param(param: Param) -> Iterator[str]:
    at, default = place_of(param, "default"), param.default
    if param.accepts == "boolean":
        if isinstance(default, tuple) or (default or "no").lower() not in _BOOLEANS:
            found = "another value" if param.secret else repr(default)
            yield f"{at}: expected true or false for a boolean, found {found}"
        if param.choices:
            yield f"{place_of(param, 'choices')}: a boolean takes no value to choose"
        for name in _keys_of_type(param):
            yield f"{place_of(param, name)}: a boolean takes no value; leave out {name} or `accepts: boolean`"
        return
    wrong = list(_check_type(param))
    yield from wrong
    if isinstance(default, tuple) and param.accepts != "list":
        yield f"{at}: a list of values needs `accepts: list`"
    if wrong or default is None or param.reference:
        return
    for value in default if isinstance(default, tuple) else (default,):
        if problem := _unfit(param, value, "the default"):
            yield f"{at}: {problem}"


def _unfit(of: Arg | Param, text: str, secret: str) -> str | None:
    """Return what is wrong with a value in the configuration; `secret` stands for that of a secret."""
    shown = secret if isinstance(of, Param) and of.secret else repr(text)
    if isinstance(of, Param) and of.accepts == "boolean":
        return None if text.lower() in _BOOLEANS else f"{shown} is not true or false"
    if not mismatch(of, text):
        return None
    if not of.choices:
        return f"{shown} is not {expectation(of)}"
    some = ", ".join((*of.choices[:20], *(["..."] if len(of.choices) > 20 else [])))
    return f"{shown} is not among the choices: {some}"


def _keys_of_type(of: Arg | Param) -> list[str]:
    """The keys that say which values fit, as far as they are given."""
    limits = [name for name in ("min", "max", "pattern") if getattr(of, name) is not None]
    return [*(["type"] if of.type != "text" else []), *limits]


def _check_type(of: Arg | Param) -> Iterator[str]:
    """The limits and the choices of a value are of its type."""
    limits = {name: getattr(of, name) for name in ("min", "max") if getattr(of, name) is not None}
    wrong = False
    for name, limit in limits.items():
        if of.type not in ORDERED:
            wrong = True
            what = f"a value of type {of.type} has no {name}"
            yield f"{place_of(of, name)}: {what}; add `type: int`, `float` or `date`"
        elif not is_of(of.type, limit):
            wrong = True
            yield f"{place_of(of, name)}: expected {NOUNS[of.type]}; found {limit!r}"
    if wrong:
        return
    if len(limits) == 2 and exceeds(of.type, limits["min"], limits["max"]):
        yield f"{place_of(of, 'min')}: {limits['min']} is above max, {limits['max']}"
        return
    free = replace(of, choices=())
    for i, choice in enumerate(of.choices):
        if expected := mismatch(free, choice):
            yield f"{place_of(of, 'choices')}[{i}]: expected {expected}; found {choice!r}"


def primary_command(project: Project) -> Iterator[str]:
    """What keeps the image from running the primary job for everyone; as its CMD with the job's defaults."""
    job = next((job for job in project.jobs if job.name == project.primary_job), None)
    if job is None:
        return
    if project.primary_exe != "CMD":
        if class_source(project.root, job.source):
            yield (
                f"{place_of(job, 'source')}: the arguments of `docker run` cannot become the values of "
                "a class; set primaryExe: CMD"
            )
        return
    if job.args:
        yield (
            f"{place_of(job, 'args')}: the primary job cannot take arguments as CMD; give it params with "
            "defaults, or set primaryExe: ENTRYPOINT"
        )
    for param in job_params(project, job):
        if param.secret and param.default is not None and not param.reference:
            where = place_of(param, "default")
            yield f"{where}: the image would reveal this secret of the primary job; use $NAME"


def _timezones_like(name: str) -> str:
    import zoneinfo

    hint = did_you_mean(name, zoneinfo.available_timezones())
    return f"expected a time zone such as Europe/Berlin; found {name!r}{hint}"


def _is_timezone(name: str) -> bool:
    import zoneinfo  # only where a time zone is configured

    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        # Without a database on this machine, only the form of the name can be checked.
        known = any(os.path.isdir(folder) for folder in zoneinfo.TZPATH)
        return not known and re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", name) is not None
    return True
