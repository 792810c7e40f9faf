"""The runs that there are in containers of an engine, whoever started them."""

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from skelebot import console, foreground, process
from skelebot.errors import SkelebotError
from skelebot.model import WORKDIR, Attempt, Place, Run, Step, Task
from skelebot.process import OWN, Streams
from skelebot.runners import attempts
from skelebot.runners.attempts import Lost
from skelebot.runners.docker import metrics
from skelebot.runners.docker.client import PATIENCE, Client, explained
from skelebot.runners.docker.labels import (
    ATTEMPT_LABEL,
    CHECKOUT_LABEL,
    GPUS_LABEL,
    JOB_LABEL,
    PROJECT_LABEL,
    ROOT_LABEL,
)
from skelebot.runners.gpus import Asking
from skelebot.runners.runner import Removed


def runs(client: Client, wanted: dict[str, str]) -> list[Run]:
    """The runs with these labels, the last one first; not those that are recorded elsewhere."""
    filters = [*(f"label={name}={value}" for name, value in wanted.items()), f"label={JOB_LABEL}"]
    words = [word for each in filters for word in ("--filter", each)]
    ids = client.list_ids("ps", "--all", *words, timeout=PATIENCE)
    place = Place("docker", client.host)
    found = client.inspect_all(ids, lambda container: (_is_recorded(container), read_run(container, place)))
    return sorted((run for is_recorded, run in found if not is_recorded), key=lambda r: r.began, reverse=True)


def _is_recorded(found: dict[str, Any]) -> bool:
    return ATTEMPT_LABEL in (found["Config"].get("Labels") or {})


_STATES = {"created": "created", "paused": "paused"}


def read_run(found: dict[str, Any], place: Place) -> Run:
    """The run of a container, as the engine describes it."""
    state, of_run = found["State"], found["Config"].get("Labels") or {}
    began, ended = str(state["StartedAt"]), str(state["FinishedAt"])
    has_ended = state["Status"] in ("exited", "dead", "removing")
    return Run(
        str(found["Id"]),
        found["Name"].lstrip("/"),
        str(of_run[PROJECT_LABEL]),
        str(of_run[JOB_LABEL]),
        place,
        of_run.get(CHECKOUT_LABEL, ""),
        of_run.get(ROOT_LABEL, ""),
        "exited" if has_ended else _STATES.get(state["Status"], "running"),
        int(state["ExitCode"]) if has_ended else None,
        str(found["Created"]) if began.startswith("0001-") else began,
        ended if has_ended else "",
    )


def wait(client: Client, run: Run) -> int:
    """The exit code of a run that another process may have started, once its results are back."""
    code, out, said = process.capture(client.step("wait", run.id), alone=True)  # a Ctrl-C is for the job
    if code != 0:
        raise explained(client, said, "`docker wait` failed")
    _bring_back(client, run)
    if not re.fullmatch(r"\d{1,3}", out.strip()):
        raise SkelebotError(f"`docker wait` gave no exit code for {run.name}: {console.one_line(out[:80])}")
    return int(out)


# --- those of recorded runs ---


def of_attempt(client: Client, attempt: Attempt) -> Run | None:
    """The container of an attempt, once no client is about to start it; one that never began goes."""
    place = Place("docker", client.host)
    while True:
        is_held = attempts.is_held(attempt)
        ids = client.list_ids("ps", "--all", "--filter", f"label={ATTEMPT_LABEL}={attempt.token}")
        found = client.inspect_all(ids, lambda container: read_run(container, place))
        if started := [run for run in found if run.state != "created"]:
            return started[0]
        if not is_held:
            for run in found:
                client.remove_container(run.name)
            return None
        time.sleep(0.1)


def wait_adopted(client: Client, run: Run, task: Task, is_log_complete: bool = False) -> int:
    """The exit code of an attempt whose client was killed, noted, with all of its output in the log.

    Raises Lost if its engine was restarted meanwhile, which killed it.
    """
    assert task.attempt
    code, attempt = wait(client, run), task.attempt
    metrics.bring_last(client, run.name, task)
    if not is_log_complete:
        path = os.path.join(attempt.folder, "log")
        with open(f"{path}.new", "wb") as log:
            streams = Streams(b"", log.fileno(), log.fileno())
            said = process.start(client.step("logs", run.name), streams).wait()
        if said == 0:
            # In place, as the caller goes on writing to it; whoever comes after a killed one does it again.
            shutil.copyfile(f"{path}.new", path)
        os.unlink(f"{path}.new")
    is_lost = code in attempts.KILLED and _is_older_than_engine(client, run.name)
    if not is_lost:
        attempts.note(attempt, code)
    client.remove_container(run.name)
    if is_lost:
        raise Lost(f"{run.job} was killed, as {client.where} was restarted")
    return code


