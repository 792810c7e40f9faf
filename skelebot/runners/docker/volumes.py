"""Mapped folders for an engine on another machine: volumes there, kept in step with the folders here.

Each mapping of a checkout has a volume of its own on the engine, which outlives its containers, so that
what has not changed is not sent again. Before a job, what is new here goes there; when it has ended, what
it wrote comes back. What both sides agreed on last is remembered, to tell a file that the job wrote from
one that was deleted here. Nothing is ever deleted on this side. A read-only mapping is one for the engine,
which lets no job write there: what another job wrote to the same folder is not lost by it.
"""

import hashlib
import json
import os
import re
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from skelebot import console, process
from skelebot.errors import SkelebotError
from skelebot.files import PART, locked, reason, whole_file
from skelebot.model import Mount, image_name
from skelebot.project.state import OWN, checkout_id, own_folder
from skelebot.runners.docker import sync
from skelebot.runners.docker.client import Client, csv, explained
from skelebot.runners.docker.labels import CHECKOUT_LABEL, JOB_LABEL, PROJECT_LABEL
from skelebot.runners.docker.sync import Agreed, Difference, FileState, Listing, Moved

MOUNTS_LABEL = "skelebot.mounts"

_TOP = "/skelebot"  # where the volumes stand in a container that looks after them
_SHOWN = 5_000_000  # bytes from which a transfer shows its progress

T = TypeVar("T")


# --- the volumes ---


