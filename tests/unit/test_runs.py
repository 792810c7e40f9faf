"""Runs as values, the store that keeps them, and which of them is next."""

import contextlib
import json
import multiprocessing
import os
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot import console, files, options
from skelebot.errors import SkelebotError, UsageError
from skelebot.json_form import from_json, to_json
from skelebot.model import NATIVE, Arg, Flags, Image, Limits, Mount, Param, Place, Task
from skelebot.runs import collect, supervise, worker, workspace
from skelebot.runs import store as stores
from skelebot.runs.record import NEXT, RunRecord, State, Sweep, TaskRecord, iso, view
from skelebot.runs.store import Slots, Store, kind_of_file_system, slots_of
from skelebot.secret import Secret

NO_LIMITS = Limits()
IMAGE = Image("demo:latest", "demo", base="", context="/p")


def task(
    job: str = "train", limits: Limits = NO_LIMITS, mounts: tuple[Mount, ...] = (), **facts: Any
) -> TaskRecord:
    work = Task(job, ("python", "train.py"), "/p", "demo", NATIVE, limits=limits, mounts=mounts)
    return TaskRecord(job, "0" * 40, IMAGE, work, **facts)


def run(uid: str = "u1", **facts: Any) -> RunRecord:
    facts = {"project": "demo", "root": "/p", "chain": ("train",), "tasks": (task(),), **facts}
    return RunRecord(uid=uid, **facts)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return stores.opened(str(tmp_path / "store"))


def add(store: Store, count: int = 1, **facts: Any) -> list[int]:
    runs = [run(os.urandom(8).hex(), **facts) for _ in range(count)]
    return [each.number for each in store.add(runs)]


def become(store: Store, number: int, *states: State) -> None:
    for state in states:
        store.update(number, lambda run, state=state: run.becoming(state))  # type: ignore[misc]


@pytest.mark.parametrize("host", ["ssh://gpu2", "gpu2", "k8s://gpu/ml"])
def test_a_run_waits_for_the_place_that_it_was_queued_for(store: Store, host: str) -> None:
    add(store, where=host)
    (candidate,) = store.waiting()
    assert candidate.place == Place.at(host)


# --- what a run may become ---

ALLOWED = {
    ("queued", "running"),
    ("queued", "stopped"),
    ("running", "done"),
    ("running", "failed"),
    ("running", "stopped"),
    ("running", "pruned"),
    ("running", "queued"),
    ("failed", "queued"),
    ("stopped", "queued"),
    ("pruned", "queued"),
}


@pytest.mark.parametrize("before", NEXT)
@pytest.mark.parametrize("after", NEXT)
def test_states(before: State, after: State) -> None:
    known = run(state=before, asked="stop")
    if (before, after) in ALLOWED:
        changed = known.becoming(after, "why")
        assert (changed.state, changed.reason, changed.asked) == (after, "why", "")
        assert changed.has_ended == (after not in ("queued", "running"))
    else:
        with pytest.raises(ValueError, match=f"{before} cannot become {after}"):
            known.becoming(after)


def test_times_of_a_run_are_those_of_its_last_start() -> None:
    """A run that waits again has taken no time, whatever it took before."""
    first = run().becoming("running")
    assert first.started > 0
    ended = first.becoming("failed")
    assert ended.started == first.started <= ended.ended
    waiting = ended.becoming("queued")
    assert (waiting.started, waiting.ended) == (0, 0)
    assert view(waiting)["seconds"] is None


def test_seconds_of_a_run_are_counted_to_its_end_or_to_now() -> None:
    assert view(run(started=100.0, ended=103.5))["seconds"] == 3.5
    assert view(run(started=time.time() - 5))["seconds"] >= 5


def test_only_a_running_run_is_asked_for_something() -> None:
    assert run(state="running").asked_to("stop").asked == "stop"
    assert run(state="done").asked_to("stop").asked == ""


def test_view_of_a_run() -> None:
    secret = task("score", code=3, state="failed", started=10.0, ended=11.5)
    shown = view(run(number=4, tasks=(task(params=(("rate", 0.1),)), secret), created=1.0, tags=("a",)))
    assert json.loads(json.dumps(shown)) == shown
    assert (shown["run"], shown["created"], shown["tags"]) == (4, "1970-01-01T00:00:01Z", ["a"])
    assert shown["params"] == {"train": {"rate": 0.1}, "score": {}}
    failed = {"job": "score", "state": "failed", "attempt": 0, "code": 3, "seconds": 1.5}
    assert shown["tasks"][1] == {**failed, "progress": None, "bad_lines": 0}
    assert iso(0) is None


