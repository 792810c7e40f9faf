"""Freeze a chain: what was recorded is what runs, whatever happens to the checkout meanwhile."""

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from skelebot import console, git, launch, runners
from skelebot.component import Link, Session
from skelebot.components.jobs.run import is_below, prepare
from skelebot.errors import ConfigError, SkelebotError, UsageError
from skelebot.image import context, written
from skelebot.image.ignores import Ignores
from skelebot.model import Image, Job, Mapping, Param, Project, Task, place_of
from skelebot.options import Value
from skelebot.project import plan, sweep
from skelebot.project.sources import class_source, job_params
from skelebot.project.state import own_folder
from skelebot.runs import outside, snapshot, workspace
from skelebot.runs.record import Blank, RunRecord, TaskRecord
from skelebot.runs.store import VARIABLE, Store
from skelebot.secret import Secret, reveal_all


def freeze(store: Store, session: Session, links: Sequence[Link], swept: Collection[str] = ()) -> RunRecord:
    """Return the run of a chain, with its code and images kept. Raises ConfigError and SkelebotError.

    swept: the params, as `job.param`, whose values are left blank for trials to fill in.
    """
    project = session.project
    if is_below(os.path.realpath(store.folder), os.path.realpath(project.root)):
        raise UsageError(f"the store {store.folder} is inside the project; set {VARIABLE} to another folder")
    jobs = [(link, link.command.job) for link in links if link.command.job]
    if problems := [problem for link, job in jobs for problem in _problems(link, job, jobs)]:
        raise ConfigError(problems)
    uid = os.urandom(16).hex()
    planned = [
        _with_blanks(project, job, link, task, swept)
        for (link, job), task in zip(jobs, _tasks(store, project, jobs), strict=True)
    ]
    with _pinned(store, session, uid, planned) as (tasks, images, packages):
        now = _trees(store, project, [(job, task.image) for (_, job), task in zip(jobs, tasks, strict=True)])
        for task, tree in zip(tasks, now, strict=True):
            if tree != task.tree:
                raise SkelebotError(f"a file changed while {task.job} was being queued; queue it again")
        workspace.keep(store, uid, tasks)
    run = _record(store, project, uid, links, tasks)
    run = _with_components(run, session)
    return replace(run, images=tuple(images.items()), packages=tuple(packages))


def in_place(store: Store, links: Sequence[Link]) -> RunRecord:
    """Return the run of a chain that is run in the checkout, with its code kept. Raises SkelebotError."""
    jobs = [(link, link.command.job) for link in links if link.command.job]
    project, uid = jobs[0][0].session.project, os.urandom(16).hex()
    tasks = [replace(task, task=without_typed(task.task)) for task in _tasks(store, project, jobs)]
    workspace.keep(store, uid, tasks)
    run = _with_components(_record(store, project, uid, links, tasks), jobs[0][0].session)
    return replace(run, own=False, notify="")  # who has started it sees its end


def _with_components(run: RunRecord, session: Session) -> RunRecord:
    for component in session.components:
        run = component.recorded(run)
    return run


def without_typed(task: Task) -> Task:
    """Return the task without secrets that were typed, which are not stored."""
    return replace(task, argv=tuple("***" if _is_typed(word) else word for word in task.argv))


def _is_typed(word: object) -> bool:
    return isinstance(word, Secret) and word.kind == "typed"


def _record(
    store: Store, project: Project, uid: str, links: Sequence[Link], tasks: Sequence[TaskRecord]
) -> RunRecord:
    return RunRecord(
        uid=uid,
        project=project.name,
        root=project.root,
        chain=_chain(links),
        tasks=tuple(tasks),
        created=time.time(),
        env=project.env or "",
        variables=_variables(store, tasks),
        data=workspace.data(store, project.root, tasks),
        where=", ".join(dict.fromkeys(str(task.task.place) for task in tasks)),
        **_commit(project.root),
    )


def _chain(links: Sequence[Link]) -> tuple[str, ...]:
    """Return the words of the chain as they were typed, without secrets."""
    typed = [list(_words(link)) for link in links if not link.is_needed]
    return tuple(word for words in typed for word in (*words, "+"))[:-1]


