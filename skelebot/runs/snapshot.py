"""The code of runs: the files of a build context, kept bit for bit in a bare git repository of the store.

    STORE/code.git/refs/trees/TREE   a snapshot; it stays while it is young or a run keeps it
    STORE/code.git/refs/runs/UID     the snapshot of a run
    STORE/blobs/SHA256               a large file, which is not in the repository
    STORE/code.lock                  shared by those that add something, exclusive for `collect`

A snapshot is a git tree of these:

    manifest   the truth: mode, id, size and path of everything, whatever its name and permissions
    files/     the same as far as git has words for it, so that git can show differences
    hidden/    content below a path that git refuses, such as `.git` of a nested repository, by its id

Objects are written as one pack for each snapshot. Git reads no file of the project itself, as it would apply
filters and leave files out. See https://git-scm.com/docs/gitformat-pack.
"""

import io
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, NamedTuple, TypeVar

from skelebot import console, files, git, process
from skelebot.errors import SkelebotError
from skelebot.image.context import ContextEntry, unreadable
from skelebot.image.fingerprint import FingerprintCache

if TYPE_CHECKING:
    from io import FileIO
    from queue import SimpleQueue

T = TypeVar("T")

LARGE = 10_000_000  # bytes from which a file is stored beside the repository
YOUNG = 24 * 3600  # seconds for which a snapshot stays though no run keeps it yet

_PENDING = 64_000_000  # bytes of new objects that are held in memory
_TRIES = 10  # times that a file is read which changes meanwhile
_TICK = 0.02  # seconds in which a file may change twice without its times showing it
_HEADER = b"skelebot manifest 1"
_KINDS = {"tree": 2, "blob": 3}  # their numbers in a pack
_CONFIG = """\
[core]
\trepositoryformatversion = 0
\tbare = true
\tquotePath = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[pack]
\twriteReverseIndex = false
[repack]
\twriteBitmaps = false
"""
# Names that git, or its fsck, refuses in a tree or reads itself: https://git-scm.com/docs/git-fsck
_REFUSED = re.compile(rb"\.git(?!(?:ignore|keep|hub)(?:/|$)|lab)|git\w*~|gi[0-9a-f]{4}~", re.IGNORECASE)
_REFUSED_LINK = re.compile(rb"\.git|\.mailmap|~", re.IGNORECASE)

_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # never missing for git, but for its fsck

_FOLDERS = ("objects/pack", "refs/trees", "refs/runs", "tmp")  # of the repository
_READING = os.R_OK | os.X_OK
_WRITING = _READING | os.W_OK

Add = Callable[[str, bytes], str]  # stores an object of a kind and returns its id


class Entry(NamedTuple):
    """What a snapshot holds at a path: type and permissions as in st_mode, the content's id, and its size.

    id: the SHA-256 of a large file, git's id of any other file and of a link's target; "-" for a folder.
    """

    mode: int
    id: str
    size: int

    @property
    def is_large(self) -> bool:
        return len(self.id) == 64


# --- taking ---


def take(store: str, entries: Sequence[ContextEntry], cache_folder: str) -> str:
    """Store the files of a build context and return the id of the snapshot, which depends on them alone.

    cache_folder: where what is known of unchanged files is kept. The snapshot stays for a day, and for as
    long as a run keeps it. Raises SkelebotError for a file that cannot be read or keeps changing.
    """
    cache = FingerprintCache(cache_folder, "snapshot")
    with _adding(store):
        return cache.remember(
            "", entries, "context", lambda: _store(store, entries, cache), lambda tree: _refresh(store, tree)
        )


def _refresh(store: str, tree: str) -> bool:
    """Make a snapshot young again; whether there is one."""
    try:
        os.utime(_tree_ref(store, tree))
    except (FileNotFoundError, ValueError):
        return False
    return True


