"""Requests to Artifactory: credentials, redirects, retries, and the meaning of refusals."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import InvalidHeader
from urllib3.util.retry import Retry

from skelebot.components.repository.settings import Artifactory
from skelebot.errors import SkelebotError

_CONNECT_SECONDS, _READ_SECONDS = 10, 60  # the latter between two pieces of an answer
_TRIES = 5
_LONGEST_WAIT = 120  # seconds that a server may ask a client to wait
_LONGEST_ANSWER, _LONGEST_REFUSAL = 256 << 20, 1 << 20  # bytes; a listing has 300 for each file
_SOCKS_HINT = "check the proxy; socks5h://HOST:PORT is one that also looks up names"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def base_url(settings: Artifactory) -> str:
    """The address of the REST API. Raises SkelebotError if credentials would go over plain http."""
    url = settings.url if "://" in settings.url else f"https://{settings.url}"
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or "@" in parts.netloc:  # not shown, as it may hold a password
        raise SkelebotError("Artifactory's url is not one such as https://company.jfrog.io; fix `url`")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not settings.insecure:
        raise SkelebotError(
            f"{settings.url} is http, over which anyone could read the credentials; "
            "use https, or set insecure: true"
        )
    # Without a path, the one at which Artifactory is installed.
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/artifactory"


class Connection:
    """Sends requests to one server. base: the address of its REST API. headers: the credentials."""

    def __init__(self, base: str, headers: Mapping[str, str]) -> None:
        self.base, self.host, self._headers = base, urlsplit(base).netloc, headers
        self._session = requests.Session()
        self._session.trust_env = True
        self._session.auth = _without_netrc
        self._session.hooks["response"].append(_cut_off)
        # What a proxy compresses on the way can be neither measured nor resumed.
        self._session.headers["Accept-Encoding"] = "identity"

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        return self.retried(lambda: self.request_once(method, url, **options))

    def retried(self, send: Callable[[], requests.Response]) -> requests.Response:
        """An answer below 300, a 404 or a 416; tried again while the server or the network fails.

        Raises SkelebotError.
        """
        retry = Retry(_TRIES - 1, backoff_factor=0.2, backoff_max=5)
        while True:
            wait = 0.0
            try:
                answer = send()
            except requests.RequestException as error:
                if not retry.total or isinstance(error, requests.exceptions.SSLError):
                    cause = root_cause(error)
                    hint = _SOCKS_HINT if "SOCKS" in cause else "check the network and `url`"
                    raise SkelebotError(f"{self.host} cannot be reached: {cause}; {hint}") from None
            else:
                wait = _retry_after(retry, answer)
                is_temporary = answer.status_code >= 500 or answer.status_code == 429
                if not retry.total or not is_temporary or wait > _LONGEST_WAIT:
                    return self._checked(answer)
                answer.close()
            retry = retry.increment(error=OSError())
            time.sleep(max(wait, retry.get_backoff_time()))

    def request_once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        read_seconds: float = _READ_SECONDS,
        **options: Any,
    ) -> requests.Response:
        """One request, redirects followed; credentials are not sent to another host."""
        for _ in range(5):
            options["headers"] = {**(headers or {}), **(self._headers if self._is_home(url) else {})}
            options |= {"timeout": (_CONNECT_SECONDS, read_seconds), "proxies": _proxies(url)}
            try:
                answer = self._session.request(method, url, allow_redirects=False, **options)
                if not answer.is_redirect or method == "PUT":
                    return answer
                url = urljoin(url, answer.headers["Location"])
            except ValueError as error:
                raise self._address_error(error) from None
            answer.close()
        raise requests.TooManyRedirects("too many redirects")

    def _address_error(self, error: ValueError) -> Exception:
        if "Missing dependencies for SOCKS" in str(error):
            hint = "run `pip install PySocks`, or set another proxy"
            return SkelebotError(f"{self.host} cannot be reached: its SOCKS proxy needs PySocks; {hint}")
        if "SOCKS version" in str(error):  # the text has the proxy's password
            return SkelebotError(
                f"{self.host} cannot be reached: its SOCKS proxy names no known version; {_SOCKS_HINT}"
            )
        if isinstance(error, requests.RequestException):  # about the proxy or `url`
            return error
        return requests.exceptions.InvalidURL("it redirects to an invalid address")

    def _is_home(self, url: str) -> bool:
        """Whether an address is the configured server's, and no less private."""
        parts, base = urlsplit(url), urlsplit(self.base)
        return parts.netloc == base.netloc and parts.scheme in (base.scheme, "https")

    def _checked(self, answer: requests.Response) -> requests.Response:
        code = answer.status_code
        if code < 300 or code in (404, 416):
            return answer
        text = {
            401: f"{self.host} does not accept these credentials; check user, token and authType",
            403: f"{self.host} does not allow this; ask for the rights to read and deploy",
            409: f"{self.host} refuses the artifact: {_server_message(answer)}",
        }.get(code, f"{self.host} answered {code}: {_server_message(answer)}")
        answer.close()
        raise SkelebotError(text)

    def protocol_error(self) -> SkelebotError:
        return SkelebotError(f"{self.host} does not answer as Artifactory does; check `url`")


class _Beginning:
    """The body of an answer up to `limit` bytes, as nothing keeps a server from sending without end."""

    def __init__(self, raw: Any, limit: int) -> None:
        self._raw, self._left = raw, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, size: int, decode_content: bool | None = None) -> Iterator[bytes]:
        for block in self._raw.stream(size, decode_content):
            yield block[: self._left]
            self._left -= len(block)
            if self._left <= 0:
                self._raw.close()  # the next request would get the rest
                return


def _cut_off(answer: requests.Response, stream: bool = False, **options: Any) -> None:
    """Limit an answer that is read at once, and any but a success."""
    if not answer.ok or answer.is_redirect:
        answer.raw = _Beginning(answer.raw, _LONGEST_REFUSAL)
    elif not stream:
        answer.raw = _Beginning(answer.raw, _LONGEST_ANSWER)


def _retry_after(retry: Retry, answer: requests.Response) -> float:
    """The seconds to wait by the server's Retry-After, which is a number or a date; 0 without one."""
    try:
        return retry.get_retry_after(answer.raw) or 0
    except InvalidHeader:
        return 0


def _without_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep the library from adding credentials from ~/.netrc."""
    return request


def _proxies(url: str) -> dict[str, str] | None:
    """Requests to this machine bypass any proxy, which would read the credentials."""
    return {"no_proxy": ",".join(_LOOPBACK)} if urlsplit(url).hostname in _LOOPBACK else None


def root_cause(error: Exception) -> str:
    """The innermost reason in the library's nested errors."""
    inner: Any = error
    while getattr(inner, "args", None) and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    return str(getattr(inner, "reason", None) or inner).splitlines()[0][:200]


def _server_message(answer: requests.Response) -> str:
    try:
        return str(json_of(answer)["errors"][0]["message"])[:200]
    except (ValueError, KeyError, IndexError, TypeError):
        return answer.reason or "no reason given"


def json_of(answer: requests.Response) -> Any:
    """Raises ValueError."""
    try:
        return answer.json()
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None
