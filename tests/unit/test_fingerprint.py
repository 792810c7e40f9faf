"""The fingerprint of a build's files covers what an image would hold, and nothing else."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from skelebot.image import instructions, sizes
from skelebot.image.context import walk
from skelebot.image.fingerprint import FingerprintCache
from skelebot.image.ignores import Ignores

from .helpers import write

LONG_AGO = 1_000_000_000


def fingerprint(root: Path, *shadowed: str) -> str:
    cache = FingerprintCache(str(root.parent), "demo.latest")
    return cache.fingerprint("FROM a\n", walk(str(root), Ignores(()), shadowed), "all")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(tmp_path / "p", "a", "a.txt")
    write(tmp_path / "p", "b", "sub/b.txt")
    return tmp_path / "p"


@pytest.mark.parametrize(
    ("mode", "same"), [(0o644, True), (0o664, True), (0o646, True), (0o755, False), (0o600, False)]
)
def test_who_may_write_does_not_count_but_who_may_execute_does(tree: Path, mode: int, same: bool) -> None:
    (tree / "a.txt").chmod(0o644)
    before = fingerprint(tree)
    (tree / "a.txt").chmod(mode)
    assert (fingerprint(tree) == before) is same


def test_times_do_not_count_and_content_does(tree: Path) -> None:
    before = fingerprint(tree)
    os.utime(tree / "a.txt", (LONG_AGO, LONG_AGO))
    assert fingerprint(tree) == before
    (tree / "a.txt").write_text("c")
    os.utime(tree / "a.txt", (LONG_AGO, LONG_AGO))
    assert fingerprint(tree) != before


def test_what_a_mapping_lies_over_does_not_count(tree: Path) -> None:
    before = fingerprint(tree, "sub")
    (tree / "sub/b.txt").write_text("changed")
    (tree / "sub/c.txt").write_text("new")
    assert fingerprint(tree, "sub") == before
    assert [entry.path for entry in walk(str(tree), Ignores(()), ("sub",))] == ["a.txt"]


def test_files_that_changed_just_now_are_not_remembered(tree: Path) -> None:
    """Their times may not show the next change."""
    fingerprint(tree)
    assert [name for name in os.listdir(tree.parent) if name != "p"] == []


def test_what_was_not_written_for_long_is_removed(tmp_path: Path) -> None:
    for name, age in (("outdated.stats", 10**7), ("recent.stats", 10**5), ("demo.hashes", 10**7)):
        os.utime(write(tmp_path, "", name), (time.time() - age, time.time() - age))
    (tmp_path / "p").mkdir()
    fingerprint(tmp_path / "p")
    assert sorted(os.listdir(tmp_path)) == ["demo.hashes", "demo.latest.all.stats", "p", "recent.stats"]


def test_a_folder_is_heavy_only_by_what_no_layer_below_it_takes(tmp_path: Path) -> None:
    for name, size in (("data/big", 50), ("data/small", 5), ("many/a", 6), ("many/b", 6)):
        write(tmp_path, "x" * size, name)
    assert sizes.heavy_paths(walk(str(tmp_path), Ignores(())), 10) == ["data/big", "many"]


@pytest.mark.parametrize("word", ["a<<EOF", "a\nb"])
def test_a_word_that_docker_would_read_otherwise_is_json(word: str) -> None:
    assert instructions.run_program("p", (word,)).startswith('RUN ["p", "')
    assert instructions.run_program("p", ("a b", "$c")) == "RUN p 'a b' '$c'"


@pytest.mark.parametrize("text", ["a\n", "# 'a'\n\n\t$b = \"c\" \\\n", "<<EOF\n", "a\r\nb\n", "a\n" * 40_000])
def test_files_are_written_as_they_are(tmp_path: Path, text: str) -> None:
    files = {f"{tmp_path}/d/1": text, f"{tmp_path}/2": "x\n"}
    command = instructions.write_files(f"{tmp_path}/d", files).removeprefix("RUN ")
    argv = json.loads(command) if command.startswith("[") else ["sh", "-c", command.replace("\\\n", "")]
    subprocess.run(argv, check=True)
    assert {name: Path(name).read_bytes().decode() for name in files} == files


def test_files_are_written_line_by_line() -> None:
    assert instructions.write_files("/d", {"/d/1": "a b\n\tc\n"}) == (
        "RUN mkdir -p /d \\\n && printf '%s\\n' \\\n    'a b' \\\n    '\tc' \\\n    >/d/1"
    )
