"""`skelebot bump`: which version follows which, and how VERSION is written."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from .helpers import problems, run_cli, write


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path, "name: demo\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bumped(project: Path, before: str, *words: str) -> str:
    """What VERSION holds after a bump that succeeds."""
    write(project, before, "VERSION")
    assert run_cli(["bump", *words]) == 0
    return (project / "VERSION").read_text()


def refused(project: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code and the one line that a failing bump ends with."""
    code = run_cli(["bump", *words])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ERROR | ")
    assert err.count("\n") == 1
    return code, err


@pytest.mark.parametrize(
    ("before", "word", "after"),
    [
        ("1.4.2\n", "major", "2.0.0"),
        ("1.4.2\n", "minor", "1.5.0"),
        ("1.4.2", "patch", "1.4.3"),
        ("0.9.9\n", "minor", "0.10.0"),
        ("1.5.0-rc.1\n", "patch", "1.5.0"),
        ("1.5.0-rc.1\n", "minor", "1.5.0"),
        ("1.5.0-rc.1\n", "major", "2.0.0"),
        ("1.5.1-rc.1\n", "minor", "1.6.0"),
        ("2.0.0-rc.1\n", "major", "2.0.0"),
        ("1.4.2+build.7\n", "patch", "1.4.3"),
        ("1.4.2\n", "1.5.0-rc.1", "1.5.0-rc.1"),
        ("1.5.0-rc.9\n", "1.5.0-rc.10", "1.5.0-rc.10"),
        ("1.5.0-rc.1\n", "1.5.0", "1.5.0"),
        ("1.9.0\n", "1.10.0", "1.10.0"),
        ("  1.4.2\r\n", "patch", "1.4.3"),
        ("\ufeff1.4.2\n", "patch", "1.4.3"),
    ],
)
def test_what_follows(project: Path, before: str, word: str, after: str) -> None:
    assert bumped(project, before, word) == f"{after}\n"


def test_stdout_holds_the_new_version_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bumped(project, "1.4.2\n", "minor")
    assert capsys.readouterr() == ("1.5.0\n", "")


@pytest.mark.parametrize("word", ["1.4.2", "1.4.1", "0.9.0", "1.4.2-rc.1", "1.4.1+build"])
def test_a_version_that_is_not_above_needs_force(
    project: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    write(project, "1.4.2\n", "VERSION")
    code, said = refused(project, capsys, word)
    assert code == 1
    assert "not above the current version, 1.4.2" in said
    assert (project / "VERSION").read_text() == "1.4.2\n"
    assert bumped(project, "1.4.2\n", word, "--force") == f"{word}\n"


@pytest.mark.parametrize(
    "word", ["v1.5.0", "1.5", "1.5.0.0", "01.5.0", "Minor", "", "1.5.0-", "1.5.0\n", "1.5.0\x1b[31m", "../x"]
)
def test_a_word_that_is_not_a_version(project: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    write(project, "1.4.2\n", "VERSION")
    code, said = refused(project, capsys, word)
    assert code == 2
    assert "major, minor, patch or a version" in said
    assert (project / "VERSION").read_text() == "1.4.2\n"


@pytest.mark.parametrize("word", ["minor", "2.0.0"])
@pytest.mark.parametrize("text", [None, "", "1.4\n", "one\n", "v1.4.2\n"])
def test_a_missing_or_malformed_version(
    project: Path, capsys: pytest.CaptureFixture[str], text: str | None, word: str
) -> None:
    if text is not None:
        write(project, text, "VERSION")
    code, said = refused(project, capsys, word)
    assert code == 1
    assert "VERSION" in said
    assert (project / "VERSION").exists() == (text is not None)


def test_force_sets_a_version_where_there_is_none(project: Path) -> None:
    assert run_cli(["bump", "-f", "0.1.0"]) == 0
    assert (project / "VERSION").read_text() == "0.1.0\n"
    assert bumped(project, "one\n", "-f", "0.1.0") == "0.1.0\n"


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o664, 0o444])
def test_the_mode_stays(project: Path, mode: int) -> None:
    write(project, "1.4.2\n", "VERSION").chmod(mode)
    assert run_cli(["bump", "patch"]) == 0
    assert stat.S_IMODE((project / "VERSION").stat().st_mode) == mode
    assert sorted(path.name for path in project.iterdir()) == ["VERSION", "skelebot.yaml"]


def test_a_linked_version_is_written_where_it_is(project: Path) -> None:
    write(project, "1.4.2\n", "of/all/VERSION")
    (project / "VERSION").symlink_to("of/all/VERSION")
    assert run_cli(["bump", "patch"]) == 0
    assert (project / "VERSION").is_symlink()
    assert (project / "of/all/VERSION").read_text() == "1.4.3\n"


def test_dry_run_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "1.4.2\n", "VERSION")
    assert run_cli(["--dry-run", "bump", "minor"]) == 0
    assert capsys.readouterr().out == "VERSION 1.4.2 -> 1.5.0\n"
    assert (project / "VERSION").read_text() == "1.4.2\n"


def test_each_link_sees_what_the_one_before_has_made(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, "1.4.2\n", "VERSION")
    chain = ["bump", "minor", "+", "bump", "2.0.0-rc.1", "+", "bump", "major"]
    assert run_cli(["--dry-run", *chain, "+", "package"]) == 0
    foreseen = capsys.readouterr().out.splitlines()
    assert foreseen[:2] == ["VERSION 1.4.2 -> 1.5.0", "VERSION 1.5.0 -> 2.0.0-rc.1"]
    assert foreseen[2] == "VERSION 2.0.0-rc.1 -> 2.0.0"
    assert "-2.0.0.zip" in foreseen[3]
    assert run_cli(chain) == 0
    assert capsys.readouterr().out == "1.5.0\n2.0.0-rc.1\n2.0.0\n"


