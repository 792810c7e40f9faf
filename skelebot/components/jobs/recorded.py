"""Record jobs that are run without `queue`, in place: `components.experiments: {record: true}`."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import IO

from skelebot import console
from skelebot.component import Link, Session
from skelebot.components.jobs import freeze
from skelebot.errors import STOPPING, SkelebotError
from skelebot.model import Job
from skelebot.pipeline import contents
from skelebot.runs import machine, measure, metrics, mirror, supervise, workspace
from skelebot.runs import store as stores
from skelebot.runs.measure import Measured, Reading
from skelebot.runs.record import RunRecord, State
from skelebot.runs.store import Store


@contextmanager
def recorded(links: Sequence[Link]) -> Iterator[list[Link]]:
    """Yield the links of a chain so that they record what they run, as one run.

    What cannot be recorded is reported, and run anyway.
    """
    recording = _Recording(links)
    try:
        yield [
            link._replace(session=link.session._replace(record=partial(recording.task, at)))
            if link.command.job
            else link
            for at, link in enumerate(links)
        ]
    finally:
        recording.end()


class _Recording:
    """The run of a chain, which is added to the store when its first job begins."""

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = links
        jobs = [at for at, link in enumerate(links) if link.command.job]
        self._places = {at: place for place, at in enumerate(jobs)}
        self._store: Store | None = None
        self._number = 0
        self._lock: IO[str] | None = None
        self._is_off = False
        self._beginning = threading.Lock()  # with -j, jobs begin at once

    def task(self, at: int, session: Session, run: Callable[[Session], int]) -> int:
        """Run a job with its output in a log as well, and note how it ends."""
        place, code = self._places[at], -1
        folder = self._noted(lambda: self._begin(place))
        if folder is None:
            return run(session._replace(record=None))
        own = session._replace(
            record=None,
            log=os.path.join(folder, "log"),
            metrics=os.path.join(folder, metrics.NAME),
            note_image=lambda id: self._noted(lambda: self._note_image(place, id)),
        )
        reading = self._reading(place, folder)
        try:
            with measure.live(reading, _nothing_to_bring, partial(self._note_metrics, place)):
                code = run(own)
        except SkelebotError as error:
            code = error.code
            raise
        finally:
            self._noted(lambda: self._ended(place, code, reading))
        return code

    def _reading(self, place: int, folder: str) -> Reading:
        job = self._job(place)
        return Reading(folder, job.metric_patterns if job else ())

    def _job(self, place: int) -> Job | None:
        return [link for link in self._links if link.command.job][place].command.job

    def _note_metrics(self, place: int, measured: Measured) -> None:
        if self._store and not self._is_off:
            self._store.update(self._number, lambda run: run.with_task(place, **measured.changes))

    def _noted(self, note: Callable[[], str]) -> str | None:
        """Write to the store; from the first failure on, nothing is recorded any more."""
        if self._is_off:
            return None
        try:
            return note()
        except (SkelebotError, OSError, ValueError) as error:
            self._is_off = True
            console.warn(f"this run is not recorded: {error}")
            return None

    def _begin(self, place: int) -> str:
        with self._beginning:
            if self._store is None:
                store = stores.opened()
                (run,) = store.add([freeze.in_place(store, self._links).becoming("running")])
                self._number, self._lock = run.number, supervise.take(store, run.number)
                supervise.note_supervisor(store, run.number)
                self._store = store
                mirror.begin(store, run)
        run = self._store.update(
            self._number,
            lambda run: run.with_task(
                place,
                state="running",
                attempt=run.tasks[place].attempt + 1,
                started=time.time(),
                machine=machine.of(run.tasks[place].task),
            ),
        )
        folder = workspace.attempt_folder(self._store, run, place, run.tasks[place].attempt)
        os.makedirs(folder)
        return folder

    def _note_image(self, place: int, id: str) -> str:
        def note(run: RunRecord) -> RunRecord:
            image = run.tasks[place].image
            changed = run.with_task(place, image=replace(image, pinned=id))
            return replace(changed, images=tuple({**dict(run.images), image.tag: id}.items()))

        if id and self._store:
            self._store.update(self._number, note)
        return ""

    def _ended(self, place: int, code: int, reading: Reading) -> str:
        assert self._store
        run = self._store.get(self._number)
        measured = measure.finished(self._store, run, place, reading, console.warn, code == 0)
        state: State = "done" if code == 0 else "stopped" if code < 0 or code - 128 in STOPPING else "failed"
        job = self._job(place)
        root = self._links[0].session.project.root
        made = [contents.outputs(root, [each]) for each in (job.results if job and code == 0 else ())]
        marks = " ".join(each.fingerprint() for each in made)  # one for each output, for `rerun --check`
        self._store.update(
            self._number,
            lambda run: run.with_task(
                place,
                state=state,
                code=code if code >= 0 else None,
                ended=time.time(),
                made=marks,
                **measured.changes,
            ),
        )
        return ""

    def end(self) -> None:
        if self._store and not self._is_off:
            self._noted(self._end)
        if self._lock:
            self._lock.close()

    def _end(self) -> str:
        assert self._store
        mirror.send_pending(self._store, self._store.update(self._number, _ended))
        return ""


def _nothing_to_bring() -> bool:
    """What a far job measures comes when it has ended."""
    return False


def _ended(run: RunRecord) -> RunRecord:
    """Return the run in the state of its tasks; those that were up to date count as done."""
    states = {task.state for task in run.tasks}
    state: State = (
        "failed" if "failed" in states else "stopped" if {"stopped", "running"} & states else "done"
    )
    failed = next((task for task in run.tasks if task.state == "failed"), None)
    why = f"{failed.job} ended with exit code {failed.code}" if failed else ""
    for at, task in enumerate(run.tasks):
        if task.state == "queued" and state == "done":
            run = run.with_task(at, state="done")
    return run.becoming(state, why)
