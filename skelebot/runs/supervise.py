"""Run a recorded run to its end, from wherever it stands.

Whoever supervises a run holds its lock. An attempt is noted before it begins, holds a lock of its own while
it lives, and leaves its exit code even if nobody waits for it. So it is always known whether a task has run,
runs, or never began, and a supervisor that takes the place of a killed one goes on where that one was.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import IO, Literal, NamedTuple, NoReturn

from skelebot import console, foreground, process, runners
from skelebot.errors import STOPPING, Interrupted, SkelebotError
from skelebot.files import open_lock, reason, replace_file, try_lock
from skelebot.model import Flags, Place, Run, Task
from skelebot.pipeline import contents
from skelebot.runners import attempts
from skelebot.runners.attempts import Lost, Unreachable
from skelebot.runners.runner import Launch, Runner
from skelebot.runs import cache, machine, measure, mirror, notify, prune, sampler, workspace
from skelebot.runs.measure import Measured, Reading
from skelebot.runs.record import RunRecord, State
from skelebot.runs.store import Store

_VARIABLE = "SKELEBOT_ATTEMPT"  # which attempt it is, from 1


_PATIENCE = 2.0  # seconds between two looks at a place that does not answer


class Asked(Exception):
    """The run was asked to end. code: the job's, if that has ended since."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__()
        self.code = code


