"""What queued runs cost, beside DVC's queue, Hydra's multirun and GNU parallel, measured in one run.

usage: python benchmarks/experiments.py [RUNS] [DOCKER_IMAGE]

RUNS: how many trivial runs are worked off (default: 100). DOCKER_IMAGE: a base for the runs in Docker, which
are left out without it. DVC and GNU parallel are measured where they are on PATH, Hydra where HYDRA_PYTHON
names a Python that has it. Times are CPU seconds of all processes where nothing else is said, as other work
on the machine counts less in those.
"""

import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass

import psutil

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SKELEBOT = (sys.executable, "-m", "skelebot")
MANY = 10_000


@dataclass(frozen=True)
class Cost:
    """What one command took, in seconds."""

    cpu: float
    wall: float


def cost(argv: tuple[str, ...], folder: str, env: dict[str, str], rounds: int = 1) -> Cost:
    """Return the least that a command takes in so many rounds. Raises CalledProcessError when it fails."""
    found = []
    for _ in range(rounds):
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            argv, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        found.append(Cost(cpu, time.perf_counter() - begin))
    return Cost(min(each.cpu for each in found), min(each.wall for each in found))


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    image = sys.argv[2] if len(sys.argv) > 2 else ""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": HERE, "SKELEBOT_STORE": os.path.join(folder, "store")}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        reached = [*native(folder, env, runs), *freezing(folder, env), *listing(folder, env)]
        reached += [*sweeping(folder, env), *studying(env)]
        if image:
            reached += docker(folder, env, image)
        others(folder, env)
    return 0 if all(reached) else 1


def report(work: str, found: float, unit: str, limit: float, at_least: bool = False) -> bool:
    is_reached = found >= limit if at_least else found <= limit
    bound = "at least" if at_least else "at most"
    print(f"  {work:<44}{found:9.1f} {unit:<18}{bound} {limit:g}{'' if is_reached else '   MISSED'}")
    return is_reached


# --- Skelebot ---

TRIVIAL = "name: benchmark\njobs:\n- {name: trivial, source: 'true', native: always, help: Does nothing}\n"


def project(folder: str, name: str, files: int, text: str = TRIVIAL) -> str:
    """A new project, in a git repository, with so many small files."""
    path = os.path.join(folder, name)
    for number in range(files):
        if number % 100 == 0:
            os.makedirs(os.path.join(path, f"src/{number // 100}"))
        with open(os.path.join(path, f"src/{number // 100}/{number}.py"), "w", encoding="utf-8") as file:
            file.write(f"x = {number}\n")
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "skelebot.yaml"), "w", encoding="utf-8") as file:
        file.write(text)
    subprocess.run(("git", "init", "-q", path), check=True)
    return path


def native(folder: str, env: dict[str, str], runs: int) -> list[bool]:
    """Trivial runs, one worker with two slots."""
    path = project(folder, "native", 3)
    for _ in range(runs):
        cost((*SKELEBOT, "queue", "trivial"), path, env)
    own = cost(("bash", "-c", "for i in $(seq 100); do bash -c true; done"), path, env, 3).cpu / 100
    took = cost((*SKELEBOT, "worker", "-j", "2", "--drain"), path, env)
    print(f"{runs} trivial native runs, one worker, -j 2:")
    return [
        report("a run, over the job's own", 1000 * (took.cpu / runs - own), "ms CPU", 40),
        report("runs in a second", runs / took.wall, "runs", 20, at_least=True),
    ]


def freezing(folder: str, env: dict[str, str]) -> list[bool]:
    """A run queued, with nothing changed since the last one."""
    reached = []
    print("queue, nothing changed:")
    for files, limit in ((300, 250), (10_000, 500)):
        path = project(folder, f"files-{files}", files)
        cost((*SKELEBOT, "queue", "trivial"), path, env)
        time.sleep(2.1)  # what has only just been written may change without its times showing it
        cost((*SKELEBOT, "queue", "trivial"), path, env)
        took = cost((*SKELEBOT, "queue", "trivial"), path, env, 5)
        plain = cost((*SKELEBOT, "-h"), path, env, 5)
        if files == 300:
            reached.append(report("queue of one run, 300 files", 1000 * took.cpu, "ms CPU", limit))
        snapshot = 1000 * (took.cpu - plain.cpu)
        print(f"  {f'{files:,} files, over -h':<44}{snapshot:9.1f} ms CPU")
    return reached


