"""The words of a command line: which are options, which are values, and the help about them."""

from pathlib import Path

import pytest

import skelebot
from skelebot import chain, options
from skelebot.errors import UsageError
from skelebot.model import Arg, Param

from .helpers import run_cli, write

VALUE = Param("rate", "r")
FLAG = Param("all", "a", accepts="boolean")
ON = Param("cache", "C", accepts="boolean", default="true")
LIST = Param("columns", "c", accepts="list")
ONE = Param("x")
PARAMS = (VALUE, FLAG, ON, LIST, ONE, Param("two words"), Param("with-dash"))


def parse(words: str | list[str], *args: Arg, params: tuple[Param, ...] = PARAMS) -> options.Values:
    """The values by the names of their args and params."""
    values = options.parse(args, params, words.split() if isinstance(words, str) else words)
    names = {arg.key: arg.name for arg in args}
    return {names.get(key, key): value for key, value in values.items()}


# --- options ---


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("--rate 1", {"rate": "1"}),
        ("--rate=1", {"rate": "1"}),
        ("--rate=", {"rate": ""}),
        ("--rate=a=b", {"rate": "a=b"}),
        ("-r 1", {"rate": "1"}),
        ("-r1", {"rate": "1"}),
        ("--rate 1 --rate 2", {"rate": "2"}),
        ("--rate -1", {"rate": "-1"}),
        ("--rate -1.5e-3", {"rate": "-1.5e-3"}),
        ("--rate -.5", {"rate": "-.5"}),
        ("--rate -", {"rate": "-"}),
        ("--rate --other", {"rate": "--other"}),
        ("--rate=--all", {"rate": "--all"}),
        ("--rate=-h", {"rate": "-h"}),
        ("-r-1", {"rate": "-1"}),
        ("-x 1", {"x": "1"}),
        ("--with-dash 1", {"with-dash": "1"}),
        (["--two words", "1"], {"two words": "1"}),
        (["--two words=1 2"], {"two words": "1 2"}),
        (["--rate", "a b"], {"rate": "a b"}),
        (["--rate", ""], {"rate": ""}),
        (["-r", "a\nb"], {"rate": "a\nb"}),
    ],
)
def test_a_value_is_read_in_each_spelling(words: str | list[str], values: options.Values) -> None:
    assert parse(words) == values


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("--all", {"all": True}),
        ("-a", {"all": True}),
        ("--cache", {"cache": True}),
        ("--no-cache", {"cache": False}),
        ("--cache --no-cache", {"cache": False}),
        ("--no-cache -C", {"cache": True}),
        ("-aC", {"all": True, "cache": True}),
        ("-ar 1", {"all": True, "rate": "1"}),
        ("-ar1", {"all": True, "rate": "1"}),
        ("-aCr-1", {"all": True, "cache": True, "rate": "-1"}),
        ("-ra", {"rate": "a"}),
        ("-ac 1 2", {"all": True, "columns": ("1", "2")}),
    ],
)
def test_flags_and_clusters(words: str, values: options.Values) -> None:
    assert parse(words) == values


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("--columns", {"columns": ()}),
        ("--columns a", {"columns": ("a",)}),
        ("--columns a b c", {"columns": ("a", "b", "c")}),
        ("--columns=a", {"columns": ("a",)}),
        ("--columns=a --columns=b", {"columns": ("a", "b")}),
        ("--columns a b --columns c", {"columns": ("a", "b", "c")}),
        ("-c a -cb -c c", {"columns": ("a", "b", "c")}),
        ("--columns a --all", {"columns": ("a",), "all": True}),
        ("--columns -1 -2.5 -", {"columns": ("-1", "-2.5", "-")}),
        ("--columns + a", {"columns": ("+", "a")}),
    ],
)
def test_a_list_takes_any_number_of_values(words: str, values: options.Values) -> None:
    assert parse(words) == values


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("one two", {"first": "one", "second": "two"}),
        ("one --rate 1 two", {"first": "one", "rate": "1", "second": "two"}),
        ("--rate 1 one two --all", {"first": "one", "second": "two", "rate": "1", "all": True}),
        ("-1 -1e5", {"first": "-1", "second": "-1e5"}),
        ("- one", {"first": "-", "second": "one"}),
        ("--columns a b -- one two", {"columns": ("a", "b"), "first": "one", "second": "two"}),
        ("one --columns a -- two", {"columns": ("a",), "first": "one", "second": "two"}),
        ("-- --rate -h", {"first": "--rate", "second": "-h"}),
        ("-- -- --", {"first": "--", "second": "--"}),
        ("one -- +", {"first": "one", "second": "+"}),
        (["", "a b"], {"first": "", "second": "a b"}),
    ],
)
def test_arguments_stand_anywhere_among_the_options(words: str | list[str], values: options.Values) -> None:
    assert parse(words, Arg("first"), Arg("second")) == values


