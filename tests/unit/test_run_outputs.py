"""The outputs of two runs are compared bit by bit."""

import os
from pathlib import Path

import pytest

from skelebot.runs import outputs


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with equal outputs."""
    for name in ("a", "b"):
        folder = tmp_path / name / "models"
        folder.mkdir(parents=True)
        (folder / "m.pt").write_bytes(b"\0" * 3_000_000)
        (folder / "run.sh").write_text("x")
        (folder / "run.sh").chmod(0o755)
        (folder / "latest").symlink_to("m.pt")
    return tmp_path / "a", tmp_path / "b"


def compare(pair: tuple[Path, Path], *ignored: str) -> outputs.Comparison:
    return outputs.compare(str(pair[0]), str(pair[1]), ["models"], ignored)


def test_equal_outputs_are_the_same(pair: tuple[Path, Path]) -> None:
    assert compare(pair) == (("models/latest", "models/m.pt", "models/run.sh"), {})


def test_one_byte_at_the_end_differs(pair: tuple[Path, Path]) -> None:
    (pair[1] / "models/m.pt").write_bytes(b"\0" * 2_999_999 + b"\1")
    assert compare(pair).differing == {"models/m.pt": "other content"}


def test_permissions_links_and_types_count(pair: tuple[Path, Path]) -> None:
    models = pair[1] / "models"
    (models / "run.sh").chmod(0o644)
    (models / "latest").unlink()
    (models / "latest").symlink_to("run.sh")
    (models / "m.pt").unlink()
    (models / "m.pt").mkdir()
    assert compare(pair).differing == {
        "models/latest": "another link",
        "models/m.pt": "of another type",
        "models/run.sh": "other permissions",
    }


def test_a_missing_and_a_new_file_and_an_empty_folder_count(pair: tuple[Path, Path]) -> None:
    (pair[1] / "models/m.pt").unlink()
    (pair[1] / "models/empty").mkdir()
    assert compare(pair).differing == {"models/m.pt": "missing now", "models/empty": "new"}


@pytest.mark.parametrize("ignored", ["models/m.pt", "models", "models/", "*.pt"])
def test_what_is_ignored_does_not_count(pair: tuple[Path, Path], ignored: str) -> None:
    (pair[1] / "models/m.pt").write_text("other")
    assert compare(pair, ignored).differing == {}


def test_only_declared_outputs_are_compared(pair: tuple[Path, Path]) -> None:
    (pair[1] / "log.txt").write_text("x")
    assert compare(pair).differing == {}


def test_nothing_behind_a_link_is_listed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("x")
    (tmp_path / "top").mkdir()
    (tmp_path / "top/link").symlink_to(tmp_path / "outside")
    top = str(tmp_path / "top")
    assert list(outputs.listing(top, ["link/secret"])) == []
    assert list(outputs.listing(top, ["link"])) == ["link"]
    assert list(outputs.listing(top, [""])) == ["", "link"]


def test_a_pipe_does_not_block_the_comparison(pair: tuple[Path, Path]) -> None:
    for folder in pair:
        os.mkfifo(folder / "models/pipe")
    assert compare(pair).differing == {}
