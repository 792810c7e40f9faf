"""The printed JSON Schema agrees with what loads."""

import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from skelebot import catalog

from .helpers import FULL, problems, run_cli

JOB = "jobs:\n  - name: a\n    source: a.py\n    help: A\n"

LOADS = [
    FULL,
    "name: demo\n",
    "name: 1.0\n",
    "name: 2018-01-01\n",
    "name: demo\npythonVersion: 3.10\nports: [22:22]\n",
    "name: demo\nignore: [a]\n",
    "name: demo\nignores: a\ndependencies: numpy\nports: '1:2'\n",
    "name: demo\nenvironment: {A: 1, B: 1.0, C: yes, D: text, E: null, F: ''}\n",
    "name: demo\nbuild: {inherit: pip, packages: git, cran: 'https://cran.example.org'}\n",
    "name: demo\nlanguage: R+Python\ndependencies: {R: [zoo], Python: numpy}\n",
    "name: demo\ncomponents: {nosuch: {a: [1, {b: c}]}}\n",
    "name: demo\njobs: {name: a, source: a.py, help: A}\n",
    "name: demo\n" + JOB + "    mapped: [data/]\n    ignore: [x]\n",
    "name: demo\n"
    + JOB
    + "    params: [{name: a, default: [1, 2.0, yes]}, {name: b, default: null}]\n".replace(
        "default: [", "accepts: list, default: ["
    ),
    "name: demo\n" + JOB + "    args: [{name: 1, choices: [1, 2018-01-01, yes]}]\n",
    "name: demo\n"
    + JOB
    + "    args: [{name: n, type: int, min: 0, max: 9, pattern: '[0-9]'}]\n    validate: b.py\n",
    "name: demo\n" + JOB + "    params: [{name: d, type: date, min: 2024-01-31, default: 2024-02-01}]\n",
    "name: demo\n" + JOB + "    timeout: 90\n    environment: {A: 010}\n",
    "name: demo\njobs:\n  - &a {name: a, source: a.py, help: A}\n  - {<<: *a, name: b}\n",
    "name: demo\nresources: {cpus: 0.5, memory: 4g, shm: 1024, gpus: all, disk: 20Gi}\n",
    "name: demo\n" + JOB + "    resources: {cpus: 500m, gpus: 2, memory: null}\n    retries: 3\n",
    "name: demo\n" + JOB + "    mode: d\n    stdin: true\n",
    "name: demo\n" + JOB + "    native: always\n    metrics: [out/metrics.json]\n",
    "name: demo\n" + JOB + "    metrics: {loss: 'loss=(.*)', acc.top1: 'acc (.*)'}\n",
    *(f"name: demo\n{key}: null\n" for key in ("jobs", "components", "environment", "gpu", "build", "user")),
]