def test_a_number_that_is_an_option_of_the_command_is_that() -> None:
    assert parse("-5", params=(Param("5", accepts="boolean"),)) == {"5": True}


def test_both_names_of_an_option_set_it() -> None:
    long = Param("learning-rate", "rate")
    assert parse("--rate 1", params=(long,)) == parse("--learning-rate 1", params=(long,))


# --- what is refused ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rat 1", "unknown option --rat; did you mean `--rate`?"),
        ("--al", "unknown option --al; did you mean `--all`?"),
        ("--no-cach", "unknown option --no-cach; did you mean `--no-cache`?"),
        ("--no-all", "unknown option --no-all"),
        ("--x 1", "unknown option --x"),
        ("-z", "unknown option -z"),
        ("-az", "unknown option -z"),
        ("-lr 1", "unknown option -lr"),
        ("--rate", "--rate expects a value"),
        ("-r", "-r expects a value"),
        ("-ar", "-r expects a value"),
        ("--rate --all", "--rate expects a value"),
        ("--rate --no-cache", "--rate expects a value"),
        ("--rate -- 1", "--rate expects a value"),
        ("--rate -h", "--rate expects a value"),
        ("--all=1", "--all takes no value"),
        ("--all=", "--all takes no value"),
        ("one", "unexpected argument 'one'"),
        ("--all one", "unexpected argument 'one'"),
        ("-- --all", "unexpected argument '--all'"),
    ],
)
def test_what_cannot_be_read_is_told(words: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert str(caught.value).startswith(message)
    assert caught.value.code == 2


@pytest.mark.parametrize("flag", ["--rate", "-r"])
def test_the_way_to_give_a_value_that_looks_like_an_option_leads_there(flag: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(flag)
    shown = str(caught.value).rpartition(" ")[2].removesuffix(")")
    assert parse(shown.replace("VALUE", "--all"))["rate"] == "--all"


def test_missing_arguments_are_named() -> None:
    with pytest.raises(UsageError, match=r"^missing arguments: b, c d$"):
        parse("1", Arg("a"), Arg("b"), Arg("c d"))


@pytest.mark.parametrize("words", ["-h", "--help", "one -h", "--all --help", "-ah", "--columns a -h"])
def test_help_is_wanted_wherever_an_option_can_stand(words: str) -> None:
    with pytest.raises(options.HelpWanted):
        parse(words, Arg("a"))


@pytest.mark.parametrize("words", ["--rate=-h one", "one -r-h", "-- -h"])
def test_help_as_a_value_is_a_value(words: str) -> None:
    assert parse(words, Arg("a"))


# --- choices ---

SPLIT = Arg("split", choices=("1.0", "010", "train"))
MODEL = Param("model", choices=("1", "2.0"))
MODELS = Param("models", accepts="list", choices=("1", "2.0"))


@pytest.mark.parametrize("word", ["1.0", "010", "train"])
def test_an_argument_is_one_of_its_choices(word: str) -> None:
    assert parse(word, SPLIT) == {"split": word}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("1", "split: expected 1.0 or 010 or train; found '1'"),
        ("Train", "split: expected 1.0 or 010 or train; found 'Train'"),
        ("010 --model 2", "--model: expected 1 or 2.0; found '2'"),
        ("010 --model=1.0", "--model: expected 1 or 2.0; found '1.0'"),
        ("010 --model=", "--model: expected 1 or 2.0; found ''"),
        ("010 --models 1 3", "--models: expected 1 or 2.0; found '3'"),
        ("010 --models=3", "--models: expected 1 or 2.0; found '3'"),
    ],
)
def test_a_value_that_is_no_choice_is_told(words: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words, SPLIT, params=(MODEL, MODELS))
    assert str(caught.value) == message


