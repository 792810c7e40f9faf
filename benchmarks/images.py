"""What images cost when nothing has changed, and when little has: against bare Docker, in one run.

usage: python benchmarks/images.py [--rounds N] [ROW ...]

Takes the `skelebot` that is installed beside the Python that runs it, the `docker` clients on PATH and the
engine that they talk to. SKELEBOT_TEST_BASE names the image to build upon. The commands of a row take turns,
and a figure is the median of the rounds' differences or ratios; the least is made of the two minima.
Milliseconds hold where `import argparse, yaml` takes 21; that is measured as well, and scales them.
Takes about ten minutes, 3 GB of disk and, for `dependencies`, a package index. Leaves nothing behind but
what the builders' cache mounts keep.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import sub, truediv

from startup import IMPORTS, installed

BASE = os.environ.get("SKELEBOT_TEST_BASE") or "python:3.11-slim"
IMPORTS_TAKE = 0.021  # seconds, where the promises in milliseconds hold

# Settings of the caller's that would change what is measured.
_OTHERS_SETTINGS = (
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONDONTWRITEBYTECODE",
    "SKELEBOT_BUILD_INHERIT",
    "SKELEBOT_BASE_IMAGE",
    "BUILDX_BUILDER",
)

_JOB = "trivial"


# --- Docker ---


@dataclass(frozen=True)
class Docker:
    """A client, and the builder that it is to use."""

    program: str
    buildkit: bool

    @property
    def builder(self) -> str:
        return "BuildKit" if self.buildkit else "classic"

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in _OTHERS_SETTINGS}
        return kept | {"SKELEBOT_DOCKER": self.program, "DOCKER_BUILDKIT": str(int(self.buildkit))}

    def says(self, *words: str) -> str:
        """The output of a command. Raises CalledProcessError when it fails."""
        ended = self._run(words)
        ended.check_returncode()
        return ended.stdout

    def does(self, *words: str) -> bool:
        return self._run(words).returncode == 0

    def _run(self, words: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run((self.program, *words), env=self.environment(), capture_output=True, text=True)


def clients() -> tuple[Docker, Docker | None]:
    """The first client on PATH with the classic builder, and the first that has BuildKit."""
    found = (shutil.which("docker", path=folder) for folder in os.environ["PATH"].split(os.pathsep))
    programs = [program for program in dict.fromkeys(found) if program]
    if not programs:
        sys.exit("ERROR | there is no docker on PATH")
    buildkit = next((Docker(p, True) for p in programs if _has_buildkit(Docker(p, True))), None)
    return Docker(programs[0], False), buildkit


def _has_buildkit(docker: Docker) -> bool:
    major = docker.says("version", "--format", "{{.Client.Version}}").partition(".")[0]
    return int(major) < 23 or docker.does("buildx", "version")


def disk_used(docker: Docker) -> float:
    """The bytes of the engine's image layers and of BuildKit's cache."""
    lines = docker.says("system", "df", "--format", "{{.Type}}\t{{.Size}}").splitlines()
    sizes = dict(line.split("\t") for line in lines)
    return _bytes(sizes["Images"]) + _bytes(sizes.get("Build Cache", "0B"))


def _bytes(text: str) -> float:
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("B", 1)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)


def large_cache_records(docker: Docker) -> set[str]:
    """The ids of what is large in BuildKit's cache, cache mounts apart, and of all that is built upon it."""
    if not docker.buildkit:
        return set()
    shown = "{{range .BuildCache}}{{.ID}},{{.Parent}},{{.CacheType}},{{.Size}}\n{{end}}"
    lines = docker.says("system", "df", "-v", "--format", shown).replace("*", "").splitlines()
    records = [line.split(",") for line in lines if line]
    found = {id for id, _, kind, size in records if kind != "exec.cachemount" and _bytes(size) > 5e7}
    while upon := {id for id, parent, *_ in records if parent in found} - found:
        found |= upon
    return found


def forget(docker: Docker, records: set[str]) -> None:
    """Removes records of BuildKit's cache, each after those that are built upon it."""
    left = records
    while left:
        for record in left:
            docker.does("builder", "prune", "--all", "--force", "--filter", f"id={record}")
        before, left = left, left & large_cache_records(docker)
        if left == before:
            return


# --- projects ---


