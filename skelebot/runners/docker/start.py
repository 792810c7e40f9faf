"""Start a container for a task."""

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from skelebot import foreground, process
from skelebot.errors import SkelebotError
from skelebot.model import Image, Mount, Step, Task
from skelebot.process import OWN, Streams
from skelebot.project.state import checkout_id
from skelebot.runners import gpus
from skelebot.runners.attempts import held_lock
from skelebot.runners.docker import labels, runs
from skelebot.runners.docker.attended import Attended
from skelebot.runners.docker.client import BuiltImage, Client
from skelebot.runners.docker.container import Container, container_name, has_secrets, variables, words_tar
from skelebot.runners.docker.labels import CHECKOUT_LABEL, MAKER_LABEL, PROJECT_LABEL
from skelebot.runners.runner import Launch, superseded
from skelebot.secret import reveal_all

if TYPE_CHECKING:
    from skelebot.runners.docker.volumes import Volumes


class Prepared(NamedTuple):
    """An image that a container can be made of."""

    image: Image
    built: BuiltImage


def start(client: Client, prepared: Prepared, task: Task, streams: Streams, launch: Launch) -> Attended:
    """Start a container; a detached one is on its own, any other is attached to the streams."""
    if task.is_detached:
        own = {PROJECT_LABEL: prepared.image.project, CHECKOUT_LABEL: checkout_id(task.root)}
        list(runs.remove(client, superseded(runs.runs(client, own), task)))
    # A name that nobody else has: should this fail, the container of that name is removed.
    token = task.attempt.token if task.attempt else os.urandom(4).hex()
    name = container_name(task, labels.repository(prepared.image), token)
    volumes = _volumes(client, prepared, task)
    container = _container(client, name, prepared, task, volumes, streams)
    attended = Attended(client, container, volumes)
    _remove_never_started(attended)
    try:
        _take_devices(attended)
        with held_lock(task) as lock:
            attended.program = _launched(attended, streams, launch, lock)
        if task.is_detached:
            with foreground.uninterrupted():
                attended.container = _with_plain_name(
                    client, attended.container, labels.repository(prepared.image)
                )
    except BaseException:
        attended.remove(patience=2)
        attended.devices.release()
        raise
    if task.is_detached:
        attended.devices.release()  # from now on the container's label holds them
    return attended


def _take_devices(attended: Attended) -> None:
    """Take the GPUs that the task needs for itself. Raises SkelebotError if too few are free."""
    client, task = attended.client, attended.container.task
    if task.limits.gpus <= 0:
        return
    env = {**os.environ, **reveal_all(task.env, os.environ)}
    if not client.is_remote:
        devices = gpus.take(task, env, lambda: runs.gpu_holders(client))
    else:
        asking = runs.asking_gpus(client, attended.container.image)
        if not (task.attempt and gpus.can_be_listed(asking)):
            return  # the engine gives it some, whoever uses them
        env.pop(gpus.VISIBLE, None)  # of this machine's
        devices = gpus.take(task, env, lambda: runs.gpu_holders(client), asking)
    attended.devices = devices
    # The container sees no others, and numbers them from 0.
    others = tuple(pair for pair in task.env if pair[0] != gpus.VISIBLE)
    attended.container = replace(attended.container, task=replace(task, env=others), devices=devices.devices)


def _with_plain_name(client: Client, container: Container, image: str) -> Container:
    """The container under the plain name of its image and job, unless another one has it."""
    plain = container_name(container.task, image)
    code, _, _ = client.capture("rename", container.name, plain)
    return replace(container, name=plain) if code == 0 else container


# --- what the container will be ---


def _volumes(client: Client, prepared: Prepared, task: Task) -> "Volumes | None":
    """What stands for the mapped folders on an engine that does not see them."""
    if not client.is_remote:
        return None
    from skelebot.runners.docker.volumes import Volumes

    mounts = mounts_at_home(client, prepared, task)
    context = prepared.image.context
    checkout = context if task.attempt and os.path.isdir(context) else ""
    return Volumes.of(client, prepared.built.id, prepared.image.project, task.root, mounts, checkout)


def _container(
    client: Client, name: str, prepared: Prepared, task: Task, volumes: "Volumes | None", streams: Streams
) -> Container:
    of_volumes = volumes.labels() if volumes else ()
    maker = ((MAKER_LABEL, process.identity(os.getpid())),)
    return Container(
        name,
        prepared.built.id,
        prepared.image.project,
        task,
        () if volumes else mounts_at_home(client, prepared, task),
        _user(prepared, task),
        f"{os.getuid()}:{os.getgid()}",
        (*labels.of_checkout(task.root).items(), *maker, *_of_attempt(task), *of_volumes),
        not task.is_detached and streams == OWN and foreground.are_terminals(),
        volumes.arguments() if volumes else None,
        has_secrets(task.argv),
    )


