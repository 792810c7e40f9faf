"""One push at a time to a key, on servers that do not check conditions.

Amazon's S3 does. Others, Ceph among them, check them for small objects only or not at all. There, pushes
take numbers as customers in a bakery do, which needs no more than a consistent listing:
https://lamport.azurewebsites.net/pubs/bakery.pdf
"""

import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from skelebot import console
from skelebot.components.repository.s3.client import Bucket
from skelebot.components.repository.store import AlreadyStored

_SUFFIX = "~lock-"  # no version has a tilde, so a ticket is never taken for one
_TICKET = re.compile(r"(\d{8})-([0-9a-f]{16})")
_CHOOSING = 0  # the number of a push that has not taken one
_STALE_SECONDS = 30  # after which a ticket is a dead push's


@contextmanager
def exclusive(bucket: Bucket, key: str, exists: Callable[[], object]) -> Iterator[None]:
    """Wait until no other push of a key can complete. Raises AlreadyStored if one has."""
    token, number, is_reported = secrets.token_hex(8), _CHOOSING, False
    try:
        _put(bucket, key, number, token)
        number = 1 + max((number for number, _ in _others(bucket, key, token)), default=0)
        _put(bucket, key, number, token)
        _delete(bucket, key, _CHOOSING, token)
        while is_behind((number, token), _others(bucket, key, token)):
            if exists():
                raise AlreadyStored(key)
            if not is_reported:
                console.info(f"waiting for another push of {key}")
                is_reported = True
            time.sleep(0.3)
        if exists():
            raise AlreadyStored(key)
        yield
    finally:
        for each in {_CHOOSING, number}:
            with suppress(ClientError, BotoCoreError):
                _delete(bucket, key, each, token)


def is_behind(ticket: tuple[int, str], others: Iterable[tuple[int, str]]) -> bool:
    """Whether another push comes first, or may: its number is lower, or the same, or not chosen yet."""
    return any(other < ticket for other in others)


def _at(bucket: Bucket, key: str, number: int, token: str) -> dict[str, Any]:
    return bucket.at(f"{key}{_SUFFIX}{number:08}-{token}")


def _put(bucket: Bucket, key: str, number: int, token: str) -> None:
    bucket.put(_at(bucket, key, number, token), b"")


def _delete(bucket: Bucket, key: str, number: int, token: str) -> None:
    bucket.client.delete_object(**_at(bucket, key, number, token))


def _others(bucket: Bucket, key: str, token: str) -> list[tuple[int, str]]:
    """The tickets of other pushes; those of dead ones are removed."""
    prefix, tickets = bucket.folder + key + _SUFFIX, []
    page = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=prefix)
    for found in page.get("Contents", ()):
        ticket = _TICKET.fullmatch(found["Key"][len(prefix) :])
        if ticket is None or ticket[2] == token:
            continue
        if age(page, found["LastModified"]) > _STALE_SECONDS:
            bucket.client.delete_object(Bucket=bucket.name, Key=found["Key"])
        else:
            tickets.append((int(ticket[1]), ticket[2]))
    return tickets


def age(answer: dict[str, Any], modified: datetime) -> float:
    """The seconds since an object was stored, by the server's own clock."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date) if date else datetime.now(timezone.utc)
    return (now - modified).total_seconds()
