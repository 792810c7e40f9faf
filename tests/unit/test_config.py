"""Finding and reading a project: its root, its environments, and what holds between its parts."""

import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from skelebot.components.jobs import Jobs
from skelebot.errors import ConfigError, UsageError
from skelebot.project import checks, read
from skelebot.project.nodes import Report, in_order

from .helpers import load, problems, read_all, run_cli, warnings, write

JOB = "  - name: {name}\n    source: a.py\n    help: A\n"


def jobs(*names: str) -> str:
    return "name: demo\njobs:\n" + "".join(JOB.format(name=name) for name in names)


def with_params(*params: str, root: str = "") -> str:
    lines = "".join(f"      - {{{param}}}\n" for param in params)
    return (f"{root}\n" if root else "") + jobs("a") + "    params:\n" + lines


# --- the root ---


def test_the_root_is_found_from_any_folder_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "name: demo\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert read.find_root() == str(tmp_path)


def test_the_nearest_project_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "name: outer\n")
    write(tmp_path / "inner", "name: inner\n")
    monkeypatch.chdir(tmp_path / "inner")
    assert read.find_root() == str(tmp_path / "inner")


def test_outside_of_a_project_there_is_no_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read.find_root() is None


def test_a_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="no longer exists"):
        read.find_root()


@pytest.mark.parametrize("kind", ["a folder", "a dangling link"])
def test_a_configuration_that_cannot_be_read_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "skelebot.yaml"
    path.mkdir() if kind == "a folder" else path.symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"skelebot\.yaml cannot be read"):
        read.project(str(tmp_path), None)


# --- VERSION ---


@pytest.mark.parametrize(
    ("text", "version"), [("1.4.0\n", "1.4.0"), ("  1.10 \r\n", "1.10"), ("\n", None), (None, None)]
)
def test_version_is_the_text_of_its_file(tmp_path: Path, text: str | None, version: str | None) -> None:
    if text is not None:
        write(tmp_path, text, "VERSION")
    assert load(tmp_path, "name: demo\n").version == version


def test_a_version_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, "1.0\nLABEL evil=1\n", "VERSION")
    (problem,) = problems(tmp_path, "name: demo\n")
    assert problem.startswith("VERSION:1:1: expected one line")


# --- environments ---


def test_a_top_level_key_of_an_environment_replaces_the_whole(tmp_path: Path) -> None:
    write(tmp_path, "environment: {B: 2}\nports: ['2:2']\ngpu: true\n", "skelebot-dev.yaml")
    base = "name: demo\nenvironment: {A: 1}\nports: ['1:1', '3:3']\nignores: [x]\n"
    project = load(tmp_path, base, env="dev")
    assert project.environment == (("B", "2"),)
    assert project.ports == ("2:2",)
    assert project.gpu is True
    assert (project.name, project.ignores) == ("demo", ("x",))
    assert (project.env, project.image) == ("dev", "demo-dev")


def test_a_null_in_an_environment_takes_a_key_away(tmp_path: Path) -> None:
    write(tmp_path, "timezone:\n", "skelebot-dev.yaml")
    assert load(tmp_path, "name: demo\ntimezone: Europe/Berlin\n", env="dev").timezone is None


def test_an_environment_leaves_the_base_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, "gpu: true\n", "skelebot-dev.yaml")
    project = load(tmp_path, "name: demo\n")
    assert (project.gpu, project.env, project.image) == (False, None, "demo")


def test_mistakes_of_an_environment_are_told_with_its_file(tmp_path: Path) -> None:
    write(tmp_path, "name: demo\ngpu: 3\nnam: x\n", "skelebot-dev.yaml")
    found = problems(tmp_path, "name: demo\nlanguage: C\n", env="dev")
    assert [p.split(" ")[0] for p in found] == [
        "skelebot-dev.yaml:2:6:",
        "skelebot-dev.yaml:3:1:",
        "skelebot.yaml:2:11:",
    ]


