"""A Docker engine as its client reaches it, and the meaning of the client's errors."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from skelebot import console, process
from skelebot.errors import SkelebotError
from skelebot.model import Step, Task
from skelebot.runners.attempts import Unreachable

T = TypeVar("T")

PATIENCE = 9.0  # seconds for a first answer

# What reading an answer may raise: whatever is called docker may have given it.
_MISREAD = (ValueError, LookupError, TypeError, AttributeError)


def csv(fields: list[str]) -> str:
    """The fields of a --mount as the client reads them: with commas and quotes in the manner of CSV."""
    return ",".join('"' + field.replace('"', '""') + '"' for field in fields)


@dataclass(frozen=True)
class BuiltImage:
    """An image that the engine has: its id, the user of its containers, its labels, its layers' digests."""

    id: str
    user: str
    labels: dict[str, str]
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Client:
    """The Docker client for one engine."""

    host: str | None
    verbose: bool = False

    @property
    def is_remote(self) -> bool:
        """Whether the engine is on another machine and cannot see this one's folders."""
        endpoint = self.host or _host_of_environment()
        if "://" not in endpoint:
            context = endpoint or os.environ.get("DOCKER_CONTEXT", "")
            endpoint = _endpoint(self, context) if context or _has_context() else ""
        return "://" in endpoint and not endpoint.startswith(("unix://", "npipe://", "fd://"))

    @property
    def where(self) -> str:
        """The engine's place as its user names it."""
        named = self.host or os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT")
        return named or "the default socket"

    # --- asking through the client ---

    def step(self, *words: str, env: tuple[tuple[str, str], ...] = ()) -> Step:
        """The client with these arguments, about to be run: --verbose shows it."""
        where: tuple[str, ...] = ()
        if self.host:
            where = ("--host" if "://" in self.host else "--context", self.host)
        step = Step((_program(), *where, *words), env=env)
        process.trace(self.verbose, step)
        return step

    def capture(self, *words: str, timeout: float | None = None) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr. Raises SkelebotError if no engine answers in time."""
        try:
            return process.capture(self.step(*words), timeout)
        except TimeoutError:
            seconds = console.counted(timeout or 0, "second")
            raise Unreachable(
                f"no Docker engine answers at {self.where} in {seconds}; check that it is up, "
                "and that ssh needs no password for it (ssh-agent)"
            ) from None

    def query(self, *words: str, timeout: float | None = None) -> str:
        """Return the client's output. Raises SkelebotError with the meaning of its error."""
        code, out, err = self.capture(*words, timeout=timeout)
        if code != 0:
            raise explained(self, err, f"`docker {words[0]}` failed")
        return out

    def read(self, words: Sequence[str], text: str, read: Callable[[Any], T]) -> T:
        """What `read` makes of the JSON that these words brought.

        Raises SkelebotError where it is not JSON, or not what `read` expects.
        """
        try:
            return read(json.loads(text))
        except _MISREAD:
            raise self.unreadable(words, text) from None

    def list_ids(self, *words: str, timeout: float | None = None) -> list[str]:
        """The full ids that the client lists, each once. Raises SkelebotError for anything else."""
        out = self.query(*words, "--quiet", "--no-trunc", timeout=timeout)
        ids = list(dict.fromkeys(out.split()))
        if not all(re.fullmatch(r"(sha256:)?[0-9a-f]{64}", each) for each in ids):
            raise self.unreadable(words, out)
        return ids

    def unreadable(self, words: Sequence[str], text: str) -> SkelebotError:
        answer = console.one_line(text.strip()[:80]) or "nothing"
        return SkelebotError(
            f"`{_program()} {words[0]}` did not answer like the Docker client: {answer}; "
            "check which program that is"
        )

    def inspect_all(self, names: Sequence[str], read: Callable[[Any], T], kind: str = "container") -> list[T]:
        """What `read` makes of each container or image; those that have gone since are left out."""
        if not names:
            return []
        words = (kind, "inspect", "--format", "{{json .}}", *names)
        code, out, err = self.capture(*words)
        others = [line for line in err.splitlines() if "no such" not in line.lower()]
        if code != 0 and not out.strip() and others:
            raise explained(self, "\n".join(others), f"the {kind} {names[0]} cannot be inspected")
        return [self.read(words, line, read) for line in out.splitlines() if line.strip()]

    def own_sizes(self) -> dict[str, int]:
        """The bytes that would come free with each container and image, by its id and its names.

        None for what is not known: Podman's client prints a table.
        """
        answer = self._ask("/system/df", patience=60)  # it measures each image
        try:
            if isinstance(answer, dict) and "Images" in answer:
                return _sizes_of_engine(answer)
            _, out, _ = self.capture("system", "df", "--verbose", "--format", "{{json .}}")
            return _sizes_of_client(json.loads(out))
        except _MISREAD:
            return {}

    def inspect(self, name: str, task: Task | None = None) -> BuiltImage | None:
        """The image of that name or id, or None. Raises SkelebotError where no engine answers."""
        words = ("image", "inspect", "--format", "{{json .}}", name)
        answer = self._ask(f"/images/{name}/json")
        if answer is not None:
            is_image = isinstance(answer, dict) and "Id" in answer
            return self.read(words, json.dumps(answer), _image_of) if is_image else None
        code, out, err = self.capture(*words, timeout=PATIENCE)
        if code == 0:
            return self.read(words, out, _image_of)
        if "no such image" in err.lower():
            return None
        raise explained(self, err, f"the image {name} cannot be inspected", task)

    def inspect_quickly(self, name: str) -> BuiltImage | None:
        """The image, where the engine can be asked through its socket; otherwise None."""
        return self.inspect(name) if _socket_path(self.host) else None

    def images_with(self, labels: dict[str, str]) -> list[str]:
        """The ids of the images that have all these labels."""
        filters = (("--filter", f"label={name}={value}") for name, value in labels.items())
        return self.list_ids("images", *(word for each in filters for word in each))

    def created_containers(self, labels: dict[str, str], wanted: str) -> dict[str, str]:
        """The wanted label of each container with these labels that was never started, by its name."""
        pairs = [f"{name}={value}" for name, value in labels.items()]
        answer = self._ask("/containers/json", all=True, label=pairs, status=["created"])
        if isinstance(answer, list):
            return self.read(
                ("ps",),
                json.dumps(answer),
                lambda found: {_text(c["Names"][0])[1:]: _text(c["Labels"].get(wanted, "")) for c in found},
            )
        filters = [word for pair in pairs for word in ("--filter", f"label={pair}")]
        words = ("ps", "--all", "--filter", "status=created", *filters, "--no-trunc", "--format")
        rows = (
            row.partition(" ")
            for row in self.query(*words, f'{{{{.Names}}}} {{{{.Label "{wanted}"}}}}').splitlines()
        )
        return {name: value for name, _, value in rows}

    def _ask(self, path: str, all: bool = False, patience: float = 5, **filters: list[str]) -> Any:
        """The engine's answer through its socket, which takes a tenth of the client's time.

        patience: seconds of silence after which it is given up. None if the engine has no such socket; the
        client then finds another way or says why not.
        https://docs.docker.com/reference/api/engine/
        """
        if filters:
            from urllib.parse import urlencode

            path += "?" + urlencode({"filters": json.dumps(filters), "all": int(all)})
        try:
            return json.loads(self._request("GET", path, patience).partition(b"\r\n\r\n")[2])
        except ValueError:
            return None

    def _request(self, method: str, path: str, patience: float = 5) -> bytes:
        """The engine's whole answer through its socket; nothing without one."""
        address = _socket_path(self.host)
        if address is None:
            return b""
        import socket  # not for native runs

        try:
            with socket.socket(socket.AF_UNIX) as engine:
                engine.settimeout(patience)
                engine.connect(address)
                # HTTP/1.0: the answer ends with the connection, and comes in one piece.
                engine.sendall(f"{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
                data = b""
                while block := engine.recv(1 << 16):
                    data += block
            return data
        except OSError:
            return b""

    def remove_container(self, name: str) -> None:
        """Remove a container that has ended, through the socket where there is one; nothing if it is gone."""
        answer = self._request("DELETE", f"/containers/{name}?v=1&force=1")
        if answer.split(b" ", 2)[1:2] not in ([b"204"], [b"404"]):
            self.capture("rm", "--force", "--volumes", name)


# Not a cached_property: a signal while its class is being made is a RuntimeError before Python 3.12.
@cache
def _endpoint(client: Client, context: str) -> str:
    """The address of a Docker context; of the current one without a name."""
    words = ("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    return client.capture(*words, *filter(None, [context]))[1].strip()


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _image_of(answer: dict[str, Any]) -> BuiltImage:
    config = answer.get("Config") or {}
    labels = {_text(name): _text(value) for name, value in (config.get("Labels") or {}).items()}
    layers = tuple(map(_text, (answer.get("RootFS") or {}).get("Layers") or ()))
    return BuiltImage(_text(answer["Id"]), _text(config.get("User") or ""), labels, layers)


def _sizes_of_engine(answer: dict[str, Any]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for image in answer["Images"] or ():
        size = max(image["Size"] - max(image["SharedSize"], 0), 0)
        sizes |= dict.fromkeys((image["Id"], *(image["RepoTags"] or ())), size)
    for container in answer["Containers"] or ():
        names = (name.lstrip("/") for name in container["Names"])
        sizes |= dict.fromkeys((container["Id"], *names), container.get("SizeRw") or 0)
    return sizes


def _sizes_of_client(answer: dict[str, Any]) -> dict[str, int]:
    """The same as the client gives them, to the few digits that it shows."""
    sizes: dict[str, int] = {}
    for image in answer.get("Images") or ():
        names = (image["ID"], f"{image['Repository']}:{image['Tag']}")
        sizes |= dict.fromkeys(names, _bytes(image["UniqueSize"]))
    for container in answer.get("Containers") or ():
        sizes |= dict.fromkeys((container["ID"], container["Names"]), _bytes(container["Size"]))
    return sizes


def _program() -> str:
    return os.environ.get("SKELEBOT_DOCKER") or "docker"


def _socket_path(host: str | None) -> str | None:
    """The local socket that the client would use, where it is sure to use one."""
    if os.path.basename(_program()) != "docker":
        return None
    host = host or os.environ.get("DOCKER_HOST")
    if host:
        return host.removeprefix("unix://") if host.startswith("unix://") else None
    return None if _has_context() else "/var/run/docker.sock"


def _host_of_environment() -> str:
    host = os.environ.get("DOCKER_HOST") or ""
    return f"tcp://{host}" if host and "://" not in host else host  # as the client reads it


def _has_context() -> bool:
    if os.environ.get("DOCKER_CONTEXT"):
        return True
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            return bool(json.load(file).get("currentContext", "default") != "default")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError):
        return True


# --- what a failed client's output means ---

_DISK_FULL = (
    r"no space left on device|disk quota exceeded",
    "the Docker engine's disk is full; free some with `docker system prune`{natively}",
)
_NO_ANSWER = "no Docker engine answers at {where}; start it, or choose another with -d{natively}"
_MEANINGS = (
    (
        r"permission denied.*(docker daemon|dial unix)|dial unix.*permission denied",
        "no permission on the Docker socket ({where}); join the group docker{natively}",
    ),
    (
        r'context "[^"]*".*not found|context "[^"]*" does not exist|context not found',
        "there is no Docker context {where}; see `docker context ls`{natively}",
    ),
    (
        r"error during connect|cannot connect to the docker daemon|failed to connect|dial unix"
        r"|unable to resolve docker endpoint|connection refused"
        # What answers is a proxy or a web server; or the address is none.
        r"|check if the server supports|response from daemon: <|connection is not valid|parse \"ssh://",
        _NO_ANSWER,
    ),
    _DISK_FULL,
    (
        r"pull access denied|manifest unknown|manifest for|failed to resolve|no such host|i/o timeout"
        r"|client\.timeout|tls handshake|x509|failed to do request|error getting credentials"
        r"|not found|request canceled|network is unreachable|proxyconnect",
        "the base image {name} cannot be pulled; check its name, the network and `docker login`{natively}",
    ),
)

# What the client says when a connection that it had breaks.
_CONNECTION_LOST = re.compile(
    r"unexpected EOF|: EOF|connection reset|broken pipe|the connection was lost|closed network connection"
)

# The classic builder's words, and BuildKit's.
_STEP_FAILED = re.compile(r"returned a non-zero code: \d|did not complete successfully: exit code")


def or_natively(task: Task) -> str:
    """Suggest a native run if the job allows it."""
    return ", or run the job natively with -n" if task.may_run_natively else ""


def explained(
    client: Client, output: str, otherwise: str, task: Task | None = None, pulled: str | None = None
) -> SkelebotError:
    """What a failed client's output means to the user, and what to do about it.

    otherwise: what to say where that is not known. task: the one that cannot be run so. pulled: the
    image that was being fetched.
    """
    natively = or_natively(task) if task else ""
    meanings: Sequence[tuple[str, str]] = _MEANINGS if pulled else _MEANINGS[:-1]
    if _STEP_FAILED.search(output):  # whatever its program could not reach, the engine was there
        meanings = [_DISK_FULL]
    text, kind = otherwise, SkelebotError
    for pattern, meaning in meanings:
        if re.search(pattern, output.lower()):
            kind = Unreachable if meaning is _NO_ANSWER else SkelebotError
            text = meaning.format(where=client.where, natively=natively, name=pulled)
            break
    last = [
        line.strip() for line in output.splitlines() if line.strip() and not line.lstrip().startswith("<")
    ]
    if kind is SkelebotError and _CONNECTION_LOST.search(output):
        kind = Unreachable
    return kind(text + (f" ({last[-1]})" if last else ""))


def _bytes(text: str) -> int:
    """Of a size as the client shows it, as in 1.23GB."""
    match = re.match(r"([\d.]+)([kMGT]?)B", text)
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2] or " ")) if match else 0
