"""Runs as one tar file, to move them to another store. What comes out of such a file is not trusted.

skelebot-runs.json      format, the uids of the runs, and those of their parents
UID/run.json            the record
UID/tasks/, outputs/    logs and outputs
code/                   the snapshots, as snapshot.export_tree writes them
packages/SHA256         lists of packages
"""

import json
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import IO, Any

from skelebot import console, files
from skelebot.errors import SkelebotError, UsageError
from skelebot.files import PART, reason, remove_tree
from skelebot.json_form import UnknownField, from_json, to_json
from skelebot.model import Output
from skelebot.runs import snapshot, workspace
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store, slots_of

_FORMAT = 1
_INDEX = "skelebot-runs.json"
_OF_RUN = ("tasks", "outputs")  # the folders of a run that go along
_TOP = re.compile(r"code|packages|[0-9a-f]{32}", re.ASCII)
_MOST_JSON = 100_000_000  # bytes
_YEAR_10000 = 253_402_300_800  # in seconds since 1970; no text of a time goes further


# --- writing ---


def write(store: Store, runs: Sequence[RunRecord], path: str) -> list[str]:
    """Write runs to a new file, whole or not at all; return the paths that were left out.

    Raises UsageError if the file exists, and SkelebotError.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path} already exists; choose another name")
    fresh = f"{path}.{os.urandom(4).hex()}{PART}"
    try:
        with open(fresh, "xb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                left_out = _write(store, runs, archive)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # replaces nothing
        except FileExistsError:
            raise UsageError(f"{path} already exists; choose another name") from None
        except OSError:  # a file system without links
            os.rename(fresh, path)
    except OSError as error:
        if error.filename not in (None, fresh):
            raise SkelebotError(f"{error.filename} cannot be read: {reason(error)}") from None
        raise SkelebotError(f"{path} cannot be written: {reason(error)}") from None
    finally:
        if os.path.lexists(fresh):
            os.unlink(fresh)
    return left_out


def _write(store: Store, runs: Sequence[RunRecord], archive: tarfile.TarFile) -> list[str]:
    left_out: list[str] = []
    above = {run.number: run.uid for run in store.records({run.parent for run in runs})}
    parents = {run.uid: above[run.parent] for run in runs if run.parent in above}
    _add_data(archive, _INDEX, {"format": _FORMAT, "runs": [run.uid for run in runs], "parents": parents})
    for run in runs:
        _add_data(archive, f"{run.uid}/run.json", to_json(run))
        for name in _OF_RUN:
            left_out += _add_tree(
                archive, os.path.join(store.run_folder(run.number), name), f"{run.uid}/{name}"
            )
    with files.private_folder() as folder:
        for tree in dict.fromkeys(task.tree for run in runs for task in run.tasks):
            snapshot.export_tree(store.folder, tree, os.path.join(folder, "code"))
        _add_tree(archive, os.path.join(folder, "code"), "code")
    for ident in dict.fromkeys(ident for run in runs for ident in run.packages):
        _add_tree(archive, store.packages_file(ident), f"packages/{_digest(ident)}")
    store.check_unchanged(runs)
    return left_out


def _add_data(archive: tarfile.TarFile, name: str, data: object) -> None:
    import io

    text = json.dumps(data).encode("ascii")
    member = _member(name, tarfile.REGTYPE, 0o600)
    member.size = len(text)
    archive.addfile(member, io.BytesIO(text))


def _add_tree(archive: tarfile.TarFile, path: str, name: str, top: str = "") -> list[str]:
    """Add a file, a folder or a link; return what cannot go along: links that lead out, pipes, devices."""
    top = top or name
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return []
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if stat.S_ISREG(status.st_mode):
        with files.open_regular(path) as file:
            member = _member(name, tarfile.REGTYPE, mode)
            member.size, member.mtime = os.fstat(file.fileno()).st_size, int(status.st_mtime)
            archive.addfile(member, file)
        return []
    if stat.S_ISDIR(status.st_mode):
        archive.addfile(_member(name, tarfile.DIRTYPE, mode))
        inner = sorted(os.listdir(path))
        return [each for n in inner for each in _add_tree(archive, os.path.join(path, n), f"{name}/{n}", top)]
    target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else "/"
    if leads_out(name, target, top):
        return [name]
    member = _member(name, tarfile.SYMTYPE, 0o777)
    member.linkname = target
    archive.addfile(member)
    return []


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = kind, mode
    return member


def leads_out(name: str, target: str, top: str) -> bool:
    """Tell whether a link leads out of a folder of the file, going by its text alone."""
    if target.startswith("/"):
        return True
    return not f"{os.path.normpath(os.path.join(os.path.dirname(name), target))}/".startswith(f"{top}/")


# --- reading ---


def read(store: Store, path: str, root: tuple[str, str] | None) -> tuple[list[RunRecord], list[str]]:
    """Add the runs of a file, all of them or none; return them, and the uids of those that were there.

    root: a project and its checkout; runs of that project become runs of this checkout. Raises
    SkelebotError for anything that does not belong into such a file.
    """
    # Two imports at once would both find that a run is new.
    with _unpacked(store, path) as folder, files.locked(os.path.join(store.folder, "import.lock")):
        uids, parents = _index(path, folder)
        records = [_record(path, folder, uid) for uid in uids]
        known = store.uids()
        fresh = [run for run in records if run.uid not in known]
        fresh = [_of_checkout(run, root[1]) if root and root[0] == run.project else run for run in fresh]
        for ident in dict.fromkeys(ident for run in fresh for ident in run.packages):
            _import_packages(store, folder, ident)
        for tree in dict.fromkeys(task.tree for run in fresh for task in run.tasks):
            snapshot.import_tree(store.folder, tree, os.path.join(folder, "code"))

        def place(run: RunRecord, target: str) -> None:
            for name in _OF_RUN:
                if os.path.isdir(source := os.path.join(folder, run.uid, name)):
                    os.rename(source, os.path.join(target, name))
            workspace.keep(store, run.uid, run.tasks)

        added = store.add([replace(run, parent=0, kept_as="") for run in fresh], place=place)
    here = store.uids()
    for run in added:
        if parent := here.get(parents.get(run.uid, "")):
            store.update(run.number, partial(replace, parent=parent))
    return added, [run.uid for run in records if run.uid in known]


@contextmanager
def _unpacked(store: Store, path: str) -> Iterator[str]:
    """Yield a folder of the store with what the file holds."""
    folder = os.path.join(os.path.realpath(store.folder), f"import-{os.urandom(8).hex()}{PART}")
    try:
        with files.open_regular(path) as file:
            os.mkdir(folder, 0o700)
            _unpack(path, file, folder)
            yield folder
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise SkelebotError(f"{path} is not a file of `runs export`, or damaged: {error}") from None
    except OSError as error:
        raise SkelebotError(f"{error.filename or path} cannot be read: {reason(error)}") from None
    finally:
        remove_tree(folder)


def _unpack(path: str, file: IO[bytes], folder: str) -> None:
    """Unpack the members, the links at last, so that nothing is written through one."""
    links: dict[str, str] = {}
    modes: dict[str, int] = {}
    room = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            _check(path, member)
            target = os.path.join(folder, member.name)
            if os.path.lexists(target) or target in links:
                raise _refused(path, member.name, "is there twice")
            if (room := room - member.size) < 0:
                raise SkelebotError(f"{path} holds more than there is room for; free some space")
            os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
            if member.isdir():
                os.mkdir(target, 0o700)
                modes[target] = member.mode
            elif member.issym():
                links[target] = member.linkname
            else:
                _unpack_file(archive, member, target)
    _make_links(path, folder, links)
    for target, mode in sorted(modes.items(), reverse=True):
        os.chmod(target, mode & 0o777)


def _make_links(path: str, folder: str, links: dict[str, str]) -> None:
    """Make the links, none of them through another one. Together, too, they may not lead out."""
    for target, text in links.items():
        name = os.path.relpath(target, folder)
        if os.path.lexists(target) or os.path.realpath(os.path.dirname(target)) != os.path.dirname(target):
            raise _refused(path, name, "is there twice")
        os.symlink(text, target)
    for target in links:
        name = os.path.relpath(target, folder)
        if not f"{os.path.realpath(target)}/".startswith(f"{folder}/{'/'.join(name.split('/')[:2])}/"):
            raise _refused(path, name, "is a link that leads out")


def _unpack_file(archive: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
    content = archive.extractfile(member)
    assert content
    with content, open(target, "xb") as copy:
        shutil.copyfileobj(content, copy, 1 << 20)
        if copy.tell() != member.size:
            raise EOFError("it ends early")
        os.fchmod(copy.fileno(), member.mode & 0o777)


def _check(path: str, member: tarfile.TarInfo) -> None:
    """Raise SkelebotError for a member that no export writes."""
    parts = member.name.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in member.name:
        raise _refused(path, member.name, "is not a path below a folder")
    if not (member.name == _INDEX or _TOP.fullmatch(parts[0])):
        raise _refused(path, member.name, "does not belong in it")
    is_of_run = len(parts) > 1 and parts[1] in (*_OF_RUN, "run.json")
    if member.name != _INDEX and parts[0] not in ("code", "packages") and not is_of_run:
        raise _refused(path, member.name, "does not belong in it")
    if member.issym():
        if parts[1:2] != ["outputs"] or leads_out(member.name, member.linkname, "/".join(parts[:2])):
            raise _refused(path, member.name, f"is a link to {member.linkname}, which leads out")
    elif not (member.isdir() or (member.isreg() and not member.issparse())):
        raise _refused(path, member.name, "is neither a file, a folder nor a symbolic link")


def _later_version(path: str) -> SkelebotError:
    return SkelebotError(f"{path} is of a later version of Skelebot, so nothing was added; upgrade Skelebot")


def _refused(path: str, name: str, why: str) -> SkelebotError:
    return SkelebotError(f"{path}: {console.one_line(name)} {why}; nothing was added")


# --- what is in it ---


def _json(path: str, folder: str, name: str) -> Any:
    try:
        file = os.path.join(folder, name)
        if os.path.getsize(file) > _MOST_JSON:
            raise _refused(path, name, "is too large")
        with files.open_regular(file) as opened:
            return json.loads(opened.read())
    except (OSError, ValueError, RecursionError):
        raise _refused(path, name, "is missing or damaged") from None


def _index(path: str, folder: str) -> tuple[list[str], dict[str, str]]:
    """Return the uids of the runs, and that of each one's parent."""
    index = _json(path, folder, _INDEX)
    if not isinstance(index, dict) or not isinstance(index.get("format"), int):
        raise _refused(path, _INDEX, "is damaged")
    if index["format"] > _FORMAT:
        raise _later_version(path)
    uids, parents = index.get("runs"), index.get("parents", {})
    if not isinstance(uids, list) or not all(re.fullmatch(r"[0-9a-f]{32}", str(uid)) for uid in uids):
        raise _refused(path, _INDEX, "is damaged")
    if not isinstance(parents, dict) or not all(isinstance(uid, str) for uid in parents.values()):
        raise _refused(path, _INDEX, "is damaged")
    return list(dict.fromkeys(uids)), parents