def test_a_wrong_later_link_lets_none_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "1.4.2\n", "VERSION")
    assert refused(project, capsys, "minor", "+", "bump", "x")[0] == 2
    assert (project / "VERSION").read_text() == "1.4.2\n"


@pytest.mark.parametrize("words", [["patch"], ["-f", "1.0.0"], ["-t", "patch"]])
def test_a_version_that_is_a_pipe(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """Nobody writes to it, so that it could be read for ever."""
    os.mkfifo(project / "VERSION")
    code, said = refused(project, capsys, *words)
    assert (code, said) == (2, "ERROR | VERSION cannot be read: is not an ordinary file\n")


# --- git ---


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@t")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with all of it committed, and a change that is staged."""
    monkeypatch.setenv("HOME", str(project.parent))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    write(project, "1.4.2\n", "VERSION")
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "all")
    write(project, "1\n", "staged.txt")
    git(project, "add", "staged.txt")
    return project


def test_a_tag_is_on_a_commit_of_version_alone(repository: Path) -> None:
    assert run_cli(["bump", "minor", "-t"]) == 0
    assert git(repository, "show", "--format=%s", "--name-only", "HEAD").split("\n\n") == [
        "Version 1.5.0",
        "VERSION",
    ]
    assert git(repository, "cat-file", "-t", "v1.5.0") == "tag"
    assert git(repository, "rev-parse", "v1.5.0^{commit}") == git(repository, "rev-parse", "HEAD")
    assert git(repository, "status", "--short") == "A  staged.txt"


def test_a_committed_version_is_only_tagged(repository: Path) -> None:
    before = git(repository, "rev-parse", "HEAD")
    assert run_cli(["bump", "-f", "1.4.2", "-t"]) == 0
    assert git(repository, "rev-parse", "v1.4.2^{commit}") == git(repository, "rev-parse", "HEAD") == before


def test_an_ignored_version_that_is_tracked_is_committed(repository: Path) -> None:
    write(repository, "VERSION\n", ".gitignore")
    assert run_cli(["bump", "minor", "-t"]) == 0
    git(repository, "rm", "--cached", "--quiet", "VERSION")
    assert run_cli(["bump", "minor", "-t"]) == 1
    assert (repository / "VERSION").read_text() == "1.5.0\n"


@pytest.mark.parametrize("tracked", [True, False])
def test_a_hook_that_refuses_leaves_everything_as_it_was(repository: Path, tracked: bool) -> None:
    if not tracked:
        git(repository, "rm", "--cached", "--quiet", "VERSION")
    before = git(repository, "status", "--short")
    write(repository, "#!/bin/sh\nexit 1\n", ".git/hooks/pre-commit").chmod(0o755)
    assert run_cli(["bump", "minor", "-t"]) == 1
    assert (repository / "VERSION").read_text() == "1.4.2\n"
    assert git(repository, "status", "--short") == before
    assert git(repository, "tag") == ""


def test_two_projects_in_one_repository(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with tags of its own."""
    write(repository, "name: other\n", "other/skelebot.yaml")
    write(repository, "1.4.2\n", "other/VERSION")
    assert run_cli(["bump", "minor", "-t"]) == 0
    monkeypatch.chdir(repository / "other")
    capsys.readouterr()
    _, said = refused(repository, capsys, "minor", "-t")
    assert said == (
        "ERROR | the tag v1.5.0 already exists, so VERSION was kept; bump to another version, or set this "
        "project's own form of tags with components.bump.tag\n"
    )
    write(repository, "name: other\ncomponents: {bump: {tag: 'other-{version}'}}\n", "other/skelebot.yaml")
    assert run_cli(["--dry-run", "bump", "minor", "-t"]) == 0
    assert "committed and tagged other-1.5.0" in capsys.readouterr().out
    assert run_cli(["bump", "minor", "-t"]) == 0
    assert git(repository, "tag").split() == ["other-1.5.0", "v1.5.0"]
    assert git(repository, "show", "--format=", "--name-only", "HEAD") == "other/VERSION"


@pytest.mark.parametrize(
    "tag", ["v", "{version}{version}", "a b{version}", "-{version}", "a..{version}", "{x}"]
)
def test_a_form_that_makes_no_tag(tmp_path: Path, tag: str) -> None:
    (problem,) = problems(tmp_path, f"name: a\ncomponents: {{bump: {{tag: '{tag}'}}}}\n")
    assert problem.startswith("skelebot.yaml:2:26: components.bump.tag: expected a tag with {version} in it")


@pytest.mark.parametrize(
    ("version", "word"),
    [("1.4.2+build.1", "1.4.2+build.2"), ("1.4.2+c0ffee", "1.4.2+badf00d"), ("1.4.2", "1.4.2+build")],
)
def test_another_build_is_no_step_back(project: Path, version: str, word: str) -> None:
    assert bumped(project, f"{version}\n", word) == f"{word}\n"


@pytest.mark.parametrize("word", ["1.4.2+b", "1.4.2"])
def test_the_same_build_or_none_is_not_above(
    project: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    write(project, "1.4.2+b\n", "VERSION")
    assert "not above the current version" in refused(project, capsys, word)[1]
