"""Mapped folders for an engine on another machine: volumes there, kept in step with the folders here.

Each mapping of a checkout has a volume of its own on the engine, which outlives its containers, so that
what has not changed is not sent again. Before a job, what is new here goes there; when it has ended, what
it wrote comes back. What both sides agreed on last is remembered, to tell a file that the job wrote from
one that was deleted here. Nothing is ever deleted on this side, and of a read-only mapping nothing comes
back.
"""

import fcntl
import hashlib
import io
import json
import os
import stat
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, NamedTuple, cast

from skelebot import console, shell
from skelebot.dockerfile import PROJECT_LABEL
from skelebot.errors import SkelebotError
from skelebot.model import Mount, image_name
from skelebot.runners.engine import Client, csv
from skelebot.runners.folders import OWN, own_folder

CHECKOUT_LABEL = "skelebot.checkout"
MOUNTS_LABEL = "skelebot.mounts"

_TOP = "/skelebot"  # where the volumes stand in a container that looks after them
_SHOWN = 5_000_000  # bytes from which a transfer shows its progress


class Entry(NamedTuple):
    """A file, folder or link: `kind` is f, d or l; `mtime` in nanoseconds; `link` where a link leads."""

    kind: str
    size: int
    mtime: int
    mode: int
    link: str

    def is_same(self, other: "Entry | None") -> bool:
        if other is None or self.kind != other.kind:
            return False
        facts = {"f": (self.size, self.mtime, self.mode), "l": (self.link,), "d": ()}
        others = {"f": (other.size, other.mtime, other.mode), "l": (other.link,), "d": ()}
        return facts[self.kind] == others[other.kind]


Listing = dict[str, Entry]
# What both sides had when they were last in step; None for what was on its way there.
Agreed = dict[str, "Entry | None"]


@dataclass
class Difference:
    """The paths to send, to delete there, and to fetch, parents first.

    clash: what the job has made of another kind than what is here.
    """

    send: list[str] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    fetch: list[str] = field(default_factory=list)
    clash: list[str] = field(default_factory=list)

    @property
    def parts(self) -> tuple[list[str], list[str], list[str]]:
        return self.send, self.delete, self.fetch


def compare(here: Listing, there: Listing, agreed: Agreed, read_only: bool) -> Difference:
    """What it takes to bring both sides in step.

    A side that still has what was agreed on takes the other's; where both have changed, the later
    write wins. A file that is missing there is sent: nothing is deleted here.
    """
    found = Difference()
    for path in sorted({*here, *there}):
        own, other = here.get(path), there.get(path)
        if own and own.is_same(other):
            continue
        if other and _is_theirs(path, own, other, agreed, read_only):
            found.fetch.append(path)
        else:
            if own and other and own.kind != other.kind and not other.is_same(agreed.get(path)):
                found.clash.append(path)
            if other and (own is None or own.kind != other.kind):
                found.delete.append(path)
            if own:
                found.send.append(path)
    return found


def _is_theirs(path: str, own: Entry | None, other: Entry, agreed: Agreed, read_only: bool) -> bool:
    """Whether the other side's is what the job wrote, rather than what is left of an older state."""
    known = agreed.get(path)
    on_its_way = path in agreed and known is None
    if read_only or on_its_way or other.is_same(known):
        return False
    if own is None:
        return True
    if own.kind != other.kind:
        return False
    return own.is_same(known) or other.mtime > own.mtime


# --- what there is ---


def listed(folder: str, without: str) -> Listing:
    """What is below a folder of this machine; `without` is left out, Skelebot's own folder.

    Raises SkelebotError.
    """
    found: Listing = {}
    try:
        _list(folder, "", without, found)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SkelebotError(f"{error.filename or folder} cannot be read: {reason}") from None
    return found


