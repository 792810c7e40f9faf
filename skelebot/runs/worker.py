"""Work a queue off: each run in a process of its own, as many at once as there are slots."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType, MappingProxyType
from typing import IO, NamedTuple

from skelebot import console, foreground, process, runners
from skelebot.errors import STOPPING, SkelebotError, UsageError
from skelebot.files import open_lock, try_lock
from skelebot.model import NATIVE, Flags, Place
from skelebot.runners.attempts import Unreachable
from skelebot.runs import mirror, notify, places
from skelebot.runs.places import HERE, Machines
from skelebot.runs.record import RunRecord, State
from skelebot.runs.store import Candidate, Slots, Store
from skelebot.runs.supervise import exit_code, is_supervised, supervise, supervisor, take
from skelebot.wake import Waiting, awake

STOP = signal.SIGUSR1  # of `worker --stop`: however often it comes, runs go on to their end
PAUSED = "paused"  # the setting that keeps all workers from taking a run: why

_TICK = 0.1  # seconds between two looks at whether somebody has queued a run
_FEW = 20
_LOOK = 5.0  # seconds after which it looks anyway
_QUICK, _IN_A_ROW = 10.0, 5  # so many runs in a row that fail within so many seconds end the taking


class Plan(NamedTuple):
    """What a worker does.

    root: of the checkout whose runs it takes; None: all. slots: how many runs at once in each place.
    keep_free: bytes of disk.
    """

    root: str | None
    slots: Mapping[Place, int] = MappingProxyType({HERE: 1})
    drain: bool = False
    keep_free: int = 0


def work(store: Store, plan: Plan, flags: Flags) -> int:
    """Take runs until a signal ends it, or, to drain, until none is left; return the exit code."""
    _load()
    with _registered(store, plan), awake() as waiting, foreground.handled(_do_nothing, (signal.SIGCHLD,)):
        return _Worker(store, plan, flags).run(waiting)


def _load() -> None:
    """Import what every run needs, once for all processes that are forked."""
    import hashlib  # noqa: F401 - takes a tenth of a short run's time
    import queue  # noqa: F401 - with which code is read

    process.load()
    runners.at(NATIVE, Flags())


class _Child(NamedTuple):
    number: int
    began: float
    place: Place


class _Worker:
    def __init__(self, store: Store, plan: Plan, flags: Flags) -> None:
        self._store, self._plan, self._flags = store, plan, flags
        self._children: dict[int, _Child] = {}
        self._notifiers: set[int] = set()  # processes
        self._sender, self._is_sending_due = 0, False
        self._adopted: dict[int, Place] = {}
        self._machines = Machines(flags)
        self._who = process.identity(os.getpid())
        self._given_up: set[int] = set()
        self._requests = self._answered = self._quick_failures = 0
        self._has_failed = self._is_reported = False
        self._seen: tuple[int, ...] | None = None
        self._looked = 0.0

    def run(self, waiting: Waiting) -> int:
        on_stop = foreground.handled(self._on_stop, (STOP,))
        with foreground.handled(self._on_signal, STOPPING), on_stop:
            self._mirror()
            for place in self._plan.slots:
                if place != HERE:
                    self._machines.ask(place)
            while True:
                ended = self._reap() or self._has_to_look()
                is_idle = self._take(ended)
                is_alone = not self._children and not self._notifiers
                if is_alone and (self._requests or (self._plan.drain and is_idle)):
                    self._report_empty_queues()
                    if not self._notifiers:
                        break
                self._stop_if_asked()
                waiting.wait(seconds=_TICK)
        if self._plan.drain and not self._requests:
            self._report_rest()
        # A worker that was asked to end has done what it was asked for.
        return int(self._has_failed) if self._plan.drain else 0

    def _report_rest(self) -> None:
        """Say what is left in the queue as this worker has no place for it that answers."""
        left = len(self._store.numbers("queued", self._plan.root))
        if not left or self._store.setting(PAUSED):
            return
        runs = f"{console.counted(left, 'run')} left in the queue"
        if self._machines.silent:
            silent = " and ".join(map(str, self._machines.silent))
            console.error(f"{runs}, as no engine answers at {silent}")
            self._has_failed = True
        elif HERE not in self._plan.slots:
            console.warn(f"{runs}; what can run on this machine alone needs -j")

    def _free(self) -> list[Place]:
        """Return the places with a free slot that answer, this machine first."""
        used = Counter(child.place for child in self._children.values()) + Counter(self._adopted.values())
        open_ones = (place for place, slots in self._plan.slots.items() if used[place] < slots)
        return [place for place in open_ones if place == HERE or self._machines.answers(place)]

    def _has_to_look(self) -> bool:
        """Tell whether runs may have lost their supervisor, of which the database knows nothing."""
        is_late = time.monotonic() - self._looked > _LOOK
        return is_late or any(not is_supervised(self._store, number) for number in self._adopted)

    # --- starting ---

    def _take(self, ended: bool) -> bool:
        """Start what there is room for; tell whether nothing is left that this worker could start."""
        mark = self._store.mark()
        if self._requests or (mark == self._seen and not ended):
            return False
        self._seen, self._looked = mark, time.monotonic()
        for number, lock in _unattended(self._store, self._plan.root):
            if number in self._given_up:
                lock.close()
                continue
            console.info(f"going on with run {number}")
            self._start(number, lock)
        orphans = self._store.records(_orphans(self._store, self._plan.root))
        self._adopted = {run.number: places.home(run, self._plan.slots) for run in orphans}
        while free := self._free():
            if self._is_paused():
                return True
            claimed = claim(self._store, self._plan.root, tuple(self._plan.slots), free, self._machines)
            if claimed is None:
                self._report_empty_queues()
                return self._nothing_is_left()
            self._start(*claimed)
        return not self._children and not self._adopted and bool(self._machines.silent)

    def _nothing_is_left(self) -> bool:
        """Tell whether the queue is empty, or what is in it waits for runs that nobody runs."""
        if self._adopted:
            return False
        if not self._store.numbers("queued", self._plan.root, most=1):
            return True
        is_changed = self._store.mark() != self._seen  # one that was stopped may have stopped others
        return not is_changed and not any(
            is_supervised(self._store, number) for number in self._store.numbers("running")
        )

    def _is_paused(self) -> bool:
        if why := self._store.setting(PAUSED):
            if not self._is_reported:
                console.warn(f"the queue is paused: {why}; `skelebot runs resume` resumes it")
            self._is_reported = self._has_failed = True
            return True
        self._is_reported = False
        status = os.statvfs(self._store.folder)
        if status.f_bavail * status.f_frsize < self._plan.keep_free:
            free = console.size(status.f_bavail * status.f_frsize)
            self._pause(f"only {free} of the disk are free")
            return True
        return False

    def _pause(self, why: str) -> None:
        self._store.set(PAUSED, why)
        console.error(f"the queue is paused: {why}; `skelebot runs resume` resumes it")
        self._is_reported = self._has_failed = True

    def _start(self, number: int, lock: IO[str]) -> None:
        """Fork the process that supervises a run. No database is open here."""
        run = self._store.get(number)
        notify.note_busy(self._store, run)
        for task in run.tasks:
            runners.at(task.task.place, self._flags)  # imported once for all processes
        with foreground.uninterrupted():
            pid = os.fork()
            if pid == 0:
                os._exit(_supervise(self._store, number, self._flags, lock.fileno(), self._who))
        self._children[pid] = _Child(number, time.monotonic(), places.home(run, self._plan.slots))
        lock.close()  # the child has it

    # --- what has ended ---

    def _reap(self) -> bool:
        """Note which supervisors have ended; tell whether any has."""
        any_ended = False
        while self._children or self._notifiers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            any_ended = True
            self._notifiers.discard(pid)
            if pid == self._sender and self._is_sending_due:
                self._mirror()
            if child := self._children.pop(pid, None):
                self._note(child, os.waitstatus_to_exitcode(status))
        return any_ended

    def _note(self, child: _Child, code: int) -> None:
        console.info(f"run {child.number}: {_WORDS.get(code, 'its supervisor was killed')}")
        if code == _BROKEN:
            self._given_up.add(child.number)
        if code == _UNREACHABLE:
            self._note_silent(child)
        self._report_run(child.number)
        if code in (_CODES["failed"], _BROKEN):
            self._has_failed = True
            is_quick = time.monotonic() - child.began < _QUICK
            self._quick_failures = self._quick_failures + 1 if is_quick else 0
        elif code == _CODES["done"]:
            self._quick_failures = 0
        if self._quick_failures >= _IN_A_ROW:
            self._quick_failures = 0
            self._pause(
                f"{_IN_A_ROW} runs in a row failed within {_QUICK:.0f} seconds, the last was {child.number}"
            )

    def _note_silent(self, child: _Child) -> None:
        """Note that the place of a run does not answer, which is queued again."""
        with suppress(UsageError):  # it may have been removed
            run = self._store.get(child.number)
            self._machines.note_silent(run.engine or child.place, run.reason)

    # --- reporting ---

    def _report_run(self, number: int) -> None:
        with suppress(UsageError):  # somebody has removed it
            run = self._store.get(number)
            for task in run.tasks if run.state == "done" else ():
                if task.lost:
                    console.warn(f"run {number}: {task.job} had been killed, so it was started once more")
            if run.notify and run.has_ended:
                self._run_aside(partial(notify.run_ended, run, exit_code(run)))
        self._mirror()

    def _mirror(self) -> None:
        """Send what servers have not got yet, in one process at a time: each waits long for a silent one."""
        self._is_sending_due = self._sender in self._notifiers
        if not self._is_sending_due and mirror.has_pending(self._store):
            self._sender = self._run_aside(partial(mirror.send_pending, self._store))

    def _report_empty_queues(self) -> None:
        """Do so once all runs have been reported."""
        if self._children or self._notifiers:
            return
        if queues := notify.take_ended_queues(self._store, self._plan.root):
            self._run_aside(partial(notify.queues_ended, queues))

    def _run_aside(self, command: Callable[[], None]) -> int:
        """Run a project's command in a process of its own, as it may take its time; return its pid."""
        with foreground.uninterrupted():
            pid = os.fork()
            if pid == 0:
                os._exit(_in_fork(command))
        self._notifiers.add(pid)
        return pid

    # --- ending ---

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._requests += 1

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        self._requests = max(self._requests, 1)

    def _stop_if_asked(self) -> None:
        """At the second request, stop the runs and queue them again."""
        before, self._answered = self._answered, self._requests
        if before == self._requests:
            return
        if self._requests == 1:
            runs = console.counted(len(self._children), "run")
            console.info(f"waiting for {runs}; Ctrl-C once more stops them and queues them again")
        else:
            for pid, child in self._children.items():
                with suppress(ProcessLookupError, UsageError):  # it has ended, and may have been removed
                    self._store.update(child.number, lambda run: run.asked_to("queue"))
                    os.kill(pid, signal.SIGTERM)


