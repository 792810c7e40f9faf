"""A client for a bucket: its settings, and the meaning of its errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import botocore.session  # not boto3, which would bring a transfer manager of its own
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

from skelebot.components.repository.parts import AT_ONCE
from skelebot.components.repository.settings import S3
from skelebot.errors import SkelebotError

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")

_OTHER_REGION = "the bucket {bucket} is in another region; fix `region`"
_EXPIRED = "the credentials have expired; log in to AWS again"
_MEANINGS = {
    "NoSuchBucket": "there is no bucket {bucket}; check its name and region",
    "InvalidAccessKeyId": "the store does not know the access key; check the profile or AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong; check the profile or AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "AccessDenied": "access to the bucket {bucket} is denied; ask for the rights to list, read and write it",
    "403": "access to the bucket {bucket} is denied; check the credentials and their rights",
    "PermanentRedirect": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
    "301": _OTHER_REGION,
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "PreconditionFailed": "it was replaced in the store meanwhile; run again",
    "NoSuchKey": "it was removed from the store meanwhile",
    "NoSuchUpload": "another push of it ended meanwhile; run again",
    "ConditionalRequestConflict": "another push of it is under way; run again",
}


@dataclass(frozen=True)
class Bucket:
    """A bucket, or the part of it whose keys begin with `folder`."""

    client: Any
    name: str
    folder: str

    def at(self, key: str) -> dict[str, Any]:
        """The parameters of a request that name an object."""
        return {"Bucket": self.name, "Key": self.folder + key}

    @property
    def is_amazon(self) -> bool:
        return (urlsplit(self.client.meta.endpoint_url).hostname or "").endswith(_AMAZON)


def open_bucket(settings: S3) -> Bucket:
    name, _, folder = settings.bucket.partition("/")
    folder = folder.strip("/")
    config = Config(
        retries={"mode": "standard", "max_attempts": 6},
        max_pool_connections=AT_ONCE + 2,
        connect_timeout=10,
        read_timeout=60,
        # The SHA-256 in the metadata covers the whole file; a second checksum of each part costs a third
        # of the throughput, and older servers refuse it.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False, "addressing_style": "path" if settings.endpoint else "auto"},
    )
    with explained(name):
        session: Any = botocore.session.Session(profile=settings.profile)
        client = session.create_client("s3", settings.region, endpoint_url=settings.endpoint, config=config)
    return Bucket(client, name, f"{folder}/" if folder else "")


@contextmanager
def explained(bucket: str) -> Iterator[None]:
    """Turn the library's errors into one line each."""
    try:
        yield
    except ClientError as error:
        meaning = _MEANINGS.get(code(error), "").format(bucket=bucket)
        raise SkelebotError(meaning or f"the store refused: {_line(error)}") from None
    except NoCredentialsError as error:
        hint = "log in to AWS, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or fix `profile`"
        raise SkelebotError(f"the store cannot be used: {_line(error)}; {hint}") from None
    except ParamValidationError:  # whose text is the rule for names, at length
        raise SkelebotError(
            f"the store cannot be used: {bucket!r} cannot be a bucket's name; fix `bucket`"
        ) from None
    except (BotoCoreError, ValueError) as error:  # the latter for a malformed endpoint
        hint = "check the network, `region`, `profile` and `endpoint`"
        raise SkelebotError(f"the store cannot be used: {_line(error)}; {hint}") from None


def code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_repeated(error: ClientError) -> bool:
    """Whether the library had sent the request before, and the first answer may have been lost."""
    return bool(error.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
