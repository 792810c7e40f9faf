"""What stands beside a job on a cluster, and pods that it refuses for their user, nodes or volumes."""

import base64
import hashlib
import json
import ssl
import subprocess
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Result, docker, job, project, runs_of, wait_for
from real_cluster import CONTEXT, LOGIN, REGISTRY, Namespace, done, keys

pytestmark = [pytest.mark.engine, pytest.mark.kubernetes]


def write(space: Namespace, name: str, *jobs: str, settings: str = "", **more: str) -> None:
    project(space.sandbox, name, *jobs, components=keys(settings), **more)


def run(space: Namespace, *words: str, **options: Any) -> Result:
    return space.sandbox.run("-d", space.place, *words, **options)


def image_of(space: Namespace, name: str, *jobs: str) -> str:
    """The image of a project, pushed; nothing else is put beside its job."""
    write(space, name, job("true", "first"), *jobs)
    assert run(space, "first").code == 0
    (manifest,) = yaml.safe_load_all(run(space, "cluster", "manifest", "first").out)
    containers = manifest["spec"]["template"]["spec"]["containers"]
    return next(str(each["image"]) for each in containers if each["name"] == "job")


# --- meshes ---

# As Envoy with Istio's agent: ready after a while, and it ends only when it is asked to over HTTP.
ENVOY = """
import http.server, os, signal, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(2)
began = time.time()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.time() - began > 2 else 503)
        self.end_headers()
    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/quitquitquit" and self.server.server_port == 15020:
            os._exit(0)
servers = [http.server.ThreadingHTTPServer(("", port), Handler) for port in (15020, 15021)]
threading.Thread(target=servers[0].serve_forever).start()
servers[1].serve_forever()
"""
ASK = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:15021/healthz/ready').status)"
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(9999)"


def beside(image: str, script: str, **more: Any) -> str:
    container = {"name": "mesh", "image": image, "command": ["python3", "-c", script], **more}
    return f"podSpec: {json.dumps({'containers': [container]})}"


def test_a_job_waits_until_its_proxy_is_ready(space: Namespace, name: str) -> None:
    image = image_of(space, name)
    space.sandbox.write("ask.py", ASK)
    ready = {"httpGet": {"port": 15021, "path": "/healthz/ready"}, "periodSeconds": 1}
    write(space, name, job("ask.py"), settings=beside(image, ENVOY, readinessProbe=ready))
    result = run(space, "run")
    assert (result.code, result.out) == (0, "200\n"), result


@pytest.mark.parametrize("code", [0, 4])
def test_a_job_ends_its_proxy_so_that_its_pod_ends(space: Namespace, name: str, code: int) -> None:
    image = image_of(space, name)
    write(space, name, job(f"sleep 3; exit {code}"), settings=beside(image, ENVOY))
    shown = run(space, "cluster", "manifest", "run").out
    with space.sandbox.popen(
        "kubectl", "apply", "-n", space.name, "-f", "-", stdin=subprocess.PIPE
    ) as applied:
        applied.communicate(shown.encode(), timeout=60)
    assert applied.returncode == 0
    which = "failed" if code else "succeeded"
    wait_for(lambda: space.all("jobs")[0]["status"].get(which) == 1, 120)
    space.delete("jobs", space.all("jobs")[0]["metadata"]["name"])


def test_a_deaf_container_keeps_neither_a_code_nor_results(space: Namespace, name: str) -> None:
    image = image_of(space, name)
    jobs = (
        job("echo r >out/result; exit 4", mappings="[out/]"),
        job("echo r >out/bg; exit 5", "bg", mode="d", mappings="[out/]"),
    )
    write(space, name, *jobs, settings=beside(image, DEAF))
    assert run(space, "run", timeout=120).code == 4
    assert run(space, "bg").code == 0
    assert run(space, "wait", "bg", timeout=120).code == 5
    assert [space.sandbox.read(f"out/{each}") for each in ("result", "bg")] == ["r\n", "r\n"]
    (row,) = json.loads(run(space, "ps", "--json").out)
    assert row["status"] == "exited"
    assert run(space, "clean").code == 0


def test_a_queued_run_ends_with_a_deaf_container(space: Namespace, name: str) -> None:
    image = image_of(space, name)
    write(space, name, job("echo r >out/result", outputs="[out/]"), settings=beside(image, DEAF))
    own = space.sandbox.with_env(SKELEBOT_STORE=str(space.sandbox.root.parent / "store"))
    own.ok("queue", "run")
    worked = own.run("worker", "--drain", "--on", f"k8s://{CONTEXT}/{space.name}=1", timeout=200)
    assert runs_of(own)[1]["state"] == "done", worked


# --- restricted namespaces ---


@pytest.fixture
def restricted(space: Namespace, tmp_path: Path) -> Iterator[Namespace]:
    """A namespace that takes no pod which may run as root.

    Pod Security Admission is not in this cluster: a webhook says what it says.
    https://kubernetes.io/docs/concepts/security/pod-security-admission
    """
    key, cert = tmp_path / "key", tmp_path / "cert"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Admission)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    labels = {"metadata": {"labels": {"name": space.name}}}
    done("PATCH", f"api/v1/namespaces/{space.name}", labels, "application/merge-patch+json")
    bundle = base64.b64encode(cert.read_bytes()).decode()
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    webhook = {
        "name": "restricted.skelebot.test",
        "clientConfig": {"url": f"https://127.0.0.1:{server.server_port}/", "caBundle": bundle},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"name": space.name}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    webhooks = "apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    done("POST", webhooks, {"metadata": {"name": space.name}, "webhooks": [webhook]})
    try:
        yield space
    finally:
        done("DELETE", f"{webhooks}/{space.name}")
        server.shutdown()
        server.server_close()