@dataclass(frozen=True)
class Volumes:
    """What stands for a checkout's mappings on one engine: a volume for each folder, copies of the files.

    image: the id of one that has find and tar. files: the mapped files, each with the checksum of what
    the container was given; without one those that are read-only.
    """

    client: Client
    image: str
    project: str
    root: str
    folders: tuple[Mount, ...]
    files: tuple[tuple[Mount, str], ...]

    @classmethod
    def of(cls, client: Client, image: str, project: str, root: str, mounts: Iterable[Mount]) -> "Volumes":
        """Those of what is mapped now. Raises SkelebotError for what is neither a folder nor a file."""
        folders, files = [], []
        for mount in mounts:
            if os.path.isdir(mount.source):
                folders.append(mount)
            elif os.path.isfile(mount.source):
                files.append((mount, "" if mount.read_only else sync.checksum(mount.source)))
            else:
                raise SkelebotError(
                    f"{mount.source} is neither a folder nor a file, and cannot be mapped on {client.where}"
                )
        return cls(client, image, project, root, tuple(folders), tuple(files))

    def labels(self) -> tuple[tuple[str, str], ...]:
        """What a container carries for it to be told from others', and its results to be brought back."""
        mapped = [*((mount, None) for mount in self.folders), *self.files]
        mounts = [[m.source, m.target, m.read_only, sent] for m, sent in mapped]
        return ((MOUNTS_LABEL, json.dumps(mounts)),)

    def fields(self, mount: Mount, target: str) -> list[str]:
        """What the client's --mount says for a folder."""
        labels = {PROJECT_LABEL: self.project, CHECKOUT_LABEL: checkout_id(self.root)}
        words = ["type=volume", f"source={self._name(mount)}", f"target={target}", "volume-nocopy"]
        return words + [f"volume-label={name}={value}" for name, value in labels.items()]

    def send(self) -> None:
        """Brings the volumes in step with the folders; what an earlier job wrote comes back first."""
        with self._alone():
            self._exchange(self.folders, both_ways=True)

    def fetch(self, container: str) -> None:
        """Brings back what a job has written. Where that fails, it stays for another attempt."""
        try:
            with self._alone():
                self._exchange(tuple(m for m in self.folders if not m.read_only), both_ways=False)
                for mount, sent in self.files:
                    if not mount.read_only:
                        self._fetch_file(container, mount, sent)
        except BaseException:
            console.warn(
                f"what the job wrote stays on {self.client.where}; `skelebot logs JOB` brings it back"
            )
            raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Waits until no other run of the checkout is at it."""

        def on_wait() -> None:
            console.info("another run brings its mappings in step; this one waits for it")

        with locked(os.path.join(_state_folder(self.root), "lock"), on_wait=on_wait):
            yield

    # --- mapped files, which have no volume ---

    def send_files(self, container: str) -> None:
        """Copies the mapped files into a container that was not started yet."""
        if not self.files:
            return

        def feed(stdin: IO[bytes]) -> None:
            with tarfile.open(fileobj=stdin, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for mount, _ in self.files:
                    sync.add(tar, mount.target.lstrip("/"), os.path.realpath(mount.source), _unseen)

        code, _, said = self._pipe(("cp", "-", f"{container}:/"), feed, lambda stdout: stdout.read())
        if code != 0:
            raise explained(self.client, said, f"the mapped files could not be sent to {self.client.where}")

    def _fetch_file(self, container: str, mount: Mount, sent: str) -> None:
        def take(stdout: IO[bytes]) -> bool:
            try:
                _take_file(stdout, os.path.realpath(mount.source), sent, self._part)
                return True
            except tarfile.TarError:
                return False  # it breaks off, or there was nothing: the client says why

        code, whole, said = self._pipe(("cp", f"{container}:{mount.target}", "-"), None, take)
        has_gone = re.search(r"no such container|could not find the file", said.lower())
        if not has_gone and not (code == 0 and whole):
            raise explained(self.client, said, f"{mount.source} could not be brought back")

    # --- mapped folders ---

    def _exchange(self, folders: tuple[Mount, ...], both_ways: bool) -> None:
        """One container there says what it has, packs what is asked of it, and takes what it is sent."""
        if not folders:
            return
        sides: list[_Side] = []
        compared = threading.Event()

        def take(stdout: IO[bytes]) -> bool:
            try:
                there = _read_listing(stdout)
                if there is None:
                    return False
                sides.extend(self._compared(folders, there, both_ways))
            finally:
                compared.set()
            return self._fetch(stdout, sides)

        def feed(stdin: IO[bytes]) -> None:
            compared.wait()
            if sides:
                self._send(stdin, sides)

        self._run(folders, feed, take)
        for side in sides:
            if both_ways:
                side.agreed = dict(side.here)
            side.save()

    def _compared(
        self, folders: tuple[Mount, ...], there: dict[int, Listing], both_ways: bool
    ) -> "list[_Side]":
        sides = [self._side(n, mount, there.get(n, {})) for n, mount in enumerate(folders)]
        for side in sides:
            if not both_ways:
                side.warn_of_clashes()
                side.found = Difference(fetch=side.found.fetch)
            elif side.found.fetch and self._is_in_use(folders[side.number]):
                side.found.fetch.clear()  # it comes when the job that is writing it has ended
            if side.found.send:
                side.agreed |= dict.fromkeys(side.found.send)  # on their way
                side.save()
        if self.client.verbose:
            numbers = (
                sum(len(p) for p in each) for each in zip(*(s.found.parts for s in sides), strict=True)
            )
            console.detail("  {} to send, {} to delete there, {} to fetch".format(*numbers))
        return sides

    def _is_in_use(self, mount: Mount) -> bool:
        """Whether a job is running that maps the folder too."""
        which = ("--filter", f"volume={self._name(mount)}", "--filter", f"label={JOB_LABEL}")
        return self.client.query("ps", "--quiet", *which).strip() != ""

    def _side(self, number: int, mount: Mount, there: Listing) -> "_Side":
        folder, own = os.path.realpath(mount.source), os.path.realpath(os.path.join(self.root, OWN))
        below = os.path.relpath(own, folder) + "/"
        there = {path: entry for path, entry in there.items() if not f"{path}/".startswith(below)}
        here = sync.listed(folder, own, self._part)
        where = zlib.crc32(f"{self.client.where} {self._name(mount)}".encode())
        state = os.path.join(_state_folder(self.root), f"{self._name(mount)}.{where:08x}.json")
        agreed = _read_state(state)
        found = sync.compare(here, there, agreed)
        return _Side(number, folder, here, there, agreed, state, found, self._part)

    def _fetch(self, stdout: IO[bytes], sides: "list[_Side]") -> bool:
        """Takes what was asked for; False where the answer breaks off."""
        wanted = {f"{side.number}/{path}": (side, path) for side in sides for path in side.found.fetch}
        if not wanted:
            return True
        total = sum(side.there[path].size for side, path in wanted.values())
        shown = _progress(f"results of {self.client.where}", total)
        try:
            with shown as moved, tarfile.open(fileobj=stdout, mode="r|") as tar:
                for member in tar:
                    if found := wanted.get(os.path.normpath(member.name)):
                        side, path = found
                        side.take(tar, member, path, moved)
        except tarfile.TarError:
            return False
        return True

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

    @property
    def _part(self) -> str:
        """How a file is called that is on its way here: no other checkout's is called so."""
        return f".{checkout_id(self.root)}{PART}"

    def _run(
        self, folders: tuple[Mount, ...], feed: Callable[[IO[bytes]], None], take: Callable[[IO[bytes]], bool]
    ) -> None:
        """Runs the script in a container that sees the volumes. Raises SkelebotError."""
        words = ["run", "--rm", "--init", "--interactive", "--user", "0:0", "--network", "none"]
        # What the container writes is what is on its way here: the engine is not to keep it as a log too.
        words += ["--log-driver", "none", "--label", f"{PROJECT_LABEL}={self.project}"]
        for number, mount in enumerate(folders):
            words += ["--mount", csv(self.fields(mount, f"{_TOP}/{number}"))]
        words += ["--entrypoint", "/bin/sh", self.image, "-c", _SCRIPT]
        code, whole, said = self._pipe(tuple(words), feed, take)
        if code != 0 or not whole:
            lines = (line for line in said.splitlines() if "Exiting with failure status" not in line)
            raise explained(
                self.client,
                "\n".join(lines) or "the connection broke off",
                f"the mappings could not be brought in step with {self.client.where}",
            )

    def _pipe(
        self, words: tuple[str, ...], feed: Callable[[IO[bytes]], None] | None, take: Callable[[IO[bytes]], T]
    ) -> tuple[int, T, str]:
        step = self.client.step(*words)
        process.trace(self.client.verbose, step)
        return process.pipe(step, feed, take)


