"""`runs`: the table, or with --watch the queue as it changes: a screen on a terminal, elsewhere lines."""

import os
import time
from collections import Counter
from collections.abc import Iterator

from skelebot import console
from skelebot.component import Session
from skelebot.components.runs import look
from skelebot.components.runs.work import checkout_or_all
from skelebot.errors import UsageError
from skelebot.options import Values
from skelebot.runs import estimate
from skelebot.runs import store as stores
from skelebot.runs.store import Store

_TICK = 0.2  # seconds between two looks at whether the store has changed
_SUMMARY = 60.0  # seconds between two summaries in a pipe


def runs(session: Session, values: Values) -> int:
    return _watch(session, values) if values.get("watch") else look.table(session, values)


def _watch(session: Session, values: Values) -> int:
    """Show the queue until somebody leaves, or, without a terminal, until it is empty."""
    for name in ("last", "name", "tag", "sweep", "goal", "state", "csv", "json"):
        if values.get(name, False) is not False:
            raise UsageError(f"runs: --watch and --{name} do not go together; leave out one of them")
    store = stores.opened()
    root = checkout_or_all(session, bool(values.get("all")))
    if console.is_stdout_terminal() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        from skelebot.components.runs import screen  # with rich, only for this

        project = session.optional_project
        screen.show(store, root, project.name if project and root else "all projects")
        look.report(store, root, estimate.of(store, root))
    else:
        _print_changes(Changes(store, root))
    return 0


def _print_changes(changes: "Changes") -> None:
    while True:
        mark = changes.store.mark()
        for line in changes.lines(time.monotonic()):
            console.out(line)
        if changes.is_over:
            return
        while changes.store.mark() == mark and time.monotonic() < changes.next_summary:
            time.sleep(_TICK)


class Changes:
    """What changes in the queue, as lines: each change of a run's state, and from time to time a summary."""

    def __init__(self, store: Store, root: str | None) -> None:
        self.store, self._root = store, root
        self.next_summary, self.is_over = 0.0, False
        self._states: dict[int, str] | None = None
        self._ended: Counter[str] = Counter()

    def lines(self, now: float) -> Iterator[str]:
        """Yield what has changed since the last time. now: in seconds of a clock that is not set."""
        before = self._states
        self._states = self.store.unended(self._root)
        self.is_over = not self._states
        if before is not None:
            yield from self._changes(before, self._states)
        if now >= self.next_summary or self.is_over:
            self.next_summary = now + _SUMMARY
            yield self._summary()

    def _changes(self, before: dict[int, str], states: dict[int, str]) -> Iterator[str]:
        ended = self.store.states(number for number in before if number not in states)
        ended |= dict.fromkeys((n for n in before if n not in states and n not in ended), "removed")
        self._ended.update(ended.values())
        for number, state in sorted((states | ended).items()):
            if before.get(number) != state:
                yield f"run {number}: {state}"

    def _summary(self) -> str:
        states = Counter((self._states or {}).values())
        if not states:
            ended = ", ".join(f"{count} {state}" for state, count in sorted(self._ended.items()))
            return "the queue is empty" + (f": {ended}" if ended else "")
        left = estimate.describe(estimate.of(self.store, self._root))
        why = look.hold_up(self.store, self._root, states["queued"])
        return f"{states['running']} running, {states['queued']} waiting; time left: {left}" + (
            f"; {why}" if why else ""
        )
