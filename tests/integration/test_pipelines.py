"""Jobs that need others, and whether they have anything to do: runs from the outside, races and kills."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import BASE, SKELEBOT, Result, Sandbox, Terminal, docker, peak_memory, wait_for
from harness import job as any_job
from harness import project as any_project

DEAD = {"SKELEBOT_DOCKER": "/nowhere/docker", "DOCKER_HOST": "unix:///nowhere"}


@pytest.fixture
def box(sandbox: Sandbox) -> Sandbox:
    """A project whose jobs note in a file outside that they have run; Docker is not to be touched."""
    return sandbox.with_env(LOG=str(sandbox.root.parent / "log"), **DEAD)


def job(source: str, name: str, **keys: str) -> str:
    return any_job(f'echo {shlex.quote(name)} >> "$LOG"; {source}', name, **keys)


def project(box: Sandbox, *jobs: str, **keys: str) -> None:
    any_project(box, "p", *jobs, **keys)


def ran(box: Sandbox, *words: str, code: int = 0) -> list[str]:
    """The jobs that a command has run, in their order."""
    log = Path(box.env["LOG"])
    log.unlink(missing_ok=True)
    result = box.run("-n", *words)
    assert result.code == code, result
    assert "Traceback" not in result.err
    return log.read_text().split("\n")[:-1] if log.exists() else []


LOAD = job("cat in/* > data/a", "load", inputs="[in/]", outputs="[data/]")
TRAIN = job("cat data/* > models/m", "train", needs="[load]", inputs="[src/]", outputs="[models/]")
SCORE = job("wc -c < models/m > out/n.txt", "score", needs="[train]", inputs="[src/]", outputs="[out/n.txt]")


@pytest.fixture
def rain(box: Sandbox) -> Sandbox:
    """A pipeline of three jobs that has run."""
    box.write("in/a", "12\n")
    box.write("src/a.py", "1\n")
    project(box, LOAD, TRAIN, SCORE)
    assert ran(box, "score") == ["load", "train", "score"]
    return box


# --- the order ---


def test_what_is_needed_runs_before_each_once(box: Sandbox) -> None:
    jobs = [job("true", *each) for each in (["d"],)]
    jobs += [job("true", "b", needs="[d]"), job("true", "c", needs="[d]"), job("true", "a", needs="[b, c]")]
    project(box, *jobs)
    assert ran(box, "a") == ["d", "b", "c", "a"]
    assert ran(box, "b", "+", "c") == ["d", "b", "c"]
    assert ran(box, "a", "+", "a") == ["d", "b", "c", "a", "a"]
    assert ran(box, "-j", "4", "c", "+", "b", "+", "d") == ["d", "c", "b", "d"]
    assert ran(box, "--no-needs", "a") == ["a"]
    assert ran(box, "d") == ["d"]


def test_an_explicit_link_before_it_satisfies_a_need(box: Sandbox) -> None:
    load = job('echo "$2" > data/x', "load", outputs="[data/]", params="[{name: day, default: mon}]")
    project(box, load, job("cat data/x", "train", needs="[load]"))
    assert ran(box, "load", "--day", "tue", "+", "train") == ["load", "train"]
    assert box.read("data/x") == "tue\n"
    assert ran(box, "train", "+", "load", "--day", "wed") == ["load", "train", "load"]
    assert box.ok("-n", "train") == "mon\n"


def test_what_a_needed_job_lacks_is_found_before_anything_runs(box: Sandbox) -> None:
    jobs = [job("true", "a"), job("true", "b", inputs="[nosuch/]"), job("true", "c", needs="[a, b]")]
    project(box, *jobs)
    assert ran(box, "c", code=2) == []
    (error,) = box.run("-n", "c").errors
    assert "jobs[1].inputs[0]: nosuch/ does not exist and no job makes it" in error
    project(box, job("true", "a", inputs="['*.csv']", outputs="[data/]"))
    (error,) = box.run("-n", "a").errors
    assert "jobs[0].inputs[0]: *.csv does not exist and no job makes it" in error
    project(box, job("true", "a", inputs="['**/*.csv']"), job("true", "b", outputs="[data/]"))
    (error,) = box.run("-n", "a").errors
    assert "a reads **/*.csv, which b makes; run b first, or add it to the needs of a" in error
    project(box, job("true", "a"), any_job("b.py", "b"), jobs[2])
    assert ran(box, "c", code=2) == []


def test_a_failure_ends_the_chain_with_its_code(box: Sandbox) -> None:
    project(box, job("exit 3", "a"), job("true", "b", needs="[a]"), job("true", "c", needs="[b]"))
    assert ran(box, "c", code=3) == ["a"]
    assert "a ended with exit code 3; not run: b, c" in box.run("-n", "c").err


def test_without_needs(rain: Sandbox) -> None:
    assert ran(rain, "--no-needs", "--force", "score") == ["score"]
    rain.write("in/a", "345\n")
    assert ran(rain, "--no-needs", "train") == []
    assert ran(rain, "--no-needs", "load") == ["load"]
    assert ran(rain, "--no-needs", "train") == ["train"], "what is needed stays a part of the key"
    shutil.rmtree(rain.root / "models")
    assert ran(rain, "--no-needs", "score", code=2) == []
    (error,) = rain.run("-n", "--no-needs", "score").errors
    assert "score reads models, which train makes; run train first, or leave out --no-needs" in error


def test_odd_names_of_jobs(box: Sandbox) -> None:
    names = ["a b/ü", "größe", "*", "a'b", "why"]
    rows = [
        job("echo 1 > $OUT/x", n, outputs=f"[o{i}/]", environment=f"{{OUT: o{i}}}")
        for i, n in enumerate(names)
    ]
    rows = [
        row.replace(f"{{name: {n}", f"{{name: {json.dumps(n)}", 1) for row, n in zip(rows, names, strict=True)
    ]
    project(box, *rows, job("true", "all", needs=json.dumps(names)))
    assert ran(box, "all") == [*names, "all"]
    assert ran(box, "-j3", "all") == ["all"]
    assert [row["job"] for row in json.loads(box.ok("-n", "graph", "--json"))] == [*names, "all"]
    assert {path.name[:4] for path in (box.root / ".skelebot/jobs").iterdir()} == {"job-"}


def test_environments_and_a_chain_that_changes_the_version(box: Sandbox) -> None:
    box.write("VERSION", "1.0.0\n")
    box.write("in/a", "1\n")
    project(box, LOAD, TRAIN)
    box.write("src/a.py", "1\n")
    box.write("skelebot-dev.yaml", "environment: {MODE: dev}\n")
    assert ran(box, "-e", "dev", "train") == ["load", "train"]
    assert ran(box, "-e", "dev", "train") == []
    assert "variables: MODE gone" in box.ok("-n", "why", "train")
    assert ran(box, "train") == ["load", "train"]
    assert ran(box, "bump", "patch", "+", "train", "+", "bump", "patch", "+", "train") == []
    assert box.read("VERSION") == "1.0.2\n"
    box.write("in/a", "2\n")
    assert ran(box, "load", "+", "bump", "patch", "+", "train") == ["load", "train"]


# --- up to date ---


def test_nothing_to_do(rain: Sandbox) -> None:
    result = rain.run("-n", "score")
    assert (result.code, result.out) == (0, "")
    assert result.err == "".join(f"INFO  | {name} is up to date\n" for name in ("load", "train", "score"))
    assert rain.run("-n", "train", "+", "score").err.count("up to date") == 3
    assert ran(rain, "score", "+", "train") == []


def write(name: str, text: str) -> Callable[[Sandbox], object]:
    return lambda box: box.write(name, text)


def remove(name: str) -> Callable[[Sandbox], object]:
    return lambda box: (box.root / name).unlink()


@pytest.mark.parametrize(
    ("does", "expected", "why"),
    [
        (write("in/a", "21\n"), ["load", "train", "score"], "load: inputs: in/a changed"),
        (write("in/b", ""), ["load"], "load: inputs: in/b new"),  # no other result: the rest is left alone
        (write("src/b.py", ""), ["train", "score"], "train: inputs: src/b.py new"),
        (remove("models/m"), ["train"], "train: outputs: models/m gone"),
        (write("models/m", ""), ["train"], "train: outputs: models/m changed"),
        (write("models/more", ""), ["train", "score"], "train: outputs: models/more new"),
        (write("out/n.txt", "x"), ["score"], "score: outputs: out/n.txt changed"),
        (remove("out/n.txt"), ["score"], "score: outputs: out/n.txt gone"),
        (write("out/other.txt", "x"), [], ""),
        (write("notes", ""), [], ""),
    ],
)
def test_what_has_changed_runs_and_why_says_it(
    rain: Sandbox, does: Callable[[Sandbox], object], expected: list[str], why: str
) -> None:
    does(rain)
    name, _, line = why.partition(": ")
    if name:
        assert rain.ok("-n", "why", name).splitlines()[0] == line
    assert ran(rain, "score") == expected
    assert ran(rain, "score") == []
    assert rain.ok("-n", "why", "score") == "nothing changed: score is up to date\n"


def test_what_is_no_reason_to_run(rain: Sandbox) -> None:
    for folder, _, names in os.walk(rain.root):
        for name in names:
            os.utime(os.path.join(folder, name), (0, 0))
    project(rain, LOAD.replace("help: h", "help: other, timeout: 1m"), TRAIN, SCORE, job("true", "new"))
    rain.write("src/__pycache__/a.pyc", "x")
    assert ran(rain, "-V", "score") == []
    assert ran(rain, "--skip-build", "train") == ["load", "train"], "-s says nothing of the image"
    assert ran(rain, "score") == ["load", "train"]


def test_force(rain: Sandbox) -> None:
    assert ran(rain, "--force", "score") == ["score"]
    assert ran(rain, "--force-all", "score") == ["load", "train", "score"]
    assert ran(rain, "--force", "train", "+", "score") == ["train", "score"]
    assert ran(rain, "score") == []


def test_the_values_count_and_secrets_are_stored_nowhere(box: Sandbox) -> None:
    params = "[{name: rate, default: 1}, {name: token, secret: true}]"
    source = "echo $2 > out/x"
    project(box, job(source, "run", outputs="[out/]", params=params), environment="{KEY: null}")
    box = box.with_env(KEY="my-k3y")
    words = ("run", "--token", "hunter2")
    assert ran(box, *words) == ["run"]
    assert ran(box, *words) == ran(box, "run", "--rate", "1", "--token=hunter2") == []
    changed = box.ok("-n", "why", "run", "--token", "other")
    assert changed == "arguments: another secret in --rate 1 --token '***'\n"
    assert box.ok("-n", "why", "run").splitlines() == ["arguments: --rate 1; before: --rate 1 --token '***'"]
    assert box.with_env(KEY="other").ok("-n", "why", *words) == "variables: KEY changed\n"
    assert (
        ran(
            box,
            *words,
        )
        == []
    )
    for path in (box.root / ".skelebot").rglob("*"):
        stored = path.read_bytes() if path.is_file() else b""
        assert b"hunter2" not in stored
        assert b"my-k3y" not in stored
    assert ran(box, "run", "--token", "hunter3") == ["run"]


def test_a_checkout_there_and_back_finds_its_state(rain: Sandbox) -> None:
    rain.write(".gitignore", "data\nmodels\nout\nskelebot.yaml\n")
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@y", "-c", "core.hooksPath=/dev/null")

    def run(*words: str) -> None:
        with rain.popen(*git, *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            assert child.wait() == 0

    run("init", "-b", "main")
    run("add", ".")
    run("commit", "-m", "1")
    run("checkout", "-b", "other")
    rain.write("src/a.py", "22\n")
    run("commit", "-am", "2")
    assert "src/a.py changed" in rain.ok("-n", "why", "train")
    run("checkout", "main")
    assert ran(rain, "score") == []


def test_two_checkouts_know_nothing_of_each_other(rain: Sandbox) -> None:
    other = rain.root.parent / "other"
    shutil.copytree(rain.root, other, ignore=shutil.ignore_patterns(".skelebot"))
    Path(rain.env["LOG"]).unlink()
    assert rain.run("-n", "load", cwd=other).code == 0
    assert Path(rain.env["LOG"]).read_text() == "load\n"
    assert ran(rain, "score") == []
    moved = rain.root.rename(rain.root.parent / "moved")
    assert "up to date" in rain.run("-n", "score", cwd=moved).err


def test_what_is_remembered_may_be_deleted(rain: Sandbox) -> None:
    shutil.rmtree(rain.root / ".skelebot")
    assert rain.ok("-n", "why", "train") == "train has no success on record here\n"
    assert ran(rain, "score") == ["load", "train", "score"]
    for path in (rain.root / ".skelebot/jobs").iterdir():
        path.write_bytes(b"\xff{")
    assert ran(rain, "train") == ["load", "train"]
    assert ran(rain, "train") == []


# --- runs that do not end well ---


@pytest.mark.parametrize("source", ["exit 1", "sleep 60", "kill -9 $$"])
def test_a_failed_run_leaves_the_job_outdated(box: Sandbox, source: str) -> None:
    """Although it has changed nothing."""
    box.write("in/a", "1")
    run = job(f'cp in/a out/; test -z "$FAIL" || {source}', "run", inputs="[in/]", outputs="[out/]")
    project(box, run.replace("help: h", "help: h, timeout: 2s" if "sleep" in source else "help: h"))
    assert ran(box, "run") == ["run"]
    code = {"exit 1": 1, "sleep 60": 124}.get(source, 137)
    assert ran(box.with_env(FAIL="1"), "--force", "run", code=code) == ["run"]
    assert ran(box, "run") == ["run"]
    assert ran(box, "run") == []


def test_a_run_that_saw_another_value_than_is_there_at_its_end_does_not_count(box: Sandbox) -> None:
    box.write("../run.env", "A=1\n")
    source = "echo $A > out/a; echo A=2 > ../run.env"
    project(box, job(source, "run", inputs="[]", outputs="[out/]", envFile="../run.env"))
    result = box.run("-n", "run")
    assert "run will run again, because this changed while it ran: variables" in result.err
    assert ran(box, "run") == ["run"]
    assert box.read("out/a") == "2\n"
    assert ran(box, "run") == []


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_the_job_outdated(box: Sandbox, signum: int) -> None:
    box.write("in/a", "1")
    wait = 'test -z "$WAIT" || { touch ../begun; exec sleep 60; }'
    project(box, job(f"cp in/a out/; {wait}", "run", inputs="[in/]", outputs="[out/]"))
    assert ran(box, "run") == ["run"]
    child = box.with_env(WAIT="1").start("-n", "--force", "run", start_new_session=True)
    wait_for((box.root.parent / "begun").exists)
    os.kill(child.pid, signum)
    assert child.wait() in (-9, 128 + signum)
    if signum == signal.SIGKILL:
        os.killpg(child.pid, signal.SIGKILL)
    assert box.ok("-n", "why", "run").startswith("run has no success on record here")
    assert ran(box, "run") == ["run"]
    assert ran(box, "run") == []


@pytest.mark.parametrize(
    ("outputs", "source", "names"),
    [
        ("[out/]", "true", "out/"),
        ("[out/]", "mkdir out/empty", "out/"),
        ("[out/m.txt]", "touch out/n.txt", "out/m.txt"),
        ("[out/m.txt]", "mkdir out/m.txt", "out/m.txt"),
        ("[a/, b/, c/d.txt]", "touch b/x", "a/, c/d.txt"),
        ("[out/]", "rmdir out; touch out", "out/"),
    ],
)
def test_an_output_that_is_missing_is_a_failure(box: Sandbox, outputs: str, source: str, names: str) -> None:
    project(box, job(source, "run", outputs=outputs), job("true", "next", needs="[run]"))
    assert ran(box, "next", code=1) == ["run"]
    subprocess.run(["rm", "-rf", box.root / "out"], check=True)
    errors = box.run("-n", "run").errors
    place = "skelebot.yaml:4:3: jobs[0].outputs"
    assert errors == [f"ERROR | {place}: run ended with 0 but left nothing in {names}"]


def test_files_that_change_while_the_job_runs(box: Sandbox) -> None:
    """Also where they are changed back: nobody knows which content the job has read."""
    box.write("in/a", "1")
    box.write(
        "s.py", "import os\nopen('out/x', 'w').write(open('in/a').read())\nos.system(os.environ['DO'])\n"
    )
    any_project(box, "p", any_job("s.py", "run", inputs="[in/]", outputs="[out/]"))
    for does, shown in (
        ("echo 2 > in/a", "in/a changed"),
        ("cp in/a b; echo 3 > in/a; cat b > in/a; rm b", "in/a changed"),
        ("touch in/new", "in/new new"),
        ("echo >> s.py", "s.py changed"),
        ("cp s.py t; echo >> s.py; cat t > s.py; rm t", "s.py changed"),
    ):
        result = box.with_env(DO=does).run("-n", "--force", "run")
        assert result.code == 0, result
        assert f"run will run again, because this changed while it ran: {shown}" in result.err
        assert box.ok("-n", "why", "run").startswith("run has no success on record here")
    quiet = box.with_env(DO="touch out/more undeclared")
    assert quiet.run("-n", "run").err == ""
    assert "run is up to date" in quiet.run("-n", "run").err


def test_what_a_needed_job_made_changes_while_the_job_runs(rain: Sandbox) -> None:
    touch = 'test -z "$DO" || { cp data/a b; echo 9 > data/a; cat b > data/a; }; cat data/* > models/m'
    project(rain, LOAD, job(touch, "train", needs="[load]", inputs="[src/]", outputs="[models/]"))
    result = rain.with_env(DO="1").run("-n", "train")
    assert "train will run again, because this changed while it ran: data/a changed" in result.err
    assert ran(rain, "train") == ["train"]
    assert ran(rain, "train") == []


def test_two_runs_at_once_make_nothing_up_to_date(box: Sandbox) -> None:
    source = 'touch ../begun; while [ -n "$WAIT" ] && [ ! -e ../go ]; do sleep 0.05; done; echo $1 > out/x'
    project(box, job(source, "run", outputs="[out/]", args="[{name: n}]"))
    first = box.with_env(WAIT="1").start("-n", "run", "1", stderr=subprocess.PIPE)
    wait_for((box.root.parent / "begun").exists)
    second = box.run("-n", "run", "2")
    (box.root.parent / "go").touch()
    _, err = first.communicate()
    assert (first.returncode, second.code) == (0, 0)
    for shown in (second.err, err.decode()):
        assert "could not be recorded: another run of it went on at the same time" in shown
    for value in "12":
        assert "has no success on record here" in box.ok("-n", "why", "run", value)
    assert ran(box, "run", "1") == ["run"]
    assert ran(box, "run", "1") == []


# --- files that are odd ---


def test_unreadable_files(anyone: Sandbox) -> None:
    box = anyone.with_env(LOG=str(anyone.root.parent / "home/log"), **DEAD)
    if box.uid == 0:
        pytest.skip("root can read everything")
    closed = box.write("in/closed", "1", 0)
    project(box, job("echo 1 > out/x", "run", inputs="[in/]", outputs="[out/]"))
    for _ in range(2):
        assert ran(box, "run") == ["run"]
    assert "in/closed cannot be read: permission denied" in box.ok("-n", "why", "run")
    assert "in/closed cannot be read" in box.run("-n", "run").err
    closed.chmod(0o644)
    assert ran(box, "run") == ["run"]
    assert ran(box, "run") == []
    (box.root / "in").chmod(0)
    assert ran(box, "run", code=1) == []
    (box.root / "in").chmod(0o755)
    (box.root / "out/x").chmod(0)
    assert ran(box, "run", code=1) == ["run"]  # it cannot be written either


def test_links(box: Sandbox) -> None:
    box.write("../disk/a", "1")
    box.write("src/a.py", "1")
    box.write("real", "1")
    for link, target in (
        *(("in", "../disk"), ("one", "../disk/a"), ("models", "../disk"), ("latest", "out")),
        *(("src/real", "../real"), ("far/disk", "../../disk")),
    ):
        (box.root / link).parent.mkdir(exist_ok=True)
        (box.root / link).symlink_to(target)
    rows = [
        job("cp in/a out/; ln -sf ../in/a out/link", "folder", inputs="[in/]", outputs="[out/]"),
        job("cp one out1/", "file", inputs="[one]", outputs="[out1/]"),
        job("cp -L src/real out2/", "below", inputs="[src/]", outputs="[out2/]"),
        job("cat one > models/made.txt", "made", inputs="[one]", outputs="[models/made.txt]"),
        job("touch out3/x", "all", outputs="[out3/]"),
        job("touch out4/x", "far", inputs="[far/]", outputs="[out4/]"),
    ]
    project(box, *rows, ignores="[in, models]")
    names = ("folder", "+", "file", "+", "below", "+", "made")
    assert ran(box, *names) == ["folder", "file", "below", "made"]
    assert ran(box, "file", "+", "below", "+", "made") == []
    box.write("../disk/a", "2")
    assert ran(box, "file", "+", "below", "+", "made") == ["file", "made"]
    box.write("real", "2")
    assert ran(box, "below") == ["below"]
    (box.root / "out/a").unlink()
    (box.root / "out/a").symlink_to("../in/a")
    assert ran(box, "folder") == ["folder"]
    for name, code in (("all", 0), ("far", 1)):
        result = box.run("-n", name)
        assert result.code == code
        assert "the link far/disk leads to a folder outside the project; move that" in result.err
    assert "the link far/disk leads" in box.ok("-n", "why", "all")


def test_a_project_that_can_not_be_written_to(anyone: Sandbox) -> None:
    box = anyone.with_env(LOG=str(anyone.root.parent / "home/log"), **DEAD)
    if box.uid == 0:
        pytest.skip("root can write everywhere")
    box.write("in/a", "1")
    box.write("out/x", "1")
    project(box, job("echo 1 > out/x", "run", inputs="[in/]", outputs="[out/]"))
    box.root.chmod(0o555)
    assert ran(box, "run") == ["run"]
    assert ran(box, "run") == []
    box.root.chmod(0o755)


@pytest.fixture
def tiny(box: Sandbox) -> Iterator[Path]:
    """A disk of 256 KB in the place of `.skelebot`."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    folder = box.root / ".skelebot"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    with open(folder / "fill", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


