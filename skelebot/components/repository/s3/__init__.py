"""A bucket as a store: Amazon's S3, or any server with the same protocol.

Parts are transferred in parallel both ways, and an interrupted transfer is resumed.
"""

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from skelebot.components.repository.parts import PART_SIZE, Part, Record, check_stop, in_parallel, parts_of
from skelebot.components.repository.s3.client import (
    code,
    explained,
    is_repeated,
    open_bucket,
    protocol_error,
    status,
)
from skelebot.components.repository.s3.lock import exclusive
from skelebot.components.repository.s3.multipart import Multipart, metadata
from skelebot.components.repository.settings import S3
from skelebot.components.repository.store import (
    BLOCK,
    ORIGIN_NAMES,
    AlreadyStored,
    OnBytes,
    OnPrefix,
    Pushed,
    Stored,
    Upload,
    oversized,
)

_TRIES = 5  # of a range that brings nothing


class _NothingSent(BotoCoreError):  # type: ignore[misc]
    fmt = "it sends nothing of {key}"


class S3Store:
    def __init__(self, settings: S3) -> None:
        self._bucket = open_bucket(settings)
        self._client = self._bucket.client
        self._is_checked = False

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self._bucket.name)

    # --- what there is ---

    def check(self) -> None:
        if self._is_checked:
            return
        with self._explained():
            at = {"Bucket": self._bucket.name, "Prefix": self._bucket.folder}
            _check_page(self._client.list_objects_v2(**at, MaxKeys=1))
        self._is_checked = True

    def check_write(self) -> None:
        """Begin an upload, which needs the right to write, and drop it, which leaves nothing."""
        with self._explained():
            at = self._bucket.at("~check")
            upload = self._client.create_multipart_upload(**at, **self._bucket.options).get("UploadId")
        if not upload:
            raise protocol_error()
        with suppress(ClientError, BotoCoreError):
            self._client.abort_multipart_upload(**at, UploadId=upload)

    def list(self, prefix: str) -> Iterator[Stored]:
        folder = self._bucket.folder
        with self._explained():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket.name, Prefix=folder + prefix):
                _check_page(page)
                for found in page.get("Contents", ()):
                    yield _listed(found, len(folder))

    def head(self, key: str) -> Stored | None:
        try:
            found = self._client.head_object(**self._bucket.at(key))
        except ClientError as error:
            self.check()  # reports what is wrong, which the answer to a HEAD has no room for
            if status(error) == 404:
                return None
            with self._explained():
                raise
        except (BotoCoreError, ResponseParserError, ValueError):
            with self._explained():
                raise
        try:
            modified, tag = found["LastModified"].isoformat(timespec="seconds"), found["ETag"]
            size = found["ContentLength"]
        except KeyError:  # another web server
            raise protocol_error() from None
        if size < 0:
            raise protocol_error()
        known = found.get("Metadata", {})
        is_executable = known.get("executable") == "true"
        origin = tuple((name, known[name]) for name in ORIGIN_NAMES if name in known)
        return Stored(key, size, modified, known.get("sha256"), tag, is_executable, origin)

    def is_executable(self, stored: Stored) -> bool:
        return stored.is_executable

    # --- push ---

    def push(self, key: str, upload: Upload, force: bool, on_bytes: OnBytes) -> Pushed:
        before = self.head(key)
        if before and not force:
            raise AlreadyStored(key)
        if before and _is_same(before, upload):
            on_bytes(upload.size)
            return Pushed(upload.sha256, 0)
        send = self._push_whole if upload.size <= PART_SIZE else self._push_in_parts
        with self._explained():
            return Pushed(upload.sha256, send(key, upload, force, on_bytes))

    def _push_whole(self, key: str, upload: Upload, force: bool, on_bytes: OnBytes) -> int:
        with open(upload.path, "rb") as file:
            body = file.read()
        upload.ensure_unchanged()
        at = self._bucket.at(key) | {"Metadata": metadata(upload)}
        self._store(key, upload, force, lambda **condition: self._bucket.put(at, body, **condition))
        on_bytes(upload.size)
        return upload.size

    def _push_in_parts(self, key: str, upload: Upload, force: bool, on_bytes: OnBytes) -> int:
        parts = Multipart(self._bucket, key, upload)
        try:
            sent = parts.send(on_bytes)
            self._store(key, upload, force, parts.complete)
        except ClientError as error:
            # Of two pushes of the same content the second helps the first, which ends the upload.
            if code(error) == "NoSuchUpload" and not force and self.head(key):
                raise AlreadyStored(key) from None
            raise
        except AlreadyStored:
            parts.abort()
            raise
        parts.abort_others()
        return sent

    def _store(self, key: str, upload: Upload, force: bool, send: Callable[..., None]) -> None:
        """Create an object, if its key must be new under that condition and, elsewhere, alone."""
        if force:
            with self._storing(key, upload):
                send()
            return
        is_amazon = self._bucket.is_amazon
        with nullcontext() if is_amazon else exclusive(self._bucket, key, lambda: self.head(key)):
            for attempt in range(_TRIES):
                try:
                    with self._storing(key, upload):
                        send(**({"IfNoneMatch": "*"} if self._bucket.has_conditions else {}))
                    return
                except ClientError as error:
                    if status(error) == 501 and self._bucket.has_conditions:
                        self._bucket.has_conditions = False
                    elif status(error) != 409 or attempt == _TRIES - 1:
                        raise
                    else:  # of two at once, both may be refused
                        time.sleep(random.uniform(0, 0.3 * 2**attempt))  # noqa: S311

    @contextmanager
    def _storing(self, key: str, upload: Upload) -> Iterator[None]:
        """Raises AlreadyStored if another push has stored that key meanwhile."""
        try:
            yield
        except ClientError as error:
            if status(error) not in (404, 409, 412):
                raise
            found = self.head(key)
            # If an answer was lost, the library has asked again, and found what it had itself stored.
            if is_repeated(error) and found and found.sha256 == upload.sha256:
                return
            if found and status(error) != 404:
                raise AlreadyStored(key) from None
            raise

    # --- pull ---

    def pull(self, stored: Stored, part: str, on_bytes: OnBytes, on_prefix: OnPrefix) -> int:
        record = Record(f"{part}.done", stored)
        if not record.numbers or not os.path.exists(part):
            record.numbers.clear()
            with open(part, "wb") as file:
                file.truncate(stored.size)
        parts = parts_of(stored.size)
        on_bytes(sum(p.size for p in parts if p.number in record.numbers))
        missing = [p for p in parts if p.number not in record.numbers]

        def fetch(one: Part, stop: threading.Event) -> None:
            self._fetch(stored, one, part, on_bytes, stop)
            record.add(one.number)

        pending = deque(parts)

        def report_prefix() -> None:
            while pending and pending[0].number in record.numbers:
                on_prefix(pending.popleft().size)

        with self._explained():
            in_parallel(fetch, missing, report_prefix)
        return sum(p.size for p in missing)

    def _fetch(self, stored: Stored, part: Part, path: str, on_bytes: OnBytes, stop: threading.Event) -> None:
        """Write one range at its place, resuming where a connection broke; only of the same content."""
        here, end, tries = part.start, part.start + part.size, 0
        with open(path, "r+b") as file:
            while here < end:
                file.seek(here)
                try:
                    for block in self._blocks(stored, here, end):
                        check_stop(stop)
                        file.write(block)
                        file.flush()
                        here += len(block)
                        on_bytes(len(block))
                        tries = 0
                except BotoCoreError:
                    tries += 1
                    if tries == _TRIES:
                        raise
                    stop.wait(0.1 * 4**tries)

    def _blocks(self, stored: Stored, start: int, end: int) -> Iterator[bytes]:
        answer = self._client.get_object(
            **self._bucket.at(stored.key), IfMatch=stored.tag, Range=f"bytes={start}-{end - 1}"
        )
        if answer.get("ContentLength", 0) > end - start:
            raise oversized(stored)
        # Not `with answer["Body"]`: that gives the stream below it, which takes a broken connection for
        # the end.
        with closing(answer["Body"]) as body:
            here = start
            while here < end and (block := body.read(min(BLOCK, end - here))):
                here += len(block)
                yield block
            if here == start:  # or it would be asked without end
                raise _NothingSent(key=stored.key)
            if here == end and "ContentLength" not in answer and body.read(1):
                raise oversized(stored)


def _listed(found: Mapping[str, Any], start: int) -> Stored:
    """An object of a listing, by its key from `start` on. Raises SkelebotError."""
    try:
        modified = found["LastModified"].isoformat(timespec="seconds")
        return Stored(found["Key"][start:], found["Size"], modified, None, found["ETag"])
    except KeyError:  # another web server
        raise protocol_error() from None


def _check_page(page: Mapping[str, Any]) -> None:
    """Refuse the answer of another web server. Raises SkelebotError."""
    if not {"Name", "KeyCount"} & page.keys():
        raise protocol_error()


def _is_same(stored: Stored, upload: Upload) -> bool:
    of_upload = (upload.size, upload.sha256, upload.is_executable, upload.origin)
    return (stored.size, stored.sha256, stored.is_executable, stored.origin) == of_upload