class Admission(BaseHTTPRequestHandler):
    """https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers"""

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pod = review["request"]["object"]
        allowed = bool(pod["spec"]["securityContext"].get("runAsNonRoot"))
        message = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
        response = {"uid": review["request"]["uid"], "allowed": allowed, "status": {"message": message}}
        answer = json.dumps({**review, "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_restricted_namespace_takes_the_job_as_another_user(restricted: Namespace, name: str) -> None:
    params = "[{name: token, secret: true, default: $TOKEN}]"
    restricted.sandbox.write("data/x", "x")
    write(
        restricted,
        name,
        job("id -u; cat data/x; echo r >out/r; true", mappings="[data/, out/]", params=params),
    )
    own = Namespace(restricted.name, restricted.sandbox.with_env(TOKEN="t"))
    result = run(own, "run")
    assert (result.code, result.out) == (0, "1000\nx"), result
    assert [line for line in result.err.splitlines() if "runs as user 1000" in line] != []
    assert len([line for line in result.err.splitlines() if line.startswith("WARN")]) == 1
    assert restricted.sandbox.read("out/r") == "r\n"


def test_a_user_that_is_named_is_kept_and_root_is_refused(restricted: Namespace, name: str) -> None:
    write(restricted, name, job("id -u"), user='"1234"')
    named = run(restricted, "run")
    assert (named.code, named.out, "WARN" in named.err) == (0, "1234\n", False), named
    write(restricted, name, job("id -u"), user="root")
    root = run(restricted, "run")
    assert (root.code, root.out, len(root.errors)) == (1, "", 1), root
    assert "violates PodSecurity" in root.errors[0]


# --- images and their registry ---


def test_an_image_that_the_registry_no_longer_has_is_pushed_again(space: Namespace, name: str) -> None:
    write(space, name, job("echo ran", schedule='"0 3 * * *"'))
    assert run(space, "deploy", "run").code == 0  # which pushes it, and runs nothing
    (manifest,) = yaml.safe_load_all(run(space, "cluster", "manifest", "run").out)
    image = manifest["spec"]["template"]["spec"]["containers"][0]["image"]
    assert run(space, "undeploy", "run").code == 0
    delete_from_registry(image)
    result = run(space, "run")
    assert (result.code, result.out) == (0, "ran\n"), result
    assert "WARN  | the cluster cannot pull the image of run; it is pushed again" in result.err
    assert "pushed again" not in run(space, "run").err
    delete_from_registry(image)
    assert run(space, "deploy", "run").code == 0
    assert "schemaVersion" in ask_registry("GET", image)
    assert run(space, "undeploy", "run").code == 0


def delete_from_registry(image: str) -> None:
    ask_registry("DELETE", image)


def ask_registry(method: str, image: str) -> str:
    repository, _, digest = image.removeprefix(f"{REGISTRY}/").partition("@")
    headers = {"Authorization": f"Basic {base64.b64encode(LOGIN.encode()).decode()}", "Accept": "*/*"}
    url = f"http://{REGISTRY}/v2/{repository}/manifests/{digest}"
    with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=headers)) as answer:
        return str(answer.read().decode())


# --- nodes and volumes ---


def load_image(name: str, arch: str, folder: Path) -> None:
    """Give the engine an image of a project that is for another architecture, as `docker save` writes it."""
    with tarfile.open(folder / "layer.tar", "w") as layer:
        layer.addfile(tarfile.TarInfo("file"))
    digest = hashlib.sha256((folder / "layer.tar").read_bytes()).hexdigest()
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    (folder / "config.json").write_text(json.dumps({"architecture": arch, "os": "linux", "rootfs": rootfs}))
    manifest = [{"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": ["layer.tar"]}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(folder / "image.tar", "w") as image:
        for each in ("manifest.json", "config.json", "layer.tar"):
            image.add(folder / each, each)
    docker("load", "--input", str(folder / "image.tar"))


@pytest.mark.parametrize("may_list_nodes", [True, False])
def test_an_image_of_another_architecture_is_refused(
    space: Namespace, name: str, tmp_path: Path, may_list_nodes: bool
) -> None:
    load_image(name, "s390x", tmp_path)
    write(space, name, job("true"))
    rules = [rule for each in yaml.safe_load_all(run(space, "cluster", "role").out) for rule in each["rules"]]
    own = space if may_list_nodes else space.as_user("enough", *rules)
    result = run(own, "-s", "run", timeout=150)
    docker("rmi", "--force", f"{name}:latest")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1), result
    assert "its image is for s390x, and no node is" in result.errors[0]
    assert ("they are amd64" in result.errors[0]) is may_list_nodes


def test_a_volume_that_cannot_be_mounted_is_named(space: Namespace, name: str) -> None:
    mounted = {"name": "job", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}
    spec = {"volumes": [{"name": "x", "configMap": {"name": "missing-one"}}], "containers": [mounted]}
    write(space, name, job("true"), settings=f"podSpec: {json.dumps(spec)}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with space.sandbox.start("-d", space.place, "run", **pipes) as child:
        assert child.stderr
        said = b""
        while b"cannot be mounted yet" not in said:
            line = child.stderr.readline()
            assert line, said
            said += line
        assert b"missing-one" in said
        child.terminate()
        child.communicate(timeout=60)
    assert child.returncode == 143
