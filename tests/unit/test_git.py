"""What git is asked runs nothing that a repository's own configuration names, and still gets its answer."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from skelebot import git
from skelebot.errors import ProgramMissing, SkelebotError
from skelebot.model import Image
from skelebot.runners.docker import release

from .helpers import run_cli, write


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the git settings of who runs the tests nor a repository above them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def real_git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    real_git(folder, "init", "--quiet", "--initial-branch", "main")
    for name, content in files.items():
        write(folder, content, name.replace("_", "."))
    real_git(folder, "add", "--all")
    real_git(folder, "commit", "--quiet", "-m", "c")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project, and at once a template, all of which is committed."""
    files = {"a_txt": "1\n", "skelebot_yaml": "name: demo\n", "VERSION": "1.0.0\n", "template_yaml": "{}"}
    return repository(tmp_path / "project", **files)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A program that leaves a file behind when it runs; it also passes its input on, as a filter does."""
    path = write(tmp_path, f"#!/bin/sh\ntouch {tmp_path}/ran\n[ $# = 0 ] && cat\n", "trap")
    path.chmod(0o755)
    return path


# --- nothing runs ---

# Each makes git run the program in the second folder when it is asked the usual way.
Setup = Callable[[Path, Path], None]


def set_config(name: str) -> Setup:
    return lambda root, trap: void(real_git(root, "config", name, str(trap)))


def void(_: object) -> None: ...


def included(root: Path, trap: Path) -> None:
    write(root.parent, f"[core]\n\tfsmonitor = {trap}\n", "more")
    real_git(root, "config", "include.path", str(root.parent / "more"))


def in_the_worktrees_config(root: Path, trap: Path) -> None:
    real_git(root, "config", "extensions.worktreeConfig", "true")
    real_git(root, "config", "--worktree", "core.fsmonitor", str(trap))


def behind_a_git_file(root: Path, trap: Path) -> None:
    real_git(root, "config", "core.fsmonitor", str(trap))
    (root / ".git").rename(root.parent / "elsewhere")
    write(root, "gitdir: ../elsewhere\n", ".git")


def behind_an_alternate(root: Path, trap: Path) -> None:
    """Its objects are in another repository, whose configuration counts for nothing."""
    other = repository(root.parent / "other", c_txt="3\n")
    real_git(other, "config", "core.fsmonitor", str(trap))
    write(root, f"{other}/.git/objects\n", ".git/objects/info/alternates")
    real_git(root, "config", "core.alternateRefsCommand", str(trap))
    real_git(root, "config", "core.fsmonitor", str(trap))


def filtered(key: str, name: str = "evil") -> Setup:
    def setup(root: Path, trap: Path) -> None:
        write(root, f"*.txt filter={name}\n", ".git/info/attributes")
        real_git(root, "config", f"filter.{name}.{key}", str(trap))
        real_git(root, "config", f"filter.{name}.required", "true")
        os.utime(root / "a.txt", (1, 1))  # so that git has to read it

    return setup


def hooked(root: Path, trap: Path) -> None:
    (root / ".git/hooks/post-index-change").symlink_to(trap)
    os.utime(root / "a.txt", (1, 1))


def hooks_elsewhere(root: Path, trap: Path) -> None:
    write(root.parent, trap.read_text(), "hooks/post-index-change").chmod(0o755)
    real_git(root, "config", "core.hooksPath", str(root.parent / "hooks"))
    os.utime(root / "a.txt", (1, 1))


def in_a_submodule(root: Path, trap: Path) -> None:
    inner = repository(root.parent / "inner", b_txt="2\n")
    real_git(root, "submodule", "--quiet", "add", str(inner), "sub")
    os.utime(root / "sub/b.txt", (1000, 1000))
    real_git(root / "sub", "status")  # notes that time
    real_git(root, "commit", "--quiet", "-m", "sub")
    real_git(root / "sub", "config", "core.fsmonitor", str(trap))
    write(root / ".git/modules/sub", "*.txt filter=evil\n", "info/attributes")
    real_git(root / "sub", "config", "filter.evil.clean", str(trap))


def partial_clone(root: Path, trap: Path) -> None:
    """A blob that is not there is to be fetched, by a transport that is a program."""
    blob = real_git(root, "rev-parse", "HEAD:VERSION")
    (root / f".git/objects/{blob[:2]}/{blob[2:]}").unlink()
    real_git(root, "config", "core.repositoryFormatVersion", "1")
    real_git(root, "config", "extensions.partialClone", "origin")
    real_git(root, "config", "remote.origin.promisor", "true")
    real_git(root, "config", "remote.origin.url", f"ext::{trap} x")
    real_git(root, "config", "protocol.ext.allow", "always")


TRAPS = {
    "fsmonitor": (set_config("core.fsmonitor"), ["status"]),
    "include": (included, ["status"]),
    "config.worktree": (in_the_worktrees_config, ["status"]),
    ".git file": (behind_a_git_file, ["status"]),
    "alternates": (behind_an_alternate, ["status"]),
    "clean filter": (filtered("clean"), ["status"]),
    "process filter": (filtered("process"), ["status"]),
    "filter with =": (filtered("clean", "a=b"), ["status"]),
    "hook": (hooked, ["status"]),
    "core.hooksPath": (hooks_elsewhere, ["status"]),
    "submodule": (in_a_submodule, ["status"]),
    "partial clone": (partial_clone, ["cat-file", "-p", "HEAD:VERSION"]),
    "diff.external": (set_config("diff.external"), ["diff", "HEAD~0", "--", "a.txt"]),
}


@pytest.mark.parametrize("name", TRAPS)
def test_nothing_that_a_repository_names_is_run(
    root: Path, trap: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setup, words = TRAPS[name]
    setup(root, trap)
    if name == "diff.external":
        write(root, "2\n", "a.txt")
    ran = tmp_path / "ran"
    for key in ("core.sshCommand", "core.pager", "core.editor", "gpg.program", "credential.helper"):
        real_git(root, "config", key, str(trap))
    real_git(root, "config", "uploadpack.packObjectsHook", str(trap))
    real_git(root, "config", "alias.status", f"!{trap}")
    monkeypatch.chdir(root)
    ran.unlink(missing_ok=True)
    run_cli(["--dry-run", "bump", "minor", "--tag"])
    release.commit_labels(Image("demo:latest", "demo", "base", str(root)))
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    for first in (["--dry-run"], []):
        run_cli([*first, "scaffold", "-y", "--template", str(root)])
    assert not ran.exists()
    # The trap is one: whoever calls git there steps into it.
    subprocess.run(["git", *words], cwd=root, capture_output=True, timeout=60)
    assert ran.exists()


def test_a_question_reaches_no_transport_and_no_hook(root: Path, trap: Path, tmp_path: Path) -> None:
    partial_clone(root, trap)
    git.ask(str(root), "ls-remote", "origin")
    hooked(root, trap)
    assert git.ask(str(root), "update-index", "--force-remove", "--", "a.txt")[0] == 0
    assert not (tmp_path / "ran").exists()
    subprocess.run(["git", "ls-remote", "origin"], cwd=root, capture_output=True, timeout=60)
    assert (tmp_path / "ran").exists()


def test_only_one_module_calls_git() -> None:
    package = Path(git.__file__).parent
    callers = [
        path.name for path in package.rglob("*.py") if 'Step(("git"' in path.read_text(encoding="utf-8")
    ]
    assert callers == ["git.py"]


# --- what has changed ---


def test_changes_of_the_usual_kind(root: Path) -> None:
    assert git.has_changes(str(root)) is False
    write(root, "new", "out/new.txt")
    assert git.has_changes(str(root)) is True
    assert git.has_changes(str(root), ["out/new.txt"]) is False
    write(root, "2\n", "a.txt")
    assert git.has_changes(str(root), ["out/new.txt"]) is True
    assert git.has_changes(str(root / "out"), ["new.txt"]) is False


def big_file_filter(root: Path, *more: str) -> None:
    """As git lfs sets it up: in the user's settings; the commit holds something short for the file."""
    for key, program in (("clean", "cut -c1-3"), ("smudge", "sed s/$/-long/")):
        real_git(root, "config", "--global", f"filter.big.{key}", program)
    write(root, "*.bin filter=big\n", ".gitattributes")
    os.utime(
        write(root, "abc-long\n", "sub/é.bin"), (1000, 1000)
    )  # before the index, so it is not read again
    real_git(root, "add", "--all")
    real_git(root, "commit", "--quiet", "-m", "big")
    assert real_git(root, "show", "HEAD:sub/é.bin") == "abc"


