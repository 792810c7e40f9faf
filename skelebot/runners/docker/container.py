"""The arguments of `docker run` for a container. Nothing here runs anything."""

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

from skelebot.model import ALL_GPUS, WORKDIR, Mount, Task
from skelebot.runners.attempts import METRICS
from skelebot.runners.docker.client import csv
from skelebot.runners.docker.labels import GPUS_LABEL, JOB_LABEL, PROJECT_LABEL
from skelebot.runners.gpus import Device
from skelebot.runners.limits import out_of_memory
from skelebot.secret import Secret, Word, reveal, reveal_all

WORDS_FILE = "/run/skelebot.words"
THIS_MACHINE = "host.docker.internal"  # how a container calls the engine's machine
METRICS_FILE = "/run/skelebot.metrics.jsonl"

_LONGEST_ENV_LINE = 60_000  # Docker reads an env-file by lines of at most 64 KiB


@dataclass(frozen=True)
class Container:
    """One run of a task.

    image: the id. mounts: with the container's home for a leading `~`. user: whom the job runs as. owner:
    UID:GID of the caller, who gets the files that the job writes. terminal: whether it has one. volumes:
    arguments that stand for the mounts on an engine of another machine. words_file: whether the job's
    words are put into the container as a file, since secrets are among them. devices: the GPUs of this
    machine that are the run's own.
    """

    name: str
    image: str
    project: str
    task: Task
    mounts: tuple[Mount, ...] = ()
    user: str = ""
    owner: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    terminal: bool = False
    volumes: tuple[str, ...] | None = None
    words_file: bool = False
    devices: tuple[Device, ...] = ()

    def arguments(self) -> list[str]:
        """What follows `docker run` or `docker create`, but for the variables."""
        task = self.task
        labels = ((PROJECT_LABEL, self.project), (JOB_LABEL, task.name), *self.labels)
        words = ["--init", "--name", self.name, "--user", "0:0", "--workdir", WORKDIR]
        words += ["--env", "TINI_KILL_PROCESS_GROUP=1", "--entrypoint", "/bin/sh"]
        words += [word for name, value in labels for word in ("--label", f"{name}={value}")]
        if not task.is_detached:
            words += ["--interactive", *(["--tty"] if self.terminal else [])]
        if self.volumes is None:
            measured = (Mount(task.metrics, METRICS_FILE),) if task.metrics else ()
            words += [word for mount in (*self.mounts, *measured) for word in ("--mount", _bind(mount))]
        else:
            words += self.volumes
        words += [word for port in dict.fromkeys(task.ports) for word in ("--publish", port)]
        words += ["--add-host", f"{THIS_MACHINE}:host-gateway"] if _names_this_machine(task) else []
        words += self._limits()
        return [*words, self.image, "-c", _job_script(), "skelebot", *self._script_arguments()]

    def _limits(self) -> list[str]:
        limits, devices = self.task.limits, ",".join(device.number for device in self.devices)
        gpus = "all" if limits.gpus == ALL_GPUS else str(limits.gpus)
        options = {
            "--cpus": limits.cpus and f"{limits.cpus:g}",
            "--memory": limits.memory,
            "--shm-size": limits.shm,
            "--gpus": limits.gpus and (csv([f"device={devices}"]) if devices else gpus),
        }
        names = ",".join(device.uuid for device in self.devices)
        label = ["--label", f"{GPUS_LABEL}={names}"] if names else []
        return [*label, *(word for name, value in options.items() if value for word in (name, str(value)))]

    def _script_arguments(self) -> tuple[str, ...]:
        """Those of job.sh, which says what they are."""
        shared = () if self.volumes is not None else self.mounts
        written = "\n".join(mount.target for mount in shared if not mount.read_only)
        limit = f"{self.task.timeout:f}".rstrip("0").rstrip(".")
        memory = out_of_memory(self.task) if self.task.limits.memory else ""
        if self.words_file:
            return (self.user, self.owner, limit, memory, WORDS_FILE, written)
        return (self.user, self.owner, limit, memory, "", written, *map(str, self.task.argv))


def _names_this_machine(task: Task) -> bool:
    return any(isinstance(value, str) and f"//{THIS_MACHINE}" in value for _, value in task.env)


def has_secrets(words: tuple[Word, ...]) -> bool:
    return any(isinstance(word, Secret) for word in words)


def container_name(task: Task, image: str, token: str = "") -> str:
    """The name of a container; `image` is the image's name, `token` keeps it apart from others."""
    job = re.sub(r"[^A-Za-z0-9_.-]+", "-", task.name)
    return f"{image}-{job}-{token}" if token else f"{image}-{job}"


def _bind(mount: Mount) -> str:
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    return csv([*fields, "readonly"] if mount.read_only else fields)


@cache
def _job_script() -> str:
    with open(os.path.join(os.path.dirname(__file__), "job.sh"), encoding="utf-8") as file:
        return file.read()


# --- variables ---


@dataclass(frozen=True)
class Variables:
    """How a container gets its variables, of which no value stands in an argument list.

    options: arguments of the client. env: of the client itself. fds: open files that it inherits.
    """

    options: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    fds: tuple[int, ...] = ()


def variables(task: Task, files: ExitStack) -> Variables:
    """The task's variables: in a file without a name, which only the client can read.

    What such a file cannot hold goes through the client's own environment. files: closes the file.
    """
    values = reveal_all(task.env, os.environ) | ({METRICS: METRICS_FILE} if task.metrics else {})
    plain = {name: value for name, value in values.items() if _fits_a_line(value)}
    others = tuple((name, value) for name, value in values.items() if name not in plain)
    options = tuple(word for name, _ in others for word in ("--env", name))
    if not plain:
        return Variables(options, others)
    import tempfile  # costs a tenth of the start-up

    file = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - `files` closes it
    file.write("".join(f"{name}={value}\n" for name, value in plain.items()).encode())
    file.seek(0)
    return Variables((*options, "--env-file", f"/dev/fd/{file.fileno()}"), others, (file.fileno(),))


def _fits_a_line(value: str) -> bool:
    """Whether Docker reads a variable's value from a file unchanged."""
    return not re.search("[\r\n]", value) and len(value.encode()) < _LONGEST_ENV_LINE


def words_tar(task: Task) -> bytes:
    """The tar that puts the job's words into a container, as a file that the job's start removes."""
    import io
    import tarfile

    env = {**os.environ, **reveal_all(task.env, os.environ)}
    words = (reveal(word, env) for word in task.argv)
    lines = (word.replace("\\", "\\\\").replace("\n", "\\n") + "\n" for word in words)
    data, stream = "".join(lines).encode(), io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        info = tarfile.TarInfo(WORDS_FILE.lstrip("/"))
        info.size, info.mode = len(data), 0o600
        tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()
