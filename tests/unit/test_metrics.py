"""Lines of metrics as numbers, their summary and their series, by value."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.runs.metrics import Point, parse, series, with_point
from skelebot.runs.record import Metric


@pytest.mark.parametrize(
    ("line", "point"),
    [
        ('{"loss": 0.2}', Point({"loss": 0.2})),
        ('{"step": 3, "loss": 1}', Point({"loss": 1.0}, step=3.0)),
        ('{"valid": {"f1": 0.5, "by": {"a": 2}}}', Point({"valid.f1": 0.5, "valid.by.a": 2.0})),
        ('{"progress": 0.4}', Point({}, progress=0.4)),
        ("{}", Point({})),
    ],
)
def test_line(line: str, point: Point) -> None:
    assert parse(line) == point


@pytest.mark.parametrize(
    "line",
    [
        *("", "loss", "[1]", "3", '{"loss": "0.2"}', '{"loss": true}', '{"loss": null}', '{"loss": [1]}'),
        *('{"loss": 0.2', '{"progress": 1.5}', '{"progress": NaN}', '{"a": ' * 5000, b"\xff\xfe"),
        f'{{"loss": {"9" * 400}}}',
        json.dumps({"x" * 100_000: 1}),
    ],
)
def test_line_that_is_none(line: str | bytes) -> None:
    assert parse(line) is None


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_no_line_breaks_the_reading(line: str | bytes) -> None:
    parse(line)


def summary(*lines: str) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for line in lines:
        point = parse(line)
        assert point
        found = with_point(found, point)
    return found


def test_summary() -> None:
    found = summary('{"loss": 3, "step": 1}', '{"loss": 1, "step": 2}', '{"loss": 2}', '{"f1": 0}')
    assert found == {"loss": Metric("loss", 2, 1, 3, 3, 2), "f1": Metric("f1", 0, 0, 0, 1)}


def test_number_that_is_not_finite_is_the_last_but_neither_least_nor_most() -> None:
    assert summary('{"loss": 3}', '{"loss": NaN}') == {"loss": Metric("loss", None, 3, 3, 2)}
    assert summary('{"loss": Infinity}', '{"loss": 2}') == {"loss": Metric("loss", 2, 2, 2, 2)}
    assert summary('{"loss": NaN}') == {"loss": Metric("loss", None, None, None, 1)}


def test_series(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = ['{"loss": 3, "step": 10}', '{"loss": 2, "step": 20}', "broken", "", '{"f1": 1}', '{"f1": NaN}']
    path.write_text("\n".join([*lines, '{"f1": 2}', '{"f1": 3']))
    assert series(str(path)) == {"loss": [(10, 3), (20, 2)], "f1": [(0, 1), (2, 2)]}
    assert series(str(tmp_path / "none")) == {}