def _of_attempt(task: Task) -> tuple[tuple[str, str], ...]:
    return ((labels.ATTEMPT_LABEL, task.attempt.token),) if task.attempt else ()


def _user(prepared: Prepared, task: Task) -> str:
    """Return the user that the job runs as."""
    if task.user == "caller":
        return f"{os.getuid()}:{os.getgid()}"
    return task.user or prepared.built.user


def mounts_at_home(client: Client, prepared: Prepared, task: Task) -> tuple[Mount, ...]:
    """The task's mounts, with the home of the job's user for a leading `~`."""
    if not any(mount.target.startswith("~") for mount in task.mounts):
        return task.mounts
    home = _home(client, prepared.built.id, _user(prepared, task).partition(":")[0])
    targets = ((m, home + m.target[1:] if m.target.startswith("~") else m.target) for m in task.mounts)
    return tuple(Mount(mount.source, target, mount.read_only) for mount, target in targets)


def _home(client: Client, image: str, user: str) -> str:
    if user in ("", "0", "root"):
        return "/root"
    _, passwd, _ = client.capture("run", "--rm", "--entrypoint", "cat", image, "/etc/passwd")
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) > 5 and user in (fields[0], fields[2]):
            return fields[5].rstrip("/")
    return ""


# --- its beginning ---


def _launched(
    attended: Attended, streams: Streams, launch: Launch, lock: tuple[int, ...]
) -> process.Program | None:
    """Start the container; None where it is on its own from then on. lock: that the client holds, too."""
    client, container, task = attended.client, attended.container, attended.container.task
    with ExitStack() as files:
        env = variables(task, files)
        if attended.is_created_first:
            _create(attended, env.options, env.env, env.fds)
            attached = () if task.is_detached else ("--attach", "--interactive")
            step = client.step("start", *attached, container.name)
        else:
            step = client.step("run", *_how(task), *env.options, *container.arguments(), env=env.env)
        if task.is_detached:
            with launch():
                said = _check(client, step, task, env.fds)
            if not any(re.fullmatch("[0-9a-f]{64}", line) for line in said) and not attended.is_created_first:
                raise client.unreadable(("run",), "\n".join(said))
            return None
        with launch():
            return process.start(step, streams, (*env.fds, *attended.devices.fds, *lock))


def _how(task: Task) -> tuple[str, ...]:
    """Whether the container is on its own, and whether it goes when it has ended."""
    if task.is_detached:
        return ("--detach",)
    return ("--rm",) if task.retention == "none" else ()


def _create(
    attended: Attended, options: Sequence[str], env: tuple[tuple[str, str], ...], fds: tuple[int, ...]
) -> None:
    """Make the container, and put into it what a far engine lacks and what nobody else may see."""
    client, container, volumes = attended.client, attended.container, attended.volumes
    task = container.task
    if volumes:
        volumes.send()
    how = () if volumes or task.is_detached else _how(task)
    _check(client, client.step("create", *how, *options, *container.arguments(), env=env), task, fds)
    if volumes:
        volumes.send_files(container.name)
    if container.words_file:
        data = words_tar(task)
        step = client.step("cp", "-", f"{container.name}:/")
        code, output = process.tee(step, lambda line: None, lambda stdin: stdin.write(data))
        if code != 0:
            said = "; ".join(output)
            raise SkelebotError(f"the secrets of {task.name} could not be put into its container: {said}")


def _check(client: Client, step: Step, task: Task, fds: tuple[int, ...]) -> list[str]:
    code, lines = process.tee(step, lambda line: None, pass_fds=fds)
    if code != 0:
        said = "; ".join(line for line in lines if line.strip() and "--help" not in line)
        raise SkelebotError(f"the container of {task.name} could not be started: {said}")
    return lines


def _remove_never_started(attended: Attended) -> None:
    """Remove the containers whose makers were killed before they started them: secrets may be in them."""
    client, task = attended.client, attended.container.task
    wanted = {PROJECT_LABEL: task.project, CHECKOUT_LABEL: checkout_id(task.root)}
    for name, maker in client.created_containers(wanted, MAKER_LABEL).items():
        if maker and not process.is_alive(maker):
            client.capture("rm", "--force", "--volumes", name)
