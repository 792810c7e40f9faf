"""`ps`, `logs`, `send`, `stop` and the like for what runs; `worker`, `runs` and `ui` for what was queued."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, cast

from skelebot.component import Command, Component, Session
from skelebot.keys import key, pattern, size_pattern
from skelebot.model import Arg, Param, Project
from skelebot.options import Values

if TYPE_CHECKING:
    from skelebot.runs.record import RunRecord

_JOB = Arg("job", (), "The job")
_ANY_JOB = Arg("job", (), "The job (default: any)", optional=True)
_FOLLOW = Param("follow", "f", accepts="boolean", help="Follow the output")
_MAP = Param("map", "m", accepts="boolean", help="Map the project folder into a new container")
_JSON = Param("json", accepts="boolean", help="Print the result as JSON")
_ALL = Param("all", "a", accepts="boolean", help="Include all checkouts of the project")
_END = Param("end", accepts="boolean", help="End the job's input after them")
_ALL_PROJECTS = Param("all", "a", accepts="boolean", help="Include all projects")
_OF_WORKER = (
    Param(
        "jobs",
        "j",
        type="int",
        min="0",
        max="9999",
        placeholder="N",
        help="Runs at once on this machine (default: 1, with --on 0)",
    ),
    Param(
        "on",
        placeholder="PLACE=SLOTS",
        is_repeated=True,
        help="Runs at once on another Docker engine, such as ssh://gpu2=2 or CONTEXT=4",
    ),
    Param("drain", accepts="boolean", help="Exit when the queue is empty, with 1 if a run failed"),
    Param("detach", "d", accepts="boolean", help="Work in the background"),
    _ALL_PROJECTS,
    Param("list", accepts="boolean", help="List the workers"),
    Param("stop", accepts="boolean", help="Ask the workers to start no more runs and to exit"),
    _JSON,
)
_OF_LIST = (
    _ALL_PROJECTS,
    Param("name", help="Only runs of this name"),
    Param("tag", help="Only runs with this tag"),
    Param("sweep", help="The runs of this sweep, the best first"),
    Param("goal", placeholder="min:METRIC", help="With --sweep: what is best (default: its own goal)"),
    Param(
        "state",
        help="Only runs in this state",
        choices=("queued", "running", "done", "failed", "stopped", "pruned"),
    ),
    Param("last", default="20", type="int", min="1", placeholder="N", help="The latest N runs"),
    Param("watch", accepts="boolean", help="Show the queue as it changes, until you press q"),
    Param("csv", accepts="boolean", help="Print the table as CSV"),
    _JSON,
)
_OF_PAGE = (
    Param("port", "p", type="int", min="0", max="65535", help="The port (default: a free one)"),
    Param("open", "o", accepts="boolean", help="Open the page in a browser"),
)


@dataclass(frozen=True, repr=False, eq=False)
class Runs(Component):
    """The settings of `components.experiments`."""

    record: bool = key(False, help="Record every job that is run, even without `queue`")
    keep_free: str | None = key(
        None, help="Take no queued run below this much free disk, such as 2g", check=size_pattern(1)
    )
    notify: str | None = key(None, help="Run this command at the end of each queued run and of the queue")

    mlflow: str | None = key(
        None,
        help="Mirror each run to the MLflow server at this address",
        name="mlflow",
        check=pattern(
            r"https?://([^\s@/?#:\[\]]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[^\s?#]*)?",
            "an address such as https://mlflow.example.com, without a user "
            "(MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD hold one)",
        ),
    )

    def recorded(self, run: "RunRecord") -> "RunRecord":
        return replace(run, notify=self.notify or "", mlflow=self.mlflow or "")

    def commands(self, project: Project | None) -> Iterable[Command]:
        jobs = tuple(job.name for job in project.jobs) if project else ()
        takers = tuple(job.name for job in project.jobs if job.stdin) if project else ()
        one, any_one = replace(_JOB, offered=jobs), replace(_ANY_JOB, offered=jobs)
        sweeps = tuple(name for name, _ in project.sweeps) if project else ()
        of_list = tuple(replace(p, offered=sweeps) if p.name == "sweep" else p for p in _OF_LIST)
        recorded = (
            Command("worker", "Run the queue's jobs", _later("work", "work"), (), _OF_WORKER),
            Command(
                "runs",
                "List the runs that were queued or recorded",
                _later("watch", "runs"),
                (),
                of_list,
                verbs=_verbs,
            ),
            Command("ui", "Show the queue and all runs in a browser", _later("page", "ui"), (), _OF_PAGE),
        )
        if project is None:
            return recorded
        return (
            Command("ps", "List the project's runs", _later("commands", "ps"), (), (_ALL, _JSON)),
            Command(
                "logs",
                "Show the output of a job's last run",
                _later("commands", "logs"),
                (one,),
                (_FOLLOW, _ALL),
            ),
            Command(
                "wait",
                "Wait for a job's last run; exit with its code",
                _later("commands", "wait"),
                (one,),
                (_ALL,),
            ),
            Command(
                "send",
                "Send the lines of stdin to a job's last run",
                _later("commands", "send"),
                (replace(_JOB, offered=takers),),
                (_END, _ALL),
            ),
            Command(
                "stop",
                "Stop a job, or all of the project's runs",
                _later("commands", "stop"),
                (any_one,),
                (_ALL,),
            ),
            Command(
                "exec",
                "Open a shell in a job's image",
                _later("commands", "open_shell"),
                (any_one,),
                (_MAP, _ALL),
            ),
            Command(
                "clean",
                "Remove ended runs and outdated images",
                _later("commands", "clean"),
                (),
                (_ALL, _JSON),
            ),
            *recorded,
        )


def _later(file: str, name: str) -> Callable[[Session, Values], int]:
    """The function of that name in a file that is not needed to list the commands."""

    def run(session: Session, values: Values) -> int:
        module = import_module(f"skelebot.components.runs.{file}")
        return cast(int, getattr(module, name)(session, values))

    return run


def _verbs() -> Sequence[Command]:
    from skelebot.components.runs import verbs

    return verbs.VERBS