@dataclass(frozen=True)
class Project:
    """A project in a scratch folder, with the job `trivial`."""

    docker: Docker
    name: str
    folder: str

    def write(self, path: str, content: str | bytes) -> None:
        file = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)

    def configure(self, source: str = "'true'", dependencies: tuple[str, ...] = ()) -> None:
        wanted = f"dependencies: [{', '.join(dependencies)}]\n" if dependencies else ""
        job = f"{{name: {_JOB}, source: {source}, help: Does nothing}}"
        self.write("skelebot.yaml", f"name: {self.name}\nbaseImage: {BASE}\n{wanted}jobs:\n- {job}\n")

    def job(self, links: int = 1) -> float:
        """The seconds of a run, or of a chain of so many."""
        return self._seconds(*installed(), *" + ".join([_JOB] * links).split())

    def bare(self) -> float:
        """The seconds of a container of the same image with the same options."""
        words = ["run", "--rm", "--init", "--interactive", "--name", f"{self.name}-{os.urandom(4).hex()}"]
        words += ["--user", "0:0", "--workdir", "/app", "--env", "TINI_KILL_PROCESS_GROUP=1"]
        words += ["--label", f"skelebot.project={self.name}", "--label", f"skelebot.job={_JOB}"]
        return self._seconds(self.docker.program, *words, self.image(), "true")

    def build_plainly(self, dockerfile: str) -> float:
        """The seconds of a build from nothing, which is removed again."""
        self.write("plain/Dockerfile", dockerfile)
        tag = f"{self.name}-plain"
        seconds = self._seconds(self.docker.program, "build", "--no-cache", "--tag", tag, "plain")
        self.docker.says("rmi", tag)
        return seconds

    def image(self) -> str:
        return self.docker.says("image", "inspect", "--format", "{{.Id}}", self.name).strip()

    def _seconds(self, *command: str) -> float:
        env, nothing = self.docker.environment(), subprocess.DEVNULL
        start = time.perf_counter()
        ended = subprocess.run(command, cwd=self.folder, env=env, stdin=nothing, capture_output=True)
        seconds = time.perf_counter() - start
        if ended.returncode != 0:
            sys.exit(f"ERROR | {' '.join(command)} failed:\n{ended.stderr.decode()}")
        return seconds


@contextmanager
def project(docker: Docker) -> Iterator[Project]:
    """A project whose name no earlier run had, so that none of its steps is in a cache yet."""
    name = f"benchmark-{os.urandom(4).hex()}"
    before = large_cache_records(docker)
    with tempfile.TemporaryDirectory(prefix="skelebot-") as folder:
        try:
            yield Project(docker, name, folder)
        finally:
            _remove_images(docker, name)
            forget(docker, large_cache_records(docker) - before)


def _remove_images(docker: Docker, name: str) -> None:
    label = f"label=skelebot.project={name}"
    while found := docker.says("image", "ls", "--quiet", "--filter", label).split():
        if not docker.does("rmi", "--force", *found):
            break


# --- times ---


@dataclass(frozen=True)
class Times:
    """The seconds of one work's runs."""

    found: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.found)

    @property
    def least(self) -> float:
        return min(self.found)


def in_turn(rounds: int, *works: Callable[[], float]) -> list[Times]:
    """The seconds of each work, which take turns; the first round warms up."""
    for work in works:
        work()
    turns = [[work() for work in works] for _ in range(rounds)]
    return [Times(list(found)) for found in zip(*turns, strict=True)]


def imports() -> float:
    start = time.perf_counter()
    subprocess.run((sys.executable, "-c", IMPORTS), check=True)
    return time.perf_counter() - start


# --- the rows ---


@dataclass(frozen=True)
class Line:
    """A promise and what became of it."""

    work: str
    promise: str
    measured: str
    kept: bool


Lines = Iterator[Line]


def _more(work: str, limit: float, rounds: int, bare: Callable[[], float], job: Callable[[], float]) -> Line:
    """A line for a job that may take `limit` milliseconds more than a bare run."""
    yaml, without, with_skelebot = in_turn(rounds, imports, bare, job)
    scaled = limit * yaml.median / IMPORTS_TAKE
    median = 1000 * statistics.median(map(sub, with_skelebot.found, without.found))
    least = 1000 * (with_skelebot.least - without.least)
    return Line(
        work,
        f"{limit:.0f} ms more, here {scaled:.0f}",
        f"{median:.0f} ms more (least {least:.0f}), {1000 * without.median:.0f} bare",
        median <= scaled,
    )


# Most projects name packages; this one is in every base.
PRESENT = ("pip>=20",)


def unchanged(rounds: int) -> Lines:
    with project(clients()[0]) as here:
        here.configure(dependencies=PRESENT)
        here.job()
        yield _more("nothing changed", 75, rounds, here.bare, here.job)