def test_a_full_disk_costs_a_run(box: Sandbox, tiny: Path) -> None:
    box.write("in/a", "1")
    source = 'cat in/a | tee out/{1..500} > /dev/null; eval "$DO"'
    project(box, job(source, "run", inputs="[in/]", outputs="[out/]"))
    assert ran(box, "run") == ["run"]
    assert ran(box, "run") == []
    fill(tiny)
    assert ran(box, "run") == []
    result = box.with_env(DO="cat /dev/zero > .skelebot/more || true").run("-n", "--force", "run")
    assert (result.code, result.errors) == (0, [])
    assert (
        "WARN  | run will run again, because its success could not be recorded: no space left" in result.err
    )
    assert box.ok("-n", "why", "run").startswith("run has no success on record here")
    (tiny / "fill").unlink()
    (tiny / "more").unlink()
    assert ran(box, "run") == ["run"]
    assert ran(box, "run") == []
    fill(tiny)
    assert ran(box.with_env(DO="exit 4"), "--force", "run", code=4) == ["run"]
    assert ran(box, "run") == ["run"], "the failure counts, though there was no room for it"


def test_a_clock_that_was_set_back(box: Sandbox) -> None:
    """Files from the future are no reason to trust less, or more, than their content."""
    box.write("in/a", "1")
    project(box, job("cp in/a out/x", "run", inputs="[in/]", outputs="[out/]"))
    ahead = time.time() + 10**6
    os.utime(box.root / "in/a", (ahead, ahead))
    assert ran(box, "run") == ["run"]
    os.utime(box.root / "out/x", (ahead, ahead))
    assert ran(box, "run") == []
    box.write("in/a", "2")
    os.utime(box.root / "in/a", (ahead, ahead))
    assert ran(box, "run") == ["run"]
    box.write("out/x", "3")
    os.utime(box.root / "out/x", (ahead, ahead))
    assert ran(box, "run") == ["run"]


