"""An environment's file over the project's: keys that replace others, and files that are merged."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skelebot import catalog
from skelebot.model import Project
from skelebot.project import nodes, overlay, read
from skelebot.project.nodes import Report

from .helpers import FULL, load, problems, read_all, run_cli, write

BASE = """\
name: demo
ignore: ["*.csv"]
environment: {A: 1, B: 2}
params: [{name: level, default: 1}]
build: {packages: [git], inherit: [pip]}
jobs:
- name: load
  source: load.py
  help: Load
- name: train
  source: train.py
  help: Train
  mapped: [data/]
  args: [{name: day, choices: [mon, tue]}]
  params:
  - {name: rate, alt: r, default: 0.1, help: Rate}
  - {name: size, default: 3}
  environment: {C: 3}
components:
  repository:
    local: ../store
    artifacts: [{name: model, file: m.pkl}, {name: table, file: t.csv}]
  unknown: {list: [1, 2], named: [{name: a, x: 1, y: 2}], deep: {below: {p: 1, q: 2}}}
"""


def merged(folder: Path, over: str, base: str = BASE, env: str = "dev") -> Project:
    write(folder, f"merge: true\n{over}", f"skelebot-{env}.yaml")
    return load(folder, base, env=env)


def section(project: Project, name: str) -> Any:
    return plain(dict(project.components)[name])


def plain(node: yaml.Node) -> Any:
    """A node as values, with what `<<` brings."""
    if isinstance(node, yaml.MappingNode):
        return {name.value: plain(below) for name, below in nodes.items(node, "", Report())}
    return [plain(each) for each in node.value] if isinstance(node, yaml.SequenceNode) else node.value


# --- merging ---


def test_mappings_merge_key_by_key(tmp_path: Path) -> None:
    project = merged(tmp_path, "environment: {B: two, Z: 9}\nbuild: {packages: [curl]}\n")
    assert project.environment == (("A", "1"), ("B", "two"), ("Z", "9"))
    assert (project.build.packages, project.build.inherit) == (("curl",), ("pip",))


def test_resources_and_values_for_a_rehearsal_merge_key_by_key(tmp_path: Path) -> None:
    keys = "resources: {cpus: 2, memory: 4g}\n"
    job = "jobs:\n- {name: a, source: x y, help: h, args: [{name: n}, {name: m}], rehearse: {n: 1, m: 2}"
    base = f"name: demo\n{keys}{job}, needs: [b], inputs: [x]}}\n- {{name: b, source: y z, help: h}}\n"
    over = "resources: {memory: 8g}\njobs: [{name: a, rehearse: {m: 3}, inputs: [y], needs: []}]\n"
    project = merged(tmp_path, over, base)
    assert project.resources
    assert (project.resources.cpus, project.resources.memory) == ("2", "8g")
    a = project.jobs[0]
    assert (a.rehearse, a.inputs, a.needs) == ((("n", "1"), ("m", "3")), ("y",), ())


def test_named_things_merge_by_name_at_their_place_and_new_ones_come_last(tmp_path: Path) -> None:
    over = """\
jobs:
- {name: score, source: score.py, help: Score}
- name: train
  help: Train on little
  params: [{name: new}, {name: size, default: 30}]
  args: [{name: day, choices: [wed]}]
- {name: load, mode: d}
params: [{name: level, help: Level}]
"""
    project = merged(tmp_path, over)
    load_, train, score = project.jobs
    assert (load_.name, load_.source, load_.mode, score.name) == ("load", "load.py", "d", "score")
    assert (train.source, train.help, train.mappings) == ("train.py", "Train on little", ("data/",))
    assert [(p.name, p.alt, p.default) for p in train.params] == [
        ("rate", "r", "0.1"),
        ("size", None, "30"),
        ("new", None, None),
    ]
    assert [(a.name, a.choices) for a in train.args] == [("day", ("wed",))]
    assert [(p.name, p.default, p.help) for p in project.params] == [("level", "1", "Level")]


def test_other_lists_and_values_replace(tmp_path: Path) -> None:
    project = merged(tmp_path, "ignores: [x]\nname: other\njobs: [{name: train, mappings: [b/]}]\n")
    assert (project.name, project.ignores, project.jobs[1].mappings) == ("other", ("x",), ("b/",))


def test_the_settings_of_components_merge_without_a_schema(tmp_path: Path) -> None:
    over = """\