def take(store: Store, number: int) -> IO[str] | None:
    """Return the lock of a run, held; None if somebody supervises or has removed it. Raises SkelebotError."""
    path = os.path.join(store.run_folder(number), "lock")
    try:
        lock = open_lock(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SkelebotError(f"{path} cannot be opened: {reason(error)}") from None
    if try_lock(lock):
        return lock
    lock.close()
    return None


def is_supervised(store: Store, number: int) -> bool:
    """Tell whether somebody holds the lock of a run."""
    path = os.path.join(store.run_folder(number), "lock")
    with suppress(OSError), open(path, encoding="ascii") as lock:
        return not try_lock(lock, shared=True)
    return False


class Supervisor(NamedTuple):
    """The process that supervises a run, and the one that has started it, by their `process.identity`."""

    own: str
    worker: str = ""


def supervisor(store: Store, number: int) -> Supervisor | None:
    """Return who supervises a run; None if nobody does, or has noted it."""
    with suppress(OSError, TypeError), open(_note(store, number), encoding="ascii") as file:
        who = Supervisor(*file.read().split("\n"))
        return who if process.is_alive(who.own) else None
    return None


def note_supervisor(store: Store, number: int, worker: str = "") -> None:
    """Note that this process supervises a run, and which one has started it."""
    who = Supervisor(process.identity(os.getpid()), worker)
    with suppress(OSError):  # who is asked to end it; without it, it cannot be stopped
        replace_file(_note(store, number), "\n".join(who).encode("ascii"))


def _note(store: Store, number: int) -> str:
    return os.path.join(store.run_folder(number), "supervisor")


def supervise(store: Store, number: int, flags: Flags, in_front: bool = False, worker: str = "") -> RunRecord:
    """Run the tasks of a run that are not done; return the run as it ended. The caller holds its lock.

    in_front: whether the output goes to this process's streams besides each attempt's own log; otherwise
    those streams become the log's. worker: the identity of the process that has started this one.
    """
    note_supervisor(store, number, worker)
    try:
        run = _to_end(store, number, flags, in_front)
    except Interrupted:
        # What has ended meanwhile counts, and what still runs is ended.
        with foreground.uninterrupted():
            store.update(number, lambda run: run if run.asked else run.asked_to(_default(in_front)))
            run = _to_end(store, number, flags, in_front)
    workspace.remove_copy(store, number)
    if run.own and run.state == "done":
        workspace.forget_elsewhere(store, run, flags)
    if run.has_ended and (in_front or not process.is_alive(worker)):  # otherwise that does it
        notify.run_ended(run, exit_code(run))
        mirror.send_pending(store, run if in_front else None)
    return run


def _to_end(store: Store, number: int, flags: Flags, in_front: bool) -> RunRecord:
    run = store.get(number)
    if run.state != "running":  # it had just been noted how it ended
        return run
    try:
        if any(task.blanks for task in run.tasks) and not run.asked:
            run = sampler.choose(store, number)
        for at, task in enumerate(run.tasks):
            if task.state != "done":
                run = _Supervision(store, number, at, flags, in_front).task_to_end()
                if run.tasks[at].state != "done":
                    return _end(store, number, run.tasks[at].state, f"{task.job} failed: {run.reason}")
        return _end(store, number, "done", "")
    except Asked as asked:
        code = asked.code
        return store.update(number, lambda run: _as_asked(run, run.asked or _default(in_front), code))
    except SkelebotError as error:
        if not any(task.blanks for task in store.get(number).tasks):
            raise
        return _end(store, number, "failed", str(error))


def exit_code(run: RunRecord) -> int:
    """Return the exit code of a run that has ended: that of the task at which it did."""
    codes = [task.code for task in run.tasks if task.code]
    return 0 if run.state == "done" else codes[-1] if codes else 130 if run.state == "stopped" else 1


def _end(store: Store, number: int, state: State, why: str) -> RunRecord:
    """Note how a run ends; with --fail-fast, what waits of its sweep becomes stopped in the same moment."""

    def rest(run: RunRecord) -> RunRecord:
        return run.becoming("stopped", f"run {number} of the sweep failed, and it has --fail-fast")

    sweep = store.get(number).sweep if state == "failed" else None
    return store.update(
        number,
        lambda run: run.becoming(state, "" if state == "done" else why),
        waiting=rest if sweep and sweep.fail_fast else None,
    )


def _default(in_front: bool) -> Literal["stop", "queue"]:
    """Return what a signal means: Ctrl-C stops a run in front; the end of the machine queues the others."""
    return "stop" if in_front else "queue"


_BECOMES: dict[str, State] = {"stop": "stopped", "queue": "queued", "prune": "pruned"}


def _as_asked(run: RunRecord, asked: Literal["stop", "queue", "prune"], code: int | None) -> RunRecord:
    """Return the run as it was asked to become. code: of the job that has ended by that."""
    at = next((at for at, task in enumerate(run.tasks) if task.state != "done"), None)
    state = _BECOMES[asked]
    if at is not None:
        run = run.with_task(at, state=state, ended=time.time(), code=None if state == "queued" else code)
    return run.becoming(state, "it was stopped" if state == "stopped" else run.reason)


class _Supervision:
    """One task of a run, and its attempts until it is done or has failed for good."""

    def __init__(self, store: Store, number: int, at: int, flags: Flags, in_front: bool) -> None:
        self._store, self._number, self._at = store, number, at
        self._flags, self._in_front = flags, in_front
        self._streams, self._asked = process.OWN, False
        self._has_begun = self._was_away = False
        self._log: int | None = None  # where this process's own streams are not the log
        self._reading = Reading("")
        self._noted, self._is_hopeless = Measured(), False

    def task_to_end(self) -> RunRecord:
        """Run the task's attempts, or go on with the one that another supervisor began.

        Raises Asked, and Unreachable once the run is queued again as its place did not answer.
        """
        run = self._store.get(self._number)
        goes_on = run.tasks[self._at].state == "running"
        while True:
            if not goes_on:
                self._check_asked(run)
                run = self._begin(run.tasks[self._at].task)
            self._open_log(run)
            self._reading = Reading(self._folder(run), run.tasks[self._at].metric_patterns)
            try:
                code, why = self._adopted(run) if goes_on else self._attempt(run)
                run = self._ended(code, why)
            except Lost as error:
                run = self._lost(str(error))
            except Unreachable as error:
                if not (goes_on or self._has_begun):
                    self._put_back(error)
                self._reading.close()
                self._wait_for_place(error)
                goes_on = True
                continue
            except Asked:
                self._note(self._all_measured())
                raise
            task, goes_on = run.tasks[self._at], False
            if task.state in ("done", "failed"):
                return run
            if task.code and not task.lost:
                time.sleep(min(2 ** (task.failures - 1), 60))

    # --- one attempt ---

    def _begin(self, task: Task) -> RunRecord:
        """Note that an attempt begins."""
        here = machine.of(task)

        def begin(run: RunRecord) -> RunRecord:
            attempt = run.tasks[self._at].attempt + 1
            run = run.with_task(self._at, state="running", attempt=attempt, code=None, machine=here)
            return run.with_task(self._at, taken_from=0, started=time.time(), ended=0.0, **Measured().changes)

        self._has_begun = self._was_away = False
        run = self._store.update(self._number, begin)
        os.makedirs(self._folder(run), exist_ok=True)
        return run

    def _folder(self, run: RunRecord) -> str:
        return workspace.attempt_folder(self._store, run, self._at, run.tasks[self._at].attempt)

    def _open_log(self, run: RunRecord) -> None:
        """Let this process write to the attempt's log, before anything can go wrong that belongs there."""
        os.makedirs(self._folder(run), exist_ok=True)
        log = os.open(os.path.join(self._folder(run), "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self._in_front:
            self._log = log
            self._streams = process.with_log(process.OWN, log)
            return
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, stream in enumerate((nothing, log, log)):
            os.dup2(stream, number)
        os.close(log)
        os.close(nothing)

    def _attempt(self, run: RunRecord) -> tuple[int, str]:
        """Run an attempt to its end; return its exit code, and why it failed. Raises Lost and Asked."""
        record = run.tasks[self._at]
        with ExitStack() as held:
            try:
                run = self._with_data(run)
                key = cache.key(self._store, run, self._at) if record.cache and run.own else ""
                held.enter_context(cache.alone(self._store, key))
                if key and (number := cache.take_over(self._store, run, self._at, key)):
                    console.info(f"{record.job} has been done by run {number}, whose outputs are taken over")
                    self._store.update(self._number, lambda run: run.with_task(self._at, taken_from=number))
                    return self._checked(run, 0, key)
                image, task = workspace.prepared(self._store, run, self._at)
                runner = runners.at(task.place, self._flags)
                run = mirror.begin(self._store, run)
                of_mirror = mirror.variables(run, task, runner.is_far)
                task = replace(task, env=(*task.env, (_VARIABLE, str(record.attempt)), *of_mirror))
                if task.place in run.taken_to:
                    image = runner.receive(image, workspace.tag(run.uid), Place())
                with runner.prepare(image, task) as ready:
                    if task.place.is_native:  # whose environment may just have been rebuilt
                        runner.pin(ready, workspace.tag(run.kept_as or run.uid))

                    def start(launch: Launch) -> Run:
                        self._has_begun = True
                        return runner.start(ready, task, self._streams, launch)

                    code = self._attend(start, runner)
            except Lost:
                raise
            except SkelebotError as error:
                if isinstance(error, Unreachable) and (self._has_begun or not self._in_front):
                    raise
                self._report(str(error))
                return error.code, str(error)
            self._end_leftovers(task)
            return self._checked(run, code, key)

    def _with_data(self, run: RunRecord) -> RunRecord:
        """Store the fingerprints of what the task reads as it is now, which may take long; return the run."""
        mounted = {mount.source for mount in run.tasks[self._at].task.mounts}
        now = {path: workspace.fingerprint(self._store, path) for path, _ in run.data if path in mounted}
        for path, mark in run.data:
            if now.get(path, mark) != mark:
                console.warn(f"{path} has changed since the run was queued")
        data = tuple((path, now.get(path, mark)) for path, mark in run.data)
        if data == run.data:
            return run
        return self._store.update(self._number, lambda run: replace(run, data=data))

    def _adopted(self, run: RunRecord) -> tuple[int, str]:
        """Wait for an attempt that another supervisor began. Raises Lost and Asked."""
        attempt = workspace.attempt_of(self._store, run, self._at)
        task = replace(run.tasks[self._at].task, attempt=attempt, metrics=workspace.metrics_file(attempt))
        code = attempts.code(attempt)
        if code is None:
            runner = runners.at(task.place, self._flags)
            adopted = runner.adopt(task)
            if adopted is None:
                code = attempts.code(attempt)  # it may have ended since
                if code is None:
                    has_begun = os.path.exists(os.path.join(attempt.folder, "run"))
                    raise Lost(f"{task.name} and all of its processes were killed" if has_begun else "")
            else:
                code = self._attend(lambda launch: adopted, runner, bool(run.asked))
                if self._was_away and code in attempts.KILLED:
                    raise Lost(f"{task.name} was killed while {task.place} did not answer")
        self._end_leftovers(task)
        return self._checked(run, code)

    def _attend(self, start: Callable[[Launch], Run], runner: Runner, end_it: bool = False) -> int:
        """Wait for a run, and pass signals on. Raises Asked if one of them asked it to end.

        end_it: whether to ask it to end at once. Without a terminal, what does not end by itself is killed.
        """

        def passed_on(run: Run, signum: int, delivered: bool) -> None:
            if signum in STOPPING and not self._asked:
                self._asked = True
                if end_it or self._is_hopeless or not self._in_front:
                    process.in_thread(_kill_later, run, runner.signal)
            runner.signal(run, signum, delivered)

        def wait_for(run: Run) -> int:
            if end_it:
                passed_on(run, signal.SIGTERM, False)
            with measure.live(self._reading, partial(runner.bring_metrics, run), self._note):
                return runner.wait(run)

        try:
            code = foreground.attend(start, wait_for, passed_on)
        except Lost:
            if not self._asked:  # otherwise it was killed because it did not end
                raise
            raise Asked from None
        if self._asked:
            raise Asked(code)
        return code

    def _report(self, text: str) -> None:
        """Say what went wrong, also in the log."""
        console.error(text)
        if self._log is not None:
            os.write(self._log, f"ERROR | {text}\n".encode("utf-8", "replace"))

    # --- what it measures ---

    def _note(self, measured: Measured) -> None:
        """Store what has been measured, and end a run that is hopeless by it."""
        if measured == self._noted:
            return
        run = self._store.update(self._number, lambda run: run.with_task(self._at, **measured.changes))
        self._noted = measured
        if run.asked or run.has_ended or not (why := prune.hopeless(self._store, run)):
            return
        # As by `runs stop`: it is noted before the signal has an effect.
        self._store.update(
            self._number, lambda run: run if run.asked else replace(run.asked_to("prune"), reason=why)
        )
        self._is_hopeless = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _all_measured(self, is_done: bool = False) -> Measured:
        """Return all that the attempt has measured, once it has ended."""
        run = self._store.get(self._number)
        return measure.finished(self._store, run, self._at, self._reading, self._warn, is_done)

    def _warn(self, text: str) -> None:
        """Say what is doubtful, also in the log."""
        console.warn(text)
        if self._log is not None:
            os.write(self._log, f"WARN  | {text}\n".encode("utf-8", "replace"))

    def _checked(self, run: RunRecord, code: int, key: str = "") -> tuple[int, str]:
        """Return the code, or another where a task that ended with 0 has not made what it declares.

        key: by which other runs find what it has made.
        """
        task = run.tasks[self._at]
        if code:
            return code, f"it ended with exit code {code}"
        top = workspace.outputs_folder(self._store, run)
        try:
            lacking = contents.missing(top, workspace.results(task))
            made = workspace.made(self._store, run, self._at) if key and not lacking else ""
        except SkelebotError as error:  # of what the job has left
            self._report(f"{task.job}: {error}")
            return error.code, str(error)
        if lacking:
            why = f"it ended with 0 but left nothing in {', '.join(map(str, lacking))}"
            self._report(f"{task.job}: {why}")
            return 1, why
        if key:
            self._store.update(self._number, lambda run: run.with_task(self._at, key=key, made=made))
            self._store.note_made(key, self._number, self._at)
        return 0, ""

    def _end_leftovers(self, task: Task) -> None:
        """End what a native job has left running, which would hold what the next run needs."""
        assert task.attempt
        for signum in (signal.SIGTERM, signal.SIGKILL) if task.place.is_native else ():
            until = time.monotonic() + 1
            while attempts.is_held(task.attempt) and time.monotonic() < until:
                attempts.signal_holders(task.attempt, signum)
                time.sleep(0.02)

    # --- a place that does not answer ---

    def _put_back(self, error: Unreachable) -> NoReturn:
        """Queue the run again, of which nothing has begun in a place that does not answer."""

        def put_back(run: RunRecord) -> RunRecord:
            return run.with_task(self._at, state="queued", ended=time.time()).becoming("queued", str(error))

        self._report(str(error))
        self._store.update(self._number, put_back)
        raise error

    def _wait_for_place(self, error: Unreachable) -> None:
        """Wait a moment, as the job may still run in its place. Raises Asked."""
        run = self._store.get(self._number)
        if run.asked == "stop":
            self._report(f"{error}; {run.tasks[self._at].job} may still run there")
            raise Asked
        if run.asked:  # whoever supervises it next ends what runs there
            raise error
        if not self._was_away:
            console.warn(f"{error}; {run.tasks[self._at].job} may still run there, so the run waits for it")
            self._was_away = True
        time.sleep(_PATIENCE)

    # --- its end ---

    def _ended(self, code: int, why: str) -> RunRecord:
        """Note how an attempt ended: the task is done, has failed, or is tried again."""

        measured = self._all_measured(is_done=code == 0)

        def end(run: RunRecord) -> RunRecord:
            run = run.with_task(self._at, **measured.changes)
            task = run.tasks[self._at]
            failures = task.failures + (code != 0)
            state: State = "done" if code == 0 else "failed" if failures > task.retries else "queued"
            changed = run.with_task(self._at, state=state, code=code, failures=failures, ended=time.time())
            return replace(changed, reason=why)

        return self._store.update(self._number, end)

    def _lost(self, why: str) -> RunRecord:
        """Note that an attempt died unseen; it is repeated once. why: "" if it never began."""

        measured = self._all_measured()

        def lose(run: RunRecord) -> RunRecord:
            run = run.with_task(self._at, **measured.changes)
            task = run.tasks[self._at]
            state: State = "failed" if why and task.lost else "queued"
            changed = run.with_task(self._at, state=state, lost=task.lost or bool(why), ended=time.time())
            return replace(changed, reason=why)

        if why:
            console.warn(why)
        return self._store.update(self._number, lose)

    def _check_asked(self, run: RunRecord) -> None:
        if run.asked:
            raise Asked


def _kill_later(run: Run, send: Callable[[Run, int, bool], None]) -> None:
    """End what does not end after it was asked to; the process that waits for it ends with it."""
    time.sleep(foreground.GRACE)
    with suppress(SkelebotError):
        send(run, signal.SIGKILL, False)
