"""What the commands for the project's containers do, on whatever engine those are."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from skelebot import console, foreground, launch, process
from skelebot.component import Session
from skelebot.errors import SkelebotError, UsageError, did_you_mean
from skelebot.image.dockerfile import PROJECT_LABEL
from skelebot.model import Image, Mount, Project, Step
from skelebot.options import Values
from skelebot.project import plan, state
from skelebot.runners.docker import build, volumes
from skelebot.runners.docker.client import Client, explained
from skelebot.runners.docker.container import JOB_LABEL

# bash where the image has it
_SHELL = ("sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")

_UNSURE = " on the engines that answer; run again when the others do, or name one with -d"


@dataclass(frozen=True)
class Container:
    """One of the project's containers. checkout: of which checkout, where its engine is far away."""

    client: Client
    id: str
    job: str
    name: str
    status: str
    started: str
    image: str
    checkout: str | None

    @property
    def is_running(self) -> bool:
        return self.status in ("running", "paused", "restarting")

    @property
    def host(self) -> str:
        return self.client.host or "default"


# --- which there are ---


def clients(session: Session) -> list[Client]:
    """The engines on which the project's containers may be: those it names, and those it has used."""
    project, verbose = session.project, session.flags.verbose
    if session.flags.docker_host:
        return [Client(session.flags.docker_host, verbose)]
    hosts = dict.fromkeys((*_named(project), *state.known_hosts(project.root)))
    return [Client(host, verbose) for host in hosts]


def _named(project: Project) -> tuple[str | None, ...]:
    return (project.host, *(job.host for job in project.jobs if job.host))


def by_engine(session: Session) -> tuple[dict[Client, list[Container]], list[Client]]:
    """The project's containers on each engine that answers, and the engines that do not.

    An engine that goes by two names has them under the first. Raises SkelebotError when none answers.
    """
    project = session.project
    found: dict[Client, list[Container]] = {}
    failures: dict[Client, SkelebotError] = {}
    known: set[str] = set()
    for client in clients(session):
        try:
            found[client] = [c for c in _of_engine(client, project) if c.id not in known]
            known.update(c.id for c in found[client])
        except SkelebotError as error:
            failures[client] = error
    if not found:
        raise next(iter(failures.values()))
    for client, failure in failures.items():
        is_remembered = client.host not in _named(project)
        forget = f"; should it be gone for good, take it out of {state.OWN}/hosts" * is_remembered
        console.warn(f"{failure}{forget}")
    return found, list(failures)


def containers(session: Session) -> tuple[list[Container], list[Client]]:
    """All of the project's, running or not, the last started first; and the engines that do not answer."""
    by_client, silent = by_engine(session)
    found = (container for of_one in by_client.values() for container in of_one)
    return sorted(found, key=lambda c: c.started, reverse=True), silent


def _of_engine(client: Client, project: Project) -> list[Container]:
    labels = (f"label={PROJECT_LABEL}={project.name}", f"label={JOB_LABEL}")
    words = [word for label in labels for word in ("--filter", label)]
    names = client.first_answer("ps", "--all", "--quiet", "--no-trunc", *words).split()
    if not names:
        return []
    # One that has gone since is left out of the answer, and makes the client complain.
    _, out, _ = client.capture("inspect", "--format", "{{json .}}", *names)
    return [_container(client, json.loads(line)) for line in out.splitlines() if line]


def _container(client: Client, found: dict[str, object]) -> Container:
    state, config = dict(found["State"]), dict(found["Config"])  # type: ignore[call-overload]
    labels = config.get("Labels") or {}
    began = str(state["StartedAt"])
    return Container(
        client,
        str(found["Id"]),
        str(labels[JOB_LABEL]),
        str(found["Name"]).lstrip("/"),
        str(state["Status"]),
        str(found["Created"]) if began.startswith("0001-") else began,
        str(found["Image"]),
        labels.get(volumes.CHECKOUT_LABEL),
    )


def _of_job(session: Session, values: Values) -> tuple[list[Container], list[Client]]:
    """This checkout's of the job that was named, or all; and the engines that may have more of them.

    Raises UsageError for a name that no job has.
    """
    job, (found, silent) = values.get("<job>"), containers(session)
    known = {job.name for job in session.project.jobs} | {c.job for c in found}
    if job is not None and job not in known:
        raise UsageError(f"there is no job {job!r}{did_you_mean(str(job), known)}")
    return [c for c in found if job in (None, c.job) and _is_own(session, c)], silent


def _is_own(session: Session, container: Container) -> bool:
    """Whether it is not one that a colleague's checkout has started on an engine far away."""
    root = session.project.root
    return container.checkout is None or container.checkout == volumes.checkout_id(root)


# --- the commands ---


def ps(session: Session, values: Values) -> int:
    rows = [
        {"job": c.job, "container": c.name, "status": c.status, "started": c.started, "host": c.host}
        for c in containers(session)[0]
    ]
    if values.get("json"):
        console.out(json.dumps(rows, indent=2))
        return 0
    if not rows:
        console.info("no containers")
        return 0
    titles = list(rows[0])
    widths = [max(len(title), *(len(row[title]) for row in rows)) for title in titles]
    for row in ({title: title.upper() for title in titles}, *rows):
        cells = (row[title].ljust(width) for title, width in zip(titles, widths, strict=True))
        console.out("  ".join(cells).rstrip())
    return 0


def logs(session: Session, values: Values) -> int:
    found, silent = _of_job(session, values)
    if not found:
        why = _UNSURE if silent else ": it did not run detached (mode: d), or was cleaned away"
        raise SkelebotError(f"{values['<job>']} has no container{why}")
    last = found[0]
    words = ["logs", *(["--follow"] if values.get("follow") else []), last.name]
    outcome = _attend(last.client.step(*words))
    _bring_back(session, last)
    return outcome


