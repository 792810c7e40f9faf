"""Builds images and runs tasks with the Docker client."""

import os
import re
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, NoReturn

from skelebot import console, foreground, process
from skelebot.errors import ProgramMissing, SkelebotError, UsageError
from skelebot.image import dockerfile
from skelebot.model import Flags, Image, Mount, Secret, Step, Task, display_text
from skelebot.project import plan, state
from skelebot.runners import folders
from skelebot.runners.docker import build
from skelebot.runners.docker.client import Client, Found, csv, or_natively

if TYPE_CHECKING:
    from skelebot.runners.docker.volumes import Volumes

JOB_LABEL = "skelebot.job"

_WORDS = "/run/skelebot.words"
_LONGEST_ENV_LINE = 60_000  # Docker reads an env-file by lines of at most 64 KiB


def run(image: Image, task: Task, flags: Flags, streams: process.Streams | None = None) -> int:
    """Builds the image where that is needed, and runs the task in a container of its own."""
    client = Client(task.host, flags.verbose)
    try:
        with build.images_in_use(client, image) as lock:
            found = build.provided(client, image, task, lock, flags.skip_build)
            folders.make_folders(task)
            state.remember_host(task.root, client.host)
            container = Container(client, image, found, task, os.urandom(4).hex(), streams)
            return container.detach() if task.mode == "d" else container.attend()
    except ProgramMissing as error:
        raise ProgramMissing(f"{error}; install it{or_natively(task)}") from None


def check(image: Image, task: Task) -> None:
    _refuse_bytes(task)
    if image.inherit or os.environ.get("SKELEBOT_BUILD_INHERIT"):
        from skelebot.runners.docker import inherited

        inherited.names(image)
    if image.dockerfile:
        build.text(image)


def describe(image: Image, task: Task, flags: Flags) -> list[str]:
    lines = [f"image    {image.tag}" + (" (as it is: -s)" if flags.skip_build else ", built from")]
    if not flags.skip_build:
        lines += [f"         | {line}" for line in build.text(image).splitlines()]
    where = f"on {task.host}" if task.host else "on the default Docker host"
    lines.append(f"run      {process.display(Step(task.argv))}")
    lines.append(f"where    in a container, {where}, in {plan.WORKDIR}")
    lines += [f"mapping  {m.source} -> {m.target}" + ":ro" * m.read_only for m in task.mounts]
    lines += [f"port     {port}" for port in task.ports]
    lines += [f"variable {name}" for name, _ in task.env]
    return lines


def _refuse_bytes(task: Task) -> None:
    held = [(word, display_text(word), "rename the file") for word in task.argv]
    # Nobody says which variables are secrets.
    held += [(value, f"the value of {name}", "write it in UTF-8") for name, value in task.env]
    for text, named, remedy in held:
        if not text.isascii() and re.search("[\ud800-\udfff]", text):
            raise UsageError(
                f"{console.printable(named)} is not UTF-8, which Docker cannot carry; "
                f"run the job natively with -n, or {remedy}"
            )


# --- the container ---


