"""Versions: `bump` in a real git repository and in chains; packages."""

import os
import subprocess
from dataclasses import replace

import pytest
from harness import ORDINARY, SKELEBOT, Sandbox, Terminal, job, make_sandbox
from harness import project as of_image


def project(sandbox: Sandbox, version: str = "1.4.2") -> None:
    sandbox.write("skelebot.yaml", "name: a\njobs:\n- {name: show, source: cat VERSION, help: h}\n")
    sandbox.write("VERSION", f"{version}\n")


def git(sandbox: Sandbox, *words: str) -> str:
    with sandbox.popen("git", *words, stdout=subprocess.PIPE) as child:
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 0, words
    return str(out.decode()).strip()


def in_git(sandbox: Sandbox) -> Sandbox:
    """A project of which all is committed."""
    who = {f"GIT_{role}_{what}": "x@y" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    sandbox = sandbox.with_env(**who)
    project(sandbox)
    git(sandbox, "init", "-q", ".")
    git(sandbox, "add", ".")
    git(sandbox, "commit", "-qm", "first")
    return sandbox


@pytest.fixture
def repository(sandbox: Sandbox) -> Sandbox:
    return in_git(sandbox)


def commits(sandbox: Sandbox) -> list[str]:
    return git(sandbox, "log", "--format=%s").splitlines()


# --- tags ---


def test_a_tag_is_on_a_commit_of_version_alone(anyone: Sandbox) -> None:
    repository = in_git(anyone)
    repository.write("skelebot.yaml", "name: changed\n")
    repository.write("staged", "staged\n")
    git(repository, "add", "staged")
    assert repository.ok("bump", "minor", "--tag") == "1.5.0\n"
    assert commits(repository) == ["Version 1.5.0", "first"]
    assert git(repository, "cat-file", "-t", "v1.5.0") == "tag"
    assert git(repository, "rev-parse", "v1.5.0^{commit}") == git(repository, "rev-parse", "HEAD")
    assert git(repository, "show", "--format=", "--name-only", "HEAD") == "VERSION"
    assert git(repository, "show", "v1.5.0:VERSION") == "1.5.0"
    assert git(repository, "status", "--short").splitlines() == ["M skelebot.yaml", "A  staged"]
    assert repository.owner("VERSION") == repository.uid


def test_a_tag_that_is_there_is_refused_before_anything_is_written(repository: Sandbox) -> None:
    git(repository, "tag", "v1.5.0")
    result = repository.run("bump", "minor", "-t")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1), result
    assert "v1.5.0 already exists" in result.err
    assert repository.read("VERSION") == "1.4.2\n"
    assert commits(repository) == ["first"]


def test_no_repository(sandbox: Sandbox) -> None:
    project(sandbox)
    result = sandbox.run("bump", "minor", "-t")
    assert (result.code, len(result.errors)) == (1, 1), result
    assert "not a git repository" in result.err
    assert sandbox.read("VERSION") == "1.4.2\n"
    empty = sandbox.write("bin/nothing", "").parent
    result = sandbox.with_env(PATH=str(empty)).run("bump", "minor", "-t")
    assert (result.code, result.err) == (127, "ERROR | git is not installed, or not on PATH\n")
    assert sandbox.read("VERSION") == "1.4.2\n"


def test_a_project_below_the_repository_that_is_not_in_git_yet(repository: Sandbox) -> None:
    repository.write("below/skelebot.yaml", "name: b\n")
    repository.write("below/VERSION", "0.1.0\n")
    repository.ok("bump", "minor", "-t", cwd=repository.root / "below")
    assert git(repository, "show", "v0.2.0:below/VERSION") == "0.2.0"
    assert git(repository, "show", "--format=", "--name-only", "HEAD") == "below/VERSION"
    assert repository.read("VERSION") == "1.4.2\n"


def test_a_version_that_is_committed_is_only_tagged(repository: Sandbox) -> None:
    repository.ok("bump", "1.4.2", "-f", "-t")
    assert commits(repository) == ["first"]
    assert git(repository, "rev-parse", "v1.4.2^{commit}") == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize("tracked", [True, False])
def test_a_hook_that_refuses_leaves_everything_as_it_was(repository: Sandbox, tracked: bool) -> None:
    if not tracked:
        git(repository, "rm", "-q", "--cached", "VERSION")
        git(repository, "commit", "-qm", "without")
    repository.write("staged", "staged\n")
    git(repository, "add", "staged")
    repository.write(".git/hooks/pre-commit", "#!/bin/sh\necho the hook says no\nexit 1\n", 0o755)
    before = (commits(repository), git(repository, "status", "--short"))
    result = repository.run("bump", "minor", "-t")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1), result
    assert result.errors[0].endswith("git commit failed: the hook says no")
    assert repository.read("VERSION") == "1.4.2\n"
    assert (commits(repository), git(repository, "status", "--short")) == before
    assert git(repository, "tag") == ""


def test_an_ignored_version_is_not_committed(repository: Sandbox) -> None:
    git(repository, "rm", "-q", "--cached", "VERSION")
    repository.write(".gitignore", "VERSION\n")
    result = repository.run("bump", "minor", "-t")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "git ignores VERSION" in result.errors[0]
    assert repository.read("VERSION") == "1.4.2\n"


