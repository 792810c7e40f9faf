"""`--rehearse`: a chain in a copy of the project, on small values."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import BASE, ORDINARY, Sandbox, docker, job, make_sandbox, project, wait_for
from remote_engine import by_tcp, there

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
    wait_for(lambda: list(copy.rglob("out/x")))
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


def test_the_whole_project_can_be_mapped(sandbox: Sandbox) -> None:
    project(sandbox, "r", job("echo new > notes.txt; cat notes.txt", mappings="[./]"))
    sandbox.write("notes.txt", "old\n")
    result = sandbox.run("-n", "--rehearse", "run")
    assert (result.code, result.out) == (0, "new\n"), result
    assert sandbox.read("notes.txt") == "old\n"


@pytest.mark.parametrize("native", [True, pytest.param(False, marks=pytest.mark.engine)])
def test_what_is_beside_the_project_is_found_and_no_secret_stays(sandbox: Sandbox, native: bool) -> None:
    sandbox.write("../beside.env", "TOKEN=abc\n")
    sandbox.write("../shared/x", "1\n")
    source = 'echo "$TOKEN"; cat ../shared/x'
    project(sandbox, "r-beside", job(source, mappings="['../shared:/shared:ro']"), envFile="../beside.env")
    result = sandbox.run(*(["-n"] if native else []), "--rehearse", "run")
    assert (result.code, result.out) == (0, "abc\n1\n"), result
    assert not [path for path in sandbox.root.rglob("*.env") if path.name != "Dockerfile.env"]


@pytest.mark.parametrize("native", [True, pytest.param(False, marks=pytest.mark.engine)])
def test_inputs_are_found_through_links_to_what_images_leave_out(sandbox: Sandbox, native: bool) -> None:
    sandbox.write("large/x", "1\n")
    sandbox.write("../disk/y", "2\n")
    for link, target in (("link", "large"), ("far", "../disk"), ("file", "../disk/y")):
        (sandbox.root / link).symlink_to(target)
    the_job = job("cat link/x far/y file", inputs="[link, 'far/*', file]")
    project(sandbox, "r-links", the_job, ignores="[large]")
    for words in ((), ("--rehearse",)):
        result = sandbox.run(*(["-n"] if native else []), *words, "run")
        assert (result.code, result.out) == (0, "1\n2\n2\n"), result


def test_outputs_in_a_folder_that_is_read_or_mapped_are_made_anew(sandbox: Sandbox) -> None:
    sandbox.write("data/raw.csv", "1\n")
    sandbox.write("data/features/f", "old\n")
    sandbox.write("models/m.bin", "old\n")
    project(
        sandbox,
        "r",
        job("cp data/raw.csv data/features/f", "prepare", outputs="[data/features/]"),
        job("cat data/features/f", "train", needs="[prepare]", inputs="[data/]", outputs="[models/m.bin]"),
        job("echo >> data/raw.csv", "append", inputs="[data/]", mappings="[data/]"),
        ignores="[data]",
    )
    before = files(sandbox.root)
    result = sandbox.run("-n", "--rehearse", "append", "+", "train")
    assert (result.code, result.out) == (1, "1\n\n"), result
    assert "train ended with 0 but left nothing in models/m.bin" in result.err
    assert files(sandbox.root) == before


def test_files_that_values_name_are_there(sandbox: Sandbox) -> None:
    sandbox.write("raw/a.csv", "1\n")
    count = job("cat", "count", args="[{name: data, type: file}]", rehearse="{data: raw/a.csv}")
    project(sandbox, "r", count, ignores="[raw]")
    assert sandbox.run("-n", "--rehearse", "count", "skelebot.yaml").out == "1\n"


def test_a_link_out_of_the_project_leads_to_the_same(sandbox: Sandbox) -> None:
    sandbox.write("../shared/x", "1\n")
    (sandbox.root / "data").symlink_to("../shared")
    project(sandbox, "r", job("cat data/x"))
    assert sandbox.run("-n", "--rehearse", "run").out == "1\n"


def test_folders_that_nobody_may_write_to_are_removed_too(anyone: Sandbox) -> None:
    project(anyone, "r", job("mkdir -p x/y; echo > x/y/z; chmod 500 x/y x"))
    for _ in range(2):
        assert anyone.run("-n", "--rehearse", "run").code == 0
        assert not (anyone.root / ".skelebot/rehearsal").exists()


def test_a_dry_run_shows_the_values_of_a_rehearsal(sandbox: Sandbox) -> None:
    project(sandbox, "r", LOAD, job("true", "later", mode="d"))
    sandbox.ok("-n", "load", "--rows", "3")
    result = sandbox.run("-n", "--rehearse", "--dry-run", "load")
    assert "--rows 3" in result.out
    assert "up to date" not in result.out
    assert sandbox.run("-n", "--rehearse", "--dry-run", "later").code == 2


def test_a_warning_is_printed_once(sandbox: Sandbox) -> None:
    project(sandbox, "r", job("true", mapped="[x/]"))
    assert sandbox.run("-n", "--rehearse", "run").err.count("WARN") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "+", "--rehearse", "run"), "--rehearse goes before the first command of a chain"),
        (("run", "+", "--watch", "run"), "--watch goes before the first command of a chain"),
        (
            ("--watch", "--rehearse", "run"),
            "--rehearse and --watch do not go together; leave out one of them",
        ),
        (("-s", "--rehearse", "run"), "--rehearse needs the image of what it tries; leave out -s"),
    ],
)
def test_neither_option_is_overlooked(sandbox: Sandbox, words: tuple[str, ...], message: str) -> None:
    project(sandbox, "r", job("echo ran"))
    result = sandbox.run("-n", *words)
    assert (result.code, result.out, result.errors) == (2, "", [f"ERROR | {message}"])


@pytest.mark.engine
def test_inputs_that_the_image_holds_in_part_are_whole_in_the_container(sandbox: Sandbox) -> None:
    sandbox.write("data/notes.txt", "notes\n")
    sandbox.write("data/big/x.csv", "1\n")
    source = "cat data/notes.txt data/big/x.csv | tee out/all"
    read = job(source, inputs="[data/]", outputs="[out/]")
    project(sandbox, "r-part", read, ignores="[data/big]")
    result = sandbox.run("--rehearse", "run")
    assert (result.code, result.out) == (0, "notes\n1\n"), result


@pytest.mark.engine
def test_a_mapping_that_is_not_copied_is_announced(sandbox: Sandbox) -> None:
    outside = sandbox.root.parent / "outside"
    project(sandbox, "r-outside", job("echo 1 > /outside/x", mappings=f"['{outside}:/outside']"))
    result = sandbox.run("--rehearse", "run")
    assert f"WARN  | run: {outside} is not copied; what the rehearsal writes there stays" in result.err
    assert (outside / "x").exists()


# --- everywhere ---


@pytest.fixture
def read_only() -> Iterator[Sandbox]:
    """An ordinary user's place in a project that they may only read."""
    yield from make_sandbox(ORDINARY if os.getuid() == 0 else os.getuid())


