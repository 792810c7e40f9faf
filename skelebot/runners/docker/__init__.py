"""Run tasks in containers of one engine, through the Docker client."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

from skelebot import console, process
from skelebot.errors import ProgramMissing, SkelebotError, UsageError
from skelebot.model import WORKDIR, Image, Place, Project, Run, Step, Task
from skelebot.process import OWN, Streams
from skelebot.project import state
from skelebot.project.state import checkout_id
from skelebot.runners import limits
from skelebot.runners.docker import build_source, cleanup, images, metrics, runs
from skelebot.runners.docker.attended import Attended
from skelebot.runners.docker.client import PATIENCE, BuiltImage, Client, or_natively
from skelebot.runners.docker.labels import PROJECT_LABEL, repository
from skelebot.runners.docker.start import Prepared, start
from skelebot.runners.folders import make_folders
from skelebot.runners.runner import Capacity, Cleaned, Launch, Removed, no_records
from skelebot.secret import display_text, reveal, reveal_all

# What each of them lists is in the image or is not; none says a word where it is missing.
_PACKAGES = r"""
python -m pip freeze --all || python3 -m pip freeze --all
dpkg-query -W -f '${Package}==${Version}\n' ||
    rpm -qa --queryformat '%{NAME}==%{VERSION}-%{RELEASE}\n' || apk info -v