MISTAKES = [
    "gpu: true\n",
    "name: null\n",
    "name: [a]\n",
    "- name\n",
    "demo\n",
    "name: demo\nnosuch: 1\n",
    "name: demo\nlanguage: Julia\n",
    "name: demo\ngpu: 3\n",
    "name: demo\ngpu: 'yes'\n",
    "name: demo\nprimaryExe: RUN\n",
    "name: demo\njobs: text\n",
    "name: demo\njobs: [text]\n",
    "name: demo\njobs: [null]\n",
    "name: demo\njobs: [{name: a, source: a.py}]\n",
    "name: demo\n" + JOB + "    mode: x\n",
    "name: demo\n" + JOB + "    args: [{name: n, type: number}]\n",
    "name: demo\n" + JOB + "    args: [{name: n, type: int, min: [1]}]\n",
    "name: demo\n" + JOB + "    validate: [a]\n",
    "name: demo\n" + JOB + "    native: yes\n",
    "name: demo\n" + JOB + "    nosuch: 1\n",
    "name: demo\n" + JOB + "    args: [{help: x}]\n",
    "name: demo\n" + JOB + "    params: [{name: a, accepts: lists}]\n",
    "name: demo\n" + JOB + "    params: [{name: a, secret: 1}]\n",
    "name: demo\n" + JOB + "    params: [{name: a, default: {b: c}}]\n",
    "name: demo\ndependencies: {a: b}\n",
    "name: demo\ndependencies: [{req: a}]\n",
    "name: demo\nlanguage: R+Python\ndependencies: {R: {a: b}}\n",
    "name: demo\ndependencies: [null]\n",
    "name: demo\nenvironment: [A=1]\n",
    "name: demo\nenvironment: {A: [1]}\n",
    "name: demo\nbuild: [a]\n",
    "name: demo\nresources: 4g\n",
    "name: demo\nresources: {memory: 4x}\n",
    "name: demo\nresources: {cpus: two}\n",
    "name: demo\nresources: {gpus: some}\n",
    "name: demo\nresources: {mem: 4g}\n",
    "name: demo\n" + JOB + "    retries: -1\n",
    "name: demo\n" + JOB + "    retries: 1000\n",
    "name: demo\n" + JOB + "    metrics: [{loss: x}]\n",
    "name: demo\n" + JOB + "    metrics: {loss: [x]}\n",
    "name: demo\nresources: {cpus: -1}\n",
    "name: demo\nresources: {cpus: '0'}\n",
    "name: demo\nresources: {cpus: true}\n",
    "name: demo\nresources: {gpus: 1.5}\n",
    "name: demo\nresources: {memory: 1024}\n",
    "name: demo\nresources: {disk: 0g}\n",
    "name: demo\nports: ['8080:99999']\n",
    "name: demo\n" + JOB + "    timeout: 0s\n",
    "name: demo\ncomponents: {registry: {host: a.example, port: 99999999}}\n",
    "name: demo\ncomponents: {jupyter: {port: 0}}\n",
    "name: demo\nbuild: {nosuch: a}\n",
    "name: demo\nbuild: {inherit: [apt]}\n",
    "name: demo\ncomponents: [a]\n",
    "name: demo\n" + JOB + "    timeout: soon\n",
    "name: demo\n" + JOB + "    timeout: 10 m\n",
    "name: demo\n" + JOB + "    ports: [web]\n",
    "name: demo\nports: ['80']\n",
    "name: demo\nenvironment: {A-B: 1}\n",
    "name: demo\nhost: 'ftp://engine'\n",
    "name: demo\nuser: 'a b'\n",
    "name: demo\npythonVersion: three\n",
    "name: demo\nbaseImage: '-x'\n",
    "name: demo\nbuild: {packages: [Git]}\n",
    "name: demo\ncomponents: {registry: {host: 'a/b'}}\n",
    "name: demo\ncomponents: {jupyter: {environment: {A-B: 1}}}\n",
    "name: demo\nsweeps: [{chain: a}]\n",
    "name: demo\n" + JOB + "sweeps: {s: {chain: a}}\n",
    "name: demo\n" + JOB + "sweeps: {s: {values: {rate: 1}}}\n",
    "name: demo\n" + JOB + "sweeps: {s: {chain: a, values: [1]}}\n",
    "name: demo\n" + JOB + "sweeps: {s: {chain: a, values: {rate: 1}, goal: loss}}\n",
    "name: demo\n" + JOB + "sweeps: {s: {chain: a, values: {rate: 1}, seed: -1}}\n",
    "name: demo\n" + JOB + "sweeps: {s: {chain: a, values: {rate: 1}, prune: best}}\n",
]


