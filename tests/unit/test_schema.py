"""One value of skelebot.yaml at a time: what it must be, and what is said where it is not."""

from pathlib import Path
from typing import Any

import pytest

from .helpers import FULL, load, problems, read_all, warnings

JOB = "jobs:\n  - name: train\n    source: train.py\n    help: Trains\n"


def test_a_file_with_every_key_loads_without_a_word(tmp_path: Path) -> None:
    assert warnings(tmp_path, FULL) == []
    project = load(tmp_path)
    assert project.python_version == "3.10"
    assert project.jobs[0].params[3].secret


# --- the places ---


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("name: demo\ndependancies: [a]\n", "skelebot.yaml:2:1: dependancies: unknown key"),
        ("name: demo\njobs: text\n", "skelebot.yaml:2:7: jobs[0]: expected keys with values"),
        ("name: demo\n" + JOB + "    timout: 3\n", "skelebot.yaml:6:5: jobs[0].timout: unknown key"),
        ("name: demo\n" + JOB + "    mode: x\n", "skelebot.yaml:6:11: jobs[0].mode: expected i or it or d"),
        (
            "name: demo\n" + JOB + "    params:\n      - name: a\n      - {name: b, alt: [c]}\n",
            "skelebot.yaml:8:24: jobs[0].params[1].alt: expected text, found a list",
        ),
        ("name: demo\nenvironment:\n  1x: a\n", "skelebot.yaml:3:3: environment: expected a variable's name"),
        ("name: demo\nports: [80]\n", "skelebot.yaml:2:9: ports[0]: expected HOST:CONTAINER"),
    ],
)
def test_a_mistake_is_told_with_line_column_and_path(tmp_path: Path, text: str, start: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(start)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
nam: demo
language: Julia
ephemeral: 3
jobs:
  - name: train
    source: [a]
    params:
      - {name: -x, accept: list}
      - alt: y
    mappings: ["a:b:c:d"]
timezone: Mars/North
primaryJob: trian
"""
    found = problems(tmp_path, text)
    starts = [f"skelebot.yaml:{n}:" for n in (1, 1, 2, 3, 5, 6, 8, 8, 9, 10, 11, 12)]
    assert [p[: len(s)] for p, s in zip(found, starts, strict=True)] == starts
    assert [p.split(": ", 2)[1] for p in found[2:]] == [
        "language",
        "ephemeral",
        "jobs[0]",
        "jobs[0].source",
        "jobs[0].params[0].name",
        "jobs[0].params[0].accept",
        "jobs[0].params[1]",
        "jobs[0].mappings[0]",
        "timezone",
        "primaryJob",
    ]


def test_mistakes_are_told_besides_those_between_the_parts(tmp_path: Path) -> None:
    text = "name: demo\ngpu: maybe\nprimaryJob: nosuch\n" + JOB + JOB.partition("\n")[2]
    paths = {p.split(": ")[1] for p in problems(tmp_path, text)}
    assert paths == {"gpu", "primaryJob", "jobs[1].name"}


# --- the nearest known word ---


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("dependancies: [a]\n", "did you mean `dependencies`?"),
        ("Jobs: []\n", "did you mean `jobs`?"),
        ("pythonversion: 3.12\n", "did you mean `pythonVersion`?"),
        ("python_version: 3.12\n", "did you mean `pythonVersion`?"),
        (JOB + "    param: []\n", "did you mean `params`?"),
        (JOB + "    params: [{name: a, choice: [b]}]\n", "did you mean `choices`?"),
        ("build: {package: [git]}\n", "did you mean `packages`?"),
        ("zzz: 1\n", "known: baseImage, build, commands"),
    ],
)
def test_an_unknown_word_comes_with_the_nearest_known_one(tmp_path: Path, text: str, hint: str) -> None:
    (problem,) = problems(tmp_path, "name: demo\n" + text)
    assert hint in problem


# --- wrong types ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("description: [a]", "expected text, found a list"),
        ("description: {a: b}", "expected text, found keys with values"),
        ("gpu: 1", "expected true or false, found the number '1'"),
        ("gpu: maybe", "expected true or false, found the text 'maybe'"),
        ("gpu: 'true'", "expected true or false, found the text 'true'"),
        ("language: python", "expected Python or R or R+Python; found 'python'"),
        ("primaryExe: RUN", "expected CMD or ENTRYPOINT; found 'RUN'"),
        ("dependencies: {a: b}", "unknown key; known: Python, R"),
        ("dependencies: [{req: a}]", "expected text, found keys with values"),
        ("dependencies: [null]", "expected text, found nothing"),
        ("dependencies: ['']", "expected text that is not empty"),
        ("jobs: [a]", "expected keys with values, found the text 'a'"),
        ("jobs: [null]", "expected keys with values, found nothing"),
        ("build: [a]", "expected keys with values, found a list"),
        ("build: {inherit: [apt]}", "expected pip or proxy or ca or netrc; found 'apt'"),
        ("build: {packages: ['git; ls']}", "expected the name of a Debian package"),
        ("environment: [A=1]", "expected keys with values, found a list"),
        ("environment: {A: [1]}", "expected text, found a list"),
        ("environment: {a b: 1}", "expected a variable's name"),
        ("components: [a]", "expected keys with values, found a list"),
        ("host: 'a b'", "expected ssh://user@host"),
        ("user: a b", "expected caller, root, a user's name or UID[:GID]"),
        ("baseImage: 'a b'", "expected an image's name"),
        ("pythonVersion: three", "expected a version of Python"),
        ('maintainer: "a\\nb"', "expected text on one line"),
        ("description: !!binary aGk=", "the tag tag:yaml.org,2002:binary is unknown"),
        ("description: !mine a", "the tag !mine is unknown"),
        ('description: "\\0"', "expected text without NUL"),
        ("? [a]\n: b", "expected a key, found a list"),
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(tmp_path, f"name: demo\n{text}\n")
    assert expected in problem
    assert problem.startswith("skelebot.yaml:2:")


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("name: '+'", "name", "a name that is not `+` and does not start with a dash"),
        ("name: -x", "name", "a name that is not `+` and does not start with a dash"),
        ("name: ' '", "name", "text that is not empty"),
        ('name: "a\\nb"', "name", "text on one line"),
        ("source: ''", "source", "expected"),
        ("mode: its", "mode", "expected i or it or d; found 'its'"),
        ("native: yes", "native", "expected optional or always or never; found 'yes'"),
        ("timeout: soon", "timeout", "a number of seconds, or a number with s, m, h or d"),
        ("timeout: -5", "timeout", "a number of seconds"),
        ("timeout: 0", "timeout", "a number of seconds"),
        ("mappings: [':x']", "mappings[0]", "FOLDER or LOCAL:CONTAINER"),
        ("mappings: ['a:b:c']", "mappings[0]", "FOLDER or LOCAL:CONTAINER"),
        ("mappings: ['a:/']", "mappings[0]", "a folder of the container other than / itself"),
        ("mappings: ['a:x/..']", "mappings[0]", "a folder of the container other than / itself"),
        ("ports: ['0:80']", "ports[0]", "HOST:CONTAINER"),
        ("ports: ['80:70000']", "ports[0]", "HOST:CONTAINER"),
        ("ports: ['80:80/icmp']", "ports[0]", "HOST:CONTAINER"),
        ("args: [{name: --x}]", "args[0].name", "a name without leading dashes"),
        ("params: [{name: a=b}]", "params[0].name", "a name without leading dashes and without `=`"),
        ("params: [{name: a, alt: ''}]", "params[0].alt", "text that is not empty"),
        ("params: [{name: a, accepts: lists}]", "params[0].accepts", "expected value or boolean or list"),
        ("params: [{name: a, secret: 1}]", "params[0].secret", "expected true or false"),
    ],
)
def test_a_wrong_value_of_a_job_is_told(tmp_path: Path, text: str, path: str, expected: str) -> None:
    keys = dict.fromkeys(("name: train", "source: train.py", "help: Trains"))
    lines = [k for k in keys if k.split(":")[0] != text.split(":")[0]] + [text]
    (problem,) = problems(tmp_path, "name: demo\njobs:\n  - " + "\n    ".join(lines) + "\n")
    assert f" jobs[0].{path}: " in problem
    assert expected in problem


@pytest.mark.parametrize("missing", ["name", "source", "help"])
@pytest.mark.parametrize("how", ["left out", "empty"])
def test_name_source_and_help_of_a_job_are_required(tmp_path: Path, missing: str, how: str) -> None:
    given = {"name": "train", "source": "train.py", "help": "Trains"}
    del given[missing]
    lines = [f"{k}: {v}" for k, v in given.items()] + ([f"{missing}:"] if how == "empty" else [])
    (problem,) = problems(tmp_path, "name: demo\njobs:\n  - " + "\n    ".join(lines) + "\n")
    assert problem.startswith("skelebot.yaml:")
    assert missing in problem
    assert ("is missing" if how == "left out" else "is empty") in problem


@pytest.mark.parametrize("text", ["gpu: true\n", "name:\n", "name: ' '\n", "name: '!!!'\n"])
def test_a_project_has_a_name_that_an_image_can_bear(tmp_path: Path, text: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith("skelebot.yaml:1:")
    assert "name" in problem


# --- the file as a whole ---


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b"", "skelebot.yaml:1:1: the file is empty"),
        (b"\n# only a comment\n", "skelebot.yaml:1:1: the file is empty"),
        (b"\xef\xbb\xbf", "skelebot.yaml:1:1: the file is empty"),
        (b"name: demo\nhelp: caf\xe9\n", "skelebot.yaml:2:"),
        (b"\xff\xfen\x00a\x00", "skelebot.yaml:1:"),
        (b"name: demo\njobs: [\n", "skelebot.yaml:3:1: this is not YAML"),
        (b"name: demo\n\tgpu: yes\n", "skelebot.yaml:2:1: this is not YAML"),
        (b"name: *nowhere\n", "skelebot.yaml:1:7: this is not YAML"),
        (b"name: demo\n---\nname: other\n", "skelebot.yaml:2:1: this is not YAML"),
        (b"name: demo\n\n\ngpu: a\x00b\n", "skelebot.yaml:4:"),
        (b"name: demo\n\n\ngpu: a\x07b\n", "skelebot.yaml:4:"),
        (b"- name: demo\n", "skelebot.yaml:1:1: expected keys with values, found a list"),
        (b"demo\n", "skelebot.yaml:1:1: expected keys with values, found the text 'demo'"),
        (b"name: demo\njobs: &a [*a]\n", "skelebot.yaml:2:7: the alias contains itself"),
        (b"name: demo\nbuild: &a {x: *a}\n", "skelebot.yaml:2:8: the alias contains itself"),
        (b"name: demo\nbuild: &a {<<: *a}\n", "skelebot.yaml:2:8: the alias contains itself"),
        (b"name: demo\njobs: " + b"[" * 300 + b"]" * 300, "skelebot.yaml:2:"),
        (b"name: demo\njobs: " + b"[" * 50_000, "skelebot.yaml:2:"),
        (b"name: demo\njobs: " + b"{a: " * 50_000, "skelebot.yaml:2:"),
        (b"name: demo\njobs:\n  " + b"- " * 50_000, "skelebot.yaml:3:"),
        (b"name: demo\njobs: " + b"&a " * 10 + b"x\n", "skelebot.yaml:2:"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_file_that_is_no_configuration_is_told_in_one_line(tmp_path: Path, data: bytes, start: str) -> None:
    (tmp_path / "skelebot.yaml").write_bytes(data)
    (problem,) = read_all(tmp_path)[1].problems
    assert problem.startswith(start)
    assert "\n" not in problem


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "skelebot.yaml").write_bytes(b"\xef\xbb\xbfname: demo\r\ngpu: yes\r\n")
    project = load(tmp_path)
    assert (project.name, project.gpu) == ("demo", True)


# --- duplicate keys, merge keys ---


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("name: a\nname: b\n", "skelebot.yaml:2:1: name: the key is already on line 1"),
        (
            "name: a\n" + JOB + "    help: Again\n",
            "skelebot.yaml:6:5: jobs[0].help: the key is already on line 5",
        ),
        (
            "name: a\nenvironment: {A: 1, A: 2}\n",
            "skelebot.yaml:2:21: environment.A: the key is already on line 2",
        ),
        (
            "name: a\ncomponents: {x: {}, x: {}}\n",
            "skelebot.yaml:2:21: components.x: the key is already on line 2",
        ),
        ("name: a\nignores: [x]\nignore: [y]\n", "skelebot.yaml:3:1: ignore: `ignores` is already given"),
    ],
)
def test_a_key_stands_once(tmp_path: Path, text: str, start: str) -> None:
    assert [p for p in problems(tmp_path, text) if not p.startswith(start)] == []
    assert problems(tmp_path, text)


def test_merge_keys_bring_what_is_not_there(tmp_path: Path) -> None:
    text = """\
name: demo
jobs:
  - &first
    name: a
    source: a.py
    help: A
    timeout: 10
  - <<: *first
    name: b
  - <<: [{name: c, help: C}, *first]
    source: c.py
"""
    jobs = load(tmp_path, text).jobs
    assert [(j.name, j.source, j.help, j.timeout) for j in jobs] == [
        ("a", "a.py", "A", "10"),
        ("b", "a.py", "A", "10"),
        ("c", "c.py", "C", "10"),
    ]


def test_a_mistake_that_aliases_repeat_is_told_once(tmp_path: Path) -> None:
    text = "name: demo\nparams: &p [{name: x, nosuch: 1}]\n" + JOB + "    params: *p\n"
    unknown = [p for p in problems(tmp_path, text) if "nosuch" in p]
    assert len(unknown) == 1
    text = (
        "name: demo\nbuild:\n  <<: &b {packages: {a: b}}\n"
        + JOB
        + "    environment: {<<: [{A: [1]}, {A: [1]}]}\n"
    )
    assert len(problems(tmp_path, text)) == 2


def test_a_wrong_merge_is_told(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "name: demo\nbuild:\n  <<: text\n")
    assert problem.startswith("skelebot.yaml:3:7: build: expected keys with values, found the text 'text'")


# --- older spellings ---


@pytest.mark.parametrize(
    ("text", "warning", "attribute", "value"),
    [
        (
            JOB + "    mapped: [data/]\n",
            "6:5: jobs[0].mapped: is now named `mappings`",
            "mappings",
            ("data/",),
        ),
        (JOB + "    ignore: [a]\n", "6:5: jobs[0].ignore: is now named `ignores`", "ignores", ("a",)),
        (
            JOB + "    mappings: data/\n",
            "6:15: jobs[0].mappings: expected a list",
            "mappings",
            ("data/",),
        ),
        (JOB + "    ports: 22:22\n", "6:12: jobs[0].ports: expected a list", "ports", ("22:22",)),
    ],
)
def test_an_older_spelling_loads_with_a_warning(
    tmp_path: Path, text: str, warning: str, attribute: str, value: Any
) -> None:
    (found,) = warnings(tmp_path, "name: demo\n" + text)
    assert found.startswith(f"skelebot.yaml:{warning}")
    assert getattr(load(tmp_path).jobs[0], attribute) == value


def test_an_older_spelling_of_the_root_loads_with_a_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path, "name: demo\nignore: [a]\n") == [
        "skelebot.yaml:2:1: ignore: is now named `ignores`"
    ]
    assert load(tmp_path).ignores == ("a",)


def test_a_single_record_stands_for_a_list_with_a_warning(tmp_path: Path) -> None:
    text = "name: demo\njobs: {name: a, source: a.py, help: A, params: {name: x}}\n"
    assert len(warnings(tmp_path, text)) == 2
    assert [p.name for p in load(tmp_path).jobs[0].params] == ["x"]


# --- text as it stands ---

AS_IT_STANDS = [
    "1.0",
    "010",
    "0x1F",
    "1_000",
    "1e5",
    "2018-01-01",
    "2018-01-01 10:00:00",
    "yes",
    "No",
    "true",
    "3.10",
    "22:22",
    "190:20:30",
    ".5",
    "+1",
    "-0",
    ".inf",
    ".NaN",
    "=",
    "<<",
]


@pytest.mark.parametrize("text", AS_IT_STANDS)
def test_text_arrives_as_it_stands_in_the_file(tmp_path: Path, text: str) -> None:
    yaml = f"""\
name: demo
environment: {{A: {text}}}
jobs:
  - name: a
    source: a.py
    help: {text}
    args:
      - name: d
        choices: [{text}, other]
    params:
      - name: p
        default: {text}
        choices:
          - {text}
      - name: q
        accepts: list
        default: [{text}]
"""
    project = load(tmp_path, yaml)
    job = project.jobs[0]
    assert dict(project.environment) == {"A": text}
    assert job.help == text
    assert job.args[0].choices == (text, "other")
    assert job.params[0].default == text
    assert job.params[0].choices == (text,)
    assert job.params[1].default == (text,)


def test_versions_and_ports_are_text(tmp_path: Path) -> None:
    project = load(tmp_path, "name: 1.0\npythonVersion: 3.10\nports: [22:22, 8000-8010:8000-8010]\n")
    assert (project.name, project.python_version) == ("1.0", "3.10")
    assert project.ports == ("22:22", "8000-8010:8000-8010")


@pytest.mark.parametrize("port", ["22:22", "127.0.0.1:80:80", "[::1]:80:80/udp", "53:53/udp", "1-2:3-4/tcp"])
def test_ports_have_dockers_forms(tmp_path: Path, port: str) -> None:
    assert load(tmp_path, f"name: demo\nports: ['{port}']\n").ports == (port,)


@pytest.mark.parametrize(
    ("text", "value"),
    [("null", None), ("~", None), ("", None), ("'null'", "null"), ("'~'", "~"), ("''", ""), ("'no'", "no")],
)
def test_a_null_default_is_none_and_a_quoted_one_is_text(
    tmp_path: Path, text: str, value: str | None
) -> None:
    project = load(tmp_path, f"name: demo\nparams:\n  - name: p\n    default: {text}\n")
    assert project.params[0].default == value


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "yes", "on"])
def test_a_boolean_is_read_in_each_of_yamls_spellings(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, f"name: demo\ngpu: {text}\n").gpu is True


def test_null_stands_for_a_key_that_is_not_there(tmp_path: Path) -> None:
    project = load(tmp_path, "name: demo\njobs:\nports: ~\nhost: null\ngpu:\nbuild:\ncomponents:\n")
    assert project == load(tmp_path, "name: demo\n")


@pytest.mark.parametrize("depth", [2_000, 100_000])
@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_a_text_that_is_nested_too_deep_is_reported(tmp_path: Path, opening: str, depth: int) -> None:
    (problem,) = problems(tmp_path, opening * depth)
    assert "is nested too deeply" in problem
    assert problem.startswith("skelebot.yaml:1:")
