"""A folder as one archive, and back."""

import gzip
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from skelebot.components.repository import archive
from skelebot.components.repository.store import Unusable
from skelebot.errors import SkelebotError


def folder(tmp_path: Path) -> Path:
    top = tmp_path / "model"
    (top / "empty").mkdir(parents=True)
    (top / "weights").write_bytes(bytes(range(256)))
    (top / "run.sh").write_text("#!/bin/sh\n")
    (top / "run.sh").chmod(0o755)
    (top / "link").symlink_to("weights")
    return top


def written(*members: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return raw.getvalue()


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644, size: int = 0
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, size
    return info


def unpack(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "a.tar.gz").write_bytes(data)
    archive.unpack(str(tmp_path / "a.tar.gz"), str(tmp_path / "out"))
    return tmp_path / "out"


def test_there_and_back(tmp_path: Path) -> None:
    archive.pack(str(folder(tmp_path)), str(tmp_path / "a.tar.gz"))
    out = unpack(tmp_path, (tmp_path / "a.tar.gz").read_bytes())
    assert sorted(os.listdir(out)) == ["empty", "link", "run.sh", "weights"]
    assert (out / "weights").read_bytes() == bytes(range(256))
    assert stat.S_IMODE((out / "run.sh").stat().st_mode) == 0o755
    assert (out / "link").readlink() == Path("weights")


def test_the_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    top = folder(tmp_path)
    packed = []
    for when in (1_000_000_000, 1_700_000_000):
        os.utime(top / "weights", (when, when))
        archive.pack(str(top), str(tmp_path / f"{when}.tar.gz"))
        packed.append((tmp_path / f"{when}.tar.gz").read_bytes())
    assert packed[0] == packed[1]


SYM, HARD, DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member("../x")], "leads out"),
        ([member("a/../../x")], "leads out"),
        ([member("/x")], "leads out"),
        ([member("x", SYM, "../y")], "leads out"),
        ([member("x", SYM, "/etc/passwd")], "leads out"),
        ([member("x", HARD, "../y")], "leads out"),
        ([member("x", SYM, "."), member("x/y")], "leads out"),
        ([member("a", SYM, "."), member("x", HARD, "a/y")], "leads out"),
        (
            [member("a", DIR, mode=0o755), member("a/b", SYM, ".."), member("c", SYM, "a/b/../y")],
            "leads out|outside",
        ),
        ([member("x", SYM, "y"), member("y", SYM, "x")], "leads out"),
        ([member("x", tarfile.FIFOTYPE)], "is not a file, folder or link"),
        ([member("x", tarfile.CHRTYPE)], "is not a file, folder or link"),
    ],
)
def test_what_could_be_written_outside_is_refused(
    tmp_path: Path, members: list[tarfile.TarInfo], message: str
) -> None:
    with pytest.raises(Unusable, match=message):
        unpack(tmp_path, written(*members))


@pytest.mark.parametrize(
    "data",
    [b"", b"not an archive", written(member("x", size=9999))[:-30], gzip.compress(b"not a tar" * 99)],
    ids=["empty", "text", "cut off", "packed text"],
)
def test_what_is_not_an_archive(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Unusable, match="cannot be unpacked"):
        unpack(tmp_path, data)


def test_no_rights_come_with_it(tmp_path: Path) -> None:
    out = unpack(tmp_path, written(member("x", mode=0o6777), member("closed", DIR, mode=0)))
    assert stat.S_IMODE((out / "x").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "closed").stat().st_mode) & 0o700 == 0o700


def test_what_would_be_refused_is_not_packed(tmp_path: Path) -> None:
    top = folder(tmp_path)
    (top / "out").symlink_to("/etc/passwd")
    with pytest.raises(SkelebotError, match="leads out"):
        archive.pack(str(top), str(tmp_path / "a.tar.gz"))


# --- the size ---


def test_a_folder_that_compresses_well_comes_back(tmp_path: Path) -> None:
    top = folder(tmp_path)
    os.truncate(top / "weights", 50 << 20)
    archive.pack(str(top), str(tmp_path / "a.tar.gz"))
    assert (tmp_path / "a.tar.gz").stat().st_size < 100_000
    out = unpack(tmp_path, (tmp_path / "a.tar.gz").read_bytes())
    assert (out / "weights").stat().st_size == 50 << 20


def announced(size: int, *members: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    headers = {"SKELEBOT.unpacked": str(size)}
    with tarfile.open(fileobj=raw, mode="w:gz", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
        for one in members:
            tar.addfile(one, io.BytesIO(bytes(one.size)))
    return raw.getvalue()


MB = 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        written(member("x", size=50 * MB)),
        written(*(member(f"x{i}", size=MB) for i in range(50))),
        announced(10 * MB, member("x", size=10 * MB + 1)),
        announced(10 * MB, *(member(f"x{i}", size=MB) for i in range(11))),
        gzip.compress(gzip.decompress(written(member("x"))) + bytes(50 * MB)),
        written(member("y"), member("x" * 20 * MB)),
    ],
    ids=["one", "many", "announced", "many announced", "a tail", "a name"],
)
def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Unusable, match="unpacks to more than"):
        unpack(tmp_path, data)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 15 * MB
