"""What could come next on a command line, and how a shell asks for it and is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skelebot import complete
from skelebot.complete import Candidate, Line
from skelebot.errors import SkelebotError
from skelebot.options import HelpWanted

from .helpers import write

YAML = """\
name: demo
params:
- {name: seed, choices: [1, 22]}
jobs:
- name: train
  source: run.sh
  help: Trains, slowly
  args:
  - {name: model, choices: [logistic, forest, two words]}
  - {name: into}
  params:
  - {name: level, alt: l, choices: [debug, info, error], help: How much it tells}
  - {name: columns, accepts: list, choices: [alpha, beta, -x]}
  - {name: file}
  - {name: token, secret: true}
  - {name: cache, accepts: boolean, default: true}
  - {name: q, choices: ["a=b", "1:2"]}
- {name: trial, source: echo, help: Tries}
- {name: listen, source: cat, help: Listens, mode: d, stdin: true}
components:
  repository:
    local: store
    artifacts: [{name: model, file: m.pkl}, {name: other, file: o.pkl}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path, YAML)
    write(tmp_path, "true\n", "run.sh")
    write(tmp_path, "jobs: [{name: only-dev, source: echo, help: h}]\n", "skelebot-dev.yaml")
    write(tmp_path, "gpu: true\n", "skelebot-prod.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(words: str, word: str) -> list[str]:
    """The candidates' values; a file's name as the text `FILE`."""
    return ["FILE" if c.is_file else c.value for c in complete.candidates(words.split(), word)]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("words", "word", "expected"),
    [
        # commands
        ("", "tr", "train trial"),
        ("", "pu", "push pull"),
        ("-n", "tri", "trial"),
        ("-s --native", "tri", "trial"),
        ("-e dev", "on", "only-dev"),
        ("-edev", "on", "only-dev"),
        ("--env=dev", "on", "only-dev"),
        ("-e dev", "tr", ""),
        ("", "+", ""),
        ("", "zzz", ""),
        # after a +
        ("trial +", "trai", "train"),
        ("trial + -n", "trai", "train"),
        ("-e dev only-dev +", "on", "only-dev"),
        ("-e dev only-dev + -e prod", "trai", "train"),
        ("trial + train", "log", "logistic"),
        ("trial + train logistic -- +", "tr", ""),
        # options before the command
        ("", "--e", "--env"),
        ("", "--", "--help --version --env --docker-host --skip-build --native --jobs --force --force-all"
                   " --no-needs --rehearse --watch --contact --verbose --dry-run"),
        ("", "-", "-h --help -v --version -e --env -d --docker-host -s --skip-build -n --native -j --jobs"
                  " --force --force-all --no-needs --rehearse --watch -c --contact -V --verbose --dry-run"),
        ("-e", "", "dev prod"),
        ("--env", "p", "prod"),
        ("", "--env=", "--env=dev --env=prod"),
        ("", "--env=d", "--env=dev"),
        ("trial + -e", "d", "dev"),
        ("-d", "", ""),
        ("", "--native=", ""),
        ("", "--docker-host=", ""),
        ("why", "trai", "train"),
        ("send", "", "listen"),
        ("send listen", "--", "--end --all --help"),
        ("why train", "", "logistic|forest|two words"),
        # args
        ("train", "", "logistic|forest|two words"),
        ("train", "f", "forest"),
        ("train logistic", "", "FILE"),
        ("train logistic x", "", ""),
        ("train --level info", "l", "logistic"),
        ("train --cache", "l", "logistic"),
        ("train --", "l", "logistic"),
        ("train -- logistic", "", "FILE"),
        ("trial", "", ""),
        # params
        ("train", "--l", "--level"),
        ("train", "--no", "--no-cache"),
        ("trial", "-", "-h --help"),
        ("train", "-l", "-l"),
        ("train --", "-l", ""),
        ("train --level", "", "debug info error"),
        ("train -l", "i", "info"),
        ("train", "--level=", "--level=debug --level=info --level=error"),
        ("train", "--level=e", "--level=error"),
        ("train", "--level=x", ""),
        ("train", "--cache=", ""),
        ("train", "--file=d", "FILE"),
        ("train --file", "", "FILE"),
        ("train --token", "", ""),
        ("train", "--token=", ""),
        ("train --seed", "2", "22"),
        ("train --columns", "", "alpha|beta|-x"),
        ("train --columns alpha", "b", "beta"),
        ("train --columns alpha", "--f", "--file"),
        ("train --columns alpha --level", "", "debug info error"),
        ("train -q", "a", "a=b"),
        ("train -q", "1:", "1:2"),
        # other commands
        ("push", "", "model other ALL"),
        ("pull", "m", "model"),
        ("pull model", "", "LATEST"),
        ("artifacts", "o", "other"),
        ("bump", "m", "major minor"),
        ("logs", "tra", "train"),
        ("completion", "", "bash zsh fish"),
        ("pull", "--over", "--override"),
        ("scaffold --template", "", "FILE default dash r"),
        ("scaffold --template", "da", "FILE dash"),
        ("scaffold", "--template=d", "FILE --template=default --template=dash"),
    ],
)  # fmt: skip
def test_what_could_come_next(words: str, word: str, expected: str) -> None:
    assert found(words, word) == (expected.split("|") if "|" in expected else expected.split())