def _store(store: str, entries: Sequence[ContextEntry], cache: FingerprintCache) -> str:
    objects = _Objects(store)
    known = {e.path: i for e in entries if stat.S_ISREG(e.stat.st_mode) and (i := cache.recall(e))}
    lost = _missing(store, set(known.values()))
    contents: dict[str, Entry] = {}
    for entry in entries:
        ident = known.get(entry.path)
        with suppress(FileNotFoundError):  # gone since the folder was listed
            if ident and ident not in lost:
                contents[entry.path] = Entry(entry.stat.st_mode, ident, entry.stat.st_size)
            elif found := _store_entry(objects, entry, cache):
                contents[entry.path] = found
    tree = _wrap(contents, objects.add)
    objects.flush()
    _write_ref(store, _tree_ref(store, tree), tree)
    cache.save()
    return tree


def _store_entry(objects: "_Objects", entry: ContextEntry, cache: FingerprintCache) -> Entry | None:
    """Store a file, folder or link. None for a socket or a pipe, which have no content."""
    mode = entry.stat.st_mode
    if stat.S_ISDIR(mode):
        return Entry(mode, "-", 0)
    if stat.S_ISLNK(mode):
        with _reading(entry):
            target = os.fsencode(os.readlink(entry.file))
        return Entry(stat.S_IFLNK | 0o777, objects.add("blob", target), len(target))
    if not stat.S_ISREG(mode):
        return None
    current, ident = _store_file(objects, entry)
    cache.note(current, ident)
    return Entry(current.stat.st_mode, ident, current.stat.st_size)


def _store_file(objects: "_Objects", entry: ContextEntry) -> tuple[ContextEntry, str]:
    """Store a file's content as it was at one moment; returns what it was then, and the id."""
    for _ in range(_TRIES):
        before = _status(entry)
        if 0 <= time.time() - before.st_ctime < _TICK:
            time.sleep(_TICK)
            continue
        add = objects.add_large if before.st_size >= LARGE else objects.add_file
        ident, size = add(entry)
        if size == before.st_size and _moment(before) == _moment(_status(entry)):
            return entry._replace(stat=before), ident
    raise SkelebotError(f"{entry.path} changes while it is read; wait for whoever writes it, or ignore it")


def _status(entry: ContextEntry) -> os.stat_result:
    with _reading(entry):
        return os.lstat(entry.file)


