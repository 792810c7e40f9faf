"""A cluster as its users reach it: through their kubectl, whose proxy opens the way for plain HTTP."""

import atexit
import base64
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlencode

from skelebot import process
from skelebot.errors import ProgramMissing, SkelebotError, UsageError
from skelebot.files import private_folder
from skelebot.keys import CLUSTER
from skelebot.model import Place, Step
from skelebot.runners.attempts import Unreachable

PATIENCE = 10.0  # seconds for a first answer
LASTING = 60.0  # seconds for a cluster to come back that has answered before

Json = dict[str, Any]


class Answer(SkelebotError):
    """The cluster has refused something: the HTTP status, and the reason as Kubernetes calls it."""

    def __init__(self, text: str, status: int, reason: str = "") -> None:
        super().__init__(text)
        self.status, self.reason = status, reason


class Broken(SkelebotError):
    """A connection to a container has ended before what ran there did."""


class Ended(NamedTuple):
    """How a program in a container has ended."""

    code: int
    out: bytes
    err: bytes


class Client:
    """One context of kubectl, and one namespace."""

    def __init__(self, place: Place, verbose: bool = False) -> None:
        context, _, namespace = (place.host or "").removeprefix(CLUSTER).partition("/")
        if "/" in namespace or ":" in context:
            raise UsageError(f"{place}: expected k8s://CONTEXT/NAMESPACE; write / and : as %2F and %3A")
        self.place, self.context, self.verbose = place, unquote(context), verbose
        self._namespace = unquote(namespace)
        self._socket = ""
        self._said = ""
        self.has_answered = False
        self._lock = threading.RLock()  # a signal may come while it is held
        self._open = ExitStack()

    # --- kubectl ---

    def step(self, *words: str) -> Step:
        """Return kubectl with these arguments, for this context."""
        where = ("--context", self.context) if self.context else ()
        step = Step(("kubectl", *where, *words))
        process.trace(self.verbose, step)
        return step

    @property
    def namespace(self) -> str:
        """The namespace: the one that is named, or else the context's."""
        if not self._namespace:
            words = ("config", "view", "--minify", "--output", "jsonpath={..namespace}")
            code, out, said = self._capture(*words)
            if code != 0:
                raise SkelebotError(f"{self.place}: kubectl has no such context ({_last(said)}); "
                                    "`kubectl config get-contexts` lists them")  # fmt: skip
            self._namespace = out.strip() or "default"
        return self._namespace

    def _capture(self, *words: str) -> tuple[int, str, str]:
        try:
            return process.capture(self.step(*words), PATIENCE)
        except ProgramMissing:
            raise ProgramMissing(
                "kubectl is not installed, or not on PATH; install it to use a cluster"
            ) from None
        except TimeoutError:
            raise SkelebotError(f"{self.place}: kubectl gave no answer; check its configuration") from None

    def _proxy(self) -> str:
        """The socket of the proxy, which is started with the first request and ends with this process."""
        with self._lock:
            if not self._socket:
                self._start_proxy()
            return self._socket

    def _start_proxy(self) -> None:
        _ = self.namespace  # which finds a missing kubectl and a wrong context
        folder = self._open.enter_context(private_folder())
        path, said = os.path.join(folder, "s"), os.path.join(folder, "said")
        # Without --reject-paths it refuses `exec`; nobody else can open the socket.
        step = self.step("proxy", f"--unix-socket={path}", "--reject-paths=^$")
        alive = process.start_companion(step, said)
        self._open.callback(alive.close)
        atexit.register(self.close)
        until = time.monotonic() + PATIENCE
        while not _is_open(path):
            text = _text_of(said)
            if text.endswith("ended\n") or time.monotonic() > until:
                why = _last(text.removesuffix("ended\n")) or "it does not answer"
                what = f"`kubectl proxy` could not be started: {why}; check kubectl's configuration"
                raise SkelebotError(f"{self.place}: {what}")
            time.sleep(0.01)
        self._socket, self._said = path, said

    def close(self) -> None:
        """End the proxy."""
        self._socket = ""
        self._open.close()

    # --- requests ---

    def request(self, method: str, path: str, body: Json | None = None, lasting: float = PATIENCE) -> Json:
        """Return the cluster's answer. Raises Answer, and SkelebotError where none comes in time."""
        return dict(json.loads(self._answer(method, path, body, lasting)))

    def _answer(self, method: str, path: str, body: Json | None, lasting: float) -> bytes:
        until = time.monotonic() + (lasting if self.has_answered else min(lasting, PATIENCE))
        data = None if body is None else json.dumps(body).encode()
        while True:
            try:
                status, answer = self._once(method, path, data)
            except OSError as error:
                status, answer = 502, str(error).encode()
            self.has_answered |= status < 500
            if status < 300:
                return answer
            if status not in (429, 500, 502, 503, 504) or time.monotonic() > until:
                raise self._refused(status, answer.decode(errors="replace"))
            time.sleep(0.2)

    def _once(self, method: str, path: str, data: bytes | None) -> tuple[int, bytes]:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        connection = _Connection(self._proxy(), PATIENCE)
        try:
            connection.request(method, path, data, {"Content-Type": kind} if data else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error) or type(error).__name__) from None
        finally:
            connection.close()

    def _refused(self, status: int, text: str) -> SkelebotError:
        told: Json = {}
        with suppress(ValueError, TypeError):
            told = dict(json.loads(text))
        said = str(told.get("message") or _last(text)).strip()
        if status in (502, 503, 504) or (status == 500 and not told):  # which kubectl's proxy gives, as text
            return Unreachable(f"{self.place} cannot be reached ({said}); check the network and your login")
        if status == 401:
            return Answer(f"{self.place} does not accept your login ({said}); log in again", status)
        if status == 403 and "cannot" in said:
            return Answer(
                f"{self.place}: {said}; ask for the role that `skelebot cluster role` prints",
                status,
                str(told.get("reason", "")),
            )
        return Answer(f"{self.place}: {said}", status, str(told.get("reason", "")))

    def path(self, kind: str, name: str = "", **query: str) -> str:
        """The path of a kind of objects in the namespace, or of one of them."""
        group = f"/apis/batch/{self.cron_api}" if kind == "cronjobs" else "/api/v1"
        group = "/apis/batch/v1" if kind == "jobs" else group
        path = f"{group}/namespaces/{quote(self.namespace)}/{kind}" + (f"/{quote(name)}" if name else "")
        return f"{path}?{urlencode(query)}" if query else path

    def get(self, kind: str, name: str) -> Json | None:
        """Return one object; None where it has gone."""
        try:
            return self.request("GET", self.path(kind, name), lasting=LASTING)
        except Answer as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, lasting: float = LASTING, **query: str) -> "list[Json]":
        return [*self.request("GET", self.path(kind, **query), lasting=lasting)["items"]]

    def create(self, kind: str, body: Json) -> Json:
        """Create an object, whose name is its own; an answer that was lost is asked for again."""
        try:
            return self.request("POST", self.path(kind), body)
        except Answer as error:
            name = body["metadata"]["name"]
            found = self.get(kind, name) if error.reason == "AlreadyExists" else None
            if found is None:
                raise
            return found

    def ensure(self, kind: str, body: Json) -> None:
        """Create an object unless there is one of its name, which stays as it is."""
        try:
            self.request("POST", self.path(kind), body)
        except Answer as error:
            if error.reason != "AlreadyExists":
                raise

    def replace(self, kind: str, body: Json) -> Json:
        """Put an object in the place of the one that has its name."""
        return self.request("PUT", self.path(kind, body["metadata"]["name"]), body)

    @cached_property
    def cron_api(self) -> str:
        """The version of batch/ that has CronJobs: v1 since Kubernetes 1.21."""
        kinds = self.request("GET", "/apis/batch/v1")["resources"]
        return "v1" if any(kind["name"] == "cronjobs" for kind in kinds) else "v1beta1"

    def log(self, pod: str) -> bytes:
        """Return what the cluster's own log holds of a pod's job, both streams as one."""
        return self._answer("GET", f"{self.path('pods', pod)}/log?container=job", None, LASTING)

    def delete(self, kind: str, name: str) -> bool:
        """Delete an object at once, and what it owns; tell whether it was there."""
        # Without a policy, a Job's pods would go on.
        options: Json = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
        try:
            self.request("DELETE", self.path(kind, name), options, LASTING)
        except Answer as error:
            if error.status == 404:
                return False
            raise
        return True

    # --- programs in a container ---

    def run(self, pod: str, container: str, *words: str, stdin: bytes = b"") -> Ended:
        """Run a short program in a container, which reads no more than it is given. Raises Broken."""
        out, err = bytearray(), bytearray()
        with self.connected(pod, container, *words) as stream:
            if stdin:
                stream.write(stdin)
            for channel, data in stream.read():
                (out if channel == 1 else err).extend(data)
        return Ended(stream.code, bytes(out), bytes(err))

    @contextmanager
    def connected(self, pod: str, container: str, *words: str) -> "Iterator[Stream]":
        """Run a program in a container, connected to its streams. Raises Broken, and Answer."""
        query = [("container", container), *(("command", word) for word in words)]
        query += [("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
        path = f"{self.path('pods', pod)}/exec?{urlencode(query)}"
        try:
            stream = Stream(self._proxy(), path, self._refused)
        except OSError as error:
            raise Broken(f"{self.place}: the connection to {pod} failed ({error})") from None
        try:
            yield stream
        finally:
            stream.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket of this machine."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


_SILENCE = 15.0  # seconds after which a silent connection is asked for a sign of life


class Stream:
    """A program's streams, over a WebSocket as `exec` takes it: https://www.rfc-editor.org/rfc/rfc6455.

    Each message is the number of a stream and its bytes; that of 3 says how the program has ended.
    """

    def __init__(self, path: str, query: str, refused: Callable[[int, str], SkelebotError]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SILENCE)
        self._lock = threading.Lock()
        self._code: int | None = None
        try:
            self._socket.connect(path)
            self._source: Any = self._socket.makefile("rb", 1 << 16)
            self._ask(query, refused)
        except BaseException:
            self._socket.close()
            raise

    def _ask(self, query: str, refused: Callable[[int, str], SkelebotError]) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {query} HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Protocol: v4.channel.k8s.io",
        )
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = self._source.readline().split()
        headers = http.client.parse_headers(self._source)
        if len(status) < 2:
            raise ConnectionError("no answer")
        if status[1] != b"101":
            text = self._source.read(int(headers.get("Content-Length", "0") or 0)).decode(errors="replace")
            if int(status[1]) >= 500:
                raise ConnectionError(_last(text))
            raise refused(int(status[1]), text)

    @property
    def code(self) -> int:
        """The program's exit code. Raises Broken where the connection has ended before it."""
        if self._code is None:
            raise Broken("the connection to the container was lost")
        return self._code

    def write(self, data: bytes | bytearray) -> None:
        """Send bytes to the program's stdin. Raises Broken."""
        for at in range(0, len(data), _MESSAGE):
            self._send(2, b"\0" + data[at : at + _MESSAGE])

    def _send(self, kind: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = bytes((0x80 | kind, 0x80 | size))
        elif size < 1 << 16:
            head = bytes((0x80 | kind, 0x80 | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | kind, 0x80 | 127)) + size.to_bytes(8, "big")
        # A mask hides the bytes from old caches; that of zeros leaves them as they are.
        try:
            with self._lock:
                self._socket.sendall(head + b"\0\0\0\0" + data)
        except OSError as error:
            raise Broken(f"the connection to the container was lost ({error})") from None

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Yield what the program writes, with the number of the stream. Raises Broken."""
        while True:
            kind, data = self._message()
            if kind == 8:
                return
            if kind == 9:
                self._send(10, data)
            elif kind == 2 and data[:1] == b"\3":
                self._code = _code_of(data[1:])
                return
            elif kind == 2 and len(data) > 1:
                yield data[0], data[1:]

    def _message(self) -> tuple[int, bytes]:
        kind, whole = 0, b""
        while True:
            first = self._exactly(2, is_idle=True)
            size = first[1] & 0x7F
            if size > 125:
                size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
            whole += self._exactly(size)
            kind = first[0] & 0x0F or kind
            if first[0] & 0x80:
                return kind, whole

    def _exactly(self, size: int, is_idle: bool = False) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self._source.read1(size - len(data))
            except TimeoutError:
                if not is_idle:
                    raise Broken("the connection to the container gives no sign of life") from None
                more, is_idle = self._after_ping(size - len(data)), False
            except OSError as error:
                raise Broken(f"the connection to the container was lost ({error})") from None
            if not more:
                raise Broken("the connection to the container was lost")
            data += more
        return data

    def _after_ping(self, size: int) -> bytes:
        """Ask whether anybody is there."""
        self._send(9, b"")
        self._source = self._socket.makefile("rb", 1 << 16)  # a timeout has ended the former
        try:
            return bytes(self._source.read1(size))
        except OSError:
            raise Broken("the connection to the container gives no sign of life") from None

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


_MESSAGE = 1 << 16  # bytes of stdin in a message


def _code_of(status: bytes) -> int:
    """The exit code in a Status: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/."""
    told = json.loads(status)
    if told.get("status") == "Success":
        return 0
    for cause in (told.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise Broken(str(told.get("message")))


def _is_open(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _text_of(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""
