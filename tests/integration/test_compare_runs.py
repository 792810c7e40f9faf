"""Runs are compared, repeated exactly, taken out of the store, moved and removed."""

import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import SKELEBOT, Sandbox, Terminal, docker, job, project

LOAD = job("load.sh", "load", native="always", outputs="[data/]")
TRAIN = job(
    "train.sh",
    "train",
    native="always",
    outputs="[models/]",
    mappings="[data/:ro]",
    params="[{name: rate, default: 0.1}]",
)


@pytest.fixture
def demo(sandbox: Sandbox) -> Sandbox:
    """A project whose jobs make the same each time, in a git repository."""
    project(sandbox, "demo", LOAD, TRAIN)
    sandbox.write("load.sh", "echo 1,2 >data/x.csv\n")
    sandbox.write(
        "train.sh", 'cat data/x.csv >models/m.txt; echo "$@" >>models/m.txt; ln -sf m.txt models/l\n'
    )
    git(sandbox, "init", "-q", "-b", "main")
    git(sandbox, "config", "user.name", "Ada")
    git(sandbox, "config", "user.email", "ada@example.org")
    git(sandbox, "add", ".")
    git(sandbox, "commit", "-q", "-m", "First")
    return sandbox


def git(sandbox: Sandbox, *words: str) -> str:
    with sandbox.popen("git", *words, stdout=subprocess.PIPE) as child:
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 0, words
    return out.decode().strip()


def queued(sandbox: Sandbox, *words: str) -> int:
    """The number of a run that has ended."""
    sandbox.ok("queue", "--now", *words)
    return int(last(sandbox)["run"])


def last(sandbox: Sandbox) -> Any:
    return json.loads(sandbox.ok("runs", "--json", "--last", "1"))[0]


def store(sandbox: Sandbox) -> Path:
    return sandbox.root.parent / "home/.local/share/skelebot/experiments"


def outputs(sandbox: Sandbox, number: int) -> Path:
    return store(sandbox) / f"runs/{number:06d}/outputs"


CHAIN = ("load", "+", "train")


def test_a_wrong_configuration_keeps_nobody_from_a_run(demo: Sandbox) -> None:
    first = str(queued(demo, *CHAIN))
    demo.write("skelebot.yaml", "name: demo\njobs: [{nam: x}]\n")
    for words in (("show", first), ("logs", first), ("tag", first, "x"), ("rerun", first, "--check")):
        demo.ok("runs", *words)
    demo.ok("runs", "get", first, "--force")
    demo.ok("runs", "--all")
    for line in ("runs", "runs gc --older 0s", "runs retry --failed", "runs retry 2 --code now"):
        found = demo.run(*line.split())  # these would mean all projects, or need this one
        assert (found.code, "jobs[0]" in found.err) == (2, True)
    assert len(json.loads(demo.ok("runs", "--all", "--json"))) == 2


# --- diff ---


def test_diff_shows_only_what_differs(demo: Sandbox) -> None:
    first = queued(demo, *CHAIN)
    second = queued(demo, *CHAIN, "--rate", "0.2")
    demo.write("load.sh", "echo 1,3 >data/x.csv\n")
    third = queued(demo, *CHAIN)

    found = demo.run("runs", "diff", str(first), str(second))
    assert found.code == 1
    assert "train.rate" in found.out
    assert "load.sh" not in found.out
    stat = demo.run("runs", "diff", str(first), str(third))
    assert (stat.code, "load.sh | 2 +-" in stat.out, "+echo 1,3" in stat.out) == (1, True, False)
    assert "+echo 1,3" in demo.run("runs", "diff", str(first), str(third), "--full").out

    as_json = json.loads(demo.run("runs", "diff", str(second), str(third), "--json").out)
    as_json.pop("duration", None)  # there are none where both took the same milliseconds
    assert as_json == {
        "runs": [second, third],
        "same": False,
        "params": {"train.rate": ["0.2", "0.1"]},
        "code": {"load.sh": "changed"},
    }


