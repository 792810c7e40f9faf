"""One run on a cluster, from its Job to its results; whoever asks, its starter or another process."""

import os
import signal
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import IO, NamedTuple

from skelebot import console, process
from skelebot.errors import STOPPING, SkelebotError
from skelebot.files import locked
from skelebot.foreground import GRACE
from skelebot.model import WAITING, Mount, Task
from skelebot.project.state import own_folder
from skelebot.runners.attempts import Unreachable
from skelebot.runners.kubernetes import files, manifest, pod
from skelebot.runners.kubernetes.client import LASTING, Answer, Broken, Client, Json, Stream
from skelebot.runners.kubernetes.files import Mapped
from skelebot.runners.kubernetes.image import Prepared
from skelebot.runners.kubernetes.input import CLOSED, OVER, Input
from skelebot.runners.kubernetes.logs import Disconnected, Gone, Noted, OutputCopy, noted
from skelebot.runners.kubernetes.manifest import RUN, Claimed, Where
from skelebot.runners.kubernetes.turn import await_turn
from skelebot.runners.runner import has_ended

_PULL = 120.0  # seconds for an image of which a pull has failed, but may not again
_MOUNTED = 3.0  # seconds for a pod's volumes to be there
_SAID = 1.0  # seconds of waiting from which it is said for what
_SETTLING = 5.0  # seconds in which the cluster notices that a container has ended


class Restricted(SkelebotError):
    """A namespace refuses the pod for its user or that one's rights."""


class Unavailable(SkelebotError):
    """The registry does not have the image, or may not have it."""


class Known(NamedTuple):
    """What there is to know of a run besides its Job."""

    job: str  # the name of the Job
    task: str
    root: str
    mounts: tuple[Mount, ...]
    memory: int = 0
    maker: str = ""
    claimed: Claimed = Claimed()
    takes_records: bool = False
    is_scheduled: bool = False
    is_tried_again: bool = False


