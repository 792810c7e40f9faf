"""What of a run an MLflow server gets, and what its job does, by value."""

import pytest

from skelebot.model import NATIVE, Image, Place, Task
from skelebot.runs.mirror import _name, _params, variables
from skelebot.runs.record import RunRecord, TaskRecord

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


def test_params() -> None:
    assert list(_params(run(FAR))) == [
        {"key": "train.rate", "value": "0.1"},
        {"key": "train.columns", "value": "a b"},
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("valid.f1", "valid.f1"), ("x@y%", "x_y_"), ("/a/b", "a/b"), ("..", "_"), ("é" * 300, "é" * 250)],
)
def test_names(name: str, expected: str) -> None:
    assert _name(name) == expected
