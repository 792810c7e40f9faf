"""A bucket as a store: Amazon's S3, or any server that speaks its protocol.

Parts go in parallel both ways, and a transfer that was cut off is taken up where it stopped: of a push
the server knows the parts that it has, of a pull a file beside the part file does.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import botocore.session  # not boto3, which would bring a transfer manager of its own
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

from skelebot import console
from skelebot.components.repository.parts import (
    AT_ONCE,
    PART,
    Part,
    Record,
    Slice,
    Stopped,
    heed,
    in_parallel,
    parts_of,
    range_md5,
)
from skelebot.components.repository.store import BLOCK, AlreadyThere, Progress, Pushed, Source, Stored
from skelebot.errors import SkelebotError

_TRIES = 5  # of a range that brings nothing
_LOCK_SECONDS = 30  # after which a lock is that of a dead push
_LOCK = "~lock"  # no version has a tilde, so that it is never taken for one
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")

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
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "PreconditionFailed": "it was replaced in the store meanwhile; run again",
    "NoSuchKey": "it was removed from the store meanwhile",
    "NoSuchUpload": "another push of it ended meanwhile; run again",
    "ConditionalRequestConflict": "another push of it is under way; run again",
}


class S3Store:
    def __init__(self, bucket: str, region: str | None, profile: str | None, endpoint: str | None) -> None:
        self._bucket, _, folder = bucket.partition("/")
        self._folder = f"{folder.strip('/')}/" if folder.strip("/") else ""
        config = Config(
            retries={"mode": "standard", "max_attempts": 6},
            max_pool_connections=AT_ONCE + 2,
            connect_timeout=10,
            read_timeout=60,
            # The SHA-256 that goes along covers the whole file; a second sum of each part costs a third
            # of the throughput, and older servers refuse it.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"payload_signing_enabled": False, "addressing_style": "path" if endpoint else "auto"},
        )
        self._checked = False
        with self._explained():
            session: Any = botocore.session.Session(profile=profile)
            self._client: Any = session.create_client("s3", region, endpoint_url=endpoint, config=config)
        host = urlsplit(self._client.meta.endpoint_url).hostname or ""
        self._is_amazon = host.endswith(_AMAZON)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the library's errors into one line each."""
        try:
            yield
        except ClientError as error:
            meaning = _MEANINGS.get(_code(error), "").format(bucket=self._bucket)
            raise SkelebotError(meaning or f"the store refused: {_line(error)}") from None
        except NoCredentialsError as error:
            hint = "log in to AWS, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or mend `profile`"
            raise SkelebotError(f"the store cannot be used: {_line(error)}; {hint}") from None
        except ParamValidationError:  # whose text is the rule for names, at length
            raise SkelebotError(
                f"the store cannot be used: {self._bucket!r} cannot be a bucket's name; mend `bucket`"
            ) from None
        except (BotoCoreError, ValueError) as error:  # the latter of an endpoint that is no address
            hint = "check the network, `region`, `profile` and `endpoint`"
            raise SkelebotError(f"the store cannot be used: {_line(error)}; {hint}") from None

    # --- what there is ---

    def check(self) -> None:
        if self._checked:
            return
        with self._explained():
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._folder, MaxKeys=1)
        self._checked = True

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
            self.check()  # says what is wrong, which the answer to a HEAD has no room for
            if _status(error) == 404:
                return None
            with self._explained():
                raise
        except (BotoCoreError, ValueError):
            with self._explained():
                raise
        try:
            modified, tag = found["LastModified"].isoformat(timespec="seconds"), found["ETag"]
        except KeyError:  # of another web server
            raise SkelebotError("the store does not answer as S3 does; check `endpoint`") from None
        sha256 = found.get("Metadata", {}).get("sha256")
        return Stored(key, found["ContentLength"], modified, sha256, tag)

    # --- push ---

    def push(self, key: str, source: Source, force: bool, progress: Progress) -> Pushed:
        before = self.head(key)
        if before and not force:
            raise AlreadyThere(key)
        if before and before.sha256 == source.sha256 and before.size == source.size:
            progress(source.size)
            return Pushed(source.sha256, 0)
        condition = {} if force else {"IfNoneMatch": "*"}
        send = self._push_whole if source.size <= PART else self._push_in_parts
        try:
            with self._explained():
                return Pushed(source.sha256, send(key, source, condition, progress))
        except _Taken:
            raise AlreadyThere(key) from None

    def _push_whole(self, key: str, source: Source, condition: dict[str, str], progress: Progress) -> int:
        with open(source.path, "rb") as file:
            body = file.read()
        source.check()
        at = {"Bucket": self._bucket, "Key": self._folder + key}
        with self._storing(key, source):
            self._client.put_object(**at, Body=body, Metadata={"sha256": source.sha256}, **condition)
        progress(source.size)
        return source.size

    def _push_in_parts(self, key: str, source: Source, condition: dict[str, str], progress: Progress) -> int:
        at: dict[str, Any] = {"Bucket": self._bucket, "Key": self._folder + key}
        unfinished = self._unfinished(at)
        at["UploadId"], have = self._upload(at, unfinished, source)
        try:
            sent = self._send_parts(at, source, have, progress)
            self._complete(at, key, source, have, condition)
        except ClientError as error:
            # Of two pushes of the same content the second helps the first, whose end is its own.
            if _code(error) == "NoSuchUpload" and condition and self.head(key):
                raise _Taken from None
            raise
        except _Taken:
            self._abort(at, at["UploadId"])
            raise
        for upload in unfinished:
            if upload != at["UploadId"]:
                self._abort(at, upload)  # of other content, which would be kept, and paid for, for ever
        return sent

    @contextmanager
    def _storing(self, key: str, source: Source) -> Iterator[None]:
        """Raises _Taken where somebody else has stored that key meanwhile."""
        try:
            yield
        except ClientError as error:
            if _status(error) not in (404, 409, 412):
                raise
            there = self.head(key)
            # Where an answer was lost, the library has asked again, and met what it had itself stored.
            if _is_repeated(error) and there and there.sha256 == source.sha256:
                return
            if there and _status(error) != 404:
                raise _Taken from None
            raise

    def _unfinished(self, at: dict[str, Any]) -> tuple[str, ...]:
        """The uploads of that key that have not ended, the latest first; none where one may not ask."""
        try:
            listed = self._client.list_multipart_uploads(Bucket=at["Bucket"], Prefix=at["Key"])
        except ClientError:
            return ()
        found = [upload for upload in listed.get("Uploads", ()) if upload["Key"] == at["Key"]]
        return tuple(u["UploadId"] for u in sorted(found, key=lambda u: u["Initiated"], reverse=True))

    def _upload(
        self, at: dict[str, Any], unfinished: Sequence[str], source: Source
    ) -> tuple[str, dict[int, str]]:
        """An upload of this very content that was cut off, with its parts, or a fresh one.

        A part that the server has counts when its sum is that of the same range of the file.
        """
        for upload in unfinished:
            with suppress(ClientError):  # it may have been completed or aborted meanwhile
                have = self._parts_there(at, upload, source)
                if have:
                    return upload, have
        made = self._client.create_multipart_upload(**at, Metadata={"sha256": source.sha256})
        return made["UploadId"], {}

    def _abort(self, at: dict[str, Any], upload: str) -> None:
        with suppress(ClientError, BotoCoreError):
            self._client.abort_multipart_upload(Bucket=at["Bucket"], Key=at["Key"], UploadId=upload)

    def _complete(
        self, at: dict[str, Any], key: str, source: Source, have: dict[int, str], condition: dict[str, str]
    ) -> None:
        """Makes the parts an object. Raises _Taken where somebody else has stored that key meanwhile."""
        parts = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in sorted(have.items())]}
        with self._alone(key, bool(condition)), self._storing(key, source):
            self._client.complete_multipart_upload(**at, MultipartUpload=parts, **condition)

    @contextmanager
    def _alone(self, key: str, wanted: bool) -> Iterator[None]:
        """Keeps other pushes of that key from being completed. Raises _Taken where one has been.

        Amazon's S3 heeds the condition itself. Other servers (Ceph's for one) heed it for small objects
        alone: there a small object beside the key says that somebody is about to complete.
        """
        if self._is_amazon or not wanted:
            yield
            return
        lock = {"Bucket": self._bucket, "Key": self._folder + key + _LOCK}
        self._acquire(lock, key)
        try:
            if self.head(key):
                raise _Taken
            yield
        finally:
            with suppress(ClientError, BotoCoreError):
                self._client.delete_object(**lock)

    def _acquire(self, lock: dict[str, str], key: str) -> None:
        """Stores the lock, as soon as nobody else's is there. Raises _Taken where the key is."""
        mine, is_told = {"push": secrets.token_hex(8)}, False
        while True:
            try:
                self._client.put_object(**lock, Body=b"", Metadata=mine, IfNoneMatch="*")
                return
            except ClientError as error:
                if _status(error) not in (409, 412):
                    raise
            if self.head(key):
                raise _Taken
            with suppress(ClientError):  # it may go meanwhile
                there = self._client.head_object(**lock)
                if there["Metadata"] == mine:  # an answer was lost, and the library has asked again
                    return
                if _age(there) > _LOCK_SECONDS:
                    self._client.delete_object(**lock)
                    continue
            if not is_told:
                console.info(f"waiting for another push of {key}")
                is_told = True
            time.sleep(0.5)

    def _parts_there(self, at: dict[str, Any], upload: str, source: Source) -> dict[int, str]:
        expected = {part.number: part for part in parts_of(source.size)}
        have: dict[int, str] = {}
        for page in self._client.get_paginator("list_parts").paginate(**at, UploadId=upload):
            for found in page.get("Parts", ()):
                part = expected.get(found["PartNumber"])
                if part is None or found["Size"] != part.size:
                    return {}
                if found["ETag"].strip('"') != range_md5(source.path, part):
                    return {}
                have[part.number] = found["ETag"]
        return have

    def _send_parts(
        self, at: dict[str, Any], source: Source, have: dict[int, str], progress: Progress
    ) -> int:
        """Sends the parts that are missing from `have`, adds them there, and gives the bytes sent."""
        parts = parts_of(source.size)
        missing = [part for part in parts if part.number not in have]
        progress(sum(part.size for part in parts if part.number in have))

        def send(part: Part, stop: threading.Event) -> None:
            with open(source.path, "rb") as file:
                body = Slice(file, part, progress, stop)
                answer = self._client.upload_part(
                    **at, PartNumber=part.number, Body=body, ContentLength=part.size
                )
            have[part.number] = answer["ETag"]

        try:
            in_parallel(send, missing, lambda: None)
        except Stopped:
            raise source.changed() from None
        source.check()
        return sum(part.size for part in missing)

    # --- pull ---

    def pull(self, stored: Stored, part: str, progress: Progress, arrived: Progress) -> int:
        record = Record(f"{part}.done", stored)
        if not record.numbers or not os.path.exists(part):
            record.numbers.clear()
            with open(part, "wb") as file:
                file.truncate(stored.size)
        parts = parts_of(stored.size)
        progress(sum(p.size for p in parts if p.number in record.numbers))
        missing = [p for p in parts if p.number not in record.numbers]

        def fetch(one: Part, stop: threading.Event) -> None:
            self._fetch(stored, one, part, progress, stop)
            record.add(one.number)

        waiting = deque(parts)

        def after() -> None:
            while waiting and waiting[0].number in record.numbers:
                arrived(waiting.popleft().size)

        with self._explained():
            in_parallel(fetch, missing, after)
        return sum(p.size for p in missing)

    def _fetch(
        self, stored: Stored, part: Part, path: str, progress: Progress, stop: threading.Event
    ) -> None:
        """Writes one range at its place, going on where the line broke; of other content none is served."""
        here, end, tries = part.start, part.start + part.size, 0
        with open(path, "r+b") as file:
            while here < end:
                file.seek(here)
                try:
                    for block in self._blocks(stored, here, end):
                        heed(stop)
                        file.write(block)
                        file.flush()
                        here += len(block)
                        progress(len(block))
                        tries = 0
                except BotoCoreError:
                    tries += 1
                    if tries == _TRIES:
                        raise
                    stop.wait(0.1 * 4**tries)

    def _blocks(self, stored: Stored, start: int, end: int) -> Iterator[bytes]:
        answer = self._client.get_object(
            Bucket=self._bucket,
            Key=self._folder + stored.key,
            IfMatch=stored.tag,
            Range=f"bytes={start}-{end - 1}",
        )
        # Not `with answer["Body"]`: that gives the stream below it, which takes a broken line for the end.
        with closing(answer["Body"]) as body:
            while block := body.read(BLOCK):
                yield block


class _Taken(Exception):
    """Somebody else has stored that key meanwhile."""


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _age(answer: dict[str, Any]) -> float:
    """The seconds since an object was stored, by the server's own clock."""
    told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(told) if told else datetime.now(timezone.utc)
    return float((now - answer["LastModified"]).total_seconds())


def _is_repeated(error: ClientError) -> bool:
    return bool(error.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