class ClusterRun:
    """One run. `pod` is its pod, once there is one; a second that the cluster makes never becomes it."""

    def __init__(self, client: Client, known: Known) -> None:
        self.client, self.known = client, known
        self.pod, self.uid = "", ""
        self.lock: IO[str] | None = None
        self.output: OutputCopy | None = None
        self.asked, self.metrics = 0, ""
        self.arch = ""  # what nodes must have for no other reason than the image
        self._made = self._kill_at = 0.0
        self._is_over = threading.Event()
        self._stream: Stream | None = None
        self._has_opened = self._is_ours = False
        self._follower: threading.Thread | None = None
        self._end: int | BaseException | None = None  # the code, or why there is none

    # --- its beginning ---

    @classmethod
    def create(cls, client: Client, prepared: Prepared, task: Task, where: Where) -> "ClusterRun":
        """Make the Job and its Secret. Raises SkelebotError."""
        task = replace(task, mounts=prepared.mounts)
        job = manifest.job(task, where)
        name, memory = job["metadata"]["name"], task.limits.memory
        known = Known(name, task.name, task.root, task.mounts, memory, where.maker, where.claimed)
        run = cls(client, known)
        run.arch = manifest.arch_alone(job, where)
        run._is_ours = not task.attempt  # a recorded run's is whoever's that supervises it
        secret = manifest.secret(task, where, os.environ)
        if claim := manifest.volume_claim(task, where):
            client.ensure("persistentvolumeclaims", claim)
        await_turn(client, task.name, where.claimed, task.mounts)
        made: Json = {}
        try:
            made = client.create("jobs", job)
            run._made = time.monotonic()
            if gone := sorted(missing(job["spec"], made["spec"])):
                raise SkelebotError(
                    f"{client.place} does not know {', '.join(gone)}; its Kubernetes is too old for that"
                )
            if secret:
                owner = {"apiVersion": "batch/v1", "kind": "Job", "name": run.known.job}
                secret["metadata"]["ownerReferences"] = [{**owner, "uid": made["metadata"]["uid"]}]
                client.create("secrets", secret)
        except BaseException as error:
            # A refusal has made nothing; a cluster that has never answered would not answer now, either.
            if made or not isinstance(error, Answer if client.has_answered else SkelebotError):
                run.abandon()
            raise
        return run

    def wait_for_gate(self) -> None:
        """Wait until the pod is there and waits for its files. Raises SkelebotError for what never will."""
        began, said, failed_since = time.monotonic(), "", 0.0
        while True:
            state = self._look()
            if state.name in ("waiting", "running", "ended"):
                return
            waited = time.monotonic() - began
            if state == pod.State("pulling") and waited > _MOUNTED:
                state = self._why_not_mounted() or state
            failed_since = (failed_since or waited) if state.name == "pulling" and state.why else 0.0
            if state.is_final or (failed_since and waited - failed_since > _PULL):
                is_restricted, is_unavailable = pod.is_restricted(state.why), pod.is_unavailable(state.why)
                kind = Restricted if is_restricted else Unavailable if is_unavailable else SkelebotError
                raise kind(f"{self.known.task} was not started: {state.why}")
            if state.why and waited > _SAID and state.why != said:
                if never := self._why_never(state.why):
                    raise SkelebotError(f"{self.known.task} was not started: {never}")
                console.info(f"{self.known.task} waits at {self.client.place}: {state.why}")
                said = state.why
            time.sleep(0.05 if waited < 2 else 0.3 if waited < 10 else 1)

    def _why_not_mounted(self) -> pod.State | None:
        events = self.client.list("events", fieldSelector=f"involvedObject.uid={self.uid}")
        why = pod.why_not_mounted(events)
        return pod.State("queued", why) if why else None

    def _why_never(self, said: str) -> str:
        """Why no node will take the pod. Who may not list the nodes has only the scheduler's word."""
        others: list[str] | None = None
        if self.arch:
            with suppress(Answer):
                nodes = self.client.request("GET", "/api/v1/nodes?limit=500")["items"]
                archs = {each["metadata"]["labels"].get("kubernetes.io/arch", "") for each in nodes}
                others = sorted(archs) if self.arch not in archs else []
        return pod.why_no_node(said, self.arch, others)

    def look(self) -> pod.State:
        """What the pod is doing now; that there is none yet, or why there never will be one."""
        until = time.monotonic() + LASTING
        while (state := self._look()).name == "waiting":
            # The cluster notices only a moment later that a gate was opened, and that it has ended.
            is_gate_open = self._has_opened or is_open(self.client, self.pod)
            if is_gate_open is not None:
                return pod.State("running") if is_gate_open else state
            if time.monotonic() > until:
                raise Unreachable(f"{self.client.place} does not say what {self.known.task} is doing")
            time.sleep(0.1)
        return state

    def _look(self) -> pod.State:
        """The same as far as the cluster knows."""
        if found := self.find_pod():
            return pod.state(found)
        if self.pod:
            return pod.State("failed", "its pod was deleted", True)
        job = self.client.get("jobs", self.known.job)
        if job is None:
            return pod.State("failed", "its Job was deleted", True)
        if (job.get("spec") or {}).get("suspend"):
            return pod.State("queued", "its queue has not admitted it yet")
        events = self.client.list("events", fieldSelector=f"involvedObject.uid={job['metadata']['uid']}")
        if why := pod.why_no_pod(events):
            return pod.State("failed", why, True)
        return pod.State("queued")

    def find_pod(self) -> Json | None:
        """The run's pod: the one that was there first; of a schedule's run the last, as it is tried again."""
        if self.pod:
            found = self.client.get("pods", self.pod)
            return found if found and found["metadata"]["uid"] == self.uid else None
        pods = self.client.list("pods", labelSelector=f"job-name={self.known.job}")
        pods.sort(key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"]))
        if not pods:
            return None
        found = pods[-1 if self.known.is_scheduled else 0]
        self.pod, self.uid = found["metadata"]["name"], found["metadata"]["uid"]
        return found

    def send(self, task: Task) -> None:
        """Send what the job needs, its files and its words if those are many. Raises SkelebotError."""
        claimed = self.known.claimed
        own = self.known.job
        await_turn(self.client, task.name, claimed, self.known.mounts, own, self._made, self._keep_gate)
        if self.known.mounts:
            # Runs that only read the same folders are sent what is new one by one.
            with locked(_own(claimed.root, "lock")) if claimed.folders else nullcontext():
                files.send(self.client, self.pod, self._mapped)
        path = manifest.words_file(task)
        if path.startswith(RUN):
            data = manifest.words_data(task, os.environ).encode()
            script = f'head -c "$1" >{path} && [ "$(wc -c <{path})" = "$1" ]'
            self._in_gate(script, str(len(data)), stdin=data)

    @property
    def _mapped(self) -> Mapped:
        return Mapped(self.known.root, self.known.mounts, self.known.claimed)

    def _keep_gate(self) -> None:
        self._in_gate(f"echo >{RUN}/alive")

    def open(self) -> None:
        """Let the job begin, in this pod and no other. Raises SkelebotError."""
        has_proxy = pod.has_proxy(self.find_pod() or {"spec": {"containers": []}})
        script = f"echo >{RUN}/mesh; " if has_proxy else ""
        self._in_gate(f'{script}echo "$1" >{RUN}/open.new && mv {RUN}/open.new {RUN}/open', self.uid)
        self._has_opened = True

    def feed(self, source: "bytes | int") -> None:
        """Send the job's input, all of it or what comes from a descriptor, in a thread."""

        def send(source: bytes | int) -> None:
            with suppress(SkelebotError):  # whoever follows the job finds out why
                Input(self.client, self.pod, source).send(lambda: not self._is_over.is_set())

        def send_all() -> None:
            try:
                send(source)
            except OSError:  # it cannot be read, as a folder cannot
                send(b"")

        process.in_thread(send_all)

    def send_records(self, source: bytes | int, has_end: bool) -> None:
        """Send lines, which others may send at the same time. Raises SkelebotError."""
        records = Input(self.client, self.pod, source, has_end, by_lines=True)
        end = records.send(lambda: self.look().name == "running")
        if end == CLOSED:
            raise SkelebotError(
                f"the input of {self.known.task} was ended; `skelebot {self.known.task}` starts it again"
            )
        if end == OVER:
            raise has_ended(self.known.task)

    def _in_gate(self, script: str, *words: str, stdin: bytes = b"") -> None:
        until = time.monotonic() + 60
        while True:
            try:
                ended = self.client.run(self.pod, "gate", "/bin/sh", "-c", script, "sh", *words, stdin=stdin)
                if ended.code == 0:
                    return
                why = ended.err.decode(errors="replace").strip()
            except (Broken, Answer) as error:
                if isinstance(error, Answer) and error.status in (401, 403):
                    raise
                why = str(error)
            state = self.look()
            if state.name in ("running", "ended"):
                return  # it was opened, and the answer was lost
            if state.is_final or time.monotonic() > until:
                raise SkelebotError(f"{self.known.task} was not started: {state.why or why}")
            time.sleep(0.2)

    # --- its end ---

    def wait(self) -> int:
        """Wait until what the job writes has been given on; bring back its results; return its code."""
        self.follow()
        assert self._follower
        self._follower.join()
        if isinstance(self._end, OSError) and self._is_ours:
            self._end_alone()
        if isinstance(self._end, Answer):
            raise self._lost(self._end)
        if isinstance(self._end, BaseException):
            raise self._end
        assert self._end is not None
        try:
            self.bring_back()
        except (Answer, Broken):
            self._check_pod()  # which says why
            raise
        return self._end

    def follow(self) -> None:
        """Give on what the job writes, to its end, in a thread."""
        if not self._follower:
            self._follower = process.in_thread(self._follow)

    def _follow(self) -> None:
        process.in_thread(self._watch)
        try:
            self._end = self._to_end()
        except BaseException as error:
            self._end = error  # `wait` raises it
        finally:
            self._is_over.set()

    def _to_end(self) -> int:
        """Follow both streams; return the code once all of them has been given on."""
        assert self.output
        while True:
            known = noted(self.client, self.pod)
            if known and (known.code is None or self.output.is_far_behind(known)):
                with suppress(Broken, Answer):
                    self.output.follow(self.client, self.pod, self._connected)
                self._stream = None
                known = noted(self.client, self.pod)
            try:
                if known:
                    self.output.catch_up(self.client, self.pod, known)
                if known and known.code is not None and self.output.is_complete(known):
                    return self._checked(known.code)
            except (Broken, Answer):
                continue
            if not known or self._state().name != "running":
                code = self._code_of_pod(known)
                if code is not None:
                    return code
            time.sleep(0.05)

    def _connected(self, stream: Stream) -> None:
        self._stream = stream

    def _state(self) -> pod.State:
        try:
            return self.look()
        except Answer:
            raise
        except SkelebotError as error:
            raise self._lost(error) from None

    def _code_of_pod(self, known: Noted | None) -> int | None:
        """The code that the cluster knows, of a job that could not note its own; None while it may run.

        Raises SkelebotError where the pod has gone without one.
        """
        state = self._state()
        if state.name == "ended" and known is None and self.is_keeper_up():
            return None  # ask again
        if state.name == "ended" and state.code is not None:
            if not self.asked:
                self._check_pod()
            self._report_memory(state)
            is_complete = known and self.output and self.output.is_complete(known)
            if not is_complete and not self.give_log():
                console.warn(f"the last output of {self.known.task} was lost with its pod")
            return state.code
        if state.is_final and not state.has_begun:
            raise Gone(f"{self.known.task} was not started: {state.why}")
        if state.is_final:
            raise Gone(f"{self.known.task} was ended at {self.client.place}: {state.why}")
        return None

    def give_written(self) -> Noted | None:
        """Give on what the job has written until now; None where it has not begun. Raises SkelebotError."""
        assert self.output
        until = time.monotonic() + GRACE
        while (state := self.look()).name not in WAITING:
            if known := noted(self.client, self.pod):
                before = self.output.given
                with suppress(Broken, Answer):
                    self.output.catch_up(self.client, self.pod, known)
                    return known
                if self.output.given > before:  # a connection that breaks again and again still serves
                    until = time.monotonic() + GRACE
            if self.give_log():
                return None
            # The keeper begins a moment after the gate was opened, and ends one before the cluster knows it.
            is_up = state.name == "running" or self.is_keeper_up()
            if not is_up or time.monotonic() > until:
                where = f"its pod at {self.client.place} has ended"
                raise SkelebotError(f"the output of {self.known.task} cannot be read; {where}")
            time.sleep(0.2)
        return None

    def give_log(self) -> bool:
        """Give what the cluster has of a schedule's run whose own files have gone; tell whether that was all.

        Raises SkelebotError where there is none.
        """
        assert self.output
        if not self.known.is_scheduled or self.output.given:
            return False
        now = self.look()
        if now.name not in ("ended", "failed") or self.is_keeper_up():
            return False
        if now.code is None:
            raise SkelebotError(f"{self.known.job} has no output: {now.why}")
        self.output.give(1, self.client.log(self.pod))
        return True

    def is_keeper_up(self) -> bool:
        found = self.find_pod() or {}
        statuses = (found.get("status") or {}).get("containerStatuses") or ()
        return any("running" in (s.get("state") or {}) for s in statuses if s["name"] == "keeper")

    def _checked(self, code: int) -> int:
        """The job's code, after what there is to say about it."""
        if code != 0 and not self.asked:
            self._check_pod()
            self._report_memory(self.settle())
        elif not self.known.maker:
            self.settle()  # as others may list it
        return code

    def settle(self, seconds: float = _SETTLING) -> pod.State:
        """Return the state of the pod once the cluster knows that the job has ended, a moment after us."""
        until, state = time.monotonic() + seconds, pod.State("running")
        with suppress(SkelebotError):
            while (state := self.look()).name == "running" and time.monotonic() < until:
                time.sleep(0.1)
        return state

    def _check_pod(self) -> None:
        """Raise SkelebotError if the pod was taken away: then the code is that of a job that was ended."""
        found = self.find_pod()
        if found is None or found["metadata"].get("deletionTimestamp"):
            raise Gone(f"{self.known.task} was ended at {self.client.place}: its pod was deleted")

    def _report_memory(self, state: pod.State) -> None:
        if not state.is_out_of_memory:
            return
        from skelebot.units import size_text

        limit = f"its memory limit ({size_text(self.known.memory)})" if self.known.memory else "memory"
        console.error(f"{self.known.task} ran out of {limit}; raise resources.memory")

    def _lost(self, error: SkelebotError) -> Disconnected:
        task = self.known.task
        return Disconnected(
            f"the connection to {self.client.place} was lost ({error}), and {task} may go on there; "
            f"`skelebot logs -f {task}` follows it and brings back its results"
        )

    def _watch(self) -> None:
        """End the following of a job whose container has gone, and of one that was asked to end long ago."""
        while not self._is_over.wait(1):
            with suppress(SkelebotError):
                if self.look().name in ("ended", "failed"):
                    self._is_over.wait(1)
                    if stream := self._stream:
                        stream.close()
                if self._kill_at and time.monotonic() > self._kill_at:
                    self._kill_at = 0
                    self.send_signal(signal.SIGKILL)

    def bring_back(self) -> None:
        """Bring back what the job has written. Where that fails, it stays for another attempt."""
        if not any(not mount.read_only for mount in self.known.mounts):
            return
        try:
            with locked(self._own("lock")):
                files.fetch(self.client, self.pod, self._mapped)
        except BaseException:
            console.warn(
                f"the job's results are still at {self.client.place}; "
                f"`skelebot logs {self.known.task}` brings them back"
            )
            raise

    def _own(self, name: str) -> str:
        return _own(self.known.root, name)

    def is_lost(self) -> bool:
        """Whether nobody attends it any more, of a run that goes with its end."""
        return bool(self.known.maker) and not process.is_alive(self.known.maker)

    def remember_output(self) -> OutputCopy:
        """Have the output continue where an earlier client of this checkout has stopped."""
        assert self.output
        self.output.keep_at(self._own(f"{self.known.job}.offset"))
        return self.output

    def remove(self) -> None:
        """Leave nothing of the run on the cluster; what still runs of it ends at once."""
        self.client.delete("jobs", self.known.job)
        if self.pod:  # a node may lose sight of one whose job has only just ended, and keep it for a minute
            self.client.delete("pods", self.pod)
        if self.known.root:  # a schedule's run belongs to no checkout
            files.forget(self.known.root, self.pod)
            with suppress(OSError, SkelebotError):
                os.unlink(self._own(f"{self.known.job}.offset"))
        if self.lock:
            self.lock.close()

    def _end_alone(self) -> None:
        """End a job that nobody attends any more, as its output could not be written; its results come."""
        with suppress(SkelebotError):
            self.send_signal(signal.SIGTERM)
            if self.settle(GRACE).name == "running":
                self.send_signal(signal.SIGKILL)
                self.settle()
            self.bring_back()
            self.abandon()

    def abandon(self) -> None:
        """Remove the run at once because of an error. That this fails is only a warning beside it."""
        try:
            self.remove()
        except SkelebotError as error:
            console.warn(f"{self.known.job} may be left at {self.client.place}: {error}")

    # --- signals ---

    def ask(self, signum: int) -> None:
        """Pass a signal on; the second request to end is a command, as is waiting ten seconds."""
        if signum in STOPPING:
            self.asked += 1
            self._kill_at = time.monotonic() + GRACE
        if self.asked > 1:
            signum = signal.SIGKILL
        self.send_signal(signum)

    def send_signal(self, signum: int) -> None:
        """Send a signal to the job, through the script that runs it."""
        name = signal.Signals(signum).name[3:]
        script = f"kill -s {name} 1"
        if signum == signal.SIGKILL:
            self.asked = self.asked or 1
            script = f'kill -s KILL -- "-$(cat {RUN}/pid)"'
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            with suppress(Broken, Answer):
                if self.client.run(self.pod, "job", "/bin/sh", "-c", script).code == 0:
                    return
            with suppress(SkelebotError):
                if self.look().name in ("ended", "failed"):
                    return
            time.sleep(0.1)


def _own(root: str, name: str) -> str:
    folder = os.path.join(own_folder(root), "cluster")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, name)


def is_open(client: Client, pod: str) -> bool | None:
    """Whether the gate of a pod was opened; None where nobody can say, as in one that has ended."""
    try:
        return client.run(pod, "gate", "/bin/sh", "-c", f"[ -e {RUN}/open ]").code == 0
    except Broken:
        return None
    except Answer as error:
        if error.status in (401, 403):
            raise
        return None


def missing(sent: object, made: object, path: str = "") -> list[str]:
    """Which keys of what was sent are not in what the cluster has made of it."""
    if isinstance(sent, dict) and isinstance(made, dict):
        return [
            name
            for key, value in sent.items()
            for name in (
                missing(value, made[key], f"{path}.{key}".lstrip("."))
                if key in made
                else [f"{path}.{key}".lstrip(".")]
                if value not in ({}, [], "", False)
                else []
            )
        ]
    if isinstance(sent, list) and isinstance(made, list) and len(sent) == len(made):
        return [
            name
            for n, pair in enumerate(zip(sent, made, strict=True))
            for name in missing(*pair, f"{path}[{n}]")
        ]
    return []