def test_view_of_a_run_that_has_a_job_twice() -> None:
    twice = run(tasks=(task(params=(("rate", 1),)), task(params=(("rate", 2),))))
    assert view(twice)["params"] == {"train": {"rate": 1}, "train#2": {"rate": 2}}


# --- as JSON, and back ---

texts = st.text(st.characters(codec="utf-8"))
words = st.one_of(texts, st.builds(Secret, st.sampled_from(["variable", "file"]), texts, texts))
tasks = st.builds(
    TaskRecord,
    job=texts,
    tree=texts,
    image=st.builds(Image, texts, texts, base=texts, context=texts, pinned=texts),
    task=st.builds(
        Task,
        texts,
        st.lists(words).map(tuple),
        texts,
        place=st.builds(Place, st.sampled_from(["docker", "native"]), st.none() | texts),
        env=st.lists(st.tuples(texts, words)).map(tuple),
        mounts=st.lists(st.builds(Mount, texts, texts, st.booleans(), st.booleans())).map(tuple),
        limits=st.builds(Limits, st.floats(0, 99), st.integers(0), st.integers(0), st.integers(0)),
    ),
    params=st.lists(st.tuples(texts, st.one_of(texts, st.booleans(), st.lists(texts).map(tuple)))).map(tuple),
    outputs=st.lists(texts).map(tuple),
    code=st.none() | st.integers(0, 255),
    started=st.floats(0, 1e10),
    lost=st.booleans(),
)
runs = st.builds(
    RunRecord,
    uid=texts,
    project=texts,
    root=texts,
    chain=st.lists(texts).map(tuple),
    tasks=st.lists(tasks, min_size=1, max_size=2).map(tuple),
    state=st.sampled_from(list(NEXT)),
    tags=st.lists(texts).map(tuple),
    after=st.lists(st.integers(1)).map(tuple),
    dirty=st.none() | st.booleans(),
    images=st.lists(st.tuples(texts, texts)).map(tuple),
    asked=st.sampled_from(["", "stop", "queue"]),
    own=st.booleans(),
)


@given(runs)
def test_json_form(run: RunRecord) -> None:
    assert from_json(RunRecord, json.loads(json.dumps(to_json(run)))) == run


# --- the store ---


def test_numbers_count_through_the_store_and_are_not_used_again(store: Store) -> None:
    assert add(store, 2) == [1, 2]
    store.remove(2)
    assert add(store, root="/other") == [3]
    with pytest.raises(UsageError, match="there is no run 2"):
        store.get(2)
    assert not os.path.exists(store.run_folder(2))


def test_all_runs_are_added_or_none(store: Store) -> None:
    with pytest.raises(SkelebotError):
        store.add([run("same"), run("same")])
    assert store.find() == []
    assert os.listdir(os.path.dirname(store.run_folder(1))) == []
    assert stores.rebuild(store.folder) == 0


def test_a_change_that_fails_changes_nothing(store: Store) -> None:
    add(store)

    def fail(run: RunRecord) -> RunRecord:
        raise ValueError

    with pytest.raises(ValueError):
        store.update(1, fail)
    assert store.get(1).state == "queued"
    become(store, 1, "running")  # nobody holds the database


@pytest.mark.parametrize("number", [0, 7, 2**63, 10**30])
def test_unknown_run(store: Store, number: int) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        store.get(number)
    with pytest.raises(UsageError, match="there is no run"):
        store.update(number, lambda run: run)


def test_find_and_counts(store: Store) -> None:
    add(store, 3)
    add(store, name="deep", tags=("best", "it's"), root="/q", project="other")
    become(store, 2, "running")

    def found(**conditions: Any) -> list[int]:
        return [each.number for each in store.find(**conditions)]

    assert found() == [4, 3, 2, 1]
    assert found(last=2) == [4, 3]
    assert found(root="/p", states=("queued", "running"), last=2) == [3, 2]
    assert found(tag="it's") == found(name="deep") == found(project="other") == [4]
    assert found(tag="bes") == found(states=("failed",)) == []
    assert store.counts() == {"queued": 3, "running": 1}
    assert store.counts("/q") == {"queued": 1}
    assert store.states([1, 2, 99]) == {1: "queued", 2: "running"}