def as_json(text: str) -> Any:
    """What an editor's YAML reader makes of a text, where a date is text."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, datetime.date) else value

    return plain(yaml.safe_load(text))


def accepts(text: str) -> bool:
    return bool(jsonschema.Draft7Validator(catalog.whole_schema()).is_valid(as_json(text)))


def test_the_schema_is_one_of_json_schema() -> None:
    jsonschema.Draft7Validator.check_schema(catalog.whole_schema())


@pytest.mark.parametrize("text", LOADS)
def test_what_loads_is_accepted(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []
    assert accepts(text)


@pytest.mark.parametrize("text", MISTAKES)
def test_what_does_not_load_is_refused(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) != []
    assert not accepts(text)


LIMITED = [
    JOB + "    retries: {}\n",
    JOB + "    timeout: {}\n",
    *(f"resources: {{{{{name}: {{}}}}}}\n" for name in ("cpus", "memory", "shm", "gpus", "disk")),
    'ports: ["{}:80"]\n',
    'ports: ["1-2:80-{}"]\n',
    "components: {{jupyter: {{port: {}}}}}\n",
    "components: {{registry: {{host: a.example, port: {}}}}}\n",
]
NUMBERS = st.one_of(
    st.integers(-3, 150),
    st.integers(-(10**6), 10**17),
    st.sampled_from((65535, 65536, 9999, 10_001, 366 * 86400 + 1, 6 * 2**20 - 1, 2**50 + 1, 1000)),
    # JSON Schema cannot tell 2.000 from 2.
    st.decimals(-1, 20_000, places=3, allow_nan=False).filter(lambda number: number % 1 != 0),
)


WRITTEN = st.sampled_from(["{}", "{}", "'{}'", "'0{}'", "-1{}", "{}x", "[{}]"])


@given(st.sampled_from(LIMITED), NUMBERS, WRITTEN)
def test_a_number_that_does_not_load_is_refused(key: str, number: object, written: str) -> None:
    """Of quoted numbers, the schema does not know the greatest: a pattern with all units would be endless."""
    text = written.format(number)
    with tempfile.TemporaryDirectory() as folder:
        if problems(Path(folder), "name: demo\n" + key.format(text)) and not _is_quoted_number(text, key):
            assert not accepts("name: demo\n" + key.format(text))


def _is_quoted_number(text: str, key: str) -> bool:
    return "'" in text and "ports" not in key


def test_every_key_is_described_and_may_be_null_where_it_is_optional() -> None:
    whole = catalog.whole_schema()
    records = [whole, *(whole["properties"][n]["anyOf"][0] for n in ("build",))]
    for record in records:
        validator = jsonschema.Draft7Validator(record)
        for name, described in record["properties"].items():
            assert described.get("description") or described["deprecationMessage"], name
            if name in whole["else"]["required"] or "deprecationMessage" in described:
                continue
            errors = [e for e in validator.iter_errors({"name": "demo", name: None}) if name in e.path]
            assert errors == [], name


OF_ENVIRONMENTS = [
    "merge: true\n",
    "merge: false\ngpu: true\n",
    "merge: true\njobs: [{name: a, params: [{name: b, default: 1}]}]\n",
    "merge: true\ncomponents: {kerberos: {hdfsUser: a}, repository: {artifacts: [{name: m, file: b}]}}\n",
]


@pytest.mark.parametrize("text", OF_ENVIRONMENTS)
def test_the_file_of_an_environment_need_not_be_complete(text: str) -> None:
    assert accepts(text)
    assert not accepts(text.replace("merge: true\n", "").replace("merge: false\n", "") or "gpu: true")


@pytest.mark.parametrize("wrong", ["nosuch: 1", "jobs: [{help: b}]", "jobs: [{name: a, mode: x}]", "gpu: 3"])
def test_what_is_in_the_file_of_an_environment_is_checked(wrong: str) -> None:
    assert not accepts(f"merge: true\n{wrong}\n")


@pytest.mark.parametrize("kept", ["kerberos: {hdfsUser: a}", "repository: {artifacts: [{name: m}]}"])
def test_what_components_require_is_in_the_schema(kept: str) -> None:
    assert not accepts(f"name: demo\ncomponents: {{{kept}}}\n")


def test_the_former_spellings_are_marked_as_such() -> None:
    assert catalog.whole_schema()["properties"]["ignore"]["deprecationMessage"] == "Renamed to ignores"


@pytest.mark.parametrize("inside", [True, False])
def test_the_command_prints_it_inside_and_outside_of_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], inside: bool
) -> None:
    if inside:
        (tmp_path / "skelebot.yaml").write_text("name: demo\n")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == catalog.whole_schema()
