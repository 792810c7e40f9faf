"""From the arguments typed to the exit code; where streams matter, in a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from skelebot import catalog, help
from skelebot.project import read
from skelebot.project.nodes import Report

from .helpers import load, run_cli, write

ENV = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
ENV["PYTHONPATH"] = os.pathsep.join(sys.path)


def skelebot(folder: Path, *argv: str, **streams: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "skelebot", *argv], cwd=folder, env=ENV, **streams)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """A project whose job ends with exit code 7."""
    write(tmp_path, "name: demo\njobs: [{name: fail, source: exit 7, help: Fails}]\n")
    return tmp_path


def test_a_full_stderr_does_not_change_a_jobs_exit_code(failing: Path) -> None:
    with open("/dev/full", "wb") as full:
        assert skelebot(failing, "-n", "-V", "fail", stderr=full).wait(60) == 7


def test_a_stderr_that_nobody_reads_does_not_change_a_jobs_exit_code(failing: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert skelebot(failing, "-n", "-V", "fail", stderr=writer).wait(60) == 7
    finally:
        os.close(writer)


def test_a_closed_stderr_does_not_change_a_jobs_exit_code(failing: Path) -> None:
    command = f"exec 2>&-; exec {sys.executable} -m skelebot -n -V fail"
    assert subprocess.run(["bash", "-c", command], cwd=failing, env=ENV, check=False).returncode == 7


# --- what an argument may have meant ---


Capture = pytest.CaptureFixture[str]


@pytest.fixture
def error(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Callable[..., str]:
    """The one line that a wrong command line in a folder gives."""

    def run(folder: Path, *argv: str) -> str:
        monkeypatch.chdir(folder)
        assert run_cli([*argv]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("ERROR | ")
        return line.removeprefix("ERROR | ")

    return run


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["-n"], "-n goes before the job: skelebot -n fail"),
        (["-n", "x"], "-n goes before the job: skelebot -n fail"),
        (["-e", "prod"], "-e goes before the job: skelebot -e prod fail"),
        (["-eprod"], "-e goes before the job: skelebot -eprod fail"),
        (["--env=prod"], "--env goes before the job: skelebot --env=prod fail"),
        (["--env", "prod"], "--env goes before the job: skelebot --env prod fail"),
        (["--env"], "--env goes before the job: skelebot --env ENV fail"),
        (["-j"], "-j goes before the job: skelebot -j N fail"),
        (["-j", "2"], "-j goes before the job: skelebot -j 2 fail"),
        (["--dry-run"], "--dry-run goes before the job: skelebot --dry-run fail"),
        (["-d", "ssh://gpu", "x"], "-d goes before the job: skelebot -d ssh://gpu fail"),
        (["-x"], "fail: unknown option -x; usage: skelebot fail"),
        (["--native"], "--native goes before the job: skelebot --native fail"),
    ],
)
def test_an_option_after_the_job_is_told_its_place(
    failing: Path, error: Callable[..., str], argv: list[str], expected: str
) -> None:
    assert error(failing, "fail", *argv) == expected
    assert error(failing, "fail", "+", "fail", *argv) == expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--now"], "--now goes before the job: skelebot queue --now fail"),
        (["--name", "a"], "--name goes before the job: skelebot queue --name a fail"),
        (["--name=a"], "--name goes before the job: skelebot queue --name=a fail"),
        (["-n"], "-n goes before the job: skelebot -n queue fail"),
        (["--env", "prod"], "--env goes before the job: skelebot --env prod queue fail"),
        (["-x"], "fail: unknown option -x; usage: skelebot fail"),
    ],
)
def test_an_option_after_a_queued_job_is_told_its_place(
    failing: Path, error: Callable[..., str], argv: list[str], expected: str
) -> None:
    assert error(failing, "queue", "fail", *argv) == expected


@pytest.mark.parametrize("command", [("config",), ("queue",), ("queue", "--now")])
def test_an_option_after_a_command_is_told_its_place(
    failing: Path, error: Callable[..., str], command: tuple[str, ...]
) -> None:
    told = f"-e goes before the command: skelebot -e prod {command[0]}"
    assert error(failing, *command, "-e", "prod", "fail") == told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["shw", "1"], "runs: unexpected argument 'shw'; did you mean `show`?"),
        (["1"], "runs: unexpected argument '1'; known: best, "),
        (["--json", "show", "1"], "show goes before the options: skelebot runs show"),
    ],
)
def test_a_wrong_verb_names_the_right_one(
    failing: Path, error: Callable[..., str], words: list[str], expected: str
) -> None:
    assert error(failing, "runs", *words).startswith(expected)


def test_a_list_of_workers_does_not_hide_that_none_is_stopped(
    failing: Path, error: Callable[..., str]
) -> None:
    expected = "worker: --list and --stop do not go together; leave out one of them"
    assert error(failing, "worker", "--list", "--stop") == expected


@pytest.mark.parametrize("words", [("-h",), ("--help",), ("--now", "-h", "fail"), ("--name", "x", "--help")])
def test_the_help_of_queue_among_its_options(
    failing: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(failing)
    assert run_cli(["queue", *words]) == 0
    assert capsys.readouterr().out.startswith("usage: skelebot queue ")


@pytest.mark.parametrize("words", [("--name=",), ("--tag", "a", "--tag", "")])
def test_a_word_to_find_a_run_by_is_not_empty(
    failing: Path, error: Callable[..., str], words: tuple[str, ...]
) -> None:
    name = words[-1].strip("=") or words[-2]
    expected = f"queue: {name} is empty; write a word, or leave out the option"
    assert error(failing, "-n", "queue", *words, "fail") == expected


@pytest.mark.parametrize(
    ("word", "component"),
    [("push", "repository"), ("pull", "repository"), ("artifacts", "repository"), ("publish", "registry")],
)
def test_a_command_without_its_component_says_what_to_add(
    failing: Path, error: Callable[..., str], word: str, component: str
) -> None:
    line = error(failing, word)
    assert line.startswith(f"{word} needs components.{component}; add `{component}: ")
    write(failing, f"name: demo\ncomponents:\n  {line.split('`')[1]}\n")
    assert word in catalog.commands(load(failing), catalog.active(load(failing), Report()))
    assert Path(__file__).parents[2].joinpath(line.rpartition("see ")[2]).exists()


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("init", "`skelebot scaffold` creates a project"),
        ("list", "`skelebot -h` lists the jobs and commands"),
        ("version", "`skelebot --version` shows the version of Skelebot"),
        ("fali", "did you mean `fail`?"),
    ],
)
def test_an_unknown_command_names_the_right_one(
    failing: Path, tmp_path_factory: pytest.TempPathFactory, error: Callable[..., str], word: str, hint: str
) -> None:
    assert error(failing, word) == f"unknown command {word!r}; {hint}"
    outside = tmp_path_factory.mktemp("outside")
    if "did you mean" not in hint:
        assert error(outside, word) == f"unknown command {word!r}: {read.NO_PROJECT}; {hint}"


def test_outside_a_project_scaffold_is_named(tmp_path: Path, error: Callable[..., str]) -> None:
    assert error(tmp_path, "train").endswith(
        "; change into a project, or create one with `skelebot scaffold`"
    )
    assert error(tmp_path, "ps") == f"ps needs a project: {read.NO_PROJECT}; `skelebot scaffold` creates one"


# --- help ---


def output(capsys: Capture, *argv: str) -> str:
    assert run_cli([*argv]) == 0
    return capsys.readouterr().out


def test_outside_a_project_the_help_begins_with_scaffold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "\n\nthe project:\n  scaffold " in output(capsys, "-h").partition("experiments:")[0]


def test_help_of_a_job_however_it_is_asked_for(
    failing: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(failing)
    expected = output(capsys, "fail", "-h")
    assert expected.startswith("usage: skelebot fail\n\nFails [exit 7]")
    for argv in (["help", "fail"], ["-h", "fail"], ["--help", "fail"], ["-n", "help", "fail"]):
        assert output(capsys, *argv) == expected
    assert output(capsys, "help") == output(capsys, "-h")


def test_a_job_called_help_is_run(tmp_path: Path) -> None:
    write(tmp_path, "name: demo\njobs: [{name: help, source: exit 7, help: Fails}]\n")
    assert skelebot(tmp_path, "-n", "help").wait(60) == 7


def test_every_command_of_skelebot_stands_under_one_heading() -> None:
    grouped = [name for _, names in help.GROUPS for name in names]
    assert sorted(grouped) == sorted(catalog.names())


def test_help_lists_jobs_first_then_commands_by_their_groups(
    failing: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(failing)
    lines = output(capsys, "-h").splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        *(
            "jobs:",
            "pipelines:",
            "running jobs:",
            "experiments:",
            "images:",
            "notebooks:",
            "the project:",
            "Skelebot:",
        ),
        "options (before the command):",
    ]
    assert lines[lines.index("running jobs:") + 1].split()[0] == "ps"


@pytest.mark.parametrize("columns", [60, 80])
def test_help_in_a_pipe_is_as_wide_as_columns_says(
    failing: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, columns: int
) -> None:
    monkeypatch.chdir(failing)
    monkeypatch.setenv("COLUMNS", str(columns))
    widest = max(len(line) for line in output(capsys, "-h").splitlines() if line.startswith(" "))
    assert columns - 15 < widest <= columns


# --- a job with the name of a command ---


@pytest.mark.parametrize("name", sorted(catalog.names()))
def test_a_job_hides_the_command_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str
) -> None:
    write(tmp_path, f"name: demo\njobs: [{{name: {name}, source: exit 7, help: Fails}}]\n")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["-n", name]) == 7
    assert capsys.readouterr().err == ""
    text = output(capsys, "-h")
    assert f"The job {name} replaces Skelebot's command of the same name; rename the job to use that." in text
    assert text.count(f"\n  {name} ") == 1


def test_doctor_reports_a_hidden_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write(tmp_path, "name: demo\njobs: [{name: stop, source: exit 7, help: Fails}]\n")
    monkeypatch.chdir(tmp_path)
    run_cli(["-n", "doctor"])
    clash = "the job stop replaces Skelebot's command of the same name; rename the job to use that"
    expected = f"ok    | configuration: {clash}"
    assert expected in capsys.readouterr().out.splitlines()


# --- chains ---

CHAIN = "name: demo\njobs: [{name: good, source: 'true', help: A}, {name: bad, source: exit 3, help: B}]\n"


def stderr_of(folder: Path, *argv: str, terminal: bool, code: int = 3) -> list[str]:
    reader, writer = os.openpty() if terminal else os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as shown:
        with skelebot(folder, *argv, stderr=writer, stdin=subprocess.DEVNULL) as child:
            os.close(writer)
            text = b""
            with suppress(OSError):  # a terminal whose other side has gone
                while data := shown.read(4096):
                    text += data
        assert child.returncode == code
    return [re.sub(r"\x1b\[\d*m", "", line) for line in text.decode().splitlines()]


def test_a_chain_on_a_terminal_has_headings_and_seconds(tmp_path: Path) -> None:
    write(tmp_path, CHAIN)
    lines = stderr_of(tmp_path, "-n", "good", "+", "bad", terminal=True)
    assert [re.sub(r"[\d.]+ s$", "N s", line) for line in lines] == [
        "INFO  | good (1 of 2)",
        "INFO  | good took N s",
        "INFO  | bad (2 of 2)",
        "ERROR | bad ended with exit code 3",
        "INFO  | bad took N s",
    ]
    assert stderr_of(tmp_path, "-n", "bad", terminal=True) == []
    assert stderr_of(tmp_path, "-n", "--dry-run", "good", "+", "bad", terminal=True, code=0) == []


def test_a_dry_run_shows_a_dockerfile_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, CHAIN)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # each command line shows it
        assert run_cli(["--dry-run", "good", "+", "bad", "+", "good"]) == 0
        out = capsys.readouterr().out
        assert out.count("| FROM ") == 1
        built = re.findall("^  image    .*, built from(.*)", out, re.MULTILINE)
        assert built == ["", *[" the same Dockerfile as above"] * 2]


def test_a_chain_elsewhere_names_only_the_link_that_failed(tmp_path: Path) -> None:
    write(tmp_path, CHAIN)
    assert stderr_of(tmp_path, "-n", "good", "+", "bad", terminal=False) == [
        "ERROR | bad ended with exit code 3"
    ]


def test_a_link_sees_what_the_one_before_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write(tmp_path, "name: demo\n")
    write(tmp_path, "1.2.3\n", "VERSION")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["bump", "patch", "+", "package"]) == 0
    assert [path.name for path in tmp_path.glob("*.zip")] == ["demo-1.2.4.zip"]


def test_a_job_with_the_name_of_doctor_needs_a_valid_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Skelebot's own doctor runs anyway, and reports the warnings itself."""
    write(tmp_path, "name: demo\nignore: [x]\njobs: [{name: doctor, source: exit 7, help: Fails}]\n")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["-n", "doctor"]) == 7
    assert capsys.readouterr().err == "WARN  | skelebot.yaml:2:1: ignore: is now named `ignores`\n"