def test_what_is_remembered_of_former_patterns_goes(box: Sandbox) -> None:
    box.write("in/a", "1")
    project(box, job("cp in/a out/x", "run", outputs="[out/]"), ignores="[former]")
    time.sleep(2.1)  # what has just changed is not remembered
    assert ran(box, "graph") == []
    former = {path.name for path in (box.root / ".skelebot").glob("files.*.stats")}
    assert former
    for each in former:
        os.utime(box.root / ".skelebot" / each, (1, 1))
    box.write("skelebot.yaml", box.read("skelebot.yaml").replace("former", "later"))
    time.sleep(2.1)
    assert ran(box, "graph") == []
    assert not former & {path.name for path in (box.root / ".skelebot").glob("files.*.stats")}


def test_very_many_inputs(box: Sandbox) -> None:
    folder = box.root / "in"
    for n in range(100):
        (folder / f"{n:02}").mkdir(parents=True)
        for i in range(1000):
            os.close(os.open(folder / f"{n:02}/{i:03}", os.O_CREAT | os.O_WRONLY))
    project(box, job("echo 1 > out/x", "run", inputs="[in/]", outputs="[out/]"))
    assert peak_memory(box, "-n", "run") < 400
    assert peak_memory(box, "-n", "run") < 250
    (folder / "07/123").write_text("1")
    assert box.ok("-n", "why", "run") == "inputs: in/07/123 changed\n"


