"""A program in the place of Docker's client, which answers as a test wants it to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

# What stdin holds is read, as by Docker's client; a call's arguments are noted, each in a line.
_SCRIPT = """\
#!/bin/sh
cd {folder} || exit
case $1 in --host | --context) shift 2 ;; esac
for word; do printf '%s\\n' "$word"; done >>calls
for name in "$1-$2" "$1" any; do [ -e "$name" ] && break; done
[ ! -e "$name.hook" ] || . "./$name.hook"
case $* in *" -") cat >/dev/null ;; esac
[ ! -e "$name.err" ] || cat "$name.err" >&2
cat "$name" 2>/dev/null
exit "$(cat "$name.code" 2>/dev/null || echo 0)"
"""


class FakeClient:
    """Answers to commands: `says("ps", "…")`, `says("image inspect", "…")`, or `says("any", "…")`."""

    def __init__(self, folder: Path, name: str = "client") -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.program = folder / name
        self.program.write_text(_SCRIPT.format(folder=folder))
        self.program.chmod(0o755)

    def says(self, command: str, out: str | bytes, code: int = 0, err: str = "", hook: str = "") -> None:
        path = self.folder / command.replace(" ", "-")
        path.write_bytes(out if isinstance(out, bytes) else out.encode())
        for end, text in ((".err", err), (".code", str(code)), (".hook", hook)):
            path.with_name(path.name + end).write_text(text)

    @property
    def calls(self) -> str:
        path = self.folder / "calls"
        return path.read_text() if path.exists() else ""


def make_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str = "client") -> FakeClient:
    """A client that everything in this process takes for Docker's."""
    fake = FakeClient(tmp_path / "fake", name)
    monkeypatch.setenv("SKELEBOT_DOCKER", str(fake.program))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "fake"))
    for variable in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(variable, raising=False)
    return fake


@contextmanager
def engine_at(path: Path, answers: dict[str, str]) -> Iterator[list[str]]:
    """A socket that answers requests by the beginning of their path; yields the paths that were asked."""
    import socket

    asked: list[str] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                wanted = connection.recv(65536).split(b" ")[1].decode()
                asked.append(wanted)
                body = next((text for begin, text in answers.items() if wanted.startswith(begin)), "")
                connection.sendall(f"HTTP/1.0 200 OK\r\n\r\n{body}".encode())

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        server.shutdown(socket.SHUT_RDWR)
