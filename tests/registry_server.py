"""A real image registry (Debian's docker-registry) for the tests, a line to it that breaks, a tiny image.

https://distribution.github.io/distribution/spec/api/
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import CLIENTS, docker

USER, PASSWORD = "tester", "s3cret-of-the-registry"

_READY = 30.0  # seconds


@dataclass(frozen=True)
class Registry:
    """A registry on loopback, which Docker speaks http with; without a user it asks for no login."""

    port: int
    user: str = ""
    password: str = ""

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def auth(self) -> str:
        """The login as it stands in a client's settings."""
        return b64encode(f"{self.user}:{self.password}".encode()).decode()

    def get(self, path: str) -> Any:
        request = urllib.request.Request(f"http://{self.server}/v2/{path}")
        if self.user:
            request.add_header("Authorization", f"Basic {self.auth}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def digest(self, repository: str, tag: str) -> str:
        """https://distribution.github.io/distribution/spec/api/#existing-manifests"""
        request = urllib.request.Request(
            f"http://{self.server}/v2/{repository}/manifests/{tag}", method="HEAD"
        )
        kinds = ("vnd.oci.image.manifest.v1", "vnd.docker.distribution.manifest.v2")
        if self.user:
            request.add_header("Authorization", f"Basic {self.auth}")
        request.add_header("Accept", ", ".join(f"application/{kind}+json" for kind in kinds))
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.headers["Docker-Content-Digest"])

    def tags(self, repository: str) -> set[str]:
        return set(self.get(f"{repository}/tags/list")["tags"])


@contextlib.contextmanager
def running(folder: Path, user: str = "", password: str = "") -> Iterator[Registry]:
    """A registry with its data in a folder, of one user or for everyone."""
    programs = ("docker-registry", *(("htpasswd",) if user else ()))
    if not all(map(shutil.which, programs)):
        end = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        end(f"there is no {' or no '.join(programs)} (Debian: docker-registry, apache2-utils)")
    port = _free_port()
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if user:
        settings["auth"] = {"htpasswd": {"realm": "r", "path": str(folder / "htpasswd")}}
        words = ["htpasswd", "-Bbn", "-C", "4", user, password]
        (folder / "htpasswd").write_bytes(subprocess.run(words, capture_output=True, check=True).stdout)
    (folder / "config.yml").write_text(json.dumps(settings))
    with open(folder / "log", "wb") as log:
        words = ["docker-registry", "serve", str(folder / "config.yml")]
        server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(port, server)
        yield Registry(port, user, password)
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait(port: int, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _READY
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("the registry did not get ready")


# --- a line that breaks ---


class Line:
    """Passes all on to a server, up to the first bytes `until`: then it breaks for good, or stands still."""

    def __init__(self, port: int, until: bytes, breaks: bool) -> None:
        self._target, self._until, self._breaks = port, until, breaks
        self.reached = threading.Event()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [near, far]
                threading.Thread(target=self._pass, args=(near, far, self._until), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, b""), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, until: bytes) -> None:
        before = b""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if until and until in before + data:
                    self.reached.set()
                    if self._breaks:
                        self.close()
                    return
                before = data[-len(until) :]
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


# --- a login that may push but not pull ---


class _PushOnly(BaseHTTPRequestHandler):
    """Passes all on to a registry but questions for a manifest, which it denies."""

    protocol_version = "HTTP/1.1"
    target = ""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        headers = {n: v for n, v in self.headers.items() if n not in ("Content-Length", "Transfer-Encoding")}
        if self.command in ("GET", "HEAD") and "/manifests/" in self.path:
            said = b'{"errors": [{"code": "DENIED", "message": "requested access is denied"}]}'
            self._answer(403, said, {"Content-Type": "application/json", "Content-Length": str(len(said))})
            return
        far = HTTPConnection(self.target, timeout=60)
        far.request(self.command, self.path, body, headers)
        with far.getresponse() as answer:
            self._answer(answer.status, answer.read(), dict(answer.getheaders()))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _pass  # noqa: N815

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def push_only(registry: Registry) -> Iterator[int]:
    """The port of a registry whose manifests nobody may read."""
    handler = type("Handler", (_PushOnly,), {"target": registry.server})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


# --- an image that is quickly pushed and saved ---

_PROGRAMS = {"sh": "dash", "bash": "bash", "cat": "cat", "ls": "ls", "sleep": "sleep"}


def tiny() -> str:
    """The name of an image of a few megabytes with a shell, made of programs of this machine."""
    data = _tiny_tar()
    name = f"skelebot-test/tiny:{hashlib.sha256(data).hexdigest()[:12]}"
    with open(Path(tempfile.gettempdir()) / "skelebot-test-tiny.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # imported twice it would be another base
        if not docker("images", "-q", name):
            words = [CLIENTS[0], "import", "-c", "ENV PATH=/bin", "-", name]
            subprocess.run(words, input=data, capture_output=True, check=True)
    return name


def _tiny_tar() -> bytes:
    found = {f"bin/{name}": shutil.which(program) for name, program in _PROGRAMS.items()}
    paths = {name: path for name, path in found.items() if path}
    for path in list(paths.values()):
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        paths |= {word[1:]: word for word in listed.split() if word.startswith("/")}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, path in sorted(paths.items()):
            content = Path(path).read_bytes()
            member = tarfile.TarInfo(name)
            member.mode, member.size = 0o755, len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()
