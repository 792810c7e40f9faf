"""A small server with S3's protocol, for what real ones do not do on request, and for benchmarks.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html

It checks no signatures. What it demands and what goes wrong with it is set on the server: see `Rules`.
Run as a program it serves until it is ended: python s3_fake.py FOLDER PORT
"""

import base64
import hashlib
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_BLOCK = 1 << 20


@dataclass
class Rules:
    """What the server demands of its clients, and how it answers them."""

    checksums: bool = False  # each put has an MD5 or another checksum, as in a bucket with Object Lock
    encryption: str = ""  # each new object asks for this
    conditions: str = "checked"  # or "refused" with 501, "ignored", "conflict" for the first of each key
    read_only: bool = False
    page: bytes = b""  # the answer to every request
    further: int = 0  # a body has so many bytes more than a HEAD announces
    lengths: frozenset[str] = frozenset(("HEAD", "GET"))  # to which an answer announces its length
    empty: int = 0  # so many next bodies of files have nothing in them
    row: str = ""  # stands in each listing


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Object:
    path: Path
    headers: dict[str, str]
    tag: str = ""

    def __post_init__(self) -> None:
        stat = self.path.stat()
        self.size, self.modified = stat.st_size, stat.st_mtime


@dataclass
class Upload:
    key: str
    headers: dict[str, str]
    parts: dict[int, Object] = field(default_factory=dict)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.folder, self.rules, self.requests = folder, Rules(), list[Request]()
        self.objects, self.uploads = dict[str, Object](), dict[str, Upload]()
        self.lock, self.conflicts, self.sent = threading.Lock(), set[str](), 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are a part of the tests."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        self._unread = int(self.headers.get("Content-Length") or 0)
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        with self.server.lock:
            self.server.requests.append(Request(self.command, self.path, dict(self.headers.items())))
        try:
            if self.server.rules.page:
                self._answer(200, self.server.rules.page, {"Content-Type": "text/html"})
            else:
                getattr(self, f"_{self.command.lower()}")(bucket, key, query)
        except _Refused as refused:
            error = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
            self._answer(refused.status, error.encode())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        while self._unread > 0 and (block := self.rfile.read(min(self._unread, _BLOCK))):
            self._unread -= len(block)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # --- reading ---

    def _get(self, bucket: str, key: str, query: dict[str, str]) -> None:
        if key and "uploadId" in query:
            parts = sorted(self._upload(query).parts.items())
            rows = [
                f"<Part><PartNumber>{n}</PartNumber><ETag>{p.tag}</ETag><Size>{p.size}</Size></Part>"
                for n, p in parts
            ]
            self._xml("ListPartsResult", *rows)
        elif key:
            self._object(key)
        elif "uploads" in query:
            rows = [
                f"<Upload><Key>{escape(u.key)}</Key><UploadId>{i}</UploadId>"
                "<Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
                for i, u in list(self.server.uploads.items())
            ]
            self._xml("ListMultipartUploadsResult", *rows)
        else:
            self._list(bucket, query.get("prefix", ""))

    def _list(self, bucket: str, prefix: str) -> None:
        with self.server.lock:
            found = sorted((k, o) for k, o in self.server.objects.items() if k.startswith(prefix))
        rows = [
            f"<Contents><Key>{escape(key)}</Key><Size>{one.size}</Size><ETag>{one.tag}</ETag>"
            f"<LastModified>{_iso(one.modified)}</LastModified></Contents>"
            for key, one in found
        ]
        self._xml(
            "ListBucketResult",
            f"<Name>{bucket}</Name><KeyCount>{len(rows)}</KeyCount>",
            *rows,
            self.server.rules.row,
        )

    def _xml(self, name: str, *rows: str) -> None:
        text = f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{"".join(rows)}</{name}>'
        self._answer(200, text.encode(), {"Content-Type": "application/xml"})

    def _head(self, bucket: str, key: str, query: dict[str, str]) -> None:
        self._object(key)

    def _object(self, key: str) -> None:
        one = self.server.objects.get(key)
        if one is None:
            raise _Refused(404, "NoSuchKey")
        if self.headers.get("If-Match", one.tag) != one.tag:
            raise _Refused(412, "PreconditionFailed")
        size = one.size
        start, end = 0, size
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, end = int(match[1]), min(int(match[2]) + 1, size)
        further = self.server.rules.further if self.command == "GET" else 0
        is_part = (start, end) != (0, size)
        if self.command == "GET" and self.server.rules.empty:
            self.server.rules.empty -= 1
            end = start
        self.send_response(206 if is_part else 200)
        if self.command in self.server.rules.lengths:
            self.send_header("Content-Length", str(end - start + further))
        else:
            self.send_header("Connection", "close")
        self.send_header("Last-Modified", formatdate(one.modified, usegmt=True))
        self.send_header("ETag", one.tag)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        for name, value in one.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self._send(one.path, start, end)
            with suppress(OSError):
                for _ in range(0, further, _BLOCK):
                    self.connection.sendall(bytes(_BLOCK))
                    self.server.sent += _BLOCK

    def _send(self, path: Path, start: int, end: int) -> None:
        self.wfile.flush()
        with open(path, "rb") as file, suppress(OSError):
            while start < end:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, end - start)

    # --- writing ---

    def _put(self, bucket: str, key: str, query: dict[str, str]) -> None:
        if not key:
            self._answer(200)
            return
        self._check_right(bool(query))
        rules, names = self.server.rules, {name.lower() for name in self.headers}
        checksums = {name for name in names if name.startswith("x-amz-checksum-")} | names & {"x-amz-trailer"}
        if rules.checksums and not checksums and "content-md5" not in names:
            wanted = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Part requests"
            raise _Refused(400, "InvalidRequest", wanted)
        one = self._receive()
        if (md5 := self.headers.get("Content-MD5")) and base64.b64decode(md5).hex() != one.tag.strip('"'):
            raise _Refused(400, "BadDigest")
        if "partNumber" in query:
            self._upload(query).parts[int(query["partNumber"])] = one
        else:
            self._store(key, one)
        self._answer(200, headers={"ETag": one.tag})

    def _check_right(self, is_part: bool = False) -> None:
        rules = self.server.rules
        if rules.read_only:
            raise _Refused(403, "AccessDenied", "not authorized to perform: s3:PutObject")
        asked = self.headers.get("x-amz-server-side-encryption", "")
        key = self.headers.get("x-amz-server-side-encryption-aws-kms-key-id", "")
        if rules.encryption and not is_part and f"{asked} {key}".strip() != rules.encryption:
            raise _Refused(403, "AccessDenied", "explicit deny in a resource-based policy.")

    def _receive(self) -> Object:
        path = self.server.folder / os.urandom(8).hex()
        digest = None if os.environ.get("S3_FAKE_FAST") else hashlib.md5(usedforsecurity=False)
        buffer = memoryview(bytearray(_BLOCK))
        with open(path, "wb", buffering=0) as file:
            while self._unread and (count := self.rfile.readinto(buffer[: min(self._unread, _BLOCK)])):
                self._unread -= count
                file.write(buffer[:count])
                if digest:
                    digest.update(buffer[:count])
        kept = {n: v for n, v in self.headers.items() if n.lower().startswith("x-amz-meta-")}
        return Object(path, kept, f'"{digest.hexdigest() if digest else path.name * 2}"')

    def _store(self, key: str, one: Object) -> None:
        with self.server.lock:
            if "If-None-Match" in self.headers:
                rules = self.server.rules
                if rules.conditions == "refused":
                    raise _Refused(501, "NotImplemented", "A header implies functionality that is not there")
                if rules.conditions == "conflict" and key not in self.server.conflicts:
                    self.server.conflicts.add(key)
                    raise _Refused(409, "ConditionalRequestConflict")
                if rules.conditions != "ignored" and key in self.server.objects:
                    raise _Refused(412, "PreconditionFailed")
            self.server.objects[key] = one

    def _post(self, bucket: str, key: str, query: dict[str, str]) -> None:
        if "uploads" in query:
            self._check_right()
            upload_id = os.urandom(8).hex()
            kept = {n: v for n, v in self.headers.items() if n.lower().startswith("x-amz-meta-")}
            self.server.uploads[upload_id] = Upload(key, kept)
            self._xml("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>")
            return
        upload = self._upload(query)
        parts = [upload.parts[number] for number in sorted(upload.parts)]
        path = self.server.folder / os.urandom(8).hex()
        with open(path, "wb") as file:
            for part in parts:
                with open(part.path, "rb") as source:
                    while os.sendfile(file.fileno(), source.fileno(), None, 1 << 30):
                        pass
        self._store(key, Object(path, upload.headers, f'"{path.name * 2}-{len(parts)}"'))
        self._drop(query["uploadId"])
        self._xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key>")

    def _upload(self, query: dict[str, str]) -> Upload:
        upload = self.server.uploads.get(query["uploadId"])
        if upload is None:
            raise _Refused(404, "NoSuchUpload")
        return upload

    def _delete(self, bucket: str, key: str, query: dict[str, str]) -> None:
        if "uploadId" in query:
            self._drop(query["uploadId"])
        elif one := self.server.objects.pop(key, None):
            one.path.unlink(missing_ok=True)
        self._answer(204)

    def _drop(self, upload_id: str) -> None:
        upload = self.server.uploads.pop(upload_id, None)
        for part in upload.parts.values() if upload else ():
            part.path.unlink(missing_ok=True)


def _iso(modified: float) -> str:
    when = datetime.fromtimestamp(modified, timezone.utc)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    with Server(Path(sys.argv[1]), int(sys.argv[2])) as program, suppress(socket.error):
        program.serve_forever()
