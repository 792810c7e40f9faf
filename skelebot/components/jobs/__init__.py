"""The project's jobs as commands, and what there is to ask about them."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from skelebot.component import CheckLinks, Command, Component, Link, Session
from skelebot.keys import CLUSTER
from skelebot.model import Arg, Job, Param, Project
from skelebot.options import Values
from skelebot.project.sources import class_source, job_params

_OF_WHY = (
    Arg("job", help="The job"),
    Arg("values", help="Its arguments and options (default: its defaults)", optional=True),
)
_JSON = Param("json", accepts="boolean", help="Print the result as JSON")


_CHAIN = Arg("chain", help="The jobs with their values, with a + between them")
_OF_QUEUE = (
    Param(
        "sweep",
        is_repeated=True,
        placeholder="JOB.PARAM=VALUES",
        help="Queue a run for each value (a,b or 1..5), for each line of FILE.csv, or a sweep by name",
    ),
    Param("trials", type="int", min="1", max="100000", placeholder="N", help="Draw the values of N runs"),
    Param("sampler", choices=("random", "tpe"), help="What draws them (default: random); tpe needs Optuna"),
    Param("seed", type="int", min="0", max="4294967295", placeholder="N", help="Draw the same values again"),
    Param("goal", placeholder="min:METRIC", help="The metric to look at, as in min:loss or max:f1"),
    Param("prune", choices=("median",), help="End a run that is worse than the sweep's others were"),
    Param("fail-fast", accepts="boolean", help="Stop what waits of the sweep when one of its runs fails"),
    Param("part", placeholder="1/3", help="Queue only this part of the sweep"),
    Param("again", accepts="boolean", help="Also queue what is already done with the same files"),
    Param("name", help="A name to find the run by"),
    Param("tag", is_repeated=True, help="A word to find the run by; each use adds one"),
    Param("note", placeholder="TEXT", help="What it is about"),
    Param(
        "priority",
        default="0",
        type="int",
        min="-1000000",
        max="1000000",
        placeholder="N",
        help="Runs with a higher one go first",
    ),
    Param(
        "after",
        is_repeated=True,
        placeholder="RUN,...",
        help="Start once these runs are done; if one fails, do not",
    ),
    Param(
        "take-over",
        type="int",
        min="1",
        placeholder="RUN",
        help="Keep what the run's finished jobs have made",
    ),
    Param("anyway", accepts="boolean", help="Keep it even if what these jobs read has changed"),
    Param("wait", accepts="boolean", help="Wait for a worker to run it, and show its output"),
    Param("now", accepts="boolean", help="Run it at once, without a worker"),
)


class Jobs(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        if project is None:
            return ()
        names = tuple(job.name for job in project.jobs)
        one = Arg("job", (), "Only what this job needs (default: all jobs)", optional=True, offered=names)
        sweep, *others = _OF_QUEUE
        sweep = replace(sweep, offered=tuple(name for name, _ in project.sweeps))
        questions = (
            Command(
                "queue",
                "Freeze a chain of jobs and queue it as a run",
                _never,
                (_CHAIN,),
                (sweep, *others),
                queue=_queue,
                default_chain=_chain_of_sweep,
                given_args=_names_of_sweep,
            ),
            Command("why", "Show why a job would run, given its values", _never, _OF_WHY, bind=_why),
            Command("graph", "Show the jobs in order, and which are up to date", _graph, (one,), (_JSON,)),
        )
        jobs = [_command(project, job) for job in project.jobs]
        more = _of_schedules(names) if _may_have_schedules(project) else ()
        return [*jobs, *(each for each in (*questions, *more) if each.name not in names)]


def _may_have_schedules(project: Project) -> bool:
    """Whether the project has to do with clusters, so that others need not read of schedules."""
    hosts = (project.host, *(job.host for job in project.jobs))
    is_for_cluster = any(host and host.startswith(CLUSTER) for host in hosts)
    has_cluster = any(name == "cluster" for name, _ in project.components)
    return is_for_cluster or has_cluster or any(job.schedule for job in project.jobs)


def _of_schedules(names: tuple[str, ...]) -> tuple[Command, ...]:
    one = (Arg("job", (), "The job", offered=names),)
    return (
        Command(
            "deploy",
            "Deploy a job's schedule to a cluster",
            _schedules("show"),
            tuple(replace(arg, optional=True) for arg in _OF_WHY),
            (Param("list", accepts="boolean", help="List what is deployed of the project"), _JSON),
            bind=_deploy,
        ),
        Command("pause", "Pause a job's schedule", _schedules("pause"), one),
        Command("resume", "Resume a job's schedule", _schedules("resume"), one),
        Command("undeploy", "Remove a job's schedule with its runs", _schedules("undeploy"), one),
    )


def _command(project: Project, job: Job) -> Command:
    params = _Params(project, job)
    is_validated = bool(job.validate or class_source(project.root, job.source))

    def check_files(session: Session, values: Values, earlier: Sequence[Link]) -> None:
        if any(value.type == "file" for value in (*job.args, *params)):
            from skelebot.components.jobs import files

            files.check(session, job, values, earlier)

    def run(session: Session, values: Values) -> int:
        from skelebot.components.jobs import run  # only for a job

        if not session.flags.dry_run:
            check_files(session, values, ())  # what an earlier link was to write
        return run.run(session, job, values)

    def check(session: Session, values: Values, earlier: Sequence[Link]) -> None:
        from skelebot.components.jobs import run

        run.check(session, job, values, earlier)
        check_files(session, values, earlier)
        if is_validated:
            from skelebot.components.jobs import validate

            validate.check(session, job, values)

    def validation(session: Session, values: Values) -> Iterable[str]:
        from skelebot.components.jobs import validate

        return validate.failures(session, job, values)

    def is_up_to_date(session: Session, values: Values) -> bool:
        from skelebot.components.jobs import run

        return not run.reasons_to_run(session, job, values)

    return Command(
        job.name,
        job.help,
        run,
        job.args,
        params,
        check,
        job,
        is_up_to_date if job.outputs else None,
        validate=validation if is_validated else None,
    )


class _Params(Sequence[Param]):
    """A job's params, listed only for the job that is meant: each may have thousands from the root."""

    def __init__(self, project: Project, job: Job) -> None:
        self._project, self._job = project, job

    @cached_property
    def _listed(self) -> tuple[Param, ...]:
        return job_params(self._project, self._job)

    def __getitem__(self, index: Any) -> Any:
        return self._listed[index]

    def __len__(self) -> int:
        return len(self._listed)


