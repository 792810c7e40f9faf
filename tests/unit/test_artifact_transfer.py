"""Artifacts found, pushed and pulled, with a folder as their store."""

import hashlib
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from skelebot.components.repository import find, target, transfer
from skelebot.components.repository.checksum import Checksum
from skelebot.components.repository.local import LocalStore
from skelebot.components.repository.partial import partial_file, target_lock
from skelebot.components.repository.settings import Artifact
from skelebot.components.repository.store import AlreadyStored, Stored, Unusable, make_executable
from skelebot.errors import SkelebotError
from skelebot.model import Project

MODEL = Artifact("model", "models/m.pkl")


def project(root: Path, version: str | None = "1.4.0") -> Project:
    return Project(name="a", root=str(root), version=version)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project/models").mkdir(parents=True)
    (tmp_path / "project/models/m.pkl").write_bytes(b"mine")
    return tmp_path / "project"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def put(root: Path, *keys: str) -> None:
    for key in keys:
        path = root.parent / "store" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode())


def push(root: Path, store: LocalStore, artifact: Artifact, version: str = "1.4.0", **options: Any) -> Any:
    item = find.in_project(str(root), artifact, "", version)
    return transfer.push(store, item, str(root), options.get("force", False))()


def pull(root: Path, store: LocalStore, artifact: Artifact, version: str = "LATEST", **options: Any) -> Any:
    item = find.in_store(store, project(root), artifact, "", version)
    return transfer.pull(store, item, str(root), options.get("override", False))()


# --- finding ---


@pytest.mark.parametrize(
    ("artifact", "key", "path", "is_folder"),
    [
        (MODEL, "p/model_v1.0.0.pkl", "models/m.pkl", False),
        (Artifact("t", "t.csv", singular=True), "p/t.csv", "t.csv", False),
        (Artifact("d", "out/"), "p/d_v1.0.0.tar.gz", "out", True),
        (Artifact("d", "models"), "p/d_v1.0.0.tar.gz", "models", True),  # which exists
        (Artifact("d", "out"), "p/d_v1.0.0", "out", False),
    ],
)
def test_an_artifact_in_the_project(
    root: Path, artifact: Artifact, key: str, path: str, is_folder: bool
) -> None:
    item = find.in_project(str(root), artifact, "p/", "1.0.0")
    assert (item.key, item.path, item.is_folder) == (key, str(root / path), is_folder)
    assert item.version == (None if artifact.singular else "1.0.0")


def test_versions_are_listed_lowest_first(root: Path, store: LocalStore) -> None:
    put(root, "model_v1.10.0.pkl", "model_v1.9.0.pkl", "model_v1.4.0.pkl", "model_v1.4.0.h5", "model.pkl")
    listed = find.list_versions(store, str(root), MODEL, "")
    assert [version for _, version in listed] == ["1.4.0", "1.9.0", "1.10.0"]
    assert find.latest_key(listed, project(root)) == "model_v1.4.0.pkl"
    assert find.latest_key(listed, project(root, "1.9.5")) == "model_v1.9.0.pkl"
    assert find.latest_key(listed, project(root, "2.0.0")) is None
    assert find.latest_key(listed, project(root, None)) is None
    assert find.latest_key([], project(root)) is None


def test_the_latest_version_in_the_store(root: Path, store: LocalStore) -> None:
    put(root, "model_v1.3.0.pkl", "model_v1.5.0.pkl")
    item = find.in_store(store, project(root), MODEL, "", "LATEST")
    assert (item.version, item.key, item.stored and item.stored.size) == ("1.3.0", "model_v1.3.0.pkl", 16)
    with pytest.raises(SkelebotError, match=r"there are: 1\.3\.0, 1\.5\.0"):
        find.in_store(store, project(root, "2.0.0"), MODEL, "", "LATEST")
    with pytest.raises(SkelebotError, match=r"model_v1\.4\.0\.pkl is not in the store; see"):
        find.in_store(store, project(root), MODEL, "", "1.4.0")


@pytest.mark.parametrize(
    ("keys", "is_folder"),
    [
        (["out_v1.4.0.tar.gz"], True),
        (["out_v1.4.0"], False),
        (["out_v1.4.0.tar.gz", "out_v1.3.0"], False),
        ([], False),
    ],
)
def test_only_the_store_can_tell_that_a_name_is_a_folder(
    root: Path, store: LocalStore, keys: list[str], is_folder: bool
) -> None:
    put(root, *keys)
    listed = find.list_versions(store, str(root), Artifact("out", "out"), "")
    assert [stored.key.endswith(".tar.gz") for stored, _ in listed] == [is_folder] * bool(keys)


