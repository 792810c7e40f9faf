"""The store of runs: a SQLite database, a folder for each run with all that is known of it, and their code.

The database can be rebuilt from the folders. No connection outlives a function here, so none is open when a
process forks. https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_
"""

import errno
import hashlib
import json
import os
import re
import sqlite3
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from skelebot import console
from skelebot.errors import SkelebotError, UsageError
from skelebot.files import PART, locked, reason, remove_tree, replace_file
from skelebot.json_form import UnknownField, from_json, to_json
from skelebot.model import NATIVE, Place
from skelebot.runs.record import RunRecord, State

VARIABLE = "SKELEBOT_STORE"
_PATIENCE = 30  # seconds to wait for another writer

# What each version of the tables adds to the one before it.
_VERSIONS = (
    """
create table run(
    number integer primary key autoincrement, uid text not null unique, project text not null,
    root text not null, name text not null, state text not null, priority integer not null,
    cpus real not null, memory integer not null, gpus integer not null, document text not null);
create index waiting on run(state, priority desc, number);
create index named on run(name) where name <> '';
create table made(key text primary key, number integer not null, task integer not null);
create table setting(name text primary key, value text not null);
""",
    """
alter table run add column sweep text not null default '';
create index swept on run(sweep) where sweep <> '';
""",
    # todo: the kinds of the tasks that are not done, as JSON; in the index, as thousands are read at once.
    """
alter table run add column todo text not null default '[]';
drop index if exists waiting;
create index waiting on run(state, priority desc, number, root, todo);
create table duration(
    id integer primary key, project text not null, job text not null, fixed text not null,
    seconds real not null, number integer not null);
create index lasted on duration(project, job, id);
""",
)
_OF_DURATION = "project, job, fixed, seconds, number"
_PARTS = ("", "-wal", "-shm")  # the ends of the names of a database's files
_KEPT = 1000  # so many of the latest durations of each job

# The rest is written with the document.
_INSERT = (
    "insert into run(number, uid, project, root, name, state, priority, cpus, memory, gpus, document) "
    "values (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, '')"
)

_OF_ROOT = "root = coalesce(?, root)"  # of a checkout, or of all
_BUSY = "select 1 from run where state in ('queued', 'running') and root = ? limit 1"

# What SQLite's write-ahead log cannot be shared on: https://www.sqlite.org/wal.html#overview
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "glusterfs")


class LaterVersion(SkelebotError):
    """A later version has written something that this one would not understand, or lose."""


class Kind(NamedTuple):
    """What tasks have in common that take about as long: the project, the job and its fixed parameters.

    fixed: a hash of all parameters but those that the run's sweep changes. once: of one with `cache: true`,
    a hash of what it works with; what one makes, others with the same take over.
    """

    project: str
    job: str
    fixed: str
    once: str = ""


class Duration(NamedTuple):
    """How many seconds a task of a run took, and its fixed parameters as in `Kind`."""

    fixed: str
    seconds: float
    number: int


class Slots(NamedTuple):
    """What runs take of a machine at a time: CPUs, bytes of memory, GPUs."""

    cpus: float = 0.0
    memory: int = 0
    gpus: int = 0

    def plus(self, other: "Slots") -> "Slots":
        return Slots(self.cpus + other.cpus, self.memory + other.memory, self.gpus + other.gpus)


class Candidate(NamedTuple):
    """What a worker needs to know of a queued run: what it takes, and the runs that it comes after.

    place: of the engine with an address that it was queued for, or NATIVE for this machine. is_movable:
    whether it can be taken elsewhere.
    """

    number: int
    slots: Slots
    after: tuple[int, ...]
    place: Place = NATIVE
    is_movable: bool = False


class _Connection(sqlite3.Connection):
    """A connection that also takes text with bytes that are not UTF-8, as paths and arguments may have."""

    def execute(self, query: str, values: Any = (), /) -> sqlite3.Cursor:
        return super().execute(query, [_stored(each) if isinstance(each, str) else each for each in values])


# Such bytes, which SQLite refuses, as characters for private use.
_BYTES = {0xDC00 + byte: 0x10FF00 + byte for byte in range(0x80, 0x100)}
_BACK = {stored: byte for byte, stored in _BYTES.items()}


def _stored(text: str) -> str:
    return text if text.isascii() else text.translate(_BYTES)