@pytest.mark.usefixtures("project")
def test_everything_at_the_start() -> None:
    offered = list(complete.candidates([], ""))
    assert offered[0] == Candidate("train", "Trains, slowly")
    assert {"push", "bump", "envs", "completion", "schema"} <= {c.value for c in offered}
    assert not any(c.value.startswith("-") for c in offered)


def test_outside_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "completion" in found("", "")
    assert "bump" not in found("", "")
    assert found("-e", "") == []


def test_names_of_sweeps_that_are_declared(project: Path) -> None:
    text = (project / "skelebot.yaml").read_text()
    write(project, f"{text}\nsweeps: {{models: {{chain: train, values: {{train.level: info}}}}}}\n")
    assert "models" in found("queue --sweep", "")
    assert "models" in found("runs --sweep", "")
    assert "train" in found("queue --sweep models", "")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("words", ["--nothing", "train --nothing", "nothing", "trial -h", "--env=none"])
def test_after_what_is_wrong_comes_nothing(words: str) -> None:
    with pytest.raises((SkelebotError, HelpWanted, KeyError)):
        found(words, "")


def test_names_that_would_break_a_line_are_not_offered(project: Path) -> None:
    write(project, "gpu: true\n", "skelebot-a\x1b[31m.yaml")
    assert found("-e", "a") == []


# --- how the shells ask ---


@pytest.mark.parametrize(
    ("text", "at", "line"),
    [
        ("skelebot\ntr", "1", Line([], "tr")),
        ("skelebot\n", "1", Line([], "")),
        ("skelebot\n\ntrain", "1", Line([], "")),
        ("/usr/bin/skelebot\n-n\ntra", "2", Line(["-n"], "tra")),
        ("sk\n-n\ntra", "2", Line(["-n"], "tra")),
        ("skelebot\n--env\n=\nde", "3", Line([], "--env=de", 6)),
        ("skelebot\n--env\n=", "2", Line([], "--env=", 6)),
        ("skelebot\n--env\n=\ndev\ntr", "4", Line(["--env=dev"], "tr")),
        ("skelebot\nx\n-q\n1\n:\n2\n:\n", "7", Line(["x", "-q"], "1:2:", 4)),
        ("skelebot\nx\n'two wo", "2", Line(["x"], "two wo", 0, True)),
        ("skelebot\nx\ntwo\\ wo", "2", Line(["x"], "two wo")),
        ('skelebot\nx\n"two words"\ny', "3", Line(["x", "two words"], "y")),
        ("skelebot\nx\nback\\", "2", Line(["x"], "back")),
        ("skelebot\na\n+\ntr", "3", Line(["a", "+"], "tr")),
    ],
)
def test_bash_asks(text: str, at: str, line: Line) -> None:
    assert complete._of_bash(text, at) == line


