"""Kill workers and supervisors at random while a queue is worked off: nothing is lost, nothing runs twice.

usage: python tests/kill_runs.py [TASKS [KILLS [SEED]]] [docker]

TASKS: how many there are, three for each run. KILLS: how many workers, and how many supervisors, get SIGKILL.
With `docker`, they run in containers of $SKELEBOT_TEST_BASE, and so many of the engine's clients get it, too.
It exits with 1 if a task did not end, ended or started twice, or ran beside itself, and if a process is left.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import skelebot

LINKS = 3

PROJECT = """
name: kills
baseImage: {0}
jobs:
"""
# A line is written whole, whoever else writes.
JOB = """
- name: job{0}
  source: 'echo "start $1 {0} $$" >>trace/trace; sleep 0.2; echo "end $1 {0} $$" >>trace/trace'
  native: {1}
  mappings: ["trace/:rw"]
  args: [{{name: id}}]
  help: Takes a moment
"""


class Kills:
    """A queue in a folder, whose workers and supervisors are killed."""

    def __init__(self, top: Path, runs: int, seed: int, in_docker: bool) -> None:
        self.root, self.runs, self.in_docker = top / "project", runs, in_docker
        self.random = random.Random(seed)
        self.trace = self.root / "trace/trace"
        self.trace.parent.mkdir(parents=True)
        self.trace.touch()
        base = os.environ["SKELEBOT_TEST_BASE"] if in_docker else "none"
        native = "never" if in_docker else "always"
        text = PROJECT.format(base) + "".join(JOB.format(link, native) for link in range(LINKS))
        (self.root / "skelebot.yaml").write_text(text)
        source = os.path.dirname(os.path.dirname(skelebot.__file__))
        self.env = {**os.environ, "SKELEBOT_STORE": str(top / "store"), "PYTHONPATH": source}

    def skelebot(self, *words: str) -> str:
        argv = (sys.executable, "-m", "skelebot", *words)
        return subprocess.run(
            argv, cwd=self.root, env=self.env, check=True, capture_output=True, text=True
        ).stdout

    def start_worker(self) -> "subprocess.Popen[bytes]":
        argv = (sys.executable, "-m", "skelebot", "worker", "-j", "3", "--drain")
        return subprocess.Popen(argv, cwd=self.root, env=self.env, stderr=subprocess.DEVNULL)

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("worker", "supervisor", *(["client"] if self.in_docker else []))

    def queue(self) -> None:
        for run in range(self.runs):
            self.skelebot("queue", *" + ".join(f"job{link} {run}" for link in range(LINKS)).split())

    def kill(self, kills: int) -> Counter[str]:
        """Kill so many of each kind, as far as there is still something to do for them."""
        killed: Counter[str] = Counter()
        while min(killed[kind] for kind in self.kinds) < kills:
            worker = self.start_worker()
            _wait_for_work(worker)
            time.sleep(self.random.uniform(0, 0.4))
            if worker.poll() is not None:
                break
            for pid in _children(worker.pid):
                clients = _children(pid) if self.in_docker else []
                victims = [*(("client", each) for each in clients), ("supervisor", pid)]
                for kind, victim in victims:
                    if self.random.random() < 0.5:
                        with suppress(ProcessLookupError):
                            os.kill(victim, signal.SIGKILL)
                            killed[kind] += 1
            time.sleep(self.random.uniform(0, 0.2))  # in which it may go on with their runs
            worker.kill()
            worker.wait()
            killed["worker"] += 1
        return killed

    def finish(self) -> None:
        """Work off the rest."""
        assert self.start_worker().wait() == 0

    def wrong(self) -> dict[str, int]:
        """Return how often each thing happened that must not."""
        events = [line.split() for line in self.trace.read_text().splitlines()]
        count = Counter((kind, run, link) for kind, run, link, _ in events)
        tasks = [(str(run), str(link)) for run in range(self.runs) for link in range(LINKS)]
        runs = json.loads(self.skelebot("runs", "--json", "--last", str(self.runs)))
        return {
            "lost": sum(count["end", task[0], task[1]] == 0 for task in tasks)
            + sum(r["state"] != "done" for r in runs),
            "twice": sum(
                max(count["start", task[0], task[1]], count["end", task[0], task[1]]) > 1 for task in tasks
            ),
            "beside itself": _overlaps(events),
            "left behind": sum(self._is_left(pid) for pid in _processes()) + self._containers(),
        }

    def _containers(self) -> int:
        """Count the containers that are left."""
        if not self.in_docker:
            return 0
        words = ("docker", "ps", "-aq", "--filter", "label=skelebot.project=kills")
        return len(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())

    def _is_left(self, pid: int) -> bool:
        with suppress(OSError):
            return os.fsencode(self.env["SKELEBOT_STORE"]) in Path(f"/proc/{pid}/environ").read_bytes()
        return False

    def clean(self) -> None:
        """Remove the images."""
        if self.in_docker:
            self.skelebot("runs", "gc", "--older", "0s")
            subprocess.run(("docker", "rmi", "-f", "kills"), check=False, capture_output=True)


def _wait_for_work(worker: "subprocess.Popen[bytes]") -> None:
    while worker.poll() is None and not _children(worker.pid):
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]


def _overlaps(events: list[list[str]]) -> int:
    """Count how often a task of a run began while one of the same run was still running."""
    running: set[str] = set()
    count = 0
    for kind, run, _, _ in events:
        if kind == "start":
            count += run in running
            running.add(run)
        else:
            running.discard(run)
    return count


def main(in_docker: bool, tasks: int = 50, kills: int = 5, seed: int = 1) -> int:
    with tempfile.TemporaryDirectory(prefix="skelebot-kills-") as top:
        trial = Kills(Path(top), -(-tasks // LINKS), seed, in_docker)
        trial.queue()
        killed = trial.kill(kills)
        trial.finish()
        wrong = trial.wrong()
        trial.clean()
    print(
        f"{trial.runs * LINKS} tasks, killed {', '.join(f'{killed[kind]} {kind}s' for kind in trial.kinds)}"
    )
    print(", ".join(f"{count} {what}" for what, count in wrong.items()))
    if min(killed[kind] for kind in trial.kinds) < kills:
        print("the queue was worked off before all were killed: give it more tasks")
        return 2
    return int(any(wrong.values()))


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word != "docker"]
    sys.exit(main("docker" in sys.argv[1:], *numbers))
