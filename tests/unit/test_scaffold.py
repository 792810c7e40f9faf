"""`skelebot scaffold`: what a template and the answers make, and what they must not."""

import fcntl
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from skelebot.components.scaffold.apply import in_order, put
from skelebot.components.scaffold.generate import NewFile

from .helpers import load, run_cli, warnings, write

Run = Callable[..., int]

ALWAYS = {
    *(".gitignore", ".skelebot-template.yaml", "README.md", "VERSION"),
    *("skelebot.schema.json", "skelebot.yaml"),
}
DEFAULT = ALWAYS | {
    *(f"{name}/.gitkeep" for name in ("config", "data", "models", "notebooks", "output", "queries")),
    *("src/jobs/example.py", "tests/test_example.py"),
}

HOSTILE = [
    'say "hi"',
    "it's",
    "{{ 7 * 7 }} {% raw %}",
    "a: b # c",
    "- x",
    "&anchor *alias !tag",
    "yes",
    "0.10",
    '"""',
    "back\\slash\\",
    "$HOME `id` $(id)",
    "Zoë 日本 1",
    "x" * 200,
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the program runs as somebody whom git does not know."""
    made = tmp_path / "rain"
    made.mkdir()
    monkeypatch.chdir(made)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    return made


def scaffold(*words: str) -> int:
    return run_cli(["scaffold", *words])


def tree(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()
    }


def template(folder: Path, text: str, **files: str | bytes) -> str:
    """A template beside the project's folder, with a file for each further word."""
    made = folder.parent / "template"
    write(made, text, "template.yaml")
    for name, content in files.items():
        path = made / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(made)


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("ERROR | ") for line in lines if line.startswith("ERROR | ")]


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    """The one error of a scaffolding that changes nothing."""
    before = {name: (folder / name).read_bytes() for name in tree(folder) if (folder / name).is_file()}
    names = {path.name for path in folder.parent.rglob("*")}
    assert scaffold(*words) == code
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert {path.name for path in folder.parent.rglob("*")} == names
    (error,) = errors(capsys)
    return error


# --- the built-in templates ---


def test_the_defaults_make_a_project(folder: Path) -> None:
    assert scaffold("-y") == 0
    assert tree(folder) == DEFAULT
    project = load(folder)
    assert (project.name, project.version, project.language) == ("rain", "0.1.0", "Python")
    assert [job.name for job in project.jobs] == ["example", "test"]
    assert all(job.source.startswith("python") or (folder / job.source).is_file() for job in project.jobs)
    assert project.dependencies == ("pandas", "scikit-learn", "pytest")
    text = (folder / "skelebot.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=skelebot.schema.json\n")
    assert warnings(folder, text) == []


@pytest.mark.parametrize(
    ("name", "language"), [("default", "Python"), ("default", "R+Python"), ("dash", "Python"), ("r", "R")]
)
def test_each_built_in_template_is_a_project_without_warnings(folder: Path, name: str, language: str) -> None:
    assert scaffold("-y", "--template", name, "--language", language) == 0
    assert warnings(folder, (folder / "skelebot.yaml").read_text()) == []
    project = load(folder)
    assert project.language == language
    assert {"example", "test"} <= {job.name for job in project.jobs}
    assert tree(folder) >= ALWAYS
    assert {path for path in tree(folder) if path.endswith(".R")} == {
        job.source for job in project.jobs if job.source.endswith(".R")
    } | ({"tests/test_example.R"} if name == "r" else set())
    for path in folder.rglob("*.py"):
        compile(path.read_text(), str(path), "exec")
    ignored = (folder / ".gitignore").read_text().splitlines()
    assert {"/.skelebot/", "/data/*", "!.gitkeep", ".env", "*_v[0-9]*.[0-9]*.[0-9]*"} <= set(ignored)


def test_the_language_chooses_the_template(folder: Path) -> None:
    assert scaffold("-y", "--language", "R") == 0
    assert (folder / "src/jobs/example.R").is_file()
    assert read_record(folder)["template"] == "r"