def test_diff_of_equal_runs_gives_0_from_anywhere(demo: Sandbox) -> None:
    first, second = queued(demo, *CHAIN), queued(demo, *CHAIN)
    assert demo.run("runs", "diff", str(first), str(second), cwd="/").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("diff", "1", "99"),
        ("rerun", "99"),
        ("checkout", "99", "x"),
        ("get", "99"),
        ("export", "x.tar", "99"),
        ("tag", "99", "x"),
    ],
)
def test_an_unknown_run_is_a_wrong_usage(sandbox: Sandbox, words: tuple[str, ...]) -> None:
    assert sandbox.run("runs", *words, cwd="/tmp").code == 2


def test_show_gives_all_that_is_recorded(demo: Sandbox) -> None:
    git(demo, "remote", "add", "origin", "https://ada:secret@example.org/demo.git")
    project(demo, "demo", LOAD, TRAIN, environment="{MODE: fast}")
    demo.ok("queue", "--priority", "3", *CHAIN)
    demo.ok("worker", "--drain")
    shown = demo.ok("runs", "show", "1")
    facts = {name: text for name, _, text in (line.partition(" ") for line in shown.splitlines())}
    assert "on main, from https://example.org/demo.git, with changes" in facts["commit"]
    assert facts["code"].strip() == last(demo)["tree"]
    assert facts["priority"].strip() == "3"
    assert facts["variable"].strip() == "MODE = fast"
    assert os.path.isfile(facts["packages"].strip())
    for text in ("runs bash train.sh", "makes models/", "rate = 0.1"):
        assert f"\n             {text}" in shown
    assert "secret" not in shown


# --- rerun ---


def test_the_machine_is_recorded_and_another_one_is_named(demo: Sandbox) -> None:
    first = str(queued(demo, *CHAIN))
    assert f"machine    host {os.uname().nodename}\n" in demo.ok("runs", "show", first)
    path = store(demo) / f"runs/{first:>06}/run.json"
    path.write_text(path.read_text().replace(json.dumps(os.uname().nodename), '"elsewhere"'))
    demo.ok("runs", "rebuild")
    again = demo.run("runs", "rerun", first, "--check")
    assert again.code == 0
    assert f"INFO  | machine: the host was elsewhere, and is {os.uname().nodename} here\n" in again.err
    diff = demo.run("runs", "diff", first, "2")
    assert (diff.code, "machine   host" in diff.out) == (0, True)


@pytest.mark.engine
def test_an_image_of_a_run_in_place_is_recorded(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("echo 1 >out/x", outputs="[out/]"), components="{experiments: {record: true}}")
    sandbox.ok("run")
    assert last(sandbox)["image"] == docker("image", "inspect", "--format", "{{.Id}}", f"{name}:latest")
    assert sandbox.run("runs", "rerun", "1", "--check").code == 0
    assert sandbox.run("runs", "diff", "1", "2").code == 0
    sandbox.ok("runs", "rm", "1", "2")
    assert "run-" not in docker("images", "--format", "{{.Tag}}", name)


def test_a_rerun_is_bit_identical_whatever_happened_to_the_checkout(demo: Sandbox) -> None:
    first = str(queued(demo, *CHAIN))
    demo.write("load.sh", "echo other >data/x.csv\n")
    demo.write("train.sh", "exit 3\n")
    assert demo.run("runs", "rerun", first, "--check").code == 0
    git(demo, "checkout", "-q", "--orphan", "other")
    git(demo, "commit", "-q", "-a", "-m", "Rewritten")
    git(demo, "branch", "-q", "-D", "main")
    git(demo, "reflog", "expire", "--expire=now", "--all")
    git(demo, "gc", "-q", "--prune=now")
    assert demo.run("runs", "rerun", first, "--check").code == 0
    shutil.rmtree(demo.root)
    found = demo.run("runs", "rerun", first, "--check", cwd="/")
    assert found.code == 0, found
    assert "made the same as run 1: 3 files" in found.err
    assert not demo.root.exists()


