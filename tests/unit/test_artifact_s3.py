"""A bucket as a store, in moto's server; what needs a stricter one is among the integration tests."""

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from moto.server import ThreadedMotoServer
from s3_fake import Server, serving

from skelebot.components.repository.parts import PART_SIZE
from skelebot.components.repository.s3 import S3Store
from skelebot.components.repository.s3.client import explained, is_repeated, open_bucket, split_bucket
from skelebot.components.repository.s3.lock import age, is_behind
from skelebot.components.repository.s3.multipart import Multipart
from skelebot.components.repository.settings import S3
from skelebot.components.repository.store import AlreadyStored, Unusable, Upload
from skelebot.errors import SkelebotError


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def settings(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An empty bucket."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    settings = S3(f"b{os.urandom(6).hex()}/team/", "us-east-1", None, endpoint)
    bucket = open_bucket(settings)
    bucket.client.create_bucket(Bucket=bucket.name)
    return settings


def upload(tmp_path: Path, content: bytes) -> Upload:
    (tmp_path / "m.pkl").write_bytes(content)
    return Upload.of(str(tmp_path / "m.pkl"))


@pytest.mark.parametrize("size", [0, 1000, PART_SIZE + 1])
def test_there_and_back(tmp_path: Path, settings: S3, size: int) -> None:
    store, content, shown, prefix = S3Store(settings), os.urandom(size), list[int](), list[int]()
    one = upload(tmp_path, content)
    digest = hashlib.sha256(content).hexdigest()
    pushed = store.push("m_v1.0.0", one, False, shown.append)
    assert (pushed.sha256, pushed.sent, sum(shown)) == (digest, size, size)
    [listed] = store.list("m_v")
    stored = store.head("m_v1.0.0")
    assert stored
    assert (listed.key, listed.size, stored.sha256) == ("m_v1.0.0", size, digest)
    bucket = open_bucket(settings)
    found = bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]
    assert [one["Key"] for one in found] == ["team/m_v1.0.0"]
    assert store.pull(stored, str(tmp_path / "part"), lambda count: None, prefix.append) == size
    assert (tmp_path / "part").read_bytes() == content
    assert sum(prefix) == size
    with pytest.raises(AlreadyStored):
        store.push("m_v1.0.0", one, False, shown.append)
    assert store.push("m_v1.0.0", one, True, shown.append).sent == 0  # the store has that content
    assert store.head("m_v2.0.0") is None
    another = upload(tmp_path, os.urandom(size))
    assert store.push("m_v1.0.0", another, True, shown.append).sent == size


def test_an_interrupted_upload_is_resumed(tmp_path: Path, settings: S3) -> None:
    bucket, one = open_bucket(settings), upload(tmp_path, os.urandom(2 * PART_SIZE + 5))
    first = Multipart(bucket, "m", one)
    with open(one.path, "rb") as file:
        body = file.read(PART_SIZE)
    bucket.client.upload_part(**first.request, PartNumber=1, Body=body)
    again = Multipart(bucket, "m", one)
    assert (again.request, list(again.tags)) == (first.request, [1])
    shown: list[int] = []
    assert again.send(shown.append) == PART_SIZE + 5
    assert (sorted(again.tags), sum(shown)) == ([1, 2, 3], one.size)
    other = Multipart(bucket, "m", upload(tmp_path, os.urandom(2 * PART_SIZE + 5)))
    assert other.request != first.request
    assert other.tags == {}
    other.abort_others()
    listed = bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
    assert [found["UploadId"] for found in listed] == [other.request["UploadId"]]


# --- errors ---


def error(code: str, message: str = "", **metadata: Any) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}
    return ClientError(response, "GetObject")


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (error("NoSuchBucket"), "there is no bucket models; check its name and region"),
        (error("301"), "the bucket models is in another region; fix `region`"),
        (error("ExpiredToken"), "the credentials have expired; log in to AWS again"),
        (
            error("Odd", "In\n{braces}."),
            "the store refused: An error occurred (Odd) when calling the GetObject operation: In {braces}.",
        ),
        (NoCredentialsError(), "the store cannot be used: Unable to locate credentials; log in to AWS,"),
        (
            EndpointConnectionError(endpoint_url="http://x"),
            'the store cannot be used: Could not connect to the endpoint URL: "http://x"; check the network',
        ),
        (ValueError("Invalid endpoint: x"), "the store cannot be used: Invalid endpoint: x; check"),
    ],
)
def test_errors_in_one_line(problem: Exception, message: str) -> None:
    with pytest.raises(SkelebotError) as raised, explained("models"):
        raise problem
    assert str(raised.value).startswith(message)


