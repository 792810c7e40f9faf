"""`skelebot envs` and `skelebot config`: what there is, what holds, and where it comes from."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skelebot.model import Project

from .helpers import FULL, load, run_cli, write


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that succeeds prints on stdout."""
    assert run_cli(list(words)) == 0
    return capsys.readouterr().out


def placeless(value: Any) -> Any:
    """A project without its places, which another text of the same configuration does not share."""
    if isinstance(value, tuple):
        return tuple(placeless(each) for each in value)
    if not hasattr(value, "place") and not isinstance(value, Project):
        return value
    names = ("args", "params", "jobs", "sweeps")
    inside = {name: placeless(getattr(value, name)) for name in names if hasattr(value, name)}
    return replace(value, **inside, **({"place": ""} if hasattr(value, "place") else {}))


# --- envs ---


def test_the_environments(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "name: demo\n")
    assert said(capsys, "envs") == "* [default]  skelebot.yaml\n"
    for name in ("prod", "a-longer-name"):
        write(project, "description: other\n", f"skelebot-{name}.yaml")
    assert said(capsys, "envs").splitlines() == [
        "* [default]      skelebot.yaml",
        "  a-longer-name  skelebot-a-longer-name.yaml",
        "  prod           skelebot-prod.yaml",
    ]
    assert said(capsys, "-e", "prod", "envs").splitlines() == [
        "  [default]      skelebot.yaml",
        "  a-longer-name  skelebot-a-longer-name.yaml",
        "* prod           skelebot-prod.yaml",
    ]


def test_the_environments_as_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "name: demo\n")
    write(project, "description: other\n", "skelebot-dev.yaml")
    assert json.loads(said(capsys, "-edev", "envs", "--json")) == [
        {"name": "[default]", "file": "skelebot.yaml", "active": False},
        {"name": "dev", "file": "skelebot-dev.yaml", "active": True},
    ]


def test_one_broken_environment_is_listed_all_the_same(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, "name: demo\n")
    write(project, "jobs: {", "skelebot-broken.yaml")
    assert said(capsys, "envs").endswith("  broken     skelebot-broken.yaml\n")


def test_a_name_cannot_forge_a_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "name: demo\n")
    write(project, "name: demo\n", "skelebot-a\r* b\x1b[31m.yaml")
    out = said(capsys, "envs")
    assert out.count("\n") == 2
    assert not {"\r", "\x1b"} & set(out)


# --- config ---