def test_a_rerun_waits_in_the_queue_and_names_its_parent(demo: Sandbox) -> None:
    first = queued(demo, *CHAIN, "--rate", "0.5")
    demo.ok("runs", "tag", str(first), "best")
    assert demo.ok("runs", "rerun", str(first)) == "2\n"
    assert (last(demo)["state"], last(demo)["parent"], last(demo)["tags"]) == ("queued", first, [])
    demo.write("train.sh", "exit 3\n")
    demo.ok("runs", "gc", "--keep", "0", "--older", "0s")  # the first is tagged, the second waits
    demo.ok("worker", "--drain")
    assert demo.run("runs", "diff", "1", "2").code == 0


def test_check_names_what_differs(demo: Sandbox) -> None:
    demo.write("train.sh", "date +%N >models/t; echo same >models/m; mktemp -u >models/u\n")
    first = str(queued(demo, *CHAIN))
    found = demo.run("runs", "rerun", first, "--check")
    assert found.code == 1
    assert found.errors == ["ERROR | models/t: other content", "ERROR | models/u: other content"]
    assert demo.run("runs", "rerun", first, "--check", "--ignore", "models/t", "--ignore", "*/u").code == 0


def test_changed_data_and_secrets_keep_a_run_from_being_repeated(demo: Sandbox) -> None:
    fetch = job(
        "fetch.sh",
        "fetch",
        native="always",
        outputs="[got/]",
        mappings="[../raw:ro]",
        params="[{name: token, default: $TOKEN, secret: true}]",
    )
    project(demo, "demo", fetch)
    demo.write("fetch.sh", "cat ../raw/x >got/x\n")
    demo.write("../raw/x", "1")
    with_token = demo.with_env(TOKEN="hunter2")
    first = str(queued(with_token, "fetch"))
    assert with_token.run("runs", "rerun", first, "--check").code == 0

    demo.write("../raw/x", "2")
    found = demo.with_env(TOKEN="hunter3").run("runs", "rerun", first, "--check")
    assert found.code == 1
    assert "raw: was" in found.err
    assert "variable TOKEN: has another value" in found.err
    assert "hunter" not in found.err + found.out
    assert "variable TOKEN: is not set" in demo.run("runs", "rerun", first).err
    changed = with_token.run("runs", "rerun", first, "--check", "--anyway")
    assert changed.errors == ["ERROR | got/x: other content"]
    assert len(json.loads(demo.ok("runs", "--json"))) == 3  # nothing was queued in between


def test_a_failed_rerun_is_not_compared(demo: Sandbox) -> None:
    demo.write("train.sh", "test ! -e ../../never && echo x >models/x; exit ${CODE:-0}\n")
    first = str(queued(demo, *CHAIN))
    found = demo.with_env(CODE="3").run("runs", "rerun", first, "--check")
    assert found.code == 1
    assert "is failed, so it is not compared" in found.err
    failed = str(last(demo)["run"])
    assert (
        "is failed; --check compares with a run that is done"
        in demo.run("runs", "rerun", failed, "--check").err
    )


@pytest.mark.engine
def test_a_rerun_without_its_image_says_so_and_builds_it_from_its_files(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("train.sh", "train", outputs="[models/]"))
    sandbox.write("train.sh", "cat kept >models/m\n")
    sandbox.write("kept", "1\n")
    first = str(queued(sandbox, "train"))
    pinned = last(sandbox)["image"]
    assert sandbox.run("runs", "rerun", first, "--check").code == 0
    sandbox.write("kept", "2\n")
    docker("rmi", "-f", pinned)

    found = sandbox.run("runs", "rerun", first, "--check")
    assert found.code == 1
    assert f"image {name}" in found.err
    anyway = sandbox.run("runs", "rerun", first, "--check", "--anyway")
    assert anyway.code == 0, anyway
    again = last(sandbox)
    tags = docker("image", "inspect", again["image"], "--format", "{{.RepoTags}}")
    assert tags == f"[{name}:run-{again['uid'][:12]}]"
    assert (outputs(sandbox, again["run"]) / "models/m").read_text() == "1\n"
    for number in ("1", "2", str(again["run"])):
        sandbox.ok("runs", "rm", number)
    assert docker("images", "-q", name) == ""