def _is_older_than_engine(client: Client, name: str) -> bool:
    """Tell whether the engine was started after a container, as it recreates its bridge each time."""
    _, began, _ = client.capture("container", "inspect", "--format", "{{.State.StartedAt}}", name)
    form = '{{.Created.UTC.Format "2006-01-02T15:04:05"}}'
    _, made, _ = client.capture("network", "inspect", "--format", form, "bridge")
    return "" < began[:19] < made.strip()


def logs(client: Client, run: Run, follow: bool = False, streams: Streams = OWN) -> int:
    step = client.step("logs", *(["--follow"] if follow else []), run.name)
    code = foreground.attend_program(step, streams)
    _bring_back(client, run)
    return code


def stop(client: Client, runs: Sequence[Run]) -> None:
    if running := [run for run in runs if run.is_running]:
        _end(client, ("stop", "--time", f"{foreground.GRACE:.0f}"), running)
    for run in runs:
        _bring_back(client, run)


def remove(client: Client, runs: Sequence[Run]) -> Iterator[Removed]:
    if not runs:
        return
    for run in runs:
        _bring_back(client, run)
    sizes = client.own_sizes()
    _end(client, ("rm", "--volumes"), runs)
    yield from (Removed(run.name, sizes.get(run.name, 0)) for run in runs)


def _end(client: Client, words: tuple[str, ...], runs: Sequence[Run]) -> None:
    """Stop or remove containers, of which some may have gone meanwhile. Raises SkelebotError."""
    code, _, said = client.capture(*words, *(run.name for run in runs))
    gone = re.compile("no such container|is already in progress", re.IGNORECASE)
    others = [line for line in said.splitlines() if not gone.search(line)]
    if code != 0 and others:
        raise explained(client, "\n".join(others), f"`docker {words[0]}` failed")


def _bring_back(client: Client, run: Run) -> None:
    """Bring back what a detached job on another machine has written, once it has ended."""
    if client.is_remote and run.root:
        from skelebot.runners.docker.volumes import bring_back

        bring_back(client, run.root, run.name)


def shell(client: Client, run: Run, user: str | None, words: tuple[str, ...]) -> Step:
    """The program that opens a shell in a container, as the job's user: the container begins as root."""
    if user == "caller":
        user = f"{os.getuid()}:{os.getgid()}"
    elif not user:
        words_for_image = ("container", "inspect", "--format", "{{.Image}}", run.name)
        built = client.inspect(client.query(*words_for_image).strip())
        user = built.user if built else ""
    terminal = ["--tty"] if foreground.are_terminals() else []
    options = ("--interactive", *terminal, "--workdir", WORKDIR, "--user", user or "0:0")
    return client.step("exec", *options, run.name, *words)


# --- the devices that they hold ---


def gpu_holders(client: Client) -> dict[str, str]:
    """Which running container has each GPU for itself, by the GPU's lasting name. Raises SkelebotError."""
    form = f'{{{{.Names}}}} {{{{.Label "{GPUS_LABEL}"}}}}'
    out = client.query("ps", "--filter", f"label={GPUS_LABEL}", "--format", form, timeout=PATIENCE)
    rows = (line.split(" ", 1) for line in out.splitlines() if " " in line)
    return {uuid: f"the container {name}" for name, uuids in rows for uuid in uuids.split(",")}


def asking_gpus(client: Client, image: str) -> Asking:
    """What asks for the GPUs of the engine's machine: its toolkit puts nvidia-smi into a container."""
    how = ("run", "--rm", "--gpus", "all", "--pid", "host", "--network", "none", "--entrypoint")
    return lambda words: client.step(*how, words[0], image, *words[1:])


def local_gpu_holders() -> dict[str, str]:
    """The same for the default engine, where that is on this machine and answers."""
    client = Client(None)
    with suppress(SkelebotError):
        return {} if client.is_remote else gpu_holders(client)
    return {}
