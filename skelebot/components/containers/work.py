"""What the commands for the project's containers do, on whatever engine those are."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from skelebot import console, launch, plan, shell
from skelebot.component import Session
from skelebot.dockerfile import PROJECT_LABEL
from skelebot.errors import SkelebotError, UsageError
from skelebot.model import Image, Mount, Project, Step
from skelebot.options import Values
from skelebot.runners import build, docker, folders, remote
from skelebot.runners.engine import Client
from skelebot.schema import did_you_mean

# bash where the image has it
_SHELL = ("sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")


@dataclass(frozen=True)
class Container:
    """One of the project's containers. checkout: of which checkout, where its engine is far away."""

    client: Client
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
    project, verbose = launch.project_of(session), session.flags.verbose
    if session.flags.docker_host:
        return [Client(session.flags.docker_host, verbose)]
    named = (project.host, *(job.host for job in project.jobs if job.host))
    return [Client(host, verbose) for host in dict.fromkeys((*named, *folders.known_hosts(project.root)))]


def on_each_engine(session: Session, act: Callable[[Client], Sequence[Container]]) -> list[Container]:
    """What `act` gives for every engine. Raises SkelebotError when none of them answers."""
    found: list[Container] = []
    failures: list[SkelebotError] = []
    asked = clients(session)
    for client in asked:
        try:
            found += act(client)
        except SkelebotError as error:
            failures.append(error)
    if len(failures) == len(asked):
        raise failures[0]
    for failure in failures:
        console.warn(str(failure))
    return found


def containers(session: Session) -> list[Container]:
    """All of the project's, running or not, the last started first."""
    project = launch.project_of(session)
    found = on_each_engine(session, lambda client: _of_engine(client, project))
    return sorted(found, key=lambda c: c.started, reverse=True)


def _of_engine(client: Client, project: Project) -> list[Container]:
    labels = (f"label={PROJECT_LABEL}={project.name}", f"label={docker.JOB_LABEL}")
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
        str(labels[docker.JOB_LABEL]),
        str(found["Name"]).lstrip("/"),
        str(state["Status"]),
        str(found["Created"]) if began.startswith("0001-") else began,
        str(found["Image"]),
        labels.get(remote.CHECKOUT_LABEL),
    )


def _of_job(session: Session, values: Values, all_containers: Sequence[Container]) -> list[Container]:
    """Those of the job that was named, or all. Raises UsageError for a name that no job has."""
    job = values.get("<job>")
    known = {job.name for job in launch.project_of(session).jobs} | {c.job for c in all_containers}
    if job is not None and job not in known:
        raise UsageError(f"there is no job {job!r}{did_you_mean(str(job), known)}")
    return [c for c in all_containers if job in (None, c.job)]


def _of_others(session: Session, container: Container) -> bool:
    """Whether a colleague's checkout, or another one of one's own, has started it far away."""
    root = launch.project_of(session).root
    return container.checkout is not None and container.checkout != remote.checkout_id(root)


# --- the commands ---


