"""The project's jobs as commands."""

from collections.abc import Iterable, Sequence

from skelebot.component import Command, Component, Link, Session
from skelebot.model import Job, Project
from skelebot.options import Values
from skelebot.project.sources import job_params


class Jobs(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        return [_command(project, job) for job in project.jobs] if project else ()


def _command(project: Project, job: Job) -> Command:
    def run(session: Session, values: Values) -> int:
        from skelebot.components.jobs import run  # only for a job

        return run.run(session, job, values)

    def check(session: Session, values: Values, earlier: Sequence[Link]) -> None:
        from skelebot.components.jobs import run

        run.check(session, job, values, earlier)

    return Command(job.name, job.help, run, job.args, job_params(project, job), check, job)