def test_paths_and_names_may_have_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    store = stores.opened(str(tmp_path / "store \udcff"))
    add(store, root="/p\udcff", name="\udc80")
    store.set("busy:/p\udcff", "x")
    assert [each.root for each in store.find(root="/p\udcff", name="\udc80")] == ["/p\udcff"]
    assert [root for _, root, _ in store.queued("/p\udcff")] == ["/p\udcff"]
    assert store.settings("busy:") == ["busy:/p\udcff"]
    assert stores.rebuild(store.folder) == 1


def test_every_run_is_a_file_too(store: Store) -> None:
    add(store)
    become(store, 1, "running", "failed")
    text = Path(store.run_folder(1), "run.json").read_text()
    assert from_json(RunRecord, json.loads(text)) == store.get(1)


def test_settings(store: Store) -> None:
    assert store.setting("paused") == ""
    store.set("paused", "why")
    assert store.setting("paused") == "why"


def test_mark_changes_with_every_write_alone(store: Store) -> None:
    before = store.mark()
    assert before
    store.find()
    assert store.mark() == before
    add(store)
    assert store.mark() != before


def test_only_the_user_can_look_into_the_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o755)
    store = stores.opened(str(tmp_path / "store"))
    assert stat.S_IMODE(os.stat(store.folder).st_mode) == 0o700


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(stores.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert stores.default_folder() == "/data/skelebot/experiments"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert stores.default_folder() == "/home/ada/.local/share/skelebot/experiments"
    monkeypatch.setenv(stores.VARIABLE, "/elsewhere")
    assert stores.default_folder() == "/elsewhere"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_store_of_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    for use in (stores.opened, stores.rebuild):
        with pytest.raises(SkelebotError, match="belongs to another user; set SKELEBOT_STORE"):
            use(str(tmp_path))


def test_place_where_no_store_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SkelebotError, match=r"cannot be made: .*; set SKELEBOT_STORE"):
        stores.opened(str(tmp_path / "file" / "store"))


# --- a store of another version, and a damaged one ---


def of_version(store: Store, version: int) -> None:
    with contextlib.closing(sqlite3.connect(os.path.join(store.folder, "runs.db"))) as database:
        database.execute(f"pragma user_version = {version}")


def test_store_of_a_later_version_is_refused_and_left_alone(store: Store) -> None:
    add(store)
    of_version(store, 9)
    for use in (stores.opened, stores.rebuild):
        with pytest.raises(SkelebotError, match=r"a later version of Skelebot .its format is 9.*upgrade"):
            use(store.folder)
    of_version(store, len(stores._VERSIONS))
    assert len(stores.opened(store.folder).find()) == 1


FIRST_TABLES = """
create table run(
    number integer primary key autoincrement, uid text not null unique, project text not null,
    root text not null, name text not null, state text not null, priority integer not null,
    cpus real not null, memory integer not null, gpus integer not null, document text not null);
create table made(key text primary key, number integer not null, task integer not null);
create table setting(name text primary key, value text not null);
pragma user_version = 1;
"""


def test_store_of_an_earlier_version_is_migrated_with_its_runs(tmp_path: Path) -> None:
    (tmp_path / "runs" / "000007").mkdir(parents=True)
    before = run(number=7)
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as database:
        database.executescript(FIRST_TABLES)
        values = (7, "u1", "demo", "/p", "", "queued", 0, 0, 0, 0, json.dumps(to_json(before)))
        database.execute(f"insert into run values ({', '.join('?' * 11)})", values)
        database.commit()
    store = stores.opened(str(tmp_path))
    assert store.get(7) == before
    store.update(7, lambda run: replace(run, sweep=Sweep("rates")))
    assert [each.number for each in store.find(sweep="rates")] == [7]
    assert store.find(sweep="others") == []
    assert [each.number for each in store.find(sweep="rates", last=10**30)] == [7]