# --- the process of a run ---

_CODES: dict[State, int] = {"done": 0, "failed": 1, "stopped": 3, "queued": 4, "pruned": 5}
_BROKEN = 70  # the exit code of a supervisor that could not go on
_UNREACHABLE = 69  # and of one whose run is queued again, as its place does not answer
_WORDS = {
    **{0: "done", 1: "failed", 3: "stopped", 4: "queued again", 5: "pruned"},
    _UNREACHABLE: "queued again, as its place does not answer",
    _BROKEN: "its supervisor could not go on; the next worker tries again",
}


def _supervise(store: Store, number: int, flags: Flags, lock: int, worker: str) -> int:
    """Supervise a run in a forked process, as the leader of a session of its own; return the exit code."""
    try:
        _lead_session(lock)
        for signum in STOPPING:
            signal.signal(signum, signal.SIG_IGN)  # forgets a Ctrl-C that was meant for the worker
            signal.signal(signum, foreground.raise_interrupted)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        return _CODES[supervise(store, number, flags, worker=worker).state]
    except Unreachable as error:
        if store.get(number).state == "queued":
            return _UNREACHABLE
        console.error(f"run {number}: {error}")
    except SkelebotError as error:
        console.error(f"run {number}: {error}")
    except BaseException as error:  # nothing may unwind into the worker's own code
        console.error(f"run {number}: its supervisor ended: {type(error).__name__}: {error}")
    return _BROKEN