# --- -j ---

TALK = 'for i in 1 2 3; do echo "$0 out $i"; echo "$0 err $i" >&2; sleep 0.05; done'


def test_lines_have_the_jobs_names_before_them(box: Sandbox) -> None:
    jobs = [job(TALK, name) for name in ("a", "long name")]
    project(box, *jobs, job("echo plain; echo plain >&2", "z", needs="[a, long name]"))
    result = box.run("-n", "-j", "2", "z")
    lines = [f"{name:<9} | {name} %s {i}" for name in ("a", "long name") for i in (1, 2, 3)]
    assert sorted(result.out.splitlines()) == sorted([*(line % "out" for line in lines), "plain"])
    assert sorted(result.err.splitlines()) == sorted([*(line % "err" for line in lines), "plain"])
    assert "a         | a out 1" in result.out.splitlines()[:2], "they run at the same time"


def test_lines_on_a_terminal_have_colours(box: Sandbox) -> None:
    project(box, job("printf 'no end'", "a"), job("echo b", "b"), job("true", "z", needs="[a, b]"))
    for variables, shown in (("", "\x1b[36ma | \x1b[0mno end\r\n"), ("NO_COLOR=1 ", "a | no end\r\n")):
        terminal = Terminal(box, f"{variables}{SKELEBOT} -n -j2 z; echo done")
        terminal.expect("done")
        assert terminal.close() == 0
        assert shown in terminal.output.decode()
    # Only one of the two is a terminal.
    terminal = Terminal(box, f"{SKELEBOT} -n -j2 z 2>&1 | cat; echo done")
    terminal.expect("done")
    assert terminal.close() == 0
    assert b"a | no end\r\n" in terminal.output