def test_every_question_has_an_option(folder: Path) -> None:
    given = {"name": "Snow", "description": "How much falls.", "maintainer": "Ada", "contact": "ada@x.org"}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    assert scaffold(*words, "--language", "Python", "--template", "dash", "--var", "port=9999", "-y") == 0
    project = load(folder)
    assert {name: getattr(project, name) for name in given} == given
    assert project.jobs[0].ports == ("127.0.0.1:9999:9999",)
    assert project.jobs[0].environment == (("PORT", "9999"),)
    readme = (folder / "README.md").read_text()
    assert all(value in readme for value in given.values())
    assert "http://127.0.0.1:9999" in readme


def test_git_knows_who_maintains_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder.parent, "[user]\n\tname = Zoë Git\n\temail = zoe@git.org\n", "gitconfig")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(folder.parent / "gitconfig"))
    assert scaffold("-y") == 0
    assert (load(folder).maintainer, load(folder).contact) == ("Zoë Git", "zoe@git.org")


def test_without_git_nobody_is_the_maintainer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert scaffold("-y") == 0
    assert load(folder).maintainer == ""


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["default", "dash"])
def test_answers_arrive_as_they_were_given(folder: Path, name: str, text: str) -> None:
    """In the YAML, in Python, and in what is remembered."""
    letters = text if any(c.isascii() and c.isalnum() for c in text) else f"x {text}"
    words = ("--name", letters, "--description", text, "--maintainer", text, "--contact", text)
    assert (
        scaffold(
            *(f"{a}={b}" for a, b in zip(words[::2], words[1::2], strict=True)), "--template", name, "-y"
        )
        == 0
    )
    project = load(folder)
    assert (project.name, project.description) == (letters, text)
    assert (project.maintainer, project.contact) == (text, text)
    answers = read_record(folder)["answers"]
    assert (answers["name"], answers["description"]) == (letters, text)
    if name == "dash":
        source = (folder / "src/dashboard.py").read_text()
        (line,) = [line for line in source.splitlines() if line.startswith("TITLE = ")]
        found: dict[str, Any] = {}
        exec(line, found)
        assert found["TITLE"] == letters


def read_record(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / ".skelebot-template.yaml").read_text()))


def test_what_is_remembered_of_a_built_in_template(folder: Path) -> None:
    scaffold("-y", "--template", "dash")
    record = read_record(folder)
    assert (record["template"], record["version"], record["answers"]["port"]) == ("dash", "3.0.0", "8050")


# --- answers that are missing or do not fit ---


def test_where_nobody_can_be_asked_all_that_is_missing_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(folder, capsys, "--name", "x", "--language", "Python")
    assert said == (
        "there is no terminal to ask on; give --description, --maintainer, --contact, --template and -y, "
        "or just -y for the defaults"
    )


def test_where_all_is_given_the_confirmation_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"--{name}=x" for name in ("name", "description", "maintainer", "contact")]
    said = refused(folder, capsys, *given, "--language=Python", "--template=default")
    assert said == "there is no terminal to ask on; give -y"