# --- pushing and pulling ---


def test_a_file_there_and_back(root: Path, store: LocalStore) -> None:
    pushed = push(root, store, MODEL)
    digest = hashlib.sha256(b"mine").hexdigest()
    assert pushed == transfer.Result(
        "model", "1.4.0", "model_v1.4.0.pkl", f"{root}/models/m.pkl", 4, digest, 4
    )
    pulled = pull(root, store, MODEL)
    assert pulled.path == f"{root}/model_v1.4.0.pkl"
    assert (root / "model_v1.4.0.pkl").read_bytes() == b"mine"
    (root / "models/m.pkl").write_bytes(b"changed")
    assert pull(root, store, MODEL, override=True).path == f"{root}/models/m.pkl"
    assert (root / "models/m.pkl").read_bytes() == b"mine"
    assert os.listdir(root / ".skelebot/parts") == []


def test_a_folder_there_and_back(root: Path, store: LocalStore) -> None:
    pushed = push(root, store, Artifact("d", "models/"))
    assert (pushed.key, pushed.path) == ("d_v1.4.0.tar.gz", f"{root}/models")
    assert pull(root, store, Artifact("d", "models/")).path == f"{root}/d_v1.4.0"
    assert os.listdir(root / "d_v1.4.0") == ["m.pkl"]


def test_a_push_is_checked_before_a_byte_moves(root: Path, store: LocalStore) -> None:
    push(root, store, MODEL)
    os.mkfifo(root / "pipe")
    (root / "endless").symlink_to("/dev/zero")
    for artifact, message in (
        (MODEL, "is already in the store"),
        (Artifact("x", "pipe"), "is not an ordinary file"),
        (Artifact("x", "endless"), "is not an ordinary file"),
        (Artifact("x", "absent.pkl"), "there is no file"),
        (Artifact("x", "models/m.pkl/"), "is a file, but"),
    ):
        with pytest.raises(SkelebotError, match=message):
            transfer.push(store, find.in_project(str(root), artifact, "", "1.4.0"), str(root), False)
    with pytest.raises(AlreadyStored):
        push(root, store, MODEL)
    push(root, store, MODEL, force=True)


def test_a_damaged_object_replaces_nothing(root: Path, store: LocalStore) -> None:
    push(root, store, MODEL)
    (root.parent / "store/model_v1.4.0.pkl").write_bytes(b"ours")
    with pytest.raises(Unusable, match="arrived damaged"):
        pull(root, store, MODEL, override=True)
    assert (root / "models/m.pkl").read_bytes() == b"mine"
    assert os.listdir(root / ".skelebot/parts") == []


def test_a_file_that_can_be_executed(root: Path, store: LocalStore) -> None:
    tool = Artifact("tool", "tool.sh")
    (root / "tool.sh").write_text("#!/bin/sh\n")
    (root / "tool.sh").chmod(0o750)
    push(root, store, tool)
    pull(root, store, tool)
    assert os.access(root / "tool_v1.4.0.sh", os.X_OK)
    (root / "tool.sh").chmod(0o640)
    push(root, store, tool, force=True)
    pull(root, store, tool)
    assert not (root / "tool_v1.4.0.sh").stat().st_mode & 0o111


# --- a folder that holds more than the version ---

FOLDER = Artifact("d", "models/")


def versions_of_a_folder(root: Path, store: LocalStore) -> None:
    """1.0.0 has m.pkl and old/a; 1.1.0 has m.pkl and new."""
    (root / "models/old").mkdir()
    (root / "models/old/a").write_bytes(b"a")
    push(root, store, FOLDER, "1.0.0")
    target.remove(str(root / "models/old"))
    (root / "models/new").write_bytes(b"new")
    push(root, store, FOLDER, "1.1.0")
    target.remove(str(root / "models"))
    target.remove(str(root / ".skelebot"))


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_was_never_stored_stays(root: Path, store: LocalStore) -> None:
    versions_of_a_folder(root, store)
    pull(root, store, FOLDER, "1.0.0", override=True)
    assert tree(root / "models") == ["m.pkl", "old", "old/a"]
    (root / "models/mine/empty").mkdir(parents=True)
    (root / "models/mine/link").symlink_to("nowhere")
    (root / "models/old/notes").write_bytes(b"notes")
    (root / "models/m.pkl").write_bytes(b"changed")
    for _ in range(2):
        pull(root, store, FOLDER, "1.1.0", override=True)
        assert tree(root / "models") == [
            *("m.pkl", "mine", "mine/empty", "mine/link", "new", "old", "old/notes"),
        ]
    assert (root / "models/m.pkl").read_bytes() == b"mine"  # the version's own
    assert (root / "models/mine/link").readlink() == Path("nowhere")


