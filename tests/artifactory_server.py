"""A small Artifactory for the tests and the benchmarks, after its public REST documentation.

https://jfrog.com/help/r/jfrog-rest-apis/artifacts-storage

Files lie on disk below `folder/REPOSITORY/`. What goes wrong with it is set on the server: see `Faults`.
Run as a program it serves a folder until it is ended: python artifactory_server.py FOLDER [PORT] [fast]
"""

import base64
import hashlib
import json
import os
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

USER, PASSWORD = "ada", "lovelace-1815"
TOKEN, EXPIRED, API_KEY = "token-eyJ2ZXIiOiIyIn0", "expired-eyJ2ZXIiOiIxIn0", "AKCp8-key"
READER = "reader"  # a user with the same password, who may not deploy
REPO = "models-local"

_BLOCK = 1 << 20
_BASE = "/artifactory/"
_FAST_RATE = 1_000_000_000  # bytes a second


@dataclass
class Faults:
    """What the server does wrong. Counts go down as the faults happen."""

    failing: int = 0  # so many requests are answered with `code`
    code: int = 503
    retry_after: str = ""  # with this header
    drop_every: int = 0  # of the requests, each n-th has its connection cut, a body in its middle
    cuts: list[int] = field(default_factory=list)  # the next bodies end after so many bytes
    lost: int = 0  # so many deploys are done, and not answered
    hold_after: int | None = None  # the next body waits there for `release`
    corrupt: bool = False  # a byte of each body is another one
    damage: bool = False  # a byte of each body that is deployed is another one
    redirect: str = ""  # files are to be had from this server
    page: bytes = b""  # everything is answered with it
    anonymous: bool = False  # whoever asks may read
    length: str = ""  # this is said of how long a file is
    no_ranges: bool = False
    further: int = 0  # a body has so many bytes more than a HEAD announces
    endless: str = ""  # GETs of paths with this text are answered with `code`, and bytes without end
    gzips: bool = False  # as a proxy does for those who take it


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    private: bool  # over TLS
    when: float = 0  # by time.monotonic()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, port: int = 0, host: str = "127.0.0.1", certificate: str = "") -> None:
        super().__init__((host, port), _Handler)
        self.folder, self.faults, self.requests = folder, Faults(), list[Request]()
        self.sent = self.received = 0  # bytes of files
        self.held, self.release = threading.Event(), threading.Event()
        self.lock, self.sums = threading.Lock(), dict[str, dict[str, str]]()
        # It transfers 1 GB/s: takes no checksums of what it gets, and leaves sending to the kernel.
        self.is_fast = False
        self.properties = dict[str, dict[str, list[str]]]()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self.tls:
            self.tls.load_cert_chain(certificate)
        (folder / REPO).mkdir(parents=True, exist_ok=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str) -> list[Request]:
        with self.lock:
            return [request for request in self.requests if request.method == method]

    def forget(self) -> None:
        with self.lock:
            self.requests.clear()
            self.sent = self.received = 0

    def sums_of(self, path: Path) -> dict[str, str]:
        """The checksums of a file, also of one that was put there by other means."""
        with self.lock:
            known = self.sums.get(str(path))
        if known is None:
            sums = Sums()
            with open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    sums.update(block)
            known = sums.hex()
            with self.lock:
                self.sums[str(path)] = known
        return known

    def finish_request(self, request: Any, client_address: Any) -> None:
        # With a certificate, TLS and plain HTTP at one port, told apart by the first byte.
        if self.tls and request.recv(1, socket.MSG_PEEK) == b"\x16":
            with suppress(OSError), self.tls.wrap_socket(request, server_side=True) as private:
                super().finish_request(private, client_address)
        else:
            super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are a part of the tests."""


class Sums:
    """The three checksums that Artifactory takes of all that it gets."""

    def __init__(self) -> None:
        self._digests = {name: hashlib.new(name, usedforsecurity=False) for name in ("md5", "sha1", "sha256")}

    def update(self, block: bytes | memoryview) -> None:
        for digest in self._digests.values():
            digest.update(block)

    def hex(self) -> dict[str, str]:
        return {name: digest.hexdigest() for name, digest in self._digests.items()}


class Pace:
    """Keeps a fast server at its rate, so that it is the same on every machine."""

    def __init__(self) -> None:
        self._next = time.monotonic()

    def wait(self, count: int) -> None:
        self._next += count / _FAST_RATE
        time.sleep(max(0, self._next - time.monotonic()))


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Server]:
    with Server(folder, **options) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()


class _Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message


class _Cut(Exception):
    """The connection is to end here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    # --- every request ---

    def _answer(self, act: Any) -> None:
        self._unread = int(self.headers.get("Content-Length") or 0)
        self._private = isinstance(self.connection, ssl.SSLSocket)
        with self.server.lock:
            headers, when = dict(self.headers.items()), time.monotonic()
            noted = Request(self.command, self.path, headers, self._private, when)
            self.server.requests.append(noted)
            count = len(self.server.requests)
        faults = self.server.faults
        self._cut_body = bool(faults.drop_every and count % faults.drop_every == 0)
        try:
            self._fail_if_told()
            act(unquote(urlsplit(self.path).path.partition(";")[0]))
        except _Refused as refused:
            self._discard()
            error = {"status": refused.code, "message": refused.message}
            self._say(refused.code, {"errors": [error]})
        except _Cut:
            self._hang_up()

    def _fail_if_told(self) -> None:
        faults = self.server.faults
        if faults.failing > 0:
            faults.failing -= 1
            raise _Refused(faults.code, "the server is not itself")
        if self._cut_body and (self.command != "GET" or "/api/" in self.path):
            raise _Cut
        if faults.endless and self.command == "GET" and faults.endless in self.path:
            self._start(faults.code, {"Connection": "close", "Location": self.path.partition("?")[0]})
            with suppress(OSError):
                while True:
                    self.connection.sendall(bytes(_BLOCK))
                    self.server.sent += _BLOCK
            raise _Cut
        if faults.page:
            self._discard()
            self._start(200, {"Content-Type": "text/html", "Content-Length": str(len(faults.page))})
            self._send(faults.page)
            raise _Refused(0, "")

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _discard(self) -> None:
        while self._unread:
            block = self.rfile.read(min(self._unread, _BLOCK))
            if not block:
                break
            self._unread -= len(block)

    def _start(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, data: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(data)

    def _say(self, code: int, answer: object) -> None:
        if code == 0:  # it is said already
            return
        data = json.dumps(answer, indent=2).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        if code == self.server.faults.code and self.server.faults.retry_after:
            headers["Retry-After"] = self.server.faults.retry_after
        self._start(code, headers)
        self._send(data)

    # --- who asks ---

    def _authenticate(self, deploys: bool) -> None:
        if self.server.faults.anonymous and not deploys:
            return
        given, key = self.headers.get("Authorization", ""), self.headers.get("X-JFrog-Art-Api")
        kind, _, value = given.partition(" ")
        if not given and key is None:
            raise _Refused(401, "Authentication is required")
        if kind == "Bearer" and value == EXPIRED:
            raise _Refused(401, "Token failed verification: expired")
        name, _, password = (
            base64.b64decode(value).decode().partition(":") if kind == "Basic" else ("", "", "")
        )
        known = (kind == "Bearer" and value == TOKEN) or (not given and key == API_KEY)
        if not known and not (name in (USER, READER) and password == PASSWORD):
            raise _Refused(401, "Bad credentials")
        if deploys and name == READER:
            raise _Refused(403, "Not enough permissions to overwrite or deploy")

    def _place(self, path: str) -> Path:
        """Where a path of the server lies on disk."""
        words = [word for word in path.split("/") if word]
        if ".." in words:
            raise _Refused(400, "Bad path")
        if not words or not (self.server.folder / words[0]).is_dir():
            raise _Refused(404, f"Repository {words[:1]} is not there")
        return self.server.folder.joinpath(*words)

    # --- reading ---

    def _get(self, path: str) -> None:
        if not path.startswith(_BASE):
            raise _Refused(404, "Not Found")
        is_first = self._private or not self.server.tls
        if self.server.faults.redirect and is_first and "/api/" not in path and self.command == "GET":
            target = self.server.faults.redirect + self.path
            self._start(302, {"Location": target, "Content-Length": "0"})
            return
        self._authenticate(deploys=False)
        if path.startswith(_BASE + "api/storage/"):
            self._storage(path[len(_BASE + "api/storage") :])
            return
        place = self._place(path[len(_BASE) :])
        if not place.is_file():
            raise _Refused(404, "File not found.")
        self._file(place)

    def _storage(self, path: str) -> None:
        place = self._place(path)
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        words = path.strip("/").split("/")
        about: dict[str, Any] = {"repo": words[0], "path": "/" + "/".join(words[1:])}
        about["uri"] = f"{self.server.url}{self.path}"
        if "properties" in query:
            known = self.server.properties.get(str(place), {})
            if not known.keys() & set(",".join(query["properties"]).split(",")):
                raise _Refused(404, "No properties could be found.")
            self._say(200, {"uri": about["uri"], "properties": known})
        elif "list" in query:
            if not place.is_dir():
                raise _Refused(404, "Unable to find item")
            files = sorted(place.rglob("*") if query.get("deep") == ["1"] else place.iterdir())
            kept = [f for f in files if f.is_file() or query.get("listFolders") == ["1"]]
            self._say(200, about | {"created": _iso(place), "files": [self._listed(f, place) for f in kept]})
        elif place.is_dir():
            children = [{"uri": f"/{f.name}", "folder": f.is_dir()} for f in sorted(place.iterdir())]
            self._say(200, about | {"created": _iso(place), "children": children})
        elif place.is_file():
            sums = self.server.sums_of(place)
            self._say(200, about | {"size": str(place.stat().st_size), "checksums": sums})
        else:
            raise _Refused(404, "Unable to find item")

    def _listed(self, file: Path, folder: Path) -> dict[str, Any]:
        size = file.stat().st_size if file.is_file() else -1
        uri = f"/{file.relative_to(folder)}"
        row = {"uri": uri, "size": str(size), "lastModified": _iso(file), "folder": str(size < 0).lower()}
        return row | ({"sha2": self.server.sums_of(file)["sha256"]} if size >= 0 else {})

    def _file(self, file: Path) -> None:
        whole, sums = file.stat().st_size, self.server.sums_of(file)
        headers = {
            **{f"X-Checksum-{name.capitalize()}": value for name, value in sums.items()},
            "ETag": sums["sha1"],
            "Accept-Ranges": "bytes",
            "Last-Modified": formatdate(file.stat().st_mtime, usegmt=True),
            "Content-Type": "application/octet-stream",
        }
        if self.server.faults.gzips and "gzip" in self.headers.get("Accept-Encoding", ""):
            # The length is not known then.
            self._start(200, {**headers, "Content-Encoding": "gzip", "Transfer-Encoding": "chunked"})
            return
        start = self._range_start(whole)
        partly = {"Content-Range": f"bytes {start}-{whole - 1}/{whole}"} if start else {}
        further = self.server.faults.further if self.command == "GET" else 0
        length = {"Content-Length": self.server.faults.length or str(whole - start + further)}
        self._start(206 if start else 200, {**headers, **partly, **length})
        if self.command == "GET":
            self._stream(file, start, whole)
            with suppress(OSError):
                for _ in range(0, further, _BLOCK):
                    self.connection.sendall(bytes(min(_BLOCK, further)))
                    self.server.sent += _BLOCK

    def _range_start(self, whole: int) -> int:
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes=") or self.server.faults.no_ranges:
            return 0
        start = int(asked[6:].partition("-")[0])
        if start >= whole:
            raise _Refused(416, "Requested Range Not Satisfiable")
        return start

    def _stream(self, file: Path, start: int, whole: int) -> None:
        faults, end, wait_at = self.server.faults, whole, None
        if self._cut_body:
            end = (start + whole) // 2
        elif faults.cuts:
            end = min(whole, start + faults.cuts.pop(0))
        if faults.hold_after is not None:
            wait_at, faults.hold_after = start + faults.hold_after, None
            self._pieces(file, start, wait_at)
            self.server.held.set()
            self.server.release.wait(120)
            start = wait_at
        self._pieces(file, start, end)
        if end < whole:
            raise _Cut

    def _pieces(self, file: Path, start: int, end: int) -> None:
        with open(file, "rb") as source:
            if self.server.is_fast:
                self.wfile.flush()
                pace = Pace()
                while start < end:
                    size = min(_BLOCK, end - start)
                    count = os.sendfile(self.connection.fileno(), source.fileno(), start, size)
                    pace.wait(count)
                    start += count
            source.seek(start)
            while start < end:
                block = source.read(min(_BLOCK, end - start))
                if self.server.faults.corrupt:
                    block = bytes([block[0] ^ 1]) + block[1:]
                self.connection.sendall(block)
                start += len(block)
                with self.server.lock:
                    self.server.sent += len(block)

    # --- writing ---

    def _put(self, path: str) -> None:
        self._authenticate(deploys=True)
        place = self._place(path[len(_BASE) :])
        if place.is_dir():
            raise _Refused(409, "A folder is in the way")
        told = self.headers.get("X-Checksum-Sha256", "")
        if self.headers.get("X-Checksum-Deploy", "").lower() == "true":
            self._deploy_by_checksum(place, told)
        else:
            self._deploy(place, told)
            if self.server.faults.lost > 0:
                self.server.faults.lost -= 1
                raise _Cut
        self.server.properties[str(place)] = parse_qs(
            urlsplit(self.path).path.partition(";")[2], separator=";"
        )
        size, sums = place.stat().st_size, {} if self.server.is_fast else self.server.sums_of(place)
        made = {"path": f"/{place.name}", "size": str(size), "checksums": sums}
        self._say(201, made | {"created": _iso(place), "downloadUri": f"{self.server.url}{path}"})

    def _deploy_by_checksum(self, place: Path, told: str) -> None:
        with self.server.lock:
            have = [Path(p) for p, known in self.server.sums.items() if known["sha256"] == told]
        source = next((p for p in have if p.is_file()), None)
        if source is None:
            raise _Refused(404, f"No artifact has the checksum {told}")
        if source != place:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        with self.server.lock:
            self.server.sums[str(place)] = self.server.sums[str(source)]

    def _deploy(self, place: Path, told: str) -> None:
        fresh = self.server.folder / f".{threading.get_ident()}.part"
        sums, buffer, pace = Sums(), memoryview(bytearray(_BLOCK)), Pace()
        try:
            with open(fresh, "wb") as file:
                while self._unread:
                    count = self.rfile.readinto(buffer[: min(self._unread, _BLOCK)])
                    if not count:
                        raise _Cut
                    self._unread -= count
                    if self.server.faults.damage:
                        buffer[0] ^= 1
                    file.write(buffer[:count])
                    if self.server.is_fast:
                        pace.wait(count)
                    else:
                        sums.update(buffer[:count])
                    with self.server.lock:
                        self.server.received += count
            got = sums.hex()["sha256"]
            if told and told != got and not self.server.is_fast:
                raise _Refused(409, f"Checksum error: received {got} but expected {told}")
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh, place)
        finally:
            fresh.unlink(missing_ok=True)
        with self.server.lock:
            self.server.sums.pop(str(place), None)
            if not self.server.is_fast:
                self.server.sums[str(place)] = sums.hex()

    def _delete(self, path: str) -> None:
        self._authenticate(deploys=True)
        place = self._place(path[len(_BASE) :])
        if not place.is_file():
            raise _Refused(404, "Could not locate artifact")
        place.unlink()
        with self.server.lock:
            self.server.sums.pop(str(place), None)
        self._start(204, {})


def _iso(path: Path) -> str:
    when = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    with Server(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0) as program:
        program.is_fast = "fast" in sys.argv
        print(program.url, flush=True)
        program.serve_forever()