def test_both_files_are_read_before_either_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "", "skelebot-dev.yaml")
    found = problems(tmp_path, "name: [\n", env="dev")
    assert [p.split(":")[0] for p in found] == ["skelebot-dev.yaml", "skelebot.yaml"]


@pytest.mark.parametrize(
    ("env", "hint"),
    [("dve", "did you mean `dev`?"), ("zzz", "known: dev, prod"), ("../d", "unknown environment '../d'")],
)
def test_an_unknown_environment_is_told_with_the_nearest(tmp_path: Path, env: str, hint: str) -> None:
    write(tmp_path, "{}\n", "skelebot-dev.yaml")
    write(tmp_path, "{}\n", "skelebot-prod.yaml")
    with pytest.raises(UsageError) as caught:
        load(tmp_path, "name: demo\n", env=env)
    assert caught.value.code == 2
    assert hint in str(caught.value)


def test_an_environment_without_any_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"unknown environment 'dev'; there is no skelebot-\*\.yaml in the project"
    ):
        load(tmp_path, "name: demo\n", env="dev")


def test_environments_are_the_names_of_the_files(tmp_path: Path) -> None:
    for name in ("skelebot-prod.yaml", "skelebot-a-b.yaml", "skelebot.yaml", "skelebot-x.yml"):
        write(tmp_path, "", name)
    assert read.environments(str(tmp_path)) == ["a-b", "prod"]


# --- jobs ---


def test_two_jobs_of_one_name_are_told(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, jobs("a", "b", "a"))
    assert problem.startswith("skelebot.yaml:9:5: jobs[2].name: there is already a job named 'a'")


def test_two_arguments_of_one_name_are_told(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, jobs("a") + "    args: [{name: x}, {name: y}, {name: x}]\n")
    assert problem.startswith(
        "skelebot.yaml:6:34: jobs[0].args[2].name: the job already has a value named 'x'"
    )


def test_an_argument_named_like_a_param_is_told(tmp_path: Path) -> None:
    text = jobs("a") + "    args: [{name: x}]\n    params: [{name: x}]\n"
    (problem,) = problems(tmp_path, text)
    assert "'x'" in problem


