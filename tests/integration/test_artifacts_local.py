"""Artifacts in a plain folder: names, versions, folders, races and faults."""

import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import ORDINARY, SKELEBOT, Result, Sandbox, Terminal, peak_memory

MODEL = "{name: model, file: models/m.pkl}"
FOLDER = "{name: model, file: model/}"
ONLY = "{name: table, file: table.csv, singular: true}"


def project(
    sandbox: Sandbox, *artifacts: str, version: str | None = "1.4.0", store: str = "local: ../store"
) -> None:
    lines = [f"    - {artifact}" for artifact in artifacts]
    text = ["name: a", "components:", "  repository:", f"    {store}", "    artifacts:", *lines, ""]
    sandbox.write("skelebot.yaml", "\n".join(text))
    if version is not None:
        sandbox.write("VERSION", f"{version}\n")


def stored(sandbox: Sandbox) -> dict[str, bytes]:
    """What the store holds, without the checksums beside it."""
    top = sandbox.root.parent / "store"
    files = [path for path in top.rglob("*") if path.is_file() and path.suffix != ".sha256"]
    return {str(path.relative_to(top)): path.read_bytes() for path in files}


def put(sandbox: Sandbox, key: str, content: bytes = b"stored") -> None:
    """Something in the store that Skelebot has not brought there."""
    sandbox.write(f"../store/{key}", content)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder, as it would change by being written to."""
    found = [folder, *folder.rglob("*")]
    return {str(p.relative_to(folder)): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in found}


def failed(result: Result, said: str) -> None:
    """One clear line, and the exit code of something that did not work."""
    assert (result.code, result.out, len(result.errors)) == (1, "", 1), result
    assert said in result.errors[0]
    assert "Traceback" not in result.err


def nothing_left(sandbox: Sandbox) -> None:
    """No half-finished file anywhere."""
    assert [path for path in sandbox.root.rglob("*") if ".skelebot-" in path.name] == []
    assert [*sandbox.root.glob(".skelebot/parts/*")] == []


# --- push ---


def test_push_and_pull(anyone: Sandbox) -> None:
    project(anyone, MODEL)
    content = bytes(range(256)) * 5000
    anyone.write("models/m.pkl", content)
    if os.getuid() == 0:
        anyone.root.parent.chmod(0o777)  # the store is made beside the project
    assert anyone.ok("push", "model") == "model_v1.4.0.pkl\n"
    assert stored(anyone) == {"model_v1.4.0.pkl": content}
    assert anyone.ok("pull", "model", "1.4.0") == f"{anyone.root.resolve()}/model_v1.4.0.pkl\n"
    assert (anyone.root / "model_v1.4.0.pkl").read_bytes() == content
    anyone.write("models/m.pkl", b"other")
    assert anyone.ok("pull", "model", "LATEST", "-o") == f"{anyone.root.resolve()}/models/m.pkl\n"
    assert (anyone.root / "models/m.pkl").read_bytes() == content
    assert {anyone.owner(p) for p in ("models/m.pkl", "../store/model_v1.4.0.pkl")} == {anyone.uid}
    nothing_left(anyone)


def test_the_checksum_goes_with_it(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", b"one")
    sandbox.ok("push", "model")
    beside = sandbox.read("../store/model_v1.4.0.pkl.sha256")
    assert beside == f"{hashlib.sha256(b'one').hexdigest()}  model_v1.4.0.pkl\n"
    checked = subprocess.run(
        ["sha256sum", "-c", "model_v1.4.0.pkl.sha256"], cwd=sandbox.root.parent / "store", check=False
    )
    assert checked.returncode == 0


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("./models/m.pkl", "model_v1.4.0.pkl"),
        ("model.tar.gz", "model_v1.4.0.tar.gz"),
        ("a.b/weights", "model_v1.4.0"),
        (".hidden", "model_v1.4.0"),
    ],
)
def test_names_in_the_store(sandbox: Sandbox, file: str, key: str) -> None:
    project(sandbox, f"{{name: model, file: {file}}}")
    sandbox.write(file, b"content")
    assert sandbox.ok("push", "model") == f"{key}\n"
    assert list(stored(sandbox)) == [key]
    sandbox.write(file, b"changed")
    sandbox.ok("pull", "model", "LATEST", "-o")
    assert sandbox.read(file) == "content"


def test_a_version_is_stored_once(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", b"one")
    sandbox.ok("push", "model")
    sandbox.write("models/m.pkl", b"two")
    result = sandbox.run("push", "model")
    failed(result, "model_v1.4.0.pkl")
    assert "bump" in result.err
    assert "-f" in result.err
    assert stored(sandbox) == {"model_v1.4.0.pkl": b"one"}
    for option in ("-f", "--force"):
        assert sandbox.ok("push", "model", option) == "model_v1.4.0.pkl\n"
    assert stored(sandbox) == {"model_v1.4.0.pkl": b"two"}
    assert sandbox.ok("pull", "model", "1.4.0", "-o")


@pytest.mark.parametrize("version", [None, "", "1.4", "v1.4.0", "one two"])
def test_a_version_that_is_none(sandbox: Sandbox, version: str | None) -> None:
    project(sandbox, MODEL, ONLY, version=version)
    sandbox.write("models/m.pkl", b"one")
    sandbox.write("table.csv", b"1,2")
    failed(sandbox.run("push", "model"), "VERSION")
    failed(sandbox.run("push", "ALL"), "VERSION")
    failed(sandbox.run("pull", "model", "LATEST"), "VERSION")
    assert stored(sandbox) == {}
    assert sandbox.ok("push", "table") == "table.csv\n"  # which has no version
    put(sandbox, "model_v1.0.0.pkl")
    assert sandbox.ok("pull", "model", "1.0.0")


@pytest.mark.parametrize(("artifact", "file"), [(MODEL, "models/m.pkl"), (FOLDER, "model/m.pkl")])
def test_a_push_leaves_the_project_as_it_is(sandbox: Sandbox, artifact: str, file: str) -> None:
    project(sandbox, artifact)
    sandbox.write(file, b"one")
    (sandbox.root / ".skelebot").mkdir()
    before = tree(sandbox.root)
    sandbox.ok("push", "model")
    sandbox.ok("push", "model", "-f")
    assert sandbox.run("push", "model").code == 1
    own = {name: value for name, value in tree(sandbox.root).items() if ".skelebot" not in name}
    assert own == {name: value for name, value in before.items() if ".skelebot" not in name}


def test_a_push_needs_its_file(sandbox: Sandbox) -> None:
    project(sandbox, MODEL, "{name: folder, file: folder/}")
    failed(sandbox.run("push", "model"), "models/m.pkl")
    sandbox.write("folder", b"a file")
    failed(sandbox.run("push", "folder"), "folder")
    assert stored(sandbox) == {}


def test_a_store_that_cannot_be_written(anyone: Sandbox) -> None:
    if anyone.uid == 0:
        pytest.skip("root can write everywhere")
    project(anyone, MODEL)
    anyone.write("models/m.pkl", b"one")
    anyone.root.parent.chmod(0o555)
    failed(anyone.run("push", "model"), "cannot be written")


def test_words_that_are_wrong(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    for words in (
        ("push",),
        ("push", "other"),
        ("pull", "model", "latest"),
        ("pull", "model", "1.4"),
        ("pull", "model", "../1.4.0"),
        ("artifacts", "other"),
        ("push", "model", "-u", "ada"),  # a folder asks for nobody
        ("push", "model", "-t", "secret"),
        ("push", "model", "-o"),
        ("pull", "model", "LATEST", "-f"),
    ):
        result = sandbox.run(*words)
        assert (result.code, result.out, len(result.errors)) == (2, "", 1), result


@pytest.mark.parametrize("words", [("push", "ALL"), ("pull", "ALL", "LATEST")])
def test_all_of_none_is_a_mistake(sandbox: Sandbox, words: tuple[str, ...]) -> None:
    sandbox.write("skelebot.yaml", "name: a\ncomponents: {repository: {local: ../store}}\n")
    sandbox.write("VERSION", "1.4.0\n")
    result = sandbox.run(*words)
    assert (result.code, result.out, len(result.errors)) == (2, "", 1), result
    assert "there are no artifacts" in result.errors[0]
    assert sandbox.ok("artifacts", "--json") == "[]\n"


def test_a_pull_takes_the_latest_version(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    put(sandbox, "model_v1.3.0.pkl")
    put(sandbox, "model_v1.5.0.pkl")
    assert sandbox.ok("pull", "model") == f"{sandbox.root.resolve()}/model_v1.3.0.pkl\n"
    assert "model LATEST" in sandbox.ok("--dry-run", "pull", "ALL")
    page = sandbox.ok("pull", "-h")
    assert "usage: skelebot pull [options] {model,ALL} [VERSION]" in page
    assert page.count("model,") == 1
    assert "(default: LATEST)" in page


def test_builds_of_one_version(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    for version in ("1.0.0+build.1", "1.0.0+build.2", "1.0.0+build.10", "1.0.0"):
        put(sandbox, f"model_v{version}.pkl", version.encode())
    for version, expected in (
        ("1.0.0", "1.0.0"),
        ("1.0.0+build.10", "1.0.0+build.10"),
        ("1.0.0+build.2", "1.0.0+build.2"),
        ("1.0.1", "1.0.0+build.10"),
    ):
        sandbox.write("VERSION", f"{version}\n")
        sandbox.ok("pull", "model", "-o")
        assert sandbox.read("models/m.pkl") == expected
        rows = json.loads(sandbox.ok("artifacts", "--json"))
        assert [row["version"] for row in rows if row["latest"]] == [expected]
        assert _python(sandbox, "print(artifacts.read('model'))").out == f"{expected.encode()!r}\n"
    order = ["1.0.0", "1.0.0+build.1", "1.0.0+build.2", "1.0.0+build.10"]
    assert [row["version"] for row in rows] == order


def test_what_was_pulled_is_left_out_of_a_package(sandbox: Sandbox) -> None:
    project(sandbox, MODEL, FOLDER.replace("name: model", "name: net"))
    sandbox.write("code.py", "1\n")
    sandbox.write("model/a", b"a")
    put(sandbox, "model_v1.4.0.pkl")
    sandbox.ok("push", "net")
    sandbox.ok("pull", "ALL")
    sandbox.ok("pull", "model", "-o")
    with open(sandbox.root / "skelebot.yaml", "a") as file:
        file.write("  package: {}\n")
    with zipfile.ZipFile(sandbox.ok("package").strip()) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert names == {"code.py", "model/a", "models/m.pkl", "skelebot.yaml", "VERSION"}


def test_without_the_component_there_are_no_such_commands(sandbox: Sandbox) -> None:
    sandbox.write("skelebot.yaml", "name: a\n")
    assert sandbox.run("push", "model").code == 2
    project(sandbox, MODEL)
    page = sandbox.ok("-h")
    assert all(f"  {command} " in page for command in ("push", "pull", "artifacts"))


def test_a_dry_run_does_nothing(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", b"one")
    put(sandbox, "model_v1.0.0.pkl")
    before = tree(sandbox.root.parent)
    assert "model_v1.4.0.pkl" in sandbox.ok("--dry-run", "push", "model")
    assert "model LATEST" in sandbox.ok("--dry-run", "pull", "model", "LATEST", "-o")
    sandbox.ok("--dry-run", "artifacts")
    assert tree(sandbox.root.parent) == before


# --- prefix ---


def test_a_prefix(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", b"staged")
    put(sandbox, "model_v1.3.0.pkl", b"released")
    assert sandbox.ok("push", "model", "-p", "staging/") == "staging/model_v1.4.0.pkl\n"
    assert sandbox.ok("push", "model", "--prefix", "try-") == "try-model_v1.4.0.pkl\n"
    assert sandbox.ok("pull", "model", "LATEST") == f"{sandbox.root.resolve()}/model_v1.3.0.pkl\n"
    assert (
        sandbox.ok("pull", "model", "LATEST", "-p", "staging/")
        == f"{sandbox.root.resolve()}/model_v1.4.0.pkl\n"
    )
    assert sandbox.read("model_v1.4.0.pkl") == "staged"
    sandbox.ok("pull", "model", "1.4.0", "-p", "try-")
    assert [row["version"] for row in json.loads(sandbox.ok("artifacts", "--json"))] == ["1.3.0"]
    staged = json.loads(sandbox.ok("artifacts", "--json", "-p", "staging/"))
    assert [row["version"] for row in staged] == ["1.4.0"]


def test_a_prefix_does_not_leave_the_store(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", b"one")
    put(sandbox, "model_v1.4.0.pkl")
    before = tree(sandbox.root.parent)
    failed(sandbox.run("push", "model", "-p", "/etc/"), "outside the store")
    failed(sandbox.run("pull", "model", "1.4.0", "-p", "/etc/"), "outside the store")
    assert tree(sandbox.root.parent) == before


@pytest.mark.parametrize("prefix", ["../", "../project/", "a/../../", "./", "../x"])
def test_a_prefix_is_no_way_through_folders(sandbox: Sandbox, prefix: str) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", b"one")
    for words in (("push", "model"), ("pull", "model", "1.4.0"), ("pull", "model", "LATEST"), ("artifacts",)):
        result = sandbox.run(*words, "-p", prefix)
        assert (result.code, result.out, len(result.errors)) == (2, "", 1), result
        assert "--prefix" in result.errors[0]
    assert "--prefix" in _python(sandbox, f"artifacts.pull('model', prefix={prefix!r})").err
    assert stored(sandbox) == {}


# --- pull ---


def test_a_missing_artifact_never_succeeds(sandbox: Sandbox) -> None:
    project(sandbox, MODEL, ONLY)
    sandbox.write("models/m.pkl", b"mine")
    for _ in range(2):  # without a store, and with one that has others
        before = tree(sandbox.root)
        for words in (("model", "1.4.0"), ("model", "1.4.0", "-o"), ("model", "LATEST"), ("table", "LATEST")):
            result = sandbox.run("pull", *words)
            failed(result, words[0])
        assert sandbox.run("pull", "ALL", "LATEST").code == 1
        assert tree(sandbox.root) == before
        put(sandbox, "model_big_v1.4.0.pkl")


def test_latest_is_of_exactly_this_artifact(sandbox: Sandbox) -> None:
    project(sandbox, MODEL, version="1.10.5")
    for key in (
        "model_v1.9.0.pkl",
        "model_v1.10.0.pkl",
        "model_v1.10.0-rc.1.pkl",
        "model_v1.10.6.pkl",
        "model_v2.0.0.pkl",
        "model_v0.1.0.pkl",
        "model_big_v1.10.4.pkl",
        "model_v1.10.4.h5",
        "model_v1.10.4.pkl.gz",
        "model_v1.10.3.pkl.0123abcd.skelebot-part",
        "sub/model_v1.10.4.pkl",
    ):
        put(sandbox, key, key.encode())
    sandbox.ok("pull", "model", "LATEST", "-o")
    assert sandbox.read("models/m.pkl") == "model_v1.10.0.pkl"


def test_latest_counts_what_comes_before_a_release(sandbox: Sandbox) -> None:
    project(sandbox, MODEL, version="1.4.0")
    for version in ("1.3.0", "1.4.0-rc.1", "1.4.0-rc.2", "1.4.1-rc.1"):
        put(sandbox, f"model_v{version}.pkl", version.encode())
    sandbox.ok("pull", "model", "LATEST", "-o")
    assert sandbox.read("models/m.pkl") == "1.4.0-rc.2"


def test_no_compatible_version(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    for version in ("2.0.0", "1.5.0", "0.9.0"):
        put(sandbox, f"model_v{version}.pkl")
    failed(sandbox.run("pull", "model", "LATEST"), "there are: 0.9.0, 1.5.0, 2.0.0")


def test_five_thousand_versions_beside_five_thousand_of_another(sandbox: Sandbox) -> None:
    project(sandbox, MODEL, version="49.50.0")
    store = sandbox.root.parent / "store"
    store.mkdir(mode=0o777)
    for major in range(50):
        for minor in range(100):
            (store / f"model_v{major}.{minor}.0.pkl").write_bytes(b"%d.%d" % (major, minor))
            (store / f"model_big_v{major}.{minor}.0.pkl").write_bytes(b"big")
    sandbox.ok("pull", "model", "LATEST", "-o")
    assert sandbox.read("models/m.pkl") == "49.50"
    rows = json.loads(sandbox.ok("artifacts", "--json"))
    assert len(rows) == 5000
    assert [row["version"] for row in rows if row["latest"]] == ["49.50.0"]
    assert [row["version"] for row in rows[:3]] == ["0.0.0", "0.1.0", "0.2.0"]


def test_a_singular_artifact(sandbox: Sandbox) -> None:
    project(sandbox, ONLY, version=None)
    sandbox.write("table.csv", b"1,2")
    assert sandbox.ok("push", "table") == "table.csv\n"
    failed(sandbox.run("push", "table"), "-f")
    sandbox.write("table.csv", b"3,4")
    sandbox.ok("pull", "table", "LATEST", "-o")
    assert sandbox.read("table.csv") == "1,2"
    [row] = json.loads(sandbox.ok("artifacts", "--json"))
    assert (row["name"], row["version"], row["size"], row["latest"]) == ("table", None, 3, True)


def test_an_empty_file(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", b"")
    sandbox.ok("push", "model")
    sandbox.ok("pull", "model", "LATEST")
    assert (sandbox.root / "model_v1.4.0.pkl").read_bytes() == b""


def test_a_damaged_byte_is_found(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", b"x" * 3_000_000)
    sandbox.ok("push", "model")
    with open(sandbox.root.parent / "store/model_v1.4.0.pkl", "r+b") as file:
        file.seek(2_000_000)
        file.write(b"y")
    sandbox.write("models/m.pkl", b"mine")
    for words in (("-o",), ()):
        failed(sandbox.run("pull", "model", "LATEST", *words), "damaged")
    assert sandbox.read("models/m.pkl") == "mine"
    assert not (sandbox.root / "model_v1.4.0.pkl").exists()
    nothing_left(sandbox)


def test_a_folder_in_the_way(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    put(sandbox, "model_v1.4.0.pkl")
    (sandbox.root / "model_v1.4.0.pkl").mkdir()
    failed(sandbox.run("pull", "model", "LATEST"), "is a folder")
    assert list((sandbox.root / "model_v1.4.0.pkl").iterdir()) == []


# --- several at once ---


def test_all(sandbox: Sandbox) -> None:
    project(sandbox, MODEL, ONLY, "{name: folder, file: folder/}")
    files = {"models/m.pkl": b"model", "table.csv": b"table", "folder/x": b"x"}
    for name, content in files.items():
        sandbox.write(name, content)
    assert sandbox.ok("push", "ALL") == "model_v1.4.0.pkl\ntable.csv\nfolder_v1.4.0.tar.gz\n"
    assert sandbox.run("push", "ALL").code == 1
    sandbox.ok("push", "ALL", "-f")
    for name in files:
        sandbox.write(name, b"changed")
    sandbox.ok("pull", "ALL", "LATEST", "-o")
    assert {name: (sandbox.root / name).read_bytes() for name in files} == files


def test_of_all_one_that_fails_does_not_keep_the_others(sandbox: Sandbox) -> None:
    project(sandbox, "{name: absent, file: no.pkl}", MODEL, ONLY)
    sandbox.write("models/m.pkl", b"model")
    sandbox.write("table.csv", b"table")
    result = sandbox.run("push", "ALL")
    assert (result.code, result.out) == (1, "model_v1.4.0.pkl\ntable.csv\n")
    assert len(result.errors) == 1
    assert "transferred: model, table; failed: absent" in result.err
    put(sandbox, "absent_v9.0.0.pkl")
    result = sandbox.run("pull", "ALL", "LATEST", "--json")
    assert result.code == 1
    assert [done["name"] for done in json.loads(result.out)] == ["model", "table"]
    assert "9.0.0" in result.errors[0]
    assert "transferred: model, table; failed: absent" in result.err


# --- what is printed ---


def test_json(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    content = b"m" * 100_000
    sandbox.write("models/m.pkl", content)
    expected = {
        "name": "model",
        "version": "1.4.0",
        "key": "model_v1.4.0.pkl",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sent": len(content),
    }
    here = str(sandbox.root.resolve())
    assert json.loads(sandbox.ok("push", "model", "--json")) == [expected | {"path": f"{here}/models/m.pkl"}]
    pulled = json.loads(sandbox.ok("pull", "model", "LATEST", "--json"))
    assert pulled == [expected | {"path": f"{here}/model_v1.4.0.pkl"}]
    refused = sandbox.run("push", "model", "--json")
    assert (refused.code, json.loads(refused.out)) == (1, [])


def test_the_list_of_what_is_there(sandbox: Sandbox) -> None:
    project(sandbox, MODEL, ONLY)
    put(sandbox, "model_v1.10.0.pkl", b"12345")
    put(sandbox, "model_v1.2.0.pkl")
    put(sandbox, "model_big_v1.3.0.pkl")
    sandbox.write("models/m.pkl", b"one")
    sandbox.ok("push", "model")
    lines = sandbox.ok("artifacts").splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "SIZE", "STORED"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["model", version, size, "B"] for version, size in (("1.2.0", "6"), ("1.4.0", "3"), ("1.10.0", "5"))
    ]
    assert [line.endswith("  (LATEST)") for line in lines] == [False, False, True, False]
    rows = json.loads(sandbox.ok("artifacts", "--json"))
    assert rows[2].keys() == {"name", "version", "size", "modified", "latest"}
    assert (rows[2]["size"], rows[2]["latest"]) == (5, False)
    assert rows[2]["modified"].endswith("+00:00")
    [pushed] = [row for row in json.loads(sandbox.ok("artifacts", "model", "--json")) if row["latest"]]
    assert pushed["sha256"] == hashlib.sha256(b"one").hexdigest()
    assert sandbox.ok("artifacts", "table") == ""


def test_plain_lines_and_a_bar_on_a_terminal(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    size = 64 << 20
    with open(sandbox.write("models/m.pkl", b""), "wb") as file:
        file.truncate(size)
    plain = sandbox.run("push", "model")
    assert f"INFO  | pushing model_v1.4.0.pkl ({size / 1e6:.1f} MB)" in plain.err.splitlines()
    assert "%|" not in plain.err
    screen = Terminal(sandbox, f"stty rows 30 cols 100; {SKELEBOT} pull model LATEST; echo status $?")
    screen.expect("status 0")
    screen.close()
    assert b"pulling model_v1.4.0.pkl" in screen.output
    assert b"%|" in screen.output
    assert b"B/s" in screen.output


@pytest.mark.parametrize("artifact", [MODEL, FOLDER])
def test_memory_is_bounded(sandbox: Sandbox, artifact: str) -> None:
    project(sandbox, artifact)
    os.truncate(sandbox.write("model/m.pkl" if artifact == FOLDER else "models/m.pkl", b""), 200 << 20)
    for words in (("push", "model"), ("pull", "model", "LATEST")):
        assert peak_memory(sandbox, *words) < 100, words


# --- folders ---


def test_a_folder(sandbox: Sandbox) -> None:
    project(sandbox, FOLDER)
    sandbox.write("model/weights/a.bin", bytes(range(256)))
    sandbox.write("model/run.sh", b"#!/bin/sh\n", 0o755)
    sandbox.write("model/näme", b"")
    (sandbox.root / "model/empty").mkdir()
    (sandbox.root / "model/link").symlink_to("weights/a.bin")
    assert sandbox.ok("push", "model") == "model_v1.4.0.tar.gz\n"
    there = f"{sandbox.root.resolve()}/model_v1.4.0"
    assert sandbox.ok("pull", "model", "LATEST") == f"{there}\n"
    same = subprocess.run(
        ["diff", "-r", "--no-dereference", sandbox.root / "model", there], capture_output=True, check=False
    )
    assert (same.returncode, same.stdout) == (0, b"")
    assert os.access(f"{there}/run.sh", os.X_OK)
    assert Path(f"{there}/empty").is_dir()
    sandbox.write("model/notes", b"not in the archive")
    sandbox.ok("pull", "model", "1.4.0", "-o")
    assert sandbox.read("model/notes") == "not in the archive"
    assert (sandbox.root / "model/link").read_bytes() == bytes(range(256))
    assert sorted(path.name for path in sandbox.root.iterdir() if not path.name.startswith(".")) == [
        "VERSION",
        "model",
        "model_v1.4.0",
        "skelebot.yaml",
    ]
    nothing_left(sandbox)


def test_a_folder_on_disk_needs_no_slash(sandbox: Sandbox) -> None:
    project(sandbox, "{name: model, file: out.d}")
    sandbox.write("out.d/x", b"1")
    assert sandbox.ok("push", "model") == "model_v1.4.0.tar.gz\n"
    sandbox.write("out.d/x", b"2")
    sandbox.ok("pull", "model", "LATEST", "-o")
    assert sandbox.read("out.d/x") == "1"


@pytest.mark.parametrize(
    ("artifact", "key"),
    [
        ("{name: model, file: out}", "model_v1.4.0.tar.gz"),
        ("{name: model, file: out}", "model_v1.4.0-rc.1.tar.gz"),
        ("{name: model, file: out, singular: true}", "model.tar.gz"),
    ],
)
def test_a_folder_without_a_slash_that_is_not_there_yet(sandbox: Sandbox, artifact: str, key: str) -> None:
    project(sandbox, artifact, version="1.4.0-rc.1" if "rc" in key else "1.4.0")
    sandbox.write("out/x", b"1")
    assert sandbox.ok("push", "model") == f"{key}\n"
    shutil.rmtree(sandbox.root / "out")
    assert len(json.loads(sandbox.ok("artifacts", "--json"))) == 1
    sandbox.ok("pull", "model", "LATEST")
    assert sandbox.read(f"{key.removesuffix('.tar.gz')}/x") == "1"
    sandbox.ok("pull", "model", "LATEST", "-o")
    assert sandbox.read("out/x") == "1"


def test_a_file_without_an_extension_that_is_not_there_yet(sandbox: Sandbox) -> None:
    project(sandbox, "{name: model, file: out}", "{name: only, file: one, singular: true}")
    put(sandbox, "model_v1.3.0")
    put(sandbox, "model_v1.4.0.tar.gz")
    put(sandbox, "only")
    put(sandbox, "only.tar.gz")
    sandbox.ok("pull", "ALL", "LATEST", "-o")
    assert (sandbox.read("out"), sandbox.read("one")) == ("stored", "stored")


def test_a_folder_that_is_a_link(sandbox: Sandbox) -> None:
    project(sandbox, "{name: model, file: models/now/}")
    sandbox.write("models/first/x", b"1")
    (sandbox.root / "models/now").symlink_to("first")
    sandbox.ok("push", "model")
    sandbox.ok("pull", "model", "LATEST")
    assert sandbox.read("model_v1.4.0/x") == "1"
    assert not (sandbox.root / "model_v1.4.0").is_symlink()


def test_the_same_folder_is_the_same_archive(sandbox: Sandbox) -> None:
    project(sandbox, FOLDER)
    sums = []
    for when in (1_000_000_000, 1_700_000_000):
        for name in ("b", "a", "c/d"):
            os.utime(sandbox.write(f"model/{name}", name), (when, when))
        sums.append(json.loads(sandbox.ok("push", "model", "-f", "--json"))[0]["sha256"])
    assert sums[0] == sums[1]


def test_what_would_be_refused_is_not_pushed(sandbox: Sandbox) -> None:
    project(sandbox, FOLDER)
    sandbox.write("model/x", b"1")
    (sandbox.root / "model/out").symlink_to("/etc/passwd")
    failed(sandbox.run("push", "model"), "/etc/passwd")
    assert stored(sandbox) == {}


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


def _archive(*members: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"evil"))
    return raw.getvalue()


def _damaged(tail: bytes) -> bytes:
    """An archive whose packed stream is sound for half of its file, and then goes on with `tail`."""
    raw, packer = io.BytesIO(), zlib.compressobj(wbits=31)
    with tarfile.open(fileobj=raw, mode="w") as tar:
        member = _member("zeros")
        member.size = 500_000
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    half = packer.compress(raw.getvalue()[:250_000]) + packer.flush(zlib.Z_FULL_FLUSH)
    return half + (tail or packer.compress(raw.getvalue()[250_000:]) + packer.flush()[:-8] + bytes(8))


SYM, HARD, DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE

HOSTILE = {
    "above": _archive(_member("../victim")),
    "above, by a way around": _archive(_member("a/b/../../../victim")),
    "absolute": _archive(_member("/tmp/skelebot-victim")),
    "a link above": _archive(_member("x", SYM, "../victim")),
    "an absolute link": _archive(_member("x", SYM, "/etc/passwd")),
    "a link below that leads above": _archive(_member("a", DIR), _member("a/x", SYM, "../../victim")),
    "through a link": _archive(_member("x", SYM, "."), _member("x/y")),
    "two links that lead out together": _archive(
        _member("a", DIR, mode=0o755), _member("a/b", SYM, ".."), _member("c", SYM, "a/b/../victim")
    ),
    "a file through two links": _archive(
        _member("a", DIR, mode=0o755),
        _member("a/b", SYM, ".."),
        _member("c", SYM, "a/b/.."),
        _member("c/victim"),
    ),
    "a file over a link": _archive(
        _member("a", DIR, mode=0o755),
        _member("a/b", SYM, ".."),
        _member("c", SYM, "a/b/../victim"),
        _member("c"),
    ),
    "a hard link above": _archive(_member("x", HARD, "../victim"), _member("x")),
    "a hard link through links": _archive(
        _member("a", DIR, mode=0o755),
        _member("a/b", SYM, ".."),
        _member("c", SYM, "a/b/.."),
        _member("x", HARD, "c/victim"),
        _member("x"),
    ),
    "a loop": _archive(_member("x", SYM, "y"), _member("y", SYM, "x")),
    "a device": _archive(_member("x", tarfile.CHRTYPE)),
    "a pipe": _archive(_member("x", tarfile.FIFOTYPE)),
    "no archive": b"this is no archive",
    "half an archive": _archive(*(_member(str(i)) for i in range(500)))[:900],
    "an archive damaged at its beginning": _archive(_member("x"))[:20] + bytes(range(40)),
    "an archive damaged in its middle": _damaged(b"\x07" * 20),
    "an archive with another sum": _damaged(b""),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused(sandbox: Sandbox, what: str) -> None:
    project(sandbox, FOLDER)
    put(sandbox, "model_v1.4.0.tar.gz", HOSTILE[what])
    sandbox.write("model/mine", b"mine")
    sandbox.write("victim", b"mine")  # beside the folder that is unpacked
    failed(sandbox.run("pull", "model", "LATEST", "-o"), "archive" if "archive" in what else "")
    assert [path.name for path in (sandbox.root / "model").iterdir()] == ["mine"]
    assert sandbox.read("victim") == "mine"
    assert not os.path.exists("/tmp/skelebot-victim")
    left = [path.name for path in sandbox.root.iterdir() if not path.name.startswith(".")]
    assert sorted(left) == ["VERSION", "model", "skelebot.yaml", "victim"]
    nothing_left(sandbox)


def test_an_archive_gives_no_rights_away(sandbox: Sandbox) -> None:
    project(sandbox, FOLDER)
    member = _member("tool", mode=0o6777)
    member.uid = member.gid = ORDINARY
    put(sandbox, "model_v1.4.0.tar.gz", _archive(member, _member("closed", DIR, mode=0o000)))
    sandbox.ok("pull", "model", "LATEST", "-o")
    found = (sandbox.root / "model/tool").stat()
    assert (found.st_mode & 0o7022, found.st_uid) == (0, os.getuid())
    assert (sandbox.root / "model/closed").stat().st_mode & 0o700 == 0o700


def test_an_empty_archive_is_an_empty_folder(sandbox: Sandbox) -> None:
    project(sandbox, FOLDER)
    sandbox.write("model/mine", b"mine")
    put(sandbox, "model_v1.4.0.tar.gz", _archive())
    sandbox.ok("pull", "model", "LATEST", "-o")
    assert os.listdir(sandbox.root / "model") == ["mine"]
    nothing_left(sandbox)


# --- at once, and cut off ---


def _big(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        for i in range(size >> 20):
            file.write(hashlib.sha256(b"%d" % i).digest() * 32768)


def _stopped(
    sandbox: Sandbox, words: tuple[str, ...], caught: Callable[[], bool]
) -> "subprocess.Popen[bytes]":
    """Skelebot, halted at a moment at which `caught` holds."""
    for _ in range(20):
        child = sandbox.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while child.poll() is None:
            child.send_signal(signal.SIGSTOP)
            if caught():
                return child
            child.send_signal(signal.SIGCONT)
            time.sleep(0.002)
        child.communicate()
    raise AssertionError("it was never caught in the act")


def test_of_two_pushes_at_once_one_is_told(sandbox: Sandbox) -> None:
    """The second has looked, found nothing, and is sending, when the first is there."""
    project(sandbox, MODEL)
    _big(sandbox.write("models/m.pkl", b""), 96 << 20)
    store = sandbox.root.parent / "store"

    def is_sending() -> bool:
        sizes = [path.stat().st_size for path in store.glob("*.skelebot-part")]
        if sizes or not (store / "model_v1.4.0.pkl").exists():
            return any(0 < size < 90 << 20 for size in sizes)
        (store / "model_v1.4.0.pkl").unlink()  # it was too fast; again
        return False

    slow = _stopped(sandbox, ("push", "model"), is_sending)
    sandbox.write("models/m.pkl.first", b"first")
    os.replace(sandbox.root / "models/m.pkl.first", sandbox.root / "models/m.pkl")
    assert sandbox.ok("push", "model") == "model_v1.4.0.pkl\n"
    slow.send_signal(signal.SIGCONT)
    out, err = slow.communicate(timeout=60)
    assert (slow.returncode, out) == (1, b"")
    assert b"is already in the store" in err
    assert stored(sandbox) == {"model_v1.4.0.pkl": b"first"}
    assert sandbox.ok("pull", "model", "LATEST")


def test_many_pushes_at_once(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", os.urandom(5_000_000))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    children = [sandbox.start("push", "model", **streams) for _ in range(5)]
    results = [(*child.communicate(timeout=60), child.returncode) for child in children]
    assert sorted(code for _, _, code in results) == [0, 1, 1, 1, 1], results
    assert all(b"is already in the store" in err for _, err, code in results if code)
    assert list(stored(sandbox)) == ["model_v1.4.0.pkl"]
    sandbox.ok("pull", "model", "LATEST")


def test_two_pulls_at_once(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    _big(sandbox.write("models/m.pkl", b""), 32 << 20)
    sandbox.ok("push", "model")
    before = (sandbox.root / "models/m.pkl").read_bytes()
    children = [sandbox.start("pull", "model", "LATEST", "-o", stderr=subprocess.PIPE) for _ in range(4)]
    assert [(child.communicate(timeout=60), child.returncode)[1] for child in children] == [0] * 4
    assert (sandbox.root / "models/m.pkl").read_bytes() == before
    nothing_left(sandbox)


def test_who_waited_for_a_lock_that_went_waits_for_the_next(sandbox: Sandbox) -> None:
    """Else two would write one part file at once."""
    project(sandbox, MODEL)
    _big(sandbox.write("models/m.pkl", b""), 96 << 20)
    sandbox.ok("push", "model")
    parts = sandbox.root / ".skelebot/parts"
    child = _stopped(sandbox, ("pull", "model", "LATEST"), lambda: any(parts.glob("*.lock")))
    path = next(parts.glob("*.lock"))  # which stays where a pull is killed
    child.kill()
    child.communicate()
    with open(path, "w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        child = sandbox.start("pull", "model", "LATEST", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stderr
        assert b"waiting" in child.stderr.readline()
        path.unlink()
        with open(path, "w") as second:
            fcntl.flock(second, fcntl.LOCK_EX)
            fcntl.flock(first, fcntl.LOCK_UN)
            assert b"waiting" in child.stderr.readline()
    child.communicate(timeout=60)
    assert child.returncode == 0
    nothing_left(sandbox)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_pull_leaves_the_old_file_and_goes_on(sandbox: Sandbox, signum: int) -> None:
    project(sandbox, MODEL)
    size = 96 << 20
    _big(sandbox.write("models/m.pkl", b""), size)
    sandbox.ok("push", "model")
    sandbox.write("models/m.pkl", b"mine")
    parts = sandbox.root / ".skelebot/parts"

    def is_half_way() -> bool:
        return any(0 < path.stat().st_size < size - (4 << 20) for path in parts.glob("*/data"))

    child = _stopped(sandbox, ("pull", "model", "LATEST", "-o"), is_half_way)
    child.send_signal(signum)
    child.send_signal(signal.SIGCONT)
    child.communicate(timeout=60)
    assert child.returncode == (-9 if signum == signal.SIGKILL else 128 + signum)
    assert sandbox.read("models/m.pkl") == "mine"
    [part] = parts.glob("*/data")
    have = part.stat().st_size
    [done] = json.loads(sandbox.ok("pull", "model", "LATEST", "-o", "--json"))
    assert done["sent"] == size - have
    assert (sandbox.root / "models/m.pkl").read_bytes() == stored(sandbox)["model_v1.4.0.pkl"]
    nothing_left(sandbox)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_push_stores_nothing(sandbox: Sandbox, signum: int) -> None:
    project(sandbox, MODEL)
    _big(sandbox.write("models/m.pkl", b""), 96 << 20)
    store = sandbox.root.parent / "store"

    def is_sending() -> bool:
        (store / "model_v1.4.0.pkl").unlink(missing_ok=True)
        return any(0 < path.stat().st_size < 90 << 20 for path in store.glob("*.skelebot-part"))

    child = _stopped(sandbox, ("push", "model"), is_sending)
    child.send_signal(signum)
    child.send_signal(signal.SIGCONT)
    child.communicate(timeout=60)
    assert json.loads(sandbox.ok("artifacts", "--json")) == []
    sandbox.ok("push", "model")
    assert sandbox.ok("pull", "model", "LATEST")


def test_a_push_that_is_killed_leaves_no_object_without_its_checksum(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    store, number = sandbox.root.parent / "store", 0

    def is_replaced() -> bool:
        path = store / "model_v1.4.0.pkl"
        return path.exists() and path.stat().st_ino != number

    for _ in range(15):
        sandbox.write("models/m.pkl", os.urandom(1_000_000))
        child = sandbox.start("push", "model", "-f", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while child.poll() is None and not is_replaced():
            pass
        child.kill()
        child.communicate()
        number = (store / "model_v1.4.0.pkl").stat().st_ino
        [row] = json.loads(sandbox.ok("artifacts", "model", "--json"))
        content = (store / "model_v1.4.0.pkl").read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
    (store / "model_v1.4.0.pkl").write_bytes(bytes(1_000_000))
    failed(sandbox.run("pull", "model", "LATEST"), "damaged")


def test_a_pull_that_is_killed_while_it_unpacks(sandbox: Sandbox) -> None:
    project(sandbox, FOLDER)
    _big(sandbox.write("model/m.bin", b""), 64 << 20)
    sandbox.ok("push", "model")
    shutil.rmtree(sandbox.root / "model")
    sandbox.write("model/mine", b"mine")
    fresh = sandbox.root / "model.skelebot-new"
    child = _stopped(sandbox, ("pull", "model", "LATEST", "-o"), fresh.exists)
    child.kill()
    child.communicate()
    assert fresh.exists()
    assert os.listdir(sandbox.root / "model") == ["mine"]
    [done] = json.loads(sandbox.ok("pull", "model", "LATEST", "-o", "--json"))
    assert done["sent"] == 0
    assert sorted(os.listdir(sandbox.root / "model")) == ["m.bin", "mine"]
    nothing_left(sandbox)


@pytest.mark.parametrize("is_good", [True, False])
def test_a_folder_that_a_killed_pull_had_moved_away(sandbox: Sandbox, is_good: bool) -> None:
    """It was about to put the new one in its place."""
    project(sandbox, FOLDER)
    put(sandbox, "model_v1.4.0.tar.gz", _archive(_member("new")) if is_good else b"no archive")
    sandbox.write("model.skelebot-old/mine", b"mine")
    sandbox.write("model.skelebot-new/half", b"half of it")
    assert sandbox.run("pull", "model", "LATEST", "-o").code == (0 if is_good else 1)
    assert sorted(os.listdir(sandbox.root / "model")) == (["mine", "new"] if is_good else ["mine"])
    nothing_left(sandbox)


def test_a_file_in_a_folder_that_is_write_protected_stays(anyone: Sandbox) -> None:
    project(anyone, FOLDER)
    put(anyone, "model_v1.4.0.tar.gz", _archive(_member("new")))
    anyone.write("model/inner/mine", b"mine")
    for folder in ("model/inner", "model"):
        (anyone.root / folder).chmod(0o555)
    anyone.ok("pull", "model", "LATEST", "-o")
    assert sorted(os.listdir(anyone.root / "model")) == ["inner", "new"]
    assert anyone.read("model/inner/mine") == "mine"
    nothing_left(anyone)


def test_what_came_of_a_pull_is_kept_for_a_week(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    put(sandbox, "model_v1.4.0.pkl")
    parts, now = sandbox.root / ".skelebot/parts", time.time()
    for name, days in (("older", 7.1), ("younger", 6.9)):
        sandbox.write(f".skelebot/parts/{name}/data", b"half")
        sandbox.write(f".skelebot/parts/{name}.lock", b"")
        for path in (parts / name, parts / f"{name}.lock"):
            os.utime(path, (now, now - days * 24 * 3600))
    sandbox.ok("pull", "model", "LATEST", "-o")
    assert sorted(os.listdir(parts)) == ["younger", "younger.lock"]


def test_what_a_killed_push_left_in_the_store_goes_after_a_day(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", b"mine")
    old = ["model_v1.4.0.pkl.01234567.skelebot-part", "model_v1.4.0.pkl.sha256.01234567.skelebot-part"]
    others = ["model_v1.4.0.pkl.bak.01234567.skelebot-part", "model_v1.4.0.pkl.1.skelebot-part"]
    young = ["model_v1.4.0.pkl.89abcdef.skelebot-part"]
    for name in (*old, *others, *young):
        put(sandbox, name)
    for name in (*old, *others):
        then = time.time() - 25 * 3600
        os.utime(sandbox.root.parent / "store" / name, (then, then))
    sandbox.ok("push", "model")
    assert sorted(stored(sandbox)) == sorted(["model_v1.4.0.pkl", *others, *young])


@pytest.mark.parametrize("ending", [".part", ".sha256", ".lock"])
def test_endings_that_look_like_our_own(sandbox: Sandbox, ending: str) -> None:
    project(sandbox, f"{{name: model, file: m{ending}}}")
    sandbox.write(f"m{ending}", b"mine")
    sandbox.ok("push", "model")
    sandbox.write(f"m{ending}", b"another")
    sandbox.ok("pull", "model", "LATEST", "-o")
    assert sandbox.read(f"m{ending}") == "mine"


# --- a full disk ---


@pytest.fixture
def small_disk(sandbox: Sandbox) -> Iterator[Callable[[Path], None]]:
    """Puts a file system of 8 MiB at a folder."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        words = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "none", str(folder)]
        if os.getuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small disk")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def _too_big(sandbox: Sandbox, artifact: str = MODEL) -> None:
    project(sandbox, artifact)
    put(sandbox, "model_v1.4.0.pkl", os.urandom(20 << 20))
    sandbox.write("models/m.pkl", b"mine")