def test_odd_lines(box: Sandbox) -> None:
    rows = [
        job(r"printf 'a\nb'; printf 'c\n\n\377\n'", "bytes"),
        job("head -c 300000 /dev/zero | tr '\\0' x", "long"),
        job("true", "none"),
    ]
    project(box, *rows, job("true", "z", needs="[bytes, long, none]"))
    with box.start("-n", "-j3", "z", stdout=subprocess.PIPE) as child:
        out, _ = child.communicate()
    assert sorted(out.split(b"\n")) == sorted(
        [b"", b"bytes | a", b"bytes | bc", b"bytes | ", b"bytes | \xff", b"long  | " + b"x" * 300000]
    )


def test_a_failure_lets_the_running_ones_end_and_starts_none(box: Sandbox) -> None:
    rows = [
        job("exit 5", "bad"),
        job("sleep 0.6; touch ../ended; exit 6", "slow"),
        job("true", "third"),
        job("true", "after", needs="[bad]"),
    ]
    project(box, *rows, job("true", "z", needs="[bad, slow, third, after]"))
    assert ran(box, "-j2", "z", code=5)[2:] == []
    assert (box.root.parent / "ended").exists()
    result = box.run("-n", "-j2", "z")
    assert result.code == 5
    assert "bad ended with exit code 5" in result.errors[0]
    assert result.errors[-1] == "ERROR | not run: third, after, z"


