"""Runs that are mirrored to a real MLflow server: tests/mlflow_server.sh's."""

import json
import os
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import Sandbox, job, project, queueing, run_folder, runs_of

SERVER = os.environ.get("SKELEBOT_TEST_MLFLOW", "")
PYTHON = os.environ.get("SKELEBOT_TEST_MLFLOW_PYTHON", "")


@pytest.fixture(autouse=True)
def _server() -> None:
    if not SERVER:
        reason = "no MLflow server (SKELEBOT_TEST_MLFLOW; see tests/mlflow_server.sh)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def ask(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{SERVER}/api/2.0/mlflow/{path}", data, headers)
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def mirrored(name: str) -> list[dict[str, Any]]:
    """The runs of an experiment, the first one first, with their data as mappings."""
    experiment = ask(f"experiments/get-by-name?experiment_name={name}")["experiment"]["experiment_id"]
    runs = ask("runs/search", {"experiment_ids": [experiment]})["runs"]
    return [
        {
            **run["info"],
            **{
                kind: {each["key"]: each["value"] for each in run["data"].get(kind, ())}
                for kind in ("params", "metrics", "tags")
            },
        }
        for run in reversed(runs)
    ]


def series(run: str, metric: str) -> list[tuple[int, float]]:
    found = ask(f"metrics/get-history?run_id={run}&metric_key={metric}&max_results=5000")["metrics"]
    return sorted((int(each["step"]), each["value"]) for each in found)


def queueing_to(sandbox: Sandbox, name: str, address: str, *jobs: str) -> Sandbox:
    own = queueing(sandbox, *jobs)
    native = (each.replace("help: h", "help: h, native: always") for each in jobs)
    project(own, name, *native, components=f"{{experiments: {{mlflow: '{address}'}}}}")
    return own


MANY = 'for i in $(seq 0 2499); do echo "{\\"loss\\": $i, \\"step\\": $i}"; done >>$SKELEBOT_METRICS'


def test_all_of_a_run_is_there(sandbox: Sandbox, name: str) -> None:
    sandbox.write("train.sh", f'{MANY}\necho \'{{"f1": NaN, "x@y": 1}}\' >>$SKELEBOT_METRICS\nexit 3\n')
    train = job(
        "train.sh",
        "train",
        params="[{name: rate, default: 0.1}, {name: all, accepts: list, default: [a, b]}]",
    )
    own = queueing_to(sandbox, name, SERVER, train)
    own.ok("queue", "--name", "first", "--tag", "best", "--note", "why", "train", "--rate", "2")
    assert own.run("worker", "--drain").code == 1
    (run,) = mirrored(name)
    assert run["status"] == "FAILED"
    assert run["run_name"] == "first"
    assert run["params"] == {"train.rate": "2", "train.all": "a b"}
    assert run["metrics"] == {"loss": 2499, "x_y": 1}
    assert series(run["run_id"], "loss") == [(i, i) for i in range(2500)]
    assert run["tags"]["skelebot.run"] == "1"
    assert run["tags"]["skelebot.tags"] == "best"
    assert run["tags"]["mlflow.note.content"] == "why"
    assert run["end_time"] > run["start_time"]
    assert f"mlflow     {SERVER}, run {run['run_id']}" in own.ok("runs", "show", "1")


def test_what_the_job_logs_itself_lands_in_the_run(sandbox: Sandbox, name: str) -> None:
    own = queueing_to(
        sandbox, name, SERVER, job(f"{PYTHON} -c \"import mlflow; mlflow.log_metric('own', 7)\"")
    )
    own.ok("queue", "--now", "run")
    (run,) = mirrored(name)
    assert run["metrics"] == {"own": 7}
    assert run["status"] == "FINISHED"


def test_attempts_and_reruns(sandbox: Sandbox, name: str) -> None:
    text = """echo '{"n": '$SKELEBOT_ATTEMPT'}' >>$SKELEBOT_METRICS; test $SKELEBOT_ATTEMPT = 2"""
    own = queueing_to(sandbox, name, SERVER, job(text, retries="1"))
    own.ok("queue", "--now", "run")
    own.ok("runs", "rerun", "1", "--now")
    first, second = mirrored(name)
    assert (first["status"], second["status"]) == ("FINISHED", "FINISHED")
    assert (first["metrics"], second["metrics"]) == ({"n": 2}, {"n": 2})


