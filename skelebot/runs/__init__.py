"""Runs that are queued and recorded: what they are made of, where they are kept, who works them off.

To look at them in Python:

    from skelebot import runs

    for run in runs.find(tag="best", state="done"):
        print(run["run"], run["params"], run["metrics"])
"""

from typing import Any


def find(
    *,
    tag: str | None = None,
    state: str | None = None,
    name: str | None = None,
    project: str | None = None,
    last: int | None = None,
) -> list[dict[str, Any]]:
    """Return the runs of all projects that meet the conditions, the latest first, as `runs --json` does.

    Raises SkelebotError, and UsageError for a state that there is not or a negative `last`.
    """
    from skelebot.errors import UsageError
    from skelebot.runs.record import STATES, view
    from skelebot.runs.store import opened

    if state is not None and state not in STATES:
        raise UsageError(f"there is no state {state!r} of a run; the states are {', '.join(STATES)}")
    if last is not None and last < 0:  # for which SQLite would give all
        raise UsageError(f"last: expected how many runs, at least 0; found {last}")
    states = (state,) if state is not None else ()
    return [view(run) for run in opened().find(project, None, name, tag, states, last)]


def get(number: int) -> dict[str, Any]:
    """Return a run, as `runs show --json` does. Raises UsageError if there is none of that number."""
    from skelebot.runs.record import view
    from skelebot.runs.store import opened

    return view(opened().get(number))