def test_a_full_disk_during_a_pull(sandbox: Sandbox, small_disk: Callable[[Path], None]) -> None:
    small_disk(sandbox.root)
    _too_big(sandbox)
    for _ in range(2):
        failed(sandbox.run("pull", "model", "LATEST", "-o"), "no space left")
        assert sandbox.read("models/m.pkl") == "mine"
    assert not (sandbox.root / "model_v1.4.0.pkl").exists()
    # With room, the same command goes on where it was.
    subprocess.run(["mount", "-o", "remount,size=64m", str(sandbox.root)], check=True)
    [done] = json.loads(sandbox.ok("pull", "model", "LATEST", "-o", "--json"))
    assert 0 < done["sent"] < done["size"]
    assert (sandbox.root / "models/m.pkl").read_bytes() == stored(sandbox)["model_v1.4.0.pkl"]


def test_a_full_disk_below_the_configured_path(sandbox: Sandbox, small_disk: Callable[[Path], None]) -> None:
    (sandbox.root / "models").mkdir()
    small_disk(sandbox.root / "models")
    _too_big(sandbox)
    failed(sandbox.run("pull", "model", "LATEST", "-o"), "no space left")
    assert sandbox.read("models/m.pkl") == "mine"
    assert [path.name for path in (sandbox.root / "models").iterdir()] == ["m.pkl"]
    put(sandbox, "model_v1.4.0.pkl", b"small enough")
    sandbox.ok("pull", "model", "LATEST", "-o")
    assert sandbox.read("models/m.pkl") == "small enough"


