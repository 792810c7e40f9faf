"""`queue`: freeze a chain, and let a worker run it, or run it at once."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import IO

from skelebot import console
from skelebot.component import CheckLinks, Link, Session
from skelebot.components.jobs import freeze
from skelebot.components.jobs import sweep as sweeps
from skelebot.components.jobs.take_over import take_over
from skelebot.errors import Interrupted, UsageError
from skelebot.files import remove_tree
from skelebot.options import Values
from skelebot.runs import store as stores
from skelebot.runs import supervise, workspace
from skelebot.runs.record import RunRecord, TaskRecord
from skelebot.runs.store import Store
from skelebot.value_types import is_of


def queue(session: Session, values: Values, links: Sequence[Link], check: CheckLinks) -> int:
    """Freeze the chain and put it into the queue; with --now run it, with --wait see it to its end."""
    _check_options(values)
    store = stores.opened()
    store.check_writable()
    after = _numbers(store, ",".join(values["after"])) if "after" in values else ()  # type: ignore[arg-type]
    if sweeps.is_meant(values):
        return sweeps.queue(store, session, values, links, check, partial(_described, values, after))
    check(links, ())
    if session.flags.dry_run:
        return _describe(session, links)
    run = _described(values, after, freeze.freeze(store, session, links))
    outputs = ""
    try:
        if values.get("take-over"):
            earlier = store.get(int(str(values["take-over"])))
            run, outputs = take_over(store, run, earlier, links, bool(values.get("anyway")))
        if values.get("now"):
            run = run.becoming("running")
        (run,) = store.add([run], outputs)
    except BaseException:
        remove_tree(outputs)
        workspace.release(store, run, session.flags)
        raise
    if values.get("now"):
        console.info(f"run {run.number}")
        return _now(store, run, session)
    freeze.warn_of_unset(links)
    if values.get("wait"):
        console.info(f"run {run.number} waits for a worker")
        return _wait(store, run.number)
    console.out(str(run.number))
    return 0


def _check_options(values: Values) -> None:
    """Raise UsageError for options that mean nothing together, without another one, or without a word."""
    for name in ("name", "tag"):
        given = values.get(name)
        if given == "" or (isinstance(given, tuple) and "" in given):
            raise UsageError(f"queue: --{name} is empty; write a word, or leave out the option")
    for other in ("wait", "after"):
        if values.get("now") and values.get(other):
            raise UsageError(f"queue: --now and --{other} do not go together; leave out one of them")
    if values.get("anyway") and "take-over" not in values:
        raise UsageError("queue: --anyway is for --take-over RUN; add that, or leave it out")


def _described(values: Values, after: tuple[int, ...], run: RunRecord) -> RunRecord:
    """Return the run with the words to find it by, and when it starts."""
    return replace(
        run,
        name=str(values.get("name", "")),
        tags=tuple(dict.fromkeys(values.get("tag", ()) or ())),  # type: ignore[arg-type]
        note=str(values.get("note", "")),
        priority=int(str(values.get("priority", "0"))),
        after=after,
    )


def _numbers(store: Store, text: str) -> tuple[int, ...]:
    """Return the runs to come after. Raises UsageError for one that there is not."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not is_of("int", word):
            raise UsageError(
                f"--after: expected numbers of runs, such as 41,42; found {console.one_line(word)!r}"
            )
        store.get(int(word))
    return tuple(dict.fromkeys(map(int, words)))


def _describe(session: Session, links: Sequence[Link]) -> int:
    """Show what would be queued."""
    for link in links:
        link.command.run(link.session, link.values)
    console.info("nothing was queued, because of --dry-run")
    return 0


# --- in front ---


def _now(store: Store, run: RunRecord, session: Session) -> int:
    """Run it in front: its streams are this terminal's, its exit code the job's."""
    lock = supervise.take(store, run.number)
    if lock is None:  # a worker took it for one that nobody attends to
        return _wait(store, run.number)
    with lock:
        ended = supervise.supervise(store, run.number, session.flags, in_front=True)
    if ended.state in ("stopped", "queued"):
        console.error(f"run {run.number} was interrupted")
    return supervise.exit_code(ended)


# --- waiting for a worker ---


def _wait(store: Store, number: int) -> int:
    """Show what a run writes until it ends; return its exit code. Ctrl-C ends the waiting alone."""
    shown = _Shown(store)
    try:
        while True:
            run = store.get(number)
            shown.show(run)
            if run.has_ended:
                if run.state not in ("done", "failed"):  # of which its output says nothing
                    console.error(f"run {number} is {run.state}: {run.reason}")
                return supervise.exit_code(run)
            mark = store.mark()
            while store.mark() == mark and not shown.has_more():
                time.sleep(0.1)
    except Interrupted:
        console.info(
            f"run {number} goes on; `skelebot runs logs -f {number}` shows it, `runs stop {number}` ends it"
        )
        raise


class _Shown:
    """The logs of a run as far as they have been shown, one after the other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._at: tuple[int, int] = (0, 0)
        self._file: IO[bytes] | None = None

    def show(self, run: RunRecord) -> None:
        """Write what is new."""
        while True:
            self.has_more(write=True)
            following = self._following(run.tasks)
            if following is None:
                return
            path = os.path.join(workspace.attempt_folder(self._store, run, *following), "log")
            try:
                self._file = open(path, "rb")  # noqa: SIM115 - until the next one
            except OSError:
                return  # it is about to begin
            self._at = following

    def _following(self, tasks: Sequence[TaskRecord]) -> tuple[int, int] | None:
        """Return the next attempt that has begun, as the number of its task and its own."""
        begun = ((at, attempt) for at, task in enumerate(tasks) for attempt in range(1, task.attempt + 1))
        return next((each for each in begun if each > self._at), None)

    def has_more(self, write: bool = False) -> bool:
        if self._file is None:
            return False
        data = self._file.read()
        if data and not write:
            self._file.seek(-len(data), 1)
        if write:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        return bool(data)
