"""What follows `runs`: its verbs, each with its own arguments and options."""

from collections.abc import Callable
from importlib import import_module
from typing import cast

from skelebot.component import Command, Session
from skelebot.model import Arg, Param
from skelebot.options import Values

_RUN = Arg("run", help="The number of the run", type="int", min="1")
_RUNS = Arg("run", help="The number of the run", type="int", min="1", is_rest=True)
_JSON = Param("json", accepts="boolean", help="Print the result as JSON")
_NOW = Param("now", accepts="boolean", help="Run it at once, without a worker")


def _verb(
    name: str, help: str, where: str, args: tuple[Arg, ...] = (), params: tuple[Param, ...] = ()
) -> Command:
    return Command(f"runs {name}", help, _later(where), args, params)


def _later(where: str) -> Callable[[Session, Values], int]:
    """The function of a file, named as `file.function`, which is imported when it runs."""
    file, _, name = where.partition(".")

    def run(session: Session, values: Values) -> int:
        return cast(int, getattr(import_module(f"skelebot.components.runs.{file}"), name)(session, values))

    return run


GOAL = Param("goal", placeholder="min:METRIC", help="What is best (default: the sweep's own goal)")

VERBS = (
    _verb("show", "Show everything that is recorded of a run", "look.show", (_RUN,), (_JSON,)),
    _verb(
        "logs",
        "Show what a run has written",
        "look.logs",
        (_RUN, Arg("job", help="Only this job's", optional=True)),
        (
            Param("follow", "f", accepts="boolean", help="Follow the output until the run ends"),
            Param(
                "attempt", type="int", min="1", placeholder="N", help="That of an attempt (default: the last)"
            ),
        ),
    ),
    _verb(
        "diff",
        "Show what differs between two runs",
        "compare.diff",
        (_RUN, Arg("other", help="The number of the other run", type="int", min="1")),
        (
            Param("stat", accepts="boolean", help="List the files that differ (the default)"),
            Param("full", accepts="boolean", help="Show how the files differ, as a patch"),
            _JSON,
        ),
    ),
    _verb(
        "best",
        "Print the number of the best run of a sweep",
        "sweeps.best",
        (Arg("sweep", help="The name of the sweep"),),
        (GOAL, _JSON),
    ),
    _verb("stop", "Stop runs", "change.stop", (_RUNS,)),
    _verb(
        "retry",
        "Continue a run at the job that failed",
        "change.retry",
        (Arg("run", help="The number of the run", type="int", min="1", optional=True),),
        (
            Param("from", placeholder="JOB", help="Continue at this job, even if it is done"),
            Param("code", choices=("now",), help="now: a new run with today's files"),
            Param(
                "anyway",
                accepts="boolean",
                help="With --code now: even if what finished jobs read has changed",
            ),
            Param("clean", accepts="boolean", help="Remove what the failed attempt wrote to its outputs"),
            Param("failed", accepts="boolean", help="Retry all runs that failed"),
            Param("name", help="With --failed: only runs of this name"),
            Param("tag", help="With --failed: only runs with this tag"),
            Param("sweep", help="With --failed: only runs of this sweep"),
            _NOW,
        ),
    ),
    _verb(
        "rerun",
        "Run the same again: files, image, arguments, variables and data",
        "repeat.rerun",
        (_RUN,),
        (
            _NOW,
            Param("check", accepts="boolean", help="Run it at once, and compare outputs and metrics"),
            Param("ignore", is_repeated=True, placeholder="NAME", help="A metric or path that may differ"),
            Param("anyway", accepts="boolean", help="Run it even if something cannot be the same"),
        ),
    ),
    _verb(
        "checkout",
        "Write the files of a run into a new folder, or make a branch of them",
        "keep.checkout",
        (_RUN, Arg("dir", help="A new or empty folder outside the checkout", optional=True)),
        (
            Param("branch", placeholder="NAME", help="Make a new branch of the project's repository instead"),
            Param("job", placeholder="JOB", help="The files of this job, where they differ"),
        ),
    ),
    _verb(
        "get",
        "Copy outputs of a run into the project",
        "keep.get",
        (_RUN, Arg("path", help="A file or folder (default: all outputs)", optional=True)),
        (Param("force", "f", accepts="boolean", help="Replace existing files without asking"),),
    ),
    _verb(
        "tag",
        "Add words to find a run by",
        "change.tag",
        (_RUN, Arg("tag", help="A word", is_rest=True)),
        (Param("remove", accepts="boolean", help="Remove the words instead"),),
    ),
    _verb("note", "Add a note to a run", "change.note", (_RUN, Arg("text", help="The note"))),
    _verb("rm", "Remove runs that have ended, with all of their files", "change.remove", (_RUNS,)),
    _verb(
        "gc",
        "Remove old runs, with files, images and code",
        "collect.gc",
        (),
        (
            Param("older", placeholder="AGE", help="Runs that ended longer ago, such as 90d or 12h"),
            Param(
                "keep", type="int", min="0", placeholder="N", help="Keep the latest N runs of each project"
            ),
            Param("outputs-only", accepts="boolean", help="Remove outputs, and keep records, logs and code"),
            Param("dry-run", accepts="boolean", help="List what would be removed"),
            Param("all", "a", accepts="boolean", help="Include all projects"),
            _JSON,
        ),
    ),
    _verb(
        "export",
        "Write runs to a file, with their code, logs and outputs",
        "move.export",
        (Arg("file", help="The file to write, as in runs.tar"), _RUNS),
    ),
    _verb(
        "import",
        "Add runs that another store has exported",
        "move.import_",
        (Arg("file", help="The file of `runs export`"),),
    ),
    _verb("pause", "Pause the queue: workers start no more runs", "change.pause"),
    _verb("resume", "Resume the queue", "change.resume"),
    _verb("rebuild", "Rebuild the store's database from the files of the runs", "change.rebuild"),
)
