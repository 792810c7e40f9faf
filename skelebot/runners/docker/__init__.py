"""Runs tasks in containers of one engine, through its own client."""

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from skelebot import console, foreground, process
from skelebot.errors import ProgramMissing, SkelebotError, UsageError
from skelebot.model import WORKDIR, Image, Mount, Place, Project, Run, Step, Task
from skelebot.process import OWN, Streams
from skelebot.project import state
from skelebot.project.state import checkout_id
from skelebot.runners.docker import build_source, cleanup, images, labels
from skelebot.runners.docker.client import PATIENCE, BuiltImage, Client, csv, explained, or_natively
from skelebot.runners.docker.container import Container, container_name, has_secrets, variables, words_tar
from skelebot.runners.docker.labels import CHECKOUT_LABEL, JOB_LABEL, MAKER_LABEL, PROJECT_LABEL, ROOT_LABEL
from skelebot.runners.folders import make_folders
from skelebot.runners.runner import Launch, Removed, superseded
from skelebot.secret import display_text, reveal

if TYPE_CHECKING:
    from skelebot.runners.docker.volumes import Volumes


class Prepared(NamedTuple):
    """An image that a container can be made of."""

    image: Image
    built: BuiltImage


@dataclass
class _Live:
    """A run that this process has started, and waits for through the client.

    asked: whether it was asked to end.
    """

    container: Container
    volumes: "Volumes | None"
    program: process.Program | None = None
    asked: bool = False