@pytest.mark.parametrize(
    ("text", "start", "hint"),
    [
        (jobs("train") + "primaryJob: trian\n", "skelebot.yaml:6:", "did you mean `train`?"),
        ("name: demo\nprimaryJob: train\n", "skelebot.yaml:2:", "there is no job named 'train'"),
        ("name: demo\n\ntimezone: Europe/Berln\n", "skelebot.yaml:3:", "did you mean `Europe/Berlin`?"),
        ("name: demo\n\ntimezone: Mars/North\n", "skelebot.yaml:3:", "such as Europe/Berlin"),
        ("name: demo\n\ntimezone: ../../etc/passwd\n", "skelebot.yaml:3:", "such as Europe/Berlin"),
        ("name: demo\n\ntimezone: /etc/localtime\n", "skelebot.yaml:3:", "such as Europe/Berlin"),
    ],
)
def test_a_primary_job_and_a_timezone_must_be_known(tmp_path: Path, text: str, start: str, hint: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert hint in problem
    assert problem.split(": ")[1] in ("primaryJob", "timezone")
    assert problem.startswith(start)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1"])
def test_a_known_timezone_loads(tmp_path: Path, zone: str) -> None:
    assert load(tmp_path, f"name: demo\ntimezone: {zone}\n").timezone == zone


def test_a_primary_job_with_arguments_as_cmd_is_a_warning(tmp_path: Path) -> None:
    text = jobs("a") + "    args: [{name: x}]\nprimaryJob: a\n"
    (warning,) = warnings(tmp_path, text)
    assert warning.startswith("skelebot.yaml:3:5: jobs[0].args: the primary job cannot take arguments as CMD")
    assert warning.endswith("set primaryExe: ENTRYPOINT; `prime` and `publish` fail until then")
    assert warnings(tmp_path, text + "primaryExe: ENTRYPOINT\n") == []


@pytest.mark.parametrize("command", ["prime", "publish"])
@pytest.mark.parametrize(
    "job", ["    args: [{name: x}]\n", "    params: [{name: x, secret: true, default: hunter2}]\n"]
)
def test_an_image_that_cannot_run_its_primary_job_does_not_leave_the_machine(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    job: str,
) -> None:
    text = "primaryJob: a\ncomponents: {registry: {host: localhost, user: me}}\n"
    write(tmp_path, jobs("a") + job + text)
    monkeypatch.chdir(tmp_path)
    assert run_cli([command]) == 2
    warned, failed = capsys.readouterr().err.splitlines()
    problem = failed.removeprefix("ERROR | ")
    assert warned == f"WARN  | {problem}; `prime` and `publish` fail until then"


# --- flags ---


@pytest.mark.parametrize(
    ("params", "flag", "index"),
    [
        (("name: help",), "--help", 0),
        (("name: h",), "-h", 0),
        (("name: x, alt: h",), "-h", 0),
        (("name: x, alt: help",), "--help", 0),
        (("name: rate", "name: rate"), "--rate", 1),
        (("name: rate, alt: r", "name: rows, alt: r"), "-r", 1),
        (("name: rate", "name: x, alt: rate"), "--rate", 1),
        (("name: x, alt: rate", "name: rate"), "--rate", 1),
        (("name: all, accepts: boolean, default: true", "name: no-all"), "--no-all", 1),
        (("name: no-all", "name: all, accepts: boolean, default: true"), "--no-all", 1),
        (("name: a, alt: a, accepts: boolean, default: true", "name: no-a"), "--no-a", 1),
    ],
)
def test_two_options_that_claim_one_flag_are_told(
    tmp_path: Path, params: tuple[str, ...], flag: str, index: int
) -> None:
    (problem,) = problems(tmp_path, with_params(*params))
    assert problem.startswith(
        f"skelebot.yaml:{7 + index}:9: jobs[0].params[{index}]: {flag} already belongs to"
    )


@pytest.mark.parametrize("params", [("name: a", "name: A"), ("name: no-x", "name: x"), ("name: x, alt: x",)])
def test_different_flags_do_not_clash(tmp_path: Path, params: tuple[str, ...]) -> None:
    assert problems(tmp_path, with_params(*params)) == []


def test_a_clash_with_a_param_of_the_root_is_told_at_the_jobs_own(tmp_path: Path) -> None:
    text = with_params("name: rows, alt: r", root="params: [{name: rate, alt: r}]")
    (problem,) = problems(tmp_path, text)
    assert problem.startswith("skelebot.yaml:8:9: jobs[0].params[0]: -r already belongs to 'rate'")


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_a_clash_among_the_roots_params_is_told_once(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = "params:\n  - {name: rate, alt: r}\n  - {name: rows, alt: r}\n"
    text = "name: demo\n" + root + (jobs(*names).partition("\n")[2] if names else "")
    (problem,) = problems(tmp_path, text)
    assert problem.startswith("skelebot.yaml:4:5: params[1]: -r already belongs to 'rate'")


def test_a_jobs_param_hides_one_of_the_root_and_its_flags(tmp_path: Path) -> None:
    text = with_params("name: rate, alt: f", "name: rows, alt: r", root="params: [{name: rate, alt: r}]")
    assert problems(tmp_path, text) == []


def test_a_command_line_has_no_params_of_the_root_to_clash_with(tmp_path: Path) -> None:
    text = with_params("name: rows, alt: r", root="params: [{name: rate, alt: r}]")
    assert problems(tmp_path, text.replace("source: a.py", "source: echo")) == []


# --- defaults ---


@pytest.mark.parametrize(
    ("param", "path", "expected"),
    [
        ("name: x, default: c, choices: [a, b]", "default", "'c' is not among the choices: a, b"),
        ("name: x, default: 1, choices: [1.0]", "default", "'1' is not among the choices: 1.0"),
        ("name: x, default: '', choices: [a]", "default", "'' is not among the choices: a"),
        ("name: x, accepts: list, default: [a, c], choices: [a, b]", "default", "'c' is not among"),
        ("name: x, accepts: list, default: c, choices: [a, b]", "default", "'c' is not among"),
        ("name: x, default: [a, b]", "default", "a list of values needs `accepts: list`"),
        ("name: x, accepts: boolean, default: maybe", "default", "expected true or false for a boolean"),
        ("name: x, accepts: boolean, choices: [a]", "choices", "a boolean takes no value to choose"),
    ],
)
@pytest.mark.parametrize("level", ["job", "root"])
def test_a_default_that_cannot_be_is_told(
    tmp_path: Path, param: str, path: str, expected: str, level: str
) -> None:
    text = with_params(param) if level == "job" else f"name: demo\nparams:\n\n\n\n\n  - {{{param}}}\n"
    (problem,) = problems(tmp_path, text)
    where = "jobs[0].params[0]" if level == "job" else "params[0]"
    assert problem.startswith("skelebot.yaml:7:")
    assert f" {where}.{path}: " in problem
    assert expected in problem


@pytest.mark.parametrize(
    "param",
    [
        "name: x, default: a, choices: [a, b]",
        "name: x, default: 010, choices: [010]",
        "name: x, default: $X, choices: [a, b]",
        "name: x, default: '${X}', choices: [a, b]",
        "name: x, default: null, choices: [a, b]",
        "name: x, accepts: list, default: [a, b], choices: [a, b]",
    ],
)
def test_a_default_that_can_be_loads(tmp_path: Path, param: str) -> None:
    assert problems(tmp_path, with_params(param)) == []


@pytest.mark.parametrize("text", ["true", "True", "yes", "on", "false", "No", "OFF"])
def test_the_default_of_a_boolean_is_any_boolean_of_yaml(tmp_path: Path, text: str) -> None:
    project = load(tmp_path, with_params(f"name: x, accepts: boolean, default: {text}"))
    off = project.jobs[0].params[0].off
    assert off == ("--no-x" if text.lower() in ("true", "yes", "on") else None)


@pytest.mark.parametrize(
    "keys",
    [
        "default: hunter2, choices: [a]",
        "default: [hunter2], choices: [a], accepts: list",
        "default: hunter2, accepts: boolean",
        "default: [hunter2, hunter2], accepts: boolean",
        "default: [hunter2]",
        "default: {hunter2: hunter2}",
        "default: [[hunter2]], accepts: list",
    ],
)
def test_the_default_of_a_secret_is_in_no_message(tmp_path: Path, keys: str) -> None:
    (problem,) = problems(tmp_path, with_params(f"name: x, secret: true, {keys}"))
    assert ".default: " in problem or ".default[0]" in problem
    assert "hunter2" not in problem


# --- components ---


def test_an_unknown_component_is_a_warning(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, "name: demo\ncomponents:\n  prots: {a: [1]}\n")
    assert warning.startswith("skelebot.yaml:3:10: components.prots: unknown component")
    assert "did you mean `ports`?" in warning


# --- what the user sees ---


def test_mistakes_end_with_code_2_and_a_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "name: demo\ngpu: 3\nlanguage: C\n")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["-h"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(" | ")[0] for line in err.splitlines()] == ["ERROR", "ERROR"]


@pytest.mark.parametrize("words", [["-e", "prod", "-h"], ["-eprod", "-h"], ["a", "+", "-e", "prod", "a"]])
def test_an_unknown_environment_ends_with_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    write(tmp_path, jobs("a"))
    write(tmp_path, "", "a.py")
    monkeypatch.chdir(tmp_path)
    assert run_cli(words) == 2
    assert capsys.readouterr().err.startswith("ERROR | unknown environment 'prod'")


def test_a_source_that_is_not_there_does_not_keep_help_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, jobs("a"))
    monkeypatch.chdir(tmp_path)
    assert run_cli(["-h"]) == 0
    assert run_cli(["a", "-h"]) == 0
    assert run_cli(["--dry-run", "a"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ERROR | skelebot.yaml:3:5: jobs[0].source: there is no file a.py")


@pytest.mark.parametrize(
    "broken", ["envFile: prod.env\njobs: [\n", "envFile: prod.env\n\xff", "{a: &a [*a]}"]
)
def test_a_file_that_cannot_tell_its_env_files_is_told(tmp_path: Path, broken: str) -> None:
    write(tmp_path, "name: demo\n")
    (tmp_path / "skelebot-prod.yaml").write_bytes(broken.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"^skelebot-prod\.yaml:\d+:\d+: .*envFile"):
        read.env_files(str(tmp_path))


@pytest.mark.parametrize("nothing", ["", "\n \n", "# envFile: a\n\n  # b\n", "\ufeff# a\n"])
def test_a_file_that_says_nothing_has_no_env_file(tmp_path: Path, nothing: str) -> None:
    write(tmp_path, "name: demo\nenvFile: .env\n")
    write(tmp_path, nothing, "skelebot-prod.yaml")
    assert read.env_files(str(tmp_path)) == {".env"}


def test_a_value_forges_no_line_of_the_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 'name: demo\n"a\\nERROR | b\\e[31m": 1\n')
    monkeypatch.chdir(tmp_path)
    assert run_cli([]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"descriptoin{i}: 1" for i in range(20_000)),
        "jobs:\n" + "\n".join(f"- {{name: a{i}, source: b, hlp: c}}" for i in range(20_000)),
        "ports:\n" + "\n".join(f"- a{i}" for i in range(20_000)),
        "jobs:\n" + "\n".join(f"- {{name: a{i}, source: b, mode: x{i}}}" for i in range(20_000)),
        "params:\n" + "\n".join("- {name: same}" for _ in range(20_000)),
        f"params: [{{name: a, accepts: list, choices: [x], default: {[*range(20_000)]}}}]",
    ],
    ids=["keys", "jobs", "ports", "choices", "params", "defaults"],
)
def test_of_very_many_problems_the_first_hundred_and_the_count_are_reported(
    tmp_path: Path, text: str
) -> None:
    found = problems(tmp_path, f"name: demo\n{text}\n")
    assert len(found) == 101
    assert re.fullmatch(r"there are \d\d,\d{3} more; fix these first", found[-1])
    assert re.match(r"skelebot\.yaml:[234]:", found[0])