components:
  repository: {artifacts: [{name: table, file: t.parquet}, {name: third, file: c}]}
  unknown: {list: [3], named: [{name: b}, {name: a, x: 5}], deep: {below: {q: 5}}}
"""
    project = merged(tmp_path, over)
    assert section(project, "repository") == {
        "local": "../store",
        "artifacts": [
            {"name": "model", "file": "m.pkl"},
            {"name": "table", "file": "t.parquet"},
            {"name": "third", "file": "c"},
        ],
    }
    assert section(project, "unknown") == {
        "list": ["3"],
        "named": [{"name": "a", "x": "5", "y": "2"}, {"name": "b"}],
        "deep": {"below": {"p": "1", "q": "5"}},
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[{name: a, x: 1}, {name: a}]", "[{name: a, y: 2}]"),
        ("[{name: a, x: 1}]", "[{name: a}, {name: a}]"),
        ("[{name: a, x: 1}]", "[{name: a}, {y: 1}]"),
        ("[{name: a, x: 1}]", "[{name: }]"),
        ("[{name: a, x: 1}]", "{name: a}"),
        ("{a: 1}", "[{name: a}]"),
        ("{a: 1}", "text"),
    ],
)
def test_an_unknown_list_without_names_of_its_own_is_replaced(
    tmp_path: Path, before: str, after: str
) -> None:
    base = f"name: demo\ncomponents: {{unknown: {{it: {before}}}}}\n"
    found = section(merged(tmp_path, f"components: {{unknown: {{it: {after}}}}}\n", base), "unknown")
    expected = yaml.compose(after)
    assert expected
    assert found == {"it": plain(expected)}


def test_an_empty_value_means_what_it_means_in_any_file(tmp_path: Path) -> None:
    """A key is not given, a variable is the caller's own, and a choice between two can be changed."""
    over = """\
environment: {A: }
build:
jobs: [{name: train, params: , args: ~}]
components: {repository: {local: ~, s3: {bucket: b}}}
"""
    project = merged(tmp_path, over)
    assert project.environment == (("A", None), ("B", "2"))
    assert project.build.packages == ()
    assert (project.jobs[1].params, project.jobs[1].args) == ((), ())
    assert merged(tmp_path, "jobs:\n").jobs == ()


def test_an_empty_list_of_named_things_adds_nothing(tmp_path: Path) -> None:
    assert [job.name for job in merged(tmp_path, "jobs: []\n").jobs] == ["load", "train"]


@pytest.mark.parametrize("spelling", ["ignore", "ignores"])
@pytest.mark.parametrize("in_base", ["ignore", "ignores"])
def test_former_spellings_are_the_same_key(tmp_path: Path, spelling: str, in_base: str) -> None:
    project = merged(tmp_path, f"{spelling}: [b]\n", f"name: demo\n{in_base}: [a]\n")
    assert project.ignores == ("b",)
    job = "jobs: [{{name: a, source: b, help: c, {}: [x/]}}]\n"
    base = "name: demo\n" + job.format({"ignore": "mapped", "ignores": "mappings"}[in_base])
    over = "jobs: [{{name: a, {}: [y/]}}]\n".format({"ignore": "mapped", "ignores": "mappings"}[spelling])
    assert merged(tmp_path, over, base).jobs[0].mappings == ("y/",)


