"""The options that `scaffold -e` proposes for a script, by value."""

import ast
from typing import Any

import pytest

from skelebot.components.scaffold.script_options import options


def read(text: str) -> tuple[list[Any], list[Any], list[str]]:
    found = options(ast.parse(text))
    return found.args, found.params, found.skipped


ARGPARSE = """
parser = argparse.ArgumentParser()
parser.add_argument("file", help="The file\\n  to read")
parser.add_argument("mode", choices=["fast", "slow"])
parser.add_argument("--in", required=True, help="Where from")
parser.add_argument("-r", "--rate", "--speed", type=float, default=0.1)
parser.add_argument("--verbose", action="store_true", help="Say more")
parser.add_argument("--no-cache", action="store_false", dest="cache")
parser.add_argument("--colour", action=argparse.BooleanOptionalAction, default=True)
parser.add_argument("--columns", nargs="+", default=["a", "b"])
parser.add_argument("--rows", nargs="*")
parser.add_argument("--size", choices=(1, 2), default=2)
parser.add_argument("--home", default="$HOME")
parser.add_argument("--out", default=os.getcwd())
parser.add_argument("-n")
"""


def test_argparse() -> None:
    args, params, skipped = read(ARGPARSE)
    assert args == [
        {"name": "file", "help": "The file to read"},
        {"name": "mode", "choices": ["fast", "slow"]},
    ]
    assert params == [
        {"name": "in", "help": "Required. Where from"},
        {"name": "rate", "alt": "speed", "default": 0.1},
        {"name": "verbose", "accepts": "boolean", "help": "Say more"},
        {"name": "no-cache", "accepts": "boolean"},
        {"name": "no-colour", "accepts": "boolean"},
        {"name": "columns", "accepts": "list", "default": ["a", "b"]},
        {"name": "rows", "accepts": "list"},
        {"name": "size", "default": 2, "choices": [1, 2]},
        {"name": "home"},
        {"name": "out"},
        {"name": "n"},
    ]
    assert skipped == []


@pytest.mark.parametrize(
    ("call", "skipped"),
    [
        ('add_argument("files", nargs="*")', ["files"]),
        ('add_argument("file", nargs="?")', ["file"]),
        ('add_argument("--pair", nargs=2)', ["--pair"]),
        ('add_argument("--tag", action="append")', ["--tag"]),
        ('add_argument("-v", action="count")', ["-v"]),
        ('add_argument("--own", action=Own)', ["--own"]),
        ("add_argument(name)", ["an option whose name is computed"]),
        ('add_argument("-h", "--hosts")', ["--hosts"]),
        ("add_subparsers()", ["subcommands"]),
    ],
)
def test_what_a_job_cannot_express(call: str, skipped: list[str]) -> None:
    assert read(f"parser.{call}") == ([], [], skipped)


def test_each_name_is_proposed_once() -> None:
    """In a parent parser and its child, or in two branches."""
    text = 'a.add_argument("x")\na.add_argument("--y", "-z")\nb.add_argument("x")\nb.add_argument("--z")\n'
    assert read(text) == ([{"name": "x"}], [{"name": "y", "alt": "z"}], ["x", "--z"])


CLICK = """
import click
@click.command()
@click.argument("source")
@click.argument("target", type=click.Path())
@click.option("--rate", "-r", "speed", default=3, show_default=True, help="How fast")
@click.option("--kind", type=click.Choice(["a", "b"]), required=True)
@click.option("--loud/--quiet", default=True)
@click.option("--dry", is_flag=True)
@click.option("--tag", multiple=True)
def main(source, target, speed, kind, loud, dry, tag): ...
"""


def test_click() -> None:
    args, params, skipped = read(CLICK)
    assert args == [{"name": "source"}, {"name": "target"}]
    assert params == [
        {"name": "rate", "alt": "r", "default": 3, "help": "How fast"},
        {"name": "kind", "choices": ["a", "b"], "help": "Required."},
        {"name": "quiet", "accepts": "boolean"},
        {"name": "dry", "accepts": "boolean"},
    ]
    assert skipped == ["--tag"]
    assert read(f"{CLICK}@cli.command()\ndef more(): ...\n") == ([], [], ["subcommands"])


TYPER = """
import typer
from typing import Annotated, List, Optional
def main(
    source: str,
    target: Annotated[str, typer.Argument(help="Where to")],
    rate: float = 0.1,
    max_depth: Annotated[int, typer.Option("--depth", "-d", help="How deep")] = 3,
    key: Optional[str] = None,
    token: str = typer.Option(..., help="Whose"),
    loud: bool = True,
    dry_run: bool = False,
    tags: List[str] = [],
    size: int | None = None,
): ...
"""


@pytest.mark.parametrize("how", ["typer.run(main)", "@app.command()"])
def test_typer(how: str) -> None:
    text = f"{TYPER}{how}\n" if how.startswith("typer") else TYPER.replace("def main", f"{how}\ndef main")
    args, params, skipped = read(text)
    assert args == [{"name": "source"}, {"name": "target", "help": "Where to"}]
    assert params == [
        {"name": "rate", "default": 0.1},
        {"name": "depth", "alt": "d", "default": 3, "help": "How deep"},
        {"name": "key"},
        {"name": "token", "help": "Required. Whose"},
        {"name": "no-loud", "accepts": "boolean"},
        {"name": "dry-run", "accepts": "boolean"},
        {"name": "size"},
    ]
    assert skipped == ["tags"]


def test_other_calls_of_that_name() -> None:
    """As of asyncio.run, and of decorators of other libraries."""
    assert read("import asyncio\nasync def main(x: int = 1): ...\nasyncio.run(main)\n") == ([], [], [])
    assert read("@bot.command()\ndef main(x: int = 1): ...\n") == ([], [], [])
