"""The engine of another machine: a second one behind a real sshd, with no view of our folders."""

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator

import pytest
from harness import Sandbox, docker

SSH = os.environ.get("SKELEBOT_TEST_REMOTE", "")
SOCKET = os.environ.get("SKELEBOT_TEST_REMOTE_SOCKET", "")


class Relay:
    """A port that leads to the other engine's socket, or takes connections and never says a word."""

    def __init__(self, server: socket.socket, answer: bool) -> None:
        self.port: int = server.getsockname()[1]
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._serve, args=(server, answer), daemon=True).start()

    @property
    def connections(self) -> int:
        """How many there have been since they were broken last."""
        return len(self._connections)

    def cut(self) -> None:
        """Breaks all connections that there are."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def _serve(self, server: socket.socket, answer: bool) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                self._connections.append(client)
                if answer:
                    engine = socket.socket(socket.AF_UNIX)
                    engine.connect(SOCKET.removeprefix("unix://"))
                    for pair in ((client, engine), (engine, client)):
                        threading.Thread(target=_pass, args=pair, daemon=True).start()


@contextlib.contextmanager
def listening(answer: bool, port: int = 0) -> Iterator[Relay]:
    with socket.create_server(("127.0.0.1", port)) as server:
        yield Relay(server, answer)
        server.shutdown(socket.SHUT_RDWR)


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def by_tcp(sandbox: Sandbox, name: str) -> Iterator[Sandbox]:
    if not SSH:
        reason = "no engine of another machine (SKELEBOT_TEST_REMOTE; see tests/remote_engine.sh)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with listening(answer=True) as relay:
        yield sandbox.with_env(DOCKER_HOST=f"tcp://127.0.0.1:{relay.port}")
    label = f"label=skelebot.project={name}"
    for kind, remove in (("ps -aq", "rm -fv"), ("images -aq", "rmi -f"), ("volume ls -q", "volume rm -f")):
        if found := there(*kind.split(), "--filter", label).split():
            there(*remove.split(), *dict.fromkeys(found))


def with_ssh(far: Sandbox) -> Sandbox:
    """The caller, who can reach the other machine by ssh, and has an engine of their own."""
    config = far.root.parent / "ssh_config"
    lines = (
        "Host *",
        f"IdentityFile {os.environ['SKELEBOT_TEST_REMOTE_KEY']}",
        "StrictHostKeyChecking no",
        "UserKnownHostsFile /dev/null",
    )
    config.write_text("\n".join(lines) + "\n")
    # ssh looks for its settings in the home of the password file, whatever HOME says.
    ssh = far.root.parent / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    ssh.chmod(0o755)
    own = os.environ["DOCKER_HOST"]
    return far.with_env(PATH=f"{ssh.parent}:{far.env['PATH']}", DOCKER_HOST=own)


def there(*words: str) -> str:
    """What the other machine's engine answers."""
    return docker("--host", SOCKET, *words, check=False)
