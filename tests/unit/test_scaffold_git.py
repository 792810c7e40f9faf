"""Templates under git: how they are named and fetched, and how a project follows their changes."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from skelebot.components.scaffold.apply import apply_changes
from skelebot.components.scaffold.generate import NewFile
from skelebot.components.scaffold.location import Location, parse
from skelebot.errors import SkelebotError, UsageError

from .helpers import load, run_cli, write

RECORD = ".skelebot-template.yaml"


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A template under git, whose first commit has the tag v1, beside the empty folder that is changed to."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    made = tmp_path / "template"
    made.mkdir()
    git(made, "init", "--quiet", "--initial-branch", "main")
    commit(
        made, {"template.yaml": TEMPLATE, "a.txt": lines("a"), "b.txt": lines("b"), "run.sh": lines("echo")}
    )
    git(made, "tag", "v1")
    (tmp_path / "rain").mkdir()
    monkeypatch.chdir(tmp_path / "rain")
    return made


TEMPLATE = """\
prompts:
- {var: unit, message: Which unit?, default: cm}
files:
- {name: a.txt, template: a.txt}
- {name: sub/b.txt, template: b.txt}
- {name: run.sh, template: run.sh}
config:
  description: "In {{ unit }}"
  jobs: [{name: go, source: echo go, help: h}]