@pytest.mark.parametrize("merge", ["merge: true\n", ""])
def test_both_spellings_in_one_file_stay_a_mistake(tmp_path: Path, merge: str) -> None:
    write(tmp_path, f"{merge}ignore: [a]\nignores: [b]\n", "skelebot-dev.yaml")
    (problem,) = problems(tmp_path, "name: demo\nignores: [c]\n", env="dev")
    assert problem.endswith("ignores: `ignores` is already given")
    write(tmp_path, f"{merge}ignores: [b]\n", "skelebot-dev.yaml")
    (problem,) = problems(tmp_path, "name: demo\nignores: [c]\nignore: [d]\n", env="dev")
    assert problem.endswith("`ignores` is already given")


def test_a_single_entry_merges_like_a_list_of_one(tmp_path: Path) -> None:
    base = "name: demo\njobs: {name: a, source: b, help: c}\n"
    jobs = merged(tmp_path, "jobs: {name: d, source: e, help: f}\n", base).jobs
    assert [job.name for job in jobs] == ["a", "d"]
    assert merged(tmp_path, "jobs: [{name: a, help: new}]\n", base).jobs[0].help == "new"


def test_yaml_merge_keys_and_aliases_are_resolved_first(tmp_path: Path) -> None:
    base = """\
name: demo
jobs:
- &a {name: a, source: a.py, help: A, environment: &env {X: 1, Y: 2}}
- {<<: *a, name: b}
environment: *env
"""
    over = """\
jobs: [{name: b, environment: &e {Y: 5}}]
environment: {<<: *e, Z: 6}
"""
    project = merged(tmp_path, over, base)
    assert project.environment == (("X", "1"), ("Y", "5"), ("Z", "6"))
    a, b = project.jobs
    assert (a.environment, b.environment) == ((("X", "1"), ("Y", "2")), (("X", "1"), ("Y", "5")))
    assert (b.source, b.help) == ("a.py", "A")


def test_exponential_aliases_are_merged_once(tmp_path: Path) -> None:
    def laughs(last: str) -> str:
        levels = [f"a0: &a0 {{x: {last}}}"]
        levels += [f"a{i}: &a{i} {{{', '.join(f'k{n}: *a{i - 1}' for n in range(9))}}}" for i in range(1, 30)]
        return "components:\n  unknown:\n    " + "\n    ".join(levels) + "\n"

    project = merged(tmp_path, laughs("two"), "name: demo\n" + laughs("one"))
    node: Any = dict(project.components)["unknown"]
    for key in ["a29", *["k8"] * 29, "x"]:
        node = next(below for name, below in nodes.items(node, "", Report()) if name.value == key)
    assert node.value == "two"
    assert read.env_files(str(tmp_path)) == set()


@pytest.mark.parametrize("merge", ["merge: false", "merge:", "gpu: true"])
def test_without_merge_a_key_replaces(tmp_path: Path, merge: str) -> None:
    write(tmp_path, f"{merge}\nparams: []\nenvironment: {{B: 3}}\n", "skelebot-dev.yaml")
    project = load(tmp_path, BASE, env="dev")
    assert (project.params, project.environment) == ((), (("B", "3"),))


# --- mistakes ---


def test_merge_is_a_key_of_environments_alone(tmp_path: Path) -> None:
    expected = (
        "skelebot.yaml:2:1: merge: only an environment's file can have it; move it to skelebot-ENV.yaml"
    )
    assert problems(tmp_path, "name: demo\nmerge: true\n") == [expected]
    write(tmp_path, "merge: true\n", "skelebot-dev.yaml")
    assert problems(tmp_path, "name: demo\nmerge: true\n", env="dev") == [expected]


@pytest.mark.parametrize("key", ["Merge", "mrege", "merges"])
def test_a_merge_with_a_typing_error_is_recognised(tmp_path: Path, key: str) -> None:
    write(tmp_path, f"{key}: true\n", "skelebot-dev.yaml")
    (problem,) = problems(tmp_path, "name: demo\n", env="dev")
    assert problem == f"skelebot-dev.yaml:1:1: {key}: unknown key; did you mean `merge`?"