def _list(folder: str, prefix: str, without: str, found: Listing) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            if entry.path == without:
                continue
            status = entry.stat(follow_symlinks=False)
            kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}.get(stat.S_IFMT(status.st_mode))
            if kind is None:
                continue  # sockets and pipes have no content
            link = os.readlink(entry.path) if kind == "l" else ""
            mode = stat.S_IMODE(status.st_mode) & 0o777
            found[path] = Entry(kind, status.st_size, status.st_mtime_ns, mode, link)
            if kind == "d":
                _list(entry.path, path + "/", without, found)


def parse_listing(data: bytes) -> dict[int, Listing]:
    """The listing of _SCRIPT: of each volume, by its number, what is below it."""
    found: dict[int, Listing] = {}
    fields = [os.fsdecode(text) for text in data.split(b"\0")]
    for at in range(0, len(fields) - 6, 6):
        kind, size, mtime, mode, link, whole = fields[at : at + 6]
        number, _, path = whole.partition("/")
        entry = Entry(kind, int(size), nanoseconds(mtime), int(mode, 8) & 0o777, link)
        found.setdefault(int(number), {})[path] = entry
    return found


def nanoseconds(text: str) -> int:
    """Of a time as `find` and tar's extended headers write it: seconds with any number of decimals."""
    whole, _, rest = text.partition(".")
    part = int(f"{rest:0<9}"[:9])
    return int(whole) * 10**9 + (-part if whole.startswith("-") else part)


# --- the volumes ---