Rscript -e 'p <- installed.packages(); cat(paste0(p[, "Package"], "==", p[, "Version"], "\n"), sep = "")'
"""


class Docker:
    """The containers of one engine."""

    def __init__(self, host: str | None, verbose: bool = False, skip_build: bool = False) -> None:
        self.client = Client(host, verbose)
        self._skip_build = skip_build
        self._attended: dict[str, Attended] = {}
        self._adopted: dict[str, Task] = {}

    @property
    def place(self) -> Place:
        return Place("docker", self.client.host)

    @property
    def is_far(self) -> bool:
        return self.client.is_remote

    def check(self, image: Image, task: Task) -> None:
        _refuse_bytes(task)
        if image.inherit or os.environ.get("SKELEBOT_BUILD_INHERIT"):
            from skelebot.runners.docker import inherited

            inherited.setting_names(image)
        if image.dockerfile:
            build_source.text(image)

    def describe(self, image: Image, task: Task, described: set[str]) -> list[str]:
        if self._skip_build:
            lines = [f"image    {image.tag} (the last one built: -s)"]
        elif (dockerfile := build_source.text(image)) in described:
            lines = [f"image    {image.tag}, built from the same Dockerfile as above"]
        else:
            described.add(dockerfile)
            lines = [f"image    {image.tag}, built from"]
            lines += [f"         | {line}" for line in dockerfile.splitlines()]
        where = f"on {self.client.host}" if self.client.host else "on the default Docker host"
        lines.append(f"run      {process.display(Step(task.argv))}")
        lines.append(f"where    in a container, {where}, in {WORKDIR}")
        for mount in task.mounts:
            lines.append(f"mapping  {mount.source} -> {mount.target}{':ro' if mount.read_only else ''}")
        lines += [f"port     {port}" for port in task.ports]
        lines += limits.describe(task)
        return lines + [f"variable {name}" for name, _ in task.env]

    def surroundings(self, image: Image, task: Task) -> dict[str, str]:
        base = None
        with suppress(SkelebotError):  # no engine is needed to know that there is nothing to do
            base = None if image.dockerfile else self.client.inspect_quickly(image.base)
        return {"image": build_source.setup_digest(image), "base image": base.id if base else ""}

    @contextmanager
    def prepare(self, image: Image, task: Task) -> Iterator[Prepared]:
        """Build the image where something has changed; it is not removed while the block lasts."""
        if image.pinned:
            yield Prepared(image, self._pinned(image))
            return
        try:
            if task.limits.disk and not self.client.is_remote:
                # Podman has no such folder to tell of.
                _, engine, _ = self.client.capture("info", "--format", "{{.DockerRootDir}}", timeout=PATIENCE)
                limits.check_disk(task, task.root, engine.strip())
            with cleanup.images_in_use(self.client, image) as lock:
                built = images.ensure_image(self.client, image, task, lock, self._skip_build)
                yield Prepared(image, built)
        except ProgramMissing as error:
            raise ProgramMissing(f"{error}; install it{or_natively(task)}") from None

    def _pinned(self, image: Image) -> BuiltImage:
        if built := self.client.inspect(image.pinned):
            return built
        raise SkelebotError(
            f"the image {image.pinned} of the run is no longer at {self.client.where}; queue the run again"
        )

    def image_id(self, prepared: Prepared) -> str:
        return prepared.built.id

    def pin(self, prepared: Prepared, name: str) -> str:
        self.client.query("tag", prepared.built.id, f"{repository(prepared.image)}:{name}")
        return prepared.built.id

    def capacity(self, image: Image | None = None) -> Capacity:
        if not self.client.is_remote:
            return limits.capacity(with_gpus=image is not None)
        # Not every client says of `info` that no engine answers.
        self.client.query("version", "--format", "{{.Server.Version}}", timeout=PATIENCE)
        words = ("info", "--format", "{{.NCPU}} {{.MemTotal}}")
        out = self.client.query(*words, timeout=PATIENCE)
        found = re.fullmatch(r"(\d+) (\d+)", out.strip())
        if not found:
            raise self.client.unreadable(words, out)
        return Capacity(float(found[1]), int(found[2]), self._count_gpus(image))

    def _count_gpus(self, image: Image | None) -> int | None:
        """The number of GPUs of another machine; None if it is not known, as without the image there."""
        built = self.client.inspect(image.pinned) if image and image.pinned else None
        if built:
            from skelebot.runners import gpus

            with suppress(SkelebotError):
                return len(gpus.devices(runs.asking_gpus(self.client, built.id)))
        return None

    def receive(self, image: Image, name: str, source: Place) -> Image:
        from skelebot.runners.docker import transfer

        return replace(image, pinned=transfer.receive(self.client, Client(source.host), image, name))

    def packages(self, prepared: Prepared, task: Task) -> list[str]:
        words = ("run", "--rm", "--entrypoint", "/bin/sh", prepared.built.id, "-c", _PACKAGES)
        return sorted(set(self.client.capture(*words)[1].splitlines()))

    def unpin(self, image: Image, name: str) -> None:
        self.client.capture("rmi", f"{repository(image)}:{name}", timeout=PATIENCE)

    def start(
        self, prepared: Prepared, task: Task, streams: Streams = OWN, launch: Launch = nullcontext
    ) -> Run:
        """Start a container; a detached one is on its own, any other is attached to the streams."""
        make_folders(task)
        if not task.attempt:
            state.remember_host(task.root, self.client.host)
        attended = start(self.client, prepared, task, streams, launch)
        name = attended.container.name
        self._attended[name] = attended
        project, checkout = prepared.image.project, checkout_id(task.root)
        return Run(name, name, project, task.name, self.place, checkout, task.root)

    def wait(self, run: Run) -> int:
        attended = self._attended.get(run.name)
        if run.name in self._adopted:
            return runs.wait_adopted(self.client, run, self._adopted[run.name])
        if attended is None or attended.program is None:
            return runs.wait(self.client, run)
        try:
            code = attended.wait()
        finally:
            attended.devices.release()
        del self._attended[run.name]
        return code

    def adopt(self, task: Task) -> Run | None:
        assert task.attempt
        run = runs.of_attempt(self.client, task.attempt)
        if run:
            self._adopted[run.name] = task
        return run

    def signal(self, run: Run, signum: int, delivered: bool = False) -> None:
        if attended := self._attended.get(run.name):
            attended.signal(signum, delivered)
        elif run.name in self._adopted:
            with suppress(SkelebotError):  # it has ended meanwhile
                self.client.query("kill", "--signal", str(int(signum)), run.name)

    def bring_metrics(self, run: Run) -> bool:
        if not self.client.is_remote:
            return False
        attended = self._attended.get(run.name)
        task = attended.container.task if attended else self._adopted.get(run.name)
        if task and task.metrics:
            metrics.bring(self.client, run.name, task.metrics)
        return True

    # --- the runs that there are ---

    def runs(self, project: Project, every_checkout: bool = False) -> list[Run]:
        found = runs.runs(self.client, {PROJECT_LABEL: project.name})
        own = checkout_id(project.root)
        return [run for run in found if every_checkout or run.checkout in ("", own)]

    def logs(self, run: Run, follow: bool = False, streams: Streams = OWN) -> int:
        return runs.logs(self.client, run, follow, streams)

    def send(self, run: Run, source: bytes | int, has_end: bool) -> None:
        raise no_records(run)

    def stop(self, runs_of: Sequence[Run]) -> None:
        runs.stop(self.client, runs_of)

    def remove(self, runs_of: Sequence[Run]) -> Iterator[Removed]:
        return runs.remove(self.client, runs_of)

    def shell(self, run: Run, user: str | None, words: tuple[str, ...]) -> Step:
        return runs.shell(self.client, run, user, words)

    def clean(self, image: Image, runs_of: Sequence[Run], every_checkout: bool) -> Cleaned:
        removed = list(self.remove([run for run in runs_of if run.state == "exited"]))
        with cleanup.alone(image) as is_alone:
            if not is_alone:
                return Cleaned(removed, is_complete=False)
            # When nobody else is at it, a container that was only created is not about to start.
            own = ("", checkout_id(image.context))
            removed += self.remove([r for r in runs_of if r.state == "created" and r.checkout in own])
            sizes = self.client.own_sizes()
            names = cleanup.remove_superseded(self.client, image, every_checkout)
        return Cleaned(removed, [Removed(name, sizes.get(name, 0)) for name in names])

    def forget(self, image: Image) -> None:
        try:
            cleanup.forget(self.client, image)
        except ProgramMissing as error:
            raise ProgramMissing(f"{error}; install it") from None


def _refuse_bytes(task: Task) -> None:
    """Raise UsageError for what is not UTF-8."""
    env = reveal_all(task.env, os.environ)
    known = {**os.environ, **env}
    held = [(reveal(word, known), display_text(word), "rename the file") for word in task.argv]
    # Nobody says which variables are secrets.
    held += [(value, f"the value of {name}", "write it in UTF-8") for name, value in env.items()]
    for text, named, remedy in held:
        if not text.isascii() and re.search("[\ud800-\udfff]", text):
            raise UsageError(
                f"{console.printable(named)} is not UTF-8, which Docker does not support; "
                f"run the job natively with -n, or {remedy}"
            )
