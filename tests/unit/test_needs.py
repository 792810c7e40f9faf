"""What jobs need and make: the order, the mistakes, and what is mapped for it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.model import Job, Output, Project, project_path
from skelebot.project import needs, plan

from .helpers import load, problems, run_cli, write


def job(name: str, *needed: str, **more: Any) -> Job:
    return Job(name=name, source="true", help="h", needs=needed, **more)


def order(name: str, *jobs: Job) -> list[str]:
    found = next(each for each in jobs if each.name == name)
    return [each.name for each in needs.order(Project("demo", jobs=jobs), found)]


# --- the order ---


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([job("a")], []),
        ([job("a", "b"), job("b")], ["b"]),
        ([job("a", "b"), job("b", "c"), job("c")], ["c", "b"]),
        ([job("a", "b", "c"), job("b", "d"), job("c", "d"), job("d")], ["d", "b", "c"]),  # a diamond
        ([job("a", "c", "b"), job("b"), job("c")], ["c", "b"]),
        ([job("a", "b", "b"), job("b")], ["b"]),
        ([job("a", "b", "c"), job("b"), job("c", "b")], ["b", "c"]),
    ],
)
def test_what_is_needed_comes_before_each_once(jobs: list[Job], expected: list[str]) -> None:
    assert order("a", *jobs) == expected


@given(st.data())
def test_any_order_has_each_job_after_all_that_it_needs(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    jobs = [
        job(str(n), *map(str, data.draw(st.lists(st.integers(0, n - 1), max_size=4)) if n else ()))
        for n in range(count)
    ]
    found = order(str(count - 1), *data.draw(st.permutations(jobs)))
    assert len(set(found)) == len(found)
    for place, name in enumerate(found):
        assert set(jobs[int(name)].needs) <= set(found[:place])


def test_a_long_chain_is_no_recursion() -> None:
    jobs = [job("0"), *(job(str(n), str(n - 1)) for n in range(1, 3000))]
    assert order("2999", *jobs) == [str(n) for n in range(2999)]


# --- mistakes ---


def jobs_yaml(*jobs: str) -> str:
    return "name: demo\njobs:\n" + "".join(f"- {{source: 'true', help: h, {each}}}\n" for each in jobs)


@pytest.mark.parametrize(
    ("jobs", "at", "what"),
    [
        (["name: train, needs: [laod]", "name: load"], "jobs[0].needs[0]", "no job named 'laod'; did"),
        (["name: a, needs: [a]"], "jobs[0].needs[0]", "need each other: a -> a"),
        (["name: a, needs: [b]", "name: b, needs: [c]", "name: c, needs: [b]"], ".needs[0]", "c"),
        (["name: a, needs: [b]", "name: b, args: [{name: day}]"], "jobs[0].needs[0]", "the argument day"),
        (["name: a, needs: [b]", "name: b, mode: d"], "jobs[0].needs[0]", "nobody waits for b"),
        (["name: a, mode: d, outputs: [x/]"], "jobs[0].outputs", "nobody waits"),
        (["name: a, outputs: [x/]", "name: b, outputs: [./x]"], "jobs[1].outputs[0]", "output of 'a' too"),
        (["name: a, outputs: [x/y/z/]", "name: b, outputs: [x]"], "jobs[0].outputs[0]", "is inside x/"),
        (["name: a, outputs: [x/, x/m.pkl]"], "jobs[0].outputs[1]", "x/m.pkl is inside x/"),
        (["name: a, outputs: [x/m.pkl, x//m.pkl]"], "jobs[0].outputs[1]", "is an output of 'a' too"),
        (["name: a, outputs: [../x/]"], "jobs[0].outputs[0]", "a path in the project"),
        (["name: a, outputs: [/x/]"], "jobs[0].outputs[0]", "a path in the project"),
        (["name: a, outputs: [~/x/]"], "jobs[0].outputs[0]", "a path in the project"),
        (["name: a, outputs: [model.pkl]"], "jobs[0].outputs[0]", "expected a folder of the project"),
        (["name: a, outputs: [./]"], "jobs[0].outputs[0]", "expected a folder"),
        (["name: a, outputs: [.git/x/]"], "jobs[0].outputs[0]", "expected a folder"),
        (["name: a, outputs: [.skelebot/]"], "jobs[0].outputs[0]", "expected a folder"),
        (["name: a, inputs: [../x]"], "jobs[0].inputs[0]", "a path in the project"),
        (["name: a, inputs: [x, '!x/y']"], "jobs[0].inputs[1]", "nothing can be left out with `!` here"),
        (["name: a, inputs: [.]"], "jobs[0].inputs[0]", "below the project's root"),
        (["name: a, inputs: [x/y], outputs: [x/]"], "jobs[0].inputs[0]", "x/y is an output of the same job"),
        (["name: a, inputs: ['x/*.csv'], outputs: [x/]"], "jobs[0].inputs[0]", "same job"),
        (["name: a, inputs: [x], outputs: [x/]"], "jobs[0].inputs[0]", "same job"),
    ],
)
def test_a_mistake_is_reported_with_its_place(tmp_path: Path, jobs: list[str], at: str, what: str) -> None:
    (problem,) = problems(tmp_path, jobs_yaml(*jobs))
    place, _, text = problem.partition(": ")
    assert place.startswith("skelebot.yaml:")
    assert at in problem
    assert what in text


@pytest.mark.parametrize(
    "jobs",
    [
        ["name: a, outputs: [x/]", "name: b, outputs: [xy/, x-y/, y/x/]"],
        ["name: a, outputs: [x/a.pkl]", "name: b, outputs: [x/b.pkl]"],
        ["name: a, inputs: [data/], outputs: [data/out/]"],
        ["name: a, needs: [b], args: [{name: day}]", "name: b, params: [{name: x, default: 1}]"],
        ["name: a, needs: [b], mode: d", "name: b, outputs: [x/]"],
    ],
)
def test_no_mistake(tmp_path: Path, jobs: list[str]) -> None:
    assert problems(tmp_path, jobs_yaml(*jobs)) == []


def test_an_input_that_is_no_pattern(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        write(tmp_path, jobs_yaml("name: a, inputs: [skelebot.yaml, 'data/[']"))
        assert run_cli(["-n", "a"]) == 2
    assert "jobs[0].inputs[1]: 'data/[' is not a pattern" in capsys.readouterr().err


# --- outputs ---


@pytest.mark.parametrize(
    ("text", "path", "is_folder", "folder"),
    [
        ("models/", "models", True, "models"),
        ("models", "models", True, "models"),
        ("./a//b/./c/", "a/b/c", True, "a/b/c"),
        ("models/model.pkl", "models/model.pkl", False, "models"),
        ("a/b/.hidden", "a/b/.hidden", False, "a/b"),
        ("v1.2/", "v1.2", True, "v1.2"),
        ("v1.2/model", "v1.2/model", True, "v1.2/model"),
        ("größe/ü 1.csv", "größe/ü 1.csv", False, "größe"),
    ],
)
def test_an_output(text: str, path: str, is_folder: bool, folder: str) -> None:
    output = Output.parse(text)
    assert (output.path, output.is_folder, output.folder) == (path, is_folder, folder)
    assert Output.parse(str(output)) == output


@pytest.mark.parametrize("text", ["models/*.pkl", "models/**", "run?/", "*/model.pkl"])
def test_an_output_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match="without a pattern"):
        Output.parse(text)


@given(st.text("ab./~ []", max_size=12))
def test_no_output_is_outside_the_project(text: str) -> None:
    try:
        output = Output.parse(text)
    except ValueError:
        return
    assert output.path == project_path(text)
    assert ".." not in output.path.split("/")
    assert output.path[:1] not in ("", "/")
    assert output.holds(output.path)
    assert output.holds(f"{output.path}/x")
    assert not output.holds(f"{output.path}x")


# --- mappings ---


def mounted(root: Path, name: str, yaml: str) -> list[tuple[str, bool, bool]]:
    project = load(root, yaml)
    found = next(each for each in project.jobs if each.name == name)
    mounts = plan.mounts(project, found)
    assert all(m.source == str(root / m.target.removeprefix("/app/")) for m in mounts)
    return [(m.target, m.read_only, m.output) for m in mounts]


def test_outputs_are_mapped_and_what_is_needed_is_read_only(tmp_path: Path) -> None:
    yaml = jobs_yaml(
        "name: load, outputs: [data/]",
        "name: train, needs: [load], outputs: [models/m.pkl, models/n.pkl]",
        "name: score, needs: [train], outputs: [output/]",
    )
    assert mounted(tmp_path, "load", yaml) == [("/app/data", False, True)]
    assert mounted(tmp_path, "train", yaml) == [("/app/models", False, True), ("/app/data", True, False)]
    assert mounted(tmp_path, "score", yaml) == [("/app/output", False, True), ("/app/models", True, False)]


def test_a_mapping_of_the_jobs_own_wins(tmp_path: Path) -> None:
    yaml = jobs_yaml(
        "name: load, outputs: [data/raw/, models/base/]",
        "name: train, needs: [load], mappings: [data/], outputs: [models/own/]",
    )
    assert mounted(tmp_path, "train", yaml) == [
        ("/app/data", False, False),
        ("/app/models/own", False, True),
        ("/app/models/base", True, False),
    ]
