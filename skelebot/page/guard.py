"""Who may see the page: whoever knows its address, on this machine, and nobody through another site."""

import hmac
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


class Refusal(NamedTuple):
    """Why a request gets no answer, with HTTP's status."""

    status: int
    text: str


def refusal(method: str, path: str, headers: Iterable[tuple[bytes, bytes]], token: str) -> Refusal | None:
    """Return why a request is refused; None if it is not.

    A page of another site can reach this server by a name of its own that leads here; its browser then
    sends that name as the host. The port may be another one, where ssh passes it on.
    """
    known: dict[str, list[str]] = {}
    for name, value in headers:
        known.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    hosts = known.get("host", [])
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        return Refusal(403, "this page is only for 127.0.0.1 and localhost")
    if any(origin != f"http://{hosts[0]}" for origin in known.get("origin", [])):
        return Refusal(403, "another site has asked for this page")
    if not _is_token(path, token):
        return Refusal(403, "the address is not complete; `skelebot ui` has printed it")
    if method not in ("GET", "HEAD"):
        return Refusal(405, "this page can only be read")
    return None


def _is_token(path: str, token: str) -> bool:
    """Tell whether a path begins with the token; the time does not tell how much of it is right."""
    first = path.removeprefix("/").partition("/")[0]
    return hmac.compare_digest(first.encode("utf-8", "surrogateescape"), token.encode("ascii"))


def guarded(app: App, token: str) -> App:
    """Return the application with its addresses below the token, for those who may see it."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        found = refusal(scope["method"], scope["path"], scope["headers"], token)
        if found:
            await _refuse(found, send)
            return
        inner = {**scope, "root_path": f"/{token}"}
        await app(inner, receive, _with_headers(send))

    return serve


def _with_headers(send: Send) -> Send:
    """Return what sends an answer with the headers that it does not set itself."""

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message["headers"]}
            added = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in own]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sent


async def _refuse(found: Refusal, send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await _with_headers(send)({"type": "http.response.start", "status": found.status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{found.text}\n".encode()})