def test_whether_a_request_was_sent_before() -> None:
    assert is_repeated(error("412", RetryAttempts=1))
    assert not is_repeated(error("412", RetryAttempts=0))
    assert not is_repeated(error("412"))


@pytest.mark.parametrize(
    ("others", "expected"),
    [([], False), ([(2, "c"), (3, "a")], False), ([(2, "a")], True), ([(1, "z")], True), ([(0, "z")], True)],
)
def test_whose_turn_it_is(others: list[tuple[int, str]], expected: bool) -> None:
    assert is_behind((2, "b"), others) == expected


def test_the_age_of_an_object_by_the_servers_clock() -> None:
    headers = {"date": "Thu, 01 Jan 2026 00:01:00 GMT"}
    stored = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert age({"ResponseMetadata": {"HTTPHeaders": headers}}, stored) == 60


# --- servers as companies have them ---


@pytest.fixture
def fake(tmp_path: Path, settings: S3) -> Iterator[Server]:
    with serving(tmp_path / "fake") as server:
        yield server


def of(server: Server, **more: Any) -> S3:
    return S3("models", "us-east-1", None, server.url, **more)


def pushed(tmp_path: Path, server: Server, size: int, **more: Any) -> bytes:
    content = os.urandom(size)
    S3Store(of(server, **more)).push("m", upload(tmp_path, content), False, lambda count: None)
    assert server.objects["m"].path.read_bytes() == content
    assert list(server.objects) == ["m"]  # no ticket is left
    assert server.uploads == {}
    return content


SIZES = pytest.mark.parametrize("size", [1000, PART_SIZE + 1])


@SIZES
def test_the_run_of_a_file_is_in_its_metadata(tmp_path: Path, fake: Server, size: int) -> None:
    store = S3Store(of(fake))
    file = upload(tmp_path, os.urandom(size))
    for origin in ((("run", "43"), ("uid", "ab")), (("run", "44"), ("uid", "cd")), ()):
        store.push("m", replace(file, origin=origin), True, lambda count: None)
        found = store.head("m")
        assert found
        assert found.origin == origin


@SIZES
def test_a_bucket_that_demands_checksums(tmp_path: Path, fake: Server, size: int) -> None:
    fake.rules.checksums = True
    pushed(tmp_path, fake, size)
    assert any("Content-MD5" in request.headers for request in fake.requests)
    fake.rules.checksums = False
    fake.objects.clear()
    fake.requests.clear()
    pushed(tmp_path, fake, size)
    assert not any("Content-MD5" in request.headers for request in fake.requests)


@SIZES
def test_checksums_that_the_environment_asks_for(
    tmp_path: Path, fake: Server, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    store = S3Store(of(fake))
    store.push("m", upload(tmp_path, os.urandom(size)), False, lambda count: None)
    puts = [r for r in fake.requests if r.method == "PUT" and "~lock" not in r.path]
    assert puts
    assert all("x-amz-checksum-crc32" in request.headers for request in puts)


@pytest.mark.parametrize(
    ("config", "style"), [("", "path"), ("s3 =\n  addressing_style = virtual\n", "virtual")]
)
def test_the_addressing_style_of_the_users_configuration(
    tmp_path: Path, fake: Server, config: str, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(f"[default]\n{config}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    url = open_bucket(S3("models", "us-east-1", None, "http://s3.example.org")).client.generate_presigned_url(
        "get_object", {"Bucket": "models", "Key": "m"}
    )
    start = {"path": "http://s3.example.org/models/m?", "virtual": "http://models.s3.example.org/m?"}
    assert url.startswith(start[style])


@SIZES
@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"encryption": "AES256"}, "AES256"),
        ({"encryption": "aws:kms", "kms_key": "k1"}, "aws:kms k1"),
        ({"kms_key": "k1"}, "aws:kms k1"),
    ],
)
def test_a_policy_that_demands_encryption(
    tmp_path: Path, fake: Server, size: int, more: dict[str, str], wanted: str
) -> None:
    fake.rules.encryption = wanted
    pushed(tmp_path, fake, size, **more)
    with pytest.raises(SkelebotError, match="denied: explicit deny in a resource-based policy; ask"):
        S3Store(of(fake)).push("n", upload(tmp_path, bytes(size)), True, lambda count: None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models", ("models", "")),
        ("models/a/b/", ("models", "a/b")),
        *(
            (f"{arn}{rest}", (arn, rest.strip("/")))
            for arn in (
                "arn:aws:s3:eu-west-1:123456789012:accesspoint/team",
                "arn:aws:s3:eu-west-1:123456789012:accesspoint:team",
                "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/team",
                "arn:aws:s3-outposts:eu-west-1:123456789012:outpost/op-1/accesspoint/team",
                "arn:aws:s3::123456789012:accesspoint/m1.mrap",
            )
            for rest in ("", "/a/b")
        ),
    ],
)
def test_a_bucket_or_an_access_point(text: str, expected: tuple[str, str]) -> None:
    assert split_bucket(text) == expected