def _restored(text: str) -> str:
    return text if text.isascii() else text.translate(_BACK)


class Store(NamedTuple):
    """A store, by its folder."""

    folder: str

    # --- where things are ---

    @property
    def _database(self) -> str:
        return os.path.join(self.folder, "runs.db")

    @property
    def environments(self) -> str:
        """Return the folder of the Python environments of native runs, one for each set of packages."""
        return os.path.join(self.folder, "environments")

    def run_folder(self, number: int) -> str:
        """Return the folder of a run's files: `run.json`, `lock`, `tasks/`, `outputs/`."""
        return os.path.join(self.folder, "runs", f"{number:06d}")

    def check_writable(self) -> None:
        """Raise SkelebotError if nothing can be added, before anybody tries; to look at runs needs less."""
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise _read_only(self.folder)

    def packages_file(self, id: str) -> str:
        """Return the file with the list of packages of an image or an environment, a line for each."""
        return os.path.join(self.folder, "packages", id.partition(":")[2] or id)

    # --- writing ---

    def packages(self, image: str, find: Callable[[], list[str]]) -> str:
        """Keep a list of packages, found once for each image; return its id: the image's or its own."""
        if image and os.path.exists(self.packages_file(image)):
            return image
        data = "".join(f"{line}\n" for line in find()).encode("utf-8", "surrogateescape")
        id = image or f"sha256:{hashlib.sha256(data).hexdigest()}"
        os.makedirs(os.path.dirname(self.packages_file(id)), exist_ok=True)
        replace_file(self.packages_file(id), data)
        return id

    def add(
        self,
        runs: Sequence[RunRecord],
        outputs: str = "",
        place: Callable[[RunRecord, str], None] = lambda run, folder: None,
        name_sweep: Callable[[Sequence[str]], str] | None = None,
    ) -> list[RunRecord]:
        """Store new runs, all of them or none; return them with their numbers. Raises SkelebotError.

        outputs: a folder of the store that becomes the first one's outputs. place: puts files of a run into
        its folder before anybody sees it. name_sweep: gives their sweep its name, given all names that there
        are.
        """
        added: list[RunRecord] = []
        with self._writing() as database:
            try:
                name = name_sweep(_sweeps(database)) if name_sweep else ""
                for run in runs:
                    run = replace(run, sweep=replace(run.sweep, name=name)) if name and run.sweep else run
                    number = database.execute(
                        _INSERT, (None, run.uid, run.project, run.root, run.name, run.state, run.priority)
                    ).lastrowid
                    assert number
                    self._check_unknown(number)
                    added.append(replace(run, number=number))
                    # There is one where somebody was killed before this number was taken.
                    remove_tree(self.run_folder(number))
                    os.makedirs(self.run_folder(number))
                    open(self._mark_of_new(number), "xb").close()
                    if outputs and len(added) == 1:
                        os.rename(outputs, os.path.join(self.run_folder(number), "outputs"))
                    place(added[-1], self.run_folder(number))
                    self._write(database, added[-1])
            except BaseException:
                for run in added:  # not for `rebuild` to find
                    remove_tree(self.run_folder(run.number))
                raise
        for run in added:
            with suppress(OSError):
                os.unlink(self._mark_of_new(run.number))
        return added

    def _mark_of_new(self, number: int) -> str:
        """Return the file that a run's folder has until the database knows the run."""
        return os.path.join(self.run_folder(number), "new")

    def _check_unknown(self, number: int) -> None:
        """Raise SkelebotError if a run of that number has begun, as in a store with an earlier database."""
        has_begun = os.path.isdir(os.path.join(self.run_folder(number), "tasks"))
        if has_begun and not os.path.exists(self._mark_of_new(number)):
            raise SkelebotError(
                f"the store {self.folder} has files of run {number}, which its database does not know; "
                "`skelebot runs rebuild` rebuilds it"
            )

    def update(
        self,
        number: int,
        change: Callable[[RunRecord], RunRecord],
        waiting: Callable[[RunRecord], RunRecord] | None = None,
    ) -> RunRecord:
        """Store a run as changed from what it is now; return it. Raises UsageError for an unknown one.

        waiting: changes the queued runs of the same sweep and checkout, too; all of them or none.
        """
        query = "select document, number from run where sweep = ? and root = ? and state = 'queued'"
        with self._writing() as database:
            row = database.execute("select document from run where number = ?", (number,)).fetchone()
            before = _read(*_known(row, number))
            changed = change(before)
            self._write(database, changed)
            _note_durations(database, changed, [task.state for task in before.tasks])
            if waiting and changed.sweep:
                for document, other in database.execute(query, (changed.sweep.name, changed.root)).fetchall():
                    self._write(database, waiting(_read(document, str(other))))
        return changed

    def remove(self, number: int, may: Callable[[RunRecord], bool] = lambda _: True) -> bool:
        """Remove a run and its files, if `may` allows it for the run as it is now; tell whether it did."""
        with self._writing() as database:
            row = database.execute("select document from run where number = ?", (number,)).fetchone()
            if row is None or not may(_read(row[0], str(number))):
                return False
            database.execute("delete from run where number = ?", (number,))
            database.execute("delete from made where number = ?", (number,))
        with suppress(OSError):
            os.unlink(os.path.join(self.run_folder(number), "run.json"))  # `rebuild` would find it
        remove_tree(self.run_folder(number))
        return True

    def abandoned(self) -> list[str]:
        """Set aside what has been left of runs that are gone; return the folders, which nobody uses."""
        top, aside = os.path.join(self.folder, "runs"), []
        with self._writing() as database:  # nobody adds a run meanwhile
            known = {f"{number:06d}" for (number,) in database.execute("select number from run")}
            for name in os.listdir(top) if os.path.isdir(top) else ():
                path = os.path.join(top, name)
                if name.isdecimal() and name not in known and not _is_damaged(path):
                    os.rename(path, f"{path}{PART}")
                    path = f"{path}{PART}"
                if path.endswith(PART):
                    aside.append(path)
        return aside

    def _write(self, database: sqlite3.Connection, run: RunRecord) -> None:
        document = json.dumps(to_json(run))
        sweep = run.sweep.name if run.sweep else ""
        values = (run.name, run.state, run.priority, *slots_of(run), sweep, _todo(run), document, run.number)
        database.execute(
            "update run set name = ?, state = ?, priority = ?, cpus = ?, memory = ?, gpus = ?, sweep = ?, "
            "todo = ?, document = ? where number = ?",
            values,
        )
        replace_file(os.path.join(self.run_folder(run.number), "run.json"), document.encode("utf-8"))

    def note_made(self, key: str, number: int, at: int) -> None:
        """Note which task of which run has made what belongs to a key."""
        with self._writing() as database:
            database.execute("replace into made values (?, ?, ?)", (key, number, at))

    def made(self, key: str) -> tuple[int, int] | None:
        """Return which task of which run has made what belongs to a key; None if none has, or it is gone."""
        query = "select made.number, task from made join run using (number) where key = ?"
        with self._reading() as database:
            found: tuple[int, int] | None = database.execute(query, (key,)).fetchone()
        return found

    def set(self, name: str, value: str) -> None:
        """Keep a setting of the store."""
        with self._writing() as database:
            database.execute("replace into setting values (?, ?)", (name, value))

    def take_if_idle(self, name: str, root: str) -> str:
        """Return a setting and remove it, if no run of a checkout waits or runs; otherwise return ""."""
        with self._writing() as database:
            row = database.execute("select value from setting where name = ?", (name,)).fetchone()
            if row is None or database.execute(_BUSY, (root,)).fetchone():
                return ""
            database.execute("delete from setting where name = ?", (name,))
        return str(row[0])

    # --- reading ---

    def get(self, number: int) -> RunRecord:
        """Return a run. Raises UsageError if there is none of that number."""
        with self._reading() as database:
            row = database.execute("select document from run where number = ?", (number,)).fetchone()
        return _read(*_known(row, number))

    def find(
        self,
        project: str | None = None,
        root: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        states: Iterable[str] = (),
        last: int | None = None,
        sweep: str | None = None,
    ) -> list[RunRecord]:
        """Return the runs that meet all conditions, the latest first."""
        states = tuple(states)
        conditions = {
            "project = ?": project,
            "root = ?": root,
            "name = ?": name,
            "sweep = ?": sweep,
            "exists (select 1 from json_each(document, '$.tags') where value = ?)": tag,
        }
        given = {text: value for text, value in conditions.items() if value is not None}
        texts = [*given, *([f"state in ({', '.join('?' * len(states))})"] if states else [])]
        where = f"where {' and '.join(texts)}" if texts else ""
        limit = f"limit {min(int(last), sys.maxsize)}" if last is not None else ""
        query = f"select document, number from run {where} order by number desc {limit}"  # noqa: S608 - no values
        with self._reading() as database:
            rows = database.execute(query, (*given.values(), *states)).fetchall()
        return [_read(document, str(number)) for document, number in rows]

    def documents(self) -> list[tuple[int, str]]:
        """Return the number and the JSON of each run, the latest first, for who reads little of many."""
        with self._reading() as database:
            return database.execute("select number, document from run order by number desc").fetchall()

    def uids(self) -> dict[str, int]:
        """Return the number of each run by its uid."""
        with self._reading() as database:
            return dict(database.execute("select uid, number from run"))

    def names_kept(self) -> dict[int, str]:
        """Return by which name each run's code and images are kept, by its number."""
        name = "coalesce(nullif(json_extract(document, '$.kept_as'), ''), uid)"
        with self._reading() as database:
            return dict(database.execute(f"select number, {name} from run"))  # noqa: S608 - no values

    def is_kept(self, sweep: str, name: str) -> bool:
        """Tell whether a trial of a sweep has its code and images by that name."""
        query = "select 1 from run where sweep = ? and json_extract(document, '$.kept_as') = ? limit 1"
        with self._reading() as database:
            return database.execute(query, (sweep, name)).fetchone() is not None

    def counts(self, root: str | None = None) -> dict[str, int]:
        """Return how many runs there are in each state, of a checkout or of all."""
        query = f"select state, count(*) from run where {_OF_ROOT} group by state"  # noqa: S608
        with self._reading() as database:
            return dict(database.execute(query, (root,)).fetchall())

    def waiting(self, root: str | None = None, most: int = -1) -> list[Candidate]:
        """Return the queued runs in their order, or the first of them, without decoding records."""
        query = (
            "select number, cpus, memory, gpus, json_extract(document, '$.after'), "  # noqa: S608 - no values
            "json_extract(document, '$.where'), json_extract(document, '$.own') from run "
            f"where state = 'queued' and {_OF_ROOT} order by priority desc, number limit ?"
        )
        with self._reading() as database:
            rows = database.execute(query, (root, most)).fetchall()
        return [
            Candidate(
                number,
                Slots(*slots),
                tuple(json.loads(text or "[]")),
                Place.at(where) if _is_address(where) else NATIVE,
                where == str(Place()) and own is None,
            )
            for number, *slots, text, where, own in rows
        ]

    def numbers(self, state: State, root: str | None = None, most: int = -1) -> list[int]:
        """Return the numbers of the runs in a state, or of the first of them: those that go first."""
        order = "order by priority desc, number limit ?"
        query = f"select number from run where state = ? and {_OF_ROOT} {order}"  # noqa: S608 - no values
        with self._reading() as database:
            return [number for (number,) in database.execute(query, (state, root, most))]

    def unended(self, root: str | None = None) -> dict[int, str]:
        """Return the states of the runs that wait or run, by their numbers."""
        query = f"select number, state from run where state in ('queued', 'running') and {_OF_ROOT}"  # noqa: S608
        with self._reading() as database:
            return dict(database.execute(query, (root,)).fetchall())

    def records(self, numbers: Iterable[int]) -> list[RunRecord]:
        """Return those of these runs that there are."""
        with self._reading() as database:
            query = "select document from run where number = ?"
            rows = {number: database.execute(query, (number,)).fetchone() for number in numbers}
        return [_read(row[0], str(number)) for number, row in rows.items() if row]

    def check_unchanged(self, runs: Sequence[RunRecord]) -> None:
        """Raise SkelebotError if one of these runs has changed or gone since it was read."""
        now = self.records(run.number for run in runs)
        for run in runs:
            if run not in now:
                raise SkelebotError(f"run {run.number} was changed or removed meanwhile; try again")

    def queued(self, root: str | None = None) -> list[tuple[int, str, str]]:
        """Return the number, the root and the `todo` of the queued runs, those that go first at the start.

        The same kinds of tasks are the same text, which `todo` reads.
        """
        order = "order by priority desc, number"
        query = f"select number, root, todo from run where state = 'queued' and {_OF_ROOT} {order}"  # noqa: S608
        with self._reading() as database:
            rows = database.execute(query, (root,)).fetchall()
        return [(number, _restored(root), text) for number, root, text in rows]

    def durations(self, project: str, job: str) -> list[Duration]:
        """Return how long a job took here, the latest first, whether or not these runs are still there."""
        query = "select fixed, seconds, number from duration where project = ? and job = ? order by id desc"
        with self._reading() as database:
            return list(map(Duration._make, database.execute(query, (project, job))))

    def states(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the state of each of these runs that there is."""
        with self._reading() as database:
            found = {
                n: database.execute("select state from run where number = ?", (n,)).fetchone()
                for n in numbers
            }
        return {number: row[0] for number, row in found.items() if row}

    def slots_in_use(self) -> dict[Place, Slots]:
        """Return what all running runs take of each machine: by its engine's place, NATIVE for this one."""
        query = "select cpus, memory, gpus, document from run where state = 'running'"
        found: dict[Place, Slots] = {}
        with self._reading() as database:
            for cpus, memory, gpus, document in database.execute(query).fetchall():
                machine = _read(document, "that runs").engine or NATIVE
                found[machine] = found.get(machine, Slots()).plus(Slots(cpus, memory, gpus))
        return found

    def setting(self, name: str) -> str:
        """Return a setting; "" where it has never been set."""
        with self._reading() as database:
            row = database.execute("select value from setting where name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def is_busy(self, root: str) -> bool:
        """Tell whether a run of a checkout waits or runs."""
        with self._reading() as database:
            return database.execute(_BUSY, (root,)).fetchone() is not None

    def settings(self, prefix: str) -> list[str]:
        """Return the names of the settings that begin so."""
        query = "select name from setting where substr(name, 1, ?) = ? order by name"
        with self._reading() as database:
            return [_restored(name) for (name,) in database.execute(query, (len(prefix), prefix))]

    def has_failed(self, root: str, since: float) -> bool:
        """Tell whether a run of a checkout has failed since a time, in seconds since 1970."""
        query = (
            "select 1 from run where state = 'failed' and root = ? "
            "and json_extract(document, '$.ended') >= ? limit 1"
        )
        with self._reading() as database:
            return database.execute(query, (root, since)).fetchone() is not None

    def mark(self) -> tuple[int, ...]:
        """Return what changes whenever somebody has written to the database, without opening it.

        Who only reads makes an empty file beside it.
        """
        marks: list[int] = []
        for name in (self._database, f"{self._database}-wal"):
            with suppress(OSError):
                status = os.stat(name)
                marks += (status.st_ino, status.st_size, status.st_mtime_ns) if status.st_size else ()
        return tuple(marks)

    # --- the database ---

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction that no other writer comes into."""
        with self._connection("rw") as database:
            database.execute("begin immediate")
            try:
                _version(self, database)  # a later one may have migrated it since this process opened it
                yield database
            except BaseException:
                database.rollback()
                raise
            database.commit()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._connection("ro") as database:
            yield database

    @contextmanager
    def _in_place(self, shared: bool = True) -> Iterator[None]:
        """Keep the database's files where they are meanwhile; not shared: to replace them alone."""
        with ExitStack() as held:
            with suppress(OSError):  # where it cannot be made, nobody can replace anything either
                held.enter_context(locked(os.path.join(self.folder, "runs.lock"), shared=shared))
            yield

    @contextmanager
    def _connection(self, mode: str) -> Iterator[sqlite3.Connection]:
        with self._in_place(), self._open(mode) as database:
            yield database

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        from urllib.parse import quote

        try:
            address = f"file:{quote(os.fsencode(self._database))}?mode={mode}"
            database = sqlite3.connect(
                address, timeout=_PATIENCE, isolation_level=None, uri=True, factory=_Connection
            )
            try:
                # What has ended well is on the disk when it is reported.
                database.execute("pragma synchronous = full")
                yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise _explained(self.folder, error) from None
        except OverflowError:  # of a number that SQLite cannot hold
            raise UsageError("there is no run of that number") from None
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _full(self.folder) from None
            raise SkelebotError(f"the store {self.folder} cannot be written: {reason(error)}") from None


def _sweeps(database: sqlite3.Connection) -> list[str]:
    return [name for (name,) in database.execute("select distinct sweep from run where sweep <> ''")]


def _known(row: tuple[str] | None, number: int) -> tuple[str, str]:
    if row is None:
        raise UsageError(f"there is no run {number}; `skelebot runs --all` lists all runs")
    return row[0], str(number)


def _read(document: str, what: str) -> RunRecord:
    try:
        return from_json(RunRecord, json.loads(document))
    except UnknownField as error:
        raise LaterVersion(
            f"run {what} was recorded by a later version of Skelebot ({error}); upgrade Skelebot"
        ) from None
    except (ValueError, RecursionError) as error:
        raise SkelebotError(
            f"the record of run {what} is damaged ({error}); `skelebot runs rebuild` rebuilds the database"
        ) from None


def kind_of(run: RunRecord, at: int) -> Kind:
    """Return of which kind a task of a run is."""
    task, swept = run.tasks[at], run.sweep.params if run.sweep else ()
    fixed = [each for each in task.params if f"{task.job}.{each[0]}" not in swept]
    before = [[each.job, each.tree, each.params] for each in run.tasks[: at + 1]]
    return Kind(run.project, task.job, _short_hash(fixed), _short_hash(before) if task.cache else "")


def _short_hash(values: Any) -> str:
    return f"{zlib.crc32(json.dumps(values, default=str).encode()):08x}"


def _todo(run: RunRecord) -> str:
    return json.dumps([kind_of(run, at) for at, task in enumerate(run.tasks) if task.state != "done"])


def todo(text: str) -> list[Kind]:
    """Return the kinds of tasks that `Store.queued` gives as text."""
    return [Kind(*each) for each in json.loads(text)]


def _note_durations(database: sqlite3.Connection, run: RunRecord, before: Sequence[State]) -> None:
    """Note how long those tasks took that are done now and were not before.

    What was taken over took no time of its own, and a clock that was set back tells nothing.
    """
    for at, (task, state) in enumerate(zip(run.tasks, before, strict=True)):
        seconds = task.ended - task.started
        if task.state != "done" or state == "done" or task.taken_from or not task.started or seconds < 0:
            continue
        kind = kind_of(run, at)
        database.execute(
            f"insert into duration({_OF_DURATION}) values (?, ?, ?, ?, ?)",  # noqa: S608 - no values
            (*kind[:3], seconds, run.number),
        )
        database.execute(
            "delete from duration where project = ? and job = ? and id <= (select id from duration "
            "where project = ? and job = ? order by id desc limit 1 offset ?)",
            (kind.project, kind.job, kind.project, kind.job, _KEPT),
        )


def _is_address(where: str | None) -> bool:
    """Tell whether a run's `where` is one engine with an address, or a cluster."""
    return where not in (None, str(Place()), str(NATIVE)) and ", " not in str(where)


def slots_of(run: RunRecord) -> Slots:
    """Return what a run takes: its tasks run one after the other."""
    limits = [task.task.limits for task in run.tasks]
    return Slots(
        max((limit.cpus for limit in limits), default=0.0),
        max((limit.memory for limit in limits), default=0),
        max((max(limit.gpus, 0) for limit in limits), default=0),
    )


def _explained(folder: str, error: sqlite3.Error) -> SkelebotError:
    text = str(error)
    if any(sign in text for sign in ("malformed", "not a database", "no such table", "no such column")):
        return SkelebotError(
            f"the database of the store {folder} is damaged; `skelebot runs rebuild` rebuilds it"
        )
    if "readonly" in text:
        return _read_only(folder)
    if "full" in text or _is_disk_full(folder):
        return _full(folder)
    return SkelebotError(f"the store {folder} cannot be used: {text}")


def _read_only(folder: str) -> SkelebotError:
    import shlex  # not for a store that can be used

    return SkelebotError(
        f"the store {folder} is read-only for you; run `chmod -R u+w {shlex.quote(folder)}`, or set "
        f"{VARIABLE} to another folder"
    )


def _full(folder: str) -> SkelebotError:
    # Even `runs rm` has to write to the database first.
    outputs = os.path.join(folder, "runs", "NUMBER", "outputs")
    return SkelebotError(f"the disk of the store {folder} is full; free some space, such as {outputs}")


def _is_disk_full(folder: str) -> bool:
    """Tell whether there is no room for what SQLite needs even to read; it does not say why it fails then."""
    with suppress(OSError):
        disk = os.statvfs(folder)
        return disk.f_bavail * disk.f_frsize < 1 << 17
    return False


# --- opening it ---


def default_folder() -> str:
    """Return where the user's store is: $SKELEBOT_STORE, or a folder of the user's data."""
    if given := os.environ.get(VARIABLE):
        return os.path.abspath(given)
    above = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(above, "skelebot", "experiments")


def opened(folder: str | None = None) -> Store:
    """Return the store, made or migrated where that is needed. Raises SkelebotError."""
    store = Store(folder or default_folder())
    _ensure_folder(store)
    if not os.path.exists(store._database):
        _check_place(store.folder)
    with store._in_place():
        _ensure_tables(store)
    return store


def _ensure_folder(store: Store) -> None:
    """Make the store's folder, for this user alone. Raises SkelebotError."""
    try:
        os.makedirs(store.folder, mode=0o700, exist_ok=True)
        status = os.stat(store.folder)
    except OSError as error:
        raise SkelebotError(
            f"the store {store.folder} cannot be made: {reason(error)}; set {VARIABLE} to another folder"
        ) from None
    if status.st_uid != os.geteuid():
        raise SkelebotError(
            f"the store {store.folder} belongs to another user; set {VARIABLE} to a folder of your own"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        os.chmod(store.folder, 0o700)


def _ensure_tables(
    store: Store, fill: Callable[[sqlite3.Connection], None] | None = None, path: str = ""
) -> None:
    """Make the tables where there are none, and migrate earlier ones. Raises SkelebotError for later ones.

    fill: puts the runs that there are into a new database, which is there with all of them or not at all.
    Without it, a database that is gone is an error, as new runs would take the numbers of those. path: of
    the database, if not the store's own.
    """
    try:
        opened = sqlite3.connect(
            path or store._database, timeout=_PATIENCE, isolation_level=None, factory=_Connection
        )
        with closing(opened) as database:
            version = _version(store, database)
            if version == len(_VERSIONS) and not fill:
                return
            if version == 0:
                _write_ahead(database)
            database.execute("begin immediate")
            version = _version(store, database)  # somebody else may have been faster
            if version == 0 and not fill and _folders(store):
                raise SkelebotError(
                    f"the store {store.folder} has runs but no database; `skelebot runs rebuild` rebuilds it"
                )
            for added in _VERSIONS[version:]:
                for statement in added.split(";"):
                    database.execute(statement)
            if version < 3:
                _fill(store, database)
            if fill:
                fill(database)
            database.execute(f"pragma user_version = {len(_VERSIONS)}")
            database.execute("commit")
    except sqlite3.Error as error:
        raise _explained(store.folder, error) from None


def _write_ahead(database: sqlite3.Connection) -> None:
    """Let readers and writers work at once. SQLite itself does not wait until nobody else is there."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _fill(store: Store, database: sqlite3.Connection) -> None:
    """Fill what version 3 has added, from the runs that there are."""
    for number, document in database.execute("select number, document from run").fetchall():
        with suppress(SkelebotError):  # of a damaged one, which is reported when it is read
            run = _read(document, str(number))
            database.execute("update run set todo = ? where number = ?", (_todo(run), number))
            _note_durations(database, run, ["queued"] * len(run.tasks))


def _version(store: Store, database: sqlite3.Connection) -> int:
    """Return the version of the tables; 0 where there are none. Raises SkelebotError for a later one."""
    (version,) = database.execute("pragma user_version").fetchone()
    if version > len(_VERSIONS):
        raise LaterVersion(
            f"the store {store.folder} is of a later version of Skelebot (its format is {version}, "
            f"this one knows {len(_VERSIONS)}); upgrade Skelebot, or set {VARIABLE} to another folder"
        )
    return int(version)


def _check_place(folder: str) -> None:
    """Raise SkelebotError for a network file system, whose locks SQLite cannot rely on."""
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        kind = kind_of_file_system(file.read(), os.path.realpath(folder))
        if is_on_network(kind):
            raise SkelebotError(
                f"the store {folder} is on a network file system ({kind}), which would damage its database; "
                f"set {VARIABLE} to a folder of this machine"
            )


def is_on_network(kind: str) -> bool:
    """Tell whether a file system of a type is another machine's, or may be."""
    return kind in _NETWORK or kind.startswith("fuse.")


def kind_of_file_system(mounts: str, path: str) -> str:
    """Return the type of the file system of a path, by the text of mountinfo: proc_pid_mountinfo(5)."""
    best, kind = "", ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        if f"{path}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


# --- rebuilding it ---


def rebuild(folder: str | None = None) -> int:
    """Rebuild the database from the folders of the runs; return their count. Raises SkelebotError."""
    store = Store(folder or default_folder())
    _ensure_folder(store)
    store.check_writable()
    with store._in_place(shared=False):
        return _rebuild(store)


def _rebuild(store: Store) -> int:
    durations: list[tuple[object, ...]] = []
    settings: list[tuple[object, ...]] = []
    last = 0  # the number of a run that was removed is not used again either
    with suppress(sqlite3.Error), closing(sqlite3.connect(store._database)) as database:
        _version(store, database)
        (last,) = database.execute("select coalesce(max(seq), 0) from sqlite_sequence").fetchone()
        settings = database.execute("select name, value from setting").fetchall()
        durations = database.execute(f"select {_OF_DURATION} from duration order by id").fetchall()  # noqa: S608
    found = list(_documents(store))
    fresh, aside = f"{store._database}.new", f"{store._database}.damaged"
    try:
        _ensure_tables(store, partial(_restore, store, found, durations, settings, last), fresh)
        for suffix in _PARTS:
            with suppress(FileNotFoundError):
                os.replace(store._database + suffix, aside + suffix)
        os.replace(fresh, store._database)
    finally:
        for suffix in _PARTS:
            with suppress(FileNotFoundError):
                os.unlink(fresh + suffix)
    return len(found)


def _restore(
    store: Store,
    found: Sequence[RunRecord],
    durations: Sequence[tuple[object, ...]],
    settings: Sequence[tuple[object, ...]],
    last: int,
    database: sqlite3.Connection,
) -> None:
    """Put the runs of all folders into a new database."""
    for run in found:
        database.execute(
            _INSERT, (run.number, run.uid, run.project, run.root, run.name, run.state, run.priority)
        )
        store._write(database, run)
        if not durations:  # they could not be read
            _note_durations(database, run, ["queued"] * len(run.tasks))
        made = ((task.key, run.number, at) for at, task in enumerate(run.tasks) if task.key)
        database.executemany("replace into made values (?, ?, ?)", made)
    database.executemany(f"insert into duration({_OF_DURATION}) values (?, ?, ?, ?, ?)", durations)  # noqa: S608
    database.executemany("insert into setting values (?, ?)", settings)
    # The number of a run that was left out is not used again, so its files stay.
    last = max([last, *map(int, _folders(store))])
    database.execute("delete from sqlite_sequence where name = 'run'")
    database.execute("insert into sqlite_sequence values ('run', ?)", (last,))


def _documents(store: Store) -> Iterator[RunRecord]:
    """Yield the runs of all folders that hold a whole record; any other one is reported."""
    for name in _folders(store):
        path = os.path.join(store.folder, "runs", name, "run.json")
        try:
            run = _document(path, name)
        except FileNotFoundError:  # of a run that somebody was removing
            continue
        except LaterVersion:
            raise
        except (OSError, ValueError, SkelebotError):
            console.warn(f"{path} is damaged, so the run is left out; its other files stay there")
            continue
        if name == f"{run.number:06d}":
            yield run
        else:
            console.warn(f"{path} is that of run {run.number}, so it is left out")


def _document(path: str, what: str) -> RunRecord:
    with open(path, encoding="utf-8") as file:
        return _read(file.read(), what)


def _folders(store: Store) -> list[str]:
    """Return the names of all runs' folders, also of those that the database does not know."""
    top = os.path.join(store.folder, "runs")
    return sorted(filter(str.isdecimal, os.listdir(top) if os.path.isdir(top) else ()))


def _is_damaged(folder: str) -> bool:
    """Tell whether a folder has a record that cannot be read; its other files may be all that is left."""
    try:
        _document(os.path.join(folder, "run.json"), folder)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, SkelebotError):
        return True
    return False