def test_at_most_so_many_run_at_once_and_a_diamond_waits(box: Sandbox) -> None:
    count = "mkdir ../on/$0; ls ../on | wc -l >> ../counts; sleep 0.3; rmdir ../on/$0"
    rows = [job(f"test -e ../bottom && {count}", f"n{i}", needs="[bottom]") for i in range(5)]
    project(
        box,
        *rows,
        job(f"{count}; touch ../bottom", "bottom"),
        job("true", "top", needs="[n0, n1, n2, n3, n4]"),
    )
    (box.root.parent / "on").mkdir()
    order = ran(box, "-j3", "top")
    assert (order[0], sorted(order[1:-1]), order[-1]) == ("bottom", ["n0", "n1", "n2", "n3", "n4"], "top")
    counts = [int(line) for line in (box.root.parent / "counts").read_text().split()]
    assert max(counts) in (2, 3)


def test_jobs_at_once_are_up_to_date_too(box: Sandbox) -> None:
    rows = [job("echo 1 > $0/x", name, outputs=f"[{name}/]", inputs="[in]") for name in "abc"]
    box.write("in", "1")
    project(box, *rows, job("true", "z", needs="[a, b, c]"))
    assert sorted(ran(box, "-j3", "z")) == ["a", "b", "c", "z"]
    assert ran(box, "-j3", "z") == ["z"]
    box.write("b/x", "2")
    assert ran(box, "-j3", "z") == ["b", "z"]
    project(box, *rows, job("true", "d", outputs="[d/]"), job("true", "z", needs="[a, d]"))
    result = box.run("-n", "-j2", "z")
    assert result.code == 1
    assert result.errors[0].startswith("ERROR | d: skelebot.yaml:")
    assert "d ended with 0 but left nothing in d/" in result.errors[0]


SLEEP = "trap 'echo \"$0 got it\"; exit 9' INT TERM; touch ../$0; while :; do sleep 0.05; done"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_all_and_leaves_nothing_running(box: Sandbox, signum: signal.Signals) -> None:
    """Also one for Skelebot alone, as `kill` sends it."""
    project(box, job(SLEEP, "a"), job(SLEEP, "b"), job("true", "z", needs="[a, b]"))
    child = box.start(
        "-n", "-j2", "z", stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    wait_for(lambda: all((box.root.parent / name).exists() for name in "ab"))
    child.send_signal(signum)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 128 + signum
    assert sorted(out.decode().splitlines()) == ["a | a got it", "b | b got it"]
    assert b"not run: z" in err
    assert b"Traceback" not in err
    assert not Path(f"/proc/{child.pid}").exists()
    assert subprocess.run(["pgrep", "-s", str(child.pid)], check=False, stdout=subprocess.PIPE).stdout == b""


def test_ctrl_c_reaches_all(box: Sandbox) -> None:
    project(box, job(SLEEP, "a"), job(SLEEP, "b"), job("true", "z", needs="[a, b]"))
    terminal = Terminal(box, f"{SKELEBOT} -n -j2 z; echo status $?")
    wait_for(lambda: all((box.root.parent / name).exists() for name in "ab"))
    terminal.send(b"\x03")
    terminal.expect("status 130")
    terminal.close()
    shown = terminal.output.decode()
    assert "a got it" in shown
    assert "b got it" in shown
    assert "Traceback" not in shown
    assert Path(box.env["LOG"]).read_text().split() in (["a", "b"], ["b", "a"])


@pytest.mark.parametrize("how", ["closed", "left"])
def test_nobody_who_reads_the_output(box: Sandbox, how: str) -> None:
    """The others end before Skelebot does."""
    rows = [job("sleep 0.3; echo 1 > slow/x", "slow", outputs="[slow/]"), job(TALK, "talk")]
    project(box, *rows, job("true", "z", needs="[slow, talk]"))
    shell = f"{SKELEBOT} -n -j2 z"
    shell += " >&-" if how == "closed" else " | true; exit ${PIPESTATUS[0]}"
    with box.popen("bash", "-c", shell, stderr=subprocess.PIPE) as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == (0 if how == "closed" else 141)
    assert b"Traceback" not in err
    assert box.read("slow/x") == "1\n"
    assert "up to date" in box.run("-n", "slow").err


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "10000"])
def test_a_wrong_number_of_jobs(box: Sandbox, value: str) -> None:
    project(box, job("true", "a"))
    result = box.run("-n", f"--jobs={value}", "a")
    assert result.code == 2
    expected = f"--jobs: expected a whole number from 1 to 9999; found {value!r}"
    assert result.errors == [f"ERROR | {expected}"]


# --- questions ---