def test_of_what_git_says_the_error_has_what_was_wrong(repository: Sandbox) -> None:
    repository.write(".git/index.lock", "")
    result = repository.run("bump", "minor", "-t")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "git commit failed: fatal: " in result.errors[0]
    assert repository.read("VERSION") == "1.4.2\n"


def test_a_tag_that_git_refuses_after_the_commit_is_told(repository: Sandbox) -> None:
    git(repository, "tag", "v1.5.0/taken")
    result = repository.run("bump", "minor", "-t")
    assert result.code == 1
    assert "VERSION is committed but not tagged: git tag failed" in result.errors[0]
    assert "git tag -a -m v1.5.0 v1.5.0" in result.errors[0]
    assert commits(repository)[0] == "Version 1.5.0"


@pytest.mark.parametrize(("hook", "version"), [("pre-commit", "1.4.2"), ("post-commit", "1.5.0")])
def test_ctrl_c_in_a_hook(repository: Sandbox, hook: str, version: str) -> None:
    """What is not committed is as it was; what is, stays."""
    text = "#!/bin/sh\necho waiting in the hook >/dev/tty\nsleep 60\n"
    repository.write(f".git/hooks/{hook}", text, 0o755)
    terminal = Terminal(repository, f"exec {SKELEBOT} bump minor -t")
    terminal.expect("waiting in the hook")
    terminal.send(b"\x03")
    assert terminal.close() == 130
    assert repository.read("VERSION") == f"{version}\n"
    assert git(repository, "show", "HEAD:VERSION") == version
    assert git(repository, "status", "--short") == ""


# --- files ---


def test_root_leaves_version_to_its_owner() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can test as root")
    for others in make_sandbox(ORDINARY):
        project(others)
        replace(others, uid=0).ok("bump", "minor")
        assert (others.read("VERSION"), others.owner("VERSION")) == ("1.5.0\n", ORDINARY)


def test_a_folder_that_cannot_be_written(anyone: Sandbox) -> None:
    if anyone.uid == 0:
        pytest.skip("root can write everywhere")
    project(anyone)
    root = anyone.root.resolve()
    root.chmod(0o555)
    result = anyone.run("bump", "minor")
    assert (result.code, result.err) == (1, f"ERROR | {root}/VERSION cannot be written: permission denied\n")
    assert anyone.read("VERSION") == "1.4.2\n"
    assert sorted(os.listdir(anyone.root)) == ["VERSION", "skelebot.yaml"]


def test_a_full_disk(sandbox: Sandbox) -> None:
    project(sandbox)
    script = f"ulimit -f 0; PYTHONDONTWRITEBYTECODE=1 exec {SKELEBOT} bump minor"
    with sandbox.popen("bash", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        _, err = child.communicate(timeout=60)
    said = f"ERROR | {sandbox.root.resolve()}/VERSION cannot be written: file too large\n"
    assert (child.returncode, err.decode()) == (1, said)
    assert sandbox.read("VERSION") == "1.4.2\n"
    assert sorted(os.listdir(sandbox.root)) == ["VERSION", "skelebot.yaml"]


# --- chains ---


def test_what_comes_after_a_bump_sees_the_new_version(sandbox: Sandbox) -> None:
    sandbox.write(
        "skelebot.yaml",
        """\
        name: a
        components:
          repository:
            local: ../store
            artifacts:
            - {name: model, file: m.pkl}
        jobs:
        - {name: show, source: cat VERSION, help: h}
        """,
    )
    sandbox.write("VERSION", "1.4.2\n")
    sandbox.write("m.pkl", "a model")
    out = sandbox.ok("-n", "bump", "minor", "+", "push", "model", "+", "show")
    assert out == "1.5.0\nmodel_v1.5.0.pkl\n1.5.0\n"
    assert (sandbox.root.parent / "store/model_v1.5.0.pkl").read_text() == "a model"


def test_what_comes_after_a_failed_bump_does_not_run(sandbox: Sandbox) -> None:
    project(sandbox)
    result = sandbox.run("-n", "bump", "1.0.0", "+", "show")
    assert (result.code, result.out) == (1, "")
    assert result.errors[0] == "ERROR | bump failed; not run: show"


def test_a_tag_that_cannot_be_made_lets_no_link_run(sandbox: Sandbox) -> None:
    project(sandbox)
    result = sandbox.run("-n", "show", "+", "bump", "minor", "-t")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1), result


# --- packages ---


def test_a_file_that_cannot_be_read(anyone: Sandbox) -> None:
    if anyone.uid == 0:
        pytest.skip("root can read everything")
    project(anyone)
    anyone.write("secret", "mine", 0o000)
    result = anyone.run("package")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1), result
    assert "secret cannot be read: permission denied; fix that, or add it to" in result.err
    assert sorted(os.listdir(anyone.root)) == ["VERSION", "secret", "skelebot.yaml"]


@pytest.mark.engine
def test_an_image_holds_no_package(sandbox: Sandbox, name: str) -> None:
    of_image(sandbox, name, job("ls"))
    before = sandbox.ok("run").split()
    package = os.path.basename(sandbox.ok("package").strip())
    assert package == f"{name}.zip"
    assert sandbox.ok("run").split() == before
    assert "skelebot.yaml" in before
