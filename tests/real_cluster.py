"""A real Kubernetes cluster (tests/cluster.sh): a namespace for each test, faults, what is left there."""

import contextlib
import fcntl
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from harness import CLUSTER, Sandbox, wait_for

SCRIPT = Path(__file__).with_name("cluster.sh")
LOGIN, _, REGISTRY = os.environ.get("SKELEBOT_TEST_CLUSTER_REGISTRY", "@localhost:5001").rpartition("@")
CONTEXT = "test"

# What a run may have on the cluster, and the API that lists it.
KINDS = {
    "jobs": "apis/batch/v1",
    "cronjobs": "apis/batch/v1beta1",
    "pods": "api/v1",
    "secrets": "api/v1",
    "configmaps": "api/v1",
    "persistentvolumeclaims": "api/v1",
}
_NOT_OURS = ("kubernetes.io/service-account-token", "kubernetes.io/dockerconfigjson")


class Answer(NamedTuple):
    status: int
    data: Any


def ask(method: str, path: str, body: Any = None, kind: str = "application/json") -> Answer:
    """The API server's answer to the administrator."""
    settings = yaml.safe_load(Path(CLUSTER).read_text())
    cluster = settings["clusters"][0]["cluster"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    host = cluster["server"].removeprefix("https://")
    connection = HTTPSConnection(host, timeout=30, context=context)
    headers = {"Authorization": f"Bearer {settings['users'][0]['user']['token']}", "Content-Type": kind}
    with contextlib.closing(connection):
        connection.request(method, f"/{path}", None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return Answer(answer.status, json.loads(answer.read() or b"null"))


def done(method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
    """The same, which must succeed."""
    answer = ask(method, path, body, kind)
    assert answer.status < 300, (path, answer)
    return answer.data


@dataclass(frozen=True)
class Namespace:
    """One test's part of the cluster, and the sandbox of a caller who works there."""

    name: str
    sandbox: Sandbox

    @property
    def place(self) -> str:
        return f"k8s://{CONTEXT}/{self.name}"

    @property
    def kubeconfig(self) -> Path:
        return Path(self.sandbox.env["KUBECONFIG"])

    def path(self, kind: str, name: str = "", part: str = "") -> str:
        return "/".join(filter(None, (KINDS.get(kind, "api/v1"), "namespaces", self.name, kind, name, part)))

    def make(self, kind: str, name: str, **content: Any) -> None:
        done("POST", self.path(kind), {"metadata": {"name": name}, **content})

    def all(self, kind: str) -> list[Any]:
        items: list[Any] = done("GET", self.path(kind))["items"]
        return items

    def delete(self, kind: str, name: str, **options: Any) -> None:
        done("DELETE", self.path(kind, name), {"propagationPolicy": "Background", **options})

    def evict(self, pod: str) -> None:
        body = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": pod}}
        done("POST", self.path("pods", pod, "eviction"), body)

    def pod(self, seconds: float = 60) -> Any:
        """The only pod, once it is there."""
        wait_for(lambda: self.all("pods"), seconds)
        (found,) = self.all("pods")
        return found

    def state(self, container: str) -> str:
        """What a container of the only pod does: waiting, running, terminated; or nothing yet."""
        status: Any = next(iter(self.all("pods")), {"status": {}})["status"]
        several = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
        return next((key for each in several if each["name"] == container for key in each["state"]), "")

    def run_in_job(self, *words: str) -> int:
        """Run a program in the only pod's job, and give its exit code."""
        pods = [each["metadata"]["name"] for each in self.all("pods")]
        argv = ("kubectl", "exec", "-n", self.name, *pods, "-c", "job", "--", *words)
        with self.sandbox.popen(*argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as done:
            return done.wait(60)

    def touch(self, path: str) -> None:
        """Make an empty file that the running job waits for; it may end at once, and `touch` with it."""
        wait_for(lambda: self.run_in_job("touch", path) == 0 or self.state("job") != "running")

    def has(self, path: str) -> bool:
        """Whether the job has made a file in its folder."""
        return bool(self.all("pods")) and self.run_in_job("test", "-e", path) == 0

    def left(self) -> dict[str, list[str]]:
        """What is there that a run has made."""
        found = {kind: [each for each in self.all(kind) if is_of_a_run(kind, each)] for kind in KINDS}
        names = {kind: [each["metadata"]["name"] for each in several] for kind, several in found.items()}
        return {kind: several for kind, several in names.items() if several}

    def as_user(self, user: str, *rules: Mapping[str, list[str]]) -> "Namespace":
        """A caller who has these rights in the namespace, and no other."""
        rbac = "apis/rbac.authorization.k8s.io/v1"
        role, within = f"of-{user}", f"{rbac}/namespaces/{self.name}"
        done("POST", f"{within}/roles", {"metadata": {"name": role}, "rules": list(rules)})
        subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
        ref = {"kind": "Role", "name": role, "apiGroup": "rbac.authorization.k8s.io"}
        done(
            "POST",
            f"{within}/rolebindings",
            {"metadata": {"name": role}, "subjects": [subject], "roleRef": ref},
        )
        settings = yaml.safe_load(self.kubeconfig.read_text())
        settings["users"][0]["user"]["as"] = user
        path = self.sandbox.write(f"../home/{user}.kubeconfig", json.dumps(settings))
        return replace(self, sandbox=self.sandbox.with_env(KUBECONFIG=str(path.resolve())))

    def through(self, port: int) -> "Namespace":
        """A caller who reaches the API server by another port of this machine."""
        settings = yaml.safe_load(self.kubeconfig.read_text())
        settings["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        path = self.sandbox.write(f"../home/{port}.kubeconfig", json.dumps(settings))
        return replace(self, sandbox=self.sandbox.with_env(KUBECONFIG=str(path.resolve())))


def is_of_a_run(kind: str, found: Any) -> bool:
    if kind == "pods" and "deletionTimestamp" in found["metadata"]:
        # Nothing of it runs any more; the node, which collects once a minute, may remove it later.
        statuses = found["status"].get("containerStatuses", ())
        return any("running" in each["state"] for each in statuses)
    if kind == "configmaps":
        return bool(found["metadata"]["name"] != "kube-root-ca.crt")
    return found.get("type") not in _NOT_OURS


# --- a namespace for each test ---


@contextlib.contextmanager
def namespace(sandbox: Sandbox) -> Iterator[Namespace]:
    """A new namespace whose pods may pull from the registry, and its administrator, logged in there."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    settings = yaml.safe_load(Path(CLUSTER).read_text())
    settings["contexts"][0]["name"] = settings["current-context"] = CONTEXT
    path = sandbox.write("../home/kubeconfig", json.dumps(settings)).resolve()
    own = Namespace(name, sandbox.with_env(KUBECONFIG=str(path)))
    log_in(own)
    done("POST", "api/v1/namespaces", {"metadata": {"name": name}})
    try:
        make_pull_secret(own, "pull", LOGIN)
        pull = {"imagePullSecrets": [{"name": "pull"}]}
        account = own.path("serviceaccounts", "default")
        wait_for(lambda: ask("GET", account).status == 200)
        done("PATCH", account, pull, "application/merge-patch+json")
        yield own
    finally:
        done("DELETE", f"api/v1/namespaces/{name}")
        for pod in own.all("pods"):  # not the grace of each
            with contextlib.suppress(AssertionError):
                own.delete("pods", pod["metadata"]["name"], gracePeriodSeconds=0)


def log_in(own: Namespace) -> None:
    """Store the login for the registry, as `docker login` does."""
    auth = b64encode(LOGIN.encode()).decode()
    own.sandbox.write("../home/.docker/config.json", json.dumps({"auths": {REGISTRY: {"auth": auth}}}))


def make_pull_secret(own: Namespace, name: str, login: str) -> None:
    auths = {"auths": {REGISTRY: {"auth": b64encode(login.encode()).decode()}}}
    data = {".dockerconfigjson": b64encode(json.dumps(auths).encode()).decode()}
    own.make("secrets", name, type="kubernetes.io/dockerconfigjson", data=data)


def keys(settings: str = "") -> str:
    """The keys of `components` in YAML: the cluster's registry, and settings of `cluster`."""
    host, _, port = REGISTRY.partition(":")
    return f"{{registry: {{host: {host}, port: {port}, user: team}}, cluster: {{{settings}}}}}"


def begin_run(space: Namespace, schedule: str, suffix: str) -> str:
    """Have the schedule begin a run, as `kubectl create job --from` does; gives its name."""
    (cron_job,) = (each for each in space.all("cronjobs") if each["metadata"]["name"] == schedule)
    template, about = cron_job["spec"]["jobTemplate"], cron_job["metadata"]
    owner = {"apiVersion": "batch/v1beta1", "kind": "CronJob", "name": schedule, "uid": about["uid"]}
    name = f"{schedule}-{suffix}"
    metadata = {**template["metadata"], "name": name, "ownerReferences": [owner]}
    done("POST", space.path("jobs"), {"metadata": metadata, "spec": template["spec"]})
    return name


def forbid_pulling(own: Namespace) -> None:
    """Give all pods a wrong login for the registry."""
    make_pull_secret(own, "wrong", "tester:wrong")
    secrets = {"imagePullSecrets": [{"name": "wrong"}]}
    done("PATCH", own.path("serviceaccounts", "default"), secrets, "application/merge-patch+json")


def assert_nothing_left(own: Namespace) -> None:
    """Nothing of a run is on the cluster (deleting takes a moment), and no kubectl of it runs here."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not own.left(), 60)
    assert own.left() == {}, (own.left(), own.all("jobs"), own.all("pods"))
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not clients(own), 5)
    assert clients(own) == [], clients(own)


def clients(own: Namespace) -> list[str]:
    """The command lines of the kubectls that run for this test's callers."""
    home = f"KUBECONFIG={own.kubeconfig.parent}/".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"kubectl") and home in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(b" ".join(words).decode())
    return found


# --- faults ---


@contextlib.contextmanager
def turn(alone: bool) -> Iterator[None]:
    """Use the cluster beside others; or alone, as what restarts a part of it would disturb them."""
    folder = Path(tempfile.gettempdir())
    with open(folder / "skelebot-test-cluster.lock", "w") as lock:
        with open(folder / "skelebot-test-cluster.gate", "w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)  # whoever waits to be alone lets nobody else begin
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def restart_api(seconds: float = 0) -> None:
    """End the API server as an administrator does."""
    _script("--restart-api", str(seconds))


def kill_api(seconds: float = 0) -> None:
    _script("--kill-api", str(seconds))


def restart_kubelet() -> None:
    _script("--restart-kubelet")


def _script(*words: str) -> None:
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


class Forwarder:
    """A port that leads to the API server, and can go silent: connections stay open, and nothing passes."""

    def __init__(self) -> None:
        settings = yaml.safe_load(Path(CLUSTER).read_text())
        host, _, port = settings["clusters"][0]["cluster"]["server"].removeprefix("https://").partition(":")
        self._target = (host, int(port))
        self._flows = threading.Event()
        self._flows.set()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Forwarder":
        return self

    def __exit__(self, *error: object) -> None:
        self._flows.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # otherwise `accept` would still take one
        self._listener.close()
        self.cut()

    def be_silent(self, seconds: float) -> None:
        """Pass nothing for this long, then break what was open."""
        self._flows.clear()
        time.sleep(seconds)
        self.cut()
        self._flows.set()

    def cut(self) -> None:
        """Break all connections that there are."""
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._ends.append(near)
        self._flows.wait()
        with contextlib.suppress(OSError):
            far = socket.create_connection(self._target)
            self._ends.append(far)
            threading.Thread(target=self._pass, args=(near, far), daemon=True).start()
            self._pass(far, near)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