def _never(session: Session, values: Values) -> int:
    raise AssertionError("it is bound to a job first")


def _queue(session: Session, values: Values, links: Sequence[Link], check: CheckLinks) -> int:
    from skelebot.components.jobs import queue

    return queue.queue(session, values, links, check)


def _chain_of_sweep(session: Session, values: Values) -> Sequence[str]:
    from skelebot.components.jobs import sweep

    return sweep.chain(session.project, values)


def _names_of_sweep(session: Session, values: Values) -> Collection[str]:
    from skelebot.components.jobs import sweep

    return sweep.names(session.project, values)


def _why(link: Link) -> Command:
    def run(session: Session, values: Values) -> int:
        from skelebot.components.jobs import graph

        return graph.why(link)

    return Command("why", "", run)


def _deploy(link: Link) -> Command:
    def check(session: Session, values: Values, earlier: Sequence[Link]) -> None:
        from skelebot.components.jobs import schedules

        schedules.check(link, earlier)

    def run(session: Session, values: Values) -> int:
        from skelebot.components.jobs import schedules

        return schedules.deploy(link)

    def validation(session: Session, values: Values) -> Iterable[str]:
        return link.command.validate(link.session, link.values) if link.command.validate else ()

    return Command("deploy", "", run, check=check, validate=validation)


def _schedules(name: str) -> Callable[[Session, Values], int]:
    def run(session: Session, values: Values) -> int:
        from skelebot.components.jobs import schedules

        command: Callable[[Session, Values], int] = getattr(schedules, name)
        return command(session, values)

    return run


def _graph(session: Session, values: Values) -> int:
    from skelebot.components.jobs import graph

    return graph.graph(session, values)