def test_merge_is_true_or_false(tmp_path: Path) -> None:
    write(tmp_path, "gpu: no\nmerge: deep\n", "skelebot-dev.yaml")
    (problem,) = problems(tmp_path, "name: demo\n", env="dev")
    assert problem == "skelebot-dev.yaml:2:8: merge: expected true or false, found the text 'deep'"


WRONG = """\
gpu: 3
jobs:
- name: train
  nosuch: 1
  timeout: soon
  params:
  - {name: rate, choices: [1]}
  - {name: size, alt: r}
- name: load
  params: [{name: c, choices: [a], default: b}]
- {name: trian, mode: d}
"""


def test_a_mistake_has_the_place_of_the_file_it_is_in(tmp_path: Path) -> None:
    write(tmp_path, f"merge: true\n{WRONG}", "skelebot-dev.yaml")
    found = [p.split(": ", 2) for p in problems(tmp_path, BASE, env="dev")]
    assert [(where, path) for where, path, _ in found] == [
        ("skelebot-dev.yaml:2:6", "gpu"),
        ("skelebot-dev.yaml:5:3", "jobs[1].nosuch"),
        ("skelebot-dev.yaml:6:12", "jobs[1].timeout"),
        ("skelebot-dev.yaml:9:23", "jobs[1].params[1].alt"),
        ("skelebot-dev.yaml:11:12", "jobs[0].params[0].default"),
        ("skelebot-dev.yaml:12:3", "jobs[2]"),
        ("skelebot-dev.yaml:12:3", "jobs[2]"),
        ("skelebot.yaml:16:5", "jobs[1].params[0].default"),
    ]


def test_a_missing_script_is_reported_where_the_source_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "merge: true\njobs:\n- name: load\n  source: gone.py\n", "skelebot-dev.yaml")
    write(tmp_path, BASE)
    monkeypatch.chdir(tmp_path)
    assert run_cli(["-e", "dev", "-n", "load"]) == 2
    err = capsys.readouterr().err
    assert "ERROR | skelebot-dev.yaml:4:11: jobs[0].source: there is no file gone.py" in err


@pytest.mark.parametrize("merge", ["merge: true\n", ""])
def test_one_name_twice_in_a_list_stays_a_mistake(tmp_path: Path, merge: str) -> None:
    over = "jobs:\n- {name: a, source: b, help: c}\n- {name: a, source: b, help: c}\n"
    write(tmp_path, f"{merge}{over}", "skelebot-dev.yaml")
    (problem,) = problems(tmp_path, "name: demo\n" + over, env="dev")[-1:]
    assert "there is already a" in problem
    assert any(p.startswith("skelebot-dev.yaml:") for p in problems(tmp_path, "name: demo\n", env="dev"))
    if merge:
        base = "name: demo\njobs: [{name: a, source: b, help: c}]\n"
        (problem,) = problems(tmp_path, base, env="dev")
        assert problem == "skelebot-dev.yaml:4:10: jobs: there is already an entry named 'a'"


@pytest.mark.parametrize(
    "over", ["- a\n", "text\n", "3\n", "{jobs: text, merge: true}", "{jobs: [1], merge: true}"]
)
def test_a_wrong_kind_of_value_is_reported(tmp_path: Path, over: str) -> None:
    write(tmp_path, over, "skelebot-dev.yaml")
    found = problems(tmp_path, BASE, env="dev")
    assert found
    assert all(p.startswith("skelebot-dev.yaml:1:") for p in found)


# --- variables that get lost ---

JOBS = """\
name: demo
environment: {ROWS: 1, DAY: 2, OWN: , UNUSED: 4}
params: [{name: all, default: $DAY}]
jobs:
- {name: quiet, source: echo \\$ROWS $ROW $ROWS_2, help: h}
- {name: show, source: 'echo "${ROWS} $OWN"', help: h}
- {name: script, source: a.py, help: h, params: [{name: own, default: $OWN}]}
"""