def _record(path: str, folder: str, uid: str) -> RunRecord:
    """Return a record of the file, as far as it holds in another store. Raises SkelebotError."""
    name = f"{uid}/run.json"
    try:
        run = from_json(RunRecord, _json(path, folder, name))
        _check_record(run, uid)
    except UnknownField:
        raise _later_version(path) from None
    except (ValueError, RecursionError) as error:
        raise _refused(path, name, f"is damaged ({error})") from None
    return replace(
        run.at_home(),
        where=run.where,
        taken_to=(),
        after=(),
        asked="",
        variables=tuple((variable, "") for variable, _ in run.variables),  # hashed with another key
        tasks=tuple(replace(task, taken_from=0, key="") for task in run.tasks),
    )


def _check_record(run: RunRecord, uid: str) -> None:
    """Raise ValueError for what no store of Skelebot has written."""
    places = [run.root, *(task.task.root for task in run.tasks), *(task.image.context for task in run.tasks)]
    places += [mount.source for task in run.tasks for mount in task.task.mounts]
    times = [run.created, run.started, run.ended]
    times += [time for task in run.tasks for time in (task.started, task.ended)]
    checks = {
        "uid": run.uid == uid,
        "state": run.has_ended and all(task.state != "running" for task in run.tasks),
        "tasks": bool(run.tasks),
        "trees": all(re.fullmatch(r"[0-9a-f]{40}", task.tree) for task in run.tasks),
        "attempts": all(0 <= task.attempt < 1_000_000 for task in run.tasks),
        "packages": all(re.fullmatch(r"sha256:[0-9a-f]{64}", ident) for ident in run.packages),
        "paths": all(os.path.isabs(each) and os.path.normpath(each) == each for each in places if each),
        "times": all(0 <= time < _YEAR_10000 for time in times),
        "jobs": all(task.job.isprintable() for task in run.tasks),
        "numbers": all(abs(number) < 1 << 53 for number in (run.priority, *slots_of(run))),
        "root": run.root not in ("", "/"),
    }
    if wrong := next((name for name, holds in checks.items() if not holds), None):
        raise ValueError(wrong)
    for text in (text for task in run.tasks for text in task.outputs):
        Output.parse(text)


def _import_packages(store: Store, folder: str, ident: str) -> None:
    """Add a list of packages unless there is one. A lost one is no loss but of what `diff` can show."""
    source, target = os.path.join(folder, "packages", _digest(ident)), store.packages_file(ident)
    if os.path.isfile(source) and not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(source, target)


def _digest(ident: str) -> str:
    return ident.removeprefix("sha256:")


def _of_checkout(run: RunRecord, root: str) -> RunRecord:
    """Return a run with every path in its checkout as one in another checkout."""
    return from_json(RunRecord, _moved(to_json(run), run.root, root))


def _moved(data: Any, before: str, after: str) -> Any:
    if isinstance(data, dict):
        return {name: _moved(value, before, after) for name, value in data.items()}
    if isinstance(data, list):
        return [_moved(value, before, after) for value in data]
    if isinstance(data, str) and f"{data}/".startswith(f"{before}/"):
        return after + data[len(before) :]
    return data
