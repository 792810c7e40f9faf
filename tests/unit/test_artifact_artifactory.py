"""A repository of Artifactory as a store, in the tests' server."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifactory_server import PASSWORD, READER, REPO, TOKEN, Server, serving

from skelebot.components.repository import find
from skelebot.components.repository.artifactory import ArtifactoryStore
from skelebot.components.repository.artifactory.http import root_cause
from skelebot.components.repository.artifactory.upload import Body
from skelebot.components.repository.checksum import Checksum
from skelebot.components.repository.credentials import Credentials
from skelebot.components.repository.settings import Artifact, Artifactory, Auth
from skelebot.components.repository.store import AlreadyStored, Stored, Unusable, Upload
from skelebot.errors import SkelebotError
from skelebot.model import Project

ROW = b'{"files": [{"uri": "/a"}]}'  # without its size
LARGE = (16 << 20) + 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "server") as running:
        yield running


def store(server: Server) -> ArtifactoryStore:
    settings = Artifactory(server.url, REPO, "team", Auth("token"))
    return ArtifactoryStore(settings, Credentials(None, TOKEN))


def upload(tmp_path: Path, content: bytes) -> Upload:
    (tmp_path / "m.pkl").write_bytes(content)
    return Upload.of(str(tmp_path / "m.pkl"))


@pytest.mark.parametrize("size", [0, 1000, LARGE])
def test_there_and_back(tmp_path: Path, server: Server, size: int) -> None:
    content, shown, prefix = os.urandom(size), list[int](), list[int]()
    one = upload(tmp_path, content)
    digest = hashlib.sha256(content).hexdigest()
    pushed = store(server).push("sub/m_v1.0.0", one, False, shown.append)
    assert (pushed.sha256, pushed.sent, sum(shown)) == (digest, size, size)
    [listed] = store(server).list("sub/m_v")
    stored = store(server).head("sub/m_v1.0.0")
    assert stored
    assert (listed.key, listed.size, stored.sha256) == ("sub/m_v1.0.0", size, digest)
    assert (server.folder / REPO / "team/sub/m_v1.0.0").read_bytes() == content
    sent = store(server).pull(stored, str(tmp_path / "part"), lambda count: None, prefix.append)
    assert (sent, sum(prefix)) == (size, size)
    assert (tmp_path / "part").read_bytes() == content
    with pytest.raises(AlreadyStored):
        store(server).push("sub/m_v1.0.0", one, False, shown.append)
    assert store(server).push("sub/m_v1.0.0", one, True, shown.append).sent == 0
    assert list(store(server).list("sub/n")) == []
    assert store(server).head("sub/absent") is None


def test_a_pull_resumes(tmp_path: Path, server: Server) -> None:
    store(server).push("m", upload(tmp_path, b"0123456789"), False, lambda count: None)
    (tmp_path / "part").write_bytes(b"0123")
    prefix: list[int] = []
    stored = Stored("m", 10, "")
    assert store(server).pull(stored, str(tmp_path / "part"), lambda count: None, prefix.append) == 6
    assert prefix == [4, 6]
    assert (tmp_path / "part").read_bytes() == b"0123456789"


def test_a_server_that_sends_more_than_it_announced(tmp_path: Path, server: Server) -> None:
    store(server).push("m", upload(tmp_path, b"0123456789"), False, lambda count: None)
    stored = store(server).head("m")
    assert stored
    server.faults.further = 400 << 20
    with pytest.raises(Unusable, match="sent more than the 10 bytes that it announced"):
        store(server).pull(stored, str(tmp_path / "part"), lambda count: None, lambda count: None)
    assert (tmp_path / "part").stat().st_size <= 10
    assert server.sent < 50 << 20


@pytest.mark.parametrize(
    ("code", "text", "most"),
    [(200, "does not answer as Artifactory", 300), (409, "Conflict", 20), (302, "too many redirects", 100)],
)
def test_a_server_that_answers_without_end(server: Server, code: int, text: str, most: int) -> None:
    server.faults.endless, server.faults.code = "api/storage", code
    with pytest.raises(SkelebotError, match=text):
        list(store(server).list("m"))
    assert server.sent < most << 20


def test_a_file_that_can_be_executed(tmp_path: Path, server: Server) -> None:
    for mode, force in ((0o644, False), (0o755, True), (0o644, True)):
        upload(tmp_path, os.urandom(10))
        (tmp_path / "m.pkl").chmod(mode)
        one = Upload.of(str(tmp_path / "m.pkl"))
        store(server).push("a;b/m", one, force, lambda count: None)
        assert store(server).is_executable(Stored("a;b/m", 10, "")) == (mode == 0o755)
    assert (server.folder / REPO / "team/a;b/m").is_file()


def test_the_run_of_a_file_is_in_its_properties(tmp_path: Path, server: Server) -> None:
    path, place = tmp_path / "m.pkl", str(server.folder / REPO / "team/m")
    origin = (("run", "43"), ("uid", "ab"), ("commit", "cd"))
    known = [("skelebot.run", "43"), ("skelebot.uid", "ab"), ("skelebot.commit", "cd")]
    for given, mode, expected in (
        (origin, 0o755, [*known, ("skelebot.executable", "true")]),
        # Those of a file outlast it.
        ((), 0o644, [("skelebot.executable", "false"), *((name, "none") for name, _ in known)]),
    ):
        upload(tmp_path, os.urandom(10))
        path.chmod(mode)
        store(server).push("m", Upload.of(str(path), given), True, lambda count: None)
        assert server.properties[place] == {name: [value] for name, value in expected}


@pytest.mark.parametrize(
    "page", [b"<html>", b"[" * 200_000, b'{"files": ' + b"[" * 200_000, b'{"files": [1]}', b"[]", b"3", ROW]
)
def test_what_is_not_a_listing(server: Server, page: bytes) -> None:
    server.faults.page = page
    with pytest.raises(SkelebotError, match="does not answer as Artifactory does; check `url`"):
        list(store(server).list("model_v"))


def test_a_listing_of_many_files(server: Server) -> None:
    row = {"size": "12", "lastModified": "2026-01-02T03:04:05.678+01:00", "sha2": "0" * 64}
    files = [row | {"uri": f"/model_v1.{n}.0.pkl"} for n in range(60_000)]
    others = [row | {"uri": f"/other_v1.{n}.0.pkl"} for n in range(60_000)]
    server.faults.page = json.dumps({"files": [*files, *others]}).encode()
    artifact = Artifact("model", "m.pkl")
    listed = find.list_versions(store(server), "/", artifact, "")
    item = find.latest_key(listed, Project(name="a", root="/", version="1.99999999.0"))
    assert item == "model_v1.59999.0.pkl"
    assert listed[0][0].modified == "2026-01-02T02:04:05+00:00"


def test_a_store_that_cannot_be_written(server: Server) -> None:
    store(server).check_write()
    assert list(server.folder.rglob("*")) == [server.folder / REPO]
    reader = ArtifactoryStore(
        Artifactory(server.url, REPO, "team", Auth("user_pass")), Credentials(READER, PASSWORD)
    )
    reader.check()
    with pytest.raises(SkelebotError, match="does not allow this; ask for the rights"):
        reader.check_write()


def test_a_server_without_ranges(tmp_path: Path, server: Server) -> None:
    content, prefix = os.urandom(5 << 20), list[int]()
    store(server).push("m", upload(tmp_path, content), False, lambda count: None)
    stored = store(server).head("m")
    assert stored
    server.faults.cuts, server.faults.no_ranges = [4 << 20, 1 << 20], True
    shown: list[int] = []
    with Checksum(str(tmp_path / "part")) as checksum:

        def report(count: int) -> None:
            prefix.append(count)
            checksum.add(count)

        store(server).pull(stored, str(tmp_path / "part"), shown.append, report)
        assert checksum.sha256() == stored.sha256
    assert sum(shown) == sum(prefix) == len(content)


@pytest.mark.parametrize(("code", "header", "seconds"), [(429, "1", 1), (503, "soon", 0), (500, "", 0)])
def test_what_is_temporary_is_tried_again(server: Server, code: int, header: str, seconds: int) -> None:
    server.faults.failing, server.faults.code, server.faults.retry_after = 1, code, header
    store(server).check()
    refused, repeated = server.requests
    assert seconds <= repeated.when - refused.when
    server.forget()
    server.faults.failing, server.faults.code = 1, 400
    with pytest.raises(SkelebotError, match="answered 400: the server is not itself"):
        store(server).check()
    assert len(server.requests) == 1


def test_refusals_in_one_line(server: Server) -> None:
    settings = Artifactory(server.url, REPO, "", Auth("user_pass"))
    with pytest.raises(SkelebotError, match="does not accept these credentials"):
        ArtifactoryStore(settings, Credentials(READER, "wrong")).check()
    settings = Artifactory(server.url, "absent", "", Auth("token"))
    with pytest.raises(SkelebotError, match="there is no repository absent on"):
        ArtifactoryStore(settings, Credentials(None, TOKEN)).check()


def test_a_body_that_is_sent_again(tmp_path: Path) -> None:
    content, shown = os.urandom(3_000_000), list[int]()
    one = upload(tmp_path, content)
    with open(one.path, "rb", buffering=0) as file, Body(file, one, shown.append) as body:
        assert len(body) == one.size
        body.read(16384)
        for _ in range(2):
            body.rewind()
            assert b"".join(iter(lambda: bytes(body.read(16384)), b"")) == content
            assert body.tell() == one.size
            assert body.sha256() == hashlib.sha256(content).hexdigest()
    assert sum(shown) == one.size  # reported once


def test_the_checksum_of_a_body_that_was_sent_in_part(tmp_path: Path) -> None:
    one = upload(tmp_path, os.urandom(3_000_000))
    with open(one.path, "rb", buffering=0) as file, Body(file, one, lambda count: None) as body:
        body.read()
        assert body.sha256() == one.sha256


def test_a_body_that_has_become_shorter(tmp_path: Path) -> None:
    one = upload(tmp_path, b"0123456789")
    os.truncate(one.path, 4)
    with open(one.path, "rb", buffering=0) as file, Body(file, one, lambda count: None) as body:
        assert bytes(body.read(100)) == b"0123"
        with pytest.raises(SkelebotError, match="changed while it was pushed"):
            body.read(100)


def test_the_innermost_reason() -> None:
    inner = OSError("no route to host")
    assert root_cause(ValueError(RuntimeError(inner))) == "no route to host"
    assert root_cause(ValueError("first\nsecond")) == "first"