def _words(link: Link) -> Iterator[str]:
    given = (link.values.get(param.name) for param in link.command.params if param.secret)
    secrets = {text for value in given for text in (value if isinstance(value, tuple) else (value,)) if text}
    for word in link.words:
        for secret in secrets:
            word = word.replace(str(secret), "***")
        yield word


# --- what cannot be queued ---


def _problems(link: Link, job: Job, jobs: Sequence[tuple[Link, Job]]) -> Iterator[str]:
    """Yield what keeps a job from being queued: folders that runs would share, secrets that were typed."""
    made = [output.folder for _, each in jobs for output in each.results]
    for number, text in enumerate(job.mappings):
        mapping = Mapping.parse(text)
        path = os.path.normpath(mapping.local)
        if mapping.read_only or mapping.is_shared or any(is_below(path, each) for each in made):
            continue
        yield (
            f"{place_of(job, 'mappings')}[{number}]: several runs would write to {text}; add it to the "
            f"outputs of {job.name}, or write {text}:rw if they may share it"
        )
    for param in job_params(link.session.project, job):
        if param.secret and (param.name in link.values or (param.default and not param.reference)):
            yield (
                f"{job.name}: {param.flag} is a secret, and secrets are not stored; give it "
                "`default: $NAME`, set NAME in the environment of the worker, and leave the option out"
            )


def warn_of_unset(links: Sequence[Link]) -> None:
    """Say what the jobs of a queued chain do not get, as it is not set here, though a worker may have it."""
    for link in links:
        for name in _unset(link.session, link.command.job) if link.command.job else ():
            job = link.command.name
            console.warn(f"{name} is not set here, so {job} runs without it, whatever the worker has")


def _unset(session: Session, job: Job) -> list[str]:
    """Return the variables that a job would take from the environment and that are not set there."""
    project = session.project
    known = dict(plan.environment(project, job, os.environ))
    secret = {param.reference for param in job_params(project, job) if param.secret and param.reference}
    bare = {name for name, value in (*project.environment, *job.environment) if value is None}
    if plan.place(project, job, session.flags).is_native:
        bare = set()  # it has all variables of the worker
    return sorted((bare - {*known}) | (secret - {*known, *os.environ}))


# --- the tasks ---


def _tasks(store: Store, project: Project, jobs: Sequence[tuple[Link, Job]]) -> list[TaskRecord]:
    prepared = [prepare(link.session, job, link.values) for link, job in jobs]
    images = [(job, each.image) for (_, job), each in zip(jobs, prepared, strict=True)]
    trees = _trees(store, project, images)
    return [
        TaskRecord(
            job=job.name,
            tree=tree,
            image=each.image,
            task=replace(each.amended, mode="i"),
            params=tuple(_params(project, job, link)),
            outputs=job.outputs,
            retries=job.retries,
            cache=job.cache,
            metric_files=job.metric_files,
            metric_patterns=job.metric_patterns,
        )
        for (link, job), each, tree in zip(jobs, prepared, trees, strict=True)
    ]


def _with_blanks(
    project: Project, job: Job, link: Link, record: TaskRecord, swept: Collection[str]
) -> TaskRecord:
    """Return the task without the words of what a sweep varies, and where these belong."""
    params = job_params(project, job)
    own = {name for name in sweep.params(job.args, params) if f"{job.name}.{name}" in swept}
    own_args = own.difference(param.name for param in params)
    if not own:
        return record
    known = {**os.environ, **reveal_all(plan.environment(project, job, os.environ), os.environ)}
    argv, words = record.task.argv, plan.words(project, job, link.values, known)
    at = _last_place(argv, words)
    if at is None:
        raise UsageError(f"a component changes the arguments of {job.name}, so its values cannot be swept")
    kept, blanks = list(argv[:at]), []
    for place, arg in enumerate(job.args):
        if arg.name in own_args:
            blanks.append(Blank(Param(arg.name), len(kept), place=place))
        else:
            kept.append(argv[at + place])
    at += len(job.args)
    is_repeated = class_source(project.root, job.source) is not None
    for param, group in plan.words_of_params(project, job, link.values, known):
        at += len(group)
        if param.name in own:
            default = param.default if param.accepts == "boolean" else None
            bare = Param(param.name, accepts=param.accepts, default=default)
            blanks.append(Blank(bare, len(kept), is_repeated))
        else:
            kept += group
    values = tuple((name, "" if name in own else value) for name, value in record.params)
    task = replace(record.task, argv=(*kept, *argv[at:]))
    return replace(record, task=task, params=values, blanks=tuple(blanks))