def test_the_prompts_of_a_template_that_is_given_are_named_too(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "prompts:\n- {var: a, message: m}\n- {var: b, message: m, default: c}\n- {var: c, message: m}\n"
    where = template(folder, text)
    odd = folder.parent / "日本"
    odd.mkdir()
    monkeypatch.chdir(odd)
    said = refused(odd, capsys, "-y", "--template", where)
    assert said == "no value and no default for: --name, --var a, --var c"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name", ""], "--name: expected text that is not empty"),
        (["--name", "..."], "--name: expected a name with at least one ASCII letter"),
        (["--name", "a\nb"], r"--name: expected text on one line, without control characters; found 'a\\nb'"),
        (["--contact", "\x1b[31m"], "--contact: expected text on one line"),
        (["--description", "a\u2028b"], "--description: expected text on one line"),
        (["--language", "Ruby"], "scaffold: --language: expected Python or R or R+Python; found 'Ruby'"),
        (
            ["--template", "dash", "--language", "R"],
            "--language: expected Python for the template dash; found 'R'",
        ),
        (
            ["--template", "dahs"],
            "'dahs' is not a built-in template, a URL or a folder; did you mean `dash`?",
        ),
        (["--template", "./nowhere"], "'./nowhere' is not a built-in template, a URL or a folder"),
        (["--template=-x"], "'-x' is not a template"),
        (["--template", ""], "'' is not a template"),
        (["--var", "port"], "--var: expected NAME=VALUE, found 'port'"),
        (
            ["--var", "prot=1", "--template", "dash"],
            "--var: the template has no 'prot'; did you mean `port`?",
        ),
        (["--var", "name=1"], "--var: the template has no 'name'; it has no questions"),
        (["-e", "--template", "dash"], "--template is for a new project"),
        (["extra"], "scaffold: unexpected argument 'extra'"),
    ],
)
def test_answers_that_do_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    error = refused(folder, capsys, "-y", *words)
    assert error.startswith(said), error


# --- what already exists ---


def test_all_that_is_in_the_way_is_named_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "mine", "README.md")
    write(folder, "mine", "src/jobs/example.py")
    write(folder, "mine", "tests")
    said = refused(folder, capsys, "-y", code=1)
    assert said == (
        "nothing was written: README.md already exists, src/jobs/example.py already exists, tests is not a "
        "folder; --force overwrites files, and -e turns what is here into a project"
    )


def test_what_is_not_in_the_way_stays(folder: Path) -> None:
    write(folder, "mine", "src/own.py")
    (folder / "data").symlink_to("/tmp")
    assert scaffold("-y") == 0
    assert tree(folder) == DEFAULT - {"data/.gitkeep"} | {"src/own.py", "data"}
    assert not Path("/tmp/.gitkeep").exists()


def test_what_is_written_over_a_file_can_be_executed_if_it_is_to_be(folder: Path) -> None:
    where = template(folder, "files:\n- {name: run.sh, template: code}\n", code="true\n")
    (Path(where) / "code").chmod(0o755)
    write(folder, "mine", "run.sh").chmod(0o600)
    assert scaffold("-y", "--force", "--template", where) == 0
    assert stat.S_IMODE((folder / "run.sh").stat().st_mode) == 0o700


def test_force_writes_over_files_and_keeps_their_mode(folder: Path) -> None:
    write(folder, "mine", "README.md").chmod(0o600)
    write(folder.parent, "theirs", "linked")
    (folder / "VERSION").symlink_to("../linked")
    assert scaffold("-y", "--force") == 0
    assert (folder / "README.md").read_text().startswith("# rain\n")
    assert stat.S_IMODE((folder / "README.md").stat().st_mode) == 0o600
    assert (folder.parent / "linked").read_text() == "theirs"
    assert (folder / "VERSION").read_text() == "0.1.0\n"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("README.md/own", "README.md is a folder; move it away"),
        ("src", "src is a link, and Skelebot does not write through links; move it away"),
    ],
)
def test_force_never_removes_a_folder_nor_writes_behind_a_link(
    folder: Path, capsys: pytest.CaptureFixture[str], path: str, said: str
) -> None:
    if "/" in path:
        write(folder, "mine", path)
    else:
        (folder.parent / "elsewhere").mkdir()
        (folder / path).symlink_to("../elsewhere")
    assert refused(folder, capsys, "-y", "--force", code=1) == f"nothing was written: {said}"


def test_a_project_is_not_made_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "name: Mine\n")
    said = refused(folder, capsys, "-y")
    assert said.startswith("this folder is already the project Mine; use --force")
    assert scaffold("-y", "--force") == 0
    assert load(folder).name == "rain"


def test_a_project_is_not_made_inside_of_another(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "name: Mine\n")
    below = folder / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert refused(below, capsys, "-y").startswith(f"this folder is inside the project Mine in {folder};")
    assert scaffold("-y", "--force") == 0
    assert load(below).name == "below"