def ps(session: Session, values: Values) -> int:
    rows = [
        {"job": c.job, "container": c.name, "status": c.status, "started": c.started, "host": c.host}
        for c in containers(session)
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
    found = _of_job(session, values, containers(session))
    if not found:
        raise SkelebotError(
            f"{values['<job>']} has no container: it did not run detached (mode: d), or was cleaned away"
        )
    last = found[0]
    words = ["logs", *(["--follow"] if values.get("follow") else []), last.name]
    outcome = _attend(last.client.step(*words))
    _bring_back(session, last)
    return outcome


def _attend(step: Step) -> int:
    """Runs a client on Skelebot's own streams, and gives its exit code."""
    outcome = shell.run(step, os.kill)
    return 128 + outcome.signal if outcome.signal else outcome.code


def _bring_back(session: Session, container: Container) -> None:
    if container.client.is_remote:
        remote.bring_back(container.client, launch.project_of(session).root, container.name)


def stop(session: Session, values: Values) -> int:
    found = _of_job(session, values, containers(session))
    running = [c for c in found if c.is_running and not _of_others(session, c)]
    if left := [c.name for c in found if c.is_running and c not in running]:
        console.info(f"of another checkout, and left running: {', '.join(left)}")
    if not running:
        console.info("nothing is running")
    for container in running:
        if not session.flags.dry_run:
            container.client.answer("stop", container.name)
        console.out(container.name)
    for container in found:
        if not session.flags.dry_run:
            _bring_back(session, container)
    return 0


def open_shell(session: Session, values: Values) -> int:
    """Opens a shell in a container that runs, or else in a new one."""
    running = [c for c in _of_job(session, values, containers(session)) if c.is_running]
    if not running:
        return _shell_in_new(session, values)
    if values.get("map"):
        console.warn(f"{running[0].name} is running already; -m is for a new container")
    return _shell_in(session, running[0])


def _shell_in(session: Session, container: Container) -> int:
    terminal = ["--tty"] if shell.are_terminals() else []
    user = _user(session, container)
    words = ["exec", "--interactive", *terminal, "--workdir", plan.WORKDIR, *user, container.name]
    step = container.client.step(*words, *_SHELL)
    if session.flags.dry_run:
        console.out(shell.display(step))
        return 0
    console.info(f"in {container.name}")
    return _attend(step)


def _user(session: Session, container: Container) -> list[str]:
    """Whom the job runs as: its container itself begins as root."""
    named = launch.project_of(session).user
    if named == "caller":
        named = f"{os.getuid()}:{os.getgid()}"
    elif not named:
        named = container.client.answer("inspect", "--format", "{{.Config.User}}", container.image).strip()
    return ["--user", named or "0:0"]


def _shell_in_new(session: Session, values: Values) -> int:
    project = launch.project_of(session)
    job = next((job for job in project.jobs if job.name == values.get("<job>")), None)
    task = replace(launch.tool(session, "exec", _SHELL), mode="it", native="never")
    if job:
        mounts = tuple(plan.mount(project.root, text) for text in job.mappings)
        env, hidden = plan.environment(project, job, os.environ), plan.hidden(project, job)
        host = session.flags.docker_host or job.host or project.host
        task = replace(task, mounts=mounts, env=env, hidden=hidden, host=host)
    if values.get("map"):
        task = replace(task, mounts=(Mount(project.root, plan.WORKDIR), *task.mounts), hidden=frozenset({""}))
    launch.fetch_dependencies(session)
    # The project's ports are its jobs': one of them may have them already.
    task = replace(launch.amended(session, task), ports=())
    return launch.start(session, launch.image(session, job), task)


# --- tidying up ---


def clean(session: Session, values: Values) -> int:
    ended = [c for c in containers(session) if not c.is_running and not _of_others(session, c)]
    if session.flags.dry_run:
        for container in ended:
            console.out(f"remove {container.name}")
        return 0
    for container in ended:
        _bring_back(session, container)
    image = launch.image(session)
    removed: list[Removed] = []
    on_each_engine(session, lambda client: _clean_engine(client, image, ended, removed))
    containers_, images = ([r.name for r in removed if r.is_image is kind] for kind in (False, True))
    freed = sum(r.size for r in removed)
    if values.get("json"):
        console.out(json.dumps({"containers": containers_, "images": images, "bytes": freed}, indent=2))
    else:
        console.out(f"{len(containers_)} containers, {len(images)} images, {freed / 1e6:.1f} MB came free")
    return 0


@dataclass(frozen=True)
class Removed:
    """What has gone, and the bytes that came free with it."""

    name: str
    size: int
    is_image: bool


def _clean_engine(
    client: Client, image: Image, ended: Sequence[Container], removed: list[Removed]
) -> Sequence[Container]:
    sizes = client.own_sizes()
    here = [c for c in ended if c.client == client]
    for container in here:
        client.answer("rm", "--volumes", container.name)
        removed.append(Removed(container.name, sizes.get(container.name, 0), False))
    removed += (Removed(gone, sizes.get(gone, 0), True) for gone in _tidied(client, image))
    return here


def _tidied(client: Client, image: Image) -> list[str]:
    with build.images_in_use(client, image) as lock:
        lock.untidy()
        return build.tidy(client, image)