def test_a_full_disk_while_a_folder_is_unpacked(sandbox: Sandbox, small_disk: Callable[[Path], None]) -> None:
    small_disk(sandbox.root)
    project(sandbox, FOLDER)
    large = _member("noise")
    large.size = 20 << 20
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as tar:
        tar.addfile(large, io.BytesIO(os.urandom(1 << 20) * 20))
    put(sandbox, "model_v1.4.0.tar.gz", raw.getvalue())
    sandbox.write("model/mine", b"mine")
    failed(sandbox.run("pull", "model", "LATEST", "-o"), "no space left")
    assert [path.name for path in (sandbox.root / "model").iterdir()] == ["mine"]
    assert [path for path in sandbox.root.iterdir() if ".skelebot-" in path.name] == []


def test_a_full_store(sandbox: Sandbox, small_disk: Callable[[Path], None]) -> None:
    project(sandbox, MODEL)
    sandbox.write("models/m.pkl", os.urandom(20 << 20))
    store = sandbox.root.parent / "store"
    store.mkdir()
    small_disk(store)
    failed(sandbox.run("push", "model"), "no space left")
    assert list(store.iterdir()) == []


# --- from Python ---


def _python(sandbox: Sandbox, *lines: str) -> Result:
    script = "\n".join(["from skelebot import artifacts", *lines])
    child = sandbox.popen(
        sys.executable, "-c", script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = child.communicate(timeout=60)
    return Result(child.returncode, out.decode(), err.decode())


def test_the_call_for_jobs_and_notebooks(sandbox: Sandbox) -> None:
    project(sandbox, MODEL, ONLY)
    put(sandbox, "model_v1.2.0.pkl", b"older")
    put(sandbox, "model_v1.3.0.pkl", b"newest")
    put(sandbox, "staging/model_v1.4.0.pkl", b"staged")
    put(sandbox, "table.csv", b"1,2")
    done = _python(
        sandbox,
        "path = artifacts.pull('model', 'LATEST')",
        "print(type(path).__mro__[1].__name__, path, path.read_text())",
        "print(artifacts.pull('model', '1.2.0', override=True).name, open('models/m.pkl').read())",
        "print(artifacts.read('model'), artifacts.read('table'), artifacts.read('model', prefix='staging/'))",
        "with artifacts.open('model', '1.2.0') as file: print(file.read(3), file.read())",
    )
    assert done.out.splitlines() == [
        f"Path {sandbox.root.resolve()}/model_v1.3.0.pkl newest",
        "m.pkl older",
        "b'newest' b'1,2' b'staged'",
        "b'old' b'er'",
    ], done.err


@pytest.mark.parametrize(
    "call",
    [
        "pull('other')",
        "pull('model', '9.9.9')",
        "pull('model')",
        "read('model')",
        "pull('ALL')",
        "pull('model', '1.x')",
        "read('folder', '1.0.0')",
        "open('folder', '1.0.0')",
    ],
)
def test_the_call_raises(sandbox: Sandbox, call: str) -> None:
    project(sandbox, MODEL, "{name: folder, file: folder/}")
    put(sandbox, "model_v1.x.pkl")
    sandbox.write("folder/x", b"1")
    sandbox.write("VERSION", "1.0.0\n")
    sandbox.ok("push", "folder")
    done = _python(
        sandbox,
        "from skelebot.errors import SkelebotError",
        f"try: artifacts.{call}",
        "except SkelebotError as error: print('raised', error)",
    )
    assert done.out.startswith("raised "), done
    assert "\n" not in done.out.strip()


def test_the_call_in_an_environment_and_without_a_project(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    base = sandbox.read("skelebot.yaml")
    sandbox.write("skelebot-dev.yaml", base[base.index("components") :].replace("../store", "../dev"))
    sandbox.write("../dev/model_v1.0.0.pkl", b"of dev")
    assert _python(sandbox, "print(artifacts.read('model', env='dev'))").out == "b'of dev'\n"
    sandbox.write("skelebot.yaml", "name: a\n")
    assert "add `components.repository` to skelebot.yaml" in _python(sandbox, "artifacts.pull('model')").err
    (sandbox.root / "skelebot.yaml").unlink()
    assert "no skelebot.yaml in this folder or its parents" in _python(sandbox, "artifacts.pull('model')").err


def test_the_call_in_a_job(sandbox: Sandbox) -> None:
    project(sandbox, MODEL)
    put(sandbox, "model_v1.3.0.pkl", b"newest")
    sandbox.write("jobs/score.py", "from skelebot import artifacts\nprint(artifacts.read('model'))\n")
    with open(sandbox.root / "skelebot.yaml", "a") as file:
        file.write("jobs:\n- {name: score, source: jobs/score.py, help: h}\n")
    beside = f"{os.path.dirname(sys.executable)}{os.pathsep}{sandbox.env['PATH']}"
    assert sandbox.with_env(PATH=beside).ok("-n", "score") == "b'newest'\n"