@pytest.mark.parametrize("native", [True, pytest.param(False, marks=pytest.mark.engine)])
def test_a_project_that_can_only_be_read(read_only: Sandbox, name: str, native: bool) -> None:
    read_only.write("keep/log", "kept\n", 0o666)
    append = job("echo more >> keep/log; cat keep/log", "append", mappings="[keep/]")
    project(read_only, name, LOAD, COUNT, append, user="caller")
    (read_only.root / "keep").chmod(0o555)
    read_only.root.chmod(0o555)
    result = read_only.run(*(["-n"] if native else []), "--rehearse", "count", "+", "append")
    assert (result.code, result.out.split()[0], result.out.split()[-2:]) == (0, "3", ["kept", "more"]), result
    assert sorted(os.listdir(read_only.root)) == ["keep", "skelebot.yaml"]
    assert read_only.read("keep/log") == "kept\n"
    read_only.root.chmod(0o755)


@pytest.mark.engine
def test_an_environment_a_folder_below_and_an_engine_far_away(sandbox: Sandbox, name: str) -> None:
    """What an earlier rehearsal has saved there is not taken for the result of the next."""
    sandbox.write("skelebot-dev.yaml", "environment: {WHERE: dev}\n")
    sandbox.write("below/make.sh", 'test -n "$WHERE" && echo $WHERE | tee out/x\n')
    project(sandbox, name, job("below/make.sh", "make", outputs="[out/]"))
    with by_tcp(sandbox, name) as far:
        words = ("-d", far.env["DOCKER_HOST"], "-e", "dev", "--rehearse", "make")
        result = far.run(*words, cwd=sandbox.root / "below")
        assert (result.code, result.out) == (0, "dev\n"), result
        assert not (sandbox.root / "out").exists()
        sandbox.write("below/make.sh", "echo made nothing\n")
        result = far.run(*words, cwd=sandbox.root / "below")
        assert (result.code, result.out) == (1, "made nothing\n"), result
        assert "make ended with 0 but left nothing in out/" in result.err
        left = ("--quiet", "--filter", f"label=skelebot.project={name}")
        assert there("volume", "ls", *left) == there("ps", "--all", *left) == ""


@pytest.mark.engine
def test_no_name_of_an_image_stays_behind(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, LOAD)
    assert sandbox.run("--rehearse", "load").code == 0
    assert docker("images", "--format", "{{.Tag}}", name) == "latest"
    assert "Step" not in sandbox.run("load").err, "the image itself serves the project"
    assert sandbox.run("--rehearse", "load").code == 0
    assert len(docker("images", "--format", "{{.Tag}}", name).split()) == 2


CHECKED = """
class Make:
    def __init__(self, values):
        self.rows = values["rows"]
    def validate(self):
        print("checked", self.rows)
        if self.rows > int(open("limit").read()):
            raise ValueError("too many")
    def run(self):
        open("made/x", "w").write(str(self.rows))
"""


@pytest.mark.parametrize("native", [True, pytest.param(False, marks=pytest.mark.engine)])
def test_validations_with_needed_jobs_at_once(sandbox: Sandbox, name: str, native: bool) -> None:
    """All are reported before anything runs, of a rehearsal with the small values."""
    sandbox.write("src/tasks.py", CHECKED)
    sandbox.write("limit", "5")
    rows = {"params": "[{name: rows, type: int, default: 9}]", "rehearse": "{rows: 3}"}
    make = job("src/tasks.py:Make", "make", outputs="[made/]", **rows)
    other = job("echo 1 > other/x", "other", outputs="[other/]", validate="'test -e good'")
    project(sandbox, name, make, other, job("cat made/x other/x", "both", needs="[make, other]"))
    words = (*(["-n"] if native else []), "-j", "2")
    result = sandbox.run(*words, "both")
    assert (result.code, result.out) == (2, ""), result
    assert [line.split(":")[0] for line in result.errors] == ["ERROR | make", "ERROR | other"]
    sandbox.write("good", "")
    result = sandbox.run(*words, "--rehearse", "both")
    assert (result.code, result.out) == (0, "31\n"), result
    assert "checked 3" in result.err
    assert not (sandbox.root / "made/x").exists()