"""


def lines(word: str, **changed: str) -> str:
    """Ten lines, some of them changed: `_3="x"` is the third."""
    return "".join(f"{changed.get(f'_{i}', f'{word} {i}')}\n" for i in range(1, 11))


def commit(template: Path, files: dict[str, str | bytes | None]) -> str:
    for name, content in files.items():
        if content is None:
            (template / name).unlink()
        else:
            (template / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    git(template, "add", "--all")
    git(template, "commit", "--quiet", "-m", "c")
    return git(template, "rev-parse", "HEAD")


def scaffold(template: object, *words: str) -> int:
    return run_cli(["scaffold", "-y", "--template", str(template), *words])


def update(*words: str) -> int:
    return run_cli(["template", "update", "-y", *words])


def record() -> dict[str, Any]:
    return dict(yaml.safe_load(Path(RECORD).read_text()))


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def refused(capsys: pytest.CaptureFixture[str], *words: str, code: int) -> str:
    """The one error of a command that changes nothing."""
    before = contents()
    assert run_cli(list(words)) == code
    assert contents() == before
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ERROR | ")]
    return error.removeprefix("ERROR | ")


# --- names ---


@pytest.mark.parametrize(
    ("text", "address", "ref"),
    [
        ("https://x.org/o/t", "https://x.org/o/t", None),
        ("https://x.org/o/t.git@v1", "https://x.org/o/t.git", "v1"),
        ("https://x.org/o/t@feature/a-b", "https://x.org/o/t", "feature/a-b"),
        ("https://token@x.org/o/t@v1", "https://x.org/o/t", "v1"),
        ("ssh://git@x.org:2222/o/t", "ssh://git@x.org:2222/o/t", None),
        ("ssh://git@x.org/o/t@v1", "ssh://git@x.org/o/t", "v1"),
        ("git@x.org:o/t.git", "git@x.org:o/t.git", None),
        ("git@x.org:o/t.git@v1.0", "git@x.org:o/t.git", "v1.0"),
        ("file:///a/b@v1", "file:///a/b", "v1"),
    ],
)
def test_addresses(text: str, address: str, ref: str | None) -> None:
    assert parse(text) == Location("git", address, ref)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://me:secret@x.org/o/t", "contains a password"),
        ("https://x.org/o/t@--upload-pack=x", "expected a branch, tag or commit after the @"),
        ("https://x.org/o/t@", "expected a branch, tag or commit after the @"),
        ("--upload-pack=touch x", "is not a template"),
        ("https://x.org/\x1b[2Jt", "is not a template"),
    ],
)
def test_what_is_not_an_address(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse(text)
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


# --- fetching ---


def test_what_is_committed_is_used_and_recorded(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(template, "not committed", "a.txt")
    assert scaffold(template) == 0
    assert "has changes that are not committed; they are left out" in capsys.readouterr().err
    assert Path("a.txt").read_text() == lines("a")
    head = git(template, "rev-parse", "HEAD")
    assert (record()["template"], record()["commit"], "ref" in record()) == (str(template), head, False)
    assert record()["answers"]["unit"] == "cm"


def test_branches_tags_and_commits(template: Path) -> None:
    first = git(template, "rev-parse", "v1")
    git(template, "checkout", "--quiet", "-b", "feature/x")
    commit(template, {"a.txt": "of the branch"})
    git(template, "checkout", "--quiet", "main")
    commit(template, {"a.txt": "newest"})
    for ref, content in (("v1", lines("a")), ("feature/x", "of the branch"), (first[:10], lines("a"))):
        assert scaffold(f"{template}@{ref}", "--force") == 0
        assert Path("a.txt").read_text() == content
        assert record()["ref"] == ref
        assert record()["commit"] == git(template, "rev-parse", ref)


@pytest.mark.parametrize("kind", ["url", "bare", "relative"])
def test_other_ways_to_name_it(template: Path, kind: str) -> None:
    if kind == "bare":
        git(template, "clone", "--quiet", "--bare", ".", "../bare")
    named = {"url": f"file://{template}@v1", "bare": "../bare@v1", "relative": "../template@v1"}[kind]
    assert scaffold(named) == 0
    assert Path("a.txt").read_text() == lines("a")
    assert not Path("bare").exists()
    assert record()["template"].endswith(str(template) if kind != "bare" else "/bare")
    assert os.path.isabs(record()["template"].removeprefix("file://"))


def test_what_cannot_be_fetched(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("scaffold", "-y", "--template")
    said = refused(capsys, *words, "file:///nowhere/t", code=1)
    assert said.startswith(
        "file:///nowhere/t could not be fetched: '/nowhere/t' does not appear to be a git repo"
    )
    said = refused(capsys, *words, "http://127.0.0.1:9/t", code=1)
    assert said.startswith("http://127.0.0.1:9/t could not be fetched: unable to access")
    said = refused(capsys, *words, f"{template}@nope", code=1)
    assert said == f"{template} has no branch, tag or commit 'nope'"
    said = refused(capsys, *words, "ext::sh -c touch% pwned", code=2)
    git(template, "init", "--quiet", "../fresh")
    said = refused(capsys, *words, "../fresh", code=1)
    assert said == f"{template.parent}/fresh has no commit yet"
    write(template.parent / "plain", "{}", "template.yaml")
    said = refused(capsys, *words, "../plain@v1", code=2)
    assert said == f"{template.parent}/plain is not in git, so it has no 'v1'"


def test_a_folder_in_a_repository(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a repository is fetched, a template is its top; a folder is taken without git."""
    write(template, "dirs: [data]\n", "sub/template.yaml")
    commit(template, {})
    below = f"{template}/sub is a folder inside the git repository {template}, not its top"
    said = refused(capsys, "scaffold", "-y", "--template", "../template/sub@v1", code=2)
    assert said == f"{below}, so it has no 'v1'"
    assert scaffold("../template/sub") == 0
    assert f"WARN  | {below}: its current files are used, and" in capsys.readouterr().err
    assert "commit" not in record()
    said = refused(capsys, "template", "update", "-y", code=2)
    assert "was not in git, or not at the top of its repository" in said


