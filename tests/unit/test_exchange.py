"""Folders that are brought in step over a pair of streams: here with another folder of this machine."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from skelebot import process
from skelebot.errors import SkelebotError
from skelebot.model import Step
from skelebot.runners.docker.exchange import TOP, Folder, exchange

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs the find and tar of GNU")


class Sides:
    """A folder here and one there; `sync` is before a job, `fetch` after it."""

    def __init__(self, tmp_path: Path) -> None:
        self.here, self.top = tmp_path / "here", tmp_path / "there"
        self.there, self.state = self.top / "0", tmp_path / "state.json"
        self.in_use = False
        for folder in (self.here, self.there):
            folder.mkdir(parents=True)

    def transport(
        self, script: str, write_stdin: Callable[[IO[bytes]], None], read_stdout: Callable[[IO[bytes]], bool]
    ) -> None:
        script = script.replace(TOP, str(self.top)).replace("/tmp/list", str(self.top / "list"))
        code, whole, said = process.pipe(Step(("sh", "-c", script)), write_stdin, read_stdout)
        if code != 0 or not whole:
            raise SkelebotError(said)

    def run(self, both_ways: bool) -> None:
        left_out = str(self.here / ".skelebot")
        folder = Folder(str(self.here), str(self.state), left_out, ".part", lambda: self.in_use)
        exchange([folder], "far", self.transport, both_ways, False)

    def send(self) -> None:
        self.run(True)

    def fetch(self) -> None:
        self.run(False)


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in files
    }


def later(path: Path, text: str) -> None:
    """Write a file, some seconds after whatever was written before."""
    path.write_text(text)
    time = path.stat().st_mtime_ns + 5 * 10**9
    os.utime(path, ns=(time, time))


def test_what_is_here_goes_there_and_results_come_back(sides: Sides) -> None:
    (sides.here / "a b\n").mkdir()
    (sides.here / "a b\n/é").write_text("1")
    (sides.here / "link").symlink_to("a b\n")
    (sides.here / ".skelebot").mkdir()
    (sides.here / ".skelebot/own").write_text("stays")
    sides.send()
    assert tree(sides.there) == {"a b\n/é": "1", "link": "a b\n"}
    (sides.there / "out/deep").mkdir(parents=True)
    (sides.there / "out/deep/result").write_text("2")
    later(sides.there / "a b\n/é", "3")
    sides.fetch()
    assert tree(sides.here) == {
        ".skelebot/own": "stays",
        "a b\n/é": "3",
        "link": "a b\n",
        "out/deep/result": "2",
    }
    assert list(sides.here.glob("*.part")) == []


def test_after_a_job_nothing_is_sent_or_deleted_there(sides: Sides) -> None:
    (sides.here / "old").write_text("1")
    sides.send()
    (sides.here / "old").unlink()
    (sides.here / "new").write_text("2")
    sides.fetch()
    assert tree(sides.there) == {"old": "1"}
    assert tree(sides.here) == {"new": "2"}
    sides.send()
    assert tree(sides.there) == {"new": "2"}


def test_what_is_deleted_here_after_a_job_is_deleted_there(sides: Sides) -> None:
    (sides.here / "gone").write_text("1")
    (sides.here / "stays").write_text("2")
    sides.send()
    sides.fetch()
    later(sides.here / "stays", "3")
    sides.send()
    (sides.here / "gone").unlink()
    sides.send()
    assert tree(sides.there) == {"stays": "3"}


def test_what_a_running_job_is_writing_stays_there_for_now(sides: Sides) -> None:
    (sides.there / "growing").write_text("1")
    sides.in_use = True
    sides.send()
    assert tree(sides.here) == {}
    sides.in_use = False
    sides.send()
    assert tree(sides.here) == tree(sides.there) == {"growing": "1"}


def test_nothing_is_written_through_a_link_here(
    sides: Sides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (sides.there / "out").mkdir()
    (sides.there / "out/result").write_text("1")
    (sides.here / "out").symlink_to(tmp_path / "elsewhere")
    sides.fetch()
    assert os.listdir(tmp_path / "elsewhere") == []
    assert "was kept" in capsys.readouterr().err


@pytest.mark.parametrize("lines", ["exit 3", "echo 100; printf abc", "echo no number", "true"])
def test_an_answer_that_breaks_off_changes_nothing(sides: Sides, lines: str) -> None:
    (sides.here / "old").write_text("1")
    sides.send()
    (sides.there / "new").write_text("2")
    before = sides.state.read_bytes()
    real = sides.transport
    sides.transport = lambda script, *streams: real(lines, *streams)  # type: ignore[method-assign]
    with pytest.raises(SkelebotError):
        sides.fetch()
    assert tree(sides.here) == {"old": "1"}
    assert sides.state.read_bytes() == before


def test_a_send_that_breaks_off_is_made_good(sides: Sides) -> None:
    """What was on its way is remembered: half of a file there is not what a job wrote."""
    (sides.here / "data").write_text("1" * 100)
    real = sides.transport
    sides.transport = lambda script, *streams: real(  # type: ignore[method-assign]
        script.replace("tar --extract", f"cat >/dev/null; printf 1 >{sides.there}/data; exit 1; tar"),
        *streams,
    )
    with pytest.raises(SkelebotError):
        sides.send()
    assert (sides.there / "data").read_text() == "1"
    sides.transport = real  # type: ignore[method-assign]
    later(sides.there / "data", "1")
    sides.send()
    assert tree(sides.here) == tree(sides.there) == {"data": "1" * 100}


def test_without_folders_nothing_runs(sides: Sides) -> None:
    exchange([], "far", sides.transport, True, False)
    assert not (sides.top / "list").exists()
