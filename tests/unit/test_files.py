"""Whole files, locks and temporary folders."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from skelebot import files


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("before")
    files.replace_file(str(target), b"after", 0o600)
    assert target.read_text() == "after"
    assert target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        files.replace_file(str(tmp_path / "there"), b"")
    assert os.listdir(tmp_path) == ["there"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied", "x"), "permission denied"),
        (OSError("odd"), "odd"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_the_reason_in_an_error(error: OSError | UnicodeError, expected: str) -> None:
    assert files.reason(error).startswith(expected)


def test_only_ordinary_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="not an ordinary file"):
            files.open_regular(str(path))
    with pytest.raises(IsADirectoryError):
        files.open_regular(str(tmp_path))


def test_a_lock_shuts_others_out(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with files.locked(path), files.open_lock(path) as other:
        assert not files.try_lock(other)
        assert not files.try_lock(other, shared=True)
    with files.locked(path, shared=True), files.open_lock(path) as other:
        assert not files.try_lock(other)
        assert files.try_lock(other, shared=True)


def test_a_lock_that_is_removed_shuts_others_out_too(tmp_path: Path) -> None:
    """The second waits for the file that the first removes, and holds a new one after that."""
    path, waits, holds, leave = str(tmp_path / "lock"), Event(), Event(), Event()

    def second() -> None:
        with files.temporary_lock(path, waits.set):
            holds.set()
            leave.wait()

    with files.temporary_lock(path, waits.set):
        other = Thread(target=second, daemon=True)
        other.start()
        waits.wait()
    holds.wait()
    with files.open_lock(path) as third:
        assert not files.try_lock(third)
    leave.set()
    other.join()
    assert os.listdir(tmp_path) == []


def test_whoever_has_to_wait_for_a_lock_is_told_once(tmp_path: Path) -> None:
    path, waits = str(tmp_path / "lock"), []
    holder = files.open_lock(path)
    assert files.try_lock(holder)

    def on_wait() -> None:
        waits.append(1)
        holder.close()

    with files.locked(path, on_wait=on_wait):
        assert waits == [1]


def test_a_lock_is_never_opened_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("text")
    (tmp_path / "lock").symlink_to("secret")
    with pytest.raises(OSError, match="symbolic links"), files.locked(str(tmp_path / "lock")):
        pass


_HOLD = """
import sys, time
from skelebot import files
with files.private_folder() as folder:
    open(folder + "/login", "w").close()
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_killed_process_leaves_a_folder_that_is_swept_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "skelebot-private-file").touch()
    (tmp_path / "skelebot-work").mkdir()
    with subprocess.Popen([sys.executable, "-c", _HOLD], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        folder = Path(holder.stdout.readline().strip())
        assert folder.stat().st_mode & 0o777 == 0o700
        files.sweep()
        assert folder.exists()
        holder.send_signal(signal.SIGKILL)
    with files.private_folder() as mine:
        files.sweep()
        assert {path.name for path in tmp_path.iterdir()} == {
            "skelebot-private-file",
            "skelebot-work",
            Path(mine).name,
        }
    assert {path.name for path in tmp_path.iterdir()} == {"skelebot-private-file", "skelebot-work"}


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(tmp_path: Path) -> None:
    names = iter(["gone", "there"])
    (tmp_path / "there").mkdir()

    folder, number = files._locked_folder(lambda: str(tmp_path / next(names)))
    os.close(number)
    assert folder == str(tmp_path / "there")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can remove what belongs to others")
def test_what_belongs_to_somebody_else_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name, uid in (("skelebot-private-theirs", 12345), ("skelebot-private-mine", 0)):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, uid, uid)
    files.sweep()
    assert os.listdir(tmp_path) == ["skelebot-private-theirs"]
