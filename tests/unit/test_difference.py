"""What `runs diff` shows: what differs, and nothing else."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skelebot.model import Image, Task
from skelebot.runs import difference
from skelebot.runs.difference import Difference, differences, is_same
from skelebot.runs.record import RunRecord, TaskRecord
from skelebot.runs.snapshot import Entry
from skelebot.secret import Secret

TREE, OTHER = "a" * 40, "b" * 40


def task(job: str = "train", tree: str = TREE, **changes: Any) -> TaskRecord:
    image = Image(tag="demo", project="demo", base="python", context="/demo")
    return TaskRecord(job, tree, image, Task(job, ("bash", f"{job}.sh"), "/demo"), **changes)


def run(*tasks: TaskRecord, **changes: Any) -> RunRecord:
    given = tasks or (task(),)
    return replace(RunRecord("0" * 32, "demo", "/demo", ("train",), given, number=1), **changes)


def test_runs_of_the_same_facts_are_the_same() -> None:
    assert differences(run(), run(number=2, uid="1" * 32, created=9.0, tags=("x",), note="n")) == []


def test_only_a_parameter_that_differs_is_shown() -> None:
    a, b = (
        run(task(params=(("rate", "0.1"), ("seed", "1")))),
        run(task(params=(("rate", "0.2"), ("seed", "1")))),
    )
    assert differences(a, b) == [Difference("params", "train.rate", "0.1", "0.2")]


def test_a_parameter_that_only_one_run_has_is_shown() -> None:
    a, b = run(task()), run(task(params=(("rate", "0.2"),)))
    assert differences(a, b) == [Difference("params", "train.rate", None, "0.2")]


def test_a_command_line_is_shown_if_no_parameter_explains_it() -> None:
    other = task()
    other = replace(other, task=replace(other.task, argv=("bash", "other.sh")))
    assert differences(run(), run(other)) == [
        Difference("command", "train", "bash train.sh", "bash other.sh")
    ]
    explained = replace(other, params=(("rate", "1"),))
    assert [each.kind for each in differences(run(), run(explained))] == ["params"]


def test_other_jobs_are_shown() -> None:
    assert differences(run(), run(task("load"), task()))[0] == Difference("jobs", "", "train", "load + train")


def test_a_longer_duration_alone_is_no_difference_that_counts() -> None:
    found = differences(run(started=1.0, ended=2.0), run(started=1.0, ended=4.0))
    assert found == [Difference("duration", "", 1.0, 3.0)]
    assert is_same(found)
    assert not is_same([*found, Difference("image", "demo", "sha256:1", "sha256:2")])


def test_images_places_and_packages_are_compared_by_name() -> None:
    a = run(images=(("demo", "sha256:1"),), where="native")
    b = run(images=(("demo", "sha256:2"),), where="docker", env="dev")
    assert differences(a, b, ({"numpy": "1.26", "six": "1"}, {"numpy": "2.0", "six": "1"})) == [
        Difference("where", "place", "native", "docker"),
        Difference("where", "environment", "", "dev"),
        Difference("image", "demo", "sha256:1", "sha256:2"),
        Difference("packages", "numpy", "1.26", "2.0"),
    ]


def test_another_machine_is_shown_but_does_not_count() -> None:
    a, b = (run(task(machine=(("host", host), ("cpu", "x")))) for host in ("one", "two"))
    found = differences(a, b)
    assert found == [Difference("machine", "host", "one", "two")]
    assert is_same(found)
    assert differences(a, run()) == []  # it has not begun


def test_of_a_secret_only_whether_it_is_another_one_is_shown() -> None:
    a = run(variables=(("TOKEN", "hash 1"), ("OLD", "hash")))
    b = run(variables=(("TOKEN", "hash 2"), ("KEY", "hash")))
    found = differences(a, b)
    assert found == [
        Difference("variables", "TOKEN", "a secret", "another secret"),
        Difference("variables", "OLD", "a secret", None),
        Difference("variables", "KEY", None, "a secret"),
    ]
    assert "hash" not in str(found)


def test_a_secret_of_another_store_is_not_said_to_be_the_same() -> None:
    (found,) = differences(run(variables=(("TOKEN", "hash"),)), run(variables=(("TOKEN", ""),)))
    assert found.after == "a secret of another store"


def test_plain_variables_are_shown_with_their_values() -> None:
    def of(**env: Any) -> RunRecord:
        plain = task()
        return run(replace(plain, task=replace(plain.task, env=tuple(env.items()))))

    secret = Secret("variable", "TOKEN")
    assert differences(of(A="1", B="1", T=secret), of(A="2", B="1", T=secret)) == [
        Difference("variables", "A", "1", "2")
    ]


def test_data_in_two_checkouts_is_compared_by_its_path_in_them() -> None:
    a = run(data=(("/demo/data", "f1"), ("/mnt/x", "g1")))
    b = run(root="/other", data=(("/other/data", "f1"), ("/mnt/x", "")))
    assert differences(a, b) == [Difference("data", "/mnt/x", "g1", "missing")]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=3)), unique_by=lambda pair: pair[0]))
def test_a_difference_has_the_same_name_both_ways(params: list[tuple[str, str]]) -> None:
    a, b = run(), run(task(params=tuple(params)))
    there, back = differences(a, b), differences(b, a)
    assert [(d.name, d.before, d.after) for d in there] == [(d.name, d.after, d.before) for d in back]


# --- code ---


def test_snapshots_are_compared_job_by_job_and_each_pair_once() -> None:
    a = run(task("load"), task("train"), task("score", OTHER))
    b = run(task("load", OTHER), task("train", OTHER), task("score", OTHER))
    assert difference.pairs_of_trees(a, b) == {(TREE, OTHER): ["load", "train"]}


def test_what_became_of_each_file() -> None:
    file, script = Entry(0o100644, "1" * 40, 5), Entry(0o100755, "1" * 40, 5)
    before = {"same": file, "gone": file, "x": file, "text": file}
    after = {"same": file, "new": file, "x": script, "text": Entry(0o100644, "2" * 40, 5)}
    assert difference.changed_files(before, after) == {
        "gone": "removed",
        "new": "added",
        "text": "changed",
        "x": "mode",
    }


def test_a_job_that_a_chain_has_twice_is_compared_each_time() -> None:
    a, b = (run(task(params=(("rate", rate),)), task(params=(("rate", "1"),))) for rate in ("2", "3"))
    assert a.names == ("train", "train#2")
    assert differences(a, b) == [Difference("params", "train.rate", "2", "3")]
    c = run(task(params=(("rate", "2"),)), replace(task(params=(("rate", "1"),)), tree=OTHER))
    assert differences(a, c) == []
    assert difference.pairs_of_trees(a, c) == {(TREE, OTHER): ["train#2"]}


def test_a_variable_that_jobs_have_with_different_values_is_compared_for_each() -> None:
    def with_values(*values: str) -> RunRecord:
        jobs = [task("load"), task("train")]
        return run(
            *(
                replace(each, task=replace(each.task, env=(("A", v),)))
                for each, v in zip(jobs, values, strict=True)
            )
        )

    assert differences(with_values("1", "3"), with_values("2", "3")) == [
        Difference("variables", "load.A", "1", "2")
    ]
    assert differences(with_values("1", "1"), with_values("2", "2")) == [
        Difference("variables", "A", "1", "2")
    ]