def test_dry_run_shows_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["--dry-run", "scaffold", "-y"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"a project from the template default, in {folder}:"
    assert {line.strip() for line in shown[1:]} == DEFAULT
    assert tree(folder) == set()


# --- all or nothing ---


def test_a_name_that_the_disk_refuses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = template(folder, f"files:\n- {{name: {'x' * 300}, template: a}}\n", a="")
    said = refused(folder, capsys, "-y", "--template", where, code=1)
    assert said == f"{'x' * 300} cannot be written: file name too long; nothing was changed"


# --- templates of one's own ---


def test_a_template_from_a_folder(folder: Path) -> None:
    text = """\
    prompts:
    - {var: unit, message: Which unit?, choices: [cm, m]}
    - {var: greeting, message: Which greeting?, default: "{{ name | slug }} greets"}
    dirs: ["in/{{ unit }}", "{% if unit == 'm' %}metres{% endif %}"]
    files:
    - {name: "src/{{ name | slug | replace('-', '_') }}.py", template: code}
    - {name: braces.txt, template: braces, render: false}
    - {name: "{% if unit == 'm' %}metres.txt{% endif %}", template: braces}
    - {name: run.sh, template: code}
    config:
      dependencies: [numpy]
      ports: ["127.0.0.1:{{ 8000 + 80 }}:80"]
      jobs:
      - {name: "measure-{{ unit }}", source: run.sh, help: "In {{ unit }}: {{ greeting }}"}
    """
    where = template(
        folder, text.replace("\n    ", "\n")[4:], code="say {{ greeting }}\n", braces="{{ kept }} {%"
    )
    (Path(where) / "code").chmod(0o755)
    assert scaffold("-y", "--name", "My Rain", "--template", where, "--var", "unit=cm") == 0
    assert tree(folder) == ALWAYS | {"in/cm/.gitkeep", "src/my_rain.py", "braces.txt", "run.sh"}
    assert (folder / "run.sh").read_text() == "say my-rain greets\n"
    assert (folder / "braces.txt").read_text() == "{{ kept }} {%"
    assert os.access(folder / "run.sh", os.X_OK)
    assert not os.access(folder / "braces.txt", os.X_OK)
    project = load(folder)
    assert (project.dependencies, project.ports) == (("numpy",), ("127.0.0.1:8080:80",))
    assert (project.jobs[0].name, project.jobs[0].help) == ("measure-cm", "In cm: my-rain greets")
    record = read_record(folder)
    assert (record["template"], "commit" in record, "version" in record) == (where, False, False)


def test_the_config_may_be_text_with_comments(folder: Path) -> None:
    where = template(
        folder,
        "config: |\n  # why\n  language: R\n"
        "  {% if name %}\n  description: {{ name | quoted }}\n  {% endif %}\n",
    )
    assert scaffold("-y", "--name", "a: 'b' #c", "--description", "no", "--template", where) == 0
    text = (folder / "skelebot.yaml").read_text()
    assert text.endswith("\n\n# why\nlanguage: R\ndescription: \"a: 'b' #c\"\n")
    assert load(folder).description == "a: 'b' #c"
    assert load(folder).language == "R"


@pytest.mark.parametrize("config", ["", "config:\n", "config: {}\n", "config: |\n  # nothing\n"])
def test_a_template_without_a_config(folder: Path, config: str) -> None:
    assert scaffold("-y", "--template", template(folder, f"dirs: [a]\n{config}")) == 0
    assert load(folder).name == "rain"


@pytest.mark.parametrize(
    "value", ['x"\njobs: [{name: evil', "x: y", "- a", "'", '"', "{{ name }}", "#", "|", "\\"]
)
def test_an_answer_cannot_become_yaml(folder: Path, value: str) -> None:
    text = 'prompts: [{var: v, message: m}]\nconfig:\n  description: "{{ v }}"\n  contact: is {{ v }}\n'
    where = template(folder, text)
    code = scaffold("-y", "--template", where, f"--var=v={value}")
    if "\n" in value:
        assert code == 2
        assert tree(folder) == set()
    else:
        assert code == 0
        assert (load(folder).description, load(folder).contact) == (value, f"is {value}")
        assert load(folder).jobs == ()


def test_the_ends_of_lines_and_other_bytes_stay(folder: Path) -> None:
    text = "files:\n- {name: dos, template: dos}\n- {name: bytes, template: bytes, render: false}\n"
    where = template(folder, text, dos=b"{{ name }}\r\nb\r\n", bytes=b"\0\xff{{ name }}")
    assert scaffold("-y", "--template", where) == 0
    assert (folder / "dos").read_bytes() == b"rain\r\nb\r\n"
    assert (folder / "bytes").read_bytes() == b"\0\xff{{ name }}"


def test_a_template_may_bring_what_every_project_has(folder: Path) -> None:
    names = ("VERSION", "README.md", ".gitignore")
    text = "files:\n" + "".join(f"- {{name: {name}, template: v}}\n" for name in names)
    assert scaffold("-y", "--template", template(folder, text, v="2.0.0\n")) == 0
    assert load(folder).version == "2.0.0"
    assert (folder / ".gitignore").read_text() == "2.0.0\n"


@pytest.mark.parametrize(
    "name",
    [
        *("../out", "/tmp/out", "a/../../out", "..", ".", "a/./../..", "{{ up }}/out", "{{ '/' }}tmp"),
        *(".git/hooks/pre-commit", "a/.GIT/config", ".skelebot/venv/x", "a/../.git/x", "x{{ '\\n' }}y"),
    ],
)
@pytest.mark.parametrize("kind", ["files", "dirs"])
def test_a_template_cannot_write_elsewhere(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    entry = json.dumps({"name": name, "template": "a"} if kind == "files" else name)
    where = template(folder, f"prompts: [{{var: up, message: m, default: ..}}]\n{kind}:\n- {entry}\n", a="x")
    said = refused(folder, capsys, "-y", "--template", where)
    place = "template.yaml:3:3: files[0].name" if kind == "files" else "template.yaml: dirs[0]"
    assert said.startswith(f"{place}: "), said
    assert "inside the project" in said or "belongs to git or to Skelebot" in said


def test_a_template_yaml_that_is_a_link_out_of_its_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = template(folder, "dirs: [data]\n")
    (Path(where) / "template.yaml").rename(folder.parent / "elsewhere")
    (Path(where) / "template.yaml").symlink_to("../elsewhere")
    said = refused(folder, capsys, "-y", "--template", where)
    assert said == f"template.yaml in {where} is a link out of the template; put the file itself there"
    (Path(where) / "template.yaml").unlink()
    write(Path(where), "dirs: [data]\n", "inside.yaml")
    (Path(where) / "template.yaml").symlink_to("inside.yaml")
    assert scaffold("-y", "--template", where) == 0


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ ('x' * 3_000_000_000) | length }}",
        "{{ 'x' * 110_000_000 }}",
    ],
)
def test_a_template_has_no_more_than_its_time_and_memory(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    where = template(folder, "files: [{name: a, template: a}]\n", a=text)
    said = refused(folder, capsys, "-y", "--template", where)
    assert said == "a: takes more time or memory than a template may use"


@pytest.mark.parametrize(
    "target", ["../secret", "/etc/hostname", "../secret/../secret", "linked", "gone", "folder", ".git/config"]
)
def test_a_template_cannot_read_elsewhere(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    write(folder.parent, "secret", "secret")
    where = template(folder, f"files:\n- {{name: a, template: {target}}}\n")
    (Path(where) / "linked").symlink_to("../secret")
    (Path(where) / "folder").mkdir()
    said = refused(folder, capsys, "-y", "--template", where)
    if target in ("gone", "folder"):
        assert said == f"template.yaml:2:3: files[0].template: the template has no file {target!r}"
    else:
        assert said == f"template.yaml:2:3: files[0].template: {target!r} is outside the template"


# --- templates that are wrong ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "template.yaml:1:1: the file is empty"),
        ("- a", "template.yaml:1:1: expected keys with values, found a list"),
        ("a: [", "template.yaml:2:1: this is not YAML"),
        ("fiels: []", "template.yaml:1:1: fiels: unknown key; did you mean `files`?"),
        ("files: [{name: a}]", "template.yaml:1:9: files[0]: `template` is missing"),
        (
            "files: [{name: a, template: a, render: maybe}]",
            "template.yaml:1:40: files[0].render: expected true",
        ),
        ("prompts: [{message: m}]", "template.yaml:1:11: prompts[0]: `var` is missing"),
        (
            "prompts: [{var: a-b, message: m}]",
            "template.yaml:1:17: prompts[0].var: expected a variable's name",
        ),
        (
            "prompts: [{var: name, message: m}]",
            "template.yaml:1:11: prompts[0].var: another variable is already named",
        ),
        (
            "prompts:\n- {var: a, message: m}\n- {var: a, message: m}",
            "template.yaml:3:3: prompts[1].var: another variable is already named 'a'",
        ),
        (
            "prompts: [{var: a, message: m, default: x, choices: [y]}]",
            "template.yaml:1:11: prompts[0].default: 'x' is not among the choices",
        ),
        ("languages: [Ruby]", "template.yaml:1:13: languages[0]: expected Python or R or R+Python"),
        ("config: [a]", "template.yaml:1:9: config: expected keys with values, or their text after a `|`"),
        ("config: a", "template.yaml:1:9: config: expected keys with values, or their text after a `|`"),
        ("dirs: [a]\nconfig: |\n  a: {{ b }}", "template.yaml:3: 'b' is undefined"),
        ("config: |\n  a: [", "config of template.yaml, after rendering:2:1: this is not YAML"),
        (
            "config: {dependencise: []}",
            "the template leads to an invalid skelebot.yaml:7:1: dependencise: unknown key",
        ),
        ("config: {ports: [x]}", "the template leads to an invalid skelebot.yaml:"),
        (
            "config: |\n  ---\n  ports: []",
            "the template leads to an invalid skelebot.yaml:7:1: this is",
        ),
        ('dirs: ["{{ nope }}"]', "template.yaml: dirs[0]: 'nope' is undefined"),
        ('files: [{name: "{{ a", template: a}]', "template.yaml:1:9: files[0].name: "),
        ("files: [{name: a, template: bad}]", "bad:2: 'nope' is undefined"),
        ("files: [{name: a, template: syntax}]", "syntax:3: "),
        ("files: [{name: a, template: zero}]", "zero:1: division by zero"),
        ("files: [{name: a, template: binary}]", "binary: this is not UTF-8; `render: false` copies it"),
        (
            "files: [{name: a, template: a}, {name: ./a, template: a}]",
            "template.yaml:1:33: files[1].name: another",
        ),
        (
            "files: [{name: a, template: a}, {name: a/b, template: a}]",
            "template.yaml: a would be a file, and also a",
        ),
        ("dirs: [VERSION]", "template.yaml: VERSION would be a file, and also a folder for VERSION/.gitkeep"),
        ("confg: {}", "template.yaml:1:1: confg: unknown key; did you mean `config`?"),
        ("config: {}\nconfig: {}", "template.yaml:2:1: config: the key is already on line 1"),
        (
            "files: [{name: a, template: a}]\ndirs: [a/b]",
            "template.yaml: a would be a file, and also a folder",
        ),
        (
            "files: [{name: skelebot.yaml, template: a}]",
            "template.yaml:1:9: files[0].name: Skelebot writes skelebot.yaml",
        ),
        (
            "files: [{name: .skelebot-template.yaml, template: a}]",
            "template.yaml:1:9: files[0].name: Skelebot writes .skelebot-",
        ),
        (
            "prompts: [{var: p, message: m, default: '{{ q }}'}]",
            "template.yaml:1:11: prompts[0].default: 'q' is",
        ),
    ],
)
def test_mistakes_in_a_template(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    files = {"a": "", "bad": "{{ name }}\n{{ nope }}\n", "syntax": "a\nb\n{% if %}", "zero": "{{ 1 / 0 }}"}
    where = template(folder, text, binary=b"\xff", **files)
    error = refused(folder, capsys, "-y", "--template", where)
    assert error.startswith(said), error


def test_an_answer_that_makes_a_wrong_project_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(folder, capsys, "-y", "--template", "dash", "--var", "port=abc")
    assert said.startswith("with --var port=abc the template leads to an invalid skelebot.yaml:")
    assert "jobs[0].ports[0]: expected HOST:CONTAINER" in said
    prompts = "prompts: [{var: a, message: m, default: 1}, {var: b, message: m}]"
    text = f"{prompts}\nconfig: {{ports: ['{{{{ a }}}}{{{{ b }}}}']}}"
    said = refused(folder, capsys, "-y", "--template", template(folder, text), "--var", "b=x")
    assert said.startswith("with --var b=x the template leads to an invalid skelebot.yaml:")


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ name.__init__.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('touch pwned') }}",
        "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
        "{{ '{0.__class__.__init__.__globals__}'.format(name) }}",
        "{% include '/etc/hostname' %}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_a_template_stays_in_its_sandbox(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    where = template(folder, "files: [{name: a, template: a}]", a=text)
    assert refused(folder, capsys, "-y", "--template", where).startswith("a:1: ")