def test_rebuild(store: Store) -> None:
    add(store, 4, tags=("kept",), priority=3)
    become(store, 2, "running", "done")
    before = store.find()
    Path(store.run_folder(3), "run.json").write_text('{"uid": "u3", "proj')  # the machine went down
    Path(store.run_folder(4), "run.json").unlink()
    Path(store.folder, "runs.db").write_bytes(b"no database at all" * 500)
    with pytest.raises(SkelebotError, match="damaged; `skelebot runs rebuild` rebuilds it"):
        stores.opened(store.folder)
    assert stores.rebuild(store.folder) == 2
    assert store.find() == before[2:]
    assert store.numbers("queued") == [1]
    assert add(store) == [5]
    assert stores.rebuild(store.folder) == 3  # also of a healthy one
    assert store.abandoned() == [f"{store.run_folder(4)}{files.PART}"]  # there is more than a record of 3


def test_rebuild_keeps_what_tasks_have_made_and_the_pause(store: Store) -> None:
    add(store, 2)
    for number in (1, 2):
        store.update(number, lambda run: run.with_task(0, key="k"))
        store.note_made("k", number, 0)
    store.set("paused", "lunch")
    assert stores.rebuild(store.folder) == 2
    assert store.made("k") == (2, 0)
    assert store.setting("paused") == "lunch"


def test_a_database_without_a_table_is_damaged(store: Store) -> None:
    with contextlib.closing(sqlite3.connect(f"{store.folder}/runs.db")) as database:
        database.execute("drop table run")
    with pytest.raises(SkelebotError, match="damaged; `skelebot runs rebuild` rebuilds it"):
        store.find()


def test_a_rebuild_that_fails_leaves_the_database_as_it_was(store: Store) -> None:
    add(store, 2)
    text = Path(store.run_folder(2), "run.json").read_text()
    before = store.find()
    Path(store.run_folder(2), "run.json").write_text(text.replace(before[0].uid, before[1].uid))
    files_before = sorted(os.listdir(store.folder))
    with pytest.raises(SkelebotError):
        stores.rebuild(store.folder)
    assert stores.opened(store.folder).find() == before
    assert sorted(os.listdir(store.folder)) == files_before


def test_a_field_of_a_later_version_is_neither_damage_nor_lost(store: Store) -> None:
    add(store)
    path = Path(store.run_folder(1), "run.json")
    later = path.read_text().replace('"uid"', '"novel": 1, "uid"')
    path.write_text(later)
    with contextlib.closing(sqlite3.connect(f"{store.folder}/runs.db")) as database:
        database.execute("update run set document = ?", (later,))
        database.commit()
    for use in (store.find, lambda: become(store, 1, "running"), lambda: stores.rebuild(store.folder)):
        with pytest.raises(SkelebotError, match=r"by a later version .*it has novel.*; upgrade Skelebot"):
            use()
    assert path.read_text() == later


def test_a_process_that_has_opened_the_store_notices_that_a_later_version_has_migrated_it(
    store: Store,
) -> None:
    add(store)
    of_version(store, 9)
    with pytest.raises(SkelebotError, match="a later version of Skelebot"):
        become(store, 1, "running")


def test_rebuild_keeps_the_numbers_of_removed_runs(store: Store) -> None:
    add(store, 2)
    store.remove(1)
    store.remove(2)
    assert stores.rebuild(store.folder) == 0
    assert add(store) == [3]


def test_rebuild_without_a_database(store: Store) -> None:
    add(store)
    for path in Path(store.folder).glob("runs.db*"):
        path.unlink()
    assert stores.rebuild(store.folder) == 1
    assert store.get(1).uid


@pytest.mark.parametrize("is_left_empty", [False, True])
def test_runs_without_a_database_keep_their_numbers_and_files(store: Store, is_left_empty: bool) -> None:
    add(store, 2)
    output = Path(store.run_folder(1), "outputs", "model")
    output.parent.mkdir()
    output.write_text("a night's work")
    for path in Path(store.folder).glob("runs.db*"):
        path.unlink()
    if is_left_empty:
        Path(store.folder, "runs.db").touch()
    with pytest.raises(SkelebotError, match="has runs but no database; `skelebot runs rebuild`"):
        stores.opened(store.folder)
    assert stores.rebuild(store.folder) == 2
    assert add(stores.opened(store.folder)) == [3]
    assert output.read_text() == "a night's work"


