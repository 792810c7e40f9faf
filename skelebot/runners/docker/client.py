"""A Docker engine as its client reaches it, and what the client's complaints mean."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from skelebot import process
from skelebot.errors import SkelebotError
from skelebot.model import Step, Task

_PATIENCE = 9.0  # seconds for a first answer


def csv(fields: list[str]) -> str:
    """The fields of a --mount as the client reads them: with commas and quotes in the manner of CSV."""
    return ",".join('"' + field.replace('"', '""') + '"' for field in fields)


@dataclass(frozen=True)
class Found:
    """An image that the engine has: its id, the user of its containers, its labels."""

    id: str
    user: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Client:
    """The Docker client for one engine."""

    host: str | None
    verbose: bool = False

    @cached_property
    def is_remote(self) -> bool:
        """Whether the engine is one of another machine, which does not see this one's folders."""
        endpoint = self.host or _host_of_environment()
        if "://" not in endpoint:
            if not endpoint and not _has_context():
                return False
            _, out, _ = self.capture(
                "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", *[endpoint] * bool(endpoint)
            )
            endpoint = out.strip()
        return "://" in endpoint and not endpoint.startswith(("unix://", "npipe://", "fd://"))

    @property
    def where(self) -> str:
        """The engine's place as its user names it."""
        named = self.host or os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT")
        return named or "the default socket"

    def step(self, *words: str, env: tuple[tuple[str, str], ...] = ()) -> Step:
        where: tuple[str, ...] = ()
        if self.host:
            where = ("--host" if "://" in self.host else "--context", self.host)
        return Step((_program(), *where, *words), env=env)

    def capture(self, *words: str) -> tuple[int, str, str]:
        step = self.step(*words)
        process.trace(self.verbose, step)
        return process.capture(step)

    def answer(self, *words: str) -> str:
        """What the client prints. Raises SkelebotError with what its complaint means."""
        return self._checked(words, *self.capture(*words))

    def first_answer(self, *words: str) -> str:
        """The same, for what is asked first: raises SkelebotError also where no engine answers in time."""
        return self._checked(words, *self.in_time(*words))

    def _checked(self, words: tuple[str, ...], code: int, out: str, err: str) -> str:
        if code != 0:
            raise explained(self, err, f"`docker {words[0]}` failed")
        return out

    def in_time(self, *words: str) -> tuple[int, str, str]:
        """The same as capture; raises SkelebotError where no engine answers in time."""
        step = self.step(*words)
        process.trace(self.verbose, step)
        try:
            return process.capture(step, _PATIENCE)
        except TimeoutError:
            raise SkelebotError(
                f"no Docker engine answers at {self.where} in {_PATIENCE:g} seconds; check that it is up, "
                "and that ssh needs no password for it (ssh-agent)"
            ) from None

    def own_sizes(self) -> dict[str, int]:
        """The bytes that would come free with each container and image, by its id and its names."""
        answer = self._ask("/system/df")
        if answer is None or "Images" not in answer:
            return self._own_sizes_of_client()
        sizes: dict[str, int] = {}
        for image in answer["Images"] or ():
            size = max(image["Size"] - max(image["SharedSize"], 0), 0)
            sizes |= dict.fromkeys((image["Id"], *(image["RepoTags"] or ())), size)
        for container in answer["Containers"] or ():
            names = (name.lstrip("/") for name in container["Names"])
            sizes |= dict.fromkeys((container["Id"], *names), container.get("SizeRw") or 0)
        return sizes

    def _own_sizes_of_client(self) -> dict[str, int]:
        """The same from the client, to the few digits that it shows."""
        code, out, _ = self.capture("system", "df", "--verbose", "--format", "{{json .}}")
        answer = json.loads(out) if code == 0 else {}
        sizes: dict[str, int] = {}
        for image in answer.get("Images") or ():
            names = (image["ID"], f"{image['Repository']}:{image['Tag']}")
            sizes |= dict.fromkeys(names, _bytes(image["UniqueSize"]))
        for container in answer.get("Containers") or ():
            sizes |= dict.fromkeys((container["ID"], container["Names"]), _bytes(container["Size"]))
        return sizes

    def inspect(self, name: str, task: Task) -> Found | None:
        """The image of that name or id, or None. Raises SkelebotError where no engine answers."""
        answer = self._ask(f"/images/{name}/json")
        return _found(self._ask_client(name, task) if answer is None else answer)

    def quickly(self, name: str) -> Found | None:
        """The image, where the engine can be asked through its socket; else None."""
        return _found(self._ask(f"/images/{name}/json"))

    def _ask_client(self, name: str, task: Task) -> dict[str, Any] | None:
        code, out, err = self.in_time("image", "inspect", "--format", "{{json .}}", name)
        if code == 0:
            return dict(json.loads(out))
        if "no such image" in err.lower():
            return None
        raise explained(self, err, f"the image {name} cannot be looked at", task)

    def _ask(self, path: str) -> dict[str, Any] | None:
        """The engine's answer through its socket, which takes a tenth of the client's time.

        None where there is no such way to it, for the client to find another or to say why not.
        https://docs.docker.com/reference/api/engine/
        """
        place = _socket_path(self.host)
        if place is None:
            return None
        import socket  # not for native runs

        try:
            with socket.socket(socket.AF_UNIX) as engine:
                engine.settimeout(5)
                engine.connect(place)
                # HTTP/1.0: the answer ends with the connection, and comes in one piece.
                engine.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
                data = b""
                while block := engine.recv(1 << 16):
                    data += block
            return dict(json.loads(data.partition(b"\r\n\r\n")[2]))
        except (OSError, ValueError):
            return None


def _found(answer: dict[str, Any] | None) -> Found | None:
    if answer is None or "Id" not in answer:
        return None
    config = answer.get("Config") or {}
    return Found(str(answer["Id"]), str(config.get("User") or ""), config.get("Labels") or {})


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
        "no Docker engine answers at {where}; start it or name another with -d{natively}",
    ),
    _DISK_FULL,
    (
        r"pull access denied|manifest unknown|manifest for|failed to resolve|no such host|i/o timeout"
        r"|client\.timeout|tls handshake|x509|failed to do request|error getting credentials"
        r"|not found|request canceled|network is unreachable|proxyconnect",
        "the base image {name} cannot be pulled; check its name, the network and `docker login`{natively}",
    ),
)

# The classic builder's words, and BuildKit's.
_STEP_FAILED = re.compile(r"returned a non-zero code: \d|did not complete successfully: exit code")


def or_natively(task: Task) -> str:
    """The other way out of a failure of Docker, where the job allows it."""
    return "" if task.native == "never" else ", or run the job natively with -n"


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
    text = otherwise
    for pattern, meaning in meanings:
        if re.search(pattern, output.lower()):
            text = meaning.format(where=client.where, natively=natively, name=pulled)
            break
    last = [
        line.strip() for line in output.splitlines() if line.strip() and not line.lstrip().startswith("<")
    ]
    return SkelebotError(text + (f" ({last[-1]})" if last else ""))


def _bytes(text: str) -> int:
    """Of a size as the client shows it, as in 1.23GB."""
    match = re.match(r"([\d.]+)([kMGT]?)B", text)
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2] or " ")) if match else 0