def _attend(step: Step) -> int:
    """Runs a client on Skelebot's own streams, and gives its exit code."""
    outcome = foreground.attend(step, lambda program, signum: os.kill(program.pid, signum))
    return 128 + outcome.signal if outcome.signal else outcome.code


def _bring_back(session: Session, container: Container) -> None:
    if container.client.is_remote:
        volumes.bring_back(container.client, session.project.root, container.name)


def stop(session: Session, values: Values) -> int:
    found, silent = _of_job(session, values)
    running = [c for c in found if c.is_running]
    if not running and silent:
        raise SkelebotError(f"nothing is running{_UNSURE}")
    if not running:
        console.info("nothing is running")
    if not session.flags.dry_run:
        for client in dict.fromkeys(c.client for c in running):
            _end(client, "stop", [c.name for c in running if c.client == client])
    for container in running:
        console.out(container.name)
    if not session.flags.dry_run:
        for container in found:
            _bring_back(session, container)
    return 0


def _end(client: Client, how: str, names: Sequence[str]) -> None:
    """Stops or removes containers, of which some may have gone meanwhile. Raises SkelebotError."""
    words = ("stop",) if how == "stop" else ("rm", "--volumes")
    code, _, said = client.capture(*words, *names)
    gone = re.compile("no such container|is already in progress", re.IGNORECASE)
    others = [line for line in said.splitlines() if not gone.search(line)]
    if code != 0 and others:
        raise explained(client, "\n".join(others), f"`docker {how}` failed")


def open_shell(session: Session, values: Values) -> int:
    """Opens a shell in a container that runs, or else in a new one."""
    found, silent = _of_job(session, values)
    running = [c for c in found if c.is_running]
    if not running:
        return _shell_in_new(session, values, silent)
    if values.get("map"):
        console.warn(f"{running[0].name} is running already; -m is for a new container")
    return _shell_in(session, running[0])


def _shell_in(session: Session, container: Container) -> int:
    terminal = ["--tty"] if foreground.are_terminals() else []
    user = _user(session, container)
    words = ["exec", "--interactive", *terminal, "--workdir", plan.WORKDIR, *user, container.name]
    step = container.client.step(*words, *_SHELL)
    if session.flags.dry_run:
        console.out(process.display(step))
        return 0
    console.info(f"in {container.name}")
    return _attend(step)


def _user(session: Session, container: Container) -> list[str]:
    """Whom the job runs as: its container itself begins as root."""
    named = session.project.user
    if named == "caller":
        named = f"{os.getuid()}:{os.getgid()}"
    elif not named:
        named = container.client.answer("inspect", "--format", "{{.Config.User}}", container.image).strip()
    return ["--user", named or "0:0"]


def _shell_in_new(session: Session, values: Values, silent: Sequence[Client]) -> int:
    project = session.project
    job = next((job for job in project.jobs if job.name == values.get("<job>")), None)
    task = replace(launch.tool(session, "exec", _SHELL), mode="it", native="never")
    if job:
        mounts = plan.mounts(project, job)
        env, shadowed = plan.environment(project, job, os.environ), plan.shadowed(job)
        host = session.flags.docker_host or job.host or project.host
        task = replace(task, mounts=mounts, env=env, shadowed=shadowed, host=host)
    if values.get("map"):
        task = replace(task, mounts=(Mount(project.root, plan.WORKDIR), *task.mounts), shadowed=("",))
    if (client := Client(task.host, session.flags.verbose)) in silent:  # asked again, it takes as long again
        raise SkelebotError(f"no shell can be opened at {client.where}, which does not answer")
    launch.fetch_dependencies(session)
    # The project's ports are its jobs': one of them may have them already.
    task = replace(launch.amended(session, task), ports=())
    return launch.start(session, launch.image(session, job), task)


# --- tidying up ---


@dataclass(frozen=True)
class Removed:
    """What has gone, and the bytes that came free with it."""

    name: str
    size: int
    is_image: bool


def clean(session: Session, values: Values) -> int:
    by_client = {
        client: [c for c in found if not c.is_running and _is_own(session, c)]
        for client, found in by_engine(session)[0].items()
    }
    ended = [c for found in by_client.values() for c in found]
    if session.flags.dry_run:
        for container in ended:
            console.out(f"remove {container.name}")
        return 0
    for container in ended:
        _bring_back(session, container)
    removed: list[Removed] = []
    with build.alone(launch.image(session)) as alone:
        if not alone:
            console.info("a job of the project is running here, and what it may need stays")
        for client, found in by_client.items():
            removed += _clean_engine(client, launch.image(session), found, alone)
    _tell(removed, bool(values.get("json")))
    return 0


def _clean_engine(client: Client, image: Image, ended: Sequence[Container], alone: bool) -> Iterator[Removed]:
    sizes = client.own_sizes()
    # A run that is just beginning has made its container and not started it yet.
    names = [c.name for c in ended if alone or c.status != "created"]
    if names:
        _end(client, "rm", names)
    yield from (Removed(name, sizes.get(name, 0), False) for name in names)
    images = build.tidy(client, image) if alone else ()
    yield from (Removed(name, sizes.get(name, 0), True) for name in images)


def _tell(removed: Sequence[Removed], as_json: bool) -> None:
    of_jobs, images = ([r.name for r in removed if r.is_image is kind] for kind in (False, True))
    freed = sum(r.size for r in removed)
    if as_json:
        console.out(json.dumps({"containers": of_jobs, "images": images, "bytes": freed}, indent=2))
    else:
        console.out(f"{len(of_jobs)} containers, {len(images)} images, {freed / 1e6:.1f} MB came free")