def test_what_only_a_filter_could_tell_is_unknown(root: Path) -> None:
    big_file_filter(root)
    for folder in (root, root / "sub"):
        assert git.has_changes(str(folder)) is False  # git knows its time and size
    os.utime(root / "sub/é.bin", (1, 1))
    for folder in (root, root / "sub"):
        assert git.has_changes(str(folder)) is None
    assert release.commit_labels(Image("demo", "demo", "base", str(root)))["skelebot.dirty"] == "unknown"
    write(root, "2\n", "a.txt")
    assert git.has_changes(str(root)) is True
    assert git.has_changes(str(root / "sub")) is None


def test_a_change_is_known_beside_a_filter(root: Path) -> None:
    big_file_filter(root)
    write(root, "xyz-long\n", "sub/é.bin")
    real_git(root, "add", "--all")
    assert git.has_changes(str(root)) is True
    real_git(root, "commit", "--quiet", "-m", "more")
    (root / "sub/é.bin").unlink()
    assert git.has_changes(str(root)) is True


def test_changes_in_a_submodule(root: Path, trap: Path) -> None:
    in_a_submodule(root, trap)
    assert git.has_changes(str(root)) is False
    write(root, "3\n", "sub/b.txt")
    assert git.has_changes(str(root)) is None
    write(root, "3\n", "sub/c.md")
    assert git.has_changes(str(root)) is True
    real_git(root / "sub", "add", "c.md")
    real_git(root / "sub", "commit", "--quiet", "-m", "c")
    assert git.has_changes(str(root)) is True


def test_a_question_that_git_cannot_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SkelebotError, match="fatal: not a git repository"):
        git.has_changes(str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ProgramMissing, match="git is not installed, or not on PATH"):
        git.ask(str(tmp_path), "status")
