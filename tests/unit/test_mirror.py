"""What of a run an MLflow server gets, and what its job does, by value."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from skelebot.errors import ConfigError, SkelebotError
from skelebot.model import NATIVE, Image, Place, Task
from skelebot.runs.mirror import _QUICK, Refused, _name, _params, _Server, _step, variables
from skelebot.runs.record import RunRecord, TaskRecord

from .helpers import load

IMAGE = Image("demo:latest", "demo", "x", "/p")


def run(address: str, id: str = "7") -> RunRecord:
    params = (("rate", 0.1), ("columns", ("a", "b")))
    task = TaskRecord("train", "", IMAGE, Task("train", (), "/p"), params)
    return RunRecord("u", "demo", "/p", ("train",), (task,), mlflow=address, mlflow_run=id)


FAR, OWN = "https://mlflow.example.com/a", "http://localhost:5000"


@pytest.mark.parametrize(
    ("address", "place", "is_far", "expected"),
    [
        (FAR, NATIVE, False, FAR),
        (FAR, Place(), False, FAR),
        (FAR, Place("docker", "ssh://gpu"), True, FAR),
        (OWN, NATIVE, False, OWN),
        (OWN, Place(), False, "http://host.docker.internal:5000"),
        ("http://127.0.0.1", Place(), False, "http://host.docker.internal"),
        (OWN, Place("docker", "ssh://gpu"), True, None),
    ],
)
def test_variables_of_the_job(address: str, place: Place, is_far: bool, expected: str | None) -> None:
    found = dict(variables(run(address), Task("train", (), "/p", place=place), is_far))
    assert found == ({"MLFLOW_TRACKING_URI": expected, "MLFLOW_RUN_ID": "7"} if expected else {})


def test_run_without_a_counterpart_gives_its_job_none() -> None:
    assert variables(run(FAR, ""), Task("train", (), "/p"), False) == ()


@pytest.mark.parametrize("host", ["[::1", "h:abc", "h#f", "h?x", "u@h", "a b", "[x]", ""])
def test_address_that_is_none(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="expected an address such as"):
        load(tmp_path, f'name: demo\ncomponents: {{experiments: {{mlflow: "http://{host}"}}}}\n')


@pytest.mark.parametrize("host", ["[::1]:5000", "ml.example.com:80/a/", "ü.example"])
def test_address(tmp_path: Path, host: str) -> None:
    load(tmp_path, f'name: demo\ncomponents: {{experiments: {{mlflow: "http://{host}"}}}}\n')


def test_params() -> None:
    assert list(_params(run(FAR))) == [
        {"key": "train.rate", "value": "0.1"},
        {"key": "train.columns", "value": "a b"},
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("valid.f1", "valid.f1"),
        ("x@y%", "x_y_"),
        ("/a/b", "a/b"),
        ("..", "_"),
        ("é" * 300, "é" * 250),
        ("a//b", "a/b"),
        ("./a/../../b.c/.", "a/b.c"),
        ("a/" * 200, "/".join("a" * 125)),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert _name(name) == expected


@pytest.mark.parametrize(("number", "expected"), [(2.0, 2), (-0.6, -1), (1e300, 2**53), (-1e300, -(2**53))])
def test_steps(number: float, expected: int) -> None:
    assert _step(number) == expected


@contextmanager
def server(status: int, body: bytes) -> Iterator[_Server]:
    """Serve one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - the library's names

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        try:
            yield _Server(f"http://127.0.0.1:{served.server_address[1]}", _QUICK)
        finally:
            served.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"experiment": "1"}'),
        (200, b'{"experiment": {"experiment_id": null}}'),
        (200, b"<html>"),
        (200, b"\xff"),
        (302, b""),
        (404, b"no backend"),
    ],
)
def test_answers_of_other_servers(status: int, body: bytes) -> None:
    with server(status, body) as other, pytest.raises(SkelebotError) as caught:
        other.experiment("demo")
    assert not isinstance(caught.value, Refused)  # it may be an MLflow server again later
    assert "as an MLflow server does" in str(caught.value)


def test_refusal_of_an_mlflow_server() -> None:
    with (
        server(400, b'{"error_code": "BAD_REQUEST", "message": "no"}') as other,
        pytest.raises(Refused) as caught,
    ):
        other.experiment("demo")
    assert str(caught.value) == f"the MLflow server {other.address} answered 400 no"