class Docker:
    """The containers of one engine."""

    def __init__(self, host: str | None, verbose: bool = False, skip_build: bool = False) -> None:
        self.client = Client(host, verbose)
        self._skip_build = skip_build
        self._live: dict[str, _Live] = {}

    @property
    def place(self) -> Place:
        return Place("docker", self.client.host)

    def check(self, image: Image, task: Task) -> None:
        _refuse_bytes(task)
        if image.inherit or os.environ.get("SKELEBOT_BUILD_INHERIT"):
            from skelebot.runners.docker import inherited

            inherited.setting_names(image)
        if image.dockerfile:
            build_source.text(image)

    def describe(self, image: Image, task: Task) -> list[str]:
        as_built = " (as it was built last: -s)" if self._skip_build else ", built from"
        lines = [f"image    {image.tag}{as_built}"]
        if not self._skip_build:
            lines += [f"         | {line}" for line in build_source.text(image).splitlines()]
        where = f"on {self.client.host}" if self.client.host else "on the default Docker host"
        lines.append(f"run      {process.display(Step(task.argv))}")
        lines.append(f"where    in a container, {where}, in {WORKDIR}")
        for mount in task.mounts:
            lines.append(f"mapping  {mount.source} -> {mount.target}{':ro' if mount.read_only else ''}")
        lines += [f"port     {port}" for port in task.ports]
        return lines + [f"variable {name}" for name, _ in task.env]

    @contextmanager
    def prepare(self, image: Image, task: Task) -> Iterator[Prepared]:
        """Build the image where something has changed; it is not removed while the block lasts."""
        try:
            with cleanup.images_in_use(self.client, image) as lock:
                built = images.ensure_image(self.client, image, task, lock, self._skip_build)
                yield Prepared(image, built)
        except ProgramMissing as error:
            raise ProgramMissing(f"{error}; install it{or_natively(task)}") from None

    # --- starting ---

    def start(
        self, prepared: Prepared, task: Task, streams: Streams = OWN, launch: Launch = nullcontext
    ) -> Run:
        """Start a container; a detached one is on its own, any other is attached to the streams."""
        make_folders(task)
        state.remember_host(task.root, self.client.host)
        self._remove_never_started(task)
        name = self._name(prepared, task)
        volumes = self._volumes(prepared, task)
        container = self._container(name, prepared, task, volumes, streams)
        live = _Live(container, volumes)
        try:
            live.program = self._launched(live, streams, launch)
        except BaseException:
            self._remove(name, patience=2)
            raise
        self._live[name] = live
        return self._run_of(container)

    def _run_of(self, container: Container) -> Run:
        root = container.task.root
        place, job = self.place, container.task.name
        return Run(container.name, container.name, container.project, job, place, checkout_id(root), root)

    def _name(self, prepared: Prepared, task: Task) -> str:
        """The name of the new container: the plain one for a detached job, where it is free."""
        image = labels.repository(prepared.image)
        if not task.is_detached:
            return container_name(task, image, os.urandom(4).hex())
        runs = self._runs({PROJECT_LABEL: prepared.image.project, CHECKOUT_LABEL: checkout_id(task.root)})
        list(self.remove(superseded(runs, task)))
        plain = container_name(task, image)
        code, _, _ = self.client.capture("container", "inspect", "--format", "{{.Id}}", plain)
        return plain if code != 0 else container_name(task, image, os.urandom(4).hex())

    def _volumes(self, prepared: Prepared, task: Task) -> "Volumes | None":
        """What stands for the mapped folders on an engine that does not see them."""
        if not self.client.is_remote:
            return None
        from skelebot.runners.docker.volumes import Volumes

        mounts = self._mounts(prepared, task)
        return Volumes.of(self.client, prepared.built.id, prepared.image.project, task.root, mounts)

    def _container(
        self, name: str, prepared: Prepared, task: Task, volumes: "Volumes | None", streams: Streams
    ) -> Container:
        of_volumes = volumes.labels() if volumes else ()
        maker = ((MAKER_LABEL, process.identity(os.getpid())),)
        return Container(
            name,
            prepared.built.id,
            prepared.image.project,
            task,
            () if volumes else self._mounts(prepared, task),
            _user(prepared, task),
            f"{os.getuid()}:{os.getgid()}",
            (*labels.of_checkout(task.root).items(), *maker, *of_volumes),
            not task.is_detached and streams == OWN and foreground.are_terminals(),
            _volume_arguments(volumes) if volumes else None,
            has_secrets(task.argv),
        )

    def _mounts(self, prepared: Prepared, task: Task) -> tuple[Mount, ...]:
        return tuple(self._at_home(mount, prepared, task) for mount in task.mounts)

    def _at_home(self, mount: Mount, prepared: Prepared, task: Task) -> Mount:
        if not mount.target.startswith("~"):
            return mount
        home = self._home(prepared.built.id, _user(prepared, task).partition(":")[0])
        return Mount(mount.source, home + mount.target[1:], mount.read_only)

    def _home(self, image: str, user: str) -> str:
        if user in ("", "0", "root"):
            return "/root"
        _, passwd, _ = self.client.capture("run", "--rm", "--entrypoint", "cat", image, "/etc/passwd")
        for line in passwd.splitlines():
            fields = line.split(":")
            if len(fields) > 5 and user in (fields[0], fields[2]):
                return fields[5].rstrip("/")
        return ""

    def _launched(self, live: _Live, streams: Streams, launch: Launch) -> process.Program | None:
        """Start the container; None where it is on its own from then on."""
        container = live.container
        task, detached = container.task, container.task.is_detached
        with ExitStack() as files:
            env = variables(task, files)
            if self._is_created_first(live):
                self._create(live, env.options, env.env, env.fds)
                attached = () if detached else ("--attach", "--interactive")
                step = self.client.step("start", *attached, container.name)
            else:
                step = self.client.step(
                    "run", *self._how(task), *env.options, *container.arguments(), env=env.env
                )
            if detached:
                self._check(step, task, env.fds)
                return None
            process.trace(self.client.verbose, step)
            with launch():
                return process.start(step, streams, env.fds)

    @staticmethod
    def _how(task: Task) -> tuple[str, ...]:
        """Whether the container is on its own, and whether it goes when it has ended."""
        if task.is_detached:
            return ("--detach",)
        return ("--rm",) if task.kept == "none" else ()

    @staticmethod
    def _is_created_first(live: _Live) -> bool:
        """Whether something has to be put into the container before it starts."""
        return live.container.words_file or live.volumes is not None

    def _create(
        self, live: _Live, options: Sequence[str], env: tuple[tuple[str, str], ...], fds: tuple[int, ...]
    ) -> None:
        """Make the container, and put into it what a far engine lacks and what nobody else may see."""
        container, task = live.container, live.container.task
        if live.volumes:
            live.volumes.send()
        how = () if live.volumes or task.is_detached else self._how(task)
        self._check(self.client.step("create", *how, *options, *container.arguments(), env=env), task, fds)
        if live.volumes:
            live.volumes.send_files(container.name)
        if container.words_file:
            data = words_tar(task)
            step = self.client.step("cp", "-", f"{container.name}:/")
            process.trace(self.client.verbose, step)
            code, output = process.tee(step, lambda line: None, lambda stdin: void(stdin.write(data)))
            if code != 0:
                said = "; ".join(output)
                raise SkelebotError(f"the secrets of {task.name} could not be put into its container: {said}")

    def _check(self, step: Step, task: Task, fds: tuple[int, ...]) -> None:
        process.trace(self.client.verbose, step)
        code, lines = process.tee(step, lambda line: None, pass_fds=fds)
        if code != 0:
            said = "; ".join(line for line in lines if line.strip() and "--help" not in line)
            raise SkelebotError(f"the container of {task.name} could not be started: {said}")

    def _remove_never_started(self, task: Task) -> None:
        """Remove the containers whose makers were killed before they started them: secrets may be in them."""
        wanted = {PROJECT_LABEL: task.project, CHECKOUT_LABEL: checkout_id(task.root)}
        for name in self.client.containers_with(wanted, "created") or ():
            format = f'{{{{index .Config.Labels "{MAKER_LABEL}"}}}}'
            _, maker, _ = self.client.capture("container", "inspect", "--format", format, name)
            if maker.strip() and not process.is_alive(maker.strip()):
                self.client.capture("rm", "--force", "--volumes", name)

    # --- waiting ---

    def wait(self, run: Run) -> int:
        live = self._live.get(run.name)
        if live is None or live.program is None:
            return self._wait_for_another(run)
        try:
            code = live.program.wait()
        except BaseException:
            self._remove(run.name, patience=2)
            raise
        self._settle(live, code)
        del self._live[run.name]
        return code

    def _wait_for_another(self, run: Run) -> int:
        out = self.client.query("wait", run.id)
        self._bring_back(run)
        if not re.fullmatch(r"\d{1,3}", out.strip()):
            raise SkelebotError(
                f"`docker wait` gave no exit code for {run.name}: {console.one_line(out[:80])}"
            )
        return int(out)

    def _settle(self, live: _Live, code: int) -> None:
        """Bring results back, leave no container behind, and tell the engine's failure from the job's."""
        container, volumes = live.container, live.volumes
        name = container.name
        if volumes:
            if code and not live.asked and self._goes_on(name):
                self._raise_lost(container.task)
            volumes.fetch(name)  # should that fail, the container stays, for `logs` to do it
        elif code and not live.asked and self._goes_on(name):
            self._end_alone(container)
        if live.asked or volumes:
            self._remove(name, patience=2 if live.asked else 0)
        if not live.asked and code in self._engine_codes(live) and not self._was_started(name):
            self._remove(name)
            hint = " (gpu: true needs NVIDIA's container toolkit on the host)" if container.task.gpu else ""
            raise SkelebotError(
                f"the container of {container.task.name} could not be started{hint}; "
                "Docker's message stands above"
            )

    def _raise_lost(self, task: Task) -> NoReturn:
        raise SkelebotError(
            f"the connection to {self.client.where} was lost, and {task.name} may go on there; "
            f"`skelebot logs -f {task.name}` follows it, and brings its results in the end"
        )

    def _end_alone(self, container: Container) -> NoReturn:
        """End a job that nobody attends any more, as its output could not be written."""
        with foreground.uninterrupted():
            self.client.capture("stop", "--time", f"{foreground.GRACE:.0f}", container.name)
        self._remove(container.name)
        if _nobody_reads(1):
            raise BrokenPipeError
        raise SkelebotError(
            f"Docker's client ended before {container.task.name} did, which was stopped; "
            "its message stands above"
        )

    def _goes_on(self, name: str) -> bool:
        """Whether the client has ended without the job, as it does when the connection breaks."""
        try:
            with foreground.uninterrupted():  # by the second of two quick Ctrl-C: the first has ended the job
                words = ("container", "inspect", "--format", "{{.State.Running}}", name)
                code, out, said = self.client.capture(*words, timeout=PATIENCE)
        except SkelebotError:
            return True
        return out.strip() == "true" if code == 0 else not _NO_SUCH.search(said)

    def _engine_codes(self, live: _Live) -> tuple[int, ...]:
        """Exit codes of the client that may be the engine's rather than the job's."""
        return (1, 125, 126, 127) if self._is_created_first(live) else (125, 126, 127)

    def _was_started(self, name: str) -> bool:
        # Only a moment ahead of now holds the events of just now. An engine remembers but a few
        # hundred events: of a long run it has forgotten the start, never the end.
        now = ("--since", "1", "--until", f"{time.time() + 0.2:.6f}")
        which = ("--filter", f"container={name}", "--filter", "event=start", "--filter", "event=die")
        code, out, _ = self.client.capture("events", *now, *which, "--format", "{{.Status}}")
        return code != 0 or out.strip() != ""

    def _remove(self, name: str, patience: float = 0) -> None:
        """Leave nothing behind, whatever signals come now.

        patience: seconds to wait for a container that the engine may just be making.
        """
        until = time.monotonic() + patience
        with foreground.uninterrupted():
            while True:
                _, _, said = self.client.capture("rm", "--force", "--volumes", name)
                gone = _NO_SUCH.search(said)
                if not gone or time.monotonic() >= until or self._was_started(name):
                    return
                time.sleep(0.1)

    def signal(self, run: Run, signum: int, delivered: bool = False) -> None:
        """Pass a signal on; while the container is still on the way, try again.

        The client would pass it on too, but only once, and the engine refuses it before the start.
        """
        live = self._live.get(run.name)
        program = live.program if live else None
        if live:
            live.asked = True
        if delivered:
            return
        patience = time.monotonic() + 10
        while time.monotonic() < patience and not (program and program.has_ended()):
            code, _, said = self.client.capture("kill", "--signal", str(signum), run.name)
            if code == 0 or not re.search("is not running|no such container", said.lower()):
                break
            time.sleep(0.1)
        if signum == signal.SIGKILL and program:
            os.kill(program.pid, signum)

    # --- the runs that there are ---

    def runs(self, project: Project, every_checkout: bool = False) -> list[Run]:
        runs = self._runs({PROJECT_LABEL: project.name})
        own = checkout_id(project.root)
        return [run for run in runs if every_checkout or run.checkout in ("", own)]

    def _runs(self, wanted: dict[str, str]) -> list[Run]:
        filters = [*(f"label={name}={value}" for name, value in wanted.items()), f"label={JOB_LABEL}"]
        words = [word for each in filters for word in ("--filter", each)]
        ids = self.client.list_ids("ps", "--all", *words, timeout=PATIENCE)
        runs = self.client.inspect_all(ids, self._read_run)
        return sorted(runs, key=lambda run: run.began, reverse=True)

    def _read_run(self, found: dict[str, Any]) -> Run:
        state, of_run = found["State"], found["Config"].get("Labels") or {}
        began, ended = str(state["StartedAt"]), str(state["FinishedAt"])
        has_ended = state["Status"] in ("exited", "dead", "removing")
        return Run(
            str(found["Id"]),
            found["Name"].lstrip("/"),
            str(of_run[PROJECT_LABEL]),
            str(of_run[JOB_LABEL]),
            self.place,
            of_run.get(CHECKOUT_LABEL, ""),
            of_run.get(ROOT_LABEL, ""),
            "exited" if has_ended else _STATES.get(state["Status"], "running"),
            int(state["ExitCode"]) if has_ended else None,
            str(found["Created"]) if began.startswith("0001-") else began,
            ended if has_ended else "",
        )

    def logs(self, run: Run, follow: bool = False, streams: Streams = OWN) -> int:
        step = self.client.step("logs", *(["--follow"] if follow else []), run.name)
        process.trace(self.client.verbose, step)
        code = foreground.attend_program(step, streams)
        self._bring_back(run)
        return code

    def stop(self, runs: Sequence[Run]) -> None:
        if running := [run for run in runs if run.is_running]:
            self._end(("stop", "--time", f"{foreground.GRACE:.0f}"), running)
        for run in runs:
            self._bring_back(run)

    def remove(self, runs: Sequence[Run]) -> Iterator[Removed]:
        if not runs:
            return
        for run in runs:
            self._bring_back(run)
        sizes = self.client.own_sizes()
        self._end(("rm", "--volumes"), runs)
        yield from (Removed(run.name, sizes.get(run.name, 0)) for run in runs)

    def _end(self, words: tuple[str, ...], runs: Sequence[Run]) -> None:
        """Stop or remove containers, of which some may have gone meanwhile. Raises SkelebotError."""
        code, _, said = self.client.capture(*words, *(run.name for run in runs))
        gone = re.compile("no such container|is already in progress", re.IGNORECASE)
        others = [line for line in said.splitlines() if not gone.search(line)]
        if code != 0 and others:
            raise explained(self.client, "\n".join(others), f"`docker {words[0]}` failed")

    def _bring_back(self, run: Run) -> None:
        """Bring back what a detached job on another machine has written, once it has ended."""
        if self.client.is_remote and run.root:
            from skelebot.runners.docker.volumes import bring_back

            bring_back(self.client, run.root, run.name)

    def shell(self, run: Run, user: str | None, words: tuple[str, ...]) -> Step:
        """The program that opens a shell in a container, as the job's user: the container begins as root."""
        if user == "caller":
            user = f"{os.getuid()}:{os.getgid()}"
        elif not user:
            words_for_image = ("container", "inspect", "--format", "{{.Image}}", run.name)
            built = self.client.inspect(self.client.query(*words_for_image).strip())
            user = built.user if built else ""
        terminal = ["--tty"] if foreground.are_terminals() else []
        options = ("--interactive", *terminal, "--workdir", WORKDIR, "--user", user or "0:0")
        return self.client.step("exec", *options, run.name, *words)

    def remove_superseded(self, image: Image, every_checkout: bool) -> list[Removed]:
        """Remove images that nothing uses any more."""
        sizes = self.client.own_sizes()
        gone = cleanup.remove_superseded(self.client, image, every_checkout)
        return [Removed(name, sizes.get(name, 0)) for name in gone]