# Runs as root where the volumes stand, with a folder for each by its number. stdout: the size of the
# listing in a line, the listing, and a tar of what is asked for. stdin: a line with the sizes of the two
# lists that follow it, of what to pack and what to delete, and whether a tar to unpack comes then.
# tar ends with 1 where another job has written to a file meanwhile, which will be asked for again.
_SCRIPT = f"""\
set -e
cd {_TOP}
find . -mindepth 2 '(' -type f -o -type d -o -type l ')' -printf '%y\\0%s\\0%T@\\0%m\\0%l\\0%P\\0' >/tmp/list
wc -c </tmp/list
cat /tmp/list
read -r pack delete unpack || exit 0
[ "$pack" = 0 ] ||
    head -c "$pack" | tar --create --format=posix --hard-dereference --no-recursion --null --files-from=- \\
        --ignore-failed-read || [ $? = 1 ]
[ "$delete" = 0 ] || head -c "$delete" | xargs -0 rm -df -- 2>/dev/null || true # a folder not empty stays
[ "$unpack" = 0 ] || exec tar --extract --preserve-permissions --same-owner --numeric-owner
"""


def _names(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(f"./{path}") + b"\0" for path in paths)


def _read_listing(stdout: IO[bytes]) -> dict[int, Listing] | None:
    """What the volumes hold; None where the answer breaks off, lest less be taken for all."""
    size = stdout.readline().strip()
    data = stdout.read(int(size)) if size.isdigit() else b""
    return sync.parse_listing(data) if size.isdigit() and len(data) == int(size) else None


@dataclass
class _Side:
    """A folder here and its volume there; `agreed` becomes what both have."""

    number: int
    folder: str
    here: Listing
    there: Listing
    agreed: Agreed
    state: str
    found: Difference
    part: str

    def warn_of_clashes(self) -> None:
        for path in self.found.clash:
            named = os.path.join(self.folder, path)
            console.warn(
                f"{named} stays as it is: the job has made something of another kind of it; "
                "move it away before the next run to get that"
            )

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, moved: Moved) -> None:
        """Puts what a job wrote into its place, never through a link. Raises SkelebotError."""
        target = os.path.join(self.folder, path)
        try:
            if why := self._why_not(path, target):
                console.warn(f"{target} stays as it is: {why}")
                return
            if not self.there[path].is_same(sync.entry_of(target)):
                sync.put(tar, member, target, self.part, moved)
        except OSError as error:
            raise SkelebotError(f"{target} cannot be written: {reason(error)}") from None
        self.here[path] = self.agreed[path] = self.there[path]

    def _why_not(self, path: str, target: str) -> str | None:
        """Why the place of a path is not to be written to."""
        if not _folder_of(self.folder, path):
            return "a folder above it is a link or a file here"
        now = sync.entry_of(target)
        if now and not now.is_same(self.here.get(path)) and not now.is_same(self.there[path]):
            return "it has changed here meanwhile"
        return None

    def save(self) -> None:
        data = {path: entry and list(entry) for path, entry in self.agreed.items()}
        with whole_file(self.state) as file:
            file.write(json.dumps(data).encode("ascii"))