def address(arn: str, region: str) -> str:
    bucket = open_bucket(S3(arn.replace("ID", "123456789012"), region))
    with explained(bucket.name):
        return str(bucket.client.generate_presigned_url("get_object", bucket.at("m")).partition("?")[0])


@pytest.mark.parametrize(
    ("arn", "region", "host"),
    [
        ("arn:aws:s3:eu-west-1:ID:accesspoint/a", "us-east-1", "s3-accesspoint.eu-west-1.amazonaws.com"),
        (
            "arn:aws-cn:s3:cn-north-1:ID:accesspoint:a",
            "cn-north-1",
            "s3-accesspoint.cn-north-1.amazonaws.com.cn",
        ),
        (
            "arn:aws:s3-outposts:eu-west-1:ID:outpost:op-1:accesspoint:a",
            "eu-west-1",
            "op-1.s3-outposts.eu-west-1.amazonaws.com",
        ),
        (
            "arn:aws:s3-object-lambda:eu-west-1:ID:accesspoint/a",
            "eu-west-1",
            "s3-object-lambda.eu-west-1.amazonaws.com",
        ),
    ],
)
def test_an_access_point_is_asked_at_its_own_host(settings: S3, arn: str, region: str, host: str) -> None:
    assert address(f"{arn}/weather", region) == f"https://a-123456789012.{host}/weather/m"


@pytest.mark.parametrize(
    ("arn", "problem"),
    [
        ("arn:aws:s3:::models/weather", "'arn:aws:s3:::models' cannot be a bucket's name, nor an access"),
        ("arn:aws:s3:eu-west-1:ID:accesspoint/te_am", "te_am' cannot be a bucket's name, nor an access"),
        pytest.param(
            "arn:aws:s3::ID:accesspoint/m1.mrap",
            "m1.mrap needs another library; run `pip install 'botocore[crt]'`",
            marks=pytest.mark.skipif(bool(find_spec("awscrt")), reason="awscrt is installed"),
        ),
    ],
)
def test_a_name_that_the_library_does_not_take(settings: S3, arn: str, problem: str) -> None:
    with pytest.raises(SkelebotError, match=re.escape(problem)):
        address(arn, "eu-west-1")


