"""Run tasks on this machine, in the project's own Python environment."""

import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from skelebot import console, foreground, process
from skelebot.errors import STOPPING, TIMED_OUT, SkelebotError
from skelebot.files import reason
from skelebot.model import NATIVE, Image, Place, Project, Run, Step, Task
from skelebot.process import OWN, Streams
from skelebot.project.state import FOLDER
from skelebot.runners import attempts, limits
from skelebot.runners.attempts import Lost
from skelebot.runners.folders import make_folders
from skelebot.runners.native import environment, records
from skelebot.runners.native.environment import Environment
from skelebot.runners.native.held import Held, hold
from skelebot.runners.native.records import Record
from skelebot.runners.runner import Capacity, Cleaned, Launch, Removed, no_records, superseded

if TYPE_CHECKING:
    import threading
    from types import FrameType

    import psutil


@dataclass(repr=False, eq=False)
class _Live:
    """A run that this process has started.

    tree: the processes of the job. held: what else the run has. ended: tells the thread that watches its
    timeout. asked, timed_out: why it was asked to end.
    """

    record: Record
    program: process.Program
    tree: "_Tree"
    held: Held
    timeout: float
    ended: "threading.Event | None" = None
    asked: bool = False
    timed_out: bool = False


class Native:
    """The processes of this machine."""

    def __init__(self, verbose: bool = False) -> None:
        self._verbose = verbose
        self._live: dict[str, _Live] = {}
        self._adopted: dict[str, Task] = {}

    @property
    def place(self) -> Place:
        return NATIVE

    @property
    def is_far(self) -> bool:
        return False

    def check(self, image: Image, task: Task) -> None:
        environment.check(task)

    def describe(self, image: Image, task: Task, described: set[str]) -> list[str]:
        lines = [f"run      {process.display(Step(task.argv))}", f"where    natively, in {task.root}"]
        if environment.is_needed(task):
            lines.append(f"python   {FOLDER}/{task.venv}, with {', '.join(task.dependencies)}")
        lines += limits.describe(task)
        return lines + [f"variable {name}" for name, _ in task.env]

    def surroundings(self, image: Image, task: Task) -> dict[str, str]:
        return {"environment": environment.digest(task)}

    @contextmanager
    def prepare(self, image: Image, task: Task) -> Iterator[Environment]:
        """Make the task's environment where it is missing; it is not replaced while the block lasts."""
        limits.check_disk(task, task.root)
        with environment.ensure_environment(task, self._verbose) as prepared:
            yield prepared

    def image_id(self, prepared: Environment) -> str:
        return ""

    def pin(self, prepared: Environment, name: str) -> str:
        if prepared.folder:
            environment.keep(prepared, name)
        return ""

    def capacity(self, image: Image | None = None) -> Capacity:
        return limits.capacity(with_gpus=image is not None)

    def receive(self, image: Image, name: str, source: Place) -> Image:
        return image

    def packages(self, prepared: Environment, task: Task) -> list[str]:
        return environment.packages(prepared)

    def unpin(self, image: Image, name: str) -> None: ...

    # --- starting and waiting ---

    def start(
        self, prepared: Environment, task: Task, streams: Streams = OWN, launch: Launch = nullcontext
    ) -> Run:
        """Start the job's process in the project's root; a detached one goes on without Skelebot."""
        make_folders(task)
        if task.is_detached:
            return self._detach(prepared, task)
        record, held = Record.create(task), Held()
        try:
            held = hold(task)
            step = held.step(task, prepared)
            process.trace(self._verbose, step)
            with launch():
                program = process.start(step, streams, (*record.fds, *held.fds))
        except BaseException:
            record.remove()
            held.end()
            raise
        record.write(program.pid)
        self._watch(record, program, held, task)
        return record.run()

    def _watch(self, record: Record, program: process.Program, held: Held, task: Task) -> None:
        """Note a run of this process, and end it after its timeout."""
        tree = _Tree(process.identity(program.pid))
        live = self._live[record.id] = _Live(record, program, tree, held, task.timeout)
        if task.timeout:
            import threading  # only for a job with a limit

            live.ended = threading.Event()
            process.in_thread(_expire, live, live.ended)

    def adopt(self, task: Task) -> Run | None:
        attempt = task.attempt
        if attempt is None or (attempts.code(attempt) is None and not attempts.is_held(attempt)):
            return None
        self._adopted[attempt.folder] = task
        return Run(attempt.folder, attempt.folder, task.project, task.name, NATIVE, root=task.root)

    def wait(self, run: Run) -> int:
        live = self._live.get(run.id)
        if live is None:
            return self._wait_adopted(run) if run.id in self._adopted else records.wait(run)
        code = live.program.wait()
        if live.ended:
            live.ended.set()
        if live.asked or live.timed_out:
            live.tree.settle()
        if live.timed_out and not live.asked:
            limit = console.counted(live.timeout, "second")
            console.error(f"the job was ended: it took longer than its timeout of {limit}")
            code = TIMED_OUT
        if live.held.end() and code and not live.asked and not live.timed_out:
            console.error(limits.out_of_memory(live.record.task))
        del self._live[run.id]
        live.record.end(code)
        return code

    def _wait_adopted(self, run: Run) -> int:
        """Wait for an attempt that another process started, and end it after its timeout."""
        task, tree = self._adopted[run.id], _tree_of(run)
        assert task.attempt
        until = records.began(run) + task.timeout if task.timeout else math.inf
        has_expired = False
        while (code := attempts.code(task.attempt)) is None:
            if not attempts.is_held(task.attempt) and attempts.code(task.attempt) is None:
                if has_expired:  # it was killed
                    break
                raise Lost(f"it is unknown how {task.name} ended: its processes were killed")
            if time.time() > until:
                tree.send(signal.SIGKILL if has_expired else signal.SIGTERM)
                has_expired, until = True, time.time() + foreground.GRACE
            time.sleep(0.05)
        return TIMED_OUT if has_expired or code is None else code

    def signal(self, run: Run, signum: int, delivered: bool = False) -> None:
        """Send a signal to the job and to all that it has started, also behind a shell."""
        live = self._live.get(run.id)
        if live is None:
            if run.id in self._adopted:
                _tree_of(run).send(signum)
            return
        live.asked = live.asked or signum in (*STOPPING, signal.SIGKILL)
        if delivered:
            live.tree.look()
        else:
            live.tree.send(signum)

    def bring_metrics(self, run: Run) -> bool:
        return False

    def _detach(self, prepared: Environment, task: Task) -> Run:
        """Start the job under a separate process, which waits for it and records how it ended."""
        list(self.remove(superseded(records.runs(task.root), task)))
        record = Record.create(task, with_output=True)
        try:
            output = record.open_output()
            held = hold(task)
        except BaseException as error:
            record.remove()
            if not isinstance(error, OSError):
                raise
            raise SkelebotError(f"{task.name} cannot run detached: {reason(error)}") from None
        sys.stdout.flush()
        sys.stderr.flush()
        with foreground.uninterrupted():  # the child is until it passes signals on
            if os.fork() == 0:
                try:
                    self._supervise(prepared, replace(task, mode="i"), record, held, output)
                finally:
                    os._exit(0)  # what the caller has yet to do is the caller's
        for number in output:
            os.close(number)
        held.leave()
        record.await_start()
        return record.run()

    def _supervise(
        self, prepared: Environment, task: Task, record: Record, held: Held, output: tuple[int, int]
    ) -> None:
        """Run a detached job to its end, as the leader of its own session."""
        os.setsid()
        for number, stream in enumerate((os.open(os.devnull, os.O_RDWR), *output)):
            os.dup2(stream, number)
        # The locks of this process's other runs are among them: those would seem to live as long.
        process.close_others((*record.fds, *prepared.fds, *held.open_fds))
        for signum in STOPPING:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, _do_nothing)  # not even while the end is noted

        def start(launch: Launch) -> Run:
            step = held.step(task, prepared)
            with launch():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
                self._watch(record, process.start(step, pass_fds=(*record.fds, *held.fds)), held, task)
            return record.run()

        if not record.write(os.getpid()):
            return
        try:
            code = foreground.attend(start, self.wait, self.signal)
        except SkelebotError as error:
            console.error(str(error))
            held.end()
            code = error.code
        record.end(code)

    # --- the runs that there are ---

    def runs(self, project: Project, every_checkout: bool = False) -> list[Run]:
        """Those of this checkout: others keep their own."""
        return records.runs(project.root)

    def logs(self, run: Run, follow: bool = False, streams: Streams = OWN) -> int:
        return records.show_output(run, follow, streams)

    def send(self, run: Run, source: bytes | int, has_end: bool) -> None:
        raise no_records(run)

    def stop(self, runs: Sequence[Run]) -> None:
        """Ask the runs to end, and end those that do not. Raises SkelebotError for what lives even then."""
        trees = [(run, _tree_of(run)) for run in runs]
        for signum in (signal.SIGTERM, signal.SIGKILL):
            for _, tree in trees:
                tree.send(signum)
            until = time.monotonic() + foreground.GRACE
            while (alive := [each for each in trees if _is_alive(*each)]) and time.monotonic() < until:
                time.sleep(0.05)
                for _, tree in alive:
                    if not tree.is_alive():
                        tree.send(signum)  # to what has been started only now
        for run in runs:
            if records.is_alive(run):
                lock = records.lock_of(run)
                raise SkelebotError(f"{run.job}: still running; `fuser -v {lock}` lists its processes")

    def remove(self, runs: Sequence[Run]) -> Iterator[Removed]:
        for run in runs:
            yield Removed(run.name, records.remove(run))

    def clean(self, image: Image, runs: Sequence[Run], every_checkout: bool) -> Cleaned:
        return Cleaned(list(self.remove([run for run in runs if not run.is_running])))

    def forget(self, image: Image) -> None:
        """What is kept for a checkout is in its folder, and goes with it."""

    def shell(self, run: Run, user: str | None, words: tuple[str, ...]) -> None:
        """A native job has nothing around it that a shell could be opened in."""