def listing(folder: str, env: dict[str, str]) -> list[bool]:
    """The table, with 10,000 queued runs."""
    path = os.path.join(folder, "native")
    cost((*SKELEBOT, "queue", "trivial"), path, env)
    subprocess.run((sys.executable, "-c", FILL, str(MANY)), env=env, check=True)
    print(f"{MANY:,} queued runs:")
    took, plain = cost((*SKELEBOT, "runs"), path, env, 7), cost((*SKELEBOT, "-h"), path, env, 7)
    eta = subprocess.run((sys.executable, "-c", ETA), env=env, check=True, capture_output=True, text=True)
    return [
        report("runs, over -h", 1000 * (took.cpu - plain.cpu), "ms CPU", 150),
        report("time left on 8 slots", float(eta.stdout), "ms CPU", 20),
        *page(path, env),
    ]


def page(path: str, env: dict[str, str]) -> list[bool]:
    """The table in a browser until its first byte: the first one, another one, and after a change."""
    if importlib.util.find_spec("starlette") is None:
        print("  the page is left out: skelebot[ui] is not installed")
        return []
    argv = (*SKELEBOT, "ui")
    with subprocess.Popen(
        argv, cwd=path, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as served:
        assert served.stdout
        address = served.stdout.readline().decode().strip()
        first = answer(served.pid, f"{address}project/runs")
        again = [answer(served.pid, f"{address}project/runs?page={number}") for number in range(1, 31)]
        changed = []
        for _ in range(10):
            subprocess.run((*SKELEBOT, "runs", "note", "1", "seen"), cwd=path, env=env, check=True)
            changed.append(answer(served.pid, f"{address}project/runs?sort=fact%3Aseconds"))
        served.terminate()
    found = {
        "the page of runs, until its first byte": [first],
        "another one": again,
        "after a change": changed,
    }
    print(f"  {'the load of the last minute':<44}{os.getloadavg()[0]:9.1f})")
    return [
        report(f"{work}{', the best' if len(took) > 1 else ''}", 1000 * min(times), unit, 200)
        for work, took in found.items()
        for unit, times in (
            ("ms CPU", [each.cpu for each in took]),
            ("ms wall", [each.wall for each in took]),
        )
    ]


def answer(server: int, address: str) -> Cost:
    """Return what a server takes until it begins to answer."""
    process = psutil.Process(server)
    before, begin = process.cpu_times(), time.perf_counter()
    with urllib.request.urlopen(address) as found:
        found.read(1)
        wall, after = time.perf_counter() - begin, process.cpu_times()
    return Cost(after.user + after.system - before.user - before.system, wall)


FILL = """
import os, sys
from dataclasses import replace
from skelebot.runs import store
opened = store.opened()
(run,) = opened.find(last=1)
opened.add([replace(run, uid=os.urandom(16).hex()) for _ in range(int(sys.argv[1]))])
"""

ETA = """
import time
from skelebot.runs import estimate, places, store, worker
opened, took = store.opened(), []
with worker._registered(opened, worker.Plan(None, {places.HERE: 8})):
    for _ in range(7):
        before = time.process_time()
        found = estimate.of(opened, None)
        took.append(time.process_time() - before)
assert found.slots == 8 and found.left and len(found.ends) > 10_000
print(1000 * min(took))
"""


def sweeping(folder: str, env: dict[str, str]) -> list[bool]:
    """A sweep of a thousand trials, and of one, each in a store of its own."""
    params = "params: [{name: x, type: int, default: 0}]"
    path = project(folder, "sweep", 300, TRIVIAL.replace("help:", f"{params}, help:"))
    found = []
    for most in (1, 1000):
        took = []
        for i in range(3):
            own = {**env, "SKELEBOT_STORE": os.path.join(folder, f"store-{most}-{i}")}
            cost((*SKELEBOT, "queue", "trivial"), path, own)
            took.append(cost((*SKELEBOT, "queue", "--sweep", f"x=1..{most}", "trivial"), path, own).cpu)
        found.append(min(took))
    print("a sweep, queued:")
    return [report("1,000 trials by sweep queued, over the first", found[1] - found[0], "s CPU", 1)]


def studying(env: dict[str, str]) -> list[bool]:
    """An Optuna study of 200 trials, made anew from the rows of the store."""
    done = subprocess.run((sys.executable, "-c", STUDY), env=env, check=True, capture_output=True, text=True)
    if not done.stdout:
        print(f"  {'an Optuna study rebuilt from 200 rows':<44} is left out: Optuna is not installed")
        return []
    return [report("an Optuna study rebuilt from 200 rows", float(done.stdout), "ms CPU", 50)]


STUDY = """
import time
from skelebot.project import sweep
from skelebot.runs import sampler
from skelebot.runs.sampler import Row
from skelebot.runs.trial import Goal
try:
    import optuna
    optuna.samplers.TPESampler()  # what it imports late
except ImportError:
    raise SystemExit(0)
domains = {"x": sweep.domain("0.0..1"), "n": sweep.domain("1..100"), "c": ("a", "b")}
rows = [
    Row({"x": f"{i / 200}", "n": f"{i % 100 + 1}", "c": "ab"[i % 2]}, "COMPLETE", i / 7 % 1)
    for i in range(200)
]
took = []
for _ in range(3):
    begin = time.process_time()
    sampler.study(domains, rows, Goal("loss", False), 1)
    took.append(1000 * (time.process_time() - begin))
print(min(took))
"""


def docker(folder: str, env: dict[str, str], image: str) -> list[bool]:
    """Trivial runs in Docker, and `docker run` of the same image in turns. In wall time: the engine works."""
    text = TRIVIAL.replace(", native: always", "").replace("jobs:", f"baseImage: {image}\njobs:")
    path, runs, rounds = project(folder, "docker", 3, text), 8, 5
    cost((*SKELEBOT, "queue", "--now", "trivial"), path, env)
    direct = ("bash", "-c", f"for i in $(seq {runs}); do docker run --rm --init benchmark:latest true; done")
    over = []
    for _ in range(rounds):
        for _ in range(runs):
            cost((*SKELEBOT, "queue", "trivial"), path, env)
        worker = (*SKELEBOT, "worker", "--drain")
        whole, empty = cost(worker, path, env).wall, cost(worker, path, env).wall
        over.append((whole - empty - cost(direct, path, env).wall) / runs)
    print(f"{runs} trivial runs in Docker, one worker:")
    return [report("a run, over docker run", 1000 * sorted(over)[rounds // 2], "ms", 60)]


# --- the others ---


def others(folder: str, env: dict[str, str]) -> None:
    print("the same work by others, each trivial run:")
    for name, measure in (("GNU parallel -j 2", parallel), ("Hydra multirun", hydra), ("DVC queue", dvc)):
        took = measure(folder, env)
        if took is None:
            print(f"  {name:<44} is not installed")
        else:
            print(f"  {name:<44}{1000 * took.cpu:9.1f} ms CPU, {took.wall:.3f} s")


def each(took: Cost, runs: int) -> Cost:
    return Cost(took.cpu / runs, took.wall / runs)


def parallel(folder: str, env: dict[str, str]) -> Cost | None:
    if not shutil.which("parallel"):
        return None
    words = ("bash", "-c", "seq 100 | parallel --will-cite -j 2 true")
    return each(cost(words, folder, env, 2), 100)


def hydra(folder: str, env: dict[str, str]) -> Cost | None:
    python = os.environ.get("HYDRA_PYTHON")
    if not python:
        return None
    path = os.path.join(folder, "hydra")
    os.makedirs(path)
    with open(os.path.join(path, "app.py"), "w", encoding="utf-8") as file:
        file.write("import hydra\n@hydra.main(version_base=None)\ndef main(config): pass\nmain()\n")
    values = ",".join(map(str, range(20)))
    return each(cost((python, "app.py", "-m", f"+x={values}"), path, env), 20)


def dvc(folder: str, env: dict[str, str]) -> Cost | None:
    if not shutil.which("dvc"):
        return None
    path = project(folder, "dvc", 3)
    with open(os.path.join(path, "dvc.yaml"), "w", encoding="utf-8") as file:
        file.write("stages:\n  trivial:\n    cmd: 'true'\n    params: [x]\n")
    with open(os.path.join(path, "params.yaml"), "w", encoding="utf-8") as file:
        file.write("x: 1\n")
    own = {**env, "DVC_NO_ANALYTICS": "1", "GIT_AUTHOR_NAME": "b", "GIT_AUTHOR_EMAIL": "b@example.org"}
    own |= {"GIT_COMMITTER_NAME": "b", "GIT_COMMITTER_EMAIL": "b@example.org"}
    own.pop("PYTHONPATH")
    steps: tuple[tuple[str, ...], ...] = (
        ("dvc", "init", "-q"),
        ("git", "add", "-A"),
        ("git", "commit", "-qm", "x"),
    )
    for step in steps:
        cost(step, path, own)
    runs = 4
    cost(("dvc", "exp", "run", "--queue", "-S", "x=1,2,3,4"), path, own)
    return each(cost(("dvc", "exp", "run", "--run-all", "-j", "2"), path, own), runs)


if __name__ == "__main__":
    sys.exit(main())