# --- checkout ---


def test_checkout_writes_the_files_beside_the_checkout_alone(demo: Sandbox) -> None:
    demo.write("untracked", "mine")
    first = str(queued(demo, *CHAIN))
    demo.write("load.sh", "changed\n")
    assert demo.run("runs", "checkout", first, "copy").code == 2
    assert demo.run("runs", "checkout", first).code == 2
    demo.ok("runs", "checkout", first, "../copy")
    copy = demo.root.parent / "copy"
    assert (copy / "load.sh").read_text() == "echo 1,2 >data/x.csv\n"
    assert (copy / "untracked").read_text() == "mine"
    assert demo.run("runs", "checkout", first, "../copy").code == 2
    assert demo.read("load.sh") == "changed\n"


def test_a_branch_is_made_without_touching_anything_else(demo: Sandbox) -> None:
    demo.write("odd 'name\" ä", "x")
    demo.write("crlf", "a\r\n")
    demo.write(".gitattributes", "* text filter=bad\n")
    git(demo, "config", "filter.bad.clean", "touch ../filtered; cat")
    for hook in ("post-commit", "reference-transaction", "post-checkout"):
        demo.write(f".git/hooks/{hook}", "#!/bin/sh\ntouch ../hooked\n", 0o755)
    first = str(queued(demo, *CHAIN))
    demo.write("load.sh", "changed\n")
    head, index = git(demo, "rev-parse", "HEAD"), (demo.root / ".git/index").read_bytes()

    demo.ok("runs", "checkout", first, "--branch", "run-1")
    assert git(demo, "rev-parse", "run-1^") == head == git(demo, "rev-parse", "HEAD")
    assert (demo.root / ".git/index").read_bytes() == index
    assert git(demo, "show", "run-1:load.sh") == "echo 1,2 >data/x.csv"
    show = ["git", "-C", str(demo.root), "cat-file", "blob", "run-1:crlf"]
    assert subprocess.run(show, capture_output=True, check=True, env=dict(demo.env)).stdout == b"a\r\n"
    assert git(demo, "log", "-1", "--format=%s%n%an", "run-1") == "Run 1 of demo: load + train\nAda"
    assert "odd" in git(demo, "ls-tree", "--name-only", "run-1")
    assert {"filtered", "hooked"} & set(os.listdir(demo.root.parent)) == set()
    assert git(demo, "symbolic-ref", "HEAD") == "refs/heads/main"

    found = demo.run("runs", "checkout", first, "--branch", "run-1")
    assert (found.code, "already" in found.err) == (2, True)
    assert demo.run("runs", "checkout", first, "--branch", "a..b").code == 2


def test_a_branch_of_a_project_in_a_folder_keeps_the_rest_of_the_repository(demo: Sandbox) -> None:
    inner = Sandbox(demo.root / "inner", demo.uid, demo.env)
    inner.write("train.sh", "echo x >models/x\n")
    project(inner, "inner", job("train.sh", "train", native="always", outputs="[models/]"))
    first = str(queued(inner, "train"))
    inner.ok("runs", "checkout", first, "--branch", "inner-run")
    names = git(demo, "ls-tree", "-r", "--name-only", "inner-run").split()
    assert {"load.sh", "inner/train.sh", "inner/skelebot.yaml"} <= set(names)


# --- get ---


