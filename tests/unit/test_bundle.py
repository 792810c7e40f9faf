"""A file of runs is taken in whole or not at all, and nothing in it is trusted."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from skelebot.errors import SkelebotError, UsageError
from skelebot.image.context import walk
from skelebot.image.ignores import Ignores
from skelebot.json_form import to_json
from skelebot.model import Mount
from skelebot.runs import bundle, snapshot, workspace
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store, opened

from .helpers import write
from .test_difference import run, task

UID = "0123456789abcdef" * 2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return opened(str(tmp_path / "store"))


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return opened(str(tmp_path / "other"))


@pytest.fixture
def one(tmp_path: Path, store: Store) -> RunRecord:
    """A run with code and outputs."""
    write(tmp_path / "project", "echo hi\n", "train.sh")
    (tmp_path / "cache").mkdir()
    entries = walk(str(tmp_path / "project"), Ignores(()))
    tree = snapshot.take(store.folder, entries, str(tmp_path / "cache"))
    (added,) = store.add(
        [replace(run(task(tree=tree, outputs=("models/",))), uid=UID, state="done", number=0)]
    )
    workspace.keep(store, UID, added.tasks)
    models = Path(store.run_folder(added.number)) / "outputs/models"
    models.mkdir(parents=True)
    (models / "m.pt").write_bytes(b"\0" * 100)
    (models / "m.pt").chmod(0o754)
    (models / "latest").symlink_to("m.pt")
    return added


def exported(store: Store, one: RunRecord, tmp_path: Path) -> str:
    path = str(tmp_path / "runs.tar")
    bundle.write(store, [one], path)
    return path


def test_a_run_arrives_with_code_outputs_and_uid(
    store: Store, other: Store, one: RunRecord, tmp_path: Path
) -> None:
    other.add([replace(one, uid="f" * 32)])
    (added,), known = bundle.read(other, exported(store, one, tmp_path), None)
    assert (added.number, added.uid, known) == (2, UID, [])
    assert snapshot.contents(other.folder, added.tasks[0].tree) == snapshot.contents(
        store.folder, one.tasks[0].tree
    )
    models = Path(other.run_folder(2)) / "outputs/models"
    assert (models / "m.pt").read_bytes() == b"\0" * 100
    assert (models / "m.pt").stat().st_mode & 0o777 == 0o754
    assert os.readlink(models / "latest") == "m.pt"
    snapshot.collect(other.folder, young=0)
    assert snapshot.contents(other.folder, added.tasks[0].tree)


def test_a_run_that_is_there_is_skipped(store: Store, one: RunRecord, tmp_path: Path) -> None:
    assert bundle.read(store, exported(store, one, tmp_path), None) == ([], [UID])
    assert len(store.find()) == 1


def test_of_many_imports_at_once_one_adds_the_run(
    store: Store, other: Store, one: RunRecord, tmp_path: Path
) -> None:
    path = exported(store, one, tmp_path)
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda _: bundle.read(other, path, None), range(8)))
    assert sorted(len(added) for added, _ in found) == [0] * 7 + [1]


@pytest.mark.parametrize("with_parent", [True, False])
def test_a_parent_that_is_there_is_found(
    store: Store, other: Store, one: RunRecord, tmp_path: Path, with_parent: bool
) -> None:
    """Whether or not it is in the file, too."""
    other.add([replace(one, uid="f" * 32)])
    bundle.read(other, exported(store, one, tmp_path), None)
    (child,) = store.add([replace(one, uid="e" * 32, parent=1)])
    path = str(tmp_path / "child.tar")
    bundle.write(store, [one, child] if with_parent else [child], path)
    bundle.read(other, path, None)
    assert [(run.uid, run.parent) for run in other.find(last=1)] == [(child.uid, 2)]


def test_no_file_is_replaced(store: Store, one: RunRecord, tmp_path: Path) -> None:
    write(tmp_path, "mine", "runs.tar")
    with pytest.raises(UsageError, match="already exists"):
        exported(store, one, tmp_path)
    assert (tmp_path / "runs.tar").read_text() == "mine"


def test_a_run_that_is_removed_meanwhile_is_not_exported(
    store: Store, one: RunRecord, tmp_path: Path
) -> None:
    one = store.get(1)
    store.remove(1)
    with pytest.raises(SkelebotError, match="run 1 was changed or removed meanwhile; try again"):
        exported(store, one, tmp_path)
    assert not list(tmp_path.glob("runs.tar*"))


def test_a_link_that_leads_out_is_left_out(
    store: Store, other: Store, one: RunRecord, tmp_path: Path
) -> None:
    models = Path(store.run_folder(1)) / "outputs/models"
    (models / "data").symlink_to("/etc")
    os.mkfifo(models / "pipe")
    path = str(tmp_path / "runs.tar")
    assert bundle.write(store, [one], path) == [f"{UID}/outputs/models/data", f"{UID}/outputs/models/pipe"]
    bundle.read(other, path, None)


def test_hashes_of_secrets_are_not_taken_for_those_of_this_store(
    store: Store, other: Store, one: RunRecord, tmp_path: Path
) -> None:
    one = store.update(1, lambda run: replace(run, variables=(("TOKEN", "hash"),), after=(7,), parent=9))
    (added,), _ = bundle.read(other, exported(store, one, tmp_path), None)
    assert (added.variables, added.after, added.parent) == ((("TOKEN", ""),), (), 0)


def test_a_run_of_the_project_here_becomes_one_of_this_checkout(
    store: Store, other: Store, one: RunRecord, tmp_path: Path
) -> None:
    first = one.tasks[0]
    mounts = (Mount("/demo/data", "/app/data"), Mount("/demolition", "/app/x"))
    moved = replace(first, task=replace(first.task, mounts=mounts))
    one = store.update(1, lambda run: replace(run, tasks=(moved,), data=(("/demo/data", "f"),)))
    (added,), _ = bundle.read(other, exported(store, one, tmp_path), ("demo", "/elsewhere"))
    assert (added.root, added.tasks[0].image.context) == ("/elsewhere", "/elsewhere")
    assert [mount.source for mount in added.tasks[0].task.mounts] == ["/elsewhere/data", "/demolition"]
    assert added.data == (("/elsewhere/data", "f"),)


# --- files that nobody has exported ---

Forge = Callable[[tarfile.TarFile], None]


def forged(path: str, forge: Forge) -> str:
    with tarfile.open(path, "a") as archive:
        forge(archive)
    return path


def add(archive: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    archive.addfile(member, io.BytesIO())


HOSTILE: dict[str, Forge] = {
    "absolute": lambda a: add(a, "/etc/x"),
    "above": lambda a: add(a, f"{UID}/outputs/../../../x"),
    "dot": lambda a: add(a, f"{UID}/outputs/./x"),
    "elsewhere": lambda a: add(a, "runs.db"),
    "not of a run": lambda a: add(a, f"{UID}/lock"),
    "device": lambda a: add(a, f"{UID}/outputs/x", tarfile.CHRTYPE),
    "pipe": lambda a: add(a, f"{UID}/outputs/x", tarfile.FIFOTYPE),
    "hard link": lambda a: add(a, f"{UID}/outputs/x", tarfile.LNKTYPE, "/etc/passwd"),
    "absolute link": lambda a: add(a, f"{UID}/outputs/x", tarfile.SYMTYPE, "/etc"),
    "link out": lambda a: add(a, f"{UID}/outputs/x", tarfile.SYMTYPE, "../../.."),
    "link in the log": lambda a: add(a, f"{UID}/tasks/x", tarfile.SYMTYPE, "y"),
    "link in the code": lambda a: add(a, "code/x", tarfile.SYMTYPE, "y"),
    "twice": lambda a: add(a, f"{UID}/outputs/models/m.pt"),
    "a link over a folder": lambda a: add(a, f"{UID}/outputs/models", tarfile.SYMTYPE, "x"),
}


def chained(archive: tarfile.TarFile) -> None:
    """Links that stay inside by their texts, and lead out together."""
    add(archive, f"{UID}/outputs/a/b/up", tarfile.SYMTYPE, "../..")
    add(archive, f"{UID}/outputs/a/b/out", tarfile.SYMTYPE, "up/../..")


def through(archive: tarfile.TarFile) -> None:
    """A link whose place is behind another link."""
    add(archive, f"{UID}/outputs/a", tarfile.SYMTYPE, "models")
    add(archive, f"{UID}/outputs/a/x", tarfile.SYMTYPE, "m.pt")


def file_through(archive: tarfile.TarFile) -> None:
    add(archive, f"{UID}/outputs/a", tarfile.SYMTYPE, "models")
    add(archive, f"{UID}/outputs/a/x")


@pytest.mark.parametrize("forge", [*HOSTILE.values(), chained, through, file_through])
def test_a_forged_file_adds_nothing(
    store: Store, other: Store, one: RunRecord, tmp_path: Path, forge: Forge
) -> None:
    path = forged(exported(store, one, tmp_path), forge)
    with pytest.raises(SkelebotError, match="nothing was added"):
        bundle.read(other, path, None)
    assert other.find() == []
    assert [name for name in os.listdir(other.folder) if name.startswith("import-")] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": "e" * 32},
        {"state": "queued"},
        {"state": "lost"},
        {"root": "/demo/../etc"},
        {"root": "relative"},
        {"root": "/"},
        {"tasks": []},
        {"packages": ["../../x"]},
        {"number": "1"},
        {"unknown": 1},
        {"created": 1e300},
        {"created": float("nan")},
        {"ended": 10**400},
        {"priority": 10**30},
    ],
)
def test_a_record_that_no_store_writes_adds_nothing(
    store: Store, other: Store, one: RunRecord, tmp_path: Path, changes: dict[str, object]
) -> None:
    path = exported(store, one, tmp_path)
    fresh = str(tmp_path / "forged.tar")
    text = json.dumps(to_json(one) | changes).encode()
    with tarfile.open(path) as before, tarfile.open(fresh, "w") as after:
        for member in before:
            if member.name == f"{UID}/run.json":
                member.size = len(text)
                after.addfile(member, io.BytesIO(text))
            else:
                after.addfile(member, before.extractfile(member) if member.isreg() else None)
    with pytest.raises(SkelebotError, match="nothing was added"):
        bundle.read(other, fresh, None)
    assert other.find() == []


def test_a_job_that_no_configuration_has_adds_nothing(
    store: Store, other: Store, one: RunRecord, tmp_path: Path
) -> None:
    store.update(one.number, lambda run: run.with_task(0, job="\ud800"))
    path = exported(store, store.get(one.number), tmp_path)
    with pytest.raises(SkelebotError, match="nothing was added"):
        bundle.read(other, path, None)


def test_damaged_code_adds_nothing(store: Store, other: Store, one: RunRecord, tmp_path: Path) -> None:
    path = exported(store, one, tmp_path)
    data = Path(path).read_bytes()
    at = data.index(b"PACK") + 40
    Path(path).write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    with pytest.raises(SkelebotError):
        bundle.read(other, path, None)
    assert other.find() == []


@pytest.mark.parametrize("part", [0, 100, 5_000])
def test_a_cut_file_adds_nothing(
    store: Store, other: Store, one: RunRecord, tmp_path: Path, part: int
) -> None:
    path = exported(store, one, tmp_path)
    os.truncate(path, part)
    with pytest.raises(SkelebotError):
        bundle.read(other, path, None)
    assert other.find() == []
