"""Projects in temporary folders, and ways to read them, for the unit tests."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skelebot import catalog, cli
from skelebot.errors import ConfigError
from skelebot.model import Flags, Job, Project
from skelebot.project import read
from skelebot.project.nodes import Report
from skelebot.project.plan import task
from skelebot.secret import reveal

FILE = "skelebot.yaml"

# A project that uses every kind of key, and has nothing wrong.
FULL = """\
name: demo
description: Shows what there is
maintainer: Ada
contact: ada@example.org
language: Python
pythonVersion: 3.10
baseImage: python:3.10-slim
host: tcp://engine:2375
timezone: Europe/Berlin
ephemeral: false
dependencies: [numpy=1.26.4, "pandas>=2"]
ignores:
  - "*.csv"
commands: [echo ready]
ports: [22:22, "127.0.0.1:8080:80/udp"]
primaryJob: train
primaryExe: ENTRYPOINT
gpu: no
user: caller
build:
  packages: [git]
  commands: [echo first]
  inherit: [pip]
dockerfile: null
environment: {A: 1, B: null}
envFile: .env
params:
  - {name: level, choices: [1, 2], default: 1}
jobs:
  - name: train
    source: train.py
    help: Trains
    mode: i
    native: optional
    host: ssh://me@engine
    args:
      - {name: date, choices: [2018-01-01, 2019-01-01], help: When}
    params:
      - {name: rate, alt: r, default: 1.0, help: How fast}
      - {name: all, accepts: boolean, default: true}
      - {name: columns, accepts: list, default: [a, b]}
      - {name: token, default: $TOKEN, secret: true}
    mappings: [data/, "~/out:app/out:ro"]
    ports: ["8888:8888"]
    ignores: ["*.log"]
    environment: {C: 010}
    envFile: job.env
    timeout: 10m
    metrics: {loss: 'loss=(.*)'}
sweeps:
  rates:
    chain: train 2018-01-01
    values: {train.rate: [0.1, 1], level: "1,2", columns: 'a "b c"'}
    trials: 4
    sampler: random
    seed: 1
    goal: min:loss
    prune: median
    failFast: true
components: {}
"""


def write(folder: Path, text: str, name: str = FILE) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def read_all(folder: Path, env: str | None = None) -> tuple[Project | None, Report]:
    """The project of a folder and all that is wrong with it, the components' part included."""
    project, report = read.project(str(folder), env)
    if project is not None:
        catalog.active(project, report)
    return project, report


def load(folder: Path, text: str | None = None, env: str | None = None) -> Project:
    """The project of a folder that has no mistakes."""
    if text is not None:
        write(folder, text)
    project, report = read_all(folder, env)
    report.raise_problems()
    assert project is not None
    return project


def problems(folder: Path, text: str, env: str | None = None) -> list[str]:
    """What is wrong with a skelebot.yaml, in the order in which it is told."""
    write(folder, text)
    _, report = read_all(folder, env)
    try:
        report.raise_problems()
    except ConfigError as error:
        return error.problems
    return []


def warnings(folder: Path, text: str) -> list[str]:
    write(folder, text)
    project, report = read_all(folder)
    report.raise_problems()
    assert project is not None
    return list(report.warnings)


def run_cli(argv: list[str]) -> int:
    """The exit code of a command line, without its signal handlers staying behind."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        return cli.main(argv)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def argv_of(
    project: Project,
    job: Job,
    values: dict[str, str | bool | tuple[str, ...]] | None = None,
    caller: dict[str, str] | None = None,
) -> tuple[str, ...]:
    """The words that running `job` with `values`, those of the args by their names, means."""
    keys = {arg.name: arg.key for arg in job.args}
    keyed = {keys.get(name, name): value for name, value in (values or {}).items()}
    env = caller or {}
    return tuple(reveal(word, env) for word in task(project, job, keyed, Flags(), env).argv)


def arrived(argv: tuple[str, ...], cwd: Path | str, **env: str) -> list[str]:
    """What a program that was really run printed, one entry for each NUL that it wrote."""
    result = subprocess.run(
        argv, cwd=cwd, env={"PATH": os.environ["PATH"], **env}, capture_output=True, check=True
    )
    return result.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Lets file permissions count, also where root runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