def _in_fork(tell: Callable[[], None]) -> int:
    """Tell others of runs in a forked process; return the exit code."""
    try:
        _lead_session()
        for signum in STOPPING:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        tell()
        return 0
    except BaseException as error:  # nothing may unwind into the worker's own code
        console.error(f"nobody was told of runs: {type(error).__name__}: {error}")
        return 1


def _lead_session(*keep: int) -> None:
    """Let a forked process lead a session of its own, with nothing open but its streams and `keep`."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    process.close_others(keep)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


# --- which run is next ---


def claim(
    store: Store,
    root: str | None,
    slots: Sequence[Place] = (HERE,),
    free: Sequence[Place] = (HERE,),
    machines: Machines | None = None,
) -> tuple[int, IO[str]] | None:
    """Take the next run that can start; return its number and its lock, held. None if there is none.

    slots: the places of the worker; free: those of them with a free slot. A run that has to wait for CPUs,
    memory or GPUs keeps its place in the queue: what it needs of a machine is not given to later ones.
    """
    taken, states, machines = store.slots_in_use(), dict[int, str](), machines or Machines(Flags())
    for each in _waiting(store, root):
        if not _may_start(store, each.number, each.after, states) or not machines.answers(each.place):
            continue
        runs = store.records([each.number]) if each.slots.gpus else ()
        image = next((run.tasks[0].image for run in runs), None)
        place, machine = places.choose(each, slots, free, taken, partial(machines.capacity, image=image))
        if machine:
            taken[machine] = taken.get(machine, Slots()).plus(each.slots)
        lock = take(store, each.number) if place else None
        if place is None or lock is None:
            continue
        try:
            store.update(each.number, partial(_begun, place=place))
        except (ValueError, UsageError):  # somebody else was faster, or has removed it
            lock.close()
            continue
        return each.number, lock
    return None


def _begun(run: RunRecord, place: Place) -> RunRecord:
    """Return a queued run as it begins in a place."""
    running = run.becoming("running")
    return running if place in (HERE, run.engine) else running.at_place(place)


def _waiting(store: Store, root: str | None) -> Iterator[Candidate]:
    """Yield the queued runs in their order; of thousands, mostly the first few are asked for."""
    first = store.waiting(root, most=_FEW)
    yield from first
    if len(first) == _FEW:
        yield from (each for each in store.waiting(root) if each not in first)


def _may_start(store: Store, number: int, after: Sequence[int], states: dict[int, str]) -> bool:
    """Tell whether the runs that a run comes after are done; where one is not to be, it becomes stopped.

    states: what is known of such runs, each of which is asked for once.
    """
    if unknown := [each for each in after if each not in states]:
        states |= dict.fromkeys(unknown, "removed") | store.states(unknown)
    for other in after:
        if states[other] in ("failed", "stopped", "pruned", "removed"):
            why = f"run {other}, which it comes after, is {states[other]}"
            with suppress(ValueError, UsageError):
                store.update(number, partial(RunRecord.becoming, state="stopped", reason=why))
                states.pop(number, None)
            return False
    return all(states[other] == "done" for other in after)


def _unattended(store: Store, root: str | None) -> Iterator[tuple[int, IO[str]]]:
    """Yield the runs whose supervisor has died, with their locks, held."""
    for number in store.numbers("running", root):
        lock = take(store, number)
        if lock is None:
            continue
        run = next(iter(store.records([number])), None)
        if run is None or run.state != "running":
            lock.close()
        elif run.own:
            yield number, lock
        else:
            store.update(number, lambda run: run.becoming("failed", "the process that ran it was killed"))
            lock.close()


def _orphans(store: Store, root: str | None) -> Iterator[int]:
    """Yield the runs whose worker has died and whose supervisor lives; they take slots, too."""
    for number in store.numbers("running", root):
        who = supervisor(store, number)
        if who and who.worker and not process.is_alive(who.worker):
            yield number


# --- which workers there are ---


@contextmanager
def _registered(store: Store, plan: Plan) -> Iterator[None]:
    """Note this worker while the block lasts."""
    folder = os.path.join(store.folder, "workers")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, str(os.getpid()))
    with open_lock(f"{path}.new") as lock:
        try_lock(lock)
        slots = {places.name(place): count for place, count in plan.slots.items()}
        facts = {
            **{"pid": os.getpid(), "root": plan.root, "slots": sum(slots.values()), "places": slots},
            "started": time.time(),
        }
        lock.write(json.dumps(facts))
        lock.flush()
        os.rename(lock.name, path)  # whole and held, so that nobody takes it for a killed one's
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(path)


def workers(store: Store) -> list[dict[str, object]]:
    """Return what the living workers have noted: process, checkout, slots in all and by place, start."""
    folder, found = os.path.join(store.folder, "workers"), []
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    for name in sorted(filter(str.isdecimal, names), key=int):  # the others are logs
        path = os.path.join(folder, name)
        with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            if try_lock(file, shared=True):
                os.unlink(path)  # of one that was killed
            else:
                found.append(json.loads(file.read()))
    return found


def _do_nothing(signum: int, frame: FrameType | None) -> None: ...