def _do_nothing(signum: int, frame: "FrameType | None") -> None: ...


def _expire(live: _Live, ended: "threading.Event") -> None:
    """End a job that takes longer than its timeout."""
    if not ended.wait(live.timeout):
        live.timed_out = True
        live.tree.send(signal.SIGTERM)
        if not ended.wait(foreground.GRACE):
            live.tree.send(signal.SIGKILL)


def _is_alive(run: Run, tree: "_Tree") -> bool:
    return records.is_alive(run) or tree.is_alive()


def _tree_of(run: Run) -> "_Tree":
    """The processes of a run, without its supervisor, which has to note how it ended."""
    return _Tree(records.process_of(run), is_session=records.is_detached(run))


class _Tree:
    """The processes of a job, which may have ended in part when a signal has reached them.

    who: the identity of the one that started the others. is_session: that one only leads their session, and
    gets no signals.
    """

    def __init__(self, who: str, is_session: bool = False) -> None:
        self._who, self._is_session = who, is_session
        self._known: dict[int, psutil.Process] = {}

    def look(self) -> None:
        """Note which processes there are."""
        import psutil  # only for a job that is stopped

        pid = int(self._who.partition("-")[0] or 0)
        found: list[psutil.Process] = []
        if process.is_alive(self._who):
            with suppress(psutil.NoSuchProcess):
                job = psutil.Process(pid)
                found = [*([] if self._is_session else [job]), *job.children(recursive=True)]
        # A session keeps its number from others while it lasts, also when its leader has ended.
        if self._is_session and pid and process.identity(pid) in ("", self._who):
            found += [p for p in psutil.process_iter() if p.pid != pid and _session_of(p.pid) == pid]
        self._known = self._known | {p.pid: p for p in found}

    def send(self, signum: int) -> None:
        """Send a signal to the job and to all that it has started, also behind a shell."""
        self.look()
        for each in self._known.values():
            _signal(each, signum)

    def is_alive(self) -> bool:
        """Whether one of the processes that were found still runs."""
        return any(_is_running(each) for each in self._known.values())

    def settle(self) -> None:
        """Wait for what a shell left behind to finish cleaning up, and end what does not."""
        import psutil

        _, alive = psutil.wait_procs(list(self._known.values()), timeout=foreground.GRACE)
        for each in alive:
            _signal(each, signal.SIGKILL)


def _is_running(each: "psutil.Process") -> bool:
    import psutil

    with suppress(psutil.NoSuchProcess):
        return each.is_running() and each.status() != psutil.STATUS_ZOMBIE
    return False


def _session_of(pid: int) -> int | None:
    with suppress(OSError):
        return os.getsid(pid)
    return None


def _signal(each: "psutil.Process", signum: int) -> None:
    import psutil

    # It may have ended since it was listed, or belong to somebody else.
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        each.send_signal(signum)
