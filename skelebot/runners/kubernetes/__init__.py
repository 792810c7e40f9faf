"""Run tasks on a Kubernetes cluster, each as a Job with one pod."""

import json
import os
import signal
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import IO, Any

from skelebot import console, foreground, process
from skelebot.errors import SkelebotError, UsageError
from skelebot.model import ALL_GPUS, WAITING, Attempt, Flags, Image, Mount, Place, Project, Run, Step, Task
from skelebot.process import OWN, Streams
from skelebot.project import state
from skelebot.project.state import checkout_id
from skelebot.runners import attempts
from skelebot.runners.docker import Docker
from skelebot.runners.folders import make_folders
from skelebot.runners.kubernetes import image as images
from skelebot.runners.kubernetes import manifest, pod, schedule
from skelebot.runners.kubernetes.client import Answer, Broken, Client
from skelebot.runners.kubernetes.image import Prepared
from skelebot.runners.kubernetes.logs import Gone, OutputCopy, bring_metrics
from skelebot.runners.kubernetes.manifest import (
    CHECKOUT,
    JOB,
    MAKER,
    MOUNTS,
    PROJECT,
    ROOT,
    SCHEDULE,
    STDIN,
    Claimed,
    Schedule,
    Where,
)
from skelebot.runners.kubernetes.run import ClusterRun, Known, Restricted, Unavailable, is_open
from skelebot.runners.runner import Capacity, Cleaned, Launch, Removed, no_records, superseded
from skelebot.secret import display_text, reveal, reveal_all

_ANY = 1 << 60


