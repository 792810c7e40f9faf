"""What it costs to find a pipeline up to date and to run it, measured in one run.

usage: python benchmarks/pipelines.py [ROUNDS] [BEFORE]

BEFORE: a checkout of an earlier version, to compare start-up with. DVC, go-task (`task`) and Snakemake are
measured beside Skelebot where they are on PATH; Skelebot is the one of this checkout.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from startup import COMPLETING, Command, measure, project

ROUNDS = 20
JOBS = 50
FILES = 20_000
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

HELP, UP_TO_DATE, RUN, DIRECT = "-h, 50 jobs", "50 up to date", "50 run", "50 times bash -c"
HELP_FILES, FILES_UP_TO_DATE = "-h, 20,000 files", "20,000 inputs"
OTHERS = (
    ("dvc repro", ("dvc", "repro", "--quiet", "job-49")),
    ("go-task", ("task", "--silent", "job-49")),
    ("snakemake", ("snakemake", "--quiet", "all", "--cores", "1")),
)

Times = dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    """A promise: `of` the times is at most `limit`, in `unit`."""

    work: str
    limit: float
    unit: str
    of: Callable[[Callable[[str], float]], float]


ROWS = (
    Row("50 jobs up to date", 3.0, "x -h", lambda t: t(UP_TO_DATE) / t(HELP)),
    Row("50 trivial jobs run", 20, "ms each", lambda t: 1000 * (t(RUN) - t(DIRECT)) / JOBS),
    Row("20,000 inputs", 250, "ms over -h", lambda t: 1000 * (t(FILES_UP_TO_DATE) - t(HELP_FILES))),
)

STARTS: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]], ...] = (
    ("-h", ("-h",), ()),
    ("-n, a trivial job", ("-n", "trivial"), ()),
    ("a TAB", (), COMPLETING),
)


def _against_before(name: str) -> Row:
    return Row(name, 1.05, "x before", lambda t: t(f"{name}, now") / t(f"{name}, before"))


START_ROWS = tuple(_against_before(name) for name, _, _ in STARTS)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    before = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder:
        times = measure([*pipelines(folder), *others(folder), *starts(folder, before)], rounds)
    print_times(times, rounds)
    rows = ROWS + (START_ROWS if before else ())
    print(f"\n  {'work':<24}{'median':>8}{'min':>8}{'at most':>9}")
    reached = [report(row, times) for row in rows]
    return 0 if all(reached) else 1


def pipelines(folder: str) -> list[Command]:
    current, run, files = chain(folder, "current"), chain(folder, "run"), with_files(folder)
    return [
        skelebot(HELP, current, "-h"),
        skelebot(UP_TO_DATE, current, "-n", "job-49"),
        skelebot(RUN, run, "-n", "--force-all", "job-49"),
        Command(DIRECT, ("bash", "-c", DIRECTLY), run),
        skelebot(HELP_FILES, files, "-h"),
        skelebot(FILES_UP_TO_DATE, files, "-n", "count"),
    ]


def starts(folder: str, before: str | None) -> list[Command]:
    """What a start costs with this version and with an earlier one."""
    if before is None:
        return []
    plain, versions = project(folder, 10), (("before", before), ("now", HERE))
    return [
        skelebot(f"{name}, {version}", plain, *words, code=code, env=env)
        for name, words, env in STARTS
        for version, code in versions
    ]


def skelebot(
    name: str, folder: str, *words: str, code: str = HERE, env: tuple[tuple[str, str], ...] = ()
) -> Command:
    argv = (sys.executable, "-m", "skelebot", *words)
    return Command(name, argv, folder, (("PYTHONPATH", code), *env))


# --- the projects ---

STEP = "mkdir -p made-{number}; cp src/x made-{number}/x"
DIRECTLY = "\n".join(f"bash -c '{STEP.format(number=n)}'" for n in range(JOBS))


def chain(folder: str, name: str) -> str:
    """A new project of 50 jobs, each of which needs the one before, for Skelebot and for the others."""
    path = os.path.join(folder, name)
    os.makedirs(os.path.join(path, "src"))
    write(path, "src/x", "x\n")
    write(path, "skelebot.yaml", "name: benchmark\njobs:\n" + each(JOB, NEEDS))
    write(path, "dvc.yaml", "stages:\n" + each(STAGE, DEPENDS))
    write(path, "Taskfile.yml", "version: '3'\ntasks:\n" + each(TASK, SOURCES))
    write(path, "Snakefile", f"rule all:\n  input: 'made-{JOBS - 1}/x'\n" + each(RULE, INPUT))
    return path


def others(folder: str) -> list[Command]:
    """The same pipeline, up to date, by the other tools that are installed."""
    found = []
    for name, argv in OTHERS:
        if shutil.which(argv[0]):
            path = chain(folder, argv[0])
            if argv[0] == "dvc":
                subprocess.run(("dvc", "init", "--no-scm", "-q"), cwd=path, check=True)
            found.append(Command(name, argv, path, (("DVC_NO_ANALYTICS", "1"),)))
    return found


def each(text: str, link: str) -> str:
    return "".join(
        text.format(number=n, step=STEP.format(number=n), link=link.format(before=n - 1) if n else "")
        for n in range(JOBS)
    )


JOB = """
- name: job-{number}
  source: {step}
  help: Does the work that has the number {number}
  outputs: [made-{number}/]
  inputs: [src/]{link}
"""
NEEDS = "\n  needs: [job-{before}]"
STAGE = """
  job-{number}:
    cmd: {step}
    deps: [src{link}]
    outs: [made-{number}]
"""
DEPENDS = ", made-{before}"
TASK = """
  job-{number}:
    cmd: {step}
    sources: [src/x{link}]
    generates: [made-{number}/x]
"""
SOURCES = "]\n    deps: [job-{before}"
RULE = """
rule job_{number}:
  input: 'src/x'{link}
  output: 'made-{number}/x'
  shell: "{step}"
"""
INPUT = ", 'made-{before}/x'"


def with_files(folder: str) -> str:
    """A new project with 20,000 small files and a job that reads them."""
    path = os.path.join(folder, "files")
    for number in range(FILES):
        if number % 100 == 0:
            os.makedirs(os.path.join(path, f"data/{number // 100}"))
        write(path, f"data/{number // 100}/{number}.txt", f"{number}\n")
    write(path, "skelebot.yaml", f"name: benchmark\njobs:{COUNT}")
    return path


COUNT = """
- name: count
  source: mkdir -p out; ls data >out/count
  help: Counts the files
  inputs: [data/]
  outputs: [out/]
"""


def write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)


# --- the report ---


def print_times(times: Times, rounds: int) -> None:
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Python {sys.version.split()[0]}, {rounds} rounds, load {load}")
    print("milliseconds as median (minimum)\n")
    for name, found in times.items():
        print(f"  {name:<26}{1000 * statistics.median(found):8.1f} ({1000 * min(found):.1f})")


def report(row: Row, times: Times) -> bool:
    """Print a row; return whether its median keeps the promise."""
    median = row.of(lambda name: statistics.median(times[name]))
    least = row.of(lambda name: min(times[name]))
    missed = "" if median <= row.limit else "  MISSED"
    print(f"  {row.work:<24}{median:8.2f}{least:8.2f}{row.limit:9.2f} {row.unit}{missed}")
    return not missed


if __name__ == "__main__":
    sys.exit(main())
