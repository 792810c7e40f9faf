"""Secrets as references, and the files that variables are read from."""

import os
import sys
from pathlib import Path

import pytest

from skelebot.errors import SkelebotError, UsageError
from skelebot.secret import Secret, read_env_file, reveal, reveal_all, typed_secret


def test_a_secret_shows_nothing_of_itself() -> None:
    secret = typed_secret("hunter2")
    assert f"{secret} {secret!r} {(secret,)}" == "*** *** (***,)"
    assert reveal(secret, {}) == "hunter2"
    assert typed_secret("hunter2") == secret
    assert typed_secret("other") != secret


def test_a_variable_is_looked_up_when_it_is_needed() -> None:
    secret = Secret("variable", "TOKEN")
    assert reveal(secret, {"TOKEN": "hunter2"}) == "hunter2"
    with pytest.raises(SkelebotError, match=r"^TOKEN is not set in the environment; set it"):
        reveal(secret, {})


def test_a_value_of_a_file_is_read_when_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "my.env"
    path.write_text("TOKEN=one\n")
    secret = Secret("file", "TOKEN", str(path))
    assert reveal(secret, {"TOKEN": "of the caller"}) == "one"
    path.write_text("TOKEN=two\n")
    assert reveal(secret, {}) == "two"
    path.write_text("")
    with pytest.raises(SkelebotError, match=f"^TOKEN is not set in {path}; set it"):
        reveal(secret, {})


def test_a_file_of_many_variables_is_read_once(tmp_path: Path) -> None:
    path = str(tmp_path / "many.env")
    expected = {f"NAME_{number}": str(number) for number in range(50)}
    Path(path).write_text("".join(f"{name}={value}\n" for name, value in expected.items()))
    opened = []
    sys.addaudithook(lambda event, args: opened.append(path) if event == "open" and args[0] == path else None)
    assert reveal_all([(name, Secret("file", name, path)) for name in expected], {}) == expected
    assert opened == [path]


def test_what_was_typed_elsewhere_is_not_known_here() -> None:
    with pytest.raises(SkelebotError, match="typed in another process; put it into an environment variable"):
        reveal(Secret("typed", "0123"), {"0123": "x"})


@pytest.mark.parametrize(
    ("data", "pairs"),
    [
        (b"A=1\nB=2\n", [("A", "1"), ("B", "2")]),
        (b"A=1", [("A", "1")]),
        (b"A=1\r\nB=2\r\n", [("A", "1"), ("B", "2")]),
        (b"\xef\xbb\xbfA=1\n", [("A", "1")]),
        (b"# comment\n\n  # more\nA=1 # a comment\nB=1#none\n", [("A", "1"), ("B", "1#none")]),
        (b"A=\nB\n", [("A", ""), ("B", None)]),
        (b"A=b=c\n", [("A", "b=c")]),
        (b"A='two words' # here\nB=\"a\\nb\"\n", [("A", "two words"), ("B", "a\nb")]),
        (b"A='two\nlines'\n", [("A", "two\nlines")]),
        (b"A='two\r\nlines'\r\n", [("A", "two\nlines")]),
        (b"export A=1\nA = 2\n", [("A", "1"), ("A", "2")]),
        (b"A=$HOME\nB=${HOME}\n", [("A", "$HOME"), ("B", "${HOME}")]),
        ("A=\u00e9\u2603\n".encode(), [("A", "\u00e9\u2603")]),
        (b"A=caf\xe9\n", [("A", "caf\udce9")]),
        ("A=x\u2028y\n".encode(), [("A", "x\u2028y")]),
    ],
)
def test_how_an_env_file_is_read(tmp_path: Path, data: bytes, pairs: list[tuple[str, str | None]]) -> None:
    (tmp_path / ".env").write_bytes(data)
    assert list(read_env_file(str(tmp_path / ".env"), ".env")) == pairs


@pytest.mark.parametrize("line", ["A B=1", "=1", "A='open", "A=1\0", "1A=1", "A-B=1"])
def test_a_wrong_line_of_an_env_file_is_reported_without_its_value(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"X=1\n\n{line}\n")
    with pytest.raises(UsageError, match=r"^\.env:3: expected NAME=VALUE") as error:
        list(read_env_file(str(tmp_path / ".env"), ".env"))
    assert "open" not in str(error.value)


def test_an_env_file_that_is_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(UsageError, match=r"\.env cannot be read: is not an ordinary file"):
        list(read_env_file(str(tmp_path / ".env"), ".env"))
