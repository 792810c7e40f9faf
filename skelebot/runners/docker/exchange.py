"""Bringing folders here in step with those of a place that does not see them, over one pair of streams.

Before a job, what is new here goes there; when it has ended, what it wrote comes back. What both sides
agreed on last is remembered, to tell a file that the job wrote from one that was deleted here. Nothing is
ever deleted on this side.
"""

import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from skelebot import console
from skelebot.errors import SkelebotError
from skelebot.files import reason, whole_file
from skelebot.runners.docker import sync
from skelebot.runners.docker.sync import Agreed, Agreement, FileState, Listing, Moved, Transfers

TOP = "/skelebot"  # there the folders stand in a container that looks after them, each by its number
_SHOWN = 5_000_000  # bytes from which a transfer shows its progress

# Runs a shell script where the folders are: write_stdin and read_stdout get its streams, each in a thread
# of its own. Raises SkelebotError where the script failed or read_stdout found its output incomplete.
Transport = Callable[[str, Callable[[IO[bytes]], None], Callable[[IO[bytes]], bool]], None]


class Folder(NamedTuple):
    """A folder here that has a counterpart there.

    state: the file that remembers what both agreed on last. left_out: a folder below that stays here.
    part: the name of a file that is on its way here. is_in_use: asks whether a job is writing it there.
    only: the one file of it that is meant; "" is all. read_only: whether nothing comes back.
    """

    path: str
    state: str
    left_out: str
    part: str
    is_in_use: Callable[[], bool]
    only: str = ""
    read_only: bool = False


def exchange(
    folders: Sequence[Folder], where: str, transport: Transport, both_ways: bool, verbose: bool
) -> None:
    """Bring the folders in step with their counterparts at `where`; without both_ways, only from there.

    The script there says what it has, packs what is asked of it, and takes what it is sent. Raises
    SkelebotError.
    """
    if not folders:
        return
    sides: list[_Side] = []
    compared = threading.Event()

    def read_stdout(stdout: IO[bytes]) -> bool:
        try:
            there = _read_listing(stdout)
            if there is None:
                return False
            sides.extend(_Side.of(n, folder, there.get(n, {})) for n, folder in enumerate(folders))
            _settle(sides, both_ways, verbose)
        finally:
            compared.set()
        return _fetch(stdout, sides, where) and _confirm(stdout, sides)

    def write_stdin(stdin: IO[bytes]) -> None:
        compared.wait()
        if sides:
            _send(stdin, sides, where)

    transport(_SCRIPT, write_stdin, read_stdout)
    for side in sides:
        if both_ways:
            side.agree()
        side.save()


# Runs as root where the folders stand, each by its number. stdout: the size of the listing in a line, the
# listing, a tar of what is asked for, and the same listing again if anything was unpacked. stdin: a line with
# the sizes of the two lists that follow it, of what to pack and what to delete, and whether a tar to unpack
# comes then.
# tar ends with 1 where another job has written to a file meanwhile, which will be asked for again.
_SCRIPT = f"""\
set -e
cd {TOP}
list() {{
    find . -mindepth 2 '(' -type f -o -type d -o -type l ')' \\
        -printf '%y\\0%s\\0%T@\\0%C@\\0%m\\0%l\\0%P\\0' >/tmp/list
    wc -c </tmp/list
    cat /tmp/list
}}
list
read -r pack delete unpack || exit 0
[ "$pack" = 0 ] ||
    head -c "$pack" | tar --create --format=posix --hard-dereference --no-recursion --null --files-from=- \\
        --ignore-failed-read || [ $? = 1 ]
[ "$delete" = 0 ] || head -c "$delete" | xargs -0 rm -df -- 2>/dev/null || true # a folder not empty stays
[ "$unpack" = 0 ] || {{ tar --extract --preserve-permissions --same-owner --numeric-owner; list; }}
"""


def _read_listing(stdout: IO[bytes]) -> dict[int, Listing] | None:
    """What is there; None where the answer breaks off, lest less be taken for all."""
    size = stdout.readline().strip(b"\0 \n")  # zeros are the rest of a tar before it
    data = stdout.read(int(size)) if size.isdigit() else b""
    return sync.parse_listing(data) if size.isdigit() and len(data) == int(size) else None


def _settle(sides: "list[_Side]", both_ways: bool, verbose: bool) -> None:
    """Decide what crosses over."""
    for side in sides:
        if side.folder.read_only:
            side.transfers = Transfers(side.transfers.send, side.transfers.delete)
        if not both_ways:
            side.warn_of_clashes()
            side.transfers = Transfers(fetch=side.transfers.fetch)
        elif side.transfers.fetch and side.folder.is_in_use():
            side.transfers.fetch.clear()  # it comes when the job that is writing it has ended
        if side.transfers.send:
            side.agreed |= dict.fromkeys(side.transfers.send)  # on their way
            side.save()
    if verbose:
        parts = zip(*(side.transfers.parts for side in sides), strict=True)
        numbers = (sum(map(len, each)) for each in parts)
        console.detail("  {} to send, {} to delete there, {} to fetch".format(*numbers))