def _last_place(words: Sequence[object], part: Sequence[object]) -> int | None:
    """Return where some words stand among others, the last place where there are several."""
    length = len(part)
    places = (at for at in range(len(words) - length, -1, -1) if words[at : at + length] == part)
    return next(places, None)


def _trees(store: Store, project: Project, images: Sequence[tuple[Job, Image]]) -> list[str]:
    """Return the snapshots of the files that the jobs' images hold, or would hold."""
    launch.forget_files()
    left_out = [
        (image.ignores or launch.left_out(project, job)) + written.own_dockerfile(image)
        for job, image in images
    ]
    taken = {patterns: _tree(store, project.root, patterns) for patterns in dict.fromkeys(left_out)}
    return [taken[patterns] for patterns in left_out]


def _tree(store: Store, root: str, patterns: tuple[str, ...]) -> str:
    return snapshot.take(store.folder, context.walk(root, Ignores(patterns)), own_folder(root))


def _params(project: Project, job: Job, link: Link) -> Iterator[tuple[str, Any]]:
    """Yield the values that a job gets, by name, without secrets."""
    for arg in job.args:
        yield arg.name, link.values[arg.key]
    known = {**os.environ, **reveal_all(plan.environment(project, job, os.environ), os.environ)}
    for param in job_params(project, job):
        value: Value | None
        if param.secret:
            value = "***"
        elif param.name in link.values:
            value = link.values[param.name]
        else:
            value = plan.default(job.name, param, known)
        if value is not None:
            yield param.name, value


@contextmanager
def _pinned(
    store: Store, session: Session, uid: str, tasks: list[TaskRecord]
) -> Iterator[tuple[list[TaskRecord], dict[str, str], list[str]]]:
    """Build what is missing, and tag each image.

    Yields the tasks with the images' ids, these by name, and the lists of their packages. If the block
    raises an exception, the tags go.
    """
    launch.fetch_dependencies(session)
    pinned: list[TaskRecord] = []
    images: dict[str, str] = {}
    packages: dict[str, None] = {}
    try:
        for record in tasks:
            task = replace(record.task, environments=store.environments)
            runner = runners.at(task.place, session.flags)
            with runner.prepare(record.image, task) as ready:
                id = runner.pin(ready, workspace.tag(uid))
                packages[store.packages(id, partial(runner.packages, ready, task))] = None
            images |= {record.image.tag: id} if id else {}
            pinned.append(replace(record, image=replace(record.image, pinned=id)))
        yield pinned, images, list(packages)
    except BaseException:
        workspace.unpin(uid, pinned, session.flags)
        raise


# --- the rest of what a run depends on ---


def _variables(store: Store, tasks: Sequence[TaskRecord]) -> tuple[tuple[str, str], ...]:
    """Return what the tasks take from elsewhere, each with a keyed hash of its value."""
    secrets = outside.secrets(tasks)
    return tuple((name, outside.secret_hash(store.folder, s, os.environ)) for name, s in secrets.items())


def _commit(root: str) -> dict[str, Any]:
    """Return the commit, the branch, the remote and whether files differ from the commit, as far as known."""
    facts: dict[str, Any] = {}
    with suppress(SkelebotError):
        facts["commit"] = git.answer(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
        facts["dirty"] = git.has_changes(root)
        _, branch, _ = git.ask(root, "symbolic-ref", "--quiet", "--short", "HEAD")
        _, remote, _ = git.ask(root, "config", "--get", "remote.origin.url")
        facts["branch"], facts["remote"] = branch.strip(), without_password(remote.strip())
    return facts


def without_password(address: str) -> str:
    """Return the address of a repository without the user and the password in it."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""  # whatever it is, it may hold a password
    if not parts.scheme or "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