class Kubernetes:
    """The jobs in one namespace of a cluster."""

    def __init__(self, place: Place, flags: Flags) -> None:
        self.place, self.client = place, Client(place, flags.verbose)
        self._docker = Docker(None, flags.verbose, flags.skip_build)
        self._runs: dict[str, ClusterRun] = {}
        self._attempts: dict[str, Attempt] = {}

    @property
    def is_far(self) -> bool:
        return True

    def check(self, image: Image, task: Task) -> None:
        _check_text(task)
        self._docker.check(image, task)
        if image.registry is None:
            raise images.no_registry(task)
        if task.limits.gpus == ALL_GPUS:
            raise UsageError(
                f"{task.name}: a cluster gives a number of GPUs; write it instead of `gpus: all`"
            )
        if task.mode == "it":
            raise UsageError(
                f"{task.name}: mode it is not available on a cluster; use mode i, and `skelebot exec` for a "
                "shell beside a job that runs"
            )

    def describe(self, image: Image, task: Task, described: set[str]) -> list[str]:
        build = [
            line for line in self._docker.describe(image, task, described) if line.startswith(("image", " "))
        ]
        return [*build, f"where    on the cluster {self.place}", *self.manifest(image, task).splitlines()]

    def manifest(self, image: Image, task: Task, scheduled: Schedule | None = None) -> str:
        """The manifest as YAML, which leaves secrets out."""
        reference = images.known_reference(self._docker, image)
        namespace = ""
        with suppress(SkelebotError):  # it is shown without kubectl, too
            namespace = self.client.namespace
        user = task.user if task.user and task.user.replace(":", "").isdigit() else ""
        where = Where(reference, namespace, "preview", checkout_id(task.root), user)
        where = where._replace(claimed=_claimed(image, task))
        if scheduled:
            where = self._of_schedule(where, image, task, scheduled)
        else:
            where = where._replace(is_open=not manifest.sent_folders(task, where))
        job = manifest.cron_job(task, where, scheduled) if scheduled else manifest.job(task, where)
        made = [*filter(None, (manifest.volume_claim(task, where), job))]
        for each in () if namespace else made:
            del each["metadata"]["namespace"]
        return "---\n".join(map(manifest.yaml_text, made))

    def check_schedule(self, image: Image, task: Task, scheduled: Schedule) -> None:
        """Raise UsageError for what keeps a job from running by a schedule."""
        self._of_schedule(Where("", "", ""), image, task, scheduled)
        if manifest.words_file(task).startswith(manifest.RUN):
            raise UsageError(
                f"{task.name}: a schedule takes at most 100 kB of arguments; read them from a file"
            )

    def _of_schedule(self, where: Where, image: Image, task: Task, scheduled: Schedule) -> Where:
        """Return what a CronJob is made of. Raises UsageError where nobody would send what it needs."""
        token = manifest.schedule_token(task.project, task.name, scheduled.env)
        where = where._replace(token=token, checkout="", is_open=True, claimed=_claimed(image, task))
        if sent := manifest.sent_folders(task, where):
            raise UsageError(
                f"{task.name}: a schedule runs without this machine, which would have to send "
                f"{', '.join(sent)}; keep folders on the cluster with `cluster: {{claim: NAME}}`"
            )
        return where

    def deploy(
        self, prepared: Prepared, task: Task, scheduled: Schedule, keyed_hash: Callable[[bytes], str]
    ) -> schedule.Change:
        """Have the cluster run a job by its schedule, with this image and these arguments."""
        state.remember_host(task.root, self.place.host)
        task = replace(task, mounts=prepared.mounts)
        if not prepared.is_fresh:  # nobody is there to notice when the cluster cannot pull it
            prepared = images.push_again(self._docker, prepared, task)
        where = Where(prepared.reference, self.client.namespace, "", "", prepared.user, prepared.arch)
        where = self._of_schedule(where, prepared.built.image, task, scheduled)
        return schedule.deploy(self.client, task, where, scheduled, keyed_hash)

    def surroundings(self, image: Image, task: Task) -> dict[str, str]:
        return self._docker.surroundings(image, task)

    @contextmanager
    def prepare(self, image: Image, task: Task) -> Iterator[Prepared]:
        """Build the image where something has changed, and push it where the registry lacks it."""
        with images.prepared(self._docker, image, task) as ready:
            yield ready

    def capacity(self, image: Image | None = None) -> Capacity:
        return Capacity(_ANY, _ANY, _ANY)  # the cluster decides what runs when

    def image_id(self, prepared: Prepared) -> str:
        return self._docker.image_id(prepared.built)

    def receive(self, image: Image, name: str, source: Place) -> Image:
        """Runs of the default engine's images need nothing: each is pushed from there."""
        return image if source.is_cluster or source == Place() else self._docker.receive(image, name, source)

    def pin(self, prepared: Prepared, name: str) -> str:
        return self._docker.pin(prepared.built, name)

    def unpin(self, image: Image, name: str) -> None:
        self._docker.unpin(image, name)

    def packages(self, prepared: Prepared, task: Task) -> list[str]:
        return self._docker.packages(prepared.built, task)

    def start(
        self, prepared: Prepared, task: Task, streams: Streams = OWN, launch: Launch = nullcontext
    ) -> Run:
        """Make the Job, send its files, and open its gate; from then on it does not need this process."""
        make_folders(task)
        _ = self.client.namespace  # a context that is not there is not worth remembering
        if not task.attempt:
            state.remember_host(task.root, self.place.host)
        if ended := superseded(self._own_runs(task), task):
            list(self.remove(ended))
        token = (task.attempt.token if task.attempt else os.urandom(4).hex())[:16].lower()
        checkout = checkout_id(task.root)
        where = Where(
            prepared.reference, self.client.namespace, token, checkout, prepared.user, prepared.arch
        )
        where = where._replace(claimed=_claimed(prepared.built.image, task))
        if not task.is_detached and task.retention == "none" and not task.attempt:
            where = where._replace(maker=process.identity(os.getpid()))
        source = _input(task, streams)
        where = where._replace(has_stdin=source != b"")
        lock = attempts.open_held_lock(task.attempt) if task.attempt else None
        run = self._create(prepared, task, where, lock)
        run.output, run.metrics = OutputCopy(streams), task.metrics
        try:
            run.send(task)
            if where.maker:
                run.remember_output()
            with launch():
                run.open()
            if source != b"":
                run.feed(source)
        except BaseException:
            with foreground.uninterrupted():
                run.abandon()
            raise
        self._report_ports(task, run)
        if not task.is_detached:
            self._runs[run.known.job] = run
            run.follow()
        if task.attempt:
            self._attempts[run.known.job] = task.attempt
        name = run.known.job
        return Run(name, name, task.project, task.name, self.place, checkout, task.root)

    def _report_ports(self, task: Task, run: ClusterRun) -> None:
        """Name the program that reaches the job's ports; a cluster publishes none of them."""
        # It knows neither ranges nor protocols other than TCP.
        known = (port for port in task.ports if "-" not in port and port.endswith(("/tcp", *"0123456789")))
        ports = [":".join(port.removesuffix("/tcp").split(":")[-2:]) for port in known]
        if not ports:
            return
        words = ("--namespace", self.client.namespace, "port-forward", f"job/{run.known.job}", *ports)
        console.info(
            f"its ports are not published; `{process.display(self.client.step(*words))}` reaches them"
        )

    def _create(self, prepared: Prepared, task: Task, where: Where, lock: "IO[str] | None") -> ClusterRun:
        """Make the Job, and wait for its gate; once more where what keeps it from starting can be changed."""
        run = ClusterRun.create(self.client, prepared, task, where)
        run.lock = lock
        try:
            run.wait_for_gate()
        except BaseException as error:
            is_refused = isinstance(error, Restricted) and not where.user
            is_lost = isinstance(error, Unavailable) and not prepared.is_fresh
            run.lock = None if is_refused or is_lost else lock
            with foreground.uninterrupted():
                run.abandon()
            if not (is_refused or is_lost):
                raise
        else:
            return run
        # No pod has begun. Its Secret may still be there, so the name is another.
        if is_lost:
            console.warn(f"the cluster cannot pull the image of {task.name}; it is pushed again")
            prepared = images.push_again(self._docker, prepared, task)
            where = where._replace(image=prepared.reference, token=f"{where.token[:15]}i")
            return self._create(prepared, task, where, lock)
        user = images.restricted_user(self._docker, prepared.built, task)
        console.warn(
            f"{task.name} runs as user {user}, as its namespace is restricted; name another with `user`"
        )
        return self._create(prepared, task, where._replace(user=user, token=f"{where.token[:15]}u"), lock)

    def _own_runs(self, task: Task) -> list[Run]:
        labels = manifest.run_labels(task, checkout_id(task.root))
        return self._list(labels) if task.retention == "last" else []

    def wait(self, run: Run) -> int:
        if not run.checkout and run.code is not None:  # of a schedule, whose pod has gone with its end
            return run.code
        own = self._runs.get(run.name) or self._of_other(run)
        try:
            code = own.wait()
        except Gone:  # or another pod would wait in vain
            if not own.known.is_scheduled:
                own.abandon()
            raise
        finally:
            self._runs.pop(run.name, None)
        if attempt := self._attempts.pop(run.name, None):
            with suppress(Broken, Answer, OSError):
                bring_metrics(self.client, own.pod, own.metrics)
            attempts.note(attempt, code)
            own.remove()
        elif own.known.maker:
            own.remove()
        return code

    def _of_other(self, run: Run) -> ClusterRun:
        """A run that another process has started; what nobody will start any more goes."""
        other = self._found(run)
        other.output = OutputCopy(Streams(b"", len, len))
        self._await_begin(other)
        return other

    def _await_begin(self, other: ClusterRun) -> None:
        """Wait until a run has begun. Raises SkelebotError if its client was killed before."""
        while True:
            is_lost = other.is_lost()  # before it is looked whether the client has opened the gate
            if (state_of := other.look()).name not in WAITING:
                break
            if is_lost:
                other.remove()
                raise SkelebotError(f"{other.known.task} was not started: its client has gone before")
            time.sleep(0.2)
        if state_of.is_final:
            if not other.known.is_scheduled:
                other.remove()
            raise SkelebotError(f"{other.known.task} was ended at {self.place}: {state_of.why}")

    def _found(self, run: Run) -> ClusterRun:
        job = self.client.get("jobs", run.name)
        if job is None:
            raise SkelebotError(f"{run.name} is no longer at {self.place}")
        return ClusterRun(self.client, _known(job))

    def adopt(self, task: Task) -> Run | None:
        assert task.attempt
        for job in self.client.list("jobs", labelSelector=f"{manifest.ATTEMPT}={task.attempt.token}"):
            other = ClusterRun(self.client, _known(job))
            if other.look().name in ("running", "ended"):
                log = os.open(os.path.join(task.attempt.folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                other.output, other.metrics = OutputCopy(Streams(b"", log, log)), task.metrics
                self._runs[other.known.job] = other
                self._attempts[other.known.job] = task.attempt
                return self._run_of(job, other.find_pod())
            other.remove()
        return None

    def signal(self, run: Run, signum: int, delivered: bool = False) -> None:
        if own := self._runs.get(run.name):
            own.ask(signum)

    def bring_metrics(self, run: Run) -> bool:
        own = self._runs.get(run.name)
        if own and own.metrics:
            bring_metrics(self.client, own.pod, own.metrics)
        return True

    # --- the runs that there are ---

    def runs(self, project: Project, every_checkout: bool = False) -> list[Run]:
        found = self._list({PROJECT: manifest.dns(project.name, 63)})
        own = ("", checkout_id(project.root))  # the runs of a schedule belong to no checkout
        return [run for run in found if every_checkout or run.checkout in own]

    def _list(self, labels: dict[str, str]) -> list[Run]:
        selector = _selector(labels)
        jobs = self.client.list("jobs", labelSelector=selector, lasting=5)
        pods: dict[str, Any] = {}
        several = self.client.list("pods", labelSelector=selector) if jobs else []
        for each in sorted(several, key=lambda one: str(one["metadata"]["creationTimestamp"])):
            labels_of_pod = each["metadata"]["labels"]
            if (name := labels_of_pod.get("job-name", "")) not in pods or SCHEDULE in labels_of_pod:
                pods[name] = each
        recorded = manifest.ATTEMPT
        found = [
            self._run_of(job, pods.get(job["metadata"]["name"]))
            for job in jobs
            if recorded not in job["metadata"]["labels"] and not job["metadata"].get("deletionTimestamp")
        ]
        return sorted(found, key=lambda run: run.began, reverse=True)

    def _run_of(self, job: Any, its_pod: Any) -> Run:
        about = job["metadata"]
        notes = about.get("annotations") or {}
        now = self._state_of(its_pod) or _without_pod(job)
        has_ended = now.name in ("ended", "failed")
        code = (now.code if now.code is not None else 1) if has_ended else None
        began, ended = _times(its_pod)
        return Run(
            about["name"],
            about["name"],
            notes.get(PROJECT, ""),
            notes.get(JOB, ""),
            self.place,
            about["labels"].get(CHECKOUT, ""),
            notes.get(ROOT, ""),
            "exited" if has_ended else now.name,
            code,
            began or about["creationTimestamp"],
            ended if has_ended else "",
        )

    def _state_of(self, its_pod: Any) -> pod.State | None:
        """What a pod is doing; the cluster notices an opened gate only a moment later."""
        now = pod.state(its_pod) if its_pod else None
        if now and now.name == "waiting":
            with suppress(Answer):
                if is_open(self.client, its_pod["metadata"]["name"]) is not False:
                    return pod.State("running")
        return now

    def logs(self, run: Run, follow: bool = False, streams: Streams = OWN) -> int:
        other = self._found(run)
        other.output = OutputCopy(streams)
        if other.give_log():
            return 0
        if follow:
            self._await_begin(other)
            if other.is_lost():
                other.remember_output()
                self._runs[run.name] = other
                return self.wait(run)
            other.wait()
            return 0
        known = other.give_written()
        if known and known.code is not None and run.checkout == checkout_id(run.root):
            other.bring_back()
        return 0

    def send(self, run: Run, source: bytes | int, has_end: bool) -> None:
        other = self._found(run)
        if not other.known.takes_records:
            raise no_records(run)
        while other.look().name in WAITING:
            time.sleep(0.2)
        other.send_records(source, has_end)

    def stop(self, runs: Sequence[Run]) -> None:
        for run in runs:
            if run.is_running:
                other = self._found(run)
                if other.look().name in WAITING or not other.pod:
                    other.remove()
                    continue
                self._stop(other)

    def _stop(self, other: ClusterRun) -> None:
        other.output = OutputCopy(Streams(b"", len, len))
        other.ask(signal.SIGTERM)
        if not other.known.maker or other.is_lost():
            other.wait()  # otherwise its client brings back the results
        if other.known.is_tried_again:
            other.remove()

    def remove(self, runs: Sequence[Run]) -> Iterable[Removed]:
        for run in runs:
            other = self._found(run)
            if run.root and run.checkout == checkout_id(run.root) and other.is_keeper_up():
                other.bring_back()  # or they stay there
            other.remove()
            yield Removed(run.name, 0)

    def clean(self, image: Image, runs: Sequence[Run], every_checkout: bool) -> Cleaned:
        """Remove what has ended. What is on a claim may be nowhere else, so its owner removes it."""
        labels = {PROJECT: manifest.dns(image.project, 63)}
        if not every_checkout:
            labels[CHECKOUT] = checkout_id(image.context)
        with suppress(Answer):  # who makes no claims need not have the right to list them
            for each in self.client.list("persistentvolumeclaims", labelSelector=_selector(labels)):
                name = each["metadata"]["name"]
                console.info(
                    f"the claim {name} at {self.place} keeps its files; `kubectl delete "
                    f"--namespace {self.client.namespace} persistentvolumeclaim {name}` removes it"
                )
        # A schedule keeps as many of its runs as it should.
        own = [run for run in runs if run.state == "exited" and run.checkout]
        return Cleaned(list(self.remove(own)))

    def forget(self, image: Image) -> None:
        """Nothing of a checkout stays on a cluster beside its runs."""

    def shell(self, run: Run, user: str | None, words: tuple[str, ...]) -> Step:
        other = self._found(run)
        other.look()
        terminal = ["--tty"] if foreground.are_terminals() else []
        where = (
            "--namespace",
            self.client.namespace,
            "exec",
            "--stdin",
            *terminal,
            other.pod,
            "--container",
            "job",
        )
        return self.client.step(*where, "--", *words)


def _selector(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _claimed(image: Image, task: Task) -> Claimed:
    """What stays on the task's claim. A recorded run has a root of its own; its image knows the checkout."""
    root = image.context if task.attempt and os.path.isdir(image.context) else task.root
    return manifest.claimed(task, root, checkout_id(root))


def _known(job: Any) -> Known:
    about = job["metadata"]
    notes = about.get("annotations") or {}
    is_scheduled = SCHEDULE in about["labels"]
    mounts = tuple(Mount(*fields) for fields in json.loads(notes.get(MOUNTS, "[]")))
    containers = job["spec"]["template"]["spec"]["containers"]
    limits = next((each.get("resources") or {} for each in containers if each["name"] == "job"), {})
    memory = str((limits.get("limits") or {}).get("memory", ""))
    limit = int(memory) if memory.isdigit() else 0
    name, task, root, maker = about["name"], notes.get(JOB, ""), notes.get(ROOT, ""), notes.get(MAKER, "")
    known = Known(name, task, root, mounts, limit, maker, manifest.claimed_of(job), STDIN in notes)
    if not is_scheduled:
        return known
    return known._replace(mounts=(), is_scheduled=True, is_tried_again=job["spec"].get("backoffLimit", 0) > 0)


def _without_pod(job: Any) -> pod.State:
    """What a Job without a pod is doing."""
    if pod.has_succeeded(job):
        return pod.State("ended", code=0)
    return pod.State("failed" if pod.has_failed(job) else "queued")


def _input(task: Task, streams: Streams) -> bytes | int:
    """The job's input: all of it, or a descriptor. Nobody types for a job on a cluster."""
    if task.is_detached or streams.stdin is not None:
        return streams.stdin or b""
    with suppress(OSError):
        if not stat.S_ISCHR(os.fstat(0).st_mode):
            return 0
    return b""


def _times(its_pod: Any) -> tuple[str, str]:
    """When the job's container has begun and ended."""
    for each in ((its_pod or {}).get("status") or {}).get("containerStatuses") or ():
        if each["name"] == "job":
            part = each.get("state") or {}
            of_end = part.get("terminated") or {}
            return (of_end or part.get("running") or {}).get("startedAt") or "", of_end.get(
                "finishedAt"
            ) or ""
    return "", ""


def _check_text(task: Task) -> None:
    """Raise UsageError for what is not UTF-8, which the cluster would replace without a word."""
    env = reveal_all(task.env, os.environ)
    known = {**os.environ, **env}
    texts = [(reveal(word, known), display_text(word)) for word in task.argv]
    texts += [(value, f"the value of {name}") for name, value in env.items()]
    for text, shown in texts:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UsageError(
                f"{console.printable(shown)} is not UTF-8, which a cluster does not support; "
                "run the job natively with -n"
            )
