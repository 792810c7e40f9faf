"""A repository of JFrog Artifactory as a store.

https://jfrog.com/help/r/jfrog-rest-apis/artifacts-storage
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from skelebot.components.repository.credentials import Credentials
from skelebot.components.repository.store import BLOCK, AlreadyThere, Progress, Pushed, Source, Stored
from skelebot.errors import SkelebotError

_CONNECTS, _ANSWERS = 10, 60  # seconds to connect, and between two pieces of an answer
_STORES = 10 << 20  # bytes a second: how slowly a server may store what it has received, before it answers
_LARGE = 16 << 20  # bytes that are neither read twice nor sent twice where that can be helped
_TRIES = 5
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def base_url(url: str, insecure: bool) -> str:
    """The address of the REST API. Raises SkelebotError where credentials would go over plain http."""
    full = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(full)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known or "@" in parts.netloc:  # which is not shown, as it may hold a password
        raise SkelebotError("the url of Artifactory is not one such as https://company.jfrog.io; mend `url`")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not insecure:
        raise SkelebotError(
            f"{url} is http, over which anyone could read the credentials; use https, or set insecure: true"
        )
    # Without a path, the one at which Artifactory is installed.
    return full.rstrip("/") if parts.path.strip("/") else f"{full.rstrip('/')}/artifactory"


class ArtifactoryStore:
    def __init__(self, url: str, repo: str, path: str, kind: str, credentials: Credentials) -> None:
        self._base, self._host = url, urlsplit(url).netloc
        self._place = "/".join(quote(p) for p in (repo, path.strip("/")) if p)
        self._headers = credentials.headers(kind)
        self._session = requests.Session()
        self._session.trust_env = True
        self._session.auth = _no_netrc
        # What a proxy packs on the way can be neither measured nor resumed.
        self._session.headers["Accept-Encoding"] = "identity"

    # --- requests ---

    def _ask(self, method: str, url: str, **options: Any) -> requests.Response:
        return self._again(lambda: self._once(method, url, **options))

    def _again(self, ask: Callable[[], requests.Response]) -> requests.Response:
        """An answer below 400, or 404; tried again while the server or the network fails.

        Raises SkelebotError.
        """
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            try:
                answer = ask()
            except requests.RequestException as error:
                if last or isinstance(error, requests.exceptions.SSLError):
                    raise SkelebotError(
                        f"{self._host} cannot be reached: {_short(error)}; check the network and `url`"
                    ) from None
            else:
                if last or (answer.status_code < 500 and answer.status_code != 429):
                    return self._checked(answer)
                answer.close()
            time.sleep(min(0.2 * 2**attempt, 5))
        raise AssertionError("the last try returns or raises")

    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        answers: float = _ANSWERS,
        **options: Any,
    ) -> requests.Response:
        """One request, redirects followed; to another host the credentials do not go along."""
        for _ in range(5):
            options["headers"] = {**(headers or {}), **(self._headers if self._is_home(url) else {})}
            options |= {"timeout": (_CONNECTS, answers), "proxies": _proxies(url)}
            try:
                answer = self._session.request(method, url, allow_redirects=False, **options)
                if not answer.is_redirect or method == "PUT":
                    return answer
                url = requests.compat.urljoin(url, answer.headers["Location"])
            except ValueError:  # which the library lets out
                raise requests.exceptions.InvalidURL("it redirects to what is no address") from None
            answer.close()
        raise requests.TooManyRedirects("too many redirects")

    def _is_home(self, url: str) -> bool:
        """Whether an address is the configured server's, and no less private."""
        parts, base = urlsplit(url), urlsplit(self._base)
        return parts.netloc == base.netloc and parts.scheme in (base.scheme, "https")

    def _checked(self, answer: requests.Response) -> requests.Response:
        code = answer.status_code
        if code < 300 or code in (404, 416):
            return answer
        text = {
            401: f"{self._host} does not take these credentials; check user, token and authType",
            403: f"{self._host} does not allow this; ask for the rights to read and deploy",
            409: f"{self._host} refuses the artifact: {_said(answer)}",
        }.get(code, f"{self._host} answered {code}: {_said(answer)}")
        answer.close()
        raise SkelebotError(text)

    def _url(self, key: str, api: str = "") -> str:
        return f"{self._base}/{api}{self._place}/{quote(key)}"

    # --- what there is ---

    def check(self) -> None:
        repo = self._place.partition("/")[0]
        with self._ask("GET", f"{self._base}/api/storage/{repo}") as answer:
            if answer.status_code == 404:
                raise SkelebotError(f"there is no repository {repo} on {self._host}; mend `repo`")

    def list(self, prefix: str) -> Iterator[Stored]:
        folder, _, _ = prefix.rpartition("/")
        url = self._url(folder, "api/storage/").rstrip("/") + "?list&deep=0&listFolders=0"
        with self._ask("GET", url) as answer:
            if answer.status_code == 404:
                self.check()
                return
            try:
                files = [_listed(folder, found) for found in answer.json().get("files", [])]
            except (ValueError, AttributeError, KeyError, TypeError):
                raise self._stranger() from None
        yield from (stored for stored in files if stored.key.startswith(prefix))

    def head(self, key: str) -> Stored | None:
        with self._ask("HEAD", self._url(key)) as answer:
            if answer.status_code == 404:
                self.check()  # it may be the repository that is missing
                return None
            told = answer.headers
            size = told.get("Content-Length", "")
            if not size.isdecimal() or not any(name.lower().startswith("x-checksum-") for name in told):
                raise self._stranger()  # a log-in page, say, which must not be taken for a model
            tag = told.get("X-Checksum-Sha256") or told.get("ETag") or ""
            modified = _utc(told.get("Last-Modified", ""))
            return Stored(key, int(size), modified, told.get("X-Checksum-Sha256"), tag)

    def _stranger(self) -> SkelebotError:
        return SkelebotError(f"{self._host} does not answer as Artifactory does; check `url`")

    # --- push ---

    def push(self, key: str, source: Source, force: bool, progress: Progress) -> Pushed:
        """There is no call that creates only what is not there: it is looked up just before."""
        if not force and self.head(key):
            raise AlreadyThere(key)
        # A large file that is new is not read twice: its checksum is taken on its way, and compared after.
        sha256 = source.sha256 if force or source.size <= _LARGE else None
        if sha256 and self._has(key, sha256):
            progress(source.size)
            return Pushed(sha256, 0)
        with open(source.path, "rb") as file:
            body = _Body(file, source, progress)
            with self._again(lambda: self._deploy(key, source, sha256, body)) as answer:
                if answer.status_code == 404:
                    self.check()
                    raise SkelebotError(f"{self._host} has no place for {key}; mend `path`")
                arrived = _sum_of(answer)
        if not sha256:
            self._compare(key, source, body.sha256(), arrived)
        return Pushed(body.sha256(), source.size)

    def _has(self, key: str, sha256: str) -> bool:
        """Whether the server had that content, under whatever name, and has stored it under this one too."""
        with self._again(lambda: self._by_sum(key, sha256)) as answer:
            return answer.status_code != 404

    def _by_sum(self, key: str, sha256: str) -> requests.Response:
        headers = {"X-Checksum-Sha256": sha256, "X-Checksum-Deploy": "true"}
        return self._once("PUT", self._url(key), headers)

    def _deploy(self, key: str, source: Source, sha256: str | None, body: "_Body") -> requests.Response:
        if body.tell() == source.size > _LARGE:  # all had gone, and just the answer was lost
            answer = self._by_sum(key, body.sha256())
            if answer.status_code != 404:
                return answer
            answer.close()
        body.again()
        headers = {"X-Checksum-Sha256": sha256} if sha256 else {}
        return self._once("PUT", self._url(key), headers, _ANSWERS + source.size / _STORES, data=body)

    def _compare(self, key: str, source: Source, sent: str, arrived: str | None) -> None:
        """Has the server note the checksum of a file that has arrived.

        What is not the file is removed. Raises SkelebotError then.
        """
        try:
            source.check()
            if arrived not in (sent, None):
                raise SkelebotError(f"{key} arrived damaged at {self._host}; push it again")
        except SkelebotError:
            with suppress(SkelebotError):
                there = self.head(key)
                if there and there.sha256 == (arrived or sent):  # else another has pushed meanwhile
                    self._ask("DELETE", self._url(key)).close()
            raise
        with suppress(SkelebotError):  # not all who may deploy may do so where something is
            self._has(key, sent)

    # --- pull ---

    def pull(self, stored: Stored, part: str, progress: Progress, arrived: Progress) -> int:
        sent, said, fruitless = 0, "", 0
        have = _size(part)
        progress(min(have, stored.size))
        arrived(have)

        def tell(count: int) -> None:
            progress(count)
            arrived(count)

        while fruitless < _TRIES:
            try:
                self._pull_from(stored, part, have, BLOCK >> 4 * fruitless, tell)
            except requests.RequestException as error:
                said = f" ({_short(error)})"
            now = _size(part)
            sent += max(0, now - have)
            if now >= stored.size:
                return sent
            fruitless = 0 if now > have else fruitless + 1  # a server that drops connections still serves
            have = now
            time.sleep(0.1 * 2**fruitless)
        raise SkelebotError(f"{stored.key} arrived cut off{said}; run again to go on where it stopped")

    def _pull_from(self, stored: Stored, part: str, have: int, piece: int, tell: Progress) -> None:
        """Brings what is missing, `piece` bytes at a time; of one that is cut off the library keeps none."""
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._ask("GET", self._url(stored.key), headers=headers, stream=True) as answer:
            if answer.status_code == 404:
                raise SkelebotError(f"{stored.key} is not in the store any more")
            if answer.status_code == 416:
                return
            # A server that does not know ranges answers with the whole.
            with open(part, "ab" if answer.status_code == 206 else "wb") as file:
                for block in answer.iter_content(piece):
                    file.write(block)
                    file.flush()
                    tell(len(block))


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps the library from adding credentials of its own from ~/.netrc."""
    return request


def _proxies(url: str) -> dict[str, str] | None:
    """What goes to this machine goes past any proxy, which would read the credentials."""
    return {"no_proxy": ",".join(_LOOPBACK)} if urlsplit(url).hostname in _LOOPBACK else None


def _listed(folder: str, found: dict[str, Any]) -> Stored:
    key = (f"{folder}/" if folder else "") + found["uri"].lstrip("/")
    return Stored(
        key, int(found["size"]), _utc(str(found.get("lastModified", ""))), found.get("sha2") or None
    )


def _utc(told: str) -> str:
    """A time of a header or of a listing as ISO 8601 in UTC; one that is neither stays as it is."""
    with suppress(ValueError, TypeError):
        is_iso = told[:4].isdigit()
        then = datetime.fromisoformat(told.replace("Z", "+00:00")) if is_iso else parsedate_to_datetime(told)
        return then.astimezone(timezone.utc).isoformat(timespec="seconds")
    return told


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


class _Body:
    """A file on its way out, that can be sent again, and whose checksum is taken as it goes."""

    def __init__(self, file: Any, source: Source, progress: Progress) -> None:
        self._file, self._source, self._progress, self._told = file, source, progress, 0
        self._digest = hashlib.sha256()

    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __len__(self) -> int:
        return self._source.size

    def read(self, size: int = -1) -> bytes:
        # The library asks for pieces of 16 KiB, which are too small to be fast.
        block: bytes = self._file.read(max(size, BLOCK) if size and size > 0 else size)
        if not block and self._file.tell() < self._source.size:
            raise self._source.changed()  # the server would wait for the rest
        self._digest.update(block)
        new = max(0, self._file.tell() - self._told)
        self._told += new
        self._progress(new)
        return block

    def again(self) -> None:
        """Begins anew."""
        self._file.seek(0)
        self._digest = hashlib.sha256()

    def tell(self) -> int:
        return int(self._file.tell())


def _sum_of(answer: requests.Response) -> str | None:
    """The SHA-256 of what a deploy has stored, where the server tells it."""
    try:
        return str(answer.json()["checksums"]["sha256"])
    except (ValueError, KeyError, TypeError):
        return None


def _short(error: Exception) -> str:
    """The innermost reason of the library's long tales."""
    inner: Any = error
    while getattr(inner, "args", None) and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    return str(getattr(inner, "reason", None) or inner).splitlines()[0][:200]


def _said(answer: requests.Response) -> str:
    try:
        return str(answer.json()["errors"][0]["message"])[:200]
    except (ValueError, KeyError, IndexError, TypeError):
        return answer.reason or "no reason given"