_NO_SUCH = re.compile("no such (container|object)", re.IGNORECASE)
_STATES = {"created": "created", "paused": "paused"}


def void(_: object) -> None:
    """Drop a value that is not wanted."""


def _user(prepared: Prepared, task: Task) -> str:
    """Whom the job runs as."""
    if task.user == "caller":
        return f"{os.getuid()}:{os.getgid()}"
    return task.user or prepared.built.user


def _volume_arguments(volumes: "Volumes") -> tuple[str, ...]:
    mounts = (
        csv([*volumes.fields(m, m.target), "readonly"] if m.read_only else volumes.fields(m, m.target))
        for m in volumes.folders
    )
    return tuple(word for mount in mounts for word in ("--mount", mount))


def _refuse_bytes(task: Task) -> None:
    """Raise UsageError for what is not UTF-8."""
    env = {name: reveal(value, os.environ) for name, value in task.env}
    known = {**os.environ, **env}
    held = [(reveal(word, known), display_text(word), "rename the file") for word in task.argv]
    # Nobody says which variables are secrets.
    held += [(value, f"the value of {name}", "write it in UTF-8") for name, value in env.items()]
    for text, named, remedy in held:
        if not text.isascii() and re.search("[\ud800-\udfff]", text):
            raise UsageError(
                f"{console.printable(named)} is not UTF-8, which Docker cannot carry; "
                f"run the job natively with -n, or {remedy}"
            )


def _nobody_reads(fd: int) -> bool:
    """Whether a pipe has lost its reader."""
    import select

    poll = select.poll()
    poll.register(fd, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
