"""A bucket as a store, in moto's server; what needs a stricter one is among the integration tests."""

import hashlib
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from moto.server import ThreadedMotoServer

from skelebot.components.repository.parts import PART_SIZE
from skelebot.components.repository.s3 import S3Store
from skelebot.components.repository.s3.client import explained, is_repeated, open_bucket
from skelebot.components.repository.s3.lock import age
from skelebot.components.repository.s3.multipart import Multipart
from skelebot.components.repository.settings import S3
from skelebot.components.repository.store import AlreadyStored, Upload
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


def test_the_age_of_an_object_by_the_servers_clock() -> None:
    headers = {"date": "Thu, 01 Jan 2026 00:01:00 GMT"}
    stored = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert age({"ResponseMetadata": {"HTTPHeaders": headers}, "LastModified": stored}) == 60
