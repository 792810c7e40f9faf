"""`ps`, `logs`, `stop`, `exec` and `clean`: manage the project's runs."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import cast

from skelebot.component import Command, Component, Session
from skelebot.model import Arg, Param, Project
from skelebot.options import Values

_JOB = Arg("job", (), "The job")
_ANY_JOB = Arg("job", (), "The job (default: any)", optional=True)
_FOLLOW = Param("follow", "f", accepts="boolean", help="Follow the output")
_MAP = Param("map", "m", accepts="boolean", help="Map the project folder into a new container")
_JSON = Param("json", accepts="boolean", help="Print the result as JSON")
_ALL = Param("all", "a", accepts="boolean", help="Include all checkouts of the project")


class Runs(Component):
    def commands(self, project: Project | None) -> Iterable[Command]:
        jobs = tuple(job.name for job in project.jobs) if project else ()
        one, any_one = replace(_JOB, offered=jobs), replace(_ANY_JOB, offered=jobs)
        return (
            Command("ps", "List the project's runs", _later("ps"), (), (_ALL, _JSON)),
            Command("logs", "Show the output of a job's last run", _later("logs"), (one,), (_FOLLOW, _ALL)),
            Command("stop", "Stop a job, or all of the project's runs", _later("stop"), (any_one,), (_ALL,)),
            Command("exec", "Open a shell in a job's image", _later("open_shell"), (any_one,), (_MAP, _ALL)),
            Command("clean", "Remove ended runs and outdated images", _later("clean"), (), (_ALL, _JSON)),
        )


def _later(name: str) -> Callable[[Session, Values], int]:
    """The function of that name, whose file is not needed to list the commands."""

    def run(session: Session, values: Values) -> int:
        from skelebot.components.runs import commands

        return cast(int, getattr(commands, name)(session, values))

    return run