def test_get_replaces_nothing_unasked(demo: Sandbox) -> None:
    first = str(queued(demo, *CHAIN))
    second = str(queued(demo, *CHAIN, "--rate", "0.2"))
    demo.ok("runs", "get", first, "models/")
    assert demo.read("models/m.txt") == "1,2\n--rate 0.1\n"
    assert os.readlink(demo.root / "models/l") == "m.txt"
    assert not (demo.root / "data").exists()
    demo.ok("runs", "get", first)  # what is equal is not replaced

    found = demo.run("runs", "get", second)
    assert (found.code, "models/m.txt would be replaced" in found.err) == (1, True)
    assert demo.read("models/m.txt") == "1,2\n--rate 0.1\n"
    demo.ok("runs", "get", second, "-f")
    assert demo.read("models/m.txt") == "1,2\n--rate 0.2\n"
    assert demo.run("runs", "get", first, "nothing").code == 1
    assert demo.run("runs", "get", first, "../home").code == 2


@pytest.mark.parametrize(("answer", "rate"), [(b"y\n", "0.2"), (b"n\n", "0.1")])
def test_get_asks_on_a_terminal(demo: Sandbox, answer: bytes, rate: str) -> None:
    first, second = queued(demo, *CHAIN), queued(demo, *CHAIN, "--rate", "0.2")
    demo.ok("runs", "get", str(first))
    terminal = Terminal(demo, f"{SKELEBOT} runs get {second}")
    terminal.expect("replace 1 file of the project? (y/n) [n]: ")
    terminal.send(answer)
    terminal.close()
    assert demo.read("models/m.txt") == f"1,2\n--rate {rate}\n"


# --- push ---


def test_push_stores_what_a_run_has_made_and_which(demo: Sandbox) -> None:
    demo.write("VERSION", "1.0.0\n")
    with (demo.root / "skelebot.yaml").open("a") as file:
        file.write("components: {repository: {local: {path: ../shelf}, artifacts: [")
        file.write("{name: model, file: models/m.txt}, {name: other, file: README.md}]}}\n")
    first = queued(demo, *CHAIN)
    demo.write("models/m.txt", "of the checkout")
    demo.ok("push", "model", "--run", str(first))
    shelf = demo.root.parent / "shelf"
    assert (shelf / "model_v1.0.0.txt").read_text() == "1,2\n--rate 0.1\n"
    (row,) = json.loads(demo.ok("artifacts", "model", "--json"))
    commit = git(demo, "rev-parse", "HEAD")
    assert (row["run"], row["uid"], row["commit"]) == ("1", last(demo)["uid"], commit)
    check = subprocess.run(["sha256sum", "-c", "model_v1.0.0.txt.sha256"], cwd=shelf, capture_output=True)
    assert check.returncode == 0

    demo.ok("push", "model", "-f")
    (row,) = json.loads(demo.ok("artifacts", "model", "--json"))
    assert "run" not in row
    found = demo.run("push", "other", "--run", str(first))
    assert (found.code, "is not an output of run 1" in found.err) == (1, True)
    assert demo.run("push", "model", "--run", "9").code == 2


# --- gc ---


def test_gc_removes_whole_runs_but_none_that_is_tagged(demo: Sandbox) -> None:
    for _ in range(3):
        queued(demo, *CHAIN)
    demo.ok("runs", "tag", "1", "best")
    shown = demo.ok("runs", "gc", "--keep", "1", "--dry-run")
    assert [line.split()[0] for line in shown.splitlines()] == ["RUN", "2"]
    (going,) = json.loads(demo.ok("runs", "gc", "--keep", "1", "--dry-run", "--json"))
    assert (going["run"], going["bytes"] > 0) == (2, True)
    assert (store(demo) / "runs/000002").exists()
    demo.ok("runs", "gc", "--keep", "1")
    assert sorted(os.listdir(store(demo) / "runs")) == ["000001", "000003"]
    assert len(os.listdir(store(demo) / "code.git/refs/runs")) == 2
    demo.ok("runs", "tag", "1", "--remove", "best")
    demo.ok("runs", "gc", "--older", "0s")
    assert os.listdir(store(demo) / "runs") == []
    assert demo.run("runs", "gc").code == 2
    assert demo.run("runs", "gc", "--older", "soon").code == 2