def _fetch(stdout: IO[bytes], sides: "list[_Side]", where: str) -> bool:
    """Take what was asked for; False where the answer breaks off."""
    wanted = {f"{side.number}/{path}": (side, path) for side in sides for path in side.transfers.fetch}
    if not wanted:
        return True
    total = sum(side.there[path].size for side, path in wanted.values())
    try:
        with (
            _progress(f"results of {where}", total) as moved,
            tarfile.open(fileobj=stdout, mode="r|") as tar,
        ):
            for member in tar:
                if found := wanted.get(os.path.normpath(member.name)):
                    side, path = found
                    side.take(tar, member, path, moved)
    except tarfile.TarError:
        return False
    return True


def _confirm(stdout: IO[bytes], sides: "list[_Side]") -> bool:
    """Note what has arrived of what was sent; False where the answer breaks off."""
    if not any(side.transfers.send for side in sides):
        return True
    there = _read_listing(stdout)
    if there is None:
        return False
    for side in sides:
        side.sent = there.get(side.number, {})
    return True


def _send(stdin: IO[bytes], sides: "list[_Side]", where: str) -> None:
    fetch = _names(f"{side.number}/{path}" for side in sides for path in side.transfers.fetch)
    delete = _names(f"{side.number}/{path}" for side in sides for path in reversed(side.transfers.delete))
    total = sum(side.here[path].size for side in sides for path in side.transfers.send)
    any_to_send = any(side.transfers.send for side in sides)
    stdin.write(f"{len(fetch)} {len(delete)} {int(any_to_send)}\n".encode() + fetch + delete)
    stdin.flush()
    if any_to_send:
        with _progress(f"mappings to {where}", total) as moved:
            _pack(stdin, sides, moved)


def _names(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(f"./{path}") + b"\0" for path in paths)


def _pack(stream: IO[bytes], sides: "list[_Side]", moved: Moved) -> None:
    """Write what is to be sent as a tar."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for side in sides:
            sync.add(tar, f"{side.number}", side.folder.path, moved)
            for path in side.transfers.send:
                sync.add(tar, f"{side.number}/{path}", os.path.join(side.folder.path, path), moved)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Moved]:
    if total < _SHOWN:
        yield unseen
    else:
        with console.progress(what, total) as moved:
            yield moved


def unseen(count: int) -> None:
    """Where nobody looks how far a transfer has come."""


# --- one folder ---


@dataclass
class _Side:
    """A folder here and its counterpart; `agreed` becomes what both have.

    sent: what is there once everything that was sent has arrived.
    """

    number: int
    folder: Folder
    here: Listing
    there: Listing
    agreed: Agreed
    transfers: Transfers
    sent: Listing = field(default_factory=dict)

    @classmethod
    def of(cls, number: int, folder: Folder, there: Listing) -> "_Side":
        below = os.path.relpath(folder.left_out, folder.path) + "/"
        there = {path: entry for path, entry in there.items() if not f"{path}/".startswith(below)}
        here = sync.listed(folder.path, folder.left_out, folder.part)
        if folder.only:
            here = {path: entry for path, entry in here.items() if path == folder.only}
        agreed = _read_state(folder.state)
        return cls(number, folder, here, there, agreed, sync.compare(here, there, agreed))

    def warn_of_clashes(self) -> None:
        for path in self.transfers.clash:
            named = os.path.join(self.folder.path, path)
            console.warn(
                f"{named} was kept: the job replaced it with something of another type; "
                "move it away before the next run to get that"
            )

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, moved: Moved) -> None:
        """Put what a job wrote into its place, never through a link. Raises SkelebotError."""
        target = os.path.join(self.folder.path, path)
        try:
            if why := self._why_not(path, target):
                console.warn(f"{target} was kept: {why}")
                return
            theirs = self.there[path]
            if theirs.kind == "f" or not theirs.is_same(sync.entry_of(target)):
                sync.put(tar, member, target, self.folder.part, moved)
            self.here[path] = sync.entry_of(target) or theirs
        except OSError as error:
            raise SkelebotError(f"{target} cannot be written: {reason(error)}") from None
        self.agreed[path] = Agreement(self.here[path], theirs)

    def agree(self) -> None:
        """Note what both have now."""
        sent = set(self.transfers.send)
        self.agreed = {
            path: Agreement(own, self._counterpart(path, own, path in sent))
            for path, own in self.here.items()
        }

    def _counterpart(self, path: str, own: FileState, is_sent: bool) -> FileState:
        """Return what is known to be there; if nothing is, `own`, which will differ from any file there."""
        there, known = (self.sent if is_sent else self.there).get(path), self.agreed.get(path)
        if known and not is_sent:
            return known.there
        return there if there and there.is_same(own) else own

    def _why_not(self, path: str, target: str) -> str | None:
        """Why the place of a path is not to be written to."""
        if not _folder_of(self.folder.path, path):
            return "a parent folder is a link or a file here"
        now = sync.entry_of(target)
        if now and not now.is_unchanged(self.here.get(path)) and not now.is_same(self.there[path]):
            return "it has changed here in the meantime"
        return None

    def save(self) -> None:
        with whole_file(self.folder.state) as file:
            file.write(json.dumps(self.agreed).encode("ascii"))


def _read_state(path: str) -> Agreed:
    with suppress(OSError, ValueError, TypeError, AttributeError), open(path, encoding="ascii") as file:
        return {
            name: pair and Agreement(*(FileState(*state) for state in pair))
            for name, pair in json.load(file).items()
        }
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
