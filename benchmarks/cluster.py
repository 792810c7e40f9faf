"""What a job on a Kubernetes cluster costs, beside kubectl, measured in one run.

usage: python benchmarks/cluster.py K8S://CONTEXT/NAMESPACE REGISTRY [ROUNDS]

REGISTRY: `host:port` from which the cluster pulls, with a login of `docker login` where it needs one. The
image is built from SKELEBOT_TEST_BASE, or python:3.11-slim. Both sides take turns, and a figure is the median
of the rounds' (default: 5) differences or ratios; in brackets the least. Leaves nothing on the cluster.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SKELEBOT = (sys.executable, "-m", "skelebot")
BASE = os.environ.get("SKELEBOT_TEST_BASE") or "python:3.11-slim"
SIZE = 100 << 20  # bytes of files, each way
LINES = 60

# Each line is the time at which it was written.
TICKS = f"import time; [(time.sleep(0.05), print(time.time(), flush=True)) for _ in range({LINES})]"


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    place, registry, rounds = sys.argv[1], sys.argv[2], int((*sys.argv, "5")[3])
    with tempfile.TemporaryDirectory() as folder:
        write_project(folder, registry)
        at = (*SKELEBOT, "-d", place)
        run(folder, *at, "empty")  # the image is there from now on
        shown = output(folder, *at, "cluster", "manifest", "empty")
        image = next(line.split("image: ")[1] for line in shown.splitlines() if "image: " in line)
        kubectl = Kubectl(folder, place, image)
        reached = [
            an_empty_job(folder, at, kubectl, shown, rounds),
            submitting(folder, place, kubectl, rounds),
            files(folder, at, kubectl, rounds),
            lines(folder, at),
        ]
    return 0 if all(reached) else 1


def report(work: str, found: list[float], unit: str, limit: float, at_least: bool = False) -> bool:
    figure, best = statistics.median(found), (max if at_least else min)(found)
    is_reached = figure >= limit if at_least else figure <= limit
    bound = "at least" if at_least else "at most"
    print(
        f"{work:<46}{figure:8.2f} ({best:.2f}) {unit:<12}{bound} {limit:g}{'' if is_reached else '   MISSED'}"
    )
    return is_reached


# --- programs ---


def run(folder: str, *words: str, text: str | None = None) -> float:
    """Return how many seconds a program takes. Raises CalledProcessError when it fails."""
    begin = time.perf_counter()
    subprocess.run(
        words, cwd=folder, env=environment(), input=text, text=True, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - begin


def output(folder: str, *words: str) -> str:
    done = subprocess.run(
        words, cwd=folder, env=environment(), check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    return done.stdout.decode()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": HERE}


class Kubectl:
    """What a user does without Skelebot: a Job of one container, with kubectl."""

    def __init__(self, folder: str, place: str, image: str) -> None:
        context, _, namespace = place.removeprefix("k8s://").partition("/")
        context_words = ("--context", context) if context else ()
        self.words = ("kubectl", *context_words, "--namespace", namespace or "default")
        self.folder, self.image, self.name = folder, image, f"benchmark-{os.getpid()}"
        pod = {"containers": [{"name": "job", "image": image, "command": ["true"]}], "restartPolicy": "Never"}
        spec = {"backoffLimit": 0, "template": {"spec": pod}}
        about = {"name": self.name}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": spec}
        self.manifest = json.dumps(job)

    def __call__(self, *words: str, text: str | None = None) -> float:
        return run(self.folder, *self.words, *words, text=text)

    def create(self) -> float:
        return self("create", "-f", "-", text=self.manifest)

    def wait(self) -> None:
        """Wait until the Job has succeeded."""
        path = f"jobs/{self.name}"
        while "1" not in output(self.folder, *self.words, "get", path, "-o", "jsonpath={.status.succeeded}"):
            time.sleep(0.02)

    def run_whole(self, manifest: str) -> float:
        """Return how long a Job takes whose pod is like ours, until its job has ended."""
        name = next(line.split()[1] for line in manifest.splitlines() if line.startswith("  name: "))
        ended = "jsonpath={.items[*].status.containerStatuses[?(@.name=='job')].state.terminated.exitCode}"
        begin = time.perf_counter()
        self("create", "-f", "-", text=manifest)
        while "0" not in output(
            self.folder, *self.words, "get", "pods", "-l", f"job-name={name}", "-o", ended
        ):
            time.sleep(0.02)
        took = time.perf_counter() - begin
        self("delete", "job", name)
        self(
            "delete", "pods", "-l", f"job-name={name}", "--ignore-not-found", "--now"
        )  # the next has its name
        return took

    def run_plain(self) -> float:
        """Return how long a Job of one container takes."""
        begin = time.perf_counter()
        self.create()
        self.wait()
        took = time.perf_counter() - begin
        self.delete()
        return took

    def delete(self) -> float:
        return self("delete", "job", self.name)


# --- the rows ---


def write_project(folder: str, registry: str) -> None:
    host, _, port = registry.partition(":")
    jobs = {"empty": "true", "ticks": f"python3 -uc {json.dumps(TICKS)}", "copy": "cp -r sent brought/"}
    mappings = {"copy": ", mappings: ['sent/:ro', 'brought/']"}
    for name, source in jobs.items():
        with open(os.path.join(folder, f"{name}.sh"), "w", encoding="utf-8") as file:
            file.write(source + "\n")
    lines = [
        "name: benchmark",
        f"baseImage: {BASE}",
        "components:",
        f"  registry: {{host: {host}{f', port: {port}' if port else ''}, user: benchmark}}",
        "  cluster: {keep: 1h}",
        "ignores: [sent/, brought/]",
        "jobs:",
        *(f"- {{name: {n}, source: {n}.sh, help: One{mappings.get(n, '')}}}" for n in jobs),
    ]
    with open(os.path.join(folder, "skelebot.yaml"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def an_empty_job(folder: str, at: tuple[str, ...], kubectl: Kubectl, manifest: str, rounds: int) -> bool:
    """The whole command, over `kubectl create` of what it makes, and the life of that pod."""
    own, whole, plain = [], [], []
    for _ in range(rounds):
        own.append(run(folder, *at, "empty"))
        whole.append(kubectl.run_whole(manifest))
        plain.append(kubectl.run_plain())
    took = [statistics.median(each) for each in (own, whole, plain)]
    print("an empty job {:.2f} s; kubectl, the same pod {:.2f} s, of one container {:.2f} s".format(*took))
    more = [a - b for a, b in zip(own, whole, strict=True)]
    return report("an empty job, over kubectl create and its pod", more, "s", 0.5)


SUBMIT = """
import json, os, sys, time
from skelebot.model import Place
from skelebot.runners.kubernetes.client import Client
client, job = Client(Place.at(sys.argv[1])), json.load(sys.stdin)
client.list("jobs")  # the connection is there
for number in range(5):
    job["metadata"]["name"] = name = f"benchmark-{os.getpid()}-{number}"
    begin = time.perf_counter()
    client.create("jobs", job)
    print(time.perf_counter() - begin)
    client.delete("jobs", name)
