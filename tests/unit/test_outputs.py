"""Files that Skelebot writes for the user: whole or not at all, and left out of later images."""

import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from skelebot import files, launch
from skelebot.component import Session
from skelebot.errors import SkelebotError, UsageError
from skelebot.image.ignores import DEFAULTS, Ignores
from skelebot.model import Flags
from skelebot.project import state

from .helpers import load, ordinary_user, write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- whole or not at all ---


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    target = write(tmp_path, "old", "out.tar")
    with files.whole_file(str(target)) as file:
        file.write(b"new")
        file.flush()
        assert target.read_text() == "old"
        [part] = [name for name in names(tmp_path) if name != "out.tar"]
        assert Ignores(DEFAULTS).excludes(f"data/{part}")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["out.tar"]


def test_it_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with files.whole_file(str(tmp_path / "out.tar")):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.tar").stat().st_mode) == 0o640


def write_and_fail(path: Path, error: BaseException) -> None:
    with files.whole_file(str(path)) as file:
        file.write(b"new")
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    target = write(tmp_path, "old", "out.tar")
    with pytest.raises(type(error)):
        write_and_fail(target, error)
    assert (names(tmp_path), target.read_text()) == (["out.tar"], "old")


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file of this process may become larger than 1000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("little_room")
def test_no_room_is_told_with_the_files_name(tmp_path: Path) -> None:
    target = write(tmp_path, "old", "out.tar")
    with pytest.raises(SkelebotError) as error, files.whole_file(str(target)) as file:
        file.write(b"x" * 2000)
    assert str(error.value) == f"{target} cannot be written: file too large"
    assert (names(tmp_path), target.read_text()) == (["out.tar"], "old")


def test_a_file_server_that_reports_a_full_disk_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS does: it takes what is written, and says only when asked that there is no room for it."""

    def fsync(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = write(tmp_path, "old", "out.tar")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(SkelebotError) as error, files.whole_file(str(target)) as file:
        file.write(b"new")
    assert str(error.value) == f"{target} cannot be written: no space left on device"
    assert (names(tmp_path), target.read_text()) == (["out.tar"], "old")


def test_what_another_file_lacks_is_not_blamed_on_this_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.whole_file(str(tmp_path / "out.tar")):
        (tmp_path / "missing").read_text()


# --- where it may be put ---


def test_a_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out.tar").symlink_to("there/image.tar")
    monkeypatch.chdir(tmp_path)
    assert files.output_path("out.tar") == str(tmp_path / "there/image.tar")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("missing/out.tar", "there is no folder"),
        ("folder", "folder is a folder"),
        ("new/", "new/ is a folder"),
        ("/dev/null", "/dev/null is not an ordinary file"),
        ("-", "only a file can be written here"),
    ],
)
def test_a_path_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        files.output_path(text)


def test_a_folder_of_somebody_elses(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with ordinary_user(), pytest.raises(UsageError, match="cannot be written"):
        files.output_path(str(tmp_path / "out.tar"))


# --- left out of later images ---


def left_out(root: Path, path: str) -> bool:
    image = launch.image(Session(load(root), (), Flags(), set(), set()))
    return Ignores(image.ignores).excludes(path)


def test_an_output_is_left_out_and_can_be_brought_back(tmp_path: Path) -> None:
    write(tmp_path, "name: a\n")
    assert not left_out(tmp_path, "out/a [1].tar")
    state.remember_output(str(tmp_path), str(tmp_path / "out/a [1].tar"))
    state.remember_output(str(tmp_path), str(tmp_path / "b.zip"))
    assert left_out(tmp_path, "out/a [1].tar")
    assert left_out(tmp_path, "b.zip")
    assert not left_out(tmp_path, "a 1.tar")
    write(tmp_path, "name: a\nignores: ['!b.zip']\n")
    assert not left_out(tmp_path, "b.zip")


def test_an_output_is_remembered_once_and_only_inside_of_the_project(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write(root, "name: a\n")
    for path in ("a.tar", "../b.tar", "a.tar", "..c.tar", "sub/../a.tar"):
        state.remember_output(str(root), str(root / path))
    assert state.outputs(str(root)) == ("a.tar", "..c.tar")


def test_a_name_that_is_not_utf8_is_remembered_too(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.tar")
    state.remember_output(str(tmp_path), str(tmp_path / name))
    assert state.outputs(str(tmp_path)) == (name,)


def test_without_outputs_there_are_none(tmp_path: Path) -> None:
    assert state.outputs(str(tmp_path)) == ()
    assert names(tmp_path) == []
