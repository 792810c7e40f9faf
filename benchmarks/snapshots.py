"""What it costs to keep the code of a run, and to have it back.

usage: python benchmarks/snapshots.py [FILES...]

Makes a folder of small files for each number (10, 300 and 10,000 unless given) and prints wall and CPU time,
children included. The walk through the folder is part of a snapshot.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable

from skelebot.image.context import walk
from skelebot.image.ignores import Ignores
from skelebot.runs import snapshot

ROUNDS = 5
LIMITS = {300: 0.05, 10_000: 0.5}  # seconds of a snapshot again


def make(root: str, count: int) -> None:
    for number in range(count):
        folder = os.path.join(root, f"part{number // 100}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"file{number}.py"), "w", encoding="ascii") as file:
            file.write("".join(f"value_{line} = {number * line}\n" for line in range(100)))


def cpu_time() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(
    what: str, action: Callable[[int], object], rounds: int = ROUNDS, limit: float | None = None
) -> None:
    """Print the least of several times."""
    walls, cpus = [], []
    for number in range(rounds):
        wall, cpu = time.perf_counter(), cpu_time()
        action(number)
        walls.append(time.perf_counter() - wall)
        cpus.append(cpu_time() - cpu)
    promise = f"   must be below {limit * 1000:.0f}" if limit else ""
    print(f"  {what:34}{min(walls) * 1000:9.1f} ms wall{min(cpus) * 1000:9.1f} ms CPU{promise}")


def measure(count: int) -> None:
    print(f"{count} files")
    with tempfile.TemporaryDirectory() as top:
        root, store, cache = (os.path.join(top, name) for name in ("project", "store", "cache"))
        os.mkdir(cache)
        make(root, count)
        time.sleep(2.1)  # what has only just changed is read again
        trees: list[str] = []

        def take(_: int = 0) -> None:
            trees.append(snapshot.take(store, walk(root, Ignores(())), cache))

        def change(number: int) -> None:
            with open(os.path.join(root, "part0", "file0.py"), "a", encoding="ascii") as file:
                file.write(f"# {number}\n")
            take()

        timed("the first snapshot", take, 1)
        timed("again, unchanged", take, limit=LIMITS.get(count))
        timed("again, one file changed", change)
        timed("keep", lambda number: snapshot.keep(store, trees[-1], f"run{number}"))
        timed("contents", lambda _: snapshot.contents(store, trees[-1]))
        timed("difference", lambda _: snapshot.difference(store, trees[0], trees[-1]))
        timed("restore", lambda n: snapshot.restore(store, trees[-1], os.path.join(top, f"out{n}")), 3)
        timed("collect", lambda _: snapshot.collect(store, 0), 1)
        timed("restore, packed by git", lambda n: snapshot.restore(store, trees[-1], f"{top}/packed{n}"), 3)


for argument in sys.argv[1:] or ["10", "300", "10000"]:
    measure(int(argument))