def test_what_is_printed_loads_as_the_same(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = load(project, FULL)
    text = said(capsys, "config")
    after = load(project, text)
    assert placeless(after) == placeless(before)
    assert said(capsys, "config") == text


def test_with_origins_it_loads_as_the_same(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = load(project, FULL)
    text = said(capsys, "config", "--origin")
    assert placeless(load(project, text)) == placeless(before)


def test_text_stays_what_it_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    awkward = [
        "3.10",
        "010",
        "yes",
        "null",
        "~",
        "22:22",
        "2020-01-01",
        " x ",
        "a: b",
        "# c",
        "- d",
        "''",
        "é\u2028",
    ]
    jobs = json.dumps([{"name": "a", "source": "one\ntwo # not a comment\n", "help": "", "params": []}])
    listed = ", ".join(f"{{name: p{i}, default: {json.dumps(t)}}}" for i, t in enumerate(awkward))
    before = load(project, f"name: demo\njobs: {jobs}\nparams: [{listed}]\n")
    assert [param.default for param in before.params] == awkward
    for words in (["config"], ["config", "-o"]):
        write(project, f"name: demo\njobs: {jobs}\nparams: [{listed}]\n")
        assert placeless(load(project, said(capsys, *words))) == placeless(before)


def test_defaults_that_say_something_are_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(project, "name: demo\njobs: [{name: a, source: b, help: c, params: [{name: d, default: ''}]}]\n")
    assert said(capsys, "config") == (
        "name: demo\n"
        "language: Python\n"
        "ephemeral: false\n"
        "jobs:\n"
        "- name: a\n"
        "  source: b\n"
        "  help: c\n"
        "  mode: i\n"
        "  native: optional\n"
        "  params:\n"
        "  - name: d\n"
        "    default: ''\n"
        "    accepts: value\n"
        "    type: text\n"
        "    secret: false\n"
        "  retries: 0\n"
        "  stdin: false\n"
        "  dependencies: true\n"
        "  cache: false\n"
        "primaryExe: CMD\n"
        "gpu: false\n"
        "dotenv: false\n"
    )


BASE = """\
name: demo
ignore: "*.csv"
environment: &shared
  A: one
  B: null
jobs:
- name: a
  source: |
    first
    second
  help: h
  environment:
    <<: *shared
    C: 3
  mapped:
  - data/
components:
  repository: {local: ../store, artifacts: [{name: m, file: m.pkl, singular: yes}]}
  unknown: {port: 010, list: [], "key: odd": null}
"""

DEV = """\
# of the test machine
host: tcp://test:1
language: Python
"""

ORIGINS = {
    "name: demo": "skelebot.yaml:1",
    "'*.csv'": "skelebot.yaml:2",
    "A: one": "skelebot.yaml:4",
    "B: null": "skelebot.yaml:5",
    "name: a": "skelebot.yaml:7",
    "source: |": "skelebot.yaml:8",
    "C: '3'": "skelebot.yaml:14",
    "data/": "skelebot.yaml:16",
    "mode: i": "default",
    "gpu: false": "default",
    "host: tcp://test:1": "skelebot-dev.yaml:2",
    "language: Python": "skelebot-dev.yaml:3",
    "local: ../store": "skelebot.yaml:18",
    "singular: yes": "skelebot.yaml:18",
    "port: 010": "skelebot.yaml:19",
    "list: []": "skelebot.yaml:19",
    "'key: odd': null": "skelebot.yaml:19",
}


def test_where_each_value_comes_from(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, BASE)
    write(project, DEV, "skelebot-dev.yaml")
    lines = said(capsys, "-e", "dev", "config", "--origin").splitlines()
    found = dict(re.split(" +# ", line.lstrip(" -")) for line in lines if "  # " in line)
    assert {text: found.get(text) for text in ORIGINS} == ORIGINS
    bare = [line for line in lines if "  # " not in line]
    assert all(line.endswith(":") or line.strip() in ("first", "second") for line in bare), bare
    assert not any(" # " in line for line in said(capsys, "config").splitlines())


MERGED = """\
merge: true
environment: {B: 2}
jobs:
- {name: b, source: x, help: y}
- name: a
  mappings: [models/]
  params: [{name: token, secret: true, default: hush}]
components: {repository: {artifacts: [{name: m, file: n.pkl}]}}
"""

MERGED_ORIGINS = {
    "A: one": "skelebot.yaml:4",
    "B: '2'": "skelebot-dev.yaml:2",
    "name: a": "skelebot.yaml:7",
    "name: b": "skelebot-dev.yaml:4",
    "models/": "skelebot-dev.yaml:6",
    "default: '***'": "skelebot-dev.yaml:7",
    "accepts: value": "default",
    "C: '3'": "skelebot.yaml:14",
    "file: n.pkl": "skelebot-dev.yaml:8",
    "local: ../store": "skelebot.yaml:18",
}


def test_where_each_merged_value_comes_from(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, BASE)
    write(project, MERGED, "skelebot-dev.yaml")
    text = said(capsys, "-e", "dev", "config", "-o")
    lines = [line for line in text.splitlines() if "  # " in line]
    found = dict(re.split(" +# ", line.lstrip(" -")) for line in lines)
    assert {text: found.get(text) for text in MERGED_ORIGINS} == MERGED_ORIGINS
    assert len({line.rindex("  # ") for line in lines}) == 1
    whole = json.loads(said(capsys, "-e", "dev", "config", "--json", "-o"))
    assert whole["jobs"][0]["mappings"] == [{"value": "models/", "origin": "skelebot-dev.yaml:6"}]
    assert whole["environment"]["A"] == {"value": "one", "origin": "skelebot.yaml:4"}
    write(project, text)
    plain = said(capsys, "config")
    write(project, BASE)
    assert said(capsys, "-e", "dev", "config") == plain


def test_the_settings_of_components_load_as_the_same(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, BASE)
    first = said(capsys, "config")
    write(project, said(capsys, "config", "--origin"))
    assert said(capsys, "config") == first


def test_secrets_are_not_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = """\
    - {name: a, secret: true, default: hush-1}
    - {name: b, secret: true, default: [hush-2, hush-3], accepts: list}
    - {name: c, secret: true, default: hush-4, choices: [hush-4, other]}
    - {name: d, secret: true, default: $TOKEN}
    - {name: e, secret: true, default: true, accepts: boolean}
"""
    text = f"name: demo\njobs:\n- name: a\n  source: b\n  help: c\n  params:\n{params}"
    for words in (["config"], ["config", "--origin"], ["config", "--json"]):
        load(project, text)
        out = said(capsys, *words)
        assert not any(f"hush-{i}" in out for i in (1, 2, 3))
        assert out.count("***") == 2
        assert "$TOKEN" in out
        assert not re.search(r"default\W+true", out)
        if "--json" not in words:
            load(project, out)


def test_as_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, BASE)
    found = json.loads(said(capsys, "config", "--json"))
    assert found["environment"] == {"A": "one", "B": None}
    assert found["jobs"][0]["environment"] == {"A": "one", "B": None, "C": "3"}
    assert found["jobs"][0]["mappings"] == ["data/"]
    assert found["gpu"] is False
    artifact = {"name": "m", "file": "m.pkl", "singular": True}
    assert found["components"]["repository"] == {"local": "../store", "artifacts": [artifact]}
    whole = json.loads(said(capsys, "config", "--json", "--origin"))
    assert whole["jobs"][0]["mappings"] == [{"value": "data/", "origin": "skelebot.yaml:16"}]
    assert whole["gpu"] == {"value": False, "origin": "default"}


def test_many_aliases_do_not_grow(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    write(project, "name: demo\ncomponents:\n  unknown:\n    " + "\n    ".join(levels) + "\n")
    assert len(said(capsys, "config", "--origin")) < 20_000


def test_a_long_value_stays_on_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(["word"] * 200)
    load(project, f"name: demo\ndescription: {text}\ncontact: '# {text}'\n")
    out = said(capsys, "config", "-o").splitlines()
    assert out[1:3] == [
        f"description: {text}  # skelebot.yaml:2",
        f"contact: '# {text}'  # skelebot.yaml:3",
    ]


def test_dependencies_of_two_languages(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = load(project, "name: a\nlanguage: R+Python\ndependencies: {Python: [numpy], R: [zoo, abc]}\n")
    text = said(capsys, "config", "-o")
    assert "  - abc             # skelebot.yaml:3\n" in text
    assert load(project, text) == before


def test_a_secret_of_a_type_leaves_a_configuration_that_loads(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "secret: true, default"
    load(project, f"name: demo\nparams: [{{name: a, type: int, {secret}: 1234}}, {{name: b, {secret}: x}}]\n")
    shown = said(capsys, "config")
    assert "1234" not in shown
    assert [param.default for param in load(project, shown).params] == [None, "***"]


def test_sweeps_load_as_the_same(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = "{rate: [0.1, '1'], level: 1..5}"
    text = "sweeps: {a: {chain: train, values: %s}, b: {chain: train, values: %s, trials: 3, seed: 0}}\n"
    params = "params: [{name: rate, default: 1}, {name: level, default: 1}]\n"
    job = "jobs: [{name: train, source: train.py, help: h}]\n"
    write(project, "name: demo\n" + params + job + text % (values, values))
    before = load(project)
    assert run_cli(["config"]) == 0
    write(project, capsys.readouterr().out)
    assert placeless(load(project).sweeps) == placeless(before.sweeps)
    assert len(before.sweeps) == 2