def test_a_folder_that_is_not_a_repository_needs_no_git(
    template: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(template.parent / "plain", "{}", "template.yaml")
    assert scaffold("../plain") == 0
    monkeypatch.setenv("PATH", "/nowhere")
    assert scaffold("../plain", "--force") == 0
    assert "WARN" not in capsys.readouterr().err


def test_without_git(
    template: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = refused(capsys, "scaffold", "-y", "--template", str(template), code=127)
    assert said == "git is not installed, or not on PATH"


def test_a_link_in_a_repository_leads_nowhere(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (template / "b.txt").unlink()
    (template / "b.txt").symlink_to("/etc/hostname")
    commit(template, {})
    said = refused(capsys, "scaffold", "-y", "--template", str(template), code=2)
    assert said == "template.yaml:5:3: files[1].template: 'b.txt' is outside the template"


def test_nothing_of_a_repository_is_run(template: Path) -> None:
    """Neither a hook nor a filter that it brings along."""
    write(template, "*.txt filter=evil\n", ".gitattributes")
    write(template, '[filter "evil"]\n\tsmudge = touch pwned\n', ".gitconfig")
    write(template, "#!/bin/sh\ntouch pwned\n", ".githooks/post-checkout").chmod(0o755)
    commit(template, {})
    assert scaffold(template) == 0
    assert not list(template.parent.rglob("pwned"))


# --- update ---


def test_an_update_brings_in_what_is_new_and_keeps_edits(template: Path) -> None:
    scaffold(template)
    Path("a.txt").write_text(lines("a", _2="mine"))
    Path("run.sh").write_text("mine alone\n")
    text = Path("skelebot.yaml").read_text()
    Path("skelebot.yaml").write_text(f"{text}timezone: Europe/Berlin\n")
    Path("README.md").unlink()
    head = commit(
        template,
        {
            "a.txt": lines("a", _9="theirs"),
            "b.txt": lines("b", _1="theirs"),
            "c.txt": "new {{ unit }}\n",
            "template.yaml": TEMPLATE.replace("In {{", "Measured in {{").replace(
                "config:", "- {name: c.txt, template: c.txt}\ndirs: [more]\nconfig:"
            ),
        },
    )
    assert update() == 0
    assert Path("a.txt").read_text() == lines("a", _2="mine", _9="theirs")
    assert Path("sub/b.txt").read_text() == lines("b", _1="theirs")
    assert Path("c.txt").read_text() == "new cm\n"
    assert Path("run.sh").read_text() == "mine alone\n"
    assert not Path("README.md").exists()
    assert Path("more/.gitkeep").exists()
    project = load(Path())
    assert (project.description, project.timezone) == ("Measured in cm", "Europe/Berlin")
    assert record()["commit"] == head


def test_a_folder_that_the_project_has_needs_nothing_to_keep_it(template: Path) -> None:
    scaffold(template)
    write(Path("more"), "mine", "own")
    commit(template, {"template.yaml": f"dirs: [more]\n{TEMPLATE}"})
    assert update() == 0
    assert [path.name for path in Path("more").iterdir()] == ["own"]


def test_a_second_update_finds_nothing_new(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaffold(template)
    Path("a.txt").write_text("mine\n")
    commit(template, {"b.txt": "theirs\n"})
    assert update() == 0
    before = contents()
    capsys.readouterr()
    assert update() == 0
    assert f"nothing has changed in {template}" in capsys.readouterr().err
    assert contents() == before


def test_a_conflict_is_marked_and_reported(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaffold(template)
    Path("a.txt").write_text(lines("a", _5="mine"))
    Path("a.txt").chmod(0o600)
    head = commit(template, {"a.txt": lines("a", _5="theirs"), "b.txt": "theirs\n"})
    assert update() == 1
    marked = f"<<<<<<< yours\nmine\n=======\ntheirs\n>>>>>>> {template}"
    assert Path("a.txt").read_text() == lines("a", _5=marked)
    assert Path("a.txt").stat().st_mode & 0o777 == 0o600
    assert Path("sub/b.txt").read_text() == "theirs\n"
    assert record()["commit"] == head  # all of it has come in: the rest is in the marks
    said = capsys.readouterr().err
    assert "  a.txt (conflict: look for <<<<<<<)" in said
    assert "check a.txt: the template and you have both changed it" in said


def test_what_was_removed_on_either_side(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaffold(template)
    Path("run.sh").write_text("mine\n")
    Path("a.txt").unlink()
    without = TEMPLATE.replace(
        "- {name: sub/b.txt, template: b.txt}\n- {name: run.sh, template: run.sh}\n", ""
    )
    commit(template, {"template.yaml": without, "a.txt": "changed\n"})
    assert update() == 0
    assert not Path("sub/b.txt").exists()
    assert Path("run.sh").read_text() == "mine\n"
    assert not Path("a.txt").exists()
    said = capsys.readouterr().err
    assert "  sub/b.txt (removed)" in said
    assert "  run.sh (kept: removed from the template but changed here)" in said
    assert "  a.txt (skipped: you removed it)" in said


def test_a_new_file_where_the_project_has_one(template: Path) -> None:
    scaffold(template)
    Path("c.txt").write_text("mine\n")
    Path("same.txt").write_text("same\n")
    more = "- {name: c.txt, template: c.txt}\n- {name: same.txt, template: same.txt}\nconfig:"
    text = TEMPLATE.replace("config:", more)
    commit(template, {"template.yaml": text, "c.txt": "theirs\n", "same.txt": "same\n"})
    assert update() == 1
    assert Path("c.txt").read_text() == f"<<<<<<< yours\nmine\n=======\ntheirs\n>>>>>>> {template}\n"
    assert Path("same.txt").read_text() == "same\n"


def test_binary_files_are_never_merged(template: Path) -> None:
    text = TEMPLATE.replace("template: a.txt", "template: a.txt, render: false")
    commit(template, {"template.yaml": text, "a.txt": b"\0one"})
    scaffold(template)
    commit(template, {"a.txt": b"\0two", "b.txt": "two\n"})
    Path("a.txt").write_bytes(b"\0mine")
    assert update() == 1
    assert Path("a.txt").read_bytes() == b"\0mine"
    assert Path("sub/b.txt").read_text() == "two\n"


def test_bytes_that_are_not_utf_8_survive_a_merge(template: Path) -> None:
    scaffold(template)
    Path("a.txt").write_bytes(b"\xff mine\n" + lines("a").encode())
    commit(template, {"a.txt": lines("a", _9="theirs")})
    assert update() == 0
    assert Path("a.txt").read_bytes() == b"\xff mine\n" + lines("a", _9="theirs").encode()


@pytest.mark.parametrize("mine", ["", "as it was", lines("echo", _2="mine")], ids=["none", "same", "edited"])
@pytest.mark.parametrize("theirs", [lines("echo"), lines("echo", _9="theirs")], ids=["same", "edited"])
def test_the_right_to_execute_comes_and_goes_with_the_template(
    template: Path, mine: str, theirs: str
) -> None:
    """Whether the contents change as well, in the template or here, or not."""
    scaffold(template)
    ran = Path("run.sh")
    ran.chmod(0o640)
    if mine != "as it was":
        ran.write_text(mine)
    (template / "run.sh").chmod(0o755)
    commit(template, {"run.sh": theirs})
    update()
    assert mode(ran) == 0o750
    assert ("mine" in ran.read_text(), "theirs" in ran.read_text()) == ("mine" in mine, "theirs" in theirs)
    (template / "run.sh").chmod(0o644)
    commit(template, {})
    update()
    assert mode(ran) == 0o640


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_right_to_execute_is_the_users_where_the_template_has_not_changed_it(template: Path) -> None:
    scaffold(template)
    Path("run.sh").chmod(0o744)
    Path("a.txt").chmod(0o755)
    commit(template, {"run.sh": "theirs\n"})
    assert update() == 0
    assert (Path("run.sh").read_text(), mode(Path("run.sh"))) == ("theirs\n", 0o744)
    assert mode(Path("a.txt")) == 0o755
    (template / "run.sh").chmod(0o755)
    commit(template, {})
    assert update() == 0  # both have changed it alike
    assert mode(Path("run.sh")) == 0o744


def test_the_right_to_execute_of_binary_files(template: Path) -> None:
    text = TEMPLATE.replace("template: a.txt", "template: a.txt, render: false")
    commit(template, {"template.yaml": text, "a.txt": b"\0one"})
    scaffold(template)
    Path("a.txt").write_bytes(b"\0mine")
    (template / "a.txt").chmod(0o755)
    commit(template, {})
    assert update() == 0
    assert (Path("a.txt").read_bytes(), mode(Path("a.txt")) & 0o111 != 0) == (b"\0mine", True)


def test_nothing_is_written_behind_a_link(template: Path) -> None:
    scaffold(template)
    outside = write(template.parent, lines("a"), "outside")
    Path("a.txt").unlink()
    Path("a.txt").symlink_to(outside)
    commit(template, {"a.txt": "theirs\n"})
    assert update() == 1
    assert outside.read_text() == lines("a")
    assert Path("a.txt").is_symlink()


def test_a_folder_that_became_a_link(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaffold(template)
    Path("sub").rename("../elsewhere")
    Path("sub").symlink_to("../elsewhere")
    commit(template, {"b.txt": "theirs\n"})
    said = refused(capsys, "template", "update", "-y", code=1)
    assert (
        said == "nothing was written: sub is a link, and Skelebot does not write through links; move it away"
    )


@pytest.fixture
def reshaped(template: Path) -> Path:
    """The template after its project was made: its file a.txt is now a folder, its folder sub a file."""
    scaffold(template)
    now = TEMPLATE.replace("a.txt, ", "a.txt/in/it, ").replace("sub/b.txt, ", "sub, ")
    commit(template, {"template.yaml": now})
    return template


def test_a_file_becomes_a_folder_and_a_folder_a_file(reshaped: Path) -> None:
    (Path("sub") / "empty").mkdir()
    assert update() == 0
    assert Path("a.txt/in/it").read_text() == lines("a")
    assert Path("sub").read_text() == lines("b")
    assert update() == 0
    assert not list(Path().glob(".skelebot-new-*"))


def test_a_file_that_became_a_folder_has_to_be_as_it_was(
    reshaped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.txt").write_text("mine")
    said = refused(capsys, "template", "update", "-y", code=1)
    assert said == "nothing was written: a.txt is not a folder; move it away"
    assert Path("sub/b.txt").exists()
    Path("a.txt").unlink()
    Path("a.txt").symlink_to("run.sh")
    said = refused(capsys, "template", "update", "-y", code=1)
    assert said.startswith("nothing was written: a.txt is a link")


def test_a_file_of_the_project_where_the_template_has_a_folder(
    template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaffold(template)
    Path("new").write_text("mine")
    more = TEMPLATE.replace("config:", "- {name: new/n.txt, template: a.txt}\nconfig:")
    commit(template, {"template.yaml": more})
    said = refused(capsys, "template", "update", "-y", code=1)
    assert said == "nothing was written: new is not a folder; move it away"


@pytest.mark.parametrize("own", ["sub/b.txt", "sub/deep/own", "sub/link"])
def test_a_folder_with_files_of_ones_own_stays(
    reshaped: Path, capsys: pytest.CaptureFixture[str], own: str
) -> None:
    if own.endswith("link"):
        Path(own).symlink_to("/")
    else:
        write(Path(), "mine", own)
    capsys.readouterr()
    assert update() == 1
    assert os.path.lexists(own)
    said = capsys.readouterr().err
    assert "  sub (skipped: your folder here has files)" in said
    assert "check sub: something else is at this path, so the template's file was left out" in said
    assert "both changed" not in said


def test_an_empty_folder_is_not_removed(reshaped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sub/b.txt").unlink()
    said = refused(capsys, "template", "update", "-y", code=1)
    assert said == "nothing was written: sub is a folder; move it away"


def test_what_the_project_reshaped_itself(reshaped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.txt").unlink()
    write(Path(), lines("a"), "a.txt/in/it")
    Path("sub/b.txt").rename("b")
    Path("sub").rmdir()
    Path("b").rename("sub")
    assert update() == 0
    assert Path("a.txt/in/it").read_text() == lines("a")
    assert Path("sub").read_text() == lines("b")


def test_a_folder_that_is_filled_at_the_last_moment(tmp_path: Path) -> None:
    """All that was moved before comes back."""
    for path in ("f", "d/x", "z/late"):
        write(tmp_path, path, path)
    (tmp_path / "d/empty").mkdir(mode=0o700)
    before = {path: path.stat().st_mode for path in tmp_path.rglob("*")}
    changes = {"f": None, "f/g": NewFile(b""), "d/x": None, "d": NewFile(b""), "z": NewFile(b"")}
    with pytest.raises(SkelebotError, match=r"/z cannot be written: .*; nothing was changed"):
        apply_changes(str(tmp_path), changes, set(changes))
    assert {path: path.stat().st_mode for path in tmp_path.rglob("*")} == before
    assert (tmp_path / "z/late").read_text() == "z/late"


def test_to_another_version_and_back(template: Path) -> None:
    scaffold(f"{template}@v1")
    commit(template, {"a.txt": "two\n"})
    git(template, "tag", "v2")
    assert update() == 0
    assert record()["ref"] == "v1"
    assert update("--to", "v2") == 0
    assert (Path("a.txt").read_text(), record()["ref"]) == ("two\n", "v2")
    assert update("--to", "v1") == 0
    assert (Path("a.txt").read_text(), record()["ref"]) == (lines("a"), "v1")


def test_answers_stay_and_can_be_changed(template: Path) -> None:
    scaffold(template, "--var", "unit=m", "--name", "a: b")
    commit(template, {"a.txt": "{{ unit }} {{ name }}\n"})
    assert update() == 0
    assert Path("a.txt").read_text() == "m a: b\n"
    assert update("--var", "unit=km") == 0
    assert Path("a.txt").read_text() == "km a: b\n"
    assert record()["answers"]["unit"] == "km"
    assert load(Path()).description == "In km"


def test_a_prompt_that_is_new_is_asked(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaffold(template)
    more = TEMPLATE.replace("files:", "- {var: height, message: How high?}\nfiles:", 1)
    commit(template, {"template.yaml": more, "a.txt": "{{ height }}\n"})
    said = refused(capsys, "template", "update", "-y", code=2)
    assert said == "no value and no default for: --var height"
    assert update("--var", "height=2") == 0
    assert Path("a.txt").read_text() == "2\n"


def test_an_update_can_be_looked_at_first(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaffold(template)
    commit(template, {"a.txt": "theirs\n"})
    before = contents()
    capsys.readouterr()
    assert run_cli(["--dry-run", "template", "update"]) == 0
    shown = capsys.readouterr().out
    assert shown == (
        f"changes in {template}, in {Path().resolve()}:\n  .skelebot-template.yaml (changed)\n"
        "  a.txt (changed)\n"
    )
    assert contents() == before


def test_what_follows_in_a_chain_is_of_the_new_version(
    template: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scaffold(template)
    commit(template, {"template.yaml": TEMPLATE.replace("echo go", "echo gone")})
    assert run_cli(["-n", "template", "update", "-y", "+", "go"]) == 0
    assert capfd.readouterr().out == "gone\n"


def test_it_works_from_a_folder_below(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaffold(template)
    commit(template, {"a.txt": "theirs\n"})
    root = Path().resolve()
    monkeypatch.chdir(root / "sub")
    assert update() == 0
    assert (root / "a.txt").read_text() == "theirs\n"


def test_an_older_config_that_is_wrong_by_now_can_be_left(template: Path) -> None:
    bad = commit(
        template, {"template.yaml": TEMPLATE.replace("description:", "descripton:"), "a.txt": "old\n"}
    )
    commit(template, {"template.yaml": TEMPLATE})
    scaffold(template)
    text = Path(RECORD).read_text()
    Path(RECORD).write_text(text.replace(record()["commit"], bad))
    assert update() == 0


def test_updates_that_cannot_be(template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("template", "update", "-y")
    Path("skelebot.yaml").write_text("name: x\n")
    assert refused(capsys, *words, code=2).startswith(f"{Path().resolve()} has no {RECORD}")
    Path(RECORD).write_text("template: dash\nversion: 2.9.0\n")
    said = refused(capsys, *words, code=2)
    assert said.startswith("the template dash came with Skelebot 2.9.0, which has no other version")
    Path(RECORD).write_text("template: /plain\n")
    assert refused(capsys, *words, code=2).startswith("the template /plain was not in git")
    gone = "0" * 40
    Path(RECORD).write_text(f"template: {template}\ncommit: '{gone}'\n")
    assert refused(capsys, *words, code=1).startswith(f"{template} no longer has the commit {gone}, as")
    Path(RECORD).write_text(f"template: /gone\ncommit: '{gone}'\n")
    assert refused(capsys, *words, code=1).startswith("/gone could not be fetched: ")
    assert refused(capsys, "template", "update", code=2) == "there is no terminal to ask on; give -y"
    assert refused(capsys, "template", "upgrade", code=2).startswith("template: action: expected update")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: the file is empty"),
        ("template: x\ncommit: --help\n", "2:9: commit: expected the id of a commit"),
        ("template: x\ncommit: [a]\n", "2:9: commit: expected text"),
        ("answers: {}\n", "1:1: `template` is missing"),
        ("template: x\nanswers: {a-b: c}\n", "2:11: answers: expected a variable's name"),
        ("template: x\nevil: x\n", "2:1: evil: unknown key"),
        ("<<<<<<< yours\ntemplate: x\n", "2:9: this is not YAML"),
    ],
)
def test_a_record_that_is_wrong(
    template: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    Path("skelebot.yaml").write_text("name: x\n")
    Path(RECORD).write_text(text)
    assert refused(capsys, "template", "update", "-y", code=2).startswith(f"{RECORD}:{said}")


@pytest.mark.parametrize("address", ["ext::sh -c touch% pwned", "--upload-pack=touch pwned", "-x"])
def test_a_record_cannot_run_anything(
    template: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    """Whoever clones a project gets its record, too."""
    Path("skelebot.yaml").write_text("name: x\n")
    Path(RECORD).write_text(f"template: {address!r}\ncommit: '{'0' * 40}'\n")
    said = refused(capsys, "template", "update", "-y", code=1)
    assert said.startswith(f"{address} could not be fetched: ")
    assert "--upload" not in address or f"repository '{address}' does not exist" in said
    assert not list(template.parent.rglob("pwned"))


# --- submodules, rewritten histories, line ends ---


@pytest.fixture
def with_submodule(template: Path) -> Path:
    """The template, one of whose files is in a submodule."""
    shared = template.parent / "shared"
    shared.mkdir()
    git(shared, "init", "--quiet", "--initial-branch", "main")
    commit(shared, {"shared.txt": "shared {{ unit }}\n"})
    git(template, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../shared", "sub")
    write(template, TEMPLATE.replace("template: a.txt", "template: sub/shared.txt"), "template.yaml")
    commit(template, {})
    return template


def test_a_submodule_comes_along(with_submodule: Path) -> None:
    assert scaffold(with_submodule) == 0
    assert Path("a.txt").read_text() == "shared cm\n"
    shared = with_submodule.parent / "shared"
    commit(shared, {"shared.txt": "newer {{ unit }}\n"})
    git(with_submodule / "sub", "pull", "--quiet", "../../shared")
    commit(with_submodule, {})
    assert update() == 0
    assert Path("a.txt").read_text() == "newer cm\n"


def test_a_submodule_that_cannot_be_fetched(with_submodule: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (with_submodule.parent / "shared").rename(with_submodule.parent / "away")
    said = refused(capsys, "scaffold", "-y", "--template", str(with_submodule), code=1)
    assert said.startswith("the template's submodules could not be fetched: ")


@pytest.fixture
def rewritten(template: Path) -> Path:
    """A template whose history holds nothing of what the project was made from, which has an edit."""
    commit(template, {"a.txt": lines("a", _1="second"), "b.txt": lines("b", _5="second")})
    scaffold(template)
    Path("a.txt").write_text(lines("a", _1="second", _9="mine"))
    git(template, "checkout", "--quiet", "--orphan", "new")
    for change in ("first", "second", "third"):
        commit(template, {"a.txt": lines("a", _1=change), "b.txt": lines("b", _5=change)})
    commit(template, {"template.yaml": "wrong: {}"})
    commit(template, {"template.yaml": TEMPLATE})
    git(template, "branch", "--quiet", "--move", "--force", "new", "main")
    git(template, "tag", "--delete", "v1")
    git(template, "reflog", "expire", "--expire=now", "--all")
    git(template, "gc", "--quiet", "--prune=now")
    return template


def test_a_rewritten_history_names_the_way_on(rewritten: Path, capsys: pytest.CaptureFixture[str]) -> None:
    was = record()["commit"]
    said = refused(capsys, "template", "update", "-y", code=1)
    assert said == (
        f"{rewritten} no longer has the commit {was}, as its history was rewritten; --from-scratch compares "
        "the project with the nearest version instead"
    )


def test_from_scratch_compares_with_the_nearest_version(
    rewritten: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert update("--from-scratch") == 0
    assert "is the closest" not in capsys.readouterr().err
    assert Path("a.txt").read_text() == lines("a", _1="third", _9="mine")
    assert record()["commit"] == git(rewritten, "rev-parse", "HEAD")
    before = contents()
    assert update() == update("--from-scratch") == 0
    assert contents() == before


def test_the_nearest_version_is_not_one_that_only_adds(rewritten: Path) -> None:
    """What the template has added since then is to come in."""
    Path("a.txt").write_text(lines("a", _1="third"))
    Path("sub/b.txt").write_text(lines("b", _5="third"))
    commit(rewritten, {"b.txt": lines("b", _5="third") + "added\n"})
    assert update("--from-scratch") == 0
    assert Path("sub/b.txt").read_text() == lines("b", _5="third") + "added\n"


def test_from_scratch_records_the_commit_also_if_it_is_the_nearest(
    rewritten: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.txt").write_text(lines("a", _1="third"))
    Path("sub/b.txt").write_text(lines("b", _5="third"))
    assert update("--from-scratch") == 0
    assert "is the closest: what differs counts as your change" in capsys.readouterr().err
    assert record()["commit"] == git(rewritten, "rev-parse", "HEAD")


@pytest.mark.parametrize(("theirs", "mine"), [("\r\n", "\n"), ("\n", "\r\n")])
def test_line_ends_do_not_conflict(template: Path, theirs: str, mine: str) -> None:
    def text(end: str, **changed: str) -> bytes:
        return lines("a", **changed).replace("\n", end).encode()

    commit(template, {"a.txt": text(theirs), "b.txt": text(theirs)})
    scaffold(template)
    Path("a.txt").write_bytes(text(mine, _2="mine"))
    Path("sub/b.txt").write_bytes(text(mine))
    commit(template, {"a.txt": text(theirs, _9="theirs"), "b.txt": text(theirs, _9="theirs")})
    assert update() == 0
    assert Path("a.txt").read_bytes() == text(mine, _2="mine", _9="theirs")
    assert Path("sub/b.txt").read_bytes() == text(mine, _9="theirs")
    commit(template, {"a.txt": text(mine, _9="theirs"), "b.txt": b"a\r\nb\nmixed\n"})
    assert update() == 0
    assert Path("a.txt").read_bytes() == text(mine, _2="mine", _9="theirs")
    assert Path("sub/b.txt").read_bytes() == b"a\r\nb\nmixed\n"
