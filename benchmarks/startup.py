"""What Skelebot costs before a job begins, as ratios measured in one run.

usage: python benchmarks/startup.py [ROUNDS]

Takes the `skelebot` that is installed beside the Python that runs it. The commands take turns, so that
whatever else the machine does meets all of them; a ratio is made of two medians, and of two minima.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

ROUNDS = 40
WARM_UP = 3


@dataclass(frozen=True)
class Command:
    """A program to time, in its folder."""

    name: str
    argv: tuple[str, ...]
    folder: str
    env: tuple[tuple[str, str], ...] = ()

    def seconds(self) -> float:
        """How long one run takes. Raises CalledProcessError when it fails."""
        environment = {k: v for k, v in os.environ.items() if k not in _OTHERS_SETTINGS} | dict(self.env)
        start = time.perf_counter()
        subprocess.run(
            self.argv,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - start


# Settings of the caller's that would change what is measured.
_OTHERS_SETTINGS = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME")


@dataclass(frozen=True)
class Row:
    """A promise: `work` takes at most `limit` times as long as `against`."""

    work: str
    against: str
    limit: float


IMPORTS, HELP, HELP_500, NATIVE = "import argparse, yaml", "-h, 10 jobs", "-h, 500 jobs", "-n, a trivial job"
TAB, TAB_500 = "a TAB, 10 jobs", "a TAB, 500 jobs"
ROWS = (
    Row(HELP, IMPORTS, 2.0),
    Row(HELP_500, HELP, 4.0),
    Row(NATIVE, HELP, 1.3),
    Row(TAB, HELP, 1.0),
    Row(TAB_500, HELP_500, 1.0),
)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        times = measure(commands(folder), rounds)
    print(f"Python {sys.version.split()[0]}, {rounds} rounds; milliseconds as median (minimum)\n")
    for name, found in times.items():
        print(f"  {name:<24}{1000 * statistics.median(found):7.1f} ({1000 * min(found):.1f})")
    print(f"\n  {'work':<20}{'against':<24}{'median':>7}{'min':>7}{'at most':>9}")
    reached = [report(row, times) for row in ROWS]
    return 0 if all(reached) else 1


def commands(folder: str) -> list[Command]:
    skelebot = installed()
    small, large = project(folder, 10), project(folder, 500)
    return [
        Command(IMPORTS, (sys.executable, "-c", "import argparse, yaml"), small),
        Command(HELP, (*skelebot, "-h"), small),
        Command(HELP_500, (*skelebot, "-h"), large),
        Command(NATIVE, (*skelebot, "-n", "trivial"), small),
        Command(TAB, skelebot, small, COMPLETING),
        Command(TAB_500, skelebot, large, COMPLETING),
    ]


# What a shell asks, when TAB follows `skelebot job-7 --le`.
COMPLETING = (
    ("_SKELEBOT_COMPLETE", "bash_complete"),
    ("COMP_WORDS", "skelebot\njob-7\n--le"),
    ("COMP_CWORD", "2"),
)


def installed() -> tuple[str, ...]:
    """The installed command; without one the module, which starts a little slower."""
    script = shutil.which("skelebot", path=os.path.dirname(sys.executable))
    return (script,) if script else (sys.executable, "-m", "skelebot")


def project(folder: str, jobs: int) -> str:
    """A new project with so many jobs, each with an argument and two params, and the job `trivial`."""
    path = os.path.join(folder, f"of-{jobs}")
    os.mkdir(path)
    with open(os.path.join(path, "skelebot.yaml"), "w", encoding="utf-8") as file:
        file.write("name: benchmark\njobs:\n- {name: trivial, source: 'true', help: Does nothing}\n")
        for number in range(jobs - 1):
            file.write(JOB.format(number=number))
    return path


JOB = """
- name: job-{number}
  source: python -m package.job_{number}
  help: Does the work that has the number {number}
  mappings:
  - data/
  args:
  - name: date
    help: The day that the work is for
  params:
  - name: rate
    alt: r
    default: 0.1
    help: How fast it learns
  - name: level
    choices: [debug, info, error]
    default: info
    help: How much it tells
"""


def measure(commands: list[Command], rounds: int) -> dict[str, list[float]]:
    """The seconds of each command's runs, by its name; the first runs write the .pyc files."""
    times: dict[str, list[float]] = {command.name: [] for command in commands}
    for number in range(WARM_UP + rounds):
        for command in commands:
            seconds = command.seconds()
            if number >= WARM_UP:
                times[command.name].append(seconds)
    return times


def report(row: Row, times: dict[str, list[float]]) -> bool:
    """Prints a row, and says whether its median keeps the promise."""
    work, against = times[row.work], times[row.against]
    median = statistics.median(work) / statistics.median(against)
    least = min(work) / min(against)
    missed = "" if median <= row.limit else "  MISSED"
    print(f"  {row.work:<20}{row.against:<24}{median:7.2f}{least:7.2f}{row.limit:9.1f}{missed}")
    return not missed


if __name__ == "__main__":
    sys.exit(main())