def test_gc_of_outputs_keeps_record_logs_and_code(demo: Sandbox) -> None:
    first = str(queued(demo, *CHAIN))
    demo.ok("runs", "gc", "--older", "0s", "--outputs-only")
    assert sorted(os.listdir(store(demo) / "runs/000001")) == ["lock", "run.json", "supervisor", "tasks"]
    assert demo.run("runs", "get", first).code == 1
    assert "were removed" in demo.run("runs", "retry", first, "--from", "train").err
    assert "were removed" in demo.run("runs", "rerun", first, "--check").err
    assert demo.run("runs", "rerun", first, "--now").code == 0


def test_gc_removes_environments_that_no_run_has(demo: Sandbox) -> None:
    def versions() -> list[str]:
        return sorted(path.name[4:10] for path in (store(demo) / "environments").rglob("six-*.dist-info"))

    for version in ("1.15.0", "1.16.0"):
        of_six = job("python -c 'import six'", "run", native="always")
        project(demo, "demo", of_six, dependencies=f"[six={version}]")
        queued(demo, "run")
    demo.ok("runs", "rerun", "1", "--now")
    demo.ok("runs", "rm", "1")
    assert "environment" not in demo.run("runs", "gc", "--older", "1d").err
    assert versions() == ["1.15.0", "1.16.0"]
    shown = demo.run("runs", "gc", "--older", "0s", "--keep", "2", "--dry-run").err
    demo.ok("runs", "rm", "3")
    assert "environment" not in shown
    shown = demo.run("runs", "gc", "--older", "1d", "--dry-run").err
    assert re.search(r"^INFO  \| 1 Python environment that no other run has, [\d.]+ MB$", shown, re.M)
    demo.ok("runs", "gc", "--older", "1d", "--outputs-only")
    (lock,) = (path for path in (store(demo) / "environments").glob("*/*.lock") if holds_old(path))
    with open(lock) as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        demo.ok("runs", "gc", "--older", "1d")
        assert versions() == ["1.15.0", "1.16.0"]
    demo.ok("runs", "gc", "--older", "1d")
    assert versions() == ["1.16.0"]
    queued(demo, "run")
    demo.ok("runs", "gc", "--older", "0s")
    assert versions() == []


def holds_old(lock: Path) -> bool:
    return any(lock.parent.rglob("six-1.15.0.dist-info"))


def test_gc_sweeps_what_a_killed_process_has_left(demo: Sandbox) -> None:
    queued(demo, *CHAIN)
    left = store(demo) / "runs/000099"
    shutil.copytree(store(demo) / "runs/000001", left)
    demo.ok("runs", "gc", "--older", "1d")
    assert sorted(os.listdir(store(demo) / "runs")) == ["000001"]


def test_a_retry_goes_on_at_a_job_though_all_are_done(demo: Sandbox) -> None:
    first = str(queued(demo, *CHAIN))
    demo.ok("runs", "retry", first, "--from", "train", "--now")
    assert [task["attempt"] for task in last(demo)["tasks"]] == [1, 2]


# --- export and import ---


def test_runs_move_to_another_store_and_can_be_repeated_there(demo: Sandbox) -> None:
    first, second = queued(demo, *CHAIN), queued(demo, *CHAIN, "--rate", "0.2")
    uids = {each["run"]: each["uid"] for each in json.loads(demo.ok("runs", "--json"))}
    demo.ok("runs", "export", "../runs.tar", str(first), str(second))
    assert demo.run("runs", "export", "../runs.tar", str(first)).code == 2

    other = demo.with_env(SKELEBOT_STORE=str(demo.root.parent / "other"))
    queued(other, *CHAIN)
    assert other.ok("runs", "import", "../runs.tar") == "2\n3\n"
    there = {each["run"]: each["uid"] for each in json.loads(other.ok("runs", "--json"))}
    assert (there[2], there[3]) == (uids[first], uids[second])
    again = other.run("runs", "import", "../runs.tar")
    assert (again.code, again.out, again.err.count("is in this store already")) == (0, "", 2)
    assert other.run("runs", "rerun", "3", "--check").code == 0
    assert other.ok("runs", "logs", "3") == demo.ok("runs", "logs", str(second))