def _read_state(path: str) -> Agreed:
    with suppress(OSError, ValueError, TypeError, AttributeError), open(path, encoding="ascii") as file:
        return {name: entry and FileState(*entry) for name, entry in json.load(file).items()}
    return {}


def _folder_of(top: str, path: str) -> bool:
    """Whether the folders above a path are there, made where they are missing, and none is a link."""
    folder = top
    for name in path.split("/")[:-1]:
        folder = os.path.join(folder, name)
        if os.path.islink(folder) or (os.path.exists(folder) and not os.path.isdir(folder)):
            return False
        os.makedirs(folder, exist_ok=True)
    return True


def _pack(stream: IO[bytes], sides: list[_Side], moved: Moved) -> None:
    """Writes what is to be sent as a tar."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for side in sides:
            sync.add(tar, f"{side.number}", side.folder, moved)
            for path in side.found.send:
                sync.add(tar, f"{side.number}/{path}", os.path.join(side.folder, path), moved)


def _take_file(stream: IO[bytes], target: str, sent: str, part: str) -> None:
    """Puts a mapped file into its place where the job has changed it, and nobody later here.

    sent: the checksum of what the job was given. Raises SkelebotError, and tarfile.TarError for a tar
    that breaks off.
    """
    fresh = os.path.join(os.path.dirname(target), part)
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        member = tar.next()
        source = tar.extractfile(member) if member and member.isreg() else None
        if member is None or source is None:
            return  # the job has put something of another kind in its place
        try:
            sync.copy(source, fresh, member, _unseen)
            if _is_news(fresh, target, sent, member):
                os.replace(fresh, target)
        except OSError as error:
            raise SkelebotError(f"{target} cannot be written: {reason(error)}") from None
        finally:
            with suppress(OSError):
                os.unlink(fresh)


def _is_news(fresh: str, target: str, sent: str, member: tarfile.TarInfo) -> bool:
    theirs, own = sync.checksum(fresh), sync.checksum(target)
    if theirs in (sent, own):
        return False
    return own in (sent, "") or sync.mtime(member) > os.stat(target).st_mtime_ns


def _state_folder(root: str) -> str:
    folder = os.path.join(own_folder(root), "remote")
    os.makedirs(folder, exist_ok=True)
    return folder


def _unseen(count: int) -> None:
    """Where nobody looks how far a transfer has come."""


@contextmanager
def _progress(what: str, total: int) -> Iterator[Moved]:
    if total < _SHOWN:
        yield _unseen
    else:
        with console.progress(what, total) as moved:
            yield moved


# --- what a job has left behind ---


def of_container(client: Client, root: str, name: str) -> tuple[Volumes, bool] | None:
    """The volumes of a container that this checkout started, and whether it has ended."""

    def read(found: dict[str, Any]) -> tuple[Volumes, bool] | None:
        labels = found["Config"].get("Labels") or {}
        if MOUNTS_LABEL not in labels or labels.get(CHECKOUT_LABEL) != checkout_id(root):
            return None
        mapped = [(Mount(*fields), sent) for *fields, sent in json.loads(labels[MOUNTS_LABEL])]
        folders = tuple(mount for mount, sent in mapped if sent is None)
        files = tuple((mount, sent) for mount, sent in mapped if sent is not None)
        volumes = Volumes(client, found["Image"], labels[PROJECT_LABEL], root, folders, files)
        return volumes, not found["State"]["Running"]

    return next(iter(client.inspect_all((name,), read)), None)


def bring_back(client: Client, root: str, name: str) -> None:
    """Bring back the results of a detached container, once it has ended. Raises SkelebotError."""
    found = of_container(client, root, name)
    if found and found[1]:
        found[0].fetch(name)
