"""A job and its values become the words to run; where bash reads them, it is really run."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skelebot import launch, options
from skelebot.component import Session
from skelebot.components.jobs.run import is_below
from skelebot.errors import UsageError
from skelebot.model import (
    ALL_GPUS,
    NATIVE,
    Arg,
    Environment,
    Flags,
    Image,
    Job,
    Limits,
    Mount,
    Param,
    Place,
    Project,
    Task,
)
from skelebot.project import plan, state
from skelebot.project.sources import job_params, script
from skelebot.runners.docker import Docker
from skelebot.secret import Secret, Word, reveal

from .helpers import argv_of, arrived, load, write

# Values that a shell, a parser or a terminal would change if it saw them.
HOSTILE = [
    "",
    " ",
    "a b",
    "*",
    "~",
    "$HOME",
    "${HOME}",
    "$(touch evil)",
    "`touch evil`",
    "; touch evil",
    "&& touch evil",
    "'",
    '"',
    "\\",
    "\\n",
    "a\nb",
    "a\tb",
    "-n",
    "--",
    "-e",
    "#a",
    "!a",
    "{a,b}",
    "[a-z]",
    "é☃𝄞",
    "caf\udce9",
    "%s",
    "\r",
]


def job(source: str, args: tuple[Arg, ...] = (), params: tuple[Param, ...] = (), **more: Any) -> Job:
    return Job(name="run", source=source, help="Runs", args=args, params=params, **more)


def project(root: Path, *jobs: Job, **more: Any) -> Project:
    return Project(name="demo", jobs=jobs, root=str(root), **more)


def made(root: Path, the_job: Job, values: options.Values | None = None, **caller: str) -> Task:
    return plan.task(project(root, the_job), the_job, values or {}, Flags(), caller)


def executable(root: Path, name: str, text: str = "#!/bin/sh\nprintf '%s\\0' \"$@\"\n") -> None:
    write(root, text, name).chmod(0o755)


# --- the kinds of source ---


@pytest.mark.parametrize(
    ("source", "argv"),
    [
        ("train.py", ("python", "-u", "train.py")),
        ("src/train.py", ("python", "-u", "src/train.py")),
        ("train model.py", ("python", "-u", "train model.py")),
        ("train.R", ("Rscript", "train.R")),
        ("train.r", ("Rscript", "train.r")),
        ("train it.R", ("Rscript", "train it.R")),
        ("train.sh", ("bash", "train.sh")),
        ('it\'s $(here); "x".sh', ("bash", 'it\'s $(here); "x".sh')),
    ],
)
def test_a_script_runs_with_its_interpreter(tmp_path: Path, source: str, argv: tuple[str, ...]) -> None:
    write(tmp_path, "", source)
    the_job = job(source, (Arg("a"),))
    assert argv_of(project(tmp_path), the_job, {"a": "x y"}) == (*argv, "x y")


@pytest.mark.parametrize("source", ["tool", "bin/my tool", "tool.bin"])
def test_an_executable_file_runs_by_itself(tmp_path: Path, source: str) -> None:
    executable(tmp_path, source)
    argv = argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": "x y"})
    assert argv == (f"./{source}", "x y")
    assert arrived(argv, tmp_path) == ["x y"]


@pytest.mark.parametrize("source", ["gone.py", "gone.R", "gone.sh", "src/gone.py"])
def test_a_single_word_with_a_scripts_ending_is_a_script_that_is_not_there(
    tmp_path: Path, source: str
) -> None:
    assert script(str(tmp_path), source) == source


@pytest.mark.parametrize(
    "source",
    [
        "python train.py",
        "python -m pkg.train && echo done",
        "echo a.sh",
        "make",
        "folder",
        "text",
        "a\nb.py",
        "/bin/echo",
        "/bin/sh",
    ],
)
def test_anything_else_is_a_command_line(tmp_path: Path, source: str) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path, "not executable", "text")
    write(tmp_path, "", "train.py")
    assert script(str(tmp_path), source) is None
    assert argv_of(project(tmp_path), job(source)) == ("bash", "-c", source, "run")


def test_a_script_is_found_from_the_root_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "", "a b.py")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert script(str(tmp_path), "a b.py") == "a b.py"


# --- command lines, as bash really reads them ---


@pytest.mark.parametrize("kind", ["args", "params"])
def test_the_words_follow_where_the_job_has_args_or_params(tmp_path: Path, kind: str) -> None:
    source = "printf '%s\\0' one"
    if kind == "args":
        argv = argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": "x y"})
        assert arrived(argv, tmp_path) == ["one", "x y"]
    else:
        argv = argv_of(project(tmp_path), job(source, (), (Param("p"),)), {"p": "x y"})
        assert arrived(argv, tmp_path) == ["one", "-p", "x y"]


def test_a_command_line_without_args_and_params_stays_as_it_is(tmp_path: Path) -> None:
    argv = argv_of(project(tmp_path), job("echo hi; # done\n"))
    assert argv == ("bash", "-c", "echo hi; # done", "run")


PRINT = "printf '%s\\0'"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # Appended: the author does not use the words.
        (f"{PRINT} a", ["a", "x y", "z"]),
        (f"true && {PRINT}", ["x y", "z"]),
        (f"{PRINT} '$1'", ["$1", "x y", "z"]),
        (f"{PRINT} '$@'", ["$@", "x y", "z"]),
        (f"{PRINT} \\$1", ["$1", "x y", "z"]),
        (f"{PRINT} \"it's\" '$1'", ["it's", "$1", "x y", "z"]),
        (f"{PRINT} \"a'b\" \\'", ["a'b", "'", "x y", "z"]),
        (f'{PRINT} "\\$1"', ["$1", "x y", "z"]),
        (f"{PRINT} a#b", ["a#b", "x y", "z"]),
        (f"{PRINT} '# a'", ["# a", "x y", "z"]),
        (f'{PRINT} "# a"', ["# a", "x y", "z"]),
        (f"{PRINT} \\# a", ["#", "a", "x y", "z"]),
        (f"# the first $1\n{PRINT} a", ["a", "x y", "z"]),
        (f"true # don't\n{PRINT} a", ["a", "x y", "z"]),
        (f"{PRINT} ${{V}}", ["v", "x y", "z"]),
        (f'{PRINT} "${{#V}}"', ["1", "x y", "z"]),
        (f"{PRINT} $0", ["run", "x y", "z"]),
        (f"{PRINT} \"$(echo a b | awk '{{print $1}}')\"", ["a", "x y", "z"]),
        (f"{PRINT} \"`echo a b | awk '{{print $1}}'`\"", ["a", "x y", "z"]),
        (f"{PRINT} $'it\\'s $1'", ["it's $1", "x y", "z"]),
        # Not appended: the author does.
        (f'{PRINT} "$@" end', ["x y", "z", "end"]),
        (f'{PRINT} "$1"', ["x y"]),
        (f'{PRINT} "$2" "$1"', ["z", "x y"]),
        (f"{PRINT} $1", ["x", "y"]),
        (f'{PRINT} "${{1}}"', ["x y"]),
        (f'{PRINT} "${{@:2}}"', ["z"]),
        (f'{PRINT} "${{1:-none}}"', ["x y"]),
        (f'{PRINT} "$*"', ["x y z"]),
        (f'{PRINT} "it\'s $1"', ["it's x y"]),
        (f"{PRINT} 'a'\"$1\"'b'", ["ax yb"]),
        (f'for a in "$@"; do\n  {PRINT} "$a"\ndone', ["x y", "z"]),
        (f'{PRINT} "$1" # $2', ["x y"]),
        (f'{PRINT} "$(echo "$1")"', ["x y"]),
        (f"{PRINT} \"$(echo 'a') $1\"", ["a x y"]),
    ],
)
def test_the_words_are_appended_only_where_the_author_uses_none(
    tmp_path: Path, source: str, expected: list[str]
) -> None:
    argv = argv_of(project(tmp_path), job(source, (Arg("a"), Arg("b"))), {"a": "x y", "b": "z"})
    assert arrived(argv, tmp_path, V="v") == expected


def test_the_lines_of_a_command_line_run_in_order_and_the_words_go_to_the_last(tmp_path: Path) -> None:
    source = f"{PRINT} one\n{PRINT} two \\\n  three\n{PRINT} four\n"
    argv = argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": "x y"})
    assert arrived(argv, tmp_path) == ["one", "two", "three", "four", "x y"]


@pytest.mark.parametrize(
    "source",
    [
        "echo a # to the end",
        "echo a\n# to the end",
        "echo a;# to the end",
        "echo a&&true;# to the end",
        "(echo a)# to the end",
        "# nothing else",
    ],
)
def test_a_comment_at_the_end_would_swallow_the_words_and_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(UsageError, match="comment"):
        argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": "x"})


_NO_COMMAND = [
    "cd .\nX=1",
    "X=1",
    "X= ",
    "X+=1 Y[0]='a b'",
    'X="$(echo "a b" \'c\')"',
    'X="it\'s" Y=`echo a; true`',
    "X=$(echo a; echo $((1 + 2))) Y=${HOME%% x}",
    "X=(a b)",
    "true && X=1",
    "true | X=1",
    "true & X=1",
    "! X=1",
    "time -p X=1",
    "echo # don't\nX=1",
    "X=1 \\\n  Y=2",
    "echo \\\\\nX=1",
    "echo hi; > out.txt",
    "echo hi; >out.txt 2>&1",
    "true; &> 'my out'",
    "< in.txt",
    "X=1>out",
    "X=1 Y='a b' >out 2>&1",
    "echo a >",
    "sort <",
    "cat <<<",
    "echo \"it's (\" \\(; X=')'",
    "exec > >(tee out; true)",
    "exec {fd}>>out 3<&0",
]


@pytest.mark.parametrize(
    "source",
    [
        "echo `",
        "echo $(",
        "(",
        "{",
        "true;",
        "true &",
        "true &&",
        "false ||",
        "true |",
        "!",
        "",
        "  ",
        *_NO_COMMAND,
    ],
)
def test_the_words_of_the_caller_are_never_a_command(tmp_path: Path, source: str) -> None:
    """With the words after such an end, the first of them would be the program to run."""
    with pytest.raises(UsageError):
        argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": "touch"})


@pytest.mark.parametrize("source", ["cat <<EOF\ntext\nEOF", "cat <<-'EOF'\n\ttext\n\tEOF\n", "echo a \\"])
def test_an_end_that_would_make_the_words_a_part_of_the_text_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(UsageError, match=r"\$@"):
        argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": "x"})


@pytest.mark.parametrize(
    "source",
    [
        "(echo a)",
        "(echo a) > out",
        "((1 + 1))",
        "if true; then echo a; fi",
        "if true; then (echo a) fi 2>&1",
        "while read -r a; do echo a; done < a.txt",
        'for a in b; do\n  echo a\ndone<<<"a b" >out',
        "while read -r a; do echo a; done < <(echo 'a b'; echo)",
        "while true; do if true; then break; fi done",
        "{ echo a; } > out",
        "case a in a) echo a ;; esac",
        "f() { echo a; }",
        "[[ a == a && -e . ]]",
        "[[ a =~ (a|b) ]] 2> out",
    ],
)
def test_a_compound_command_takes_no_words(tmp_path: Path, source: str) -> None:
    bash = ["bash", "-n", "-c"]
    assert subprocess.run([*bash, source], check=False).returncode == 0
    assert subprocess.run([*bash, f'{source} "$@"'], check=False, capture_output=True).returncode != 0
    with pytest.raises(UsageError, match=r"ends in a compound command.*\$@"):
        argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": "x"})


@pytest.mark.parametrize(
    "source",
    [
        f"X=1 {PRINT}",
        f"X='a b' {PRINT} 2>&1",
        f"> out; {PRINT}",
        f">out true && {PRINT}",
        f"{{ true; }} > out; {PRINT}",
        f"[[ -e . ]] && {PRINT}",
        f'X="$(echo "a; b=1")"; {PRINT}',
        f"{PRINT} < <(echo a; echo b)",
        f"shopt -s extglob; {PRINT} &>/dev/stdout",
    ],
)
def test_the_words_follow_a_command_with_assignments_and_redirections(tmp_path: Path, source: str) -> None:
    argv = argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": "x y"})
    assert arrived(argv, tmp_path) == ["x y"]


@pytest.mark.parametrize(
    "source",
    [
        "echo done",
        "echo fi",
        "xargs -I{} echo {}",
        "env a=b cat",
        "echo $((1))",
        "declare -a X=(1)",
        "echo {a,b}",
    ],
)
def test_a_word_that_looks_like_an_end_is_none(tmp_path: Path, source: str) -> None:
    assert argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": "x"})[2] == f'{source} "$@"'


def test_a_here_string_is_no_here_document(tmp_path: Path) -> None:
    source = f"read -r line <<< text; {PRINT} $line"
    assert arrived(argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": "x"}), tmp_path) == [
        "text",
        "x",
    ]


@pytest.mark.parametrize(
    "source", [PRINT, f'{PRINT} "$@"', f'{PRINT} "$@" | cat', f'f() {{ {PRINT} "$1"; }}; f "$1"']
)
def test_no_value_is_changed_or_run_on_its_way_through_bash(tmp_path: Path, source: str) -> None:
    for value in HOSTILE:
        argv = argv_of(project(tmp_path), job(source, (Arg("a"),)), {"a": value})
        assert arrived(argv, tmp_path) == [value]
    assert os.listdir(tmp_path) == []


def test_no_value_is_changed_or_run_on_its_way_to_a_script(tmp_path: Path) -> None:
    write(tmp_path, "printf '%s\\0' \"$@\"\n", "run it.sh")
    args = tuple(Arg(f"a{i}") for i, _ in enumerate(HOSTILE))
    values: options.Values = {f"a{i}": value for i, value in enumerate(HOSTILE)}
    values |= {"p": "; touch evil", "l": tuple(HOSTILE)}
    params = (Param("p"), Param("l", accepts="list"))
    argv = argv_of(project(tmp_path), job("run it.sh", args, params), values)
    assert arrived(argv, tmp_path) == [*HOSTILE, "-p", "; touch evil", "-l", *HOSTILE]
    assert os.listdir(tmp_path) == ["run it.sh"]


def test_the_name_of_a_job_is_not_run(tmp_path: Path) -> None:
    evil = Job(name='$(touch evil); "', source=PRINT, help="", args=(Arg("a"),))
    assert arrived(argv_of(project(tmp_path), evil, {"a": "x"}), tmp_path) == ["x"]
    assert os.listdir(tmp_path) == []


# --- the words ---


def test_arguments_come_before_params_each_in_the_files_order(tmp_path: Path) -> None:
    the_job = job("a.py", (Arg("b"), Arg("a")), (Param("z"), Param("y", accepts="list"), Param("w")))
    values: options.Values = {"a": "1", "w": "4", "y": ("5", "6"), "z": "3", "b": "2"}
    argv = argv_of(project(tmp_path), the_job, values)
    assert argv[3:] == ("2", "1", "-z", "3", "-y", "5", "6", "-w", "4")


@pytest.mark.parametrize(
    ("alt", "typed"),
    [
        ("rate", ["--rate", "1"]),
        ("rate", ["--rate=1"]),
        ("r", ["-r", "1"]),
        ("r", ["-r1"]),
        ("r", ["--learning-rate=1"]),
    ],
)
def test_the_script_gets_the_full_name(tmp_path: Path, alt: str, typed: list[str]) -> None:
    the_job = job("a.py", (), (Param("learning-rate", alt),))
    values = options.parse((), the_job.params, typed)
    assert argv_of(project(tmp_path), the_job, values)[3:] == ("--learning-rate", "1")


@pytest.mark.parametrize(
    ("param", "values", "words"),
    [
        (Param("p"), {}, ()),
        (Param("p"), {"p": ""}, ("-p", "")),
        (Param("pp", default="1.0"), {}, ("--pp", "1.0")),
        (Param("pp", accepts="list", default=()), {}, ()),
        (Param("pp", default="1.0"), {"pp": "2"}, ("--pp", "2")),
        (Param("pp", default=""), {}, ("--pp", "")),
        (Param("two words", default="1"), {}, ("--two words", "1")),
        (Param("b", accepts="boolean"), {}, ()),
        (Param("b", accepts="boolean"), {"b": True}, ("-b",)),
        (Param("b", accepts="boolean", default="false"), {}, ()),
        (Param("b", accepts="boolean", default="true"), {}, ("-b",)),
        (Param("b", accepts="boolean", default="true"), {"b": False}, ()),
        (Param("ll", accepts="list"), {}, ()),
        (Param("ll", accepts="list"), {"ll": ()}, ("--ll",)),
        (Param("ll", accepts="list"), {"ll": ("a", "b c")}, ("--ll", "a", "b c")),
        (Param("ll", accepts="list", default=("a", "b")), {}, ("--ll", "a", "b")),
        (Param("ll", accepts="list", default="a"), {}, ("--ll", "a")),
        (Param("ll", accepts="list", default=("a", "b")), {"ll": ("c",)}, ("--ll", "c")),
    ],
)
def test_the_words_of_a_param(
    tmp_path: Path, param: Param, values: options.Values, words: tuple[str, ...]
) -> None:
    assert argv_of(project(tmp_path), job("a.py", (), (param,)), values)[3:] == words


# --- references to the environment ---


@pytest.mark.parametrize(
    ("default", "caller", "words"),
    [
        ("$RATE", {"RATE": "0.1"}, ("--rate", "0.1")),
        ("${RATE}", {"RATE": "0.1"}, ("--rate", "0.1")),
        ("$RATE", {"RATE": ""}, ("--rate", "")),
        ("$RATE", {"RATE": "$OTHER", "OTHER": "x"}, ("--rate", "$OTHER")),
        ("$RATE", {}, ()),
        ("$RATE/x", {"RATE": "a"}, ("--rate", "$RATE/x")),
        ("a$RATE", {"RATE": "a"}, ("--rate", "a$RATE")),
        ("${RATE", {"RATE": "a"}, ("--rate", "${RATE")),
        ("${RATE:-x}", {"RATE": "a"}, ("--rate", "${RATE:-x}")),
        ("$1", {}, ("--rate", "$1")),
        ("$RATE\n", {"RATE": "a"}, ("--rate", "$RATE\n")),
        ("$$RATE", {"RATE": "a"}, ("--rate", "$$RATE")),
    ],
)
def test_a_default_may_be_a_whole_reference_to_the_environment(
    tmp_path: Path, default: str, caller: dict[str, str], words: tuple[str, ...]
) -> None:
    the_job = job("a.py", (), (Param("rate", default=default),))
    assert argv_of(project(tmp_path), the_job, {}, caller)[3:] == words


def test_a_given_value_is_no_reference(tmp_path: Path) -> None:
    the_job = job("a.py", (Arg("a"),), (Param("rate", default="1"),))
    argv = argv_of(project(tmp_path), the_job, {"a": "$X", "rate": "$X"}, {"X": "1"})
    assert argv[3:] == ("$X", "--rate", "$X")


def test_a_reference_sees_the_jobs_own_environment_first(tmp_path: Path) -> None:
    the_job = job("a.py", (), (Param("rate", default="$RATE"),), environment=(("RATE", "job"),))
    assert argv_of(project(tmp_path), the_job, {}, {"RATE": "caller"})[3:] == ("--rate", "job")


def test_a_referenced_value_must_be_a_choice(tmp_path: Path) -> None:
    the_job = job("a.py", (), (Param("m", default="$M", choices=("a", "b")),))
    assert argv_of(project(tmp_path), the_job, {}, {"M": "a"})[3:] == ("-m", "a")
    with pytest.raises(UsageError, match=r"-m: \$M is 'c', expected a or b"):
        argv_of(project(tmp_path), the_job, {}, {"M": "c"})


def test_a_reference_does_not_matter_where_a_value_is_given(tmp_path: Path) -> None:
    the_job = job("a.py", (), (Param("m", default="$M", choices=("a", "b")),))
    assert argv_of(project(tmp_path), the_job, {"m": "a"}, {"M": "c"})[3:] == ("-m", "a")


# --- secrets ---


@pytest.mark.parametrize(
    ("param", "values"),
    [
        (Param("token", secret=True), {"token": "hunter2"}),
        (Param("token", secret=True, default="hunter2"), {}),
        (Param("token", secret=True, default="$TOKEN"), {}),
        (Param("token", secret=True, accepts="list"), {"token": ("hunter2",)}),
    ],
)
def test_the_value_of_a_secret_is_marked_as_one(tmp_path: Path, param: Param, values: options.Values) -> None:
    the_job, caller = job("a.py", (), (param,)), {"TOKEN": "hunter2"}
    flag, word = plan.task(project(tmp_path, the_job), the_job, values, Flags(), caller).argv[3:]
    assert flag == "--token"
    assert isinstance(word, Secret)
    assert (str(word), repr(word), reveal(word, caller)) == ("***", "***", "hunter2")


def test_a_referenced_secret_is_in_no_error(tmp_path: Path) -> None:
    the_job = job("a.py", (), (Param("t", default="$T", choices=("a",), secret=True),))
    with pytest.raises(UsageError) as caught:
        argv_of(project(tmp_path), the_job, {}, {"T": "hunter2"})
    assert "hunter2" not in str(caught.value)


# --- the params of the root ---

ROOT = (Param("level", default="1"), Param("verbose", accepts="boolean"))


@pytest.mark.parametrize(
    ("source", "there", "words"),
    [
        ("a.py", True, ("--level", "1")),
        ("a.py", False, ("--level", "1")),
        ("tool", True, ("--level", "1")),
        ("echo a.py", False, ()),
    ],
)
def test_the_roots_params_belong_to_every_script(
    tmp_path: Path, source: str, there: bool, words: tuple[str, ...]
) -> None:
    if there:
        executable(tmp_path, source)
    argv = argv_of(project(tmp_path, params=ROOT), job(source, (), (Param("own", default="0"),)))
    assert argv[-2 - len(words) :] == ("--own", "0", *words)


def test_a_jobs_param_hides_the_roots_of_the_same_name(tmp_path: Path) -> None:
    the_job = job("a.py", (), (Param("level", default="2"),))
    the_project = project(tmp_path, params=ROOT)
    assert argv_of(the_project, the_job)[3:] == ("--level", "2")
    assert [p.name for p in job_params(the_project, the_job)] == ["level", "verbose"]


def test_an_argument_named_like_a_param_of_the_root_keeps_its_value(tmp_path: Path) -> None:
    the_job = job("a.py", (Arg("verbose"),))
    params = job_params(project(tmp_path, params=ROOT), the_job)
    values = options.parse(the_job.args, params, ["dev"])
    argv = argv_of(project(tmp_path, params=ROOT), the_job, values)
    assert argv[3:] == ("dev", "--level", "1")


# --- the environment ---


def layered(root: Path) -> tuple[Project, Job]:
    write(root, "A=root-file\nB=root-file\nC=root-file\nD=root-file\n", "root.env")
    write(root, "C=job-file\nD=job-file\n", "job.env")
    own: Environment = (("B", "root"), ("C", "root"), ("D", "root"))
    the_job = job("a.py", environment=(("D", "job"),), env_file="job.env")
    return project(root, the_job, environment=own, env_file="root.env"), the_job


def test_a_jobs_own_variables_win_and_files_come_before_them(tmp_path: Path) -> None:
    the_project, the_job = layered(tmp_path)
    env = plan.environment(the_project, the_job, {"A": "caller", "E": "caller"})
    values = {name: reveal(value, {}) for name, value in env}
    assert values == {"A": "root-file", "B": "root", "C": "job-file", "D": "job"}


def test_a_variable_without_a_value_is_the_callers(tmp_path: Path) -> None:
    the_job = job("a.py", environment=(("A", None), ("B", None), ("C", "")))
    assert made(tmp_path, the_job, A="mine").env == (("A", Secret("variable", "A")), ("C", ""))


@pytest.mark.parametrize("name", ["nosuch.env", "folder", "a\0b"])
def test_an_env_file_that_cannot_be_read_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"^envFile: .*; create it, or correct envFile in skelebot.yaml"):
        made(tmp_path, job("a.py", env_file=name))


def test_a_wrong_line_of_an_env_file_is_what_to_correct(tmp_path: Path) -> None:
    (tmp_path / "my.env").write_text("A=1\nB='it''s'\n")
    with pytest.raises(UsageError, match=r"^envFile: my\.env:2: expected NAME=VALUE, .* digits and _$"):
        made(tmp_path, job("a.py", env_file="my.env"))


def test_an_env_file_may_stand_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home", "A=1\nB\nC\n", "my.env")
    env = made(tmp_path, job("a.py", env_file="~/my.env"), B="mine").env
    assert [(name, reveal(value, {"B": "mine"})) for name, value in env] == [("A", "1"), ("B", "mine")]
    assert "1" not in repr(env)


def revealed(env: tuple[tuple[str, Word], ...], caller: dict[str, str]) -> dict[str, str]:
    return {name: reveal(value, caller) for name, value in env}


def test_the_variables_of_dotenv_are_below_all_others(tmp_path: Path) -> None:
    names = [*"ABCDEF", "EMPTY", "CALLER"]
    write(tmp_path, "".join(f"{name}=dotenv\n" for name in names) + "BARE\nNOBODYS\n", ".env")
    the_project, the_job = layered(tmp_path)
    caller = {"E": "caller", "EMPTY": "", "BARE": "caller", "CALLER": "caller"}
    env = plan.environment(replace(the_project, dotenv=True), the_job, caller)
    assert revealed(env, caller) == {
        **{"A": "root-file", "B": "root", "C": "job-file", "D": "job"},
        **{"E": "caller", "F": "dotenv", "EMPTY": "", "BARE": "caller", "CALLER": "caller"},
    }
    assert dict(env)["F"] == Secret("file", "F", str(tmp_path / ".env"))
    assert "F" not in dict(plan.environment(the_project, the_job, caller))


def test_skelebots_own_tools_get_the_variables_of_dotenv(tmp_path: Path) -> None:
    write(tmp_path, "A=1\n", ".env")
    session = Session(project(tmp_path, dotenv=True), (), Flags(), set(), set())
    assert revealed(launch.tool(session, "jupyter").env, {}) == {"A": "1"}


def test_a_params_default_sees_the_variables_of_dotenv(tmp_path: Path) -> None:
    write(tmp_path, "RATE=0.5\nTOKEN=hush\n", ".env")
    params = (Param("rate", default="$RATE"), Param("token", default="${TOKEN}", secret=True))
    the_job = job("a.py", params=params)
    the_project = project(tmp_path, the_job, dotenv=True)
    task = plan.task(the_project, the_job, {}, Flags(), {})
    assert task.argv[-4:] == ("--rate", "0.5", "--token", Secret("variable", "TOKEN"))
    assert "hush" not in repr(task)
    task = plan.task(the_project, the_job, {}, Flags(), {"RATE": "0.9"})
    assert task.argv[-4:-2] == ("--rate", "0.9")


def test_without_the_file_dotenv_is_nothing(tmp_path: Path) -> None:
    assert plan.environment(project(tmp_path, dotenv=True), None, {"A": "1"}) == ()


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "dangling", "malformed"])
def test_a_dotenv_that_cannot_be_read_is_one_line_with_its_place(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ".env"
    write(tmp_path, "A=1\nB C\n" if kind == "malformed" else "A=1\n", ".env")
    if kind != "malformed":
        path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("loop", "dangling"):
        path.symlink_to(".env" if kind == "loop" else "nowhere")
    with pytest.raises(UsageError) as raised:
        plan.environment(project(tmp_path, dotenv=True), None, {})
    where = r"\.env:2: expected" if kind == "malformed" else r"\.env cannot be read: "
    assert re.match(
        rf"{where}.*; correct it, or remove `dotenv: true` from skelebot\.yaml$", str(raised.value)
    )


# --- mappings ---


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("data/", Mount("/root/p/data", "/app/data")),
        ("data", Mount("/root/p/data", "/app/data")),
        ("./data/raw", Mount("/root/p/data/raw", "/app/data/raw")),
        ("data/:ro", Mount("/root/p/data", "/app/data", True)),
        ("data:ro", Mount("/root/p/data", "/app/data", True)),
        ("models/:app/model-output/", Mount("/root/p/models", "/app/model-output")),
        ("models:/srv/models", Mount("/root/p/models", "/srv/models")),
        ("models:/srv/models:ro", Mount("/root/p/models", "/srv/models", True)),
        ("../other:/data", Mount("/root/other", "/data")),
        ("/abs/here:/there", Mount("/abs/here", "/there")),
        ("/abs/here", Mount("/abs/here", "/abs/here")),
        ("/abs/here:there:ro", Mount("/abs/here", "/there", True)),
        ("~/data:/data", Mount("/home/ada/data", "/data")),
        ("~/.aws", Mount("/home/ada/.aws", "~/.aws")),
        ("~/.aws:~/.aws:ro", Mount("/home/ada/.aws", "~/.aws", True)),
        ("data:~/data", Mount("/root/p/data", "~/data")),
        ("~:/caller", Mount("/home/ada", "/caller")),
        ("a b:c d", Mount("/root/p/a b", "/c d")),
        ("ro", Mount("/root/p/ro", "/app/ro")),
        ("a,b\"$(x);':/c", Mount("/root/p/a,b\"$(x);'", "/c")),
    ],
)
def test_a_mapping_in_each_form(monkeypatch: pytest.MonkeyPatch, text: str, mount: Mount) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert plan.mount("/root/p", text) == mount


def test_a_mapping_that_is_named_twice_is_one(tmp_path: Path) -> None:
    assert len(made(tmp_path, job("a.py", mappings=("data", "data/", "./data:/app/data"))).mounts) == 1


def test_a_variable_that_docker_cannot_carry_is_told_without_its_value(tmp_path: Path) -> None:
    (tmp_path / "bad.env").write_bytes(b"PASSWORD=s\xe9cret\n")
    task = made(tmp_path, job("a.py", env_file="bad.env"))
    with pytest.raises(UsageError, match="the value of PASSWORD is not UTF-8") as raised:
        Docker(None).check(Image("demo", "demo", base="", context=task.root), task)
    assert "cret" not in str(raised.value)
    assert "rename" not in str(raised.value)


# --- the rest of a task ---


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (None, 0),
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1.5h", 5400),
        ("2d", 172800),
        ("010", 10),
        ("0.5", 0.5),
    ],
)
def test_a_timeout_is_seconds_or_has_a_unit(tmp_path: Path, timeout: str | None, seconds: float) -> None:
    assert made(tmp_path, job("a.py", timeout=timeout)).timeout == seconds


@pytest.mark.parametrize(
    ("flag", "own", "root", "host"),
    [
        ("tcp://flag:1", "tcp://job:1", "tcp://root:1", "tcp://flag:1"),
        (None, "tcp://job:1", "tcp://root:1", "tcp://job:1"),
        (None, None, "tcp://root:1", "tcp://root:1"),
        (None, None, None, None),
    ],
)
def test_the_flags_host_comes_before_the_jobs_before_the_roots(
    tmp_path: Path, flag: str | None, own: str | None, root: str | None, host: str | None
) -> None:
    the_job = job("a.py", host=own)
    the_project = project(tmp_path, the_job, host=root)
    assert plan.task(the_project, the_job, {}, Flags(docker_host=flag), {}).place == Place(host=host)


def test_a_task_holds_what_the_job_and_the_root_say(tmp_path: Path) -> None:
    the_job = job("a.py", mode="d", native="never", ports=("1:2",))
    more = {"user": "caller", "gpu": True, "python_version": "3.10", "dependencies": ("numpy",)}
    task = plan.task(project(tmp_path, the_job, **more), the_job, {}, Flags(), {})
    assert task == Task(
        name="run",
        argv=("python", "-u", "a.py"),
        root=str(tmp_path),
        dependencies=("numpy",),
        python_version="3.10",
        project="demo",
        may_run_natively=False,
        mode="d",
        ports=("1:2",),
        user="caller",
        limits=Limits(gpus=ALL_GPUS),
        dependency_places=("dependencies[0]",),
    )


@pytest.mark.parametrize(
    ("native", "flag", "place"),
    [
        ("optional", False, Place()),
        ("optional", True, NATIVE),
        ("always", False, NATIVE),
        ("always", True, NATIVE),
        ("never", False, Place()),
    ],
)
def test_where_a_job_runs(tmp_path: Path, native: str, flag: bool, place: Place) -> None:
    the_job = job("a.py", native=native)
    assert plan.task(project(tmp_path, the_job), the_job, {}, Flags(native=flag), {}).place == place


def test_a_job_that_must_not_run_natively_says_so(tmp_path: Path) -> None:
    the_job = job("a.py", native="never")
    with pytest.raises(UsageError, match=r"run cannot run natively \(native: never\); leave out -n"):
        plan.task(project(tmp_path, the_job), the_job, {}, Flags(native=True), {})


@pytest.mark.parametrize(
    ("path", "folder", "expected"),
    [
        ("/p/a", "/p", True),
        ("/p", "/p", True),
        ("/pa", "/p", False),
        ("/a", "/", True),
        ("/p", "/p/a", False),
    ],
)
def test_a_name_that_only_begins_like_a_folder_is_not_below_it(
    path: str, folder: str, expected: bool
) -> None:
    assert is_below(path, folder) is expected


def test_the_places_of_a_project_are_those_that_it_names_and_has_used(tmp_path: Path) -> None:
    hosts = {"one": "b", "two": "k8s://x"}
    jobs = "".join(f"- {{name: {n}, source: ls, help: A, host: {h}}}\n" for n, h in hosts.items())
    project = load(tmp_path, f"name: demo\nhost: ssh://a\njobs:\n{jobs}")
    for host in ("ssh://used", "ssh://a", None):
        state.remember_host(project.root, host)

    def places(**flags: Any) -> list[str]:
        session = Session(project, (), Flags(**flags), set(), set())
        return [str(place) for place in launch.places(session)]

    assert places() == ["ssh://a", "b", "k8s://x", "ssh://used"]
    assert places(docker_host="k8s://y") == ["k8s://y"]
