"""Values as JSON, and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.json_form import from_json, to_json
from skelebot.model import Image, Mount, Place, Run, Task
from skelebot.secret import Secret, typed_secret


def through_json(value: object) -> Any:
    return json.loads(json.dumps(to_json(value)))


@pytest.mark.parametrize("kind", [Task, Image, Run])
def test_a_value_is_the_same_after_json(kind: type[Any]) -> None:
    st.register_type_strategy(float, st.floats(0, 1e6))

    @given(st.from_type(kind))
    def check(value: object) -> None:
        assert from_json(kind, through_json(value)) == value

    check()


def test_a_stored_task_holds_no_secret() -> None:
    task = Task("train", ("run", typed_secret("hunter2")), "/p", env=(("T", Secret("file", "T", "/p/.env")),))
    stored = json.dumps(to_json(task))
    assert "hunter2" not in stored
    assert from_json(Task, json.loads(stored)) == task


def test_only_what_differs_from_the_defaults_is_stored() -> None:
    task = Task("train", ("x",), "/p", place=Place("native"), mounts=(Mount("/p/a", "/app/a", output=True),))
    assert to_json(task) == {
        "name": "train",
        "argv": ["x"],
        "root": "/p",
        "place": {"kind": "native"},
        "mounts": [{"source": "/p/a", "target": "/app/a", "output": True}],
    }


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        {},
        {"name": "a", "argv": ["x"], "root": 3},
        {"name": "a", "argv": "x", "root": "/p"},
        {"name": "a", "argv": [3], "root": "/p"},
        {"name": "a", "argv": [], "root": "/p", "nosuch": 1},
        {"name": "a", "argv": [], "root": "/p", "limits": {"gpus": "1"}},
        {"name": "a", "argv": [], "root": "/p", "user": 5},
        {"name": "a", "argv": [], "root": "/p", "place": {"kind": "moon"}},
        {"name": "a", "argv": [], "root": "/p", "env": [["A"]]},
    ],
)
def test_anything_else_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="not a Task"):
        from_json(Task, data)
