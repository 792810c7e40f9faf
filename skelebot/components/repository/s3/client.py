"""A client for a bucket: its settings, and the meaning of its errors."""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import botocore.session  # not boto3, which would bring a transfer manager of its own
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    MissingDependencyException,
    NoCredentialsError,
    ParamValidationError,
    ProxyConnectionError,
)
from botocore.parsers import ResponseParserError

from skelebot.components.repository.parts import AT_ONCE
from skelebot.components.repository.settings import S3
from skelebot.errors import SkelebotError

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")

_ACCESS_POINT = re.compile(r"arn:[^/]*?(?:outpost[/:][^/:]+[/:])?accesspoint[/:][^/:]+")
_DEMANDS_CHECKSUM = re.compile("content-?md5|checksum", re.IGNORECASE)

_OTHER_REGION = "the bucket {bucket} is in another region; fix `region`"
_EXPIRED = "the credentials have expired; log in to AWS again"
_MEANINGS = {
    "NoSuchBucket": "there is no bucket {bucket}; check its name and region",
    "InvalidAccessKeyId": "the store does not know the access key; check the profile or AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong; check the profile or AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "AccessDenied": "access to the bucket {bucket} is denied{reason}; "
    "ask for the rights to list, read and write it",
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


@dataclass
class Bucket:
    """A bucket, or the part of it whose keys begin with `folder`.

    options: of each request that creates an object. needs_md5, has_conditions: what the server has answered.
    """

    client: Any
    name: str
    folder: str
    options: Mapping[str, str]
    needs_md5: bool = False
    has_conditions: bool = True

    def put(self, at: Mapping[str, Any], body: bytes, **options: Any) -> None:
        """Store a small object."""

        def send(**checksum: str) -> Any:
            return self.client.put_object(**at, Body=body, **self.options, **options, **checksum)

        self.with_md5(send, lambda: hashlib.md5(body, usedforsecurity=False).hexdigest())

    def with_md5(self, send: Callable[..., Any], md5: Callable[[], str]) -> Any:
        """Send data, with its MD5 if the server demands one, as it does in a bucket with Object Lock."""
        if not self.needs_md5:
            try:
                return send()
            except ClientError as error:
                if status(error) != 400 or not _DEMANDS_CHECKSUM.search(str(error)):
                    raise
                self.needs_md5 = True
        return send(ContentMD5=base64.b64encode(bytes.fromhex(md5())).decode())

    def at(self, key: str) -> dict[str, Any]:
        """The parameters of a request that name an object."""
        return {"Bucket": self.name, "Key": self.folder + key}

    @property
    def is_amazon(self) -> bool:
        return (urlsplit(self.client.meta.endpoint_url).hostname or "").endswith(_AMAZON)


def open_bucket(settings: S3) -> Bucket:
    name, folder = split_bucket(settings.bucket)
    with explained(name):
        session: Any = botocore.session.Session(profile=settings.profile)
        is_path_style = bool(settings.endpoint) and not name.startswith("arn:")
        config = _config(session.get_scoped_config(), is_path_style)
        client = session.create_client("s3", settings.region, endpoint_url=settings.endpoint, config=config)
    return Bucket(client, name, f"{folder}/" if folder else "", _encryption(settings))


def split_bucket(text: str) -> tuple[str, str]:
    """A bucket's name, or the ARN of an access point, and the folder behind it."""
    name, _, folder = text.partition("/")
    if match := _ACCESS_POINT.match(text):
        name, folder = match[0], text[match.end() :]
    return name, folder.strip("/")


def _config(user: Mapping[str, Any], is_path_style: bool) -> Config:
    """The client's settings, except those that the environment or ~/.aws/config has."""
    own: dict[str, Any] = {}
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        # The SHA-256 in the metadata covers the whole file; a second checksum of each part costs a third
        # of the throughput, and older servers refuse it.
        if name not in user and f"AWS_{name.upper()}" not in os.environ:
            own[name] = "when_required"
    s3: dict[str, Any] = {"payload_signing_enabled": False}
    of_user = user.get("s3")
    if is_path_style and not (isinstance(of_user, dict) and "addressing_style" in of_user):
        s3["addressing_style"] = "path"
    return Config(
        retries={"mode": "standard", "max_attempts": 6},
        max_pool_connections=AT_ONCE + 2,
        connect_timeout=10,
        read_timeout=60,
        s3=s3,
        **own,
    )


def _encryption(settings: S3) -> dict[str, str]:
    key = {"SSEKMSKeyId": settings.kms_key} if settings.kms_key else {}
    kind = settings.encryption or ("aws:kms" if key else None)
    return {"ServerSideEncryption": kind, **key} if kind else {}


@contextmanager
def explained(bucket: str) -> Iterator[None]:
    """Turn the library's errors into one line each."""
    try:
        yield
    except ClientError as error:
        if code(error) == "500" and error.operation_name != "HeadObject":  # S3's own 500 has a text
            raise protocol_error() from None
        meaning = _MEANINGS.get(code(error), "").format(bucket=bucket, reason=_reason(error))
        raise SkelebotError(meaning or f"the store refused: {_line(error)}") from None
    except NoCredentialsError as error:
        hint = "log in to AWS, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or fix `profile`"
        raise SkelebotError(f"the store cannot be used: {_line(error)}; {hint}") from None
    except ParamValidationError:  # whose text is the rule for names, at length
        raise SkelebotError(
            f"the store cannot be used: {bucket!r} cannot be a bucket's name, nor an access point's ARN; "
            "fix `bucket`"
        ) from None
    except MissingDependencyException:  # for the signature of an access point in several regions
        raise SkelebotError(
            f"the store cannot be used: {bucket} needs another library; run `pip install 'botocore[crt]'`"
        ) from None
    except ResponseParserError:
        raise protocol_error() from None
    except ProxyConnectionError as error:
        is_socks = "://socks" in str(error)
        problem = "S3 cannot be reached through a SOCKS proxy" if is_socks else _line(error)
        hint = "fix HTTPS_PROXY or HTTP_PROXY, or add the host to NO_PROXY"
        raise SkelebotError(f"the store cannot be used: {problem}; {hint}") from None
    except (BotoCoreError, ValueError) as error:  # the latter for a malformed endpoint
        hint = "check the network, `region`, `profile` and `endpoint`"
        raise SkelebotError(f"the store cannot be used: {_line(error)}; {hint}") from None


def protocol_error() -> SkelebotError:
    return SkelebotError("the store does not answer as S3 does; check `endpoint`")


def _reason(error: ClientError) -> str:
    """The server's own sentence, unless it says no more than the code."""
    message = " ".join(str(error.response.get("Error", {}).get("Message", "")).split()).rstrip(".")
    return "" if message.lower() in ("", "access denied", "forbidden") else f": {message}"


def code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_repeated(error: ClientError) -> bool:
    """Whether the library had sent the request before, and the first answer may have been lost."""
    return bool(error.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