@dataclass(frozen=True)
class Container:
    """One run of a task; `token` makes its name unique.

    streams: what it has in the place of Skelebot's own.
    """

    client: Client
    image: Image
    built: Found
    task: Task
    token: str
    streams: process.Streams | None = None

    @property
    def name(self) -> str:
        job = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.task.name)
        return f"{self.image.tag.partition(':')[0]}-{job}-{self.token}"

    @cached_property
    def remote(self) -> "Volumes | None":
        """What stands for the mapped folders on an engine that does not see them."""
        if not self.client.is_remote:
            return None
        from skelebot.runners.docker.volumes import Volumes

        mounts = (self._mount(mount) for mount in self.task.mounts)
        return Volumes.of(self.client, self.built.id, self.image.project, self.task.root, mounts)

    def attend(self) -> int:
        """Runs the container on Skelebot's own streams; leaves none behind."""
        try:
            outcome = self._attended()
        except BaseException:
            self._remove(patience=2)
            raise
        if self.remote:
            self._bring_back(self.remote, outcome)
        elif outcome.code and not outcome.signal and self._goes_on():
            self._end_alone()
        if outcome.signal or self.remote:
            self._remove(patience=2 if outcome.signal else 0)
        if outcome.signal:
            return 128 + outcome.signal
        if outcome.code in self._engine_codes() and not self._was_started():
            self._remove()
            hint = " (gpu: true needs NVIDIA's container toolkit on the host)" if self.task.gpu else ""
            raise SkelebotError(
                f"the container of {self.task.name} could not be started{hint}; Docker's message stands above"
            )
        return outcome.code

    def _attended(self) -> foreground.Outcome:
        with ExitStack() as files:
            env_words, env, fds = self._environment(files)
            if self._is_created_first():
                self._create([*([] if self.remote else ["--rm"]), *env_words], env, fds)
                step = self.client.step("start", "--attach", "--interactive", self.name)
            else:
                words = ["run", "--rm", *env_words, *self._words(self.task.argv)]
                step = self.client.step(*words, env=env)
            process.trace(self.client.verbose, step)
            terminal = self._terminal()
            return foreground.attend(
                step, self._send, raw_terminal=terminal, pass_fds=fds, streams=self.streams or process.OWN
            )

    def detach(self) -> int:
        """Starts the container, prints its name, and leaves it running."""
        self._remove_ended()
        try:
            self._detached()
        except BaseException:
            self._remove(patience=2)
            raise
        console.out(self.name)
        return 0

    def _detached(self) -> None:
        with ExitStack() as files:
            env_words, env, fds = self._environment(files)
            if self._is_created_first():
                self._create(env_words, env, fds)
                step = self.client.step("start", self.name)
            else:
                words = ["run", "--detach", *env_words, *self._words(self.task.argv)]
                step = self.client.step(*words, env=env)
            self._check(step, fds)

    def _bring_back(self, remote: "Volumes", outcome: foreground.Outcome) -> None:
        """Brings back what the job wrote. Should that fail, the container stays, for `logs` to do it."""
        if outcome.code and not outcome.signal and self._goes_on():
            raise SkelebotError(
                f"the connection to {self.client.where} was lost, and {self.task.name} may go on there; "
                f"`skelebot logs -f {self.task.name}` follows it, and brings its results in the end"
            )
        remote.fetch(self.name)

    def _end_alone(self) -> NoReturn:
        """Ends a job that nobody attends any more, as its output could not be written."""
        with foreground.uninterrupted():
            self.client.capture("stop", "--time", f"{foreground.GRACE:.0f}", self.name)
        self._remove()
        if _nobody_reads(1):
            raise BrokenPipeError
        raise SkelebotError(
            f"Docker's client ended before {self.task.name} did, which was stopped; its message stands above"
        )

    def _goes_on(self) -> bool:
        """Whether the client has ended without the job, as it does when the connection breaks."""
        try:
            with foreground.uninterrupted():  # by the second of two quick Ctrl-C: the first has ended the job
                code, out, said = self.client.in_time("inspect", "--format", "{{.State.Running}}", self.name)
        except SkelebotError:
            return True
        return out.strip() == "true" if code == 0 else "no such object" not in said.lower()

    # --- what the engine is told ---

    def _words(self, argv: tuple[str, ...], words_file: str = "") -> list[str]:
        task = self.task
        words = ["--init", "--name", self.name, "--user", "0:0", "--workdir", plan.WORKDIR]
        words += ["--env", "TINI_KILL_PROCESS_GROUP=1", "--entrypoint", "/bin/sh"]
        words += ["--label", f"{dockerfile.PROJECT_LABEL}={self.image.project}"]
        words += ["--label", f"{JOB_LABEL}={task.name}"]
        if task.mode != "d":
            words += ["--interactive", *(["--tty"] if self._terminal() else [])]
        mounts = [self._mount(m) for m in task.mounts]
        if self.remote:
            words += self._remote_words(self.remote)
        else:
            words += [word for mount in mounts for word in ("--mount", _bind(mount))]
        for port in dict.fromkeys(task.ports):
            words += ["--publish", port]
        if task.gpu:
            words += ["--gpus", "all"]
        written = "" if self.remote else "\n".join(m.target for m in mounts if not m.read_only)
        limit = f"{task.timeout:f}".rstrip("0").rstrip(".")
        words += [self.built.id, "-c", _script(), "skelebot"]
        return [*words, self._user(), _owner(), limit, words_file, written, *argv]

    @staticmethod
    def _remote_words(remote: "Volumes") -> list[str]:
        words = [w for name, value in remote.labels() for w in ("--label", f"{name}={value}")]
        for mount in remote.folders:
            fields = remote.fields(mount, mount.target) + ["readonly"] * mount.read_only
            words += ["--mount", csv(fields)]
        return words

    def _terminal(self) -> bool:
        return self.task.mode != "d" and self.streams is None and foreground.are_terminals()

    def _user(self) -> str:
        if self.task.user == "caller":
            return f"{os.getuid()}:{os.getgid()}"
        return self.task.user or self.built.user

    def _mount(self, mount: Mount) -> Mount:
        if not mount.target.startswith("~"):
            return mount
        return Mount(mount.source, self._home() + mount.target[1:], mount.read_only)

    def _home(self) -> str:
        user = self._user().partition(":")[0]
        if user in ("", "0", "root"):
            return "/root"
        words = ("run", "--rm", "--entrypoint", "cat", self.built.id, "/etc/passwd")
        _, passwd, _ = self.client.capture(*words)
        for line in passwd.splitlines():
            fields = line.split(":")
            if len(fields) > 5 and user in (fields[0], fields[2]):
                return fields[5].rstrip("/")
        return ""

    def _environment(
        self, files: ExitStack
    ) -> tuple[list[str], tuple[tuple[str, str], ...], tuple[int, ...]]:
        """The task's variables: options for the client, its own environment, and open files.

        The values stand in no argument list: a file without a name holds them, which only the client
        can read, and what such a file cannot hold goes through the client's own environment.
        """
        plain = {n: v for n, v in self.task.env if _fits_a_line(v)}
        others = tuple((n, v) for n, v in self.task.env if n not in plain)
        words = [word for name, _ in others for word in ("--env", name)]
        if not plain:
            return words, others, ()
        import tempfile  # costs a tenth of the start-up

        file = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - `files` closes it
        file.write("".join(f"{n}={v}\n" for n, v in plain.items()).encode())
        file.seek(0)
        return [*words, "--env-file", f"/dev/fd/{file.fileno()}"], others, (file.fileno(),)

    # --- secrets: neither in the client's arguments nor in what `docker inspect` shows ---

    def _has_secrets(self) -> bool:
        return any(isinstance(word, Secret) for word in self.task.argv)

    def _is_created_first(self) -> bool:
        """Whether something has to be put into the container before it starts."""
        return self._has_secrets() or self.remote is not None

    def _create(self, options: list[str], env: tuple[tuple[str, str], ...], fds: tuple[int, ...]) -> None:
        """Makes the container, and puts into it what an engine elsewhere lacks and what nobody may see."""
        if self.remote:
            self.remote.send()
        words = self._words((), _WORDS) if self._has_secrets() else self._words(self.task.argv)
        self._check(self.client.step("create", *options, *words, env=env), fds)
        if self.remote:
            self.remote.send_files(self.name)
        if self._has_secrets():
            self._hand_over_words()

    def _hand_over_words(self) -> None:
        """Puts the job's words into the container as a file that the job's start removes."""
        lines = (w.replace("\\", "\\\\").replace("\n", "\\n") + "\n" for w in self.task.argv)
        step = self.client.step("cp", "-", f"{self.name}:/")
        process.trace(self.client.verbose, step)
        code, output = process.tee(
            step, lambda line: None, lambda s: _write_words(s, "".join(lines).encode())
        )
        if code != 0:
            raise SkelebotError(f"the container's secrets could not be given to it: {output[-1:]}")

    def _check(self, step: Step, fds: tuple[int, ...]) -> None:
        process.trace(self.client.verbose, step)
        code, lines = process.tee(step, lambda line: None, pass_fds=fds)
        if code != 0:
            said = "; ".join(line for line in lines if line.strip() and "--help" not in line)
            raise SkelebotError(f"the container of {self.task.name} could not be started: {said}")

    # --- what became of it ---

    def _engine_codes(self) -> tuple[int, ...]:
        """Exit codes of the client that may be the engine's rather than the job's."""
        return (1, 125, 126, 127) if self._is_created_first() else (125, 126, 127)

    def _send(self, program: process.Program, signum: int) -> None:
        """Passes a signal to the job; while its container is still on the way, tries again.

        The client would pass it on too, but only once, and the engine refuses it before the start.
        """
        patience = time.monotonic() + 10
        while time.monotonic() < patience and not program.has_ended():
            code, _, said = self.client.capture("kill", "--signal", str(signum), self.name)
            if code == 0 or not re.search("is not running|no such container", said.lower()):
                break
            time.sleep(0.1)
        if signum == signal.SIGKILL:
            os.kill(program.pid, signum)

    def _was_started(self) -> bool:
        # Only a moment ahead of now holds the events of just now. An engine remembers but a few
        # hundred events: of a long run it has forgotten the start, never the end.
        now = ("--since", "1", "--until", f"{time.time() + 0.2:.6f}")
        which = ("--filter", f"container={self.name}", "--filter", "event=start", "--filter", "event=die")
        code, out, _ = self.client.capture("events", *now, *which, "--format", "{{.Status}}")
        return code != 0 or out.strip() != ""

    def _remove(self, patience: float = 0) -> None:
        """Leaves nothing behind, whatever signals come now.

        patience: seconds to wait for a container that the engine may just be making.
        """
        until = time.monotonic() + patience
        with foreground.uninterrupted():
            while True:
                _, _, said = self.client.capture("rm", "--force", "--volumes", self.name)
                gone = "no such container" in said.lower()
                if not gone or time.monotonic() >= until or self._was_started():
                    return
                time.sleep(0.1)

    def _remove_ended(self) -> None:
        """Makes room for a detached run: the last one's container was kept for its logs.

        One that was only created may be another run's, which is just beginning.
        """
        labels = (f"{dockerfile.PROJECT_LABEL}={self.image.project}", f"{JOB_LABEL}={self.task.name}")
        words = [w for label in labels for w in ("--filter", f"label={label}")]
        words += ["--filter", "status=exited"]
        code, out, _ = self.client.capture("ps", "--all", "--quiet", *words)
        if code == 0 and out.split():
            if self.client.is_remote:
                from skelebot.runners.docker.volumes import bring_back

                for name in out.split():
                    bring_back(self.client, self.task.root, name)
            self.client.capture("rm", "--volumes", *out.split())


def _fits_a_line(value: str) -> bool:
    """Whether Docker reads a variable's value from a file as it is."""
    return not re.search("[\r\n]", value) and len(value.encode()) < _LONGEST_ENV_LINE


def _nobody_reads(fd: int) -> bool:
    """Whether a pipe has lost its reader."""
    import select

    poll = select.poll()
    poll.register(fd, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _bind(mount: Mount) -> str:
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    return csv(fields + ["readonly"] * mount.read_only)


def _owner() -> str:
    return f"{os.getuid()}:{os.getgid()}"


def _script() -> str:
    with open(os.path.join(os.path.dirname(__file__), "job.sh"), encoding="utf-8") as file:
        return file.read()


def _write_words(stream: IO[bytes], data: bytes) -> None:
    import io
    import tarfile

    with tarfile.open(fileobj=stream, mode="w|") as tar:
        info = tarfile.TarInfo(_WORDS.lstrip("/"))
        info.size, info.mode = len(data), 0o600
        tar.addfile(info, io.BytesIO(data))
