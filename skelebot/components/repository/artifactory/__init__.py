"""A repository of JFrog Artifactory as a store.

https://jfrog.com/help/r/jfrog-rest-apis/artifacts-storage
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import requests

from skelebot.components.repository.artifactory.http import Connection, base_url, json_of, root_cause
from skelebot.components.repository.artifactory.upload import Body
from skelebot.components.repository.credentials import Credentials
from skelebot.components.repository.settings import Artifactory
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
from skelebot.errors import SkelebotError

_ANSWER_SECONDS = 60
_STORE_RATE = 10 << 20  # bytes a second: the slowest that a server may store a file before it answers
_LARGE = 16 << 20  # bytes; larger files are neither read twice nor sent twice if that can be avoided
_TRIES = 5
_EXECUTABLE = "skelebot.executable"  # the property of a file that can be executed
_ORIGIN = "skelebot.{}"  # those that name the run of a file


_Report = Callable[[bytes, int], None]  # called with a block of a file, and where it ends


class ArtifactoryStore:
    def __init__(self, settings: Artifactory, credentials: Credentials) -> None:
        self._server = Connection(base_url(settings), credentials.headers(settings.auth.kind))
        self._repo = quote(settings.repo)
        self._folder = "/".join(quote(p) for p in (settings.repo, settings.path.strip("/")) if p)

    def _url(self, key: str, api: str = "") -> str:
        return f"{self._server.base}/{api}{self._folder}/{quote(key)}"

    # --- what there is ---

    def check(self) -> None:
        with self._server.request("GET", f"{self._server.base}/api/storage/{self._repo}") as answer:
            if answer.status_code == 404:
                raise SkelebotError(f"there is no repository {self._repo} on {self._server.host}; fix `repo`")

    def check_write(self) -> None:
        """Deploy by the checksum of random bytes, which the server does not have."""
        url = self._url("skelebot-check")
        with self._server.retried(lambda: self._request_by_sum(url, os.urandom(32).hex())):
            return

    def list(self, prefix: str) -> Iterator[Stored]:
        folder, _, start = prefix.rpartition("/")
        url = self._url(folder, "api/storage/").rstrip("/") + "?list&deep=0&listFolders=0"
        with self._server.request("GET", url) as answer:
            if answer.status_code == 404:
                self.check()
                return
            try:
                files = json_of(answer).get("files", [])
                objects = [_listed(folder, found) for found in files if _name(found).startswith(start)]
            except (ValueError, AttributeError, KeyError, TypeError):
                raise self._server.protocol_error() from None
        yield from objects

    def head(self, key: str) -> Stored | None:
        with self._server.request("HEAD", self._url(key)) as answer:
            if answer.status_code == 404:
                self.check()  # the repository may be missing
                return None
            headers = answer.headers
            size = headers.get("Content-Length", "")
            if not size.isdecimal() or not any(name.lower().startswith("x-checksum-") for name in headers):
                raise self._server.protocol_error()  # a log-in page, which must not be taken for a model
            sha256 = headers.get("X-Checksum-Sha256")
            modified = _utc(headers.get("Last-Modified", ""))
            return Stored(key, int(size), modified, sha256, sha256 or headers.get("ETag") or "")

    def is_executable(self, stored: Stored) -> bool:
        return self._properties_of(stored.key, _EXECUTABLE).get(_EXECUTABLE) == "true"

    def _properties_of(self, key: str, *names: str) -> dict[str, str]:
        url = self._url(key, "api/storage/") + f"?properties={','.join(names)}"
        with self._server.request("GET", url) as answer, suppress(ValueError, LookupError, TypeError):
            if answer.status_code == 200:
                return {name: str(values[0]) for name, values in json_of(answer)["properties"].items()}
        return {}

    def _properties(self, key: str, upload: Upload, force: bool) -> dict[str, str]:
        """Return what is stored with a file. Properties outlast a file that is replaced."""
        before = self._properties_of(key, _EXECUTABLE, _ORIGIN.format("run")) if force else {}
        found = {_ORIGIN.format(name): value for name, value in upload.origin}
        if upload.is_executable or before.get(_EXECUTABLE) == "true":
            found[_EXECUTABLE] = str(upload.is_executable).lower()
        if _ORIGIN.format("run") in before and not upload.origin:
            found |= {_ORIGIN.format(name): "none" for name in ORIGIN_NAMES}
        return found

    # --- push ---

    def push(self, key: str, upload: Upload, force: bool, on_bytes: OnBytes) -> Pushed:
        """Look the key up just before: no request creates only what does not exist."""
        if not force and self.head(key):
            raise AlreadyStored(key)
        # A large new file is not read twice: its checksum is computed on the way, and compared afterwards.
        sha256 = upload.sha256 if force or upload.size <= _LARGE else None
        url = self._url(key)
        properties = self._properties(key, upload, force)
        url += "".join(f";{name}={value}" for name, value in properties.items())
        if sha256 and self._deploy_by_sum(url, sha256):
            on_bytes(upload.size)
            return Pushed(sha256, 0)
        with open(upload.path, "rb", buffering=0) as file, Body(file, upload, on_bytes) as body:
            with self._server.retried(lambda: self._deploy(url, upload, sha256, body)) as answer:
                if answer.status_code == 404:
                    self.check()
                    raise SkelebotError(f"{self._server.host} has no place for {key}; fix `path`")
                arrived = _sum_in(answer)
            sent = sha256 or body.sha256()
        if not sha256:
            self._verify(key, url, upload, sent, arrived)
        return Pushed(sent, upload.size)

    def _deploy_by_sum(self, url: str, sha256: str) -> bool:
        """Whether the server has that content, under any name, and has now stored it under this one."""
        with self._server.retried(lambda: self._request_by_sum(url, sha256)) as answer:
            return answer.status_code != 404

    def _request_by_sum(self, url: str, sha256: str) -> requests.Response:
        headers = {"X-Checksum-Sha256": sha256, "X-Checksum-Deploy": "true"}
        return self._server.request_once("PUT", url, headers)

    def _deploy(self, url: str, upload: Upload, sha256: str | None, body: Body) -> requests.Response:
        if body.tell() == upload.size > _LARGE:  # all was sent, and only the answer was lost
            answer = self._request_by_sum(url, body.sha256())
            if answer.status_code != 404:
                return answer
            answer.close()
        body.rewind()
        headers = {"X-Checksum-Sha256": sha256} if sha256 else {}
        seconds = _ANSWER_SECONDS + upload.size / _STORE_RATE
        return self._server.request_once("PUT", url, headers, seconds, data=body)

    def _verify(self, key: str, url: str, upload: Upload, sent: str, arrived: str | None) -> None:
        """Have the server record the checksum of a file that has arrived.

        A damaged file is removed. Raises SkelebotError then.
        """
        try:
            upload.ensure_unchanged()
            if arrived not in (sent, None):
                raise SkelebotError(f"{key} arrived damaged at {self._server.host}; push it again")
        except SkelebotError:
            with suppress(SkelebotError):
                stored = self.head(key)
                if stored and stored.sha256 == (arrived or sent):  # otherwise another push has replaced it
                    self._server.request("DELETE", self._url(key)).close()
            raise
        with suppress(SkelebotError):  # the right to deploy need not include the right to overwrite
            self._deploy_by_sum(url, sent)

    # --- pull ---

    def pull(self, stored: Stored, part: str, on_bytes: OnBytes, on_prefix: OnPrefix) -> int:
        sent, cause, fruitless = 0, "", 0
        have = _size(part)
        on_bytes(min(have, stored.size))
        on_prefix(have)

        reported = have

        def report(block: bytes, end: int) -> None:
            nonlocal reported
            further = end - reported
            if further > 0:  # not if a server without ranges sends it again
                on_bytes(further)
                on_prefix(further)
                reported = end

        while fruitless < _TRIES:
            try:
                self._pull_from(stored, part, have, BLOCK >> 4 * fruitless, report)
            except requests.RequestException as error:
                cause = f" ({root_cause(error)})"
            now = _size(part)
            sent += max(0, now - have)
            if now >= stored.size:
                return sent
            fruitless = 0 if now > have else fruitless + 1  # a server that drops connections still serves
            have = now
            time.sleep(0.1 * 2**fruitless)
        raise SkelebotError(f"{stored.key} arrived incomplete{cause}; run again to resume")

    def _pull_from(self, stored: Stored, part: str, have: int, piece: int, report: _Report) -> None:
        """Download what is missing, `piece` bytes at a time: the library drops an incomplete piece."""
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._server.request("GET", self._url(stored.key), headers=headers, stream=True) as answer:
            if answer.status_code == 404:
                raise SkelebotError(f"{stored.key} is no longer in the store")
            if answer.status_code == 416:
                return
            # A server that does not support ranges answers with the whole file.
            with open(part, "ab" if answer.status_code == 206 else "wb") as file:
                for block in answer.iter_content(piece):
                    if file.tell() + len(block) > stored.size:
                        raise oversized(stored)
                    file.write(block)
                    file.flush()
                    report(block, file.tell())


def _name(item: dict[str, Any]) -> str:
    """Raises KeyError for a row that is not of Artifactory."""
    if "size" not in item:
        raise KeyError("size")
    return str(item["uri"]).lstrip("/")


def _listed(folder: str, item: dict[str, Any]) -> Stored:
    key = (f"{folder}/" if folder else "") + _name(item)
    modified = _utc(str(item.get("lastModified", "")))
    return Stored(key, int(item["size"]), modified, item.get("sha2") or None)


def _utc(time_text: str) -> str:
    """The time in a header or a listing as ISO 8601 in UTC; other text is returned unchanged."""
    with suppress(ValueError, TypeError):
        if time_text[:4].isdigit():
            then = datetime.fromisoformat(time_text.replace("Z", "+00:00"))
        else:
            then = parsedate_to_datetime(time_text)
        return then.astimezone(timezone.utc).isoformat(timespec="seconds")
    return time_text


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _sum_in(answer: requests.Response) -> str | None:
    """The SHA-256 of what was stored, if the server's answer has it."""
    try:
        return str(json_of(answer)["checksums"]["sha256"])
    except (ValueError, KeyError, TypeError):
        return None
