"""A bucket as a store: Amazon's S3, or any server that speaks its protocol.

Parts go in parallel both ways, and a transfer that was cut off is taken up where it stopped: of a push
the server knows the parts that it has, of a pull a file beside the part file does.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from skelebot.components.repository.store import BLOCK, AlreadyThere, Progress, Stored, forget
from skelebot.errors import SkelebotError

_PART = 16 << 20  # bytes; at most 10,000 parts are allowed, so that larger files have larger parts
_AT_ONCE = 8  # parts
_MOST_PARTS = 10_000

_MEANINGS = {
    "NoSuchBucket": "there is no bucket {bucket}; check its name and region",
    "InvalidAccessKeyId": "the access key is not known to the store; check the profile or AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong; check the profile or AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired; log in to AWS again",
    "ExpiredTokenException": "the credentials have expired; log in to AWS again",
    "AccessDenied": "access to the bucket {bucket} is denied; ask for the rights to list, read and write it",
    "403": "access to the bucket {bucket} is denied; check the credentials and their rights",
    "PermanentRedirect": "the bucket {bucket} is in another region; mend `region`",
    "AuthorizationHeaderMalformed": "the bucket {bucket} is in another region; mend `region`",
    "IllegalLocationConstraintException": "the bucket {bucket} is in another region; mend `region`",
    "301": "the bucket {bucket} is in another region; mend `region`",
}


@dataclass(frozen=True)
class Part:
    """A range of a file: its number from 1, where it starts, and its length."""

    number: int
    start: int
    size: int


def parts_of(size: int) -> list[Part]:
    length = max(_PART, -(-size // _MOST_PARTS))
    starts = range(0, size, length)
    return [Part(i + 1, start, min(length, size - start)) for i, start in enumerate(starts)]


class S3Store:
    def __init__(self, bucket: str, region: str | None, profile: str | None, endpoint: str | None) -> None:
        self._bucket, _, folder = bucket.partition("/")
        self._folder = f"{folder.strip('/')}/" if folder.strip("/") else ""
        config = Config(
            retries={"mode": "standard", "max_attempts": 6},
            max_pool_connections=_AT_ONCE + 2,
            connect_timeout=10,
            read_timeout=60,
            # The SHA-256 that goes along covers the whole file; a second sum of each part costs a third
            # of the throughput, and older servers refuse it.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"payload_signing_enabled": False, "addressing_style": "path" if endpoint else "auto"},
        )
        with self._explained():
            session = boto3.Session(profile_name=profile, region_name=region)
            self._client: Any = session.client("s3", endpoint_url=endpoint, config=config)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the library's errors into one line each."""
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            text = _MEANINGS.get(code, f"the store refused: {error}")
            raise SkelebotError(text.format(bucket=self._bucket)) from None
        except BotoCoreError as error:
            hint = "check the network, `region`, `profile` and `endpoint`"
            raise SkelebotError(f"the store cannot be used: {error}; {hint}") from None

    # --- what there is ---

    def check(self) -> None:
        with self._explained():
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._folder, MaxKeys=1)

    def list(self, prefix: str) -> Iterator[Stored]:
        with self._explained():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._folder + prefix):
                for found in page.get("Contents", ()):
                    key = found["Key"][len(self._folder) :]
                    modified = found["LastModified"].isoformat(timespec="seconds")
                    yield Stored(key, found["Size"], modified, None, found["ETag"])

    def head(self, key: str) -> Stored | None:
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=self._folder + key)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                self.check()  # it may be the bucket that is missing
                return None
            with self._explained():
                raise
        except BotoCoreError:
            with self._explained():
                raise
        modified = found["LastModified"].isoformat(timespec="seconds")
        sha256 = found.get("Metadata", {}).get("sha256")
        return Stored(key, found["ContentLength"], modified, sha256, found["ETag"])

    # --- push ---

    def push(self, key: str, file: str, sha256: str, force: bool, progress: Progress) -> int:
        before = self.head(key)
        if before and not force:
            raise AlreadyThere(key)
        size = os.path.getsize(file)
        if before and before.sha256 == sha256 and before.size == size:
            progress(size)
            return 0
        try:
            with self._explained():
                return self._push(key, file, sha256, {} if force else {"IfNoneMatch": "*"}, progress)
        except _Taken:
            raise AlreadyThere(key) from None

    def _push(self, key: str, file: str, sha256: str, condition: dict[str, str], progress: Progress) -> int:
        at: dict[str, Any] = {"Bucket": self._bucket, "Key": self._folder + key}
        size = os.path.getsize(file)
        if size <= _PART:
            with open(file, "rb") as body, _taken():
                self._client.put_object(**at, Body=body, Metadata={"sha256": sha256}, **condition)
            progress(size)
            return size
        upload, have = self._upload(at, file, sha256)
        at["UploadId"] = upload
        sent = self._send_parts(at, file, have, progress)
        numbered = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(have.items())]
        try:
            with _taken():
                self._client.complete_multipart_upload(**at, MultipartUpload={"Parts": numbered}, **condition)
        except _Taken:
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**at)
            raise
        return sent

    def _upload(self, at: dict[str, Any], file: str, sha256: str) -> tuple[str, dict[int, str]]:
        """An upload of this very content that was cut off, with its parts, or a fresh one.

        A part that the server has counts when its sum is that of the same range of the file.
        """
        listed = self._client.list_multipart_uploads(Bucket=at["Bucket"], Prefix=at["Key"])
        mine = [u for u in listed.get("Uploads", ()) if u["Key"] == at["Key"]]
        for upload in sorted(mine, key=lambda u: u["Initiated"], reverse=True):
            with suppress(ClientError):  # it may have been completed or aborted meanwhile
                have = self._parts_there(at, upload["UploadId"], file)
                if have:
                    return upload["UploadId"], have
        made = self._client.create_multipart_upload(**at, Metadata={"sha256": sha256})
        return made["UploadId"], {}

    def _parts_there(self, at: dict[str, Any], upload: str, file: str) -> dict[int, str]:
        expected = {part.number: part for part in parts_of(os.path.getsize(file))}
        have: dict[int, str] = {}
        for page in self._client.get_paginator("list_parts").paginate(**at, UploadId=upload):
            for found in page.get("Parts", ()):
                part = expected.get(found["PartNumber"])
                if part is None or found["Size"] != part.size:
                    return {}
                if found["ETag"].strip('"') != _range_md5(file, part):
                    return {}
                have[part.number] = found["ETag"]
        return have

    def _send_parts(self, at: dict[str, Any], file: str, have: dict[int, str], progress: Progress) -> int:
        """Sends the parts that are missing from `have`, adds them there, and gives the bytes sent."""
        parts = parts_of(os.path.getsize(file))
        missing = [part for part in parts if part.number not in have]
        progress(sum(part.size for part in parts if part.number in have))

        def send(part: Part) -> None:
            with open(file, "rb") as source:
                body = _Slice(source, part)
                answer = self._client.upload_part(
                    **at, PartNumber=part.number, Body=body, ContentLength=part.size
                )
            have[part.number] = answer["ETag"]
            progress(part.size)

        _in_parallel(send, missing)
        return sum(part.size for part in missing)

    # --- pull ---

    def pull(self, stored: Stored, part: str, progress: Progress) -> int:
        record = _Record(f"{part}.done", stored)
        parts = parts_of(stored.size)
        with open(part, "r+b" if os.path.exists(part) and record.numbers else "w+b") as file:
            if not record.numbers:
                file.truncate(stored.size)
            progress(sum(p.size for p in parts if p.number in record.numbers))
            missing = [p for p in parts if p.number not in record.numbers]

            def fetch(one: Part) -> None:
                self._fetch(stored, one, file.fileno(), progress)
                record.add(one.number)

            with self._explained():
                _in_parallel(fetch, missing)
        forget(record.path)
        return sum(p.size for p in missing)

    def _fetch(self, stored: Stored, part: Part, target: int, progress: Progress) -> None:
        """Writes one range at its place; what is read of another content is refused by the server."""
        at = {"Bucket": self._bucket, "Key": self._folder + stored.key, "IfMatch": stored.tag}
        for attempt in range(5):
            at_byte = part.start
            try:
                end = part.start + part.size - 1
                body = self._client.get_object(**at, Range=f"bytes={part.start}-{end}")["Body"]
                while block := body.read(BLOCK):
                    os.pwrite(target, block, at_byte)
                    at_byte += len(block)
                if at_byte == part.start + part.size:
                    progress(part.size)
                    return
            except (BotoCoreError, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # this machine's disk, not the network
                if attempt == 4:
                    raise
        raise SkelebotError(f"{stored.key} arrived cut off again and again; check the network")


class _Taken(Exception):
    """Somebody else has stored that key meanwhile."""


@contextmanager
def _taken() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (409, 412):
            raise _Taken from None
        raise


def _in_parallel(work: Callable[[Part], None], parts: Iterable[Part]) -> None:
    """Does the work for all parts, a few at a time; the first failure keeps the rest from starting."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(work, part) for part in parts]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _range_md5(path: str, part: Part) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        source = _Slice(file, part)
        while block := source.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class _Slice:
    """A range of an open file, as a file of its own that can be read again after a failure."""

    def __init__(self, file: Any, part: Part) -> None:
        self._file, self._part, self._at = file, part, 0
        file.seek(part.start)

    def __len__(self) -> int:
        return self._part.size

    def read(self, size: int = -1) -> bytes:
        left = self._part.size - self._at
        block: bytes = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(block)
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._at, 2: self._part.size}[whence]
        self._at = base + offset
        self._file.seek(self._part.start + self._at)
        return self._at

    def tell(self) -> int:
        return self._at


class _Record:
    """Which parts of a pull are there, kept beside the part file for the next call."""

    def __init__(self, path: str, stored: Stored) -> None:
        self.path, self._lock = path, threading.Lock()
        self._tag = f"{stored.tag} {stored.size} {_PART}"
        self.numbers: set[int] = set()
        with suppress(OSError, ValueError, KeyError, TypeError), open(path, encoding="utf-8") as file:
            known = json.load(file)
            if known["tag"] == self._tag:
                self.numbers = set(known["parts"])

    def add(self, number: int) -> None:
        with self._lock:
            self.numbers.add(number)
            fresh = f"{self.path}.new"
            with open(fresh, "w", encoding="utf-8") as file:
                json.dump({"tag": self._tag, "parts": sorted(self.numbers)}, file)
            os.replace(fresh, self.path)
