"""`--rehearse`: a chain in a copy of the project, on small values."""

import os
import signal
from pathlib import Path

import pytest
from harness import BASE, Sandbox, job, project, wait_for

LOAD = job(
    "seq $2 > data/x", "load", outputs="[data/]", params="[{name: rows, default: 1000}]", rehearse="{rows: 3}"
)
COUNT = job(
    "wc -l < data/x > out/n; cat out/n; pwd", "count", needs="[load]", inputs="[data/]", outputs="[out/]"
)


def files(root: Path) -> dict[str, bytes]:
    found = (p for p in root.rglob("*") if p.is_file() and ".skelebot" not in p.parts)
    return {str(path): path.read_bytes() for path in found}


def test_a_chain_runs_on_small_values_and_leaves_nothing(sandbox: Sandbox) -> None:
    project(sandbox, "r", LOAD, COUNT)
    before = files(sandbox.root)
    result = sandbox.run("-n", "--rehearse", "count")
    assert (result.code, result.out.split()[0]) == (0, "3")
    assert str(sandbox.root) + "/.skelebot/rehearsal" in result.out
    assert "INFO  | the rehearsal of load, count went well" in result.err
    assert files(sandbox.root) == before
    assert not (sandbox.root / ".skelebot/rehearsal").exists()
    assert sandbox.ok("-n", "count").split()[0] == "1000", "a rehearsal makes nothing up to date"


def test_an_up_to_date_job_is_rehearsed_anyway(sandbox: Sandbox) -> None:
    project(sandbox, "r", LOAD, COUNT)
    sandbox.ok("-n", "count")
    before = files(sandbox.root)
    result = sandbox.run("-n", "--rehearse", "count")
    assert (result.code, result.out.split()[0]) == (0, "3")
    assert files(sandbox.root) == before
    assert "INFO  | count is up to date" in sandbox.run("-n", "count").err


def test_a_result_that_is_not_saved_is_found(sandbox: Sandbox) -> None:
    project(sandbox, "r", LOAD, job("echo trained", "train", needs="[load]", outputs="[models/]"))
    result = sandbox.run("-n", "--rehearse", "train")
    assert (result.code, result.out) == (1, "trained\n")
    assert "train ended with 0 but left nothing in models/" in result.err


@pytest.mark.parametrize("what", ["inputs: '[raw/]'", "mappings: '[\"raw/:ro\"]'", "mappings: '[raw/]'"])
def test_what_images_leave_out_is_there_and_stays_as_it_is(sandbox: Sandbox, what: str) -> None:
    key, _, value = what.partition(": ")
    sandbox.write("raw/a.csv", "1\n")
    source = (
        "cat raw/a.csv > out/x; echo >> raw/log"
        if what.endswith("[raw/]'") and key == "mappings"
        else "cat raw/a.csv > out/x"
    )
    project(sandbox, "r", job(source, outputs="[out/]", **{key: value.strip("'")}), ignores="[raw]")
    before = files(sandbox.root)
    result = sandbox.run("-n", "--rehearse", "run")
    assert result.code == 0, result
    assert files(sandbox.root) == before


def test_the_environment_of_the_project_serves(sandbox: Sandbox) -> None:
    source = "python -c 'import six; print(six.PY3)' | tee out/x"
    project(sandbox, "r", job(source, outputs="[out/]"), dependencies="[six]")
    result = sandbox.run("-n", "--rehearse", "run")
    assert (result.code, result.out) == (0, "True\n"), result
    assert result.err.count("installing") == 1
    again = sandbox.run("-n", "run")
    assert (again.code, again.out) == (0, "True\n")
    assert "installing" not in again.err


def test_a_killed_rehearsal_is_swept_by_the_next(sandbox: Sandbox) -> None:
    project(sandbox, "r", job("echo > out/x; [ -e go ] || sleep 600", outputs="[out/]"))
    child = sandbox.start("-n", "--rehearse", "run", start_new_session=True)
    copy = sandbox.root / ".skelebot/rehearsal"
    wait_for((copy / "out/x").exists)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert copy.exists()
    sandbox.write("go", "")
    assert sandbox.run("-n", "--rehearse", "run").code == 0
    assert not copy.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "+", "ps"), "--rehearse runs jobs alone; leave out ps"),
        (("later",), "--rehearse waits for each job, and later has mode: d; leave it out"),
    ],
)
def test_what_cannot_be_rehearsed(sandbox: Sandbox, words: tuple[str, ...], message: str) -> None:
    project(sandbox, "r", job("true"), job("true", "later", mode="d"))
    result = sandbox.run("-n", "--rehearse", *words)
    assert (result.code, result.errors) == (2, [f"ERROR | {message}"])


@pytest.mark.engine
def test_it_runs_in_the_same_image(sandbox: Sandbox) -> None:
    project(sandbox, "r-docker", LOAD, COUNT, user="caller", ignores="[data]")
    assert BASE
    sandbox.ok("count")
    result = sandbox.run("--rehearse", "count")
    assert (result.code, result.out.split()) == (0, ["3", "/app"])
    assert "building" not in result.err
    assert sandbox.read("out/n").split() == ["1000"]
