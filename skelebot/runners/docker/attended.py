"""A container that this process started and waits for: its signals, its end, what it leaves behind."""

import re
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from skelebot import foreground
from skelebot.errors import STOPPING, SkelebotError
from skelebot.model import Attempt, Place, Run, Task
from skelebot.process import Program
from skelebot.runners import attempts
from skelebot.runners.attempts import Lost, Unreachable
from skelebot.runners.docker import metrics
from skelebot.runners.docker.client import PATIENCE, Client, explained
from skelebot.runners.docker.container import Container
from skelebot.runners.docker.runs import of_attempt, wait_adopted
from skelebot.runners.gpus import Devices

if TYPE_CHECKING:
    from skelebot.runners.docker.volumes import Volumes

_NO_SUCH = re.compile("no such (container|object)", re.IGNORECASE)
_BEING_REMOVED = "is already in progress"


@dataclass
class Attended:
    """A container, and the client's program that is attached to it; a detached one has none.

    asked: whether it was asked to end. is_alone: whether its client was killed, and it goes on. devices: the
    GPUs that are its own.
    """

    client: Client
    container: Container
    volumes: "Volumes | None"
    program: Program | None = None
    asked: bool = False
    is_alone: bool = False
    devices: Devices = Devices()

    @property
    def is_created_first(self) -> bool:
        """Whether something has to be put into the container before it starts."""
        return self.container.words_file or self.volumes is not None

    def wait(self) -> int:
        assert self.program
        try:
            code = self.program.wait()
        except BaseException:
            self.remove(patience=2)
            raise
        if self.container.task.attempt and not self.asked:
            return self._end_of_attempt(code, self.container.task.attempt)
        self._settle(code)
        return code

    def _end_of_attempt(self, code: int, attempt: Attempt) -> int:
        """The job's own code, noted. If the client was killed, the container goes on.

        Raises Lost if it was killed before the job began.
        """
        name = self.container.name
        has_begun, is_running = self._state() if code or self.volumes else (False, False)
        if code > 128 and not has_begun:  # the client was killed, perhaps in the moment of the start
            if not of_attempt(self.client, attempt):
                raise Lost("")
            has_begun = is_running = True
        if has_begun:
            self.is_alone = is_running
            if is_running and _nobody_reads(1):  # which has ended the client
                self._stop()
            task, place = self.container.task, Place("docker", self.client.host)
            run = Run(name, name, self.container.project, task.name, place, root=task.root)
            is_log_complete = code < 128 and not is_running
            return wait_adopted(self.client, run, task, is_log_complete)
        if code or self.volumes:
            self._settle(code)
        attempts.note(attempt, code)
        self.client.remove_container(name)
        return code

    def _state(self) -> tuple[bool, bool]:
        """Tell whether the container has been started, and whether it runs. Raises Unreachable."""
        form = "{{.State.StartedAt}} {{.State.Running}}"
        words = ("container", "inspect", "--format", form, self.container.name)
        code, out, said = self.client.capture(*words, timeout=PATIENCE)
        if code != 0 and not _NO_SUCH.search(said):
            raise explained(self.client, said, f"{self.container.name} cannot be inspected")
        return code == 0 and not out.startswith("0001-"), out.strip().endswith("true")

    def _settle(self, code: int) -> None:
        """Bring results back, leave no container behind, and tell the engine's failure from the job's."""
        if self.volumes:
            if code and not self.asked and self._goes_on():
                self._raise_lost(self.container.task)
            # Should this fail, the container stays, and `logs` brings the results back.
            self.volumes.fetch(self.container.name)
            metrics.bring_last(self.client, self.container.name, self.container.task)
        elif code and not self.asked and self._goes_on():
            self._end_alone()
        if self.asked or self.volumes:
            self.remove(patience=2 if self.asked else 0)
        if not self.asked and code in self._engine_codes and not self._was_started():
            self.remove()
            task = self.container.task
            hint = " (GPUs need NVIDIA's container toolkit on the host)" if task.limits.gpus else ""
            raise SkelebotError(
                f"the container of {task.name} could not be started{hint}; see Docker's message above"
            )

    def _raise_lost(self, task: Task) -> NoReturn:
        if task.attempt:
            raise Unreachable(f"the connection to {self.client.where} was lost")
        raise SkelebotError(
            f"the connection to {self.client.where} was lost, but {task.name} may still run there; "
            f"`skelebot logs -f {task.name}` follows it and brings back its results"
        )

    def _stop(self) -> None:
        with foreground.uninterrupted():
            self.client.capture("stop", "--time", f"{foreground.GRACE:.0f}", self.container.name)

    def _end_alone(self) -> NoReturn:
        """End a job that nobody attends any more, as its output could not be written."""
        self._stop()
        self.remove()
        if _nobody_reads(1):
            raise BrokenPipeError
        raise SkelebotError(
            f"Docker's client ended before {self.container.task.name} did, which was stopped; "
            "its message stands above"
        )

    def _goes_on(self) -> bool:
        """Whether the client has ended without the job, as it does when the connection breaks."""
        words = ("container", "inspect", "--format", "{{.State.Running}}", self.container.name)
        try:
            with foreground.uninterrupted():  # by the second of two quick Ctrl-C: the first has ended the job
                code, out, said = self.client.capture(*words, timeout=PATIENCE)
        except SkelebotError:
            return True
        return out.strip() == "true" if code == 0 else not _NO_SUCH.search(said)

    @property
    def _engine_codes(self) -> tuple[int, ...]:
        """Exit codes of the client that may be the engine's rather than the job's."""
        return (1, 125, 126, 127) if self.is_created_first else (125, 126, 127)

    def _was_started(self) -> bool:
        """Whether the engine has started the container, which may be gone by now."""
        time.sleep(0.2)  # the engine reports its latest events with a delay
        code, now, _ = self.client.capture("info", "--format", "{{.SystemTime}}")  # the engine's own clock
        if code != 0:
            return True
        # An engine remembers but a few hundred events: of a long run it has forgotten the start, but
        # never the end.
        between = ("--since", "1", "--until", now.strip())
        container = f"container={self.container.name}"
        which = ("--filter", container, "--filter", "event=start", "--filter", "event=die")
        code, out, _ = self.client.capture("events", *between, *which, "--format", "{{.Status}}")
        return code != 0 or out.strip() != ""

    def remove(self, patience: float = 0) -> None:
        """Leave nothing behind, whatever signals come now.

        patience: seconds to wait for a container that the engine may just be making.
        """
        until = time.monotonic() + patience
        until_removed = time.monotonic() + PATIENCE
        with foreground.uninterrupted():
            while True:
                _, _, said = self.client.capture("rm", "--force", "--volumes", self.container.name)
                if _BEING_REMOVED in said:  # by the engine itself, because of --rm
                    if time.monotonic() >= until_removed:
                        return
                elif not _NO_SUCH.search(said) or time.monotonic() >= until or self._was_started():
                    return
                time.sleep(0.1)

    def signal(self, signum: int, delivered: bool) -> None:
        """Pass a signal on; while the container is still on the way, try again.

        The client would pass it on too, but only once, and the engine refuses it before the start.
        """
        self.asked = self.asked or signum in (*STOPPING, signal.SIGKILL)
        if delivered and not self.is_alone:
            return
        patience = time.monotonic() + 10
        while self.is_alone or not (self.program and self.program.has_ended()):
            code, _, said = self.client.capture("kill", "--signal", f"{int(signum)}", self.container.name)
            is_missing = code != 0 and re.search("is not running|no such container", said.lower())
            if not is_missing or self.is_alone or time.monotonic() >= patience:
                break
            time.sleep(0.1)
        if signum == signal.SIGKILL and self.program:
            self.program.send_signal(signum)


def _nobody_reads(fd: int) -> bool:
    """Whether a pipe has lost its reader."""
    import select

    poll = select.poll()
    poll.register(fd, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
