"""Lines of metrics as numbers, their summary and their series, by value."""

import json
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.errors import ConfigError
from skelebot.runners.docker.metrics import _take
from skelebot.runs.measure import Growing, Measured, Reading
from skelebot.runs.metrics import Point, marks, of_file, parse, series, with_point
from skelebot.runs.record import Metric

from .helpers import load


@pytest.mark.parametrize(
    ("line", "point"),
    [
        ('{"loss": 0.2}', Point({"loss": 0.2})),
        ('{"step": 3, "loss": 1}', Point({"loss": 1.0}, step=3.0)),
        ('{"valid": {"f1": 0.5, "by": {"a": 2}}}', Point({"valid.f1": 0.5, "valid.by.a": 2.0})),
        ('{"progress": 0.4}', Point({}, progress=0.4)),
        ('{"loss": 1, "progress": 1.0000000000000002}', Point({"loss": 1.0}, progress=1.0)),
        ("{}", Point({})),
    ],
)
def test_line(line: str, point: Point) -> None:
    assert parse(line) == point


@pytest.mark.parametrize(
    "line",
    [
        *("", "loss", "[1]", "3", '{"loss": "0.2"}', '{"loss": true}', '{"loss": null}', '{"loss": [1]}'),
        *('{"progress": Infinity}', '{"progress": 1.001}'),
        *('{"loss": 0.2', '{"progress": 1.5}', '{"progress": NaN}', '{"a": ' * 5000, b"\xff\xfe"),
        f'{{"loss": {"9" * 400}}}',
        '{"\\ud800": 1}',
        *('{"step": NaN, "loss": 1}', '{"step": Infinity}'),
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


# --- those of a job's output and of its files ---


PATTERNS = [
    *(("loss", r"loss=(\S+)"), ("acc", r"acc (\d+)%")),
    *(("progress", r"loss=1 (.*)%"), ("step", "step=(.*)")),
]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("epoch 3 loss=0.25 acc 91%", '{"loss": 0.25, "acc": 91.0}'),
        ("loss=1e-3", '{"loss": 0.001}'),
        ("loss=nan", '{"loss": NaN}'),
        ("loss=high", ""),
        ("loss=1_0", ""),
        ("loss=1 10%", '{"loss": 1.0}'),
        ("loss=1 0.1%", '{"loss": 1.0, "progress": 0.1}'),
        ("loss=1 step=nan", '{"loss": 1.0}'),
        ("nothing", ""),
        ("x" * 2000 + " loss=1", ""),
    ],
)
def test_line_of_output(tmp_path: Path, line: str, found: str) -> None:
    (tmp_path / "log").write_text(f"{line}\n")
    Reading(str(tmp_path), PATTERNS).finish()
    path = tmp_path / "metrics-found.jsonl"
    assert (path.read_text().strip() if path.exists() else "") == found


def test_group_that_takes_no_part_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("b\na=3\n")
    assert numbers(Reading(str(tmp_path), [("a", "b|a=(.)")]).finish()) == {"a": (1, 3)}


def test_pattern_that_never_ends_is_left_out_and_the_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"loss=3 acc=1\n{'a' * 60} loss=2\nacc=5")
    patterns = [("loss", "loss=(.)"), ("bad", "(?:a+)+b(.)"), ("acc", "acc=(.)"), ("worse", "(a|a)*b")]
    reading = Reading(str(tmp_path), patterns)
    assert numbers(reading.finish()) == {"loss": (2, 2), "acc": (2, 5)}
    assert [problem.partition(" takes")[0] for problem in reading.problems] == [
        "the pattern of the metric bad",
        "the pattern of the metric worse",
    ]


def test_output_is_not_searched_for_ever_when_the_task_has_ended(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"loss={n}\n" for n in range(1000)))
    reading = Reading(str(tmp_path), [("loss", "loss=(.*)")])
    reading.hurry(-1)
    assert numbers(reading.finish(['{"f1": 1}'])) == {"loss": (200, 199), "f1": (1, 1)}
    assert reading.problems == ["not all of the output was searched for loss: it takes too long"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"loss": 1, "valid": {"f1": 0.5}}', '{"loss": 1.0, "valid.f1": 0.5}'),
        ('{"model": "forest", "depth": 3, "is_good": true, "all": [1]}', '{"depth": 3.0}'),
        (f'{{"huge": {"9" * 400}, "depth": 3}}', '{"depth": 3.0}'),
        ('{"progress": 7, "step": NaN, "depth": 3}', '{"depth": 3.0}'),
        ('{"progress": 0.5, "step": 4, "loss": NaN}', '{"progress": 0.5, "step": 4.0, "loss": NaN}'),
    ],
)
def test_numbers_of_a_file(text: str, line: str) -> None:
    assert of_file(text) == line