def test_choices_may_look_like_anything() -> None:
    params = (Param("op", choices=("-", "--", "-x", "a b")),)
    for choice in ("-", "--", "-x", "a b"):
        assert parse([f"--op={choice}"], params=params) == {"op": choice}


# --- secrets ---


@pytest.mark.parametrize(
    "words",
    [["--token=hunter2"], ["--token", "hunter2"], ["-thunter2"], ["-t", "hunter2"], ["--tokn=hunter2"]],
)
def test_the_value_of_a_secret_is_in_no_error(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words, params=(Param("token", "t", choices=("a", "b"), secret=True),))
    assert "hunter2" not in str(caught.value)


def test_an_error_stays_on_one_line() -> None:
    with pytest.raises(UsageError) as caught:
        parse(["a\nERROR | b\x1b[31m"])
    assert str(caught.value).isprintable()


# --- the options before the command ---


@pytest.mark.parametrize(
    ("words", "values", "rest"),
    [
        ("-e dev train -e x", {"env": "dev"}, ["train", "-e", "x"]),
        ("-edev train", {"env": "dev"}, ["train"]),
        ("--env=dev --native train", {"env": "dev", "native": True}, ["train"]),
        ("-n -s -e dev", {"native": True, "skip-build": True, "env": "dev"}, []),
        ("-nsedev train", {"native": True, "skip-build": True, "env": "dev"}, ["train"]),
        ("--native --env dev train", {"native": True, "env": "dev"}, ["train"]),
        ("-d ssh://a train", {"docker-host": "ssh://a"}, ["train"]),
        ("--docker-host=ssh://a", {"docker-host": "ssh://a"}, []),
        ("--skip-build -V --dry-run", {"skip-build": True, "verbose": True, "dry-run": True}, []),
        ("-v", {"version": True}, []),
        ("-c", {"contact": True}, []),
        ("-h train", {"help": True}, ["train"]),
        ("train -- +", {}, ["train", "--", "+"]),
    ],
)
def test_the_options_before_the_command(words: str, values: options.Values, rest: list[str]) -> None:
    assert options.parse_options(chain.OPTIONS, words.split()) == (values, rest)


@pytest.mark.parametrize(
    "word", ["--nat", "--en=dev", "--vers", "--skip", "--dry", "--docker=a", "-x", "-nx"]
)
def test_abbreviations_and_unknown_options_before_the_command_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match="unknown option"):
        options.parse_options(chain.OPTIONS, [word, "train"])


# --- help ---


def test_the_usage_names_the_arguments() -> None:
    args = (Arg("date"), Arg("train set"), Arg("size", choices=("1", "2.0")))
    assert options.usage(args, (VALUE,)) == "[options] DATE TRAIN_SET {1,2.0}"
    assert options.usage((), ()) == ""