def lost(folder: Path, over: str, base: str = JOBS) -> list[str]:
    write(folder, over, "skelebot-dev.yaml")
    write(folder, base)
    project, report = read_all(folder, "dev")
    assert project
    report.raise_problems()
    return list(report.warnings)


def test_variables_that_are_replaced_away_and_referred_to_are_a_warning(tmp_path: Path) -> None:
    text = "is no longer set, but {} refers to it; repeat it here, or add `merge: true`"
    assert lost(tmp_path, "gpu: no\nenvironment: {X: 1}\n") == [
        f"skelebot-dev.yaml:2:1: environment: ROWS {text.format('show')}",
        f"skelebot-dev.yaml:2:1: environment: DAY {text.format('script')}",
        f"skelebot-dev.yaml:2:1: environment: OWN {text.format('show')}",
    ]


def test_a_validation_refers_to_a_variable_as_a_source_does(tmp_path: Path) -> None:
    base = (
        "name: demo\nenvironment: {TOKEN: 1}\n"
        "jobs: [{name: a, source: a.py, help: h, validate: 'test -n $TOKEN'}]\n"
    )
    (warning,) = lost(tmp_path, "environment: {X: 1}\n", base)
    assert "TOKEN is no longer set, but a refers to it" in warning


@pytest.mark.parametrize(
    "over",
    [
        "gpu: true\n",
        "environment: {ROWS: , DAY: , OWN: }\n",
        "environment: {X: 1}\nmerge: true\n",
        "environment: {X: 1}\nenvFile: .env\n",
        "environment: {X: 1}\ndotenv: true\n",
        "environment: {X: 1}\njobs: []\nparams: []\n",
        "environment:\nmerge: true\n",
        "environment: {DAY: 3}\njobs: [{name: a, source: 'echo $ROWS', help: h, envFile: a}]\n",
        "environment: {DAY: 3}\njobs: [{name: a, source: 'echo $ROWS', help: h, environment: {ROWS: 1}}]\n",
        "environment: {DAY: 3}\nparams: []\n"
        "jobs: [{name: a, source: a.py, help: h, params: [{name: own, default: $OWN}]}]\n",
    ],
)
def test_variables_that_nobody_misses_are_no_warning(tmp_path: Path, over: str) -> None:
    assert lost(tmp_path, over) == []


@pytest.mark.parametrize("value", ["", "[a]", "text"])
def test_an_environment_that_is_none_is_no_failure(tmp_path: Path, value: str) -> None:
    write(tmp_path, f"environment: {value}\n", "skelebot-dev.yaml")
    write(tmp_path, JOBS)
    read_all(tmp_path, "dev")
    write(tmp_path, "environment: {A: 1}\n", "skelebot-dev.yaml")
    write(tmp_path, f"name: demo\nenvironment: {value}\n")
    read_all(tmp_path, "dev")


# --- properties ---

WORDS = st.sampled_from(["a", "b", "1", "010", "~", "yes", "$X"])
NAMES = st.sampled_from(["a", "b", "c"])
PARAMS = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"default": WORDS, "help": WORDS}),
    max_size=3,
    unique_by=lambda each: str(each["name"]),
)
JOBS_OF = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES},
        optional={"source": WORDS, "mappings": st.lists(WORDS, max_size=2), "params": PARAMS}
        | {"environment": st.dictionaries(NAMES, WORDS, max_size=3)},
    ),
    max_size=3,
    unique_by=lambda each: str(each["name"]),
)
ANYTHING = st.recursive(
    WORDS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(NAMES, inside, max_size=3) | PARAMS,
    max_leaves=8,
)
FILES = st.fixed_dictionaries(
    {},
    optional={"name": WORDS, "jobs": JOBS_OF, "params": PARAMS, "components": ANYTHING}
    | {"environment": st.dictionaries(NAMES, WORDS, max_size=3), "ignores": st.lists(WORDS, max_size=2)},
)
stable = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)


def node_of(value: Any, name: str = "skelebot.yaml") -> yaml.Node:
    node = nodes.parse(name, yaml.safe_dump(value, sort_keys=False).encode(), Report())
    assert node is not None
    return node