"""


def submitting(folder: str, place: str, kubectl: Kubectl, rounds: int) -> bool:
    """One job of several, as a chain or a worker submits them."""
    ratios = []
    for _ in range(rounds):
        other = kubectl.create()
        kubectl.delete()
        words = (sys.executable, "-c", SUBMIT, place)
        done = subprocess.run(
            words, input=kubectl.manifest.encode(), env=environment(), check=True, stdout=subprocess.PIPE
        )
        ratios.append(statistics.median(map(float, done.stdout.split())) / other)
    return report("submit alone, to kubectl create", ratios, "times", 0.35)


def files(folder: str, at: tuple[str, ...], kubectl: Kubectl, rounds: int) -> bool:
    """Large files there and back, to `tar` through `kubectl exec` in a pod that waits."""
    pod = waiting_pod(folder, kubectl)
    ratios = []
    try:
        for _ in range(rounds):
            fill(folder)
            plain = run(folder, *at, "empty")
            own = run(folder, *at, "copy") - plain
            exchanged = both_ways(folder, kubectl, pod)
            ratios.append(exchanged / own)
    finally:
        kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    return report(f"{SIZE >> 20} MiB there and back, to tar", ratios, "times", 0.8, at_least=True)


def fill(folder: str) -> None:
    """New files in `sent`, and nothing in `brought`."""
    for name in ("sent", "brought"):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
        os.makedirs(os.path.join(folder, name))
    for number in range(10):
        with open(os.path.join(folder, "sent", str(number)), "wb") as file:
            file.write(os.urandom(SIZE // 10))


def waiting_pod(folder: str, kubectl: Kubectl) -> str:
    """A pod of the same image that only waits."""
    name = kubectl.name
    kubectl("run", name, f"--image={kubectl.image}", "--restart=Never", "--command", "--", "sleep", "3600")
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
    return name


def both_ways(folder: str, kubectl: Kubectl, pod: str) -> float:
    there = "tar -c sent | {} exec -i {} -- sh -c 'rm -rf /tmp/sent && tar -x -C /tmp'"
    back = "{} exec {} -- tar -c -C /tmp sent | tar -x -C brought"
    words = [" ".join(kubectl.words), pod]
    return sum(run(folder, "bash", "-c", f"set -o pipefail; {each.format(*words)}") for each in (there, back))


def lines(folder: str, at: tuple[str, ...]) -> bool:
    """How long after it was written a line is here. The clocks must agree, as on one machine."""
    late = []
    words = (*at, "ticks")
    with subprocess.Popen(words, cwd=folder, env=environment(), stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdout
        while line := child.stdout.readline():
            late.append(1000 * (time.time() - float(line)))
    return report("a line, after it was written", late, "ms", 50)


if __name__ == "__main__":
    sys.exit(main())
