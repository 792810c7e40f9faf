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


def test_pipes_in_a_store_are_no_objects_and_no_checksums(tmp_path: Path) -> None:
    push(tmp_path, "m", b"content")
    store = LocalStore(str(tmp_path / "store"))
    (tmp_path / "store/m.sha256").unlink()
    for name in ("pipe", "m.sha256"):
        os.mkfifo(tmp_path / "store" / name)
    assert [(stored.key, stored.sha256) for stored in store.list("")] == [("m", None)]
    assert store.head("pipe") is None


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


# --- pushes that are killed ---

OLD, NEW = (hashlib.sha256(content).hexdigest() for content in (b"old", b"new"))


@pytest.mark.parametrize(
    ("content", "recorded", "pending", "expected"),
    [
        (b"old", OLD, [], OLD),
        (b"old", OLD, [NEW], OLD),  # killed before it replaced the object
        (b"new", OLD, [NEW], NEW),  # and after
        (b"new", None, [NEW], NEW),
        (b"new", OLD, [NEW, OLD], NEW),
        (b"bad", None, [NEW], NEW),
        (b"old", None, [], None),
        (b"new", OLD, [NEW[:30]], OLD),  # killed while it noted the checksum
    ],
)
def test_the_checksum_after_a_killed_push(
    tmp_path: Path, content: bytes, recorded: str | None, pending: list[str], expected: str | None
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "m").write_bytes(content)
    if recorded:
        (store / "m.sha256").write_text(f"{recorded}  m\n")
    for i, sha256 in enumerate(pending):
        (store / f"m.sha256.0000000{i}.skelebot-part").write_text(f"{sha256}  m\n")
    (store / "m2.sha256.00000000.skelebot-part").write_text(f"{'0' * 64}  m2\n")
    local = LocalStore(str(store))
    stored = local.head("m")
    assert stored
    assert stored.sha256 == expected
    assert [one.sha256 for one in local.list("m")] == [expected]


def test_a_damaged_object_has_neither_checksum_of_a_killed_push(tmp_path: Path) -> None:
    push(tmp_path, "m", b"old")
    (tmp_path / "store/m").write_bytes(b"bad")
    (tmp_path / "store/m.sha256.00000000.skelebot-part").write_text(f"{NEW}  m\n")
    stored = LocalStore(str(tmp_path / "store")).head("m")
    assert stored
    assert stored.sha256 in (OLD, NEW)


def test_what_a_killed_push_noted_is_removed_by_a_later_one(tmp_path: Path) -> None:
    push(tmp_path, "m", b"old")
    pending = tmp_path / "store/m.sha256.00000000.skelebot-part"
    pending.write_text(f"{NEW}  m\n")
    os.utime(pending, (1, 1))
    with pytest.raises(AlreadyStored):
        push(tmp_path, "m", b"new")
    assert pending.exists()  # it may belong to the object
    push(tmp_path, "m", b"new", force=True)
    assert sorted(os.listdir(tmp_path / "store")) == ["m", "m.sha256"]


def test_an_object_that_grows_while_it_is_pulled(tmp_path: Path) -> None:
    push(tmp_path, "m", b"0123456789")
    sent = LocalStore(str(tmp_path / "store")).pull(
        Stored("m", 4, ""), str(tmp_path / "part"), lambda count: None, lambda count: None
    )
    assert (sent, (tmp_path / "part").read_bytes()) == (4, b"0123")
