"""What a build sends to the engine: the files less the ignored ones, and the tar that holds them."""

import io
import os
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skelebot.errors import SkelebotError
from skelebot.image import context, sizes
from skelebot.image.ignores import DEFAULTS, Ignores
from skelebot.image.tar import write_tar

from .helpers import ordinary_user, write


def walked(root: Path, *patterns: str) -> list[str]:
    return [entry.path for entry in context.walk(str(root), Ignores(patterns))]


FILES = ("a.txt", "data/big.csv", "data/keep.txt", "data/raw/x/keep.txt", "src/main.py")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        write(tmp_path, name, name)
    return tmp_path


# What engines of both builders answer: an exception that begins with a pattern brings nothing back
# from below a folder that is left out.
@pytest.mark.parametrize(
    ("patterns", "files"),
    [
        ((), FILES),
        (("data",), ("a.txt", "src/main.py")),
        (("data", "!data/keep.txt"), ("a.txt", "data/keep.txt", "src/main.py")),
        (("data", "!data/raw/x/keep.txt"), ("a.txt", "data/raw/x/keep.txt", "src/main.py")),
        (("data", "!**/keep.txt"), ("a.txt", "src/main.py")),
        (("data", "!*/keep.txt"), ("a.txt", "src/main.py")),
        (("data", "!data/*/*/keep.txt"), ("a.txt", "src/main.py")),
        (("data", "!d?ta/keep.txt"), ("a.txt", "src/main.py")),
        (("data/**", "!data/**/keep.txt"), ("a.txt", "data/keep.txt", "src/main.py")),
        (("**/data", "!data/keep.txt"), ("a.txt", "data/keep.txt", "src/main.py")),
        (("*", "!src"), ("src/main.py",)),
        (("*", "!src/main.py"), ("src/main.py",)),
        (("*", "!**/main.py"), ()),
        (("**",), ()),
        (("data/*", "!data/raw"), ("a.txt", "data/raw/x/keep.txt", "src/main.py")),
    ],
    ids=lambda value: ",".join(value),
)
def test_what_is_kept_below_an_ignored_folder_is_found(
    tree: Path, patterns: tuple[str, ...], files: tuple[str, ...]
) -> None:
    assert [path for path in walked(tree, *patterns) if (tree / path).is_file()] == sorted(files)


def test_folders_come_before_what_is_in_them_and_all_is_sorted(tree: Path) -> None:
    (tree / "empty").mkdir()
    found = walked(tree)
    expected = (
        "a.txt data data/big.csv data/keep.txt data/raw data/raw/x data/raw/x/keep.txt empty src src/main.py"
    )
    assert found == expected.split()


# --- the tar ---


def tar_of(root: Path, *patterns: str, dockerfile: str = "FROM scratch\n") -> dict[str, tarfile.TarInfo]:
    stream = io.BytesIO()
    entries = context.walk(str(root), Ignores((*DEFAULTS, *patterns)))
    write_tar(stream, entries, "p/", ("Dockerfile", dockerfile))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        members = tar.getmembers()
        assert len({m.name for m in members}) == len(members)
        for member in members:
            file = tar.extractfile(member) if member.isreg() else None
            member.pax_headers = {"content": file.read().decode("utf-8", "replace") if file else ""}
        return {m.name.removeprefix("p/") if m.name != "Dockerfile" else "": m for m in members}


def content(member: tarfile.TarInfo) -> str:
    return str(member.pax_headers["content"])


def test_the_tar_holds_the_files_in_a_folder_and_the_dockerfile_beside_it(tree: Path) -> None:
    write(tree, "FROM evil", "Dockerfile")
    tar = tar_of(tree, "data", dockerfile="FROM é\n")
    assert list(tar) == ["", "p", "Dockerfile", "a.txt", "src", "src/main.py"]
    assert content(tar[""]) == "FROM é\n"
    assert content(tar["Dockerfile"]) == "FROM evil"
    assert content(tar["src/main.py"]) == "src/main.py"