def _moment(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes when somebody writes to a file or replaces it."""
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class _Objects:
    """Objects on their way into the repository; what is there already is not written again."""

    def __init__(self, store: str) -> None:
        self._store, self._size = store, 0
        self._pending: dict[str, tuple[str, bytes]] = {}

    def add(self, kind: str, data: bytes) -> str:
        ident = _object_id(kind, data)
        if ident not in self._pending:
            self._pending[ident] = kind, data
            self._size += len(data)
        if self._size > _PENDING:
            self.flush()
        return ident

    def add_file(self, entry: ContextEntry) -> tuple[str, int]:
        """Add a file's content; returns id and size."""
        with _reading(entry), files.open_regular(entry.file) as file:
            data = file.read()
        return self.add("blob", data), len(data)

    def add_large(self, entry: ContextEntry) -> tuple[str, int]:
        """Put a file's content beside the repository; returns its SHA-256 and size."""
        with _temporary(self._store) as copy:
            with _reading(entry), files.open_regular(entry.file) as file:
                ident = _copy(file, copy, 0o400)
            size = os.path.getsize(copy)
            if not _has_blob(self._store, ident):
                _put_blob(self._store, copy, ident)
        return ident, size

    def flush(self) -> None:
        """Write what is pending and new."""
        missing = _missing(self._store, self._pending.keys()) | (self._pending.keys() & {_EMPTY_TREE})
        if missing:
            _write_pack(self._store, [self._pending[ident] for ident in sorted(missing)])
        self._pending, self._size = {}, 0


@contextmanager
def _reading(entry: ContextEntry) -> Iterator[None]:
    """Report what keeps a file of the project from being read."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.filename not in (None, entry.file):
            raise  # a file of the store
        raise unreadable(entry.path, error) from None


def _object_id(kind: str, data: bytes) -> str:
    import hashlib

    head = f"{kind} {len(data)}\0".encode("ascii")
    return hashlib.sha1(head + data, usedforsecurity=False).hexdigest()


def _missing(store: str, idents: Collection[str]) -> set[str]:
    """Return those ids, of objects and of large files, whose content the store does not hold."""
    small = [ident for ident in idents if len(ident) == 40]
    missing = {ident for ident in idents if len(ident) != 40 and not _has_blob(store, ident)}
    if small:
        asked = "".join(f"{ident}\n" for ident in small)
        said = git.own_answer(_repository(store), "cat-file", "--batch-check=", "--buffer", stdin=asked)
        missing |= {line.partition(" ")[0] for line in said.splitlines() if line.endswith(" missing")}
    return missing


def _write_pack(store: str, objects: Sequence[tuple[str, bytes]]) -> None:
    import hashlib

    with _temporary(store) as path:
        digest = hashlib.sha1(usedforsecurity=False)
        with open(path, "xb", opener=_private) as file:
            head = b"PACK" + (2).to_bytes(4, "big") + len(objects).to_bytes(4, "big")
            for part in (head, *map(_packed, objects)):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
        _add_pack(store, path)


def _packed(item: tuple[str, bytes]) -> bytes:
    """Return an object as it stands in a pack: kind and size, seven bits to a byte, and what was deflated."""
    kind, data = item
    size, first = len(data) >> 4, _KINDS[kind] << 4 | len(data) & 15
    head = bytearray()
    while size:
        head.append(first | 0x80)
        size, first = size >> 7, size & 0x7F
    return bytes([*head, first]) + zlib.compress(data, 1)


def _add_pack(store: str, path: str, *checks: str) -> None:
    """Put a pack into the repository, once git has read it through."""
    pack, index = f"{path}.pack", f"{path}.idx"
    os.rename(path, pack)
    try:
        name = git.own_answer(_repository(store), "index-pack", *checks, "-o", index, pack).strip()
        folder = os.path.join(_repository(store), "objects", "pack")
        _put(pack, os.path.join(folder, f"pack-{name}.pack"))
        _put(index, os.path.join(folder, f"pack-{name}.idx"))  # makes it known
    finally:
        for left in (pack, index):
            with suppress(FileNotFoundError):
                os.unlink(left)


# --- a snapshot's tree ---


def _wrap(contents: Mapping[str, Entry], add: Add) -> str:
    """Make the tree of a snapshot out of its entries."""
    lines = [f"{e.mode:o} {e.id} {e.size} ".encode("ascii") + os.fsencode(p) for p, e in _sorted(contents)]
    plain = {os.fsencode(path): entry for path, entry in contents.items() if not _is_hidden(path, entry)}
    hidden = {e.id for p, e in contents.items() if len(e.id) == 40 and _is_hidden(p, e)}
    parts = [(b"40000", b"files", _files_tree(plain, add))]
    if hidden:
        named = [(b"100644", ident.encode("ascii"), ident) for ident in hidden]
        parts.append((b"40000", b"hidden", add("tree", _tree(named))))
    parts.append((b"100644", b"manifest", add("blob", b"\0".join([_HEADER, *lines, b""]))))
    return add("tree", _tree(parts))


def _sorted(contents: Mapping[str, Entry]) -> list[tuple[str, Entry]]:
    return sorted(contents.items(), key=lambda item: os.fsencode(item[0]))


def _is_hidden(path: str, entry: Entry) -> bool:
    """Whether git would not have the path in a tree; some file systems ignore characters beyond ASCII."""
    refused = _REFUSED_LINK if stat.S_ISLNK(entry.mode) else _REFUSED
    return bool(refused.search(path.encode("ascii", "ignore")))


def _files_tree(plain: Mapping[bytes, Entry], add: Add) -> str:
    """Make the tree that git shows the differences of. It has no empty folders."""
    folders: dict[bytes, list[tuple[bytes, bytes, str]]] = {b"": []}
    for path, entry in plain.items():
        if stat.S_ISDIR(entry.mode):
            continue
        folder, _, name = path.rpartition(b"/")
        folders.setdefault(folder, []).append((_git_mode(entry.mode), name, _shown(entry, add)))
        while folder:
            folder = folder.rpartition(b"/")[0]
            folders.setdefault(folder, [])
    for path in sorted(folders, key=lambda p: p.count(b"/"), reverse=True):
        if path:
            above, _, name = path.rpartition(b"/")
            folders[above].append((b"40000", name, add("tree", _tree(folders[path]))))
    return add("tree", _tree(folders[b""]))


def _git_mode(mode: int) -> bytes:
    return b"120000" if stat.S_ISLNK(mode) else b"100755" if mode & stat.S_IXUSR else b"100644"


def _shown(entry: Entry, add: Add) -> str:
    """Return the id of what git shows for a file: a line of text for a large one."""
    if not entry.is_large:
        return entry.id
    return add("blob", f"large file: {entry.size} bytes, sha256 {entry.id}\n".encode("ascii"))


def _tree(parts: Iterable[tuple[bytes, bytes, str]]) -> bytes:
    """Return a tree object's data; git sorts a folder as if its name ended with a slash."""
    ordered = sorted(parts, key=lambda p: p[1] + b"/" if p[0] == b"40000" else p[1])
    return b"".join(mode + b" " + name + b"\0" + bytes.fromhex(ident) for mode, name, ident in ordered)


def _parse(manifest: bytes) -> dict[str, Entry]:
    """Raises ValueError for what is not a manifest, or names a path outside the folder."""
    header, *lines, last = manifest.split(b"\0")
    if header != _HEADER or last:
        raise ValueError
    contents = {}
    for line in lines:
        mode, ident, size, path = line.split(b" ", 3)
        if {b"", b".", b".."} & set(path.split(b"/")):
            raise ValueError
        contents[os.fsdecode(path)] = Entry(int(mode, 8), ident.decode("ascii"), int(size))
    return contents


# --- keeping ---


def keep(store: str, tree: str, uid: str) -> None:
    """Keep a snapshot for a run. Raises SkelebotError if the store does not hold it."""
    with _adding(store), _temporary(store) as link:
        try:
            os.link(_tree_ref(store, tree), link)  # as good as a copy, and on the disk already
        except FileNotFoundError:
            raise _unknown(store, tree) from None
        except OSError:  # too many links to one file, or a file system without
            _write_ref(store, _run_ref(store, uid), tree)
            return
        os.replace(link, _run_ref(store, uid))


def forget(store: str, uid: str) -> None:
    """Keep a run's snapshot no longer."""
    with _adding(store), suppress(FileNotFoundError):
        os.unlink(_run_ref(store, uid))


def collect(store: str, young: float = YOUNG) -> int:
    """Remove what no run keeps and what killed processes have left; returns how many bytes that frees.

    young: how many seconds a snapshot stays after it was taken. Waits for those who add something.
    """
    if not os.path.isdir(_repository(store)):
        return 0
    with _storing(store), files.locked(os.path.join(store, "code.lock")) as lock:
        _check_usable(store, _WRITING)
        before = _size(store)
        trees = _drop_old(store, young)
        _repack(store, lock)
        # Only for large files are the manifests read.
        entries = (e for tree in trees if _blobs(store) for e in _contents(store, tree).values())
        _sweep(store, {entry.id for entry in entries})
        return max(0, before - _size(store))


def _repack(store: str, lock: IO[str]) -> None:
    """Let git drop what nothing leads to. It inherits the lock, as it may outlive this process."""
    code = _repository(store)
    try:
        git.own_change(code, "repack", "-a", "-d", "-q", pass_fds=(lock.fileno(),))
    except SkelebotError as error:
        raise SkelebotError(
            f"{error}; its code is kept, and `git -C {_quoted(code)} fsck` says more"
        ) from None


def _drop_old(store: str, young: float) -> list[str]:
    """Remove the snapshots that are neither young nor kept; returns the ids of the others."""
    refs = os.path.join(_repository(store), "refs")
    runs = os.path.join(refs, "runs")
    kept = {_read_ref(os.path.join(runs, uid)) for uid in os.listdir(runs)}
    stay = []
    for tree in os.listdir(os.path.join(refs, "trees")):
        path = _tree_ref(store, tree)
        if tree in kept or time.time() - os.stat(path).st_mtime < young:
            stay.append(tree)
        else:
            os.unlink(path)
    return stay


def _read_ref(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read()
    if re.fullmatch(rb"[0-9a-f]{40}\n", data):
        return data[:40].decode("ascii")
    raise SkelebotError(f"{path} is damaged, so nothing is removed; remove it if its run is not needed")


def _sweep(store: str, used: Collection[str]) -> None:
    """Remove large files that are not used, and unfinished files, while nobody else adds any."""
    code = _repository(store)
    packs, temporary = os.path.join(code, "objects", "pack"), os.path.join(code, "tmp")
    names = set(os.listdir(packs))
    whole = {n for n in names if n.startswith("pack-") and n[:-5] + ".idx" in names}
    whole |= {f"{n[:-5]}.idx" for n in whole}
    garbage = [os.path.join(packs, name) for name in names - whole]
    garbage += [os.path.join(temporary, name) for name in os.listdir(temporary)]
    garbage += [_blob(store, name) for name in _blobs(store) if name not in used]
    for path in garbage:
        with suppress(FileNotFoundError):  # the git of a killed process has just ended
            os.unlink(path)
    for name in os.listdir(store):
        if name.startswith("code.git.") and name.endswith(files.PART):
            files.remove_tree(os.path.join(store, name))


def _blobs(store: str) -> list[str]:
    folder = os.path.join(store, "blobs")
    return os.listdir(folder) if os.path.isdir(folder) else []


def _size(store: str) -> int:
    tops = (_repository(store), os.path.join(store, "blobs"))
    paths = (os.path.join(f, name) for top in tops for f, _, names in os.walk(top) for name in names)
    return sum(os.lstat(path).st_size for path in paths)


# --- reading ---


def contents(store: str, tree: str) -> dict[str, Entry]:
    """Return what a snapshot holds, by path. Raises SkelebotError if it is missing or damaged."""
    _check_known(store, tree)
    return _contents(store, tree)


def _contents(store: str, tree: str) -> dict[str, Entry]:
    return _read(store, lambda reader: reader.manifest(tree))


def restore(store: str, tree: str, folder: str) -> None:
    """Write a snapshot into an empty folder, or a new one: content, permissions, links and folders.

    What is read is verified. Raises SkelebotError that names what is damaged, or cannot be written.
    """
    _check_known(store, tree)
    try:
        os.makedirs(folder, exist_ok=True)
        if os.listdir(folder):
            raise SkelebotError(f"{folder} is not empty; name an empty folder or a new one")
        _read(store, lambda reader: _restore(reader, store, reader.manifest(tree), folder))
    except OSError as error:
        raise SkelebotError(f"{error.filename or folder} cannot be written: {files.reason(error)}") from None


class GitFile(NamedTuple):
    """A file or link as git holds it; `size` counts the bytes of `content`."""

    path: bytes
    mode: bytes
    size: int
    content: IO[bytes]


def read_files(store: str, tree: str, use: Callable[[GitFile], None]) -> None:
    """Call `use` for each file and link of a snapshot that git can hold, with all of its content."""
    _check_known(store, tree)

    def read(reader: "_Reader") -> None:
        found = reader.manifest(tree)
        held = {p: e for p, e in found.items() if not stat.S_ISDIR(e.mode) and not _is_hidden(p, e)}
        reader.request(entry.id for entry in held.values() if not entry.is_large)
        for path, entry in held.items():
            with _content(reader, store, path, entry) as content:
                use(GitFile(os.fsencode(path), _git_mode(entry.mode), entry.size, content))

    _read(store, read)


def _content(reader: "_Reader", store: str, path: str, entry: Entry) -> IO[bytes]:
    if not entry.is_large:
        return io.BytesIO(reader.read(entry.id, "blob", path))
    blob = _blob(store, entry.id)
    try:
        if files.sha256(blob) == entry.id:
            return files.open_regular(blob)
    except OSError:
        pass
    raise _damaged(store, path, blob)


def not_in_git(store: str, tree: str) -> list[str]:
    """Return the paths of a snapshot that git cannot hold: those that it refuses, and empty folders."""
    found = contents(store, tree)
    filled = {path.rpartition("/")[0] for path in found}
    return [
        path
        for path, entry in _sorted(found)
        if _is_hidden(path, entry) or (stat.S_ISDIR(entry.mode) and path not in filled)
    ]


def _restore(reader: "_Reader", store: str, found: dict[str, Entry], folder: str) -> None:
    """Write the entries: folders first, so that nothing is written through a link."""
    small = {p: e for p, e in found.items() if not stat.S_ISDIR(e.mode) and not e.is_large}
    reader.request(entry.id for entry in small.values())
    folders = [path for path, entry in _sorted(found) if stat.S_ISDIR(entry.mode)]
    for path in folders:
        os.makedirs(os.path.join(folder, path), 0o700)
    made = {"", *folders}
    for path, entry in found.items():
        if (above := path.rpartition("/")[0]) not in made and not stat.S_ISDIR(entry.mode):
            os.makedirs(os.path.join(folder, above), exist_ok=True)
            made.add(above)
    for path, entry in found.items():
        target = os.path.join(folder, path)
        if entry.is_large:
            _copy_blob(store, path, entry, target, stat.S_IMODE(entry.mode))
        elif path in small:
            data = reader.read(entry.id, "blob", path)
            if stat.S_ISLNK(entry.mode):
                os.symlink(data, os.fsencode(target))
            else:
                _write(target, data, stat.S_IMODE(entry.mode))
    for path in reversed(folders):
        os.chmod(os.path.join(folder, path), stat.S_IMODE(found[path].mode))


def _write(path: str, data: bytes, mode: int) -> None:
    with open(path, "xb", buffering=0, opener=_private) as file:
        _write_all(file, data)
        os.fchmod(file.fileno(), mode)


def _write_all(file: "FileIO", data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        error.filename = file.name  # not that of what is read at the same time
        raise


def _copy_blob(store: str, path: str, entry: Entry, target: str, mode: int = 0o400) -> None:
    """Copy a large file out of a store, or an export, and verify it."""
    if _copy_known(_blob(store, entry.id), target, store, path, mode) != entry.id:
        raise _damaged(store, path, _blob(store, entry.id))


def _copy_known(source: str, target: str, where: str, what: str, mode: int = 0o400) -> str:
    """Copy what should be there, and return its SHA-256."""
    try:
        file = files.open_regular(source)
    except OSError:
        raise _damaged(where, what, source) from None
    with file:
        return _copy(file, target, mode)


class _Reader:
    """One `git cat-file` for many objects. Each that is read was requested before, in the same order."""

    def __init__(self, store: str, stream: IO[bytes], requests: "SimpleQueue[bytes]") -> None:
        self._store, self._stream, self._requests = store, stream, requests

    def request(self, idents: Iterable[str]) -> None:
        if asked := "".join(f"{ident}\n" for ident in idents):
            self._requests.put(asked.encode("ascii"))

    def read(self, ident: str, kind: str, what: str) -> bytes:
        """Return an object's data; `what` is named where it is damaged or missing."""
        head = self._stream.readline().split()
        if len(head) != 3 or head[1] != kind.encode("ascii"):
            raise _damaged(self._store, what)
        data = self._stream.read(int(head[2]))
        if len(data) != int(head[2]) or self._stream.read(1) != b"\n" or _object_id(kind, data) != ident:
            raise _damaged(self._store, what)
        return data

    def manifest(self, tree: str) -> dict[str, Entry]:
        self.request([tree])
        _, _, rest = self.read(tree, "tree", tree).partition(b"100644 manifest\0")
        ident = rest[:20].hex()
        self.request([ident])
        try:
            return _parse(self.read(ident, "blob", tree))
        except ValueError:
            raise _damaged(self._store, tree) from None


def _read(store: str, use: Callable[[_Reader], T]) -> T:
    """Give `use` a reader of the repository's objects."""
    from queue import SimpleQueue

    requests: SimpleQueue[bytes] = SimpleQueue()

    def write(stdin: IO[bytes]) -> None:
        while asked := requests.get():
            stdin.write(asked)
            stdin.flush()

    def read(stdout: IO[bytes]) -> T:
        try:
            return use(_Reader(store, stdout, requests))
        finally:
            requests.put(b"")

    return process.pipe(git.own_step(_repository(store), "cat-file", "--batch"), write, read)[1]


# --- comparing ---


def difference(store: str, a: str, b: str, stat_only: bool = False, colour: bool = False) -> str:
    """Return git's diff of two snapshots, and a line for each difference that it cannot show."""
    shape = ("--stat",) if stat_only else ("--patch",)
    how = ("--find-renames", f"--color={'always' if colour else 'never'}")
    before, after = contents(store, a), contents(store, b)
    shown = git.own_answer(_repository(store), "diff", *how, *shape, f"{a}:files", f"{b}:files", "--")
    return shown + "".join(f"{line}\n" for line in _unshown(before, after))


def _unshown(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> list[str]:
    """Describe what git does not show: permissions, empty folders, and files below a name it refuses."""
    lines = []
    filled = {path.rpartition("/")[0] for found in (before, after) for path in found}
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        name = console.one_line(path)
        if old and new:
            if old.id != new.id and _is_hidden(path, old) and _is_hidden(path, new):
                lines.append(f"{name}: changed")
            if old.mode != new.mode:
                lines.append(f"{name}: mode {_mode_text(old.mode)}, now {_mode_text(new.mode)}")
        elif (one := old or new) and (
            _is_hidden(path, one) or (stat.S_ISDIR(one.mode) and path not in filled)
        ):
            lines.append(f"{name}: {'removed' if old else 'added'}")
    return lines


def _mode_text(mode: int) -> str:
    return stat.filemode(mode)


# --- moving to another store ---


def export_tree(store: str, tree: str, folder: str) -> None:
    """Write a snapshot into a folder, as a pack of git's and its large files, for `import_tree`."""
    found = contents(store, tree)
    with _storing(folder):
        os.makedirs(folder, exist_ok=True)
        asked = f"{tree}\n"
        words = ("pack-objects", "--revs", "-q", os.path.join(os.path.abspath(folder), "code"))
        git.own_answer(_repository(store), *words, stdin=asked)
        large = {entry.id: (path, entry) for path, entry in found.items() if entry.is_large}
        if large:
            os.makedirs(os.path.join(folder, "blobs"), exist_ok=True)
        for ident, (path, entry) in large.items():
            target = os.path.join(folder, "blobs", ident)
            if not os.path.exists(target):
                _copy_blob(store, path, entry, target)


def import_tree(store: str, tree: str, folder: str) -> None:
    """Add a snapshot that another store has exported. Raises SkelebotError unless all of it is intact."""
    with _adding(store):
        for name in _packs(folder):
            with _temporary(store) as path:
                _copy_known(os.path.join(folder, name), path, folder, name)
                _add_pack(store, path, "--strict")
        found = _contents(store, tree)
        for path, entry in found.items():
            if entry.is_large and not _has_blob(store, entry.id):
                with _temporary(store) as copy:
                    _copy_blob(folder, path, entry, copy)
                    _put_blob(store, copy, entry.id)
        ids = {entry.id for entry in found.values()} - {"-"}
        if _missing(store, ids) or _wrap(found, _object_id) != tree:
            raise _damaged(folder, tree)
        _write_ref(store, _tree_ref(store, tree), tree)


def _packs(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if re.fullmatch(r"code-[0-9a-f]+\.pack", name)]
    except OSError as error:
        raise SkelebotError(f"{folder} cannot be read: {files.reason(error)}") from None


# --- the store's files ---


def _repository(store: str) -> str:
    return os.path.join(os.path.abspath(store), "code.git")


def _blob(store: str, ident: str) -> str:
    return os.path.join(store, "blobs", ident)


def _has_blob(store: str, ident: str) -> bool:
    return os.path.exists(_blob(store, ident))


def _put_blob(store: str, fresh: str, ident: str) -> None:
    os.makedirs(os.path.join(store, "blobs"), 0o700, exist_ok=True)
    _put(fresh, _blob(store, ident))


def _tree_ref(store: str, tree: str) -> str:
    return os.path.join(_repository(store), "refs", "trees", tree)


def _run_ref(store: str, uid: str) -> str:
    return os.path.join(_repository(store), "refs", "runs", uid)


def _write_ref(store: str, path: str, tree: str) -> None:
    with _temporary(store) as fresh:
        _write(fresh, f"{tree}\n".encode("ascii"), 0o600)
        _put(fresh, path)


@contextmanager
def _adding(store: str) -> Iterator[None]:
    """Make the repository if there is none, and keep `collect` away while something is added."""
    with _storing(store):
        os.makedirs(store, 0o700, exist_ok=True)
        with files.locked(os.path.join(store, "code.lock"), shared=True):
            if not os.path.isdir(_repository(store)):
                _create(store)
            _check_usable(store, _WRITING)
            yield


def _create(store: str) -> None:
    """Make an empty repository, whole or not at all; another process may do so at the same time."""
    fresh = f"{_repository(store)}.{os.urandom(4).hex()}{files.PART}"
    os.mkdir(fresh, 0o700)
    for folder in _FOLDERS:
        os.makedirs(os.path.join(fresh, folder), 0o700)
    _write(os.path.join(fresh, "config"), _CONFIG.encode("ascii"), 0o600)
    _write(os.path.join(fresh, "HEAD"), b"ref: refs/heads/main\n", 0o600)
    try:
        os.rename(fresh, _repository(store))
    except OSError:
        files.remove_tree(fresh)
        if not os.path.isdir(_repository(store)):
            raise


@contextmanager
def _storing(store: str) -> Iterator[None]:
    """Report what keeps the store from being written."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else store
        raise SkelebotError(f"{where} cannot be written: {files.reason(error)}") from None


@contextmanager
def _temporary(store: str) -> Iterator[str]:
    """Yield the path of a file to be, which is renamed into its place or removed."""
    path = os.path.join(_repository(store), "tmp", os.urandom(8).hex())
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _put(fresh: str, path: str) -> None:
    """Move a file to its place, where it outlasts a power cut."""
    _sync(fresh)
    os.replace(fresh, path)
    _sync(os.path.dirname(path))


def _sync(path: str) -> None:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _copy(source: IO[bytes], target: str, mode: int) -> str:
    """Copy an open file to a new one, and return the copy's SHA-256.

    Where the file system can, both share their blocks.
    """
    with open(target, "xb", buffering=0, opener=_private) as copy:
        if not files.share_blocks(source, copy):
            while block := source.read(1 << 20):
                _write_all(copy, block)
        ident = files.sha256(target)  # while it may be read
        os.fchmod(copy.fileno(), mode)
    return ident


def _check_usable(store: str, mode: int) -> None:
    """Raise SkelebotError for a repository that lacks a folder, or that this user may not use."""
    code = _repository(store)
    for path in (code, *(os.path.join(code, name) for name in _FOLDERS)):
        if os.access(path, mode):
            continue
        if os.path.lexists(path):
            raise SkelebotError(
                f"{path} may not be read and written by you; run `chmod -R u+rwX {_quoted(code)}`"
            )
        raise SkelebotError(f"{code} is damaged: {path} is missing; {_remedy(code)}")


def _damaged(store: str, what: str, path: str = "") -> SkelebotError:
    """Return the error for a snapshot in a store, or in an export, with damage in a path of it."""
    code = _repository(store)
    remedy = _remedy(path or code) if os.path.isdir(code) else "export the run again"
    return SkelebotError(
        f"{store}: {console.one_line(what)} of this snapshot is damaged or missing; {remedy}"
    )


def _remedy(path: str) -> str:
    # As long as it is there, it is taken for whole.
    return f"restore {path} from a backup, or move it away and queue the run again"


def _quoted(path: str) -> str:
    import shlex  # not for a store that can be used

    return shlex.quote(path)


def _check_known(store: str, tree: str) -> None:
    if os.path.isdir(_repository(store)):
        _check_usable(store, _READING)
    if not os.path.isfile(_tree_ref(store, tree)):
        raise _unknown(store, tree)


def _unknown(store: str, tree: str) -> SkelebotError:
    return SkelebotError(f"{store}: there is no snapshot {tree}, the code of the run; queue it again")