@dataclass(frozen=True)
class Volumes:
    """The volumes of a checkout's mappings on one engine. image: the id of one that has find and tar."""

    client: Client
    image: str
    project: str
    root: str
    mounts: tuple[Mount, ...]

    @property
    def folders(self) -> tuple[Mount, ...]:
        return tuple(mount for mount in self.mounts if not os.path.isfile(mount.source))

    @property
    def files(self) -> tuple[Mount, ...]:
        """Mapped files have no volume; they are copied into the container, and out of it."""
        return tuple(mount for mount in self.mounts if os.path.isfile(mount.source))

    def labels(self) -> tuple[tuple[str, str], ...]:
        """What a container carries for its results to be brought back later."""
        mounts = [[m.source, m.target, m.read_only] for m in self.mounts]
        return (CHECKOUT_LABEL, checkout_id(self.root)), (MOUNTS_LABEL, json.dumps(mounts))

    def fields(self, mount: Mount, target: str) -> list[str]:
        """What the client's --mount says for a folder."""
        labels = {PROJECT_LABEL: self.project, CHECKOUT_LABEL: checkout_id(self.root)}
        words = ["type=volume", f"source={self._name(mount)}", f"target={target}", "volume-nocopy"]
        return words + [f"volume-label={name}={value}" for name, value in labels.items()]

    def send(self) -> None:
        """Brings the volumes in step with the folders; what an earlier job wrote comes back first."""
        self._in_step(both_ways=True)

    def fetch(self) -> None:
        """Brings back what a job has written."""
        self._in_step(both_ways=False)

    def send_files(self, container: str) -> None:
        """Copies the mapped files into a container that was not started yet."""
        if not self.files:
            return

        def feed(stdin: IO[bytes]) -> None:
            with tarfile.open(fileobj=stdin, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for mount in self.files:
                    _add(tar, mount.target.lstrip("/"), mount.source, lambda count: None)

        step = self.client.step("cp", "-", f"{container}:/")
        shell.trace(self.client.verbose, step)
        code, _, said = shell.pipe(step, feed, lambda stdout: stdout.read())
        if code != 0:
            raise SkelebotError(f"the mapped files could not be sent to {self.client.where}: {said.strip()}")

    def fetch_files(self, container: str) -> None:
        """Brings mapped files back that the job in a container has changed."""
        for mount in self.files:
            if not mount.read_only:
                step = self.client.step("cp", f"{container}:{mount.target}", "-")
                shell.trace(self.client.verbose, step)
                shell.pipe(step, None, lambda stdout, mount=mount: _take_file(stdout, mount.source))  # type: ignore[misc]

    # --- the steps ---

    def _in_step(self, both_ways: bool) -> None:
        """One container there says what it has, packs what is asked of it, and takes what it is sent."""
        if not self.folders:
            return
        with open(os.path.join(_state_folder(self.root), "lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._exchange(both_ways)

    def _exchange(self, both_ways: bool) -> None:
        sides: list[_Side] = []
        compared = threading.Event()

        def take(stdout: IO[bytes]) -> None:
            try:
                there = parse_listing(stdout.read(int(stdout.readline() or 0)))
                sides.extend(self._compared(there, both_ways))
            finally:
                compared.set()
            self._fetch(stdout, sides)

        def feed(stdin: IO[bytes]) -> None:
            compared.wait()
            if sides:
                self._send(stdin, sides)

        self._run(feed, take)
        for side in sides:
            if both_ways:
                side.agreed = dict(side.here)
            side.save()

    def _compared(self, there: dict[int, Listing], both_ways: bool) -> "list[_Side]":
        sides = [self._side(n, mount, there.get(n, {})) for n, mount in enumerate(self.folders)]
        for side in sides:
            if not both_ways:
                side.warn_of_clashes()
                side.found = Difference(fetch=side.found.fetch)
            if side.found.send:
                side.agreed |= dict.fromkeys(side.found.send)  # on their way
                side.save()
        if self.client.verbose:
            numbers = (
                sum(len(p) for p in each) for each in zip(*(s.found.parts for s in sides), strict=True)
            )
            console.detail("  {} to send, {} to delete there, {} to fetch".format(*numbers))
        return sides

    def _side(self, number: int, mount: Mount, there: Listing) -> "_Side":
        own = os.path.join(self.root, OWN)
        below = os.path.relpath(own, mount.source) + "/"
        there = {path: entry for path, entry in there.items() if not f"{path}/".startswith(below)}
        here = listed(mount.source, own)
        where = zlib.crc32(f"{self.client.where} {self._name(mount)}".encode())
        state = os.path.join(_state_folder(self.root), f"{self._name(mount)}.{where:08x}.json")
        agreed = _read_state(state)
        return _Side(number, mount, here, there, agreed, state, compare(here, there, agreed, mount.read_only))

    def _fetch(self, stdout: IO[bytes], sides: "list[_Side]") -> None:
        wanted = {f"{side.number}/{path}": (side, path) for side in sides for path in side.found.fetch}
        if not wanted:
            return
        total = sum(side.there[path].size for side, path in wanted.values())
        shown = _progress(f"results of {self.client.where}", total)
        with shown as moved, tarfile.open(fileobj=stdout, mode="r|") as tar:
            for member in tar:
                if found := wanted.get(os.path.normpath(member.name)):
                    _put(tar, member, *found, moved)

    def _send(self, stdin: IO[bytes], sides: "list[_Side]") -> None:
        fetch = _names(f"{side.number}/{path}" for side in sides for path in side.found.fetch)
        delete = _names(f"{side.number}/{path}" for side in sides for path in reversed(side.found.delete))
        total = sum(side.here[path].size for side in sides for path in side.found.send)
        any_to_send = any(side.found.send for side in sides)
        stdin.write(f"{len(fetch)} {len(delete)} {int(any_to_send)}\n".encode() + fetch + delete)
        stdin.flush()
        if any_to_send:
            with _progress(f"mappings to {self.client.where}", total) as moved:
                _pack(stdin, sides, moved)

    def _name(self, mount: Mount) -> str:
        source = hashlib.sha256(os.fsencode(mount.source)).hexdigest()[:10]
        return f"{image_name(self.project)}-{checkout_id(self.root)}-{source}"

    def _run(self, feed: Callable[[IO[bytes]], None], take: Callable[[IO[bytes]], None]) -> None:
        """Runs the script in a container that sees all volumes. Raises SkelebotError."""
        words = ["run", "--rm", "--init", "--interactive", "--user", "0:0", "--network", "none"]
        words += ["--label", f"{PROJECT_LABEL}={self.project}", "--entrypoint", "/bin/sh"]
        for number, mount in enumerate(self.folders):
            words += ["--mount", csv(self.fields(mount, f"{_TOP}/{number}"))]
        step = self.client.step(*words, self.image, "-c", _SCRIPT)
        shell.trace(self.client.verbose, step)
        code, _, said = shell.pipe(step, feed, take)
        if code != 0:
            last = said.strip().splitlines()[-1:] or ["no reason given"]
            raise SkelebotError(
                f"the mappings could not be brought in step with {self.client.where}: {last[0]}"
            )


# Runs as root where the volumes stand, with a folder for each by its number. stdout: the size of the
# listing in a line, the listing, and a tar of what is asked for. stdin: a line with the sizes of the two
# lists that follow it, of what to pack and what to delete, and whether a tar to unpack comes then.
_SCRIPT = f"""\
set -e
cd {_TOP}
find . -mindepth 2 '(' -type f -o -type d -o -type l ')' -printf '%y\\0%s\\0%T@\\0%m\\0%l\\0%P\\0' >/tmp/list
wc -c </tmp/list
cat /tmp/list
read -r pack delete unpack || exit 0
[ "$pack" = 0 ] ||
    head -c "$pack" | tar --create --format=posix --no-recursion --null --files-from=- --ignore-failed-read
[ "$delete" = 0 ] || head -c "$delete" | xargs -0 rm -df -- 2>/dev/null || true # a folder not empty stays
[ "$unpack" = 0 ] || exec tar --extract --preserve-permissions --same-owner
"""


def _names(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(f"./{path}") + b"\0" for path in paths)


@dataclass
class _Side:
    """A folder here and its volume there; `agreed` becomes what both have."""

    number: int
    mount: Mount
    here: Listing
    there: Listing
    agreed: Agreed
    state: str
    found: Difference

    def warn_of_clashes(self) -> None:
        for path in self.found.clash:
            named = os.path.join(self.mount.source, path)
            console.warn(f"{named} stays as it is: the job has made something of another kind of it")

    def save(self) -> None:
        data = {path: entry and list(entry) for path, entry in self.agreed.items()}
        fresh = f"{self.state}.{os.getpid()}"
        with open(fresh, "w", encoding="ascii") as file:
            json.dump(data, file)
        os.replace(fresh, self.state)


def _read_state(path: str) -> Agreed:
    with suppress(OSError, ValueError, TypeError, AttributeError), open(path, encoding="ascii") as file:
        return {name: entry and Entry(*entry) for name, entry in json.load(file).items()}
    return {}


def _state_folder(root: str) -> str:
    folder = os.path.join(own_folder(root), "remote")
    os.makedirs(folder, exist_ok=True)
    return folder


def checkout_id(root: str) -> str:
    """What tells this checkout's volumes from those of others of the same project."""
    path = os.path.join(_state_folder(root), "id")
    with suppress(FileExistsError):
        fresh = f"{path}.{os.getpid()}"
        with open(fresh, "w", encoding="ascii") as file:
            file.write(os.urandom(4).hex())
        try:
            os.link(fresh, path)  # the first of two at once wins
        finally:
            os.unlink(fresh)
    with open(path, encoding="ascii") as file:
        return file.read()


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    if total < _SHOWN:
        yield lambda count: None
    else:
        with console.progress(what, total) as moved:
            yield moved


# --- what a job has left behind ---


def of_container(client: Client, root: str, name: str) -> tuple[Volumes, bool] | None:
    """The volumes of a container that this checkout started, and whether it has ended."""
    code, out, _ = client.capture("inspect", "--format", "{{json .}}", name)
    if code != 0:
        return None
    found = json.loads(out)
    labels = found["Config"].get("Labels") or {}
    if MOUNTS_LABEL not in labels or labels.get(CHECKOUT_LABEL) != checkout_id(root):
        return None
    mounts = tuple(Mount(*fields) for fields in json.loads(labels[MOUNTS_LABEL]))
    volumes = Volumes(client, found["Image"], labels[PROJECT_LABEL], root, mounts)
    return volumes, not found["State"]["Running"]


def bring_back(client: Client, root: str, name: str) -> None:
    """Brings back the results of a detached container, once it has ended. Raises SkelebotError."""
    found = of_container(client, root, name)
    if found and found[1]:
        found[0].fetch()
        found[0].fetch_files(name)


# --- one file ---


def _pack(stream: IO[bytes], sides: list[_Side], moved: Callable[[int], None]) -> None:
    """Writes what is to be sent as a tar, with times to the nanosecond in its extended headers."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for side in sides:
            _add(tar, f"{side.number}", side.mount.source, moved)
            for path in side.found.send:
                _add(tar, f"{side.number}/{path}", os.path.join(side.mount.source, path), moved)


def _add(tar: tarfile.TarFile, name: str, path: str, moved: Callable[[int], None]) -> None:
    try:
        info = tar.gettarinfo(path, name)
        tar.inodes = {}  # type: ignore[attr-defined]
        status = os.lstat(path)
        info.pax_headers = {"mtime": f"{status.st_mtime_ns // 10**9}.{status.st_mtime_ns % 10**9:09d}"}
        if info.isreg():
            with open(path, "rb") as file:
                tar.addfile(info, cast(IO[bytes], _Counted(file, moved)))
        else:
            tar.addfile(info)
    except FileNotFoundError:
        return  # gone since it was listed
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SkelebotError(f"{path} cannot be sent: {reason}; run again") from None


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], moved: Callable[[int], None]) -> None:
        self._file, self._moved = file, moved

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._moved(len(data))
        return data


def _put(
    tar: tarfile.TarFile, member: tarfile.TarInfo, side: _Side, path: str, moved: Callable[[int], None]
) -> None:
    """Puts what a job wrote into its place, whole or not at all; never through a link."""
    target = os.path.join(side.mount.source, path)
    if not _folder_of(side.mount.source, path) or (os.path.isdir(target) and not os.path.islink(target)):
        if not member.isdir():
            console.warn(f"{target} stays as it is: a folder above it is a link or a file here")
        return
    fresh = os.path.join(os.path.dirname(target), f".{os.getpid()}.skelebot")
    try:
        if member.isdir():
            os.mkdir(target)
            os.chmod(target, (member.mode & 0o777) | 0o700)
        elif member.issym():
            os.symlink(member.linkname, fresh)
            os.replace(fresh, target)
        elif source := tar.extractfile(member):
            _copy(source, fresh, member, moved)
            os.replace(fresh, target)
    except OSError as error:
        with suppress(OSError):
            os.unlink(fresh)
        reason = (error.strerror or str(error)).lower()
        raise SkelebotError(
            f"{target} cannot be written: {reason}; what the job wrote stays on its engine"
        ) from None
    side.here[path] = side.agreed[path] = side.there[path]


def _take_file(stream: IO[bytes], target: str) -> None:
    """Replaces a mapped file by the one in a tar, where that differs."""
    data = stream.read()
    if not data:
        return  # the job has removed it, and nothing is deleted here
    with tarfile.open(fileobj=io.BytesIO(data)) as tar, open(target, "rb") as own:
        member = tar.next()
        source = tar.extractfile(member) if member else None
        if member is None or source is None or source.read() == own.read():
            return
        source.seek(0)
        fresh = f"{target}.{os.getpid()}.skelebot"
        _copy(source, fresh, member, lambda count: None)
        os.replace(fresh, target)


def _folder_of(top: str, path: str) -> bool:
    """Whether the folders above a path are there, made where they are missing, and none is a link."""
    folder = top
    for name in path.split("/")[:-1]:
        folder = os.path.join(folder, name)
        if os.path.islink(folder) or (os.path.exists(folder) and not os.path.isdir(folder)):
            return False
        os.makedirs(folder, exist_ok=True)
    return True


def _copy(source: IO[bytes], fresh: str, member: tarfile.TarInfo, moved: Callable[[int], None]) -> None:
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        while block := source.read(1 << 20):
            file.write(block)
            moved(len(block))
    os.chmod(fresh, member.mode & 0o777)
    time = nanoseconds(member.pax_headers.get("mtime", str(member.mtime)))
    os.utime(fresh, ns=(time, time))