def test_the_folder_is_in_the_tar_also_with_nothing_in_it(tree: Path) -> None:
    tar = tar_of(tree, "*")
    assert list(tar) == ["", "p"]
    assert (tar["p"].isdir(), tar["p"].mode, tar["p"].mtime) == (True, 0o755, 0)


def test_nobodys_checkout_shows_in_the_tar(tree: Path) -> None:
    if os.getuid() == 0:
        os.chown(tree / "a.txt", 1234, 1234)
        os.chown(tree / "src", 1, 1)  # a user and a group that have names
    owners = {(m.uid, m.gid, m.uname, m.gname) for m in tar_of(tree).values()}
    assert owners == {(0, 0, "", "")}


def test_a_dockerfile_of_the_users_own_is_taken_with_the_builds_text(tree: Path) -> None:
    stream = io.BytesIO()
    write(tree, "FROM a", "docker/Mine")
    entries = context.walk(str(tree), Ignores(()))
    write_tar(stream, entries, "", ("docker/Mine", "FROM b"))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        assert tar.getnames().count("docker/Mine") == 1
        file = tar.extractfile("docker/Mine")
        assert file
        assert file.read() == b"FROM b"


def test_the_tar_says_nothing_of_who_made_it_and_keeps_the_modes(tree: Path) -> None:
    (tree / "a.txt").chmod(0o750)
    for member in tar_of(tree).values():
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
    assert tar_of(tree)["a.txt"].mode == 0o750


def test_links_stay_links(tree: Path) -> None:
    (tree / "to-file").symlink_to("a.txt")
    (tree / "to-folder").symlink_to("data")
    (tree / "to-nowhere").symlink_to("/no/such/file")
    (tree / "to-itself").symlink_to("to-itself")
    (tree / "hard.txt").hardlink_to(tree / "a.txt")
    tar = tar_of(tree, "data")
    assert {n: m.linkname for n, m in tar.items() if m.issym()} == {
        "to-file": "a.txt",
        "to-folder": "data",
        "to-nowhere": "/no/such/file",
        "to-itself": "to-itself",
    }
    assert tar["hard.txt"].islnk()
    assert tar["hard.txt"].linkname == "p/a.txt"


def test_a_hard_link_to_an_ignored_file_has_the_content(tree: Path) -> None:
    (tree / "hard.txt").hardlink_to(tree / "a.txt")
    tar = tar_of(tree, "a.txt")
    assert content(tar["hard.txt"]) == "a.txt"


def test_what_has_no_content_is_left_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)  # the name of a socket must be short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert {"pipe", "socket"}.isdisjoint(tar_of(tree))


def test_names_may_hold_anything(tree: Path) -> None:
    names = ["a b", "a\nb", "é", os.fsdecode(b"caf\xe9"), "x" * 200, "deep/" * 40 + "file"]
    for name in names:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert set(names) <= set(tar_of(tree))


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that an ordinary user can look into, whoever runs the tests."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_cannot_be_read_is_told_with_what_to_do(readable: Path, kind: str) -> None:
    path = readable / "sub" / "secret"
    if kind == "file":
        write(readable, "x", "sub/secret")
    else:
        path.mkdir(parents=True)
    path.chmod(0)
    with ordinary_user(), pytest.raises(SkelebotError) as caught:
        tar_of(readable)
    assert str(caught.value) == (
        "sub/secret cannot be read: permission denied; fix that or add it to `ignores`"
    )
    with ordinary_user():
        assert "sub" in tar_of(readable, "sub/secret")


# --- heavy parts ---


def test_many_heavy_files_do_not_make_more_layers_than_an_image_can_have(tmp_path: Path) -> None:
    for number in range(100):
        file = tmp_path / f"data/{number % 50}/{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            stream.truncate(11_000_000)
    (tmp_path / "script.py").write_text("")
    (tmp_path / "model").write_bytes(b"")
    os.truncate(tmp_path / "model", 1_000_000_000)
    entries = context.walk(str(tmp_path), Ignores(()))
    assert sizes.heavy_paths(entries, 10_000_000) == ["data", "model"]
