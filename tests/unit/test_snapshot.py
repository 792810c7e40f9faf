"""What a run's code was is kept bit for bit, whatever git thinks of it and whoever is killed meanwhile."""

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skelebot import files
from skelebot.errors import ProgramMissing, SkelebotError
from skelebot.image.context import ContextEntry, walk
from skelebot.image.ignores import Ignores
from skelebot.runs import snapshot

from .helpers import write
from .test_git import real_git, repository

NOW = 0.0  # an age at which nothing is young any more
NO_TREE = "0" * 40


def entries(root: Path) -> list[ContextEntry]:
    return walk(str(root), Ignores(()))


class Store:
    """A store in a temporary folder, with the cache of one project."""

    def __init__(self, top: Path) -> None:
        self.path, self._top = str(top / "store"), top
        self._cache = top / "cache"
        self._cache.mkdir(exist_ok=True)

    def take(self, root: Path) -> str:
        return snapshot.take(self.path, entries(root), str(self._cache))

    def restore(self, tree: str) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self._top))
        snapshot.restore(self.path, tree, str(folder))
        return folder

    def holds(self, tree: str) -> bool:
        try:
            snapshot.contents(self.path, tree)
        except SkelebotError:
            return False
        return True

    def git(self, *words: str) -> str:
        return real_git(Path(self.path), "--git-dir=code.git", *words)

    def check(self) -> None:
        """Git finds nothing wrong."""
        done = subprocess.run(
            ["git", f"--git-dir={self.path}/code.git", "fsck", "--strict", "--full", "--no-dangling"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (
            0,
            "notice: HEAD points to an unborn branch (main)\n",
        )

    def packs(self) -> list[Path]:
        return sorted(Path(self.path, "code.git/objects/pack").glob("*.pack"))

    def unfinished(self) -> list[str]:
        return [*os.listdir(f"{self.path}/code.git/tmp"), *(n for n in os.listdir(self.path) if "part" in n)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def state(root: Path) -> dict[bytes, tuple[str, bytes]]:
    """Type, permissions and content of everything below a folder, by its name in bytes."""
    found = {}
    for folder, folders, names in os.walk(os.fsencode(root)):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            found[os.path.relpath(path, os.fsencode(root))] = stat.filemode(status.st_mode), content
    return found


# --- bit for bit ---

NAMES = st.one_of(
    st.sampled_from(
        [
            *(
                "a",
                "b.py",
                "a.b",
                "-x",
                "a\nb",
                "a b",
                "ü",
                "\udcff\udc80",
                "a\\b",
                "'\"",
                "\u200c.git",
                "CON",
            ),
            *(".git", ".GIT", "git~1", ".gitmodules", ".gitattributes", ".gitignore", "a\\.git", "GI7EBA~1"),
            *("HEAD", "config", "manifest", "files"),
        ]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
        lambda name: name not in (".", "..")
    ),
)
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"a\r\nb\r\n", b"* filter=x eol=crlf export-ignore\n", b'[submodule "x"]\n\turl = -u\n']
    ),
)
MODES = st.sampled_from([0o644, 0o755, 0o600, 0o444, 0o775, 0o400, 0o4755, 0o640, 0o700, 0o407])
FOLDER_MODES = st.sampled_from([0o755, 0o700, 0o555, 0o775, 0o1777, 0o2755])
NODES = st.recursive(
    st.one_of(
        st.tuples(st.just("file"), CONTENTS, MODES),
        st.tuples(st.just("link"), st.sampled_from(["a", "/etc/passwd", "../..", "\udcfe", "nowhere"])),
    ),
    lambda inner: st.tuples(st.just("folder"), st.dictionaries(NAMES, inner, max_size=4), FOLDER_MODES),
    max_leaves=12,
)
TREES = st.dictionaries(NAMES, NODES, max_size=5)


def plant(folder: Path, tree: dict[str, tuple]) -> None:  # type: ignore[type-arg]
    for name, node in tree.items():
        path = folder / name
        if node[0] == "folder":
            path.mkdir()
            plant(path, node[1])
            path.chmod(node[2])
        elif node[0] == "link":
            path.symlink_to(node[1])
        else:
            path.write_bytes(node[1])
            path.chmod(node[2])