def test_a_database_from_a_backup_takes_no_run_its_files(store: Store) -> None:
    add(store)
    with contextlib.closing(sqlite3.connect(f"{store.folder}/runs.db")) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    earlier = Path(store.folder, "runs.db").read_bytes()
    add(store)
    log = Path(store.run_folder(2), "tasks/1-run.1/log")
    log.parent.mkdir(parents=True)
    log.write_text("a night's work")
    for path in Path(store.folder).glob("runs.db-*"):
        path.unlink()
    Path(store.folder, "runs.db").write_bytes(earlier)
    with pytest.raises(
        SkelebotError, match="has files of run 2, which its database does not know; `skelebot"
    ):
        add(store)
    assert stores.rebuild(store.folder) == 2
    assert add(store) == [3]
    assert log.read_text() == "a night's work"


def test_what_a_killed_import_has_left_is_in_nobodys_way(store: Store) -> None:
    def killed(_: RunRecord, folder: str) -> None:
        Path(folder, "tasks").mkdir()
        os._exit(0)

    if (child := os.fork()) == 0:
        store.add([run("one")], place=killed)
    os.waitpid(child, 0)
    assert Path(store.run_folder(1), "tasks").exists()
    assert add(store) == [1]
    assert os.listdir(store.run_folder(1)) == ["run.json"]


def test_rebuild_takes_no_run_from_the_folder_of_another(store: Store) -> None:
    add(store, 2)
    os.rename(store.run_folder(2), store.run_folder(7))
    assert stores.rebuild(store.folder) == 1


def test_damaged_record_names_its_run(store: Store) -> None:
    add(store)
    with contextlib.closing(sqlite3.connect(os.path.join(store.folder, "runs.db"))) as database:
        database.execute("update run set document = '{'")
        database.commit()
    with pytest.raises(SkelebotError, match=r"the record of run 1 is damaged .*runs rebuild"):
        store.get(1)
    assert stores.rebuild(store.folder) == 1
    assert store.get(1).number == 1


# --- several at once ---


def _write_many(folder: str, count: int) -> None:
    store = stores.opened(folder)
    for _ in range(count):
        add(store)
        store.update(1, lambda run: replace(run, priority=run.priority + 1))


def test_writers_at_once(tmp_path: Path) -> None:
    """Also those that make the store at the same moment."""
    folder = str(tmp_path / "store")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(folder, 10)) for _ in range(3)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert [each.exitcode for each in writers] == [0, 0, 0]
    store = stores.opened(folder)
    assert [each.number for each in store.find()] == list(range(30, 0, -1))
    assert store.get(1).priority == 30


def test_a_rebuild_beside_writers_loses_nothing(store: Store) -> None:
    """Also no number is given twice."""
    add(store)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(store.folder, 40)) for _ in range(2)]
    for each in writers:
        each.start()
    while any(each.is_alive() for each in writers):
        stores.rebuild(store.folder)
    assert [each.exitcode for each in writers] == [0, 0]
    assert [each.number for each in store.find()] == list(range(81, 0, -1))
    assert store.get(1).priority == 80


def test_store_that_another_is_making(tmp_path: Path) -> None:
    opened: list[Store] = []
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        opening = threading.Thread(target=lambda: opened.append(stores.opened(str(tmp_path))))
        opening.start()
        opening.join(0.2)
        assert opening.is_alive()
        other.execute("commit")
    opening.join()
    assert opened[0].find() == []


def test_reader_waits_for_no_writer(store: Store) -> None:
    add(store)
    begun, go_on = threading.Event(), threading.Event()

    def change(run: RunRecord) -> RunRecord:
        begun.set()
        assert go_on.wait(60)
        return run.becoming("running")

    writer = threading.Thread(target=store.update, args=(1, change))
    writer.start()
    assert begun.wait(60)
    assert store.get(1).state == "queued"  # in the midst of the other's transaction
    go_on.set()
    writer.join()
    assert store.get(1).state == "running"


# --- where it may be ---

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 0:41 / /home/ada/local rw - xfs /dev/sdb rw
32 22 0:42 / /mnt/my\040disk rw - fuse.sshfs me@host: rw
33 22 0:43 / /var rw - overlay overlay rw
34 22 0:44 / /home/ada/local rw - btrfs /dev/sdc rw
35 22 0:45 / /mnt/größe\040x rw - cifs //server/x rw
torn line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/store", "ext4"),
        ("/home", "nfs4"),
        ("/home/ada/store", "nfs4"),
        ("/homes/store", "ext4"),
        ("/home/ada/local/store", "btrfs"),  # mounted over the other
        ("/mnt/my disk/store", "fuse.sshfs"),
        ("/var/lib/store", "overlay"),
        ("/mnt/größe x/store", "cifs"),
    ],
)
def test_kind_of_file_system(path: str, kind: str) -> None:
    assert kind_of_file_system(MOUNTS, path) == kind