@pytest.mark.parametrize(
    ("text", "at", "line"),
    [
        ("skelebot tr", "1", Line([], "tr")),
        ("skelebot ", "1", Line([], "")),
        ("skelebot --env=de", "1", Line([], "--env=de")),
        ("skelebot x 'two wo", "2", Line(["x"], "two wo")),
        ("skelebot x tra more words", "2", Line(["x"], "tra")),
    ],
)
def test_zsh_asks(text: str, at: str, line: Line) -> None:
    assert complete._of_zsh(text, at) == line


@pytest.mark.parametrize(
    ("text", "at", "line"),
    [
        ("skelebot tr", "tr", Line([], "tr")),
        ("skelebot ", "", Line([], "")),
        ("skelebot tr", "train", Line([], "tr")),
        ("A=1 skelebot x ", "", Line(["x"], "")),
        ("skelebot x two\\ wo", "two\\ wo", Line(["x"], "two wo")),
    ],
)
def test_fish_asks(text: str, at: str, line: Line) -> None:
    assert complete._of_fish(text, at) == line


# --- how they are told ---


def asked(folder: Path, shell: str, words: str, at: str, **env: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a start of Skelebot in which a shell asks."""
    asking = {"_SKELEBOT_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": at}
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", "skelebot"],
        cwd=folder,
        env=os.environ | path | asking | env,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_each_shell_is_told_in_its_way(project: Path) -> None:
    assert asked(project, "bash", "skelebot\ntr", "1") == (0, "plain,train\nplain,trial\n", "")
    zsh = "plain\ntrain\nTrains, slowly\nplain\ntrial\nTries\n"
    assert asked(project, "zsh", "skelebot tr", "1") == (0, zsh, "")
    fish = "plain,train\tTrains; slowly\nplain,trial\tTries\n"
    assert asked(project, "fish", "skelebot tr", "tr") == (0, fish, "")


def test_bash_is_told_what_follows_a_break(project: Path) -> None:
    assert asked(project, "bash", "skelebot\ntrain\n--level\n=\ni", "4")[1] == "plain,info\n"
    assert asked(project, "bash", "skelebot\ntrain\n-q\n1\n:", "4")[1] == "plain,2\n"


def test_a_colon_in_a_name(tmp_path: Path) -> None:
    write(tmp_path, "name: a\njobs: [{name: 'data:load', source: b, help: Loads}]\n")
    assert asked(tmp_path, "zsh", "skelebot da", "1")[1] == "plain\ndata\\:load\nLoads\n"


def test_warnings_wait_for_the_command(tmp_path: Path) -> None:
    write(tmp_path, "name: a\nignore: [x]\njobs: [{name: train, source: b, help: Trains}]\n")
    assert asked(tmp_path, "bash", "skelebot\ntr", "1") == (0, "plain,train\n", "")


def test_a_file_is_left_to_the_shell(project: Path) -> None:
    words = "skelebot train --file d"
    assert asked(project, "bash", words.replace(" ", "\n"), "3")[1] == "file,\n"
    assert asked(project, "zsh", words, "3")[1] == "file\nd\n_\n"
    assert asked(project, "zsh", words[:-1], "3")[1] == "file\n_\n_\n"
    assert asked(project, "fish", words, "d")[1] == "file,d\n"


def test_values_arrive_as_they_are(project: Path) -> None:
    awkward = ["it's", "a b", "$HOME", "*", "a\\b", "x:y", "p,q", "ä"]
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in awkward)
    write(
        project,
        f"name: a\njobs: [{{name: a, source: b, help: c, args: [{{name: d, choices: [{listed}]}}]}}]\n",
    )
    bash = ["it\\\\'s", "a\\\\ b", "\\\\$HOME", "\\\\*", "a\\\\\\\\b", "x:y", "p,q", "ä"]
    assert asked(project, "bash", "skelebot\na\n", "2")[1].splitlines() == [f"plain,{v}" for v in bash]
    assert asked(project, "bash", "skelebot\na\n\"", "2")[1].splitlines() == [
        "plain,a b", "plain,x:y", "plain,p,q", "plain,ä",
    ]  # fmt: skip
    assert asked(project, "zsh", "skelebot a ", "2")[1].splitlines()[1::3] == awkward
    fish = [value for value in awkward if "," not in value]
    assert asked(project, "fish", "skelebot a ", "")[1].splitlines() == [f"plain,{v}" for v in fish]


@pytest.mark.parametrize("text", ["jobs: {", "name: demo\nunknown: 1\n", "\xff", "a: &a [*a]", ""])
def test_a_broken_project_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "skelebot.yaml").write_bytes(text.encode("latin-1"))
    for words in ("skelebot\n", "skelebot\ntrain\n", "skelebot\n-e\n"):
        assert asked(tmp_path, "bash", words, str(words.count("\n"))) == (0, "", "")


@pytest.mark.parametrize(
    "env",
    [
        {"COMP_CWORD": "x"},
        {"COMP_CWORD": "-5"},
        {"COMP_WORDS": ""},
        {"COMP_WORDS": "skelebot\n-h\n", "COMP_CWORD": "2"},
        {"COMP_WORDS": "skelebot\ntrain\n--level\nx\n", "COMP_CWORD": "4"},
        {"COMP_WORDS": "skelebot\n--nothing\n", "COMP_CWORD": "2"},
        {"_SKELEBOT_COMPLETE": ""},
        {"_SKELEBOT_COMPLETE": "tcsh_complete"},
    ],
)
def test_an_odd_question_says_nothing_and_runs_nothing(project: Path, env: dict[str, str]) -> None:
    code, out, err = asked(project, "bash", "skelebot\ntrial\n", "2", **env)
    assert (code, err) == (0, "")
    assert all(line.startswith("plain,") for line in out.splitlines())


def test_without_a_place_to_write_to(project: Path) -> None:
    asking = {"_SKELEBOT_COMPLETE": "bash_complete", "COMP_WORDS": "skelebot\nt", "COMP_CWORD": "1"}
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    for closed in ("<&- >&- 2>&-", ">/dev/full"):
        script = f"exec {sys.executable} -m skelebot {closed}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=project, env=os.environ | path | asking, capture_output=True
        )
        assert (done.stdout, done.stderr) == (b"", b"")


TYPED = """\
name: demo
jobs:
- name: train
  source: echo
  help: h
  args: [{name: day, type: date}]
  params: [{name: n, type: int}, {name: data, type: file}, {name: into, type: path}, {name: key, type: int}]
"""


def test_files_are_offered_for_paths_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, TYPED)
    monkeypatch.chdir(tmp_path)
    assert found("train --data", "x") == found("train --into", "x") == ["FILE"]
    assert found("train -n", "") == found("train", "") == []


def test_in_a_subfolder_paths_are_offered_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, TYPED)
    for name in ("data/a.csv", "data/b/c.csv", "data/.hidden", "sub/d.csv"):
        write(tmp_path, "", name)
    monkeypatch.chdir(tmp_path / "sub")
    (tmp_path / "empty").mkdir()
    assert found("train --data", "") == ["data/", "empty/", "skelebot.yaml", "sub/"]
    assert found("train --data", "da") == ["data/a.csv", "data/b/"]
    assert found("train --data", "s") == ["skelebot.yaml", "sub/"]
    assert found("train --data", "su") == ["sub/d.csv"]
    assert found("train --data", "e") == ["empty/"]
    assert found("train --data", "data/.") == ["data/.hidden"]
    assert found("train --data", "data/") == ["data/a.csv", "data/b/"]
    assert found("train", "--data=data/b/") == ["--data=data/b/c.csv"]
    assert found("train --data", "nowhere/") == []
