"""The commit that an image names, and the name that a saved one has."""

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from skelebot.image import written
from skelebot.model import Image
from skelebot.project import state
from skelebot.runners.docker import release

from .helpers import write

COMMIT, DIRTY = "org.opencontainers.image.revision", "skelebot.dirty"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the git settings of who runs the tests nor a repository above them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project all of which is committed."""
    root = tmp_path / "project"
    write(root, "name: demo\n")
    write(root, "1", "a.txt")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    return root


def git(root: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", *who, *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def labels(root: Path) -> dict[str, str]:
    return release.commit_labels(Image("demo:latest", "demo", "base", str(root)))


# --- the commit ---


def test_a_clean_tree(root: Path) -> None:
    assert labels(root) == {COMMIT: git(root, "rev-parse", "HEAD"), DIRTY: "false"}


@pytest.mark.parametrize("name", ["a.txt", "new.txt", "new/deep.txt", "Dockerfile"])
def test_a_changed_or_new_file(root: Path, name: str) -> None:
    git(root, "config", "status.showUntrackedFiles", "no")
    write(root, "2", name)
    assert labels(root)[DIRTY] == "true"


def test_a_deleted_file(root: Path) -> None:
    (root / "a.txt").unlink()
    assert labels(root)[DIRTY] == "true"


def test_what_git_ignores_makes_no_difference(root: Path) -> None:
    write(root, "data\n", ".gitignore")
    git(root, "add", ".")
    git(root, "commit", "-qm", "more")
    write(root, "2", "data/x")
    assert labels(root)[DIRTY] == "false"


def test_what_skelebot_wrote_makes_no_difference(root: Path) -> None:
    body = "FROM base\n"
    write(root, f"{written._header(body)}{body}", "Dockerfile")
    write(root, "tar", "out/a [1].tar")
    state.remember_output(str(root), str(root / "out/a [1].tar"))
    assert labels(root)[DIRTY] == "false"
    write(root, "tar", "out/a 1.tar")
    assert labels(root)[DIRTY] == "true"


def test_only_the_projects_own_folder_counts(root: Path) -> None:
    inner = root / "inner"
    write(inner, "name: demo\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "more")
    write(root, "2", "a.txt")
    assert (labels(inner)[DIRTY], labels(root)[DIRTY]) == ("false", "true")


def test_without_a_repository_or_a_commit(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    assert labels(new) == {}
    git(new, "init", "-q")
    assert labels(new) == {}
    assert capsys.readouterr().err == ""


def test_without_git(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(root))
    assert labels(root) == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_somebody_elses_repository_is_told_of(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (root, root / ".git"):
        os.chown(path, 12345, 12345)
    assert labels(root) == {}
    said = "WARN  | the image will not name its commit: fatal: detected dubious ownership"
    assert capsys.readouterr().err.startswith(said)


def test_git_writes_nothing(root: Path) -> None:
    index = root / ".git/index"
    os.utime(root / "a.txt", (1, 1))  # git would note the new time
    before = index.read_bytes()
    assert labels(root)[DIRTY] == "false"
    assert index.read_bytes() == before


# --- the name in a file ---


def archive(**files: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        folder = tarfile.TarInfo("blobs")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        link = tarfile.TarInfo("blobs/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../layer"
        tar.addfile(link)
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def read(data: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        contents = ((m, tar.extractfile(m) if m.isreg() else None) for m in tar)
        return {m.name: f.read().decode() if f else m.linkname for m, f in contents}


def test_an_image_gets_its_name_in_either_form_of_archive() -> None:
    manifest = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["layer"]}])
    index = json.dumps({"schemaVersion": 2, "manifests": [{"digest": "sha256:1", "annotations": {"a": "b"}}]})
    target = io.BytesIO()
    source = io.BytesIO(
        archive(layer="x" * 3_000_000, index_json=index, manifest_json=manifest) + bytes(3_000_000)
    )
    assert release._copy(source, target, "demo:latest")
    assert source.read() == b""  # or its writer would wait for a reader
    found = read(target.getvalue())
    assert json.loads(found["manifest.json"]) == [
        {"Config": "c.json", "RepoTags": ["demo:latest"], "Layers": ["layer"]}
    ]
    assert json.loads(found["index.json"])["manifests"] == [
        {
            "digest": "sha256:1",
            "annotations": {
                "a": "b",
                "io.containerd.image.name": "docker.io/library/demo:latest",
                "org.opencontainers.image.ref.name": "latest",
            },
        }
    ]
    assert found["layer"] == "x" * 3_000_000
    assert found["blobs/link"] == "../layer"


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_an_archive_that_ends_early_is_told(length: int) -> None:
    source = archive(manifest_json="[]", layer="x" * 100_000)
    assert not release._copy(io.BytesIO(source[:length]), io.BytesIO(), "demo:latest")