def test_all_mistakes_of_a_template_are_reported_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = template(folder, "prompts: [{var: 1, message: m}]\nfiles: [{name: a}]\nx: 1\n")
    assert scaffold("-y", "--template", where) == 2
    assert [line.split(": ")[0] for line in errors(capsys)] == [
        f"template.yaml:{at}" for at in ("1:17", "2:9", "3:1")
    ]


def test_a_folder_without_a_template(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(folder, capsys, "-y", "--template", str(folder))
    assert said == f"{folder} is not a template: it has no template.yaml"


def test_the_schema_for_editors_is_written_and_replaced(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "old", "skelebot.schema.json")
    assert scaffold("-y") == 0
    capsys.readouterr()
    assert run_cli(["schema"]) == 0
    assert (folder / "skelebot.schema.json").read_text() == capsys.readouterr().out


# --- writing ---


def test_skelebot_yaml_comes_last_and_what_goes_comes_first() -> None:
    """A folder without it is no project, should the machine stop in between."""
    changes = {"z": NewFile(b""), "skelebot.yaml": NewFile(b""), "y": None, "a": NewFile(b"")}
    assert in_order(changes) == ["y", "a", "z", "skelebot.yaml"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    new, mine = write(tmp_path, "new", "staged"), write(tmp_path, "mine", "target")
    with pytest.raises(FileExistsError):
        put(str(new), str(mine))
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("model_v0.2.0.joblib", True),
        ("out/model_v10.20.30-rc.1+b.tar.gz", True),
        ("model_v0.2.0", True),
        ("src/model_v2.py", False),
        ("model.joblib", False),
        ("model_v1.0.py", False),
    ],
)
def test_git_ignores_pulled_versions(folder: Path, name: str, ignored: bool) -> None:
    assert scaffold("-y") == 0
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert (subprocess.run(["git", "check-ignore", "--quiet", name]).returncode == 0) == ignored


def test_two_that_write_to_one_folder_take_turns(folder: Path) -> None:
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with subprocess.Popen([sys.executable, "-m", "skelebot", "scaffold", "-y"]) as child:
        while not list(folder.glob(".skelebot-new-*/new/VERSION")):
            assert child.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)
        assert not (folder / "VERSION").exists()
        os.close(other)
    assert child.returncode == 0
    assert tree(folder) == DEFAULT