NESTED = '{"a": ' * 990 + "1" + "}" * 990


@pytest.mark.parametrize(
    "text",
    [
        *("", "[1]", "3", '{"a": "b"}', '{"a": ' * 5000, NESTED, b"\xff", f'{{"a": {"9" * 400}}}'),
        '{"\\ud800": 1}',
    ],
)
def test_file_without_numbers(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        of_file(text)


@pytest.mark.parametrize("text", ["", "{", b"\xff\xfe{"])
def test_file_that_is_not_json(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="it is not JSON: "):
        of_file(text)


def test_series_have_what_was_found_beside(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"loss": 3}\n')
    (tmp_path / "metrics-found.jsonl").write_text('{"f1": 1}\n')
    assert series(str(tmp_path / "metrics.jsonl")) == {"loss": [(0, 3)], "f1": [(0, 1)]}


def test_marks_change_with_either_file(tmp_path: Path) -> None:
    given, found = tmp_path / "metrics.jsonl", tmp_path / "metrics-found.jsonl"
    seen = [marks(str(given))]
    for path in (found, given, found):
        with path.open("a") as file:
            file.write("{}\n")
        seen.append(marks(str(given)))
    assert len(set(seen)) == 4


# --- reading ---


def numbers(measured: Measured) -> dict[str, tuple[int, float | None]]:
    return {metric.name: (metric.count, metric.last) for metric in measured.metrics}


def test_only_what_has_ended_is_read(tmp_path: Path) -> None:
    path, reading = tmp_path / "metrics.jsonl", Reading(str(tmp_path))
    assert reading.read() == Measured()
    path.write_text('{"a": 1}\n{"a":')
    assert numbers(reading.read()) == {"a": (1, 1)}
    path.write_text('{"a": 1}\n{"a": 2}')
    assert numbers(reading.read()) == {"a": (1, 1)}
    assert numbers(reading.finish()) == {"a": (2, 2)}
    assert numbers(reading.read()) == {"a": (2, 2)}


def test_line_that_is_too_long_is_one_bad_line(tmp_path: Path) -> None:
    path, reading = tmp_path / "metrics.jsonl", Reading(str(tmp_path))
    path.write_text('{"a": 1}\n' + "x" * 1_000_000)
    assert reading.read().bad_lines == 0
    with path.open("a") as file:
        file.write('{"a": 3}\n{"a": 2}\n')
    assert reading.read().bad_lines == 1
    assert numbers(reading.read()) == {"a": (2, 2)}
    assert series(str(path)) == {"a": [(0, 1), (1, 2)]}


def test_file_that_is_cut_is_read_again(tmp_path: Path) -> None:
    path, reading = tmp_path / "metrics.jsonl", Reading(str(tmp_path))
    path.write_text('{"a": 1}\n{"b": 1}\nx\n')
    reading.read()
    for text in ('{"a": 5}\n', '{"a": 6}\n', '{"a": 4}\n{"a": 6}\n'):  # shorter, as long, longer
        path.write_text(text)
        assert reading.read() == Reading(str(tmp_path)).read() != Measured()


@pytest.mark.parametrize("now", [b"a\nb\nc\n", b"a\n", b"", b"c\nd\n", b"c\nd\ne\n", b"x" * 200_000])
def test_file_of_another_machine_is_here_as_it_is_there(tmp_path: Path, now: bytes) -> None:
    (tmp_path / "there").write_bytes(now)
    (tmp_path / "here").write_bytes(b"a\nb\n")
    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.add(tmp_path / "there", "metrics.jsonl")
    with (tmp_path / "tar").open("rb") as stream, (tmp_path / "here").open("r+b") as file:
        _take(stream, file)
    assert (tmp_path / "here").read_bytes() == now


def test_output_is_looked_through_once_whoever_reads_it(tmp_path: Path) -> None:
    log, patterns = tmp_path / "log", [("loss", "loss=(.*)")]
    log.write_text("loss=3\rloss=2\nloss=")
    first = Reading(str(tmp_path), patterns)
    assert numbers(first.read()) == {"loss": (2, 2)}
    assert numbers(first.read()) == {"loss": (2, 2)}
    log.write_text("loss=3\rloss=2\nloss=1")
    first.close()
    second = Reading(str(tmp_path), patterns)
    assert numbers(second.read()) == {"loss": (2, 2)}
    assert numbers(second.finish(['{"f1": 1}'])) == {"loss": (3, 1), "f1": (1, 1)}
    third = Reading(str(tmp_path), patterns)
    assert numbers(third.finish(['{"f1": 1}'])) == {"loss": (3, 1), "f1": (1, 1)}
    log.rename(tmp_path / "old")
    log.write_text("loss=9\nmore and more and more\n")
    assert numbers(third.read()) == {"loss": (1, 9)}
    third.close()


def test_names_that_are_too_many_are_bad_lines(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"m{n}": 1}}\n' for n in range(1003)))
    measured = Reading(str(tmp_path)).finish()
    assert (len(measured.metrics), measured.bad_lines) == (1000, 3)


