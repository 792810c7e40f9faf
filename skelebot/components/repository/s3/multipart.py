"""Push a large file in parts, resuming an upload that was interrupted.

The server knows the parts that it has:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from skelebot.components.repository.parts import Cancelled, Part, Slice, in_parallel, parts_of, range_md5
from skelebot.components.repository.s3.client import Bucket
from skelebot.components.repository.store import OnBytes, Upload


class Multipart:
    """An upload in parts: a new one, or an interrupted one of this very content.

    tags: of the parts that the server has, by their numbers. request: what names the upload.
    """

    def __init__(self, bucket: Bucket, key: str, upload: Upload) -> None:
        self._bucket, self._client, self._upload = bucket, bucket.client, upload
        self._others = _unfinished(self._client, bucket.at(key))
        self.request, self.tags = _resume_or_create(bucket, bucket.at(key), self._others, upload)

    def send(self, on_bytes: OnBytes) -> int:
        """Send the parts that the server does not have, and return their bytes."""
        parts = parts_of(self._upload.size)
        missing = [part for part in parts if part.number not in self.tags]
        on_bytes(sum(part.size for part in parts if part.number in self.tags))

        def send(part: Part, stop: threading.Event) -> None:
            with open(self._upload.path, "rb") as file:
                body = Slice(file, part, on_bytes, stop)
                request = self.request | {"PartNumber": part.number, "ContentLength": part.size}

                def put(**checksum: str) -> Any:
                    body.seek(0)
                    return self._client.upload_part(**request, Body=body, **checksum)

                answer = self._bucket.with_md5(put, lambda: range_md5(self._upload.path, part))
            self.tags[part.number] = answer["ETag"]

        try:
            in_parallel(send, missing, lambda: None)
        except Cancelled:
            raise self._upload.change_error() from None
        self._upload.ensure_unchanged()
        return sum(part.size for part in missing)

    def complete(self, **condition: str) -> None:
        """Turn the parts into an object."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(self.tags.items())]
        self._client.complete_multipart_upload(**self.request, MultipartUpload={"Parts": parts}, **condition)

    def abort(self) -> None:
        self._abort(self.request["UploadId"])

    def abort_others(self) -> None:
        """Drop interrupted uploads of other content, which would be stored, and paid for, for ever."""
        for upload_id in self._others:
            if upload_id != self.request["UploadId"]:
                self._abort(upload_id)

    def _abort(self, upload_id: str) -> None:
        with suppress(ClientError, BotoCoreError):
            self._client.abort_multipart_upload(**(self.request | {"UploadId": upload_id}))


def _unfinished(client: Any, at: dict[str, Any]) -> tuple[str, ...]:
    """The ids of a key's uploads that have not ended, the latest first; none without the right to ask."""
    try:
        listed = client.list_multipart_uploads(Bucket=at["Bucket"], Prefix=at["Key"])
    except ClientError:
        return ()
    uploads = [upload for upload in listed.get("Uploads", ()) if upload["Key"] == at["Key"]]
    return tuple(u["UploadId"] for u in sorted(uploads, key=lambda u: u["Initiated"], reverse=True))


def _resume_or_create(
    bucket: Bucket, at: dict[str, Any], unfinished: Sequence[str], upload: Upload
) -> tuple[dict[str, Any], dict[int, str]]:
    """The request of an upload, and the tags of its parts."""
    for upload_id in unfinished if not upload.origin else ():  # that may be another one's
        with suppress(ClientError):  # it may have been completed or aborted meanwhile
            request = at | {"UploadId": upload_id}
            tags = _matching_parts(bucket.client, request, upload)
            if tags:
                return request, tags
    created = bucket.client.create_multipart_upload(**at, Metadata=metadata(upload), **bucket.options)
    return at | {"UploadId": created["UploadId"]}, {}


def _matching_parts(client: Any, request: dict[str, Any], upload: Upload) -> dict[int, str]:
    """The tags of an upload's parts; none unless each has the checksum of the file's range."""
    expected = {part.number: part for part in parts_of(upload.size)}
    tags: dict[int, str] = {}
    for page in client.get_paginator("list_parts").paginate(**request):
        for found in page.get("Parts", ()):
            part = expected.get(found["PartNumber"])
            if part is None or found["Size"] != part.size:
                return {}
            if found["ETag"].strip('"') != range_md5(upload.path, part):
                return {}
            tags[part.number] = found["ETag"]
    return tags


def metadata(upload: Upload) -> dict[str, str]:
    """What is stored with an object."""
    executable = {"executable": "true"} if upload.is_executable else {}
    return {"sha256": upload.sha256} | executable | dict(upload.origin)