def test_a_dry_run_shows_an_input_that_is_not_made_yet(box: Sandbox) -> None:
    """Also of a job that the one which reads it does not need directly."""
    first = job("true", "first", outputs="[data/]")
    second = job("true", "second", needs="[first]", outputs="[mid/]")
    project(box, first, second, job("true", "third", needs="[second]", inputs="[data/]"))
    third = box.ok("--dry-run", "third").partition("\nthird\n")[2]
    assert f"mapping  {box.root}/data -> /app/data:ro" in third
    assert f"mapping  {box.root}/mid -> /app/mid:ro" in third


def test_graph(rain: Sandbox) -> None:
    rain.write("src/new", "")
    project(rain, SCORE, TRAIN, LOAD, job("true", "day", args="[{name: when}]"), job("true", "free"))
    expected = [
        {"job": "load", "needs": [], "up_to_date": True, "why": []},
        {"job": "train", "needs": ["load"], "up_to_date": False, "why": ["inputs: src/new new"]},
        {"job": "score", "needs": ["train"], "up_to_date": False, "why": ["train may change what it reads"]},
        {"job": "day", "needs": [], "up_to_date": False, "why": ["takes when"]},
        {"job": "free", "needs": [], "up_to_date": False, "why": ["free has no outputs, so it always runs"]},
    ]
    assert json.loads(rain.ok("-n", "graph", "--json")) == expected
    assert json.loads(rain.ok("-n", "graph", "train", "--json")) == expected[:2]
    assert rain.ok("-n", "graph").splitlines()[:3] == [
        "load                up to date",
        "train  needs load   inputs: src/new new",
        "score  needs train  train may change what it reads",
    ]
    result = rain.run("-n", "graph", "trian")
    assert (result.code, result.errors) == (
        2,
        ["ERROR | there is no job named 'trian'; did you mean `train`?"],
    )
    assert ran(rain, "graph") == []


def test_a_dry_run_says_why(rain: Sandbox) -> None:
    assert rain.ok("-n", "--dry-run", "score") == "".join(
        f"{n}\n  up to date\n" for n in ("load", "train", "score")
    )
    rain.write("in/b", "")
    assert ran(rain, "--dry-run", "-j2", "score") == []
    shown = rain.ok("-n", "--dry-run", "score")
    assert re.findall(r"^\w+|  because .*", shown, re.MULTILINE) == [
        "load",
        "  because  inputs: in/b new",
        "train",
        "  because  load may change what it reads",
        "score",
        "  because  train may change what it reads",
    ]
    assert ran(rain, "score") == ["load"]
    assert "because  --force\n" in rain.ok("-n", "--dry-run", "--force", "score")
    assert rain.ok("-n", "--dry-run", "--force-all", "score").count("because  --force-all") == 3


def test_a_files_name_forges_no_line_of_why(box: Sandbox) -> None:
    project(box, job("echo > data/x", "load", inputs="[in/]", outputs="[data/]"))
    box.write("in/a", "1")
    ran(box, "load")
    box.write("in/b\nnothing changed: \x1b[2J", "2")
    line = r"inputs: in/b\nnothing changed: \x1b[2J new"
    assert box.run("-n", "why", "load").out == f"{line}\n"
    assert box.run("-n", "--dry-run", "load").out.splitlines()[-1] == f"  because  {line}"


def test_why(rain: Sandbox) -> None:
    assert rain.ok("-n", "why", "train") == "nothing changed: train is up to date\n"
    assert rain.ok("-n", "--force", "why", "train") == "--force\n"
    rain.write("skelebot-dev.yaml", "environment: {A: 1}\n")
    rain.write("src/b.py", "")
    rain.write("data/b", "")
    rain.write("models/m", "other")
    project(
        rain,
        LOAD,
        TRAIN.replace("cat data", "cat  data").replace("help: h", "help: h, mappings: [c/]"),
        SCORE,
    )
    assert rain.ok("-n", "-e", "dev", "why", "train").splitlines() == [
        "source: changed",
        "inputs: src/b.py new",
        "variables: A new",
        "mappings: c:/app/c models:/app/models data:/app/data:ro; before: "
        "models:/app/models data:/app/data:ro",
        "needed outputs: load changed",
        "outputs: models/m changed",
    ]
    for words, what in (
        (["why"], "missing argument: the job"),
        (["why", "trian"], "did you mean `train`"),
        (["why", "graph"], "graph is not a job"),
        (["why", "train", "--x"], "--x"),
    ):
        result = rain.run("-n", *words)
        assert result.code == 2
        assert what in result.errors[0]
    assert "usage: skelebot train" in rain.run("-n", "why", "train", "x").errors[0]


def test_package_holds_the_outputs(rain: Sandbox) -> None:
    project(rain, LOAD, TRAIN, SCORE, components="{package: {path: p.zip}}")
    rain.ok("-n", "package")
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", rain.root / "p.zip"], capture_output=True, check=True
    )
    assert {"data/a", "models/m", "out/n.txt"} <= set(listed.stdout.decode().split())


# --- in Docker ---


@pytest.mark.engine
def test_what_is_needed_is_mapped_read_only_whatever_the_image_leaves_out(
    sandbox: Sandbox, name: str
) -> None:
    sandbox.write("in/a", "1\n")
    rows = [
        any_job("cp in/a data/", "load", inputs="[in/]", outputs="[data/]"),
        any_job(
            "cat data/a in/a > models/m.txt; touch data/x in/x 2>&1 || echo refused",
            "train",
            needs="[load]",
            inputs="[in/, data/]",
            outputs="[models/m.txt]",
        ),
        any_job("ls; cat models/m.txt", "show", needs="[train]"),
    ]
    any_project(sandbox, name, *rows, ignores="[data, models, in]", ephemeral="true")
    result = sandbox.run("show")
    assert result.code == 0, result
    assert "refused" in result.out
    assert result.out.endswith("1\n1\n")
    assert sandbox.read("models/m.txt") == "1\n1\n"
    assert not (sandbox.root / "data/x").exists()
    again = sandbox.run("train")
    assert (again.code, again.out) == (0, "")
    assert "train is up to date" in again.err


