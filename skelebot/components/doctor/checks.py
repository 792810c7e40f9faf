"""Check everything that Skelebot needs, all at the same time."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import skelebot
from skelebot import console
from skelebot.component import Check, Component, Session
from skelebot.errors import FAILED, ConfigError, ProgramMissing, SkelebotError
from skelebot.model import Place
from skelebot.plugins import find
from skelebot.plugins.find import Plugin
from skelebot.plugins.guard import summary
from skelebot.plugins.probe import Probe, probe
from skelebot.project import read

if TYPE_CHECKING:
    import threading

SECONDS = 15.0  # for all checks together
_SILENT = "check that it is up and can be reached"
_PLUGIN_SECONDS = 10.0
_LEAST_FREE = 2_000_000_000  # bytes of disk, below which an image or a model may not fit

Part = tuple[str, Callable[[], Iterable[Check]]]


def show(session: Session, as_json: bool) -> int:
    """Print the results; the exit code is 1 if any check failed."""
    found = []
    for warning in session.warnings:
        console.warn(warning)
    for check in _run_all(list(_parts(session))):
        found.append(check)
        if not as_json:
            console.out(_line(check))
    if as_json:
        import json

        rows = [{"name": c.name, "ok": not c.advice, "found": c.found, "advice": c.advice} for c in found]
        console.out(json.dumps(rows, indent=2))
    return FAILED if any(check.advice for check in found) else 0


def _line(check: Check) -> str:
    text = check.found if check.advice is None else f"{check.found}; {check.advice}"
    return console.one_line(f"{'ok   ' if check.advice is None else 'WRONG'} | {check.name}: {text}")


def _run_all(parts: list[Part]) -> Iterator[Check]:
    """Yield the results in order. The parts run at the same time, for at most SECONDS."""
    import importlib
    import threading
    import time

    # Before the threads: two of them that import parts of one package at once can lock each other out.
    importlib.import_module("skelebot.runners.docker")
    end = time.monotonic() + SECONDS
    found: list[list[Check]] = [[] for _ in parts]
    # Daemon threads, so that a hanging check does not keep the program from ending.
    threads = [
        threading.Thread(target=_run, args=(*part, checks), daemon=True)
        for part, checks in zip(parts, found, strict=True)
    ]
    try:
        for thread in threads:
            thread.start()
        for (name, _), thread, checks in zip(parts, threads, found, strict=True):
            thread.join(max(end - time.monotonic(), 0))
            yield from tuple(checks)
            if thread.is_alive():
                yield Check(name, f"no answer in {console.counted(SECONDS, 'second')}", _SILENT)
    finally:
        _give_up([thread for thread in threads if thread.is_alive()])


def _give_up(threads: "list[threading.Thread]") -> None:
    """End the programs that are still waited for, so that their temporary files are removed."""
    if not threads:
        return
    import psutil  # only where something does not answer

    for _ in range(20):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        threads[0].join(0.1)
        threads = [thread for thread in threads if thread.is_alive()]
        if not threads:
            return


def _run(name: str, check_part: Callable[[], Iterable[Check]], checks: list[Check]) -> None:
    try:
        for check in check_part():
            checks.append(check)
    except ConfigError as error:
        checks += map(_problem, error.problems)
    except SkelebotError as error:
        checks.append(Check.failed(name, error))
    except Exception as error:
        checks.append(Check(name, summary(error), "this is a bug in Skelebot; report it"))


# --- the parts ---


def _parts(session: Session) -> Iterator[Part]:
    yield "Python", _python
    yield "configuration", lambda: _configuration(session)
    if not session.flags.native:
        yield "Docker", lambda: _docker(session)
    yield "disk", _disk
    for component in session.components:
        if type(component).checks is not Component.checks:
            yield type(component).__name__.lower(), _of_component(component, session)
    origins: dict[str, str] = {}
    for plugin in find.find():
        other = origins.setdefault(plugin.name, plugin.origin)
        clash = None if other == plugin.origin else f"{other} provides a plugin of the same name"
        yield f"plugin {plugin.name}", _of_plugin(plugin, session, clash)


def _python() -> Iterator[Check]:
    import platform
    import shutil
    import sys
    from importlib.util import find_spec

    where = f"Skelebot {skelebot.__version__} in Python {platform.python_version()}, {sys.executable}"
    installers = [*filter(None, [shutil.which("uv")]), *filter(find_spec, ("pip", "ensurepip"))]
    yield Check("Python", where, None if installers else "install uv or pip, for native runs")


def _configuration(session: Session) -> Iterator[Check]:
    from skelebot import launch

    for problem in session.problems:
        yield _problem(problem)
    if session.problems:
        return
    project = session.optional_project
    if project is None:
        yield Check("configuration", read.NO_PROJECT)
        return
    for name in session.hidden_commands:
        text = f"the job {name} replaces Skelebot's command of the same name; rename the job to use that"
        yield Check("configuration", text)
    launch.image(session)  # reads the files that the dependencies name
    env = f" in the environment {project.env}" if project.env else ""
    yield Check("configuration", f"{os.path.join(project.root, read.FILE)}{env}")


def _problem(problem: str) -> Check:
    return Check("configuration", problem, "fix it, and run doctor again")


def _docker(session: Session) -> Iterator[Check]:
    from skelebot.runners.docker.builder import has_buildkit
    from skelebot.runners.docker.client import PATIENCE, Client

    project = session.optional_project
    host = project.host if project else None
    client = Client(Place.at(session.flags.docker_host or host).engine)
    try:
        versions = client.query(
            "version", "--format", "{{.Client.Version}} {{.Server.Version}}", timeout=PATIENCE
        )
    except ProgramMissing as error:
        yield Check("Docker", str(error), "install Docker, or run natively with -n")
        return
    theirs, its = versions.split()
    yield Check("Docker", f"engine {its} at {client.where}, client {theirs}")
    yield Check("builder", "BuildKit" if has_buildkit(client) else "the classic one, without BuildKit")
    if not client.is_remote:
        folder = client.query("info", "--format", "{{.DockerRootDir}}", timeout=PATIENCE).strip()
        if os.path.isdir(folder):  # otherwise it is in a virtual machine, as on macOS
            yield _free("Docker's disk", folder)


def _disk() -> Iterator[Check]:
    yield _free("disk", read.find_root() or os.getcwd())


def _free(name: str, folder: str) -> Check:
    import shutil

    free = shutil.disk_usage(folder).free
    advice = None if free >= _LEAST_FREE else f"free at least {_LEAST_FREE / 1e9:g} GB"
    return Check(name, f"{free / 1e9:.1f} GB free in {folder}", advice)


def _of_component(component: Component, session: Session) -> Callable[[], Iterable[Check]]:
    return lambda: component.checks(session)


def _of_plugin(plugin: Plugin, session: Session, clash: str | None) -> Callable[[], Iterable[Check]]:
    """Check a plugin in a separate process: whatever it does, the other checks are reported."""
    name = f"plugin {plugin.name}"
    remedy = f"skelebot plugin remove {plugin.name}" if plugin.owned else f"uninstall {plugin.origin}"
    root = session.optional_project.root if session.optional_project else None

    def check() -> Iterator[Check]:
        result = (
            Probe(clash) if clash else probe(plugin, _PLUGIN_SECONDS, root, session.flags, own_checks=True)
        )
        if result.off is not None:
            yield Check(name, f"it is switched off: {result.off}", f"fix it, or remove it: {remedy}")
        elif result.checks:
            yield from result.checks
        else:
            yield Check(name, f"{plugin.origin}; not active here")

    return check