@given(TREES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_restored_is_what_was_taken(tree: dict[str, tuple]) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        store, root = Store(top), top / "project"
        root.mkdir()
        plant(root, tree)
        taken = store.take(root)
        assert state(store.restore(taken)) == state(root)
        assert store.take(root) == taken
        snapshot.keep(store.path, taken, "a")
        store.check()
        snapshot.collect(store.path, NOW)
        assert state(store.restore(taken)) == state(root)


def test_a_snapshot_depends_on_files_and_nothing_else(store: Store, root: Path, tmp_path: Path) -> None:
    write(root, "a", "sub/a.py")
    other = Store(write(tmp_path, "", "other/x").parent)
    copy = tmp_path / "copy"
    write(copy, "a", "sub/a.py")
    os.utime(copy / "sub/a.py", (1, 1))
    assert other.take(copy) == store.take(root)
    (copy / "sub/a.py").chmod(0o640)
    assert other.take(copy) != store.take(root)


def test_a_socket_is_left_out(store: Store, root: Path) -> None:
    os.mkfifo(root / "pipe")
    write(root, "a", "a")
    assert list(snapshot.contents(store.path, store.take(root))) == ["a"]


def test_nested_repositories_and_attributes(store: Store, root: Path) -> None:
    repository(root, a_txt="1\n")
    repository(write(root, "", "nested/x").parent, b_txt="2\n")
    write(root, "* filter=lfs text eol=crlf export-ignore ident\n", ".gitattributes")
    (root / "crlf.txt").write_bytes(b"$Id$\r\nb\n")
    assert state(store.restore(store.take(root))) == state(root)
    store.check()


def test_the_users_repository_stays_as_it_is_and_may_go(store: Store, root: Path) -> None:
    repository(root, a_txt="1\n")
    write(root, "new", "untracked")
    before = state(root)
    tree = store.take(root)
    snapshot.difference(store.path, tree, tree)
    assert state(root) == before
    real_git(root, "gc", "--quiet", "--prune=now")
    subprocess.run(["rm", "-r", str(root)], check=True)
    assert state(store.restore(tree)) == before


def test_nothing_of_the_users_git_is_used(
    store: Store, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = write(tmp_path, f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n", "trap")
    trap.chmod(0o755)
    config = write(
        tmp_path,
        f'[diff]\n\texternal = {trap}\n[diff "x"]\n\ttextconv = {trap}\n\tcommand = {trap}\n[core]\n'
        f"\tpager = {trap}\n\tfsmonitor = {trap}\n\thooksPath = {tmp_path}\n"
        f"\tattributesFile = {tmp_path}/attributes\n"
        f'[filter "x"]\n\tclean = {trap}\n\tprocess = {trap}\n\trequired = true\n[color]\n\tui = always\n'
        "[diff]\n\tnoprefix = true\n\tmnemonicPrefix = true\n[init]\n\tdefaultObjectFormat = sha256\n",
        ".gitconfig",
    )
    write(tmp_path, "* diff=x filter=x -text\n", "attributes")
    for name, value in {
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_EXTERNAL_DIFF": str(trap),
        "GIT_DIR": "/nowhere",
        "GIT_OBJECT_DIRECTORY": str(tmp_path / "objects"),
        "GIT_INDEX_FILE": "/nowhere",
        "GIT_DEFAULT_HASH": "sha256",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "diff.external",
        "GIT_CONFIG_VALUE_0": str(trap),
        "GIT_TRACE": str(tmp_path / "trace"),
    }.items():
        monkeypatch.setenv(name, value)
    write(root, "* diff=x filter=x\n", ".gitattributes")
    write(root, "1\n", "a")
    before = store.take(root)
    write(root, "2\n", "a")
    after = store.take(root)
    assert snapshot.difference(store.path, before, after) == (
        "diff --git a/a b/a\nindex d00491f..0cfbf08 100644\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-1\n+2\n"
    )
    snapshot.keep(store.path, after, "a")
    snapshot.collect(store.path, NOW)
    assert state(store.restore(after)) == state(root)
    assert not [name for name in ("ran", "objects", "trace") if (tmp_path / name).exists()]


# --- large files ---


@pytest.fixture
def large(root: Path) -> bytes:
    data = os.urandom(1000) * (snapshot.LARGE // 1000)
    (root / "large").write_bytes(data)
    (root / "large").chmod(0o604)
    return data


def blobs(store: Store) -> list[Path]:
    return list(Path(store.path, "blobs").iterdir())


def test_a_large_file_is_stored_once_beside_the_repository(store: Store, root: Path, large: bytes) -> None:
    (root / "copy").write_bytes(large)
    write(root, "", ".git").unlink()
    (root / ".git").write_bytes(large)
    tree = store.take(root)
    write(root, "a", "a")
    store.take(root)
    (blob,) = blobs(store)
    assert blob.read_bytes() == large
    assert stat.S_IMODE(blob.stat().st_mode) == 0o400
    assert sum(path.stat().st_size for path in store.packs()) < 10_000
    restored = store.restore(tree)
    assert stat.S_IMODE((restored / "large").stat().st_mode) == 0o604
    assert (restored / "large").read_bytes() == (restored / ".git").read_bytes() == large
    store.check()


@pytest.mark.usefixtures("large")
def test_a_damaged_large_file_is_reported(store: Store, root: Path) -> None:
    tree = store.take(root)
    (blob,) = blobs(store)
    blob.chmod(0o600)
    with blob.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"?????")
    with pytest.raises(SkelebotError, match="large of this snapshot is damaged or missing"):
        store.restore(tree)
    blob.unlink()
    with pytest.raises(SkelebotError, match="large of this snapshot is damaged or missing"):
        store.restore(tree)
    assert store.take(root) == tree


@pytest.mark.usefixtures("large")
def test_large_files_go_with_the_last_snapshot_that_has_them(store: Store, root: Path) -> None:
    snapshot.keep(store.path, store.take(root), "a")
    write(root, "a", "a")
    snapshot.keep(store.path, store.take(root), "b")
    snapshot.forget(store.path, "a")
    assert snapshot.collect(store.path, NOW) < 10_000
    assert len(blobs(store)) == 1
    snapshot.forget(store.path, "b")
    assert snapshot.collect(store.path, NOW) > snapshot.LARGE
    assert blobs(store) == []


# --- keeping and collecting ---


def test_a_young_snapshot_stays_and_an_old_one_only_for_a_run(store: Store, root: Path) -> None:
    kept, other = store.take(root), store.take(write(root, "a", "a").parent)
    snapshot.keep(store.path, kept, "1-a")
    snapshot.keep(store.path, kept, "1-a")
    snapshot.collect(store.path)
    assert store.holds(kept)
    assert store.holds(other)
    snapshot.collect(store.path, NOW)
    assert store.holds(kept)
    assert not store.holds(other)
    snapshot.forget(store.path, "1-a")
    snapshot.forget(store.path, "1-a")
    snapshot.collect(store.path, NOW)
    assert not store.holds(kept)
    assert store.packs() == []


def test_a_snapshot_that_is_not_there(store: Store, root: Path) -> None:
    for action in (
        lambda: snapshot.keep(store.path, NO_TREE, "a"),
        lambda: snapshot.contents(store.path, NO_TREE),
        lambda: store.restore(NO_TREE),
    ):
        with pytest.raises(SkelebotError, match=f"there is no snapshot {NO_TREE}"):
            action()
    assert snapshot.collect(str(root / "nowhere")) == 0


def test_what_was_collected_is_taken_again(store: Store, root: Path) -> None:
    """The cache still knows the files."""
    write(root, "a", "a")
    write(root, "b", "b")
    time.sleep(2.1)  # what has changed just now is not remembered
    tree = store.take(root)
    assert snapshot.collect(store.path, NOW) > 0
    assert store.take(root) == tree
    assert state(store.restore(tree)) == state(root)
    snapshot.collect(store.path, NOW)
    write(root, "c", "b")
    assert state(store.restore(store.take(root))) == state(root)
    store.check()


def test_an_unchanged_tree_needs_no_git(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "a", "a")
    time.sleep(2.1)
    tree = store.take(root)
    monkeypatch.setenv("PATH", "/nowhere")
    assert store.take(root) == tree
    snapshot.keep(store.path, tree, "a")
    write(root, "b", "a")
    with pytest.raises(ProgramMissing):
        store.take(root)
    with pytest.raises(ProgramMissing):
        store.restore(tree)


def test_a_damaged_reference_keeps_everything(store: Store, root: Path) -> None:
    snapshot.keep(store.path, tree := store.take(root), "a")
    ref = Path(store.path, "code.git/refs/runs/a")
    ref.unlink()
    ref.write_bytes(b"")
    with pytest.raises(SkelebotError, match="refs/runs/a is damaged"):
        snapshot.collect(store.path, NOW)
    assert store.holds(tree)
    snapshot.keep(store.path, tree, "a")
    snapshot.collect(store.path, NOW)
    assert store.holds(tree)


# --- damage and bad input ---


def test_content_of_another_id_is_damage(store: Store, root: Path) -> None:
    """Git compares no ids when it reads."""
    write(root, "a", "a")
    tree = store.take(root)
    (pack,) = store.packs()
    pack.with_suffix(".idx").unlink()
    unpack = ["git", f"--git-dir={store.path}/code.git", "unpack-objects", "-q"]
    subprocess.run(unpack, input=pack.read_bytes(), check=True)
    assert state(store.restore(tree)) == state(root)
    ident = snapshot.contents(store.path, tree)["a"].id
    loose = Path(store.path, "code.git/objects", ident[:2], ident[2:])
    loose.chmod(0o600)
    loose.write_bytes(zlib.compress(b"blob 1\0b"))
    with pytest.raises(SkelebotError, match="a of this snapshot is damaged or missing"):
        store.restore(tree)


@pytest.mark.parametrize("collected", [False, True])
def test_a_damaged_object_is_never_restored_as_something_else(
    store: Store, root: Path, collected: bool
) -> None:
    """Whichever byte of the pack it is."""
    for number in range(5):
        write(root, f"{number}" * 30, f"file{number}")
    snapshot.keep(store.path, tree := store.take(root), "a")
    if collected:
        snapshot.collect(store.path, NOW)
    (pack,) = store.packs()
    whole = pack.read_bytes()
    messages = set()
    for place in range(12, len(whole) - 20, 7):
        pack.chmod(0o600)
        pack.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert state(store.restore(tree)) == state(root)  # a part for git alone
        except SkelebotError as error:
            messages.add(str(error).partition(" of this snapshot")[0].removeprefix(f"{store.path}: "))
    assert messages == {tree, *(f"file{number}" for number in range(5))}


def made_of(store: Store, *items: tuple[str, Path]) -> str:
    made = [ContextEntry(path, str(file), file.lstat()) for path, file in items]
    return snapshot.take(store.path, made, store.path)


@pytest.mark.parametrize("path", ["../evil", "/evil", "a/../../evil", "a//b", "./a"])
def test_nothing_is_written_outside_the_folder(store: Store, tmp_path: Path, path: str) -> None:
    tree = made_of(store, (path, write(tmp_path, "a", "a")))
    with pytest.raises(SkelebotError, match="damaged"):
        store.restore(tree)
    assert not list(tmp_path.glob("**/evil"))


def test_nothing_is_written_through_a_link(store: Store, tmp_path: Path) -> None:
    outside = write(tmp_path, "", "outside/x").parent
    (tmp_path / "link").symlink_to(outside)
    tree = made_of(store, ("a", tmp_path / "link"), ("a/b", write(tmp_path, "a", "b")))
    with pytest.raises(SkelebotError, match="cannot be written: file exists"):
        store.restore(tree)
    assert os.listdir(outside) == ["x"]


def test_a_folder_that_is_not_empty_is_not_touched(store: Store, root: Path) -> None:
    write(root, "a", "a")
    with pytest.raises(SkelebotError, match="is not empty"):
        snapshot.restore(store.path, store.take(root), str(root))


def test_damaged_code_says_how_to_go_on_and_that_works(store: Store, root: Path) -> None:
    write(root, "a", "a")
    tree = store.take(root)
    code = Path(store.path, "code.git")
    files.remove_tree(str(code / "objects"))
    remedy = rf"restore {code} from a backup, or move it away and queue the run again$"
    for use in (lambda: store.restore(tree), lambda: store.take(root), lambda: snapshot.collect(store.path)):
        with pytest.raises(SkelebotError, match=remedy):
            use()
    (code / "objects/pack").mkdir(parents=True)
    with pytest.raises(SkelebotError, match=remedy):
        store.restore(tree)
    code.rename(f"{code}.damaged")
    assert store.take(root) == tree
    assert state(store.restore(tree)) == state(root)


def test_a_store_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    write(tmp_path, "", "file")
    with pytest.raises(SkelebotError, match=r"file/store cannot be written: not a directory$"):
        snapshot.take(str(tmp_path / "file/store"), entries(root), str(tmp_path))


@pytest.mark.parametrize("size", [100_000, snapshot.LARGE])
def test_a_full_disk_is_one_error_and_leaves_nothing(store: Store, root: Path, size: int) -> None:
    (root / "a").write_bytes(os.urandom(size))
    # Not for what Python compiles: it would keep the beginning of a module.
    limited = (
        "import resource, sys; sys.dont_write_bytecode = True; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n{TAKE}\n"
    )
    done = python(limited, store.path, str(root))
    assert done.returncode == 1
    assert "SkelebotError" in done.stderr.splitlines()[-1]
    assert done.stderr.endswith("cannot be written: file too large\n")
    assert "code.git/tmp/" in done.stderr or size < snapshot.LARGE
    assert store.unfinished() == []
    assert state(store.restore(store.take(root))) == state(root)


# --- others at the same time ---

TAKE = """\
import sys
from skelebot.image.context import walk
from skelebot.image.ignores import Ignores
from skelebot.runs import snapshot
def take():
    return snapshot.take(sys.argv[1], walk(sys.argv[2], Ignores(())), sys.argv[1])
print(take())
"""


def python(code: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


def test_a_file_whose_size_does_not_fit_its_content(store: Store) -> None:
    """As one has that somebody else is writing."""
    with pytest.raises(SkelebotError, match=r"^a changes while it is read"):
        made_of(store, ("a", Path("/proc/uptime")))


def test_a_file_is_never_kept_half_written(store: Store, root: Path) -> None:
    """Each kilobyte says how many there were when it was written, from the first on."""
    code = (
        "import sys\nfor n in range(10**6):\n"
        " with open(sys.argv[1], 'r+b', buffering=0) as f:\n"
        "  f.truncate(0)\n"
        "  for _ in range(50): f.write(b'%9d\\n' % n * 100)\n"
    )
    path = write(root, "", "a")
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as writer:
        try:
            refused = 0
            for _ in range(10):
                try:
                    taken = snapshot.contents(store.path, store.take(root))["a"]
                except SkelebotError as error:
                    refused += "changes while it is read" in str(error)
                else:
                    assert taken.size <= 50_000
        finally:
            writer.kill()
    assert refused


def test_a_file_of_one_size_is_never_kept_half_written(store: Store, root: Path) -> None:
    """All its bytes are the same whenever nobody writes to it."""
    if os.getuid() != 0:
        pytest.skip("only root can write without being held up in the middle, which nobody could see")
    size = 4_000_000
    code = (
        "import os, sys, time\nos.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))\n"
        "f = os.open(sys.argv[1], os.O_RDWR)\nwhile True:\n"
        f" for c in b'abc':\n  os.pwrite(f, bytes([c]) * {size}, 0); time.sleep(0.04)\n"
    )
    (root / "a").write_bytes(b"a" * size)
    with subprocess.Popen([sys.executable, "-c", code, str(root / "a")]) as writer:
        try:
            for _ in range(60):
                with suppress(SkelebotError):
                    content = (store.restore(store.take(root)) / "a").read_bytes()
                    assert len(set(content)) == 1
        finally:
            writer.kill()


def test_git_keeps_the_lock_when_whoever_collects_is_killed(
    store: Store, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("git")
    slow = f'#!/bin/sh\ncase "$*" in *repack*) touch {tmp_path}/began; sleep 1;; esac\nexec {real} "$@"\n'
    write(tmp_path, slow, "bin/git").chmod(0o755)
    store.take(root)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    code = TAKE.replace("print(take())", "snapshot.collect(sys.argv[1])")
    with subprocess.Popen([sys.executable, "-c", code, store.path, str(root)]) as collector:
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        collector.kill()
    with files.open_lock(f"{store.path}/code.lock") as lock:
        assert not files.try_lock(lock, shared=True)
        files.take_lock(lock, shared=True)


def test_many_at_once(store: Store, tmp_path: Path) -> None:
    """Each process takes states of its own and keeps them, from a store that does not exist yet."""
    code = (
        f"{TAKE}\nimport os\nfor n in range(15):\n"
        " open(sys.argv[2] + '/file', 'w').write(f'{sys.argv[3]} {n}')\n"
        " snapshot.keep(sys.argv[1], take(), f'{sys.argv[3]}-{n}')\n"
    )
    projects = {str(n): write(tmp_path, "same", f"p{n}/same").parent for n in range(4)}
    words = [[store.path, str(folder), name] for name, folder in projects.items()]
    running = [subprocess.Popen([sys.executable, "-c", code, *w], stdout=subprocess.DEVNULL) for w in words]
    collected = 0
    while any(process.poll() is None for process in running):
        snapshot.collect(store.path, 60)
        collected += 1
    assert [process.wait() for process in running] == [0] * 4
    assert collected
    snapshot.collect(store.path, NOW)
    for name in projects:
        for number in range(15):
            tree = Path(store.path, f"code.git/refs/runs/{name}-{number}").read_text().strip()
            assert state(store.restore(tree))[b"file"][1].decode() == f"{name} {number}"
    store.check()
    assert store.unfinished() == []


def test_two_make_the_repository_at_once(store: Store, root: Path) -> None:
    write(root, "a", "a")
    for _ in range(20):
        barrier = threading.Barrier(4)
        trees: list[str] = []

        def take(barrier: threading.Barrier = barrier, trees: list[str] = trees) -> None:
            barrier.wait()
            trees.append(store.take(root))

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(trees) == 4
        assert len(set(trees)) == 1
        assert store.unfinished() == []
        assert stat.S_IMODE(os.stat(f"{store.path}/code.git").st_mode) == 0o700
        subprocess.run(["rm", "-r", store.path], check=True)


@pytest.mark.parametrize("action", ["take()", "snapshot.collect(sys.argv[1], 0)"])
def test_a_kill_at_any_moment(store: Store, tmp_path: Path, root: Path, action: str) -> None:
    for number in range(200):
        write(root, f"{number}" * 500, f"{number % 7}/{number}")
    (root / "large").write_bytes(os.urandom(1000) * (snapshot.LARGE // 1000))
    first = Store(write(tmp_path, "", "first/x").parent).take(root)
    chance = random.Random(7)
    loop = TAKE.replace("print(take())", f"print('.', flush=True)\n{action}")
    for number in range(12):
        if action != "take()":
            snapshot.keep(store.path, store.take(root), f"run{number}")
            write(root, f"{number}", "again")
            store.take(root)
            (root / "again").unlink()
        with subprocess.Popen(
            [sys.executable, "-c", loop, store.path, str(root)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(chance.random() * 0.08)
            if chance.random() < 0.5:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        assert store.take(root) == first
        assert state(store.restore(first)) == state(root)
    snapshot.keep(store.path, first, "a")
    for _ in range(50):  # the git of a killed process may still be at work
        snapshot.collect(store.path, NOW)
        if not store.unfinished():
            break
        time.sleep(0.1)
    # The latter go when they are old.
    assert [name for name in store.unfinished() if not name.startswith("snapshot.hashes.")] == []
    assert len(store.packs()) == 1
    assert len(os.listdir(f"{store.path}/code.git/objects/pack")) == 2
    assert state(store.restore(first)) == state(root)
    store.check()


# --- comparing ---


@pytest.fixture
def compare(store: Store, root: Path) -> Callable[..., str]:
    write(root, "1\n", "a.py")
    write(root, "1\n", "nested/.git/HEAD")
    (root / "empty").mkdir()

    def act(change: Callable[[], object], summary: bool = False, colour: bool = False) -> str:
        before = store.take(root)
        change()
        return snapshot.difference(store.path, before, store.take(root), summary, colour)

    return act


Compare = Callable[..., str]


def test_nothing_differs(compare: Compare) -> None:
    assert compare(lambda: None) == ""


def test_a_difference_in_short_and_in_colour(compare: Compare, root: Path) -> None:
    assert compare(lambda: write(root, "2\n", "a.py"), True) == (
        " a.py | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n"
    )
    assert "\x1b[31m-2" in compare(lambda: write(root, "3\n", "a.py"), colour=True)


def test_what_git_does_not_show(compare: Compare, root: Path) -> None:
    def change() -> None:
        (root / "a.py").chmod(0o600)
        write(root, "2\n", "nested/.git/HEAD")
        write(root, "2\n", "nested/.git/a\nb")
        (root / "empty").rmdir()
        (root / "new").mkdir()

    (root / "a.py").chmod(0o644)
    assert compare(change) == (
        "a.py: mode -rw-r--r--, now -rw-------\nempty: removed\n"
        "nested/.git/HEAD: changed\nnested/.git/a\\nb: added\nnew: added\n"
    )


def test_a_link_differs_as_a_link(compare: Compare, root: Path) -> None:
    assert "new file mode 120000\n" in compare(lambda: (root / "link").symlink_to("a.py"))


@pytest.mark.usefixtures("large")
def test_a_large_file_differs_in_a_line(compare: Compare, root: Path) -> None:
    text = compare(lambda: (root / "large").write_bytes(b"a" * snapshot.LARGE))
    assert text.count("large file: 10000000 bytes, sha256 ") == 2


# --- other stores ---


@pytest.mark.usefixtures("large")
def test_a_snapshot_moves_to_another_store(store: Store, root: Path, tmp_path: Path) -> None:
    write(root, "a", "sub/.git/a")
    write(root, "b", "b")
    tree = store.take(root)
    snapshot.export_tree(store.path, tree, str(tmp_path / "export"))
    other = Store(write(tmp_path, "", "other/x").parent)
    for _ in range(2):
        snapshot.import_tree(other.path, tree, str(tmp_path / "export"))
    assert state(other.restore(tree)) == state(root)
    other.check()
    assert other.take(root) == tree


@pytest.mark.usefixtures("large")
def test_a_damaged_export_is_refused(store: Store, root: Path, tmp_path: Path) -> None:
    write(root, "b", "b")
    tree = store.take(root)
    export = tmp_path / "export"
    snapshot.export_tree(store.path, tree, str(export))
    for file in [*export.glob("code-*.pack"), *export.glob("blobs/*")]:
        whole = file.read_bytes()
        for damaged in (whole[:-30], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], b""):
            file.chmod(0o600)
            file.write_bytes(damaged)
            other = Store(Path(tempfile.mkdtemp(dir=tmp_path)))
            with pytest.raises(SkelebotError):
                snapshot.import_tree(other.path, tree, str(export))
            assert not other.holds(tree)
            assert other.unfinished() == []
        file.write_bytes(whole)
    with pytest.raises(SkelebotError, match="damaged or missing"):
        snapshot.import_tree(store.path, NO_TREE, str(export))
    with pytest.raises(SkelebotError, match="cannot be read: no such file"):
        snapshot.import_tree(store.path, tree, str(tmp_path / "nowhere"))


def forge(store: Store, files_of: str, manifest_of: str) -> str:
    """Make a snapshot whose files for git are those of another."""
    shown = store.git("rev-parse", f"{files_of}:files")
    manifest = store.git("rev-parse", f"{manifest_of}:manifest")
    made = subprocess.run(
        ["git", f"--git-dir={store.path}/code.git", "mktree"],
        input=f"040000 tree {shown}\tfiles\n100644 blob {manifest}\tmanifest\n",
        capture_output=True,
        text=True,
        check=True,
    )
    tree = made.stdout.strip()
    Path(store.path, "code.git/refs/trees", tree).write_text(f"{tree}\n")
    return tree


def test_an_export_that_shows_other_files_than_it_restores_is_refused(
    store: Store, root: Path, tmp_path: Path
) -> None:
    write(root, "a", "a")
    shown = store.take(root)
    write(root, "b", "a")
    forged = forge(store, shown, store.take(root))
    snapshot.export_tree(store.path, forged, str(tmp_path / "export"))
    with pytest.raises(SkelebotError, match="damaged"):
        snapshot.import_tree(store.path, forged, str(tmp_path / "export"))


def test_an_export_that_lacks_an_object_is_refused(store: Store, root: Path, tmp_path: Path) -> None:
    write(root, "a", "a")
    tree = store.take(root)
    objects = [tree, *(store.git("rev-parse", f"{tree}:{path}") for path in ("manifest", "files/a"))]
    (tmp_path / "export").mkdir()
    subprocess.run(
        ["git", f"--git-dir={store.path}/code.git", "pack-objects", "-q", f"{tmp_path}/export/code"],
        input="".join(f"{ident}\n" for ident in objects),
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    other = Store(write(tmp_path, "", "other/x").parent)
    with pytest.raises(SkelebotError, match="index-pack failed"):
        snapshot.import_tree(other.path, tree, str(tmp_path / "export"))
    assert other.packs() == []