def test_kind_of_file_system_of_a_name_that_is_no_text() -> None:
    name = os.fsdecode(b"/mnt/\xff")
    assert kind_of_file_system(f"1 0 0:1 / {name}\\040x rw - nfs s:/ rw", f"{name} x/store") == "nfs"


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("nfs", True),
        ("nfs4", True),
        ("cifs", True),
        ("fuse.sshfs", True),
        ("ext4", False),
        ("overlay", False),
    ],
)
def test_network_file_systems_are_refused(kind: str, refused: bool) -> None:
    assert stores.is_on_network(kind) is refused


# --- which run is next ---


def claimed(store: Store, root: str | None = None) -> int | None:
    """The number of the next run; its lock stays held as long as the test runs."""
    if found := worker.claim(store, root):
        LOCKS.append(found[1])
        return found[0]
    return None


LOCKS: list[Any] = []


@pytest.fixture(autouse=True)
def close_locks() -> Any:
    yield
    for lock in LOCKS:
        lock.close()
    LOCKS.clear()


def test_priority_goes_before_age(store: Store) -> None:
    add(store, 2)
    add(store, 2, priority=5)
    add(store, priority=-1)
    assert [claimed(store) for _ in range(6)] == [3, 4, 1, 2, 5, None]
    assert store.get(3).state == "running"


def test_a_worker_takes_the_runs_of_its_own_checkout(store: Store) -> None:
    add(store)
    add(store, root="/q")
    assert (claimed(store, "/q"), claimed(store, "/q"), claimed(store, None)) == (2, None, 1)


def test_thousands_that_wait_hide_none(store: Store) -> None:
    add(store)
    become(store, 1, "running")
    add(store, 45, after=(1,))
    add(store)
    assert claimed(store) == 47


def test_thousands_that_wait_for_one_are_not_read_one_by_one(store: Store) -> None:
    add(store)
    become(store, 1, "running")
    add(store, 200, after=(1,))
    opened = 0

    def count(event: str, arguments: object) -> None:
        nonlocal opened
        opened += event == "sqlite3.connect"

    sys.addaudithook(count)  # for the rest of the process
    assert claimed(store) is None
    assert opened < 10
    become(store, 1, "failed")
    assert claimed(store) is None
    assert store.counts() == {"failed": 1, "stopped": 200}


def test_a_run_whose_lock_is_held_is_passed_over(store: Store) -> None:
    add(store, 2)
    lock = supervise.take(store, 1)
    assert lock
    LOCKS.append(lock)
    assert supervise.is_supervised(store, 1)
    assert supervise.take(store, 1) is None
    assert claimed(store) == 2


def test_a_run_that_somebody_has_removed_is_passed_over(store: Store) -> None:
    add(store)
    run = store.get(1)
    store.remove(1)
    assert supervise.take(store, 1) is None
    assert not collect.remove(store, run, False, Flags())


def test_after(store: Store) -> None:
    add(store, 2)
    add(store, after=(1, 2), priority=9)
    assert claimed(store) == 1
    become(store, 1, "done")
    assert claimed(store) == 2
    assert claimed(store) is None
    become(store, 2, "done")
    assert claimed(store) == 3


@pytest.mark.parametrize("state", ["failed", "stopped", "removed"])
def test_after_a_run_that_is_not_done(store: Store, state: State) -> None:
    add(store)
    add(store, after=(1,))
    add(store, after=(2,))
    become(store, 1, "running")
    store.remove(1) if state == "removed" else become(store, 1, state)  # type: ignore[comparison-overlap]
    assert claimed(store) is None
    assert [store.get(each).state for each in (2, 3)] == ["stopped", "stopped"]
    assert store.get(2).reason == f"run 1, which it comes after, is {state}"
    assert store.get(3).reason == "run 2, which it comes after, is stopped"


def needing(**limits: Any) -> tuple[TaskRecord, ...]:
    return (task(limits=Limits(**limits)),)