def test_an_export_names_the_output_that_cannot_be_read(anyone: Sandbox) -> None:
    project(anyone, "demo", job("echo >out/m; chmod 0 out/m", native="always", outputs="[out/]"))
    anyone.ok("queue", "--now", "run")
    result = anyone.run("runs", "export", "runs.tar", "1")
    if anyone.uid:
        assert result.code == 1
        assert "/outputs/out/m cannot be read: permission denied" in result.err
    else:
        assert result.code == 0


def test_a_waiting_run_is_not_exported(demo: Sandbox) -> None:
    demo.ok("queue", *CHAIN)
    assert demo.run("runs", "export", "x.tar", "1").code == 2
    assert not (demo.root / "x.tar").exists()


def test_another_file_is_not_imported(demo: Sandbox) -> None:
    found = demo.run("runs", "import", "skelebot.yaml")
    assert (found.code, "is not a file of `runs export`" in found.err) == (1, True)


# --- Python ---


def test_python_gives_what_json_gives(demo: Sandbox) -> None:
    first = queued(demo, *CHAIN)
    demo.ok("runs", "tag", str(first), "best")
    script = (
        "import json, sys; from skelebot import runs; "
        "assert 'sqlite3' not in sys.modules; "
        "print(json.dumps([runs.get(1), runs.find(tag='best', state='done', project='demo', last=1), "
        "runs.find(state='failed')]))"
    )
    program = SKELEBOT.split()[0]
    with demo.popen(program, "-c", script, stdout=subprocess.PIPE, cwd="/") as child:
        out, _ = child.communicate(timeout=60)
    one, found, none = json.loads(out)
    shown = json.loads(demo.ok("runs", "show", str(first), "--json"))
    assert (one, found, none) == (shown, [shown], [])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("state='bad'", "there is no state 'bad' of a run; the states are queued, running, done"),
        ("last=-1", "last: expected how many runs, at least 0; found -1"),
    ],
)
def test_python_refuses_what_no_run_can_be(demo: Sandbox, wrong: str, said: str) -> None:
    script = f"from skelebot import runs; runs.find({wrong})"
    with demo.popen(SKELEBOT.split()[0], "-c", script, stderr=subprocess.PIPE) as child:
        _, err = child.communicate(timeout=60)
    assert said in err.decode()


def test_a_dry_run_changes_nothing(demo: Sandbox) -> None:
    first = str(queued(demo, *CHAIN))
    shown = demo.ok("runs", "show", first, "--json")
    before = sorted(os.listdir(store(demo)))
    for words in (
        ("rerun", first),
        ("retry", first, "--from", CHAIN[0]),
        ("tag", first, "best"),
        ("note", first, "another"),
        ("rebuild",),
        ("pause",),
        ("checkout", first, "../copy"),
        ("checkout", first, "--branch", "b"),
        ("get", first),
        ("gc", "--older", "0s"),
        ("export", "../runs.tar", first),
    ):
        demo.ok("--dry-run", "runs", *words)
    assert sorted(os.listdir(store(demo))) == before
    assert not {"copy", "runs.tar"} & set(os.listdir(demo.root.parent))
    assert not (demo.root / "models").exists()
    assert git(demo, "branch", "--format=%(refname:short)") == "main"
    assert demo.ok("runs", "show", first, "--json") == shown
    assert "paused" not in demo.run("runs").err
    assert len(json.loads(demo.ok("runs", "--json"))) == 1
