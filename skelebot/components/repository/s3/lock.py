"""One push at a time to a key, on servers that do not check conditions of large objects.

Amazon's S3 does. Others, Ceph among them, check them for small objects only: there a small object beside
the key reports that a push is about to complete.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from skelebot import console
from skelebot.components.repository.s3.client import Bucket, status
from skelebot.components.repository.store import AlreadyStored

_SUFFIX = "~lock"  # no version has a tilde, so it is never taken for one
_STALE_SECONDS = 30  # after which a lock is a dead push's


@contextmanager
def exclusive(bucket: Bucket, key: str, exists: Callable[[], object]) -> Iterator[None]:
    """Keep other pushes of a key from completing. Raises AlreadyStored if one has."""
    lock = bucket.at(key + _SUFFIX)
    _acquire(bucket.client, lock, key, exists)
    try:
        if exists():
            raise AlreadyStored(key)
        yield
    finally:
        with suppress(ClientError, BotoCoreError):
            bucket.client.delete_object(**lock)


def _acquire(client: Any, lock: dict[str, Any], key: str, exists: Callable[[], object]) -> None:
    """Store the lock as soon as there is no other. Raises AlreadyStored if the key is stored."""
    mine, is_reported = {"push": secrets.token_hex(8)}, False
    while True:
        try:
            client.put_object(**lock, Body=b"", Metadata=mine, IfNoneMatch="*")
            return
        except ClientError as error:
            if status(error) not in (409, 412):
                raise
        if exists():
            raise AlreadyStored(key)
        with suppress(ClientError):  # it may be gone by now
            found = client.head_object(**lock)
            if found["Metadata"] == mine:  # an answer was lost, and the library has asked again
                return
            if age(found) > _STALE_SECONDS:
                client.delete_object(**lock)
                continue
        if not is_reported:
            console.info(f"waiting for another push of {key}")
            is_reported = True
        time.sleep(0.5)


def age(answer: dict[str, Any]) -> float:
    """The seconds since an object was stored, by the server's own clock."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date) if date else datetime.now(timezone.utc)
    return float((now - answer["LastModified"]).total_seconds())