# --- a server that does not answer ---


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def forwarding(port: int) -> Iterator[None]:
    """Let a port lead to the server."""
    target = int(SERVER.rpartition(":")[2])

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                other = socket.create_connection(("127.0.0.1", target))
                for pair in ((client, other), (other, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield
        server.shutdown(socket.SHUT_RDWR)


def test_it_catches_up_when_the_server_is_back(sandbox: Sandbox, name: str) -> None:
    port = free_port()
    text = """echo '{"loss": 2}' >>$SKELEBOT_METRICS; echo "${MLFLOW_RUN_ID-none}" """
    own = queueing_to(sandbox, name, f"http://127.0.0.1:{port}", job(text))
    for _ in range(2):
        own.ok("queue", "run")
    done = own.run("worker", "--drain")
    assert done.code == 0
    assert "its runs are mirrored later" in done.err
    assert "the job gets no MLFLOW_RUN_ID" in own.ok("runs", "logs", "1")
    assert own.ok("runs", "logs", "2") == "none\n"  # it was not asked again so soon
    with forwarding(port):
        own.ok("worker", "--drain")
    assert [run["metrics"] for run in mirrored(name)] == [{"loss": 2}, {"loss": 2}]
    assert not [
        each for each in (Path(own.env["SKELEBOT_STORE"]) / "mlflow").iterdir() if each.name != "lock"
    ]


def test_one_that_never_answers_costs_a_run_little(sandbox: Sandbox, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        own = queueing_to(sandbox, name, f"http://127.0.0.1:{silent.getsockname()[1]}", job("true"))
        own.ok("queue", "run")
        own.ok("worker", "--drain")
        assert runs_of(own)[1]["state"] == "done"
        assert runs_of(own)[1]["seconds"] < 20
        began = time.monotonic()
        assert "mirrored later" in own.run("queue", "--now", "run").err
        assert time.monotonic() - began < 20
        queueing_to(sandbox, name, SERVER, job("true"))  # whose runs do not wait for the silent one
        assert "mirrored" not in own.run("queue", "--now", "run").err


def test_slow_one_is_not_asked_after_each_run(sandbox: Sandbox, name: str) -> None:
    asked = []

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            time.sleep(2)
            self.send_error(503)

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = queueing_to(sandbox, name, f"http://127.0.0.1:{server.server_address[1]}", job("true"))
        for _ in range(6):
            own.ok("queue", "run")
        own.ok("worker", "--drain")
        server.shutdown()
    assert len(asked) <= 4, asked  # at the beginning of the first run, then while others end, and for those


def test_what_it_refuses_is_not_tried_again(sandbox: Sandbox, name: str) -> None:
    experiment = ask("experiments/create", {"name": name})["experiment_id"]
    ask("experiments/delete", {"experiment_id": experiment})
    own = queueing_to(sandbox, name, SERVER, job("true"))
    own.ok("queue", "run")
    done = own.run("worker", "--drain")
    assert "run 1 cannot be mirrored" in done.err
    assert "mirrored" not in own.run("worker", "--drain").err


def test_credentials_are_nowhere(sandbox: Sandbox, name: str) -> None:
    own = queueing_to(sandbox, name, SERVER, job("true"))
    secret = own.with_env(MLFLOW_TRACKING_USERNAME="ada", MLFLOW_TRACKING_PASSWORD="horse-battery")
    secret.ok("queue", "run")
    secret.ok("worker", "--drain")
    found = subprocess.run(["grep", "-r", "horse-battery", run_folder(own, 1).parents[1]], check=False)
    assert found.returncode == 1
    queueing_to(sandbox, name, "http://ada:horse-battery@localhost:1", job("true"))
    refused = own.run("queue", "run")
    assert refused.code == 2
    assert "expected an address such as https://mlflow.example.com" in refused.err
    assert "horse" not in refused.err


def test_run_in_the_checkout(sandbox: Sandbox, name: str) -> None:
    own = queueing(sandbox, job("true"))
    settings = f"{{experiments: {{record: true, mlflow: '{SERVER}'}}}}"
    text = """echo '{"loss": 2}' >>$SKELEBOT_METRICS"""
    project(own, name, job(text, native="always"), components=settings)
    own.ok("run")
    assert [run["metrics"] for run in mirrored(name)] == [{"loss": 2}]


@pytest.mark.engine
def test_container_sees_a_server_of_this_machine(sandbox: Sandbox, name: str) -> None:
    own = sandbox.with_env(SKELEBOT_STORE=str(sandbox.root.parent / "store"))
    text = "echo $MLFLOW_TRACKING_URI $MLFLOW_RUN_ID; getent hosts host.docker.internal >/dev/null"
    project(own, name, job(text), components=f"{{experiments: {{mlflow: '{SERVER}'}}}}")
    own.ok("queue", "run")
    own.ok("worker", "--drain")
    (run,) = mirrored(name)
    port = SERVER.rpartition(":")[2]
    assert own.ok("runs", "logs", "1") == f"http://host.docker.internal:{port} {run['run_id']}\n"