def test_what_was_pulled_and_then_changed_stays(root: Path, store: LocalStore) -> None:
    versions_of_a_folder(root, store)
    pull(root, store, FOLDER, "1.0.0", override=True)
    (root / "models/old/a").write_bytes(b"another")
    pull(root, store, FOLDER, "1.1.0", override=True)
    assert (root / "models/old/a").read_bytes() == b"another"


def test_what_was_pushed_from_here_goes(root: Path, store: LocalStore) -> None:
    versions_of_a_folder(root, store)
    pull(root, store, FOLDER, "1.1.0", override=True)
    (root / "models/extra").write_bytes(b"extra")
    push(root, store, FOLDER, "1.2.0")
    (root / "models/later").write_bytes(b"later")
    pull(root, store, FOLDER, "1.1.0", override=True)
    assert tree(root / "models") == ["later", "m.pkl", "new"]


def test_without_a_record_every_file_stays(root: Path, store: LocalStore) -> None:
    versions_of_a_folder(root, store)
    pull(root, store, FOLDER, "1.0.0", override=True)
    target.remove(str(root / ".skelebot"))
    pull(root, store, FOLDER, "1.1.0", override=True)
    assert tree(root / "models") == ["m.pkl", "new", "old", "old/a"]


@pytest.mark.parametrize("mine", ["new/mine", "m.pkl/mine"])
def test_a_file_in_the_way_of_the_versions_files(root: Path, store: LocalStore, mine: str) -> None:
    versions_of_a_folder(root, store)
    (root / "models" / mine).parent.mkdir(parents=True)
    (root / "models" / mine).write_bytes(b"mine")
    with pytest.raises(SkelebotError, match="is in the way of the version's files"):
        pull(root, store, FOLDER, "1.1.0", override=True)
    assert (root / "models" / mine).read_bytes() == b"mine"


def test_a_file_in_the_way_of_a_folder(root: Path, store: LocalStore) -> None:
    versions_of_a_folder(root, store)
    (root / "models").write_bytes(b"mine")
    item = find.in_store(store, project(root), FOLDER, "", "1.1.0")
    with pytest.raises(SkelebotError, match="is a file, and the artifact a folder"):
        transfer.pull(store, item, str(root), True)()
    (root / "models").unlink()
    (root / "models").mkdir()
    (root / "models/old").write_bytes(b"mine")
    with pytest.raises(SkelebotError, match="is in the way"):
        pull(root, store, FOLDER, "1.0.0", override=True)
    assert (root / "models/old").read_bytes() == b"mine"


# --- links ---


def test_a_link_to_a_file_stays_a_link(root: Path, store: LocalStore, tmp_path: Path) -> None:
    push(root, store, MODEL)
    (tmp_path / "disk").mkdir()
    for content in (b"other", None):  # also one that leads to a file yet to come
        (root / "models/m.pkl").unlink()
        (root / "models/m.pkl").symlink_to(tmp_path / "disk/m.pkl")
        if content:
            (tmp_path / "disk/m.pkl").write_bytes(content)
        assert pull(root, store, MODEL, override=True).path == f"{root}/models/m.pkl"
        assert (root / "models/m.pkl").is_symlink()
        assert (tmp_path / "disk/m.pkl").read_bytes() == b"mine"
        (tmp_path / "disk/m.pkl").unlink()
    (tmp_path / "disk").rmdir()
    with pytest.raises(SkelebotError, match="and there is no folder"):
        pull(root, store, MODEL, override=True)


def test_a_link_to_a_folder_stays_a_link(root: Path, store: LocalStore, tmp_path: Path) -> None:
    versions_of_a_folder(root, store)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/mine").write_bytes(b"mine")
    (root / "models").symlink_to(tmp_path / "disk")
    for version, expected in (
        ("1.0.0", ["m.pkl", "mine", "old", "old/a"]),
        ("1.1.0", ["m.pkl", "mine", "new"]),
    ):
        pull(root, store, FOLDER, version, override=True)
        assert (root / "models").is_symlink()
        assert tree(tmp_path / "disk") == expected


def test_an_object_that_becomes_shorter_is_damaged(root: Path, store: LocalStore) -> None:
    """Also one without a checksum, which another tool has stored."""
    put(root, "model_v1.4.0.pkl")
    item = find.in_store(store, project(root), MODEL, "", "1.4.0")
    os.truncate(root.parent / "store/model_v1.4.0.pkl", 4)
    with pytest.raises(Unusable, match="arrived damaged"):
        transfer.pull(store, item, str(root), False)()


