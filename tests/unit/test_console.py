"""What Skelebot prints shows no password of an address, and leaves nothing behind."""

import os
import pty
import subprocess
import sys

import pytest

from skelebot import console


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:s3cret@host/x", "https://user:***@host/x"),
        ("git+ssh://u:p%40q:r@host", "git+ssh://u:***@host"),
        ("a tcp://u:p@ss@h:1 and https://:p@h", "a tcp://u:***@h:1 and https://:***@h"),
        ("https://ghp_0123456789abcdefghij@github.com/o/r", "https://***@github.com/o/r"),
        ("https://user@host:80/a@b", "https://user@host:80/a@b"),
        ("ssh://git@host", "ssh://git@host"),
        ("https://u:${PIP_TOKEN}@h https://u:$T@h", "https://u:${PIP_TOKEN}@h https://u:$T@h"),
        ("http://host:8080/?mail=a@b.c", "http://host:8080/?mail=a@b.c"),
        ('{"a":"http://h:1","b":"x@y"}', '{"a":"http://h:1","b":"x@y"}'),
        ("user:pass@host", "user:pass@host"),
    ],
)
def test_a_password_in_an_address_is_masked(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.masked(text) == shown
    for show in (console.info, console.error, console.detail, console.out):
        show(text)
    printed = capsys.readouterr()
    assert [line.removeprefix("INFO  | ").removeprefix("ERROR | ") for line in printed.err.splitlines()] == [
        shown
    ] * 3
    assert printed.out == f"{shown}\n"


# --- how things are worded ---


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (41, "41 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (3499, "3.5 kB"),
        (99_949, "99.9 kB"),
        (99_951, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_000_000_000_000, "1000 GB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert console.size(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 files"),
        (1, "1 file"),
        (2, "2 files"),
        (2000, "2,000 files"),
        (0.5, "0.5 files"),
        (1.0, "1 file"),
    ],
)
def test_a_number_with_its_noun(count: float, text: str) -> None:
    assert console.counted(count, "file") == text


@pytest.mark.parametrize(("bare", "titles"), [(False, ["NAME    FILE"]), (True, [])])
def test_a_table(bare: bool, titles: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("NAME", "FILE"), [("a", "x\ny"), ("longer", "")], bare)
    assert capsys.readouterr().out.splitlines() == [*titles, "a       x\\ny", "longer"]


def test_a_table_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("NAME",), [])
    assert capsys.readouterr().out == ""


def test_half_a_surrogate_pair_is_shown() -> None:
    """JSON may hold it; Python's own stand for bytes that are no UTF-8."""
    assert console.one_line("\ud800x \udcff") == "\\ud800x \\udcff"
    assert console.one_line("\udcff") == "\\xff"


def test_a_progress_bar_on_a_terminal_leaves_no_thread_that_takes_signals() -> None:
    """Otherwise a signal that `foreground.uninterrupted` puts off would come at once."""
    script = (
        "import threading; from skelebot import console\n"
        "with console.progress('pulling', 100) as add: add(100)\n"
        "print(len(threading.enumerate()))"
    )
    ours, terminal = pty.openpty()
    try:
        program = (sys.executable, "-c", script)
        done = subprocess.run(program, stdout=subprocess.PIPE, stderr=terminal, text=True, check=True)
    finally:
        os.close(ours)
        os.close(terminal)
    assert done.stdout == "1\n"