def test_what_a_run_takes_is_the_most_of_its_tasks() -> None:
    tasks = (task(limits=Limits(2.0, 100)), task(limits=Limits(1.0, 300, 0, 2)), task(limits=Limits(gpus=-1)))
    assert slots_of(run(tasks=tasks)) == Slots(2.0, 300, 2)


def test_slots_are_not_shared(store: Store) -> None:
    """What an older run waits for is not given to those behind it; those that need nothing go on."""
    cpus = os.cpu_count() or 1
    add(store, tasks=needing(cpus=0.5))
    add(store, tasks=needing(cpus=cpus))
    add(store, tasks=needing(cpus=0.5))
    add(store)
    assert [claimed(store) for _ in range(3)] == [1, 4, None]
    assert store.slots_in_use() == {NATIVE: Slots(0.5, 0, 0)}
    become(store, 1, "done")
    assert [claimed(store) for _ in range(2)] == [2, None]
    become(store, 2, "done")
    assert claimed(store) == 3


def test_what_the_machine_never_has_runs_alone(store: Store) -> None:
    add(store, 2, tasks=needing(memory=2**60))
    assert [claimed(store), claimed(store)] == [1, None]


# --- where a run works ---


def mounts_of(store: Store, record: RunRecord, at: int) -> dict[str, str]:
    """The mounts of a task in the run's folders, from their place in the container to where they lead."""
    _, ready = workspace.prepared(store, record, at)
    outputs = os.path.join(store.run_folder(record.number), "outputs")
    return {m.target: m.source.replace(outputs, "OUTPUTS") for m in ready.mounts}


def docker_task(job: str, *mounts: Mount, outputs: tuple[str, ...] = ()) -> TaskRecord:
    made = task(job, mounts=mounts, outputs=outputs)
    return replace(made, task=replace(made.task, place=Place()))


def test_outputs_are_the_runs_own(store: Store) -> None:
    train = docker_task(
        "train",
        Mount("/p/models", "/app/models", output=True),
        Mount("/p/data", "/app/data", read_only=True),
        Mount("/p/cache", "/app/cache"),
        Mount("/data", "/app/d", read_only=True),
        outputs=("models/",),
    )
    score = docker_task(
        "score",
        Mount("/p/models/deep", "/app/in", read_only=True),
        Mount("/p/modelsbeside", "/app/other", read_only=True),
    )
    (record,) = store.add([run(tasks=(train, score))])
    assert mounts_of(store, record, 0) == {
        "/app/models": "OUTPUTS/models",
        "/app/data": "/p/data",
        "/app/cache": "/p/cache",
        "/app/d": "/data",
    }
    assert mounts_of(store, record, 1) == {"/app/in": "OUTPUTS/models/deep", "/app/other": "/p/modelsbeside"}
    assert os.path.isdir(os.path.join(store.run_folder(1), "outputs", "models"))
    assert mounts_of(store, replace(record, own=False), 0)["/app/models"] == "/p/models"


def test_attempt_folders_have_names_of_their_own(store: Store) -> None:
    record = run(number=3, tasks=(task("a/b"), task("a b"), task("../../x")))
    names = [workspace.attempt_folder(store, record, at, 1) for at in range(3)]
    assert len(set(names)) == 3
    assert {os.path.dirname(name) for name in names} == {os.path.join(store.run_folder(3), "tasks")}


# --- what the commands are made of ---


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (60, "1 min 0 s"),
        (3599.7, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_repeated_option() -> None:
    params = (Param("tag", is_repeated=True), Param("name"))
    assert options.parse((), params, ["--tag", "a", "--name", "n", "--tag=b"]) == {
        "tag": ("a", "b"),
        "name": "n",
    }


def test_rest_arguments() -> None:
    args = (Arg("run", type="int", min="1", is_rest=True),)
    assert options.parse(args, (), ["3", "1"]) == {"<run>": ("3", "1")}
    with pytest.raises(UsageError, match="missing argument: run"):
        options.parse(args, (), [])
    with pytest.raises(UsageError, match="run"):
        options.parse(args, (), ["3", "x"])


def test_exit_code_of_a_run() -> None:
    def code(state: State, *codes: int | None, why: Callable[..., int] = supervise.exit_code) -> int:
        return why(run(state=state, tasks=tuple(task(code=each) for each in codes)))

    assert code("done", 0, 0) == 0
    assert code("failed", 0, 7, None) == 7
    assert code("failed", 0, None) == 1
    assert code("stopped", 0, None) == 130