@pytest.mark.parametrize(("mode", "expected"), [(0o644, 0o755), (0o640, 0o750), (0o600, 0o700)])
def test_who_can_read_can_execute(tmp_path: Path, mode: int, expected: int) -> None:
    (tmp_path / "tool").touch()
    (tmp_path / "tool").chmod(mode)
    make_executable(str(tmp_path / "tool"))
    assert (tmp_path / "tool").stat().st_mode & 0o777 == expected


# --- the target ---


def test_a_folder_is_not_replaced_by_a_file(root: Path, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"new")
    with pytest.raises(SkelebotError, match="is a folder, and the artifact a file"):
        target.put_file(str(tmp_path / "part"), str(root / "models"), False)
    assert os.listdir(root / "models") == ["m.pkl"]


def test_an_interrupted_replacement_is_undone(root: Path) -> None:
    os.rename(root / "models", root / "models.skelebot-old")
    (root / "models.skelebot-new").mkdir()
    target.recover(str(root / "models"))
    assert sorted(os.listdir(root)) == ["models"]
    assert os.listdir(root / "models") == ["m.pkl"]


def test_a_finished_replacement_is_cleaned_up(root: Path) -> None:
    (root / "models.skelebot-old").mkdir()
    target.recover(str(root / "models"))
    assert sorted(os.listdir(root)) == ["models"]


def test_what_is_write_protected_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"")
    (tmp_path / "a/link").symlink_to(tmp_path)
    for folder in ("a/b", "a"):
        (tmp_path / folder).chmod(0o555)
    target.remove(str(tmp_path / "a"))
    target.remove(str(tmp_path / "absent"))
    assert os.listdir(tmp_path) == []


# --- partial downloads ---


def interrupted(root: Path, stored: Stored, error: SkelebotError, content: bytes) -> None:
    with suppress(type(error)), partial_file(str(root), "m", stored) as part:
        Path(part).write_bytes(content)
        raise error


def test_a_partial_file_is_kept_for_the_next_call(root: Path) -> None:
    stored = Stored("m", 10, "", "0" * 64)
    interrupted(root, stored, SkelebotError("cut off"), b"0123")
    with partial_file(str(root), "m", Stored("m", 10, "", "1" * 64)) as other:
        assert not os.path.exists(other)  # other content
    with partial_file(str(root), "m", Stored("m", 10, "", "0" * 64)) as part:
        assert Path(part).read_bytes() == b"0123"
    interrupted(root, stored, Unusable("damaged"), b"0123")
    with partial_file(str(root), "m", stored) as part:
        assert not os.path.exists(part)
        Path(part).write_bytes(b"whole")
    assert os.listdir(root / ".skelebot/parts") == []


def test_partial_files_are_kept_for_a_week(root: Path) -> None:
    parts, now = root / ".skelebot/parts", time.time()
    for name, days in (("older", 7.1), ("younger", 6.9)):
        (parts / name).mkdir(parents=True)
        os.utime(parts / name, (now, now - days * 24 * 3600))
    with partial_file(str(root), "m", Stored("m", 1, "")):
        pass
    assert os.listdir(parts) == ["younger"]


def test_a_lock_is_removed_with_its_file(root: Path) -> None:
    with target_lock(str(root), "m"):
        assert len(os.listdir(root / ".skelebot/parts")) == 1
    assert os.listdir(root / ".skelebot/parts") == []


@pytest.mark.parametrize("counts", [[], [3_000_000], [1, 1_999_999], [500_000, 500_000, 500_000]])
def test_the_checksum_of_a_file_that_arrives(tmp_path: Path, counts: list[int]) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "part").write_bytes(content)
    with Checksum(str(tmp_path / "part")) as checksum:
        for count in counts:
            checksum.add(count)
        assert checksum.sha256() == hashlib.sha256(content).hexdigest()


def test_the_checksum_is_computed_while_the_file_arrives(tmp_path: Path) -> None:
    content, part, others = os.urandom(3_000_000), tmp_path / "part", set(threading.enumerate())
    with Checksum(str(part)) as checksum:
        checksum.add(0)  # a download reports that there is nothing yet
        time.sleep(0.05)
        part.write_bytes(content)
        checksum.add(1_000_000)
        checksum.add(2_000_000)
    for thread in set(threading.enumerate()) - others:
        thread.join()
    part.write_bytes(bytes(3_000_000))  # would be read now if anything were left to read
    assert checksum.sha256() == hashlib.sha256(content).hexdigest()
