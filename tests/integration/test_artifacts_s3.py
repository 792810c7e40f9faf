"""Artifacts in a bucket of a real S3 server: tests/s3_server.sh's, or moto's where there is none.

What a line can do to a transfer is done by a relay between Skelebot and the server.
"""

import contextlib
import hashlib
import http.client
import http.server
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from harness import Result, Sandbox, peak_memory, wait_for
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

MB = 1 << 20
PART = 8 * MB  # what goes in one piece
IN_FLIGHT = 10 * PART
LARGE = 20 * MB + 12345  # some parts and a rest


# --- the server ---


@dataclass(frozen=True)
class Server:
    url: str
    keys: tuple[str, str]
    other_keys: tuple[str, str] | None = None  # of somebody who may not enter the first one's buckets

    def client(self) -> Any:
        key, secret = self.keys
        style = {"addressing_style": "path"}
        config = Config("us-east-1", "s3v4", s3=style, retries={"mode": "standard", "max_attempts": 5})
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=config,
        )


@dataclass(frozen=True)
class Bucket:
    """An empty bucket, looked at with boto3 itself."""

    server: Server
    name: str
    client: Any

    def put(self, key: str, data: bytes = b"x") -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data

    def sha256(self, key: str) -> str:
        return hashlib.sha256(self.get(key)).hexdigest()

    def keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def uploads(self) -> list[dict[str, str]]:
        """The multipart uploads that have not ended."""
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())
        return [{"Key": u["Key"], "UploadId": u["UploadId"]} for u in found]

    def empty(self) -> None:
        for upload in self.uploads():
            self.client.abort_multipart_upload(Bucket=self.name, **upload)
        keys = self.keys()
        for start in range(0, len(keys), 1000):
            some = [{"Key": key} for key in keys[start : start + 1000]]
            self.client.delete_objects(Bucket=self.name, Delete={"Objects": some, "Quiet": True})


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    url = os.environ.get("SKELEBOT_TEST_S3")
    if url:
        keys, other = (os.environ[f"SKELEBOT_TEST_S3_{n}"].split(":") for n in ("KEYS", "OTHER_KEYS"))
        yield Server(url, (keys[0], keys[1]), (other[0], other[1]))
        return
    port = free_port()
    argv = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as moto:
        try:
            wait_for(lambda: answers(port))
            yield Server(f"http://127.0.0.1:{port}", ("AKTEST", "SKTEST"))
        finally:
            moto.terminate()


@pytest.fixture
def strict(server: Server) -> Server:
    """A server that looks at rights, and at uploads that have ended, which moto's does not."""
    if server.other_keys is None:
        reason = "moto's server is too lenient (SKELEBOT_TEST_S3 is not set; see tests/s3_server.sh)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return server


@pytest.fixture
def bucket(server: Server) -> Iterator[Bucket]:
    one = Bucket(server, f"t-{uuid.uuid4().hex[:12]}", server.client())
    one.client.create_bucket(Bucket=one.name)
    yield one
    one.empty()
    one.client.delete_bucket(Bucket=one.name)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


# --- the line ---