def merge(base: yaml.Node, over: Any) -> yaml.Node:
    report = Report()
    found = overlay.overlaid(base, node_of({**over, "merge": True}, "skelebot-dev.yaml"), report)
    assert not report.problems
    return found


@stable
@given(FILES)
def test_an_empty_environment_changes_nothing(base: Any) -> None:
    assert yaml.serialize(merge(node_of(base), {})) == yaml.serialize(node_of(base))


@stable
@given(FILES, FILES)
def test_merging_leaves_the_base_as_it_is(base: Any, over: Any) -> None:
    node = node_of(base)
    merge(node, over)
    assert yaml.serialize(node) == yaml.serialize(node_of(base))


@stable
@given(FILES, FILES)
def test_merging_twice_is_merging_once(base: Any, over: Any) -> None:
    once = merge(node_of(base), over)
    assert plain(merge(once, over)) == plain(once)


@stable
@given(FILES, FILES)
def test_what_the_environment_says_holds_and_the_rest_stays_in_its_order(base: Any, over: Any) -> None:
    def check(found: Any, base: Any, over: Any) -> None:
        if isinstance(over, dict) and isinstance(base, dict):
            assert list(found) == [*base, *(key for key in over if key not in base)]
            for key, value in found.items():
                one_of_both(value, base, over, key)
        elif are_named(base) and are_named(over):
            check(*({each["name"]: each for each in entries} for entries in (found, base, over)))
        else:
            assert found == over

    def one_of_both(value: Any, base: Any, over: Any, key: Any) -> None:
        if key in base and key in over:
            check(value, base[key], over[key])
        else:
            assert value == (over[key] if key in over else base[key])

    def are_named(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(each, dict) and "name" in each for each in value)

    check(plain(merge(node_of(base), over)), plain(node_of(base)), plain(node_of(over)))


@stable
@given(FILES, FILES)
def test_each_value_keeps_its_place(base: Any, over: Any) -> None:
    """The lines of a value in the result say the file that has it there."""
    texts = {"skelebot.yaml": base, "skelebot-dev.yaml": {**over, "merge": True}}
    lines = {name: yaml.safe_dump(value, sort_keys=False).splitlines() for name, value in texts.items()}
    waiting = [merge(node_of(base), over)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.ScalarNode):
            mark = node.start_mark
            assert lines[mark.name][mark.line][mark.column :].strip("'\"").startswith(node.value)
        else:
            waiting += list(nodes._children(node))


# --- every form of a file ---


def test_every_form_of_a_file_is_the_same_with_an_empty_environment(tmp_path: Path) -> None:
    from .test_json_schema import LOADS

    for text in LOADS:
        write(tmp_path, "merge: true\n", "skelebot-dev.yaml")
        alone, over = load(tmp_path, text), load(tmp_path, text, env="dev")
        assert replace(over, env=None, components=()) == replace(alone, components=())
        assert over.places == alone.places


def test_a_file_merged_with_itself_is_itself(tmp_path: Path) -> None:
    from .test_json_schema import LOADS

    for text in LOADS:
        write(tmp_path, f"merge: true\n{text}", "skelebot-dev.yaml")
        alone = yaml.safe_load(printed(tmp_path, text, None))
        assert yaml.safe_load(printed(tmp_path, text, "dev")) == alone


def printed(folder: Path, text: str, env: str | None) -> str:
    from skelebot.components.environments import _record

    return yaml.serialize(_record(load(folder, text, env)), Dumper=yaml.SafeDumper)


def test_the_full_project_merges(tmp_path: Path) -> None:
    project = merged(tmp_path, "jobs: [{name: train, params: [{name: rate, default: 2.0}]}]\n", FULL)
    assert project.jobs[0].params[0].default == "2.0"
    assert project.jobs[0].params[0].alt == "r"
    assert catalog.active(project, Report())
    assert os.path.basename(project.root) == tmp_path.name