def gigabyte(rounds: int) -> Lines:
    with project(clients()[0]) as here:
        here.configure(dependencies=PRESENT)
        _write_gigabyte(here)
        here.job()
        yield _more("1 GB of data, unchanged", 150, rounds, here.bare, here.job)


def files(rounds: int) -> Lines:
    with project(clients()[0]) as here:
        here.configure(dependencies=PRESENT)
        for number in range(20_000):
            here.write(f"data/{number % 200}/{number}.txt", f"{number}\n")
        here.job()
        yield _more("20,000 small files, unchanged", 250, rounds, here.bare, here.job)


def change(rounds: int) -> Lines:
    for docker in filter(None, clients()):
        with project(docker) as here:
            yield from _changes(here, rounds)


def _changes(here: Project, rounds: int) -> Lines:
    here.configure(source="script.sh")
    here.write("script.sh", "true\n")
    _write_gigabyte(here)
    here.job()
    images = [here.image()]
    before = disk_used(here.docker)

    def changed() -> float:
        here.write("script.sh", f"true {len(images)}\n")
        seconds = here.job()
        images.append(here.image())
        return seconds

    builder = here.docker.builder
    yield _more(f"a line changed, 1 GB not ({builder})", 1000, rounds, here.bare, changed)
    assert len(set(images)) == rounds + 2, "every change makes a new image"
    left = (disk_used(here.docker) - before) / (rounds + 1) / 1e6
    yield Line(f"  left behind by each ({builder})", "100 MB", f"{left:.1f} MB", left <= 100)


def _write_gigabyte(here: Project) -> None:
    block = os.urandom(1_000_000)
    for number in range(10):
        here.write(f"data/{number}.bin", block * 100)


SCIENCE = ("numpy", "pandas", "scipy", "scikit-learn")
# Small, so that what is measured is not their download; each run of a builder adds another one.
SMALL = ("tabulate", "humanize", "colorama", "click", "toml", "chardet", "idna", "wcwidth", "zipp")


def dependencies(rounds: int) -> Lines:
    for docker in filter(None, clients()):
        with project(docker) as here:
            here.configure(dependencies=SCIENCE)
            here.job()
            added: list[str] = []

            def one_more(here: Project = here, added: list[str] = added) -> float:
                added.append(SMALL[len(added)])
                here.configure(dependencies=(*SCIENCE, added[-1]))
                return here.job()

            def pip(here: Project = here, added: list[str] = added) -> float:
                everything = " ".join((*SCIENCE, added[-1]))
                return here.build_plainly(f"FROM {BASE}\nRUN pip install --no-cache-dir {everything}\n")

            times = in_turn(min(rounds, len(SMALL) - 1), one_more, pip)
            yield _ratio(f"one dependency added ({docker.builder})", 0.2, *times)


def chain(rounds: int) -> Lines:
    with project(clients()[0]) as here:
        here.configure()
        here.job()
        five = in_turn(rounds, lambda: here.job(5), lambda: sum(here.bare() for _ in range(5)))
        yield _ratio("a chain of five", 1.15, *five)


def _ratio(work: str, limit: float, times: Times, against: Times) -> Line:
    ratio = statistics.median(map(truediv, times.found, against.found))
    least = times.least / against.least
    measured = f"{ratio:.3f} (least {least:.3f}), {times.median:.1f} s of {against.median:.1f}"
    return Line(work, f"{limit:g} times", measured, ratio <= limit)


# What makes a row, and its rounds where none are given.
ROWS: dict[str, tuple[Callable[[int], Lines], int]] = {
    "unchanged": (unchanged, 30),
    "gigabyte": (gigabyte, 20),
    "files": (files, 20),
    "change": (change, 8),
    "dependencies": (dependencies, 3),
    "chain": (chain, 10),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="What images cost, against bare Docker")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, help="how often each command of a row is run")
    given = parser.parse_args()
    if unknown := sorted({*given.rows} - {*ROWS}):
        parser.error(f"there is no row {unknown[0]}; there are {', '.join(ROWS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # to leave nothing behind then, too
    print(f"{'work':<36}{'must reach':<28}measured")
    kept = [show(line) for name in given.rows or ROWS for line in lines(name, given.rounds)]
    return 0 if all(kept) else 1


def lines(name: str, rounds: int | None) -> Lines:
    row, default = ROWS[name]
    return row(rounds or default)


def show(line: Line) -> bool:
    missed = "" if line.kept else "  MISSED"
    print(f"{line.work:<36}{line.promise:<28}{line.measured}{missed}", flush=True)
    return line.kept


if __name__ == "__main__":
    sys.exit(main())