@pytest.mark.engine
def test_each_place_has_keys_of_its_own_and_no_image_is_built_for_an_output(
    sandbox: Sandbox, name: str
) -> None:
    sandbox.write("in/a", "1\n")
    rows = [
        any_job("cp in/a data/", "load", outputs="[data/]"),
        any_job("cat data/a > models/m", "train", needs="[load]", outputs="[models/]"),
    ]
    any_project(sandbox, name, *rows)
    assert sandbox.ok("-n", "train") == ""
    native = {p: sandbox.read(p) for p in ("data/a", "models/m")}
    result = sandbox.run("train")
    assert "up to date" not in result.err
    assert {p: sandbox.read(p) for p in ("data/a", "models/m")} == native
    built = docker("images", "-q", f"{name}:latest")
    for flags in ([], ["-n"]):
        assert sandbox.run(*flags, "train").err.count("is up to date") == 2
    sandbox.write("data/a", "2\n")
    sandbox.write("models/m", "2\n")
    assert "up to date" not in sandbox.run("train").err
    assert docker("images", "-q", f"{name}:latest") == built
    assert sandbox.run("train").err.count("is up to date") == 2
    assert "Dockerfile" in os.listdir(sandbox.root)


@pytest.mark.engine
def test_the_image_is_a_part_of_the_key(sandbox: Sandbox, name: str) -> None:
    run = any_job("echo 1 > out/x", outputs="[out/]", inputs="[in]")
    sandbox.write("in", "1")
    base = f"{name}-base:1"
    try:
        docker("tag", BASE, base)
        any_project(sandbox, name, run, baseImage=base)
        sandbox.ok("run")
        assert "run is up to date" in sandbox.run("run").err
        build = f"printf 'FROM {BASE}\\nLABEL other=1\\n' | docker build -q -t {base} -"
        subprocess.run(["bash", "-c", build], check=True, capture_output=True)
        assert sandbox.ok("why", "run") == "base image: changed\n"
        any_project(sandbox, name, run, baseImage=base, commands="[echo more]")
        assert "image: changed" in sandbox.ok("why", "run")
        any_project(
            sandbox, name, run, baseImage=base, description="other", maintainer="me", ports="['80:80']"
        )
        assert sandbox.ok("why", "run") == "base image: changed\n"
    finally:
        docker("rmi", "-f", base, check=False)


@pytest.mark.engine
def test_containers_at_once(sandbox: Sandbox, name: str) -> None:
    rows = [any_job(f"echo $0; echo $0 >&2; hostname > {n}/x", n, outputs=f"[{n}/]") for n in "ab"]
    any_project(sandbox, name, *rows, any_job("cat a/x b/x", "z", needs="[a, b]"))
    result = sandbox.run("-j2", "z")
    assert result.code == 0, result
    lines = result.out.splitlines()
    assert sorted(lines[:2]) == ["a | a", "b | b"]
    assert {"a | a", "b | b"} <= set(result.err.splitlines())
    assert lines[2] != lines[3]
    assert sandbox.run("-j2", "z").err.count("is up to date") == 2


@pytest.mark.engine
def test_ctrl_c_leaves_no_container(sandbox: Sandbox, name: str) -> None:
    rows = [any_job(f"touch {n}/x; exec sleep 600", n, outputs=f"[{n}/]") for n in "ab"]
    any_project(sandbox, name, *rows, any_job("true", "z", needs="[a, b]"))
    with sandbox.start("-j2", "z", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        wait_for(lambda: all((sandbox.root / n / "x").exists() for n in "ab"), 120)
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 143, err
    assert docker("ps", "-aq", "--filter", f"label=skelebot.project={name}") == ""
    for n in "ab":
        assert "has no success on record here" in sandbox.ok("why", n)


@pytest.mark.engine
def test_a_published_image_holds_the_outputs(sandbox: Sandbox, name: str) -> None:
    rows = [any_job("echo 1 > out/x", outputs="[out/]"), any_job("ls out 2>&1", "look")]
    any_project(sandbox, name, *rows)
    sandbox.ok("run")
    assert "No such file" in sandbox.run("look").out
    sandbox.ok("prime", "-o", "image.tar")
    docker("load", "-i", str(sandbox.root / "image.tar"))
    found: Result | str = docker("run", "--rm", f"{name}:latest", "cat", "/app/out/x")
    assert found == "1"


@pytest.mark.engine
def test_a_signal_ends_the_builds_of_jobs_at_once(sandbox: Sandbox, name: str) -> None:
    jobs = [any_job(f"echo > {each}/x", each, outputs=f"[{each}/]") for each in ("a", "b")]
    commands = "['echo begun; sleep 300']"
    any_project(sandbox, name, *jobs, any_job("true", "c", needs="[a, b]"), commands=commands)
    log = sandbox.root.parent / "log"
    with open(log, "wb") as stderr:
        child = sandbox.start("-j", "2", "c", stderr=stderr)
    wait_for(lambda: "\nbegun" in log.read_text())
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 143
    assert [line for line in log.read_text().splitlines() if line.startswith("ERROR")] == [
        "ERROR | not run: c"
    ]