@pytest.mark.parametrize(
    "page", [b"<html><body>log in</body></html>", b"<!doctype html><p>log in<br>", b'{"a": 1}', b"\x00\xff"]
)
def test_a_web_page_is_not_a_store(tmp_path: Path, fake: Server, page: bytes) -> None:
    fake.rules.page = page
    store = S3Store(of(fake))
    for ask in (store.check, lambda: list(store.list("m")), lambda: store.head("m"), store.check_write):
        with pytest.raises(SkelebotError, match="does not answer as S3 does; check `endpoint`"):
            ask()


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ("socks5h://me:secret@127.0.0.1:9", "S3 cannot be reached through a SOCKS proxy; fix HTTPS_PROXY or"),
        ("http://127.0.0.1:9", 'Failed to connect to proxy URL: "http://127.0.0.1:9"; fix HTTPS_PROXY or'),
    ],
)
def test_a_proxy_that_cannot_be_used(
    fake: Server, monkeypatch: pytest.MonkeyPatch, proxy: str, problem: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(SkelebotError, match=f"the store cannot be used: {re.escape(problem)}"):
        list(S3Store(replace(of(fake), endpoint="http://store.example.org")).list(""))


def test_a_store_that_cannot_be_written(fake: Server) -> None:
    store = S3Store(of(fake))
    store.check_write()
    assert (fake.objects, fake.uploads) == ({}, {})
    fake.rules.read_only = True
    store.check()
    with pytest.raises(SkelebotError, match="is denied: not authorized to perform: s3:PutObject; ask"):
        store.check_write()


@SIZES
@pytest.mark.parametrize("conditions", ["checked", "refused", "ignored", "conflict"])
def test_of_pushes_at_once_one_wins(tmp_path: Path, fake: Server, size: int, conditions: str) -> None:
    fake.rules.conditions = conditions
    contents = [os.urandom(size) for _ in range(4)]
    outcomes: dict[int, str] = {}

    def push(number: int) -> None:
        (tmp_path / str(number)).write_bytes(contents[number])
        try:
            S3Store(of(fake)).push("m", Upload.of(str(tmp_path / str(number))), False, lambda count: None)
            outcomes[number] = "stored"
        except SkelebotError as error:
            outcomes[number] = str(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [number for number, outcome in outcomes.items() if outcome == "stored"]
    assert sorted(outcomes.values())[:3] == [str(AlreadyStored("m"))] * 3
    assert fake.objects["m"].path.read_bytes() == contents[winner]
    assert (list(fake.objects), fake.uploads) == (["m"], {})


@SIZES
@pytest.mark.parametrize("lengths", [("HEAD", "GET"), ("HEAD",)])
def test_a_server_that_sends_more_than_it_announced(
    tmp_path: Path, fake: Server, size: int, lengths: tuple[str, ...]
) -> None:
    pushed(tmp_path, fake, size)
    stored = S3Store(of(fake)).head("m")
    assert stored
    stored = replace(stored, sha256=None)  # as of a file that others have put there
    fake.rules.further, fake.rules.lengths = 400 << 20, frozenset(lengths)
    with pytest.raises(Unusable, match=f"sent more than the {size} bytes that it announced"):
        S3Store(of(fake)).pull(stored, str(tmp_path / "part"), lambda count: None, lambda count: None)
    assert (tmp_path / "part").stat().st_size <= size
    assert fake.sent < 50 << 20


def test_a_server_that_announces_no_length(tmp_path: Path, fake: Server) -> None:
    content = pushed(tmp_path, fake, 1000)
    store = S3Store(of(fake))
    stored = store.head("m")
    assert stored
    fake.rules.lengths = frozenset()
    assert store.pull(stored, str(tmp_path / "part"), lambda count: None, lambda count: None) == 1000
    assert (tmp_path / "part").read_bytes() == content
    with pytest.raises(SkelebotError, match="does not answer as S3 does; check `endpoint`"):
        store.head("m")


@pytest.mark.parametrize("lengths", [("HEAD", "GET"), ("HEAD",)])
def test_a_server_that_sends_nothing_is_not_asked_at_once_again(
    tmp_path: Path, fake: Server, lengths: tuple[str, ...]
) -> None:
    content = pushed(tmp_path, fake, 1000)
    store = S3Store(of(fake))
    stored = store.head("m")
    assert stored
    fake.rules.empty, fake.rules.lengths = 1, frozenset(lengths)
    began = time.monotonic()
    store.pull(stored, str(tmp_path / "part"), lambda count: None, lambda count: None)
    assert time.monotonic() - began >= 0.4
    assert (tmp_path / "part").read_bytes() == content


@pytest.mark.parametrize("name", ["Key", "Size", "LastModified", "ETag"])
def test_a_listing_in_which_something_is_missing(fake: Server, name: str) -> None:
    rows = {"Key": "m", "Size": "1", "LastModified": "2026-01-01T00:00:00Z", "ETag": "e"}
    row = "".join(f"<{each}>{text}</{each}>" for each, text in rows.items() if each != name)
    fake.rules.row = f"<Contents>{row}</Contents>"
    with pytest.raises(SkelebotError, match="does not answer as S3 does; check `endpoint`"):
        list(S3Store(of(fake)).list(""))