@given(st.lists(st.sampled_from(['{"a": 1}\n', "bad\n", '{"b": 2', "}\n", "\n"])), st.integers(0, 9))
def test_reading_in_parts_gives_the_same(parts: list[str], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, live = Path(folder, "metrics.jsonl"), Reading(folder)
        for number, part in enumerate(parts):
            with path.open("a") as file:
                file.write(part)
            if (number + seed) % 3:
                live.read()
        assert live.read() == Reading(folder).read()


GIVEN = [("", text) for text in ('{"a": 1}\n', '{"a": NaN}\n', '{"a": 2', "}\n", "\n", "cut")]
FOUND = [("-found", text) for text in ('{"b": 1}\n', '{"b": 3, "step": 7}\n', "cut")]


@given(st.lists(st.tuples(st.sampled_from(GIVEN + FOUND), st.booleans())))
def test_curves_that_grow_are_those_that_are_read_at_once(parts: list[tuple[tuple[str, str], bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "metrics.jsonl")
        growing = Growing(path)
        for (name, text), is_read in parts:
            with open(os.path.join(folder, f"metrics{name}.jsonl"), "w" if text == "cut" else "a") as file:
                file.write("" if text == "cut" else text)
            if is_read or text == "cut":
                growing.read()
        assert growing.read() == series(path)


# --- as they are declared ---

JOB = "name: demo\njobs:\n- name: train\n  source: train.py\n  help: h\n  metrics: "


@pytest.mark.parametrize(
    ("metrics", "problem"),
    [
        ("{loss: 'loss=('}", "metrics.loss: 'loss=(' is not a regular expression"),
        ("{loss: 'loss=.*'}", "metrics.loss: expected a pattern with one group, around the number"),
        ("{loss: '(loss)=(.*)'}", "metrics.loss: expected a pattern with one group, around the number"),
        ("{loss: null}", "metrics.loss: expected a pattern with one group, around the number"),
        ("[../m.json]", "metrics[0]: expected a path in the project, from its root; found '../m.json'"),
        ("[out/m.json]", "metrics[0]: out/m.json is lost with the job's container; add its folder to"),
        ("3", "metrics"),
    ],
)
def test_mistakes(tmp_path: Path, metrics: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, f"{JOB}{metrics}\n")
    assert "skelebot.yaml:" in str(error.value)
    assert problem in str(error.value)


def test_declared(tmp_path: Path) -> None:
    job = load(tmp_path, f"{JOB}[out/m.json]\n  outputs: [out/]\n").jobs[0]
    assert (job.metric_files, job.metric_patterns) == (("out/m.json",), ())
    job = load(tmp_path, f"{JOB}{{a.b: '(.)', c: 'c(?:x|y)(.)'}}\n").jobs[0]
    assert (job.metric_files, job.metric_patterns) == ((), (("a.b", "(.)"), ("c", "c(?:x|y)(.)")))
    assert load(tmp_path, f"{JOB}[m.json]\n  mappings: ['.:rw']\n").jobs[0].metric_files
