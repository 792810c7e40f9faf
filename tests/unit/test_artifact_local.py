"""A folder as a store."""

import hashlib
import os
from pathlib import Path

import pytest

from skelebot.components.repository.local import LocalStore
from skelebot.components.repository.store import AlreadyStored, Stored, Upload
from skelebot.errors import SkelebotError


def upload(tmp_path: Path, content: bytes) -> Upload:
    (tmp_path / "m.pkl").write_bytes(content)
    return Upload.of(str(tmp_path / "m.pkl"))


def push(tmp_path: Path, key: str, content: bytes, force: bool = False) -> list[int]:
    counts: list[int] = []
    pushed = LocalStore(str(tmp_path / "store")).push(key, upload(tmp_path, content), force, counts.append)
    assert pushed.sha256 == hashlib.sha256(content).hexdigest()
    assert pushed.sent == len(content)
    return counts


def test_a_pushed_object_has_its_checksum(tmp_path: Path) -> None:
    assert sum(push(tmp_path, "sub/m_v1.0.0.pkl", b"content")) == 7
    store = LocalStore(str(tmp_path / "store"))
    stored = store.head("sub/m_v1.0.0.pkl")
    assert stored
    digest = hashlib.sha256(b"content").hexdigest()
    assert (stored.key, stored.size, stored.sha256) == ("sub/m_v1.0.0.pkl", 7, digest)
    assert stored.modified.endswith("+00:00")
    line = (tmp_path / "store/sub/m_v1.0.0.pkl.sha256").read_text()
    assert line == f"{digest}  m_v1.0.0.pkl\n"
    assert sorted(os.listdir(tmp_path / "store/sub")) == ["m_v1.0.0.pkl", "m_v1.0.0.pkl.sha256"]


def test_a_key_is_stored_once_unless_forced(tmp_path: Path) -> None:
    push(tmp_path, "m", b"one")
    with pytest.raises(AlreadyStored, match="m is already in the store; bump the version"):
        push(tmp_path, "m", b"two")
    assert (tmp_path / "store/m").read_bytes() == b"one"
    push(tmp_path, "m", b"two", force=True)
    assert (tmp_path / "store/m").read_bytes() == b"two"


def test_a_listing_has_the_objects_with_a_prefix_alone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    names = ["m_v1", "m_v1.sha256", "m_v2", "n_v1", "lone.sha256", "m_v3.0123abcd.skelebot-part", "sub/m_v1"]
    for name in names:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(b"x")
    local = LocalStore(str(store))
    assert [stored.key for stored in local.list("m_v")] == ["m_v1", "m_v2"]
    assert [stored.key for stored in local.list("sub/")] == ["sub/m_v1"]
    assert [stored.key for stored in local.list("")] == ["lone.sha256", "m_v1", "m_v2", "n_v1"]
    assert list(local.list("nowhere/")) == []


@pytest.mark.parametrize("key", ["../m", "/etc/m", "a/../../m", "."])
def test_a_key_stays_inside_the_store(tmp_path: Path, key: str) -> None:
    with pytest.raises(SkelebotError, match="outside the store"):
        LocalStore(str(tmp_path / "store")).head(key)


def test_what_is_not_a_file_is_not_an_object(tmp_path: Path) -> None:
    (tmp_path / "store/folder").mkdir(parents=True)
    (tmp_path / "store/file").write_bytes(b"")
    store = LocalStore(str(tmp_path / "store"))
    assert [store.head(key) for key in ("absent", "folder", "file/below")] == [None] * 3


def test_a_pull_resumes(tmp_path: Path) -> None:
    push(tmp_path, "m", b"0123456789")
    (tmp_path / "part").write_bytes(b"0123")
    shown, prefix = list[int](), list[int]()
    stored = Stored("m", 10, "")
    sent = LocalStore(str(tmp_path / "store")).pull(
        stored, str(tmp_path / "part"), shown.append, prefix.append
    )
    assert (sent, shown, prefix) == (6, [4, 6], [4, 6])
    assert (tmp_path / "part").read_bytes() == b"0123456789"


def test_a_file_that_changes_is_not_stored(tmp_path: Path) -> None:
    one = upload(tmp_path, b"one")
    assert one.sha256 == hashlib.sha256(b"one").hexdigest()
    (tmp_path / "m.pkl").write_bytes(b"other")
    with pytest.raises(SkelebotError, match="changed while it was pushed"):
        LocalStore(str(tmp_path / "store")).push("m", one, False, lambda count: None)
    assert os.listdir(tmp_path / "store") == []


def test_a_store_that_does_not_exist_yet(tmp_path: Path) -> None:
    LocalStore(str(tmp_path / "new/store")).check()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SkelebotError, match=r"cannot be (written|read)"):
        LocalStore(str(tmp_path / "file/store")).check()