@pytest.mark.parametrize(
    ("param", "row"),
    [
        (Param("rate", help="How fast"), ("--rate RATE", "How fast")),
        (Param("rate", "r", default="0.10"), ("-r, --rate RATE", "(default: 0.10)")),
        (Param("rate", help="100%", default="50%"), ("--rate RATE", "100% (default: 50%)")),
        (Param("m", choices=("1", "2.0"), default="1"), ("-m M", "(one of 1, 2.0; default: 1)")),
        (Param("all", accepts="boolean", help="%(prog)s"), ("--all", "%(prog)s")),
        (Param("all", accepts="boolean", default="true"), ("--all, --no-all", "(default: true)")),
        (Param("c", accepts="list", default=("a", "b")), ("-c [C ...]", "(default: a b)")),
        (Param("two words", "w"), ("-w, --two words TWO_WORDS", "")),
        (Param("token", secret=True, default="hunter2"), ("--token TOKEN", "(default: ***)")),
        (
            Param("tokens", secret=True, default=("a",), accepts="list"),
            ("--tokens [TOKENS ...]", "(default: ***)"),
        ),
        (Param("token", secret=True, default="$TOKEN"), ("--token TOKEN", "(default: $TOKEN)")),
        (Param("empty", default=""), ("--empty EMPTY", "(default: )")),
    ],
)
def test_a_row_of_help(param: Param, row: tuple[str, str]) -> None:
    assert list(options.describe((), (param,))) == [row]


def test_a_row_of_help_for_an_argument() -> None:
    arg = Arg("date", choices=("2018-01-01", "010"), help="When, in %")
    assert list(options.describe((arg,), ())) == [("DATE", "When, in %")]


def test_long_rows_are_wrapped_and_keep_their_column() -> None:
    lines = options.table([("a", "word " * 40), ("x" * 40, "short")])
    text = next(line for line in lines if "word" in line)
    assert all(len(line) <= 100 for line in lines)
    assert text.index("word") == lines[1].index("word") == lines[-1].index("short")


PROJECT = """\
name: Demo Project
description: What it is
jobs:
  - name: two words
    source: run me.sh
    help: 100% of %(prog)s
    args: [{name: date, choices: [010, 2018-01-01], help: When}]
    params:
      - {name: rate, alt: r, default: 1.0, help: How fast}
      - {name: token, default: hunter2, secret: true}
"""


def test_the_help_of_a_project_shows_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, PROJECT)
    write(tmp_path, "1.4.0", "VERSION")
    write(tmp_path, "{}", "skelebot-dev.yaml")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["-e", "dev"]) == 0
    out = capsys.readouterr().out
    for text in ("Demo Project", "What it is", "1.4.0", "dev", f"Skelebot {skelebot.__version__}"):
        assert text in out
    assert "  two words   100% of %(prog)s [run me.sh]" in out


def test_the_help_of_a_job_shows_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, PROJECT)
    monkeypatch.chdir(tmp_path)
    assert run_cli(["two words", "-h"]) == 0
    assert (
        capsys.readouterr().out
        == """\
usage: skelebot two words [options] {010,2018-01-01}

100% of %(prog)s [run me.sh]

arguments:
  DATE  When

options:
  -r, --rate RATE  How fast (default: 1.0)
  --token TOKEN    (default: ***)
"""
    )


# --- chains ---


@pytest.mark.parametrize(
    ("words", "links"),
    [
        ("a", [["a"]]),
        ("a + b 1 + c", [["a"], ["b", "1"], ["c"]]),
        ("-n a + -s b", [["-n", "a"], ["-s", "b"]]),
        ("a x+y +z", [["a", "x+y", "+z"]]),
        ("a + b -- + c + d", [["a"], ["b", "--", "+", "c", "+", "d"]]),
        ("a -- x -- + y", [["a", "--", "x", "--", "+", "y"]]),
        ("", [[]]),
    ],
)
def test_a_chain_is_split_at_each_plus(words: str, links: list[list[str]]) -> None:
    assert chain.split(words.split()) == links


@pytest.mark.parametrize("words", ["+", "a +", "+ a", "a + + b"])
def test_an_empty_link_is_a_usage_error(words: str) -> None:
    with pytest.raises(UsageError, match=r"a command is missing before or after a `\+`"):
        chain.split(words.split())