def test_of_very_many_warnings_the_first_hundred_and_the_count_are_reported(tmp_path: Path) -> None:
    write(tmp_path, "name: demo\ncomponents:\n" + "\n".join(f"  a{i}: 1" for i in range(20_000)))
    found = in_order(read_all(tmp_path)[1].warnings)
    assert (len(found), found[-1]) == (101, "there are 19,900 more; fix these first")


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", ["skelebot.yaml", "skelebot-dev.yaml", "VERSION"])
def test_what_is_not_an_ordinary_file_is_not_read(
    tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, jobs("a"))
    path = tmp_path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["-e", "dev", "-h"] if "dev" in name else ["-h"]) == 2
    assert capsys.readouterr().err == f"ERROR | {name} cannot be read: is not an ordinary file\n"


def test_hints_end_where_no_more_problems_are_shown() -> None:
    report = Report()
    assert report.hint("nme", ["name"]) == "; did you mean `name`?"
    report.problems |= {str(number): None for number in range(101)}
    assert report.hint("nme", ["name"]) == ""


def test_the_work_grows_with_the_file_and_not_with_jobs_times_params(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")

    def work(count: int) -> int:
        """The calls that it takes to check a project and to list its commands."""
        params = "".join(f"  - {{name: p{i}, default: x}}\n" for i in range(count))
        own = "".join(
            f"  - {{name: j{i}, source: a.py, help: A, params: [name: own]}}\n" for i in range(count)
        )
        project, calls = load(tmp_path, f"name: demo\nparams:\n{params}jobs:\n{own}"), Counter[str]()
        sys.setprofile(lambda frame, event, arg: calls.update([event]))
        try:
            assert list(checks.problems(project)) == []
            assert len(list(Jobs().commands(project))) >= count
        finally:
            sys.setprofile(None)
        return calls["call"]

    assert work(80) < 3 * work(40)


# --- sweeps ---

SWEPT = """\
name: demo
jobs:
- {name: load, source: load.py, help: h, params: [{name: rows, type: int, default: 1}]}
- name: train
  source: train.py
  help: h
  needs: [load]
  params: [{name: rate, type: float, max: 1}, {name: key, secret: true}]
sweeps:
  s: %s
"""


def test_a_sweep_that_is_declared(tmp_path: Path) -> None:
    text = SWEPT % "{chain: train, values: {rate: [0.1, 1], load.rows: 1..3, train.rate2: x}}"
    text = text.replace(", train.rate2: x", "")
    ((name, declared),) = load(tmp_path, text).sweeps
    assert (name, declared.chain) == ("s", "train")
    assert declared.values == (("rate", ("0.1", "1")), ("load.rows", "1..3"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "{chain: trian, values: {rate: 1}}",
            "sweeps.s.chain: there is no job 'trian'; did you mean `train`?",
        ),
        ("{chain: 'train +', values: {rate: 1}}", "sweeps.s.chain: a job is missing before or after a `+`"),
        ("{chain: '-n train', values: {rate: 1}}", "sweeps.s.chain: begin with a job; options of Skelebot"),
        ("{chain: 'train \"a', values: {rate: 1}}", "sweeps.s.chain: no closing quotation"),
        ("{chain: train, values: {}}", "sweeps.s.values: expected at least one param with the values to try"),
        ("{chain: train, values: {rate: []}}", "sweeps.s.values.rate: expected a list of values, or a range"),
        ("{chain: train, values: {key: a}}", "sweeps.s.values.key: is a secret, and secrets are not stored"),
        ('{chain: train, values: {"r\\tate": []}}', "sweeps.s.values.'r\\tate': no job of the chain has"),
        (
            "{chain: train, values: {rats: 1}}",
            "sweeps.s.values.rats: no job of the chain has a param or an arg 'rats'",
        ),
        (
            "{chain: load, values: {rate: 1}}",
            "sweeps.s.values.rate: no job of the chain has a param or an arg 'rate'",
        ),
        (
            "{chain: train, values: {rate: [0.1, 2]}}",
            "sweeps.s.values.rate: expected a number of at most 1; f",
        ),
        ("{chain: train, values: {rate: 0.1..2:log}}", "sweeps.s.values.rate: 0.1..2:log is a range to draw"),
        (
            "{chain: train, values: {rate: 0.1..2:log}, trials: 3}",
            "sweeps.s.values.rate: expected a number of",
        ),
    ],
)
def test_a_sweep_that_could_not_be_queued(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems(tmp_path, SWEPT % text)
    assert found.startswith("skelebot.yaml:10:6: ")
    assert found.partition(": ")[2].startswith(problem)


@pytest.mark.parametrize("name", ["a.csv", "a=b"])
def test_a_name_that_would_be_taken_for_something_else(tmp_path: Path, name: str) -> None:
    text = (SWEPT % "{chain: train, values: {rate: 1}}").replace("  s:", f"  {name}:")
    (found,) = problems(tmp_path, text)
    assert "expected a name without `=` that does not end in .csv" in found


def test_a_sweep_of_an_environment_replaces_values(tmp_path: Path) -> None:
    write(tmp_path, SWEPT % "{chain: train, values: {rate: [0.1, 1], load.rows: 1..3}}")
    over = "merge: true\nsweeps: {s: {values: {rate: [0.5]}}, t: {chain: load, values: {rows: 2}}}\n"
    write(tmp_path, over, "skelebot-dev.yaml")
    found = dict(load(tmp_path, env="dev").sweeps)
    assert found["s"].values == (("rate", ("0.5",)), ("load.rows", "1..3"))
    assert found["t"].chain == "load"