@dataclass
class Relay:
    """Stands between a client and the server: counts what passes, and does it what a bad line does."""

    server: str
    up: int = 0  # bytes to the server
    down: int = 0
    connections: int = 0
    dropped: int = 0
    carried: int = 0  # bytes both ways
    requests: list[str] = field(default_factory=list)  # how each piece begins that starts a request
    drop_every: int = 0  # the connection that carries the last of so many bytes, however many there are
    refuse: int = 0  # so many connections with 503 first
    lose: str = ""  # the answer to the first request with this text, once the server has given it
    corrupt_at: int = 0  # a byte of a connection's answers, once
    meet: str = ""  # the first requests with this text wait until there are two
    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))
    stalled: threading.Event = field(default_factory=threading.Event)  # nothing passes while it is set
    watch: tuple[int, Callable[[], None]] | None = None  # what to do once so many bytes have passed
    lock: threading.Lock = field(default_factory=threading.Lock)

    BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def is_empty(self) -> bool:
        """Whether all of its connections have ended."""
        return not any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        self._closed.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _start(self, work: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=work, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        target = urlsplit(self.server)
        while not self._closed.is_set():
            with contextlib.suppress(OSError):
                client, _ = self._listening.accept()
                self.connections += 1
                if self.connections <= self.refuse:
                    self._start(self._say_busy, client)
                    continue
                server = socket.create_connection((target.hostname, target.port or 80))
                line = Line()
                self._start(self._pass, client, server, True, line)
                self._start(self._pass, server, client, False, line)

    def _say_busy(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            client.sendall(self.BUSY)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    def _pass(self, source: socket.socket, target: socket.socket, is_up: bool, line: "Line") -> None:
        gone = 0
        with contextlib.suppress(OSError):
            while data := source.recv(256 * 1024):
                data = self._see(data, is_up, gone, line)
                gone += len(data)
                while self.stalled.is_set() and not self._closed.is_set():
                    threading.Event().wait(0.05)
                if self._drops(len(data)) or (line.loses and data.startswith(b"HTTP/1.1 2")):
                    self.dropped += 1
                    break
                target.sendall(data)
        for end in (source, target):  # closed by neither, as the other may be about to use its number
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _drops(self, count: int) -> bool:
        with self.lock:
            before, self.carried = self.carried, self.carried + count
            return bool(self.drop_every) and before // self.drop_every < self.carried // self.drop_every

    def _see(self, data: bytes, is_up: bool, gone: int, line: "Line") -> bytes:
        if is_up and data[:5] in (b"PUT /", b"GET /", b"HEAD ", b"POST ", b"DELET"):
            head = data.partition(b"\r\n\r\n")[0].decode(errors="replace")
            self.requests.append(head)
            first = head.splitlines()[0]
            if self.meet and self.meet in first:
                with contextlib.suppress(threading.BrokenBarrierError):
                    self.meeting.wait(60)
                self.meet = ""
            if self.lose and self.lose in first:
                self.lose, line.loses = "", True
        with self.lock:
            self.up += len(data) if is_up else 0
            self.down += 0 if is_up else len(data)
            due = self.watch if self.watch and max(self.up, self.down) >= self.watch[0] else None
            self.watch = None if due else self.watch
            spot = self.corrupt_at - gone
            if not is_up and self.corrupt_at and 0 <= spot < len(data):
                self.corrupt_at = 0
                data = data[:spot] + bytes([data[spot] ^ 1]) + data[spot + 1 :]
        if due:
            due[1]()
        return data


@dataclass
class Line:
    """One connection through the relay."""

    loses: bool = False  # the next answer is not passed on


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    one = Relay(server.url)
    yield one
    one.close()


# --- projects ---


def with_keys(sandbox: Sandbox, keys: tuple[str, str] | None) -> Sandbox:
    """The caller with these keys, and none of AWS's settings of the one who runs the tests."""
    foreign = [name for name in sandbox.env if name.startswith("AWS_")]
    env = {"AWS_EC2_METADATA_DISABLED": "true"}
    if keys:
        env |= {"AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1]}
    return sandbox.without_env(*foreign).with_env(**env)


def configure(sandbox: Sandbox, file: str = "m.pkl", version: str = "1.0.0", **s3: str) -> None:
    artifacts = [{"name": "model", "file": file}]
    repository = {"s3": s3, "artifacts": artifacts}
    sandbox.write("skelebot.yaml", json.dumps({"name": "p", "components": {"repository": repository}}))
    sandbox.write("VERSION", f"{version}\n")


@pytest.fixture
def project(sandbox: Sandbox, bucket: Bucket) -> Sandbox:
    """A project whose artifact `model` is m.pkl, kept in the bucket."""
    configure(sandbox, bucket=bucket.name, endpoint=bucket.server.url, region="us-east-1")
    return with_keys(sandbox, bucket.server.keys)


@pytest.fixture
def relayed(project: Sandbox, bucket: Bucket, relay: Relay) -> Sandbox:
    """The same, through the relay."""
    configure(project, bucket=bucket.name, endpoint=relay.url, region="us-east-1")
    return project


def content(size: int) -> bytes:
    return random.randbytes(size)


def done(sandbox: Sandbox, *words: str) -> dict[str, Any]:
    """What a push or pull of one artifact says that it did."""
    [one] = json.loads(sandbox.ok(*words, "--json", timeout=120))
    assert isinstance(one, dict)
    return one


def refused(result: Result, text: str) -> None:
    assert (result.code, result.out) == (1, ""), result
    assert len(result.errors) == 1, result
    assert text in result.errors[0], result
    assert "Traceback" not in result.err


def files(sandbox: Sandbox) -> set[str]:
    """What is in the project, but for Skelebot's own folder."""
    found = (path.relative_to(sandbox.root) for path in sandbox.root.rglob("*"))
    return {str(path) for path in found if path.parts[0] != ".skelebot"}


def parts_left(sandbox: Sandbox) -> list[Path]:
    return [path for path in sandbox.root.glob(".skelebot/parts/**/*") if path.is_file()]


# --- there and back ---


@pytest.mark.parametrize("size", [0, PART, PART + 1])
def test_a_file_goes_there_and_back(project: Sandbox, bucket: Bucket, size: int) -> None:
    data = content(size)
    project.write("m.pkl", data)
    before = files(project)
    pushed = done(project, "push", "model")
    digest = hashlib.sha256(data).hexdigest()
    assert pushed == {
        "name": "model",
        "version": "1.0.0",
        "key": "model_v1.0.0.pkl",
        "path": str(project.root / "m.pkl"),
        "size": size,
        "sha256": digest,
        "sent": size,
    }
    assert files(project) == before
    assert bucket.keys() == ["model_v1.0.0.pkl"]
    assert bucket.get("model_v1.0.0.pkl") == data
    head = bucket.client.head_object(Bucket=bucket.name, Key="model_v1.0.0.pkl")
    assert head["Metadata"] == {"sha256": digest}
    assert bucket.uploads() == []
    (project.root / "m.pkl").unlink()
    path = project.root / "model_v1.0.0.pkl"
    assert done(project, "pull", "model", "1.0.0") == pushed | {"path": str(path)}
    assert path.read_bytes() == data
    assert not (project.root / "m.pkl").exists()
    assert done(project, "pull", "model", "LATEST", "-o")["path"] == str(project.root / "m.pkl")
    assert (project.root / "m.pkl").read_bytes() == data
    assert parts_left(project) == []


def test_large_files_go_in_parts(relayed: Sandbox, relay: Relay) -> None:
    relayed.write("m.pkl", content(LARGE))
    done(relayed, "push", "model")
    assert {n for n in range(1, 9) if any(f"partNumber={n}" in r for r in relay.requests)} == {1, 2, 3}
    relay.requests.clear()
    done(relayed, "pull", "model", "1.0.0")
    ranges = [line for r in relay.requests for line in r.splitlines() if line.startswith("Range: ")]
    ends = ((0, PART), (PART, 2 * PART), (2 * PART, LARGE))
    assert sorted(ranges) == sorted(f"Range: bytes={a}-{b - 1}" for a, b in ends)


def test_payloads_are_not_signed(relayed: Sandbox, relay: Relay) -> None:
    for size in (1000, LARGE):
        relayed.write("m.pkl", content(size))
        done(relayed, "push", "model", "-f")
    puts = [r.lower() for r in relay.requests if r.startswith("PUT ")]
    assert len(puts) == 1 + 3
    assert all("x-amz-content-sha256: unsigned-payload\n" in f"{put}\n".replace("\r", "") for put in puts)


def test_a_folder_travels_as_one_archive(project: Sandbox, bucket: Bucket) -> None:
    configure(project, "net/", bucket=bucket.name, endpoint=bucket.server.url)
    project.write("net/weights.bin", content(1000))
    project.write("net/run.sh", "#!/bin/sh\n", 0o755)
    assert done(project, "push", "model")["key"] == "model_v1.0.0.tar.gz"
    project.write("archive.tar.gz", bucket.get("model_v1.0.0.tar.gz"))
    with tarfile.open(project.root / "archive.tar.gz") as archive:
        assert {"./run.sh", "./weights.bin"} <= set(archive.getnames())
    weights = (project.root / "net" / "weights.bin").read_bytes()
    done(project, "pull", "model", "1.0.0")
    back = project.root / "model_v1.0.0"
    assert (back / "weights.bin").read_bytes() == weights
    assert os.access(back / "run.sh", os.X_OK)
    project.write("net/later.txt", "not in the archive\n")
    done(project, "pull", "model", "1.0.0", "-o")
    assert sorted(os.listdir(project.root / "net")) == ["later.txt", "run.sh", "weights.bin"]


def test_a_bucket_with_a_key_prefix(project: Sandbox, bucket: Bucket) -> None:
    configure(project, bucket=f"{bucket.name}/team/models/", endpoint=bucket.server.url)
    bucket.put("model_v1.0.0.pkl", b"another's")
    bucket.put("team/models_too/model_v1.0.0.pkl", b"another's")
    for words, data in (((), b"first"), (("-p", "staging/"), b"second")):
        project.write("m.pkl", data)
        done(project, "push", "model", *words)
    assert bucket.get("team/models/model_v1.0.0.pkl") == b"first"
    assert bucket.get("team/models/staging/model_v1.0.0.pkl") == b"second"
    assert bucket.get("model_v1.0.0.pkl") == b"another's"
    assert done(project, "pull", "model", "LATEST", "-o")["key"] == "model_v1.0.0.pkl"
    assert project.read("m.pkl") == "first"
    done(project, "pull", "model", "LATEST", "-o", "-p", "staging/")
    assert project.read("m.pkl") == "second"
    [row] = json.loads(project.ok("artifacts", "--json"))
    assert (row["version"], row["size"]) == ("1.0.0", 5)


def test_what_another_tool_has_stored_can_be_pulled(project: Sandbox, bucket: Bucket) -> None:
    bucket.put("model_v0.9.0.pkl", b"by hand")
    assert done(project, "pull", "model", "0.9.0", "-o")["sent"] == len(b"by hand")
    assert project.read("m.pkl") == "by hand"


# --- what is there already ---


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_version_that_is_there_is_refused(
    relayed: Sandbox, bucket: Bucket, relay: Relay, size: int
) -> None:
    first, second = content(size), content(size)
    relayed.write("m.pkl", first)
    done(relayed, "push", "model")
    relayed.write("m.pkl", second)
    relay.up = 0
    refused(relayed.run("push", "model"), "bump the version, or replace it with -f")
    assert relay.up < 10_000
    assert bucket.get("model_v1.0.0.pkl") == first
    assert done(relayed, "push", "model", "-f")["sent"] == size
    assert bucket.get("model_v1.0.0.pkl") == second


@pytest.mark.parametrize("size", [100_000, LARGE])
def test_identical_content_is_not_sent_again(relayed: Sandbox, relay: Relay, size: int) -> None:
    relayed.write("m.pkl", content(size))
    assert done(relayed, "push", "model")["sent"] == size
    relay.up = 0
    assert done(relayed, "push", "model", "-f")["sent"] == 0
    assert relay.up < 10_000


def race(relayed: Sandbox, contents: list[bytes], between: Callable[[], object]) -> list[int]:
    """Pushes two contents at once, which must end in one that wins and one that is told; their codes."""
    children = []
    for i, data in enumerate(contents):
        relayed.write(f"{i}/m.pkl", data)
        relayed.write(f"{i}/skelebot.yaml", relayed.read("skelebot.yaml"))
        relayed.write(f"{i}/VERSION", "1.0.0\n")
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": relayed.root / str(i)}
        children.append(relayed.start("push", "model", **options))
        if i == 0:
            between()
    ends = [(*child.communicate(timeout=100), child.returncode) for child in children]
    assert sorted(code for *_, code in ends) == [0, 1], ends
    [told] = [err.decode() for _, err, code in ends if code == 1]
    assert [line for line in told.splitlines() if line.startswith("ERROR")] == [
        "ERROR | model: model_v1.0.0.pkl is already in the store; bump the version, or replace it with -f"
    ]
    return [code for *_, code in ends]


@pytest.mark.parametrize(("size", "meet"), [(100_000, "~lock-"), (LARGE, "~lock-")])
def test_of_two_pushes_at_once_one_wins(
    relayed: Sandbox, bucket: Bucket, relay: Relay, size: int, meet: str
) -> None:
    relay.meet = meet  # both have found that nothing is there, and sent what can be sent before
    contents = [content(size), content(size)]
    codes = race(relayed, contents, lambda: None)
    assert bucket.get("model_v1.0.0.pkl") == contents[codes.index(0)]
    assert bucket.keys() == ["model_v1.0.0.pkl"]
    assert bucket.uploads() == []  # the loser's neither


@pytest.mark.parametrize(("size", "meet"), [(100_000, "~lock-"), (LARGE, "~lock-")])
def test_a_push_that_comes_late_is_told(
    relayed: Sandbox, bucket: Bucket, relay: Relay, size: int, meet: str
) -> None:
    """Another has ended after it found that nothing is there."""
    relay.meet = meet
    relayed.write("m.pkl", content(size))
    late = relayed.start("push", "model", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: relay.meeting.n_waiting)
    data = content(size)
    bucket.put("model_v1.0.0.pkl", data)
    relay.meeting.wait(60)
    out, err = late.communicate(timeout=100)
    assert (late.returncode, out) == (1, b""), err
    assert b"is already in the store" in err
    assert bucket.get("model_v1.0.0.pkl") == data
    assert (bucket.keys(), bucket.uploads()) == (["model_v1.0.0.pkl"], [])


def test_of_two_pushes_of_the_same_content_one_wins(relayed: Sandbox, bucket: Bucket, relay: Relay) -> None:
    """The second finds the parts that the first has sent, as if that had been killed."""
    relay.meet = "~lock-"
    data = content(LARGE)
    race(relayed, [data, data], lambda: wait_for(lambda: relay.meeting.n_waiting))
    assert relay.up < LARGE + MB
    assert bucket.get("model_v1.0.0.pkl") == data
    assert (bucket.keys(), bucket.uploads()) == (["model_v1.0.0.pkl"], [])


def test_the_lock_of_a_dead_push_is_not_waited_for_for_ever(project: Sandbox, bucket: Bucket) -> None:
    bucket.put(f"model_v1.0.0.pkl~lock-00000001-{'0' * 16}", b"")
    project.write("m.pkl", content(LARGE))
    result = project.run("push", "model")
    assert result.code == 0, result
    assert "waiting for another push of model_v1.0.0.pkl" in result.err
    assert bucket.keys() == ["model_v1.0.0.pkl"]


LOST = [
    (100_000, "PUT /{bucket}/model_v1.0.0.pkl HTTP", ()),
    (LARGE, "partNumber=2", ()),
    (LARGE, "POST /{bucket}/model_v1.0.0.pkl?uploadId=", ()),
    (LARGE, "POST /{bucket}/model_v1.0.0.pkl?uploadId=", ("-f",)),
    (LARGE, "~lock-", ()),
]


@pytest.mark.parametrize(("size", "request_line", "options"), LOST)
def test_an_answer_that_is_lost(
    relayed: Sandbox, bucket: Bucket, relay: Relay, size: int, request_line: str, options: tuple[str, ...]
) -> None:
    """What was asked for is done, and the library asks again; it is not another who has stored it."""
    data = content(size)
    relayed.write("m.pkl", data)
    relay.lose = request_line.format(bucket=bucket.name)
    result = relayed.run("push", "model", *options)
    assert (result.code, result.out) == (0, "model_v1.0.0.pkl\n"), result
    assert "waiting" not in result.err
    assert relay.dropped == 1
    assert bucket.get("model_v1.0.0.pkl") == data
    assert (bucket.keys(), bucket.uploads()) == (["model_v1.0.0.pkl"], [])


@pytest.mark.parametrize(
    ("size", "meet", "then"),
    [(100_000, "HEAD ", 100_000), (LARGE, "partNumber=2", LARGE), (LARGE, "partNumber=2", 100_000)],
)
def test_a_file_that_is_written_to_meanwhile(
    relayed: Sandbox, bucket: Bucket, relay: Relay, size: int, meet: str, then: int
) -> None:
    relay.meet = meet  # which comes after its checksum was taken
    path = relayed.write("m.pkl", content(size))
    child = relayed.start("push", "model", "-f", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: relay.meeting.n_waiting)
    with open(path, "r+b") as file:
        file.write(b"another beginning")
        file.truncate(then)
    relay.meeting.wait(60)
    out, err = child.communicate(timeout=100)
    assert (child.returncode, out) == (1, b""), err
    assert b"m.pkl changed while it was pushed; push it again" in err
    assert bucket.keys() == []
    done(relayed, "push", "model")
    assert bucket.get("model_v1.0.0.pkl") == path.read_bytes()


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.usefixtures("strict")
def test_an_upload_that_another_ends(relayed: Sandbox, bucket: Bucket, relay: Relay, stored: bool) -> None:
    """As a second push of the same content does, which has helped with this one."""

    def end() -> None:
        if stored:
            bucket.put("model_v1.0.0.pkl", b"another's")
        for upload in bucket.uploads():
            bucket.client.abort_multipart_upload(Bucket=bucket.name, **upload)

    relayed.write("m.pkl", content(LARGE))
    relay.watch = (PART, end)
    told = "is already in the store" if stored else "another push of it ended meanwhile; run again"
    refused(relayed.run("push", "model"), told)
    assert bucket.keys() == (["model_v1.0.0.pkl"] if stored else [])
    assert bucket.uploads() == []


def test_a_push_that_never_ended_is_cleared_away(project: Sandbox, bucket: Bucket) -> None:
    """Its parts, of other content, are kept and paid for until somebody says that they are not needed."""
    at = {"Bucket": bucket.name, "Key": "model_v1.0.0.pkl"}
    others = {"Bucket": bucket.name, "Key": "model_v1.0.0.pkl.bak"}
    for key in (at, others):
        upload = bucket.client.create_multipart_upload(**key)["UploadId"]
        bucket.client.upload_part(**key, UploadId=upload, PartNumber=1, Body=content(PART))
    project.write("m.pkl", content(LARGE))
    assert done(project, "push", "model")["sent"] == LARGE
    assert [upload["Key"] for upload in bucket.uploads()] == [others["Key"]]


# --- the versions there are ---


def fill(bucket: Bucket, keys: list[str]) -> None:
    """Stores small objects faster than boto3 does."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: put_all(bucket, keys[n::4]), range(4)))


def put_all(bucket: Bucket, keys: list[str]) -> None:
    connection = http.client.HTTPConnection(urlsplit(bucket.server.url).netloc)
    for key in keys:
        at = {"Bucket": bucket.name, "Key": key}
        connection.request("PUT", bucket.client.generate_presigned_url("put_object", at), key.encode())
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()


def test_all_pages_of_the_listing_are_read(project: Sandbox, bucket: Bucket) -> None:
    numbers = range(550)
    ours = [f"model_v1.0.{n}.pkl" for n in numbers]
    look_alikes = [f"model_v1.0.{n}.pkl.bak" for n in numbers]
    fill(bucket, ours + look_alikes)
    configure(project, version="1.0.99", bucket=bucket.name, endpoint=bucket.server.url)
    assert done(project, "pull", "model", "LATEST")["key"] == "model_v1.0.99.pkl"  # on the last page
    rows = json.loads(project.ok("artifacts", "--json"))
    assert [row["version"] for row in rows] == [f"1.0.{n}" for n in numbers]
    assert [row["version"] for row in rows if row["latest"]] == ["1.0.99"]
    configure(project, version="1.0.2000", bucket=bucket.name, endpoint=bucket.server.url)
    assert done(project, "pull", "model", "LATEST")["key"] == "model_v1.0.549.pkl"  # on the first


def test_five_thousand_versions_beside_five_thousand_of_another(sandbox: Sandbox) -> None:
    """In moto's server, which can be filled from within."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        one = Server(f"http://{host}:{port}", ("AKTEST", "SKTEST"))
        one.client().create_bucket(Bucket="versions")
        backend = s3_backends["123456789012"]["aws"]
        for n in range(5000):
            for key in (f"model_v1.0.{n}.pkl", f"model_v1.0.{n + 1}.pkl.bak"):
                backend.put_object("versions", key, key.encode())
        configure(sandbox, version="1.1.0", bucket="versions", endpoint=one.url)
        assert done(with_keys(sandbox, one.keys), "pull", "model", "LATEST", "-o")["version"] == "1.0.4999"
        assert sandbox.read("m.pkl") == "model_v1.0.4999.pkl"
    finally:
        server.stop()


def test_look_alikes_are_others(project: Sandbox, bucket: Bucket) -> None:
    others = [
        "model_big_v1.9.0.pkl",
        "model_v1.8.0.tar.gz",
        "model_v1.8.0",
        "model_v1.7.pkl",
        "a/model_v1.6.0.pkl",
    ]
    others += [
        "model_v1.6.0.pkl~lock-00000001-0123456789abcdef",
        "Model_v1.5.0.pkl",
        "model_vv1.5.0.pkl",
        "model_v1.5.0.PKL",
    ]
    ours = ["model_v1.2.0.pkl", "model_v1.10.0-rc.1.pkl", "model_v1.9.0.pkl", "model_v2.0.0.pkl"]
    fill(bucket, others + ours)
    configure(project, version="1.10.0", bucket=bucket.name, endpoint=bucket.server.url)
    rows = json.loads(project.ok("artifacts", "model", "--json"))
    assert [row["version"] for row in rows] == ["1.2.0", "1.9.0", "1.10.0-rc.1", "2.0.0"]
    assert [row["latest"] for row in rows] == [False, False, True, False]
    assert all(row["modified"].startswith("20") for row in rows)
    assert done(project, "pull", "model", "LATEST", "-o")["version"] == "1.10.0-rc.1"
    assert project.read("m.pkl") == "model_v1.10.0-rc.1.pkl"
    configure(project, version="3.0.0", bucket=bucket.name, endpoint=bucket.server.url)
    refused(project.run("pull", "model", "LATEST"), "1.2.0")


# --- what goes wrong ---

PUSH, PULL = ("push", "model"), ("pull", "model", "1.0.0", "-o")
ALL = (PUSH, PULL, ("pull", "model", "LATEST"), ("artifacts",))


def all_refused(sandbox: Sandbox, text: str, *commands: tuple[str, ...]) -> None:
    """Each command fails in one line, and leaves the project as it was."""
    sandbox.write("m.pkl", b"mine")
    before = files(sandbox)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda words: sandbox.run(*words), commands):
            refused(result, text)
    assert (files(sandbox), sandbox.read("m.pkl")) == (before, "mine")
    assert parts_left(sandbox) == []


def test_a_version_that_is_missing(project: Sandbox, bucket: Bucket) -> None:
    bucket.put("model_v1.0.1.pkl")
    all_refused(project, "model_v1.0.0.pkl is not in the store", PULL)


def test_a_missing_bucket(project: Sandbox, bucket: Bucket) -> None:
    configure(project, bucket="t-nowhere-at-all", endpoint=bucket.server.url)
    all_refused(project, "there is no bucket t-nowhere-at-all", *ALL)


def test_wrong_keys(project: Sandbox, strict: Server) -> None:
    all_refused(with_keys(project, (strict.keys[0], "wrong")), "the secret key is wrong", PUSH, PULL)
    all_refused(with_keys(project, ("AKNOBODY", "wrong")), "the store does not know the access key", PUSH)


def test_anothers_bucket(project: Sandbox, strict: Server) -> None:
    all_refused(with_keys(project, strict.other_keys), "is denied", *ALL)


def test_no_keys(project: Sandbox) -> None:
    all_refused(with_keys(project, None), "log in to AWS", PUSH, PULL)


def test_a_profile(project: Sandbox, bucket: Bucket) -> None:
    settings = {"bucket": bucket.name, "endpoint": bucket.server.url}
    key, secret = bucket.server.keys
    nobody = with_keys(project, None)
    home = Path(project.env["HOME"])
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").write_text(
        f"[work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    )
    configure(nobody, **settings, profile="work")
    nobody.write("m.pkl", b"mine")
    done(nobody, "push", "model")
    configure(nobody, **settings, profile="play")
    all_refused(nobody, "play", PULL)


def test_a_dead_endpoint(project: Sandbox) -> None:
    configure(project, bucket="some-bucket", endpoint=f"http://127.0.0.1:{free_port()}")
    all_refused(project, "the store cannot be used: ", PUSH, PULL)


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "http://[x"])
def test_an_endpoint_that_is_no_address(project: Sandbox, endpoint: str) -> None:
    configure(project, bucket="some-bucket", endpoint=endpoint)
    all_refused(project, "`endpoint`", PUSH)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bucket": "a b"}, "'a b' cannot be a bucket's name, nor an access point's ARN; fix `bucket`"),
        ({"bucket": "some-bucket", "region": "no region!"}, "the store cannot be used: "),
    ],
)
def test_settings_that_cannot_be(
    project: Sandbox, bucket: Bucket, settings: dict[str, str], said: str
) -> None:
    configure(project, **settings, endpoint=bucket.server.url)
    all_refused(project, said, PUSH)


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers everything with one of S3's errors, as Amazon's server words it; a HEAD's has no text."""

    protocol_version = "HTTP/1.1"
    status, code = 400, ""

    def do_GET(self) -> None:
        text = f"<Error><Code>{self.code}</Code><Message>In {{braces}}.</Message></Error>".encode()
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.send_response(self.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("x-amz-bucket-region", "eu-west-1")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815

    def log_message(self, *words: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (400, "ExpiredToken", "the credentials have expired"),
        (301, "PermanentRedirect", "is in another region"),
        (400, "AuthorizationHeaderMalformed", "is in another region"),
        (400, "IllegalLocationConstraintException", "is in another region"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
        (403, "AccountProblem", "In {braces}"),
        (200, "", "does not answer as S3 does"),  # which is another web server
    ],
)
def test_what_amazon_refuses(project: Sandbox, status: int, code: str, text: str) -> None:
    handler = type("Handler", (Refusing,), {"status": status, "code": code})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as amazon:
        threading.Thread(target=amazon.serve_forever, daemon=True).start()
        configure(project, bucket="some-bucket", endpoint=f"http://127.0.0.1:{amazon.server_port}")
        all_refused(project, text, PULL)
        amazon.shutdown()


# --- a bad line ---


def test_a_server_that_drops_connections(relayed: Sandbox, bucket: Bucket, relay: Relay) -> None:
    data = content(6 * PART)
    relayed.write("m.pkl", data)
    relay.drop_every = 2 * PART
    done(relayed, "push", "model")
    assert bucket.get("model_v1.0.0.pkl") == data
    assert relay.dropped >= 2
    relay.dropped = relay.down = 0
    done(relayed, "pull", "model", "1.0.0")
    assert (relayed.root / "model_v1.0.0.pkl").read_bytes() == data
    assert relay.dropped >= 2
    assert relay.down < len(data) + 4 * MB  # it went on within a part


def test_a_server_that_is_busy_is_asked_again(relayed: Sandbox, bucket: Bucket, relay: Relay) -> None:
    relayed.write("m.pkl", b"mine")
    relay.refuse = 3
    done(relayed, "push", "model")
    assert bucket.get("model_v1.0.0.pkl") == b"mine"


@pytest.mark.parametrize("size", [200_000, LARGE])
def test_a_corrupted_byte_is_found(relayed: Sandbox, relay: Relay, size: int) -> None:
    new = content(size)
    relayed.write("m.pkl", new)
    done(relayed, "push", "model")
    relayed.write("m.pkl", b"old")
    relay.corrupt_at = 150_000
    refused(relayed.run("pull", "model", "1.0.0", "-o"), "arrived damaged")
    assert relay.corrupt_at == 0
    assert relayed.read("m.pkl") == "old"
    assert files(relayed) == {"m.pkl", "skelebot.yaml", "VERSION"}
    assert done(relayed, "pull", "model", "1.0.0", "-o")["sent"] == size
    assert (relayed.root / "m.pkl").read_bytes() == new


def test_an_object_that_is_replaced_meanwhile(relayed: Sandbox, bucket: Bucket, relay: Relay) -> None:
    relayed.write("m.pkl", content(IN_FLIGHT + PART))
    done(relayed, "push", "model")
    relayed.write("m.pkl", b"old")
    relay.down = relay.up = 0

    def replace() -> None:
        relay.stalled.set()  # no part ends before, hence the last one is asked for after
        bucket.put("model_v1.0.0.pkl", b"another")
        relay.stalled.clear()

    relay.watch = (100_000, replace)
    refused(relayed.run("pull", "model", "1.0.0", "-o"), "replaced in the store meanwhile")
    assert relayed.read("m.pkl") == "old"
    done(relayed, "pull", "model", "1.0.0", "-o")
    assert relayed.read("m.pkl") == "another"


def test_credentials_are_never_shown(project: Sandbox, bucket: Bucket, strict: Server) -> None:
    """Neither those that work nor others, also with all that -V shows."""
    project.write("m.pkl", b"mine")
    for keys in (strict.keys, (strict.keys[0], "wrong-secret"), ("AKNOBODY", "wrong-secret")):
        for words in (("push", "model", "-f"), ("pull", "model", "LATEST")):
            result = with_keys(project, keys).run("-V", *words)
            assert keys[1] not in result.out + result.err
    assert bucket.get("model_v1.0.0.pkl") == b"mine"


# --- killed, and taken up again ---

WHOLE = 200_000_000


def kill_twice(relayed: Sandbox, relay: Relay, *words: str) -> list[int]:
    """Kills a transfer at two random points of it, counted over both; where they were."""
    relay.up = relay.down = 0
    points = sorted(random.sample(range(1000, WHOLE), 2))
    for point in points:
        child = relayed.start(*words, stderr=subprocess.PIPE)
        relay.watch = (point, child.kill)
        child.communicate(timeout=120)
        assert child.returncode == -signal.SIGKILL, (points, point, child.returncode)
        wait_for(relay.is_empty)
    return points


def large_file(path: Path) -> str:
    """Makes a file of WHOLE bytes, and gives its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(WHOLE // 1_000_000):
            block = random.randbytes(1_000_000)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def test_a_killed_push_goes_on_where_it_stopped(relayed: Sandbox, bucket: Bucket, relay: Relay) -> None:
    digest = large_file(relayed.root / "m.pkl")
    points = kill_twice(relayed, relay, "push", "model")
    assert bucket.keys() == []
    # One that was killed before its first part was there is begun anew, and goes in the end.
    uploads = [bucket.client.list_parts(Bucket=bucket.name, **upload) for upload in bucket.uploads()]
    parts = [upload["Parts"] for upload in uploads if "Parts" in upload]
    assert len(parts) <= 1, points
    there = sum(part["Size"] for each in parts for part in each)
    pushed = done(relayed, "push", "model")
    assert pushed["sent"] <= WHOLE - there, points  # less where a part in flight still arrived
    assert (pushed["sha256"], bucket.sha256("model_v1.0.0.pkl")) == (digest, digest), points
    assert relay.up < WHOLE + 2 * IN_FLIGHT + MB, points
    assert (bucket.keys(), bucket.uploads()) == (["model_v1.0.0.pkl"], [])


def test_a_killed_pull_goes_on_where_it_stopped(relayed: Sandbox, relay: Relay) -> None:
    digest = large_file(relayed.root / "m.pkl")
    done(relayed, "push", "model")
    relayed.write("m.pkl", b"old")
    points = kill_twice(relayed, relay, "pull", "model", "1.0.0", "-o")
    assert relayed.read("m.pkl") == "old"
    assert files(relayed) == {"m.pkl", "skelebot.yaml", "VERSION"}
    records = [json.loads(path.read_text()) for path in parts_left(relayed) if path.suffix == ".done"]
    there = sum(min(PART, WHOLE - PART * (n - 1)) for record in records for n in record["parts"])
    pulled = done(relayed, "pull", "model", "1.0.0", "-o")
    assert pulled["sent"] == WHOLE - there, points
    with (relayed.root / "m.pkl").open("rb") as file:
        assert pulled["sha256"] == hashlib.sha256(file.read()).hexdigest() == digest, points
    assert relay.down < WHOLE + 2 * IN_FLIGHT + MB, points
    assert parts_left(relayed) == []


def test_what_has_arrived_is_kept_until_it_is_in_its_place(relayed: Sandbox, relay: Relay) -> None:
    relayed.write("m.pkl", content(LARGE))
    done(relayed, "push", "model")
    (relayed.root / "model_v1.0.0.pkl").mkdir()
    refused(relayed.run("pull", "model", "1.0.0"), "move the folder away")
    (relayed.root / "model_v1.0.0.pkl").rmdir()
    relay.down = 0
    assert done(relayed, "pull", "model", "1.0.0")["sent"] == 0
    assert relay.down < 10_000
    assert (relayed.root / "model_v1.0.0.pkl").read_bytes() == (relayed.root / "m.pkl").read_bytes()
    assert parts_left(relayed) == []


@pytest.mark.parametrize("words", [("push", "model", "-f"), ("pull", "model", "1.0.0", "-o")])
def test_an_interrupted_transfer_ends_at_once(
    relayed: Sandbox, bucket: Bucket, relay: Relay, words: tuple[str, ...]
) -> None:
    """Also while the line is silent."""
    data = content(LARGE)
    relayed.write("m.pkl", data)
    if words[0] == "pull":
        done(relayed, "push", "model")
    relay.up = relay.down = 0
    relay.watch = (MB, relay.stalled.set)
    child = relayed.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(relay.stalled.is_set)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (130, b""), err
    assert b"ERROR | interrupted" in err
    assert b"Traceback" not in err
    assert (relayed.root / "m.pkl").read_bytes() == data
    relay.stalled.clear()
    wait_for(relay.is_empty)
    done(relayed, *words)
    assert bucket.get("model_v1.0.0.pkl") == (relayed.root / "m.pkl").read_bytes() == data


def test_a_full_disk(project: Sandbox, bucket: Bucket) -> None:
    folder = project.root / ".skelebot"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=12m,mode=777", "none", str(folder))
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        data = content(LARGE)
        project.write("m.pkl", data)
        done(project, "push", "model")
        project.write("m.pkl", b"old")
        refused(project.run("pull", "model", "1.0.0", "-o"), "no space left on device; free some space")
        assert project.read("m.pkl") == "old"
        subprocess.run(("mount", "-o", "remount,size=64m", str(folder)), check=True)
        done(project, "pull", "model", "1.0.0", "-o")
        assert (project.root / "m.pkl").read_bytes() == data
        assert parts_left(project) == []
    finally:
        subprocess.run(("umount", str(folder)), check=True)
        shutil.rmtree(folder)


def test_memory_is_bounded(project: Sandbox) -> None:
    large_file(project.root / "m.pkl")
    for words in (("push", "model"), ("pull", "model", "1.0.0")):
        assert peak_memory(project, *words) < 150, words
