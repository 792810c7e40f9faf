"""Run tasks on this machine, in the project's own Python environment."""

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
from skelebot.model import NATIVE, Image, Place, Project, Run, Step, Task
from skelebot.process import OWN, Streams
from skelebot.project.state import OWN as FOLDER
from skelebot.runners.folders import make_folders
from skelebot.runners.native import environment, records
from skelebot.runners.native.environment import Environment
from skelebot.runners.native.records import Record
from skelebot.runners.runner import Launch, Removed, superseded

if TYPE_CHECKING:
    import threading

    import psutil


@dataclass
class _Live:
    """A run that this process has started.

    tree: the processes of the job. asked, timed_out: why it was asked to end.
    """

    record: Record
    program: process.Program
    tree: "_Tree"
    timeout: float
    timer: "threading.Timer | None" = None
    asked: bool = False
    timed_out: bool = False


class Native:
    """The processes of this machine."""

    def __init__(self, verbose: bool = False) -> None:
        self._verbose = verbose
        self._live: dict[str, _Live] = {}

    @property
    def place(self) -> Place:
        return NATIVE

    def check(self, image: Image, task: Task) -> None:
        environment.check(task)

    def describe(self, image: Image, task: Task) -> list[str]:
        lines = [f"run      {process.display(Step(task.argv))}", f"where    natively, in {task.root}"]
        if environment.is_needed(task):
            lines.append(f"python   {FOLDER}/{task.venv}, with {', '.join(task.dependencies)}")
        return lines + [f"variable {name}" for name, _ in task.env]

    @contextmanager
    def prepare(self, image: Image, task: Task) -> Iterator[Environment]:
        """Make the task's environment where it is missing; it is not replaced while the block lasts."""
        with environment.ensure_environment(task, self._verbose) as prepared:
            yield prepared

    # --- starting and waiting ---

    def start(
        self, prepared: Environment, task: Task, streams: Streams = OWN, launch: Launch = nullcontext
    ) -> Run:
        """Start the job's process in the project's root; a detached one goes on without Skelebot."""
        make_folders(task)
        if task.is_detached:
            return self._detach(prepared, task)
        record = Record.create(task)
        step = Step(task.argv, cwd=task.root, env=(*task.env, *prepared.variables))
        process.trace(self._verbose, step)
        try:
            with launch():
                program = process.start(step, streams, record.fds)
        except BaseException:
            record.remove()
            raise
        record.write(program.pid)
        live = self._live[record.id] = _Live(record, program, _Tree(program.pid), task.timeout)
        self._set_timer(live)
        return record.run()

    def _set_timer(self, live: _Live) -> None:
        if not live.timeout:
            return
        import threading  # only for a job with a limit

        def expire() -> None:
            live.timed_out = True
            live.tree.send(signal.SIGTERM)
            live.timer = threading.Timer(foreground.GRACE, live.tree.send, (signal.SIGKILL,))
            live.timer.daemon = True
            live.timer.start()

        live.timer = threading.Timer(live.timeout, expire)
        live.timer.daemon = True
        live.timer.start()

    def wait(self, run: Run) -> int:
        live = self._live.get(run.id)
        if live is None:
            return records.wait(run)
        code = live.program.wait()
        if live.timer:
            live.timer.cancel()
        if live.asked or live.timed_out:
            live.tree.settle()
        if live.timed_out and not live.asked:
            console.error(f"the job was ended: it took longer than its timeout of {live.timeout:g} seconds")
            code = TIMED_OUT
        del self._live[run.id]
        live.record.end(code)
        return code

    def signal(self, run: Run, signum: int, delivered: bool = False) -> None:
        """Send a signal to the job and to all that it has started, also behind a shell."""
        live = self._live.get(run.id)
        if live is None:
            return
        live.asked = live.asked or signum in (*STOPPING, signal.SIGKILL)
        if delivered:
            live.tree.look()
        else:
            live.tree.send(signum)

    def _detach(self, prepared: Environment, task: Task) -> Run:
        """Start the job under a separate process, which waits for it and records how it ended."""
        list(self.remove(superseded(records.runs(task.root), task)))
        record = Record.create(task, with_output=True)
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fork() == 0:
            os._exit(self._supervise(prepared, replace(task, mode="i"), record))
        record.await_start()
        return record.run()

    def _supervise(self, prepared: Environment, task: Task, record: Record) -> int:
        """Run a detached job to its end, as the leader of its own session."""
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        out, err = record.open_output()
        for number, stream in enumerate((null, out, err)):
            os.dup2(stream, number)
        step = Step(task.argv, cwd=task.root, env=(*task.env, *prepared.variables))
        code = SkelebotError.code
        try:
            program = process.start(step, pass_fds=record.fds)
            record.write(program.pid)
            live = self._live[record.id] = _Live(record, program, _Tree(program.pid), task.timeout)
            self._set_timer(live)

            def send(run: Run, signum: int, delivered: bool) -> None:
                self.signal(run, signum, delivered)

            code = foreground.attend(lambda launch: record.run(), self.wait, send)
        except SkelebotError as error:
            console.error(str(error))
        record.end(code)
        return 0

    # --- the runs that there are ---

    def runs(self, project: Project, every_checkout: bool = False) -> list[Run]:
        """Those of this checkout: others keep their own."""
        return records.runs(project.root)

    def logs(self, run: Run, follow: bool = False, streams: Streams = OWN) -> int:
        return records.show_output(run, follow, streams)

    def stop(self, runs: Sequence[Run]) -> None:
        trees = [(run, _Tree(pid)) for run in runs if (pid := records.pid_of(run))]
        for signum in (signal.SIGTERM, signal.SIGKILL):
            for _, tree in trees:
                tree.send(signum)
            until = time.monotonic() + foreground.GRACE
            while any(records.is_alive(run) for run, _ in trees) and time.monotonic() < until:
                time.sleep(0.05)

    def remove(self, runs: Sequence[Run]) -> Iterator[Removed]:
        for run in runs:
            yield Removed(run.name, records.remove(run))


class _Tree:
    """The processes of a job, which may have ended in part when a signal has reached them."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._known: dict[int, psutil.Process] = {}

    def look(self) -> None:
        """Note which processes there are."""
        import psutil  # only for a job that is stopped

        with suppress(psutil.NoSuchProcess):
            job = psutil.Process(self._pid)
            self._known |= {p.pid: p for p in (job, *job.children(recursive=True))}

    def send(self, signum: int) -> None:
        """Send a signal to the job and to all that it has started, also behind a shell."""
        self.look()
        for each in self._known.values():
            _signal(each, signum)

    def settle(self) -> None:
        """Wait for what a shell left behind to finish cleaning up, and end what does not."""
        import psutil

        _, alive = psutil.wait_procs(list(self._known.values()), timeout=foreground.GRACE)
        for each in alive:
            _signal(each, signal.SIGKILL)


def _signal(each: "psutil.Process", signum: int) -> None:
    import psutil

    # It may have ended since it was listed, or belong to somebody else.
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        each.send_signal(signum)
