"""What the tests are made of: projects on disk, callers, Skelebot run as a program, the engine."""

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import skelebot

BASE = os.environ.get("SKELEBOT_TEST_BASE", "")
SCIENCE = os.environ.get("SKELEBOT_TEST_SCIENCE", BASE)  # has what the example would have to install
R_BASE = os.environ.get("SKELEBOT_TEST_R_BASE", "")  # R without Python
BROWSER = os.environ.get("SKELEBOT_TEST_BROWSER", "")  # the program of Chromium
CLUSTER = os.environ.get("SKELEBOT_TEST_KUBECONFIG", "")  # how its administrator reaches the cluster
CLIENTS = os.environ.get("SKELEBOT_TEST_CLIENTS", "docker").split()

SKELEBOT = f"{sys.executable} -m skelebot"  # in a shell's words
_SETPRIV = shutil.which("setpriv") or "setpriv"
ORDINARY = 12345  # the UID and GID of an ordinary user; root can be any

# What a caller's environment must not bring into a test.
_FOREIGN = (
    *(
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "CONDA_DEFAULT_ENV",
        "SKELEBOT_BASE_IMAGE",
        "SKELEBOT_CRAN",
        "SKELEBOT_DOCKER",
    ),
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The ERROR lines."""
        return [line for line in self.err.splitlines() if line.startswith("ERROR | ")]


@dataclass(frozen=True)
class Sandbox:
    """A folder with a project, and who works in it."""

    root: Path
    uid: int
    env: Mapping[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str | bytes, mode: int | None = None) -> Path:
        path = self.root / name
        missing = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        if mode is not None:
            path.chmod(mode)
        if os.getuid() == 0:
            for made in (path, *missing):
                os.chown(made, self.uid, self.uid)
        return path

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def owner(self, name: str) -> int:
        return (self.root / name).lstat().st_uid

    def with_env(self, **env: str) -> "Sandbox":
        return replace(self, env={**self.env, **env})

    def without_env(self, *names: str) -> "Sandbox":
        return replace(self, env={n: v for n, v in self.env.items() if n not in names})

    def popen(self, *argv: str | bytes, **options: Any) -> "subprocess.Popen[bytes]":
        """A program as the sandbox's user."""
        if os.getuid() == 0 and self.uid != 0:
            # Python itself would copy the tables of its memory for each program: 20 ms in place of 3.
            argv = (_SETPRIV, f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", *argv)
        options.setdefault("cwd", self.root)
        return subprocess.Popen(argv, env=dict(self.env), **options)

    def start(self, *words: str | bytes, **options: Any) -> "subprocess.Popen[bytes]":
        options.setdefault("stdin", subprocess.DEVNULL)
        return self.popen(sys.executable, "-m", "skelebot", *words, **options)

    def run(self, *words: str | bytes, stdin: bytes = b"", timeout: float = 300, **options: Any) -> Result:
        """Runs Skelebot to its end."""
        options |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.start(*words, **options) as child:
            try:
                out, err = child.communicate(stdin, timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                raise
        return Result(child.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    def ok(self, *words: str | bytes, **options: Any) -> str:
        """Runs Skelebot, which must succeed, and gives its stdout."""
        result = self.run(*words, **options)
        assert result.code == 0, result
        return result.out


def _environment(home: Path) -> dict[str, str]:
    env = {n: v for n, v in os.environ.items() if n not in _FOREIGN}
    source = Path(skelebot.__file__).parent
    # A checkout that is tried without being installed has to be found from other folders.
    path = {} if Path(sys.prefix) in source.parents else {"PYTHONPATH": str(source.parent)}
    return env | {"HOME": str(home)} | path


def make_sandbox(uid: int) -> Iterator[Sandbox]:
    # Not pytest's own folder, which other users cannot enter.
    top = Path(tempfile.mkdtemp(prefix="skelebot-test-"))
    top.chmod(0o755)
    for name in ("home", "project"):
        (top / name).mkdir()
        if os.getuid() == 0:
            os.chown(top / name, uid, uid)
    env = _environment(top / "home")
    if uid != os.getuid():
        env.pop("UV_CACHE_DIR", None)  # it belongs to the one who runs the tests
    yield Sandbox(top / "project", uid, env)
    shutil.rmtree(top, ignore_errors=True)


def with_skelebot(sandbox: Sandbox) -> Sandbox:
    """The sandbox with a command `skelebot` on its PATH."""
    folder = os.path.dirname(sys.executable)
    if not shutil.which("skelebot", path=folder):
        script = f'#!/bin/sh\nexec "{sys.executable}" -m skelebot "$@"\n'
        folder = str(sandbox.write("../bin/skelebot", script, 0o755).parent.resolve())
    return sandbox.with_env(PATH=f"{folder}{os.pathsep}{sandbox.env['PATH']}")


def docker(*words: str, check: bool = True) -> str:
    """What the Docker client answers."""
    done = subprocess.run([CLIENTS[0], *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


def has_buildkit(client: str) -> bool:
    """Whether a client builds with BuildKit: built in before version 23, a plugin since."""
    asked = [client, "version", "--format", "{{.Client.Version}}"]
    version = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    if int(version.split(".")[0] or 0) < 23:
        return True
    return subprocess.run([client, "buildx", "version"], capture_output=True, check=False).returncode == 0


def containers(name: str) -> list[str]:
    """The names of a project's containers, running or not."""
    labels = ("--filter", f"label=skelebot.project={name}", "--filter", "label=skelebot.job")
    return docker("ps", "-a", *labels, "--format", "{{.Names}}").split()


# A process of its own, as the peak of one that starts another counts as that other's.
_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


def peak_memory(sandbox: Sandbox, *words: str) -> int:
    """The most memory that Skelebot has taken for a command, in MB."""
    argv = (sys.executable, "-c", _PEAK, sys.executable, "-m", "skelebot", *words)
    with sandbox.popen(*argv, stdout=subprocess.PIPE) as measured:
        out, _ = measured.communicate(timeout=300)
    return int(out)


# --- projects ---


def project(sandbox: Sandbox, name: str, *jobs: str, **keys: str) -> None:
    """A project on the test's base image, with jobs as YAML flow mappings."""
    keys = {"name": name, "baseImage": BASE, **keys}
    lines = [*(f"{k}: {v}" for k, v in keys.items()), "jobs:"]
    sandbox.write("skelebot.yaml", "\n".join([*lines, *(f"- {job}" for job in jobs)]) + "\n")


def job(source: str, name: str = "run", **keys: str) -> str:
    more = "".join(f", {k}: {v}" for k, v in keys.items())
    return f"{{name: {name}, source: {json.dumps(source)}, help: h{more}}}"


def queueing(sandbox: Sandbox, *jobs: str, **keys: str) -> Sandbox:
    """A project of native jobs, whose runs are in a store beside it."""
    own = sandbox.with_env(SKELEBOT_STORE=str(sandbox.root.parent / "store"))
    project(own, "demo", *(each.replace("help: h", "help: h, native: always") for each in jobs), **keys)
    return own


def runs_of(sandbox: Sandbox, **options: Any) -> dict[int, Any]:
    """All runs of the sandbox's store by their numbers, as `runs --json` shows them."""
    shown = json.loads(sandbox.ok("runs", "--all", "--json", "--last", "9999", **options))
    return {each["run"]: each for each in shown}


def run_folder(sandbox: Sandbox, number: int) -> Path:
    return Path(sandbox.env["SKELEBOT_STORE"], "runs", f"{number:06d}")


# A job that takes a moment to clean up when it is asked to end.
CLEANING = """
import signal, sys, time
def end(signum, frame):
    time.sleep(0.7)
    open("out/cleaned", "w").write(str(signum))
    sys.exit(7)
for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(s, end)
open("out/ready", "w").close()
time.sleep(60)
"""


# --- waiting and terminals ---


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is true; asks less often the longer it takes, as asking takes what others need."""
    begin = time.monotonic()
    while not condition():
        waited = time.monotonic() - begin
        assert waited < seconds, "it never came true"
        time.sleep(min(max(0.05, waited / 10), 0.5))


class Terminal:
    """A shell command on a pseudo-terminal, as its session's leader."""

    def __init__(self, sandbox: Sandbox, command: str) -> None:
        self.output = b""
        pid, self.fd = pty.fork()
        if pid == 0:
            os.chdir(sandbox.root)
            os.execvpe("bash", ["bash", "-c", command], dict(sandbox.env))
        self.pid = pid

    def send(self, data: bytes) -> None:
        os.write(self.fd, data)

    def expect(self, text: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while text.encode() not in self.output:
            ready, _, _ = select.select([self.fd], [], [], max(end - time.monotonic(), 0))
            assert ready, f"{text!r} did not come: {self.output!r}"
            try:
                self.output += os.read(self.fd, 65536)
            except OSError:
                raise AssertionError(f"ended without {text!r}: {self.output!r}") from None

    def close(self, seconds: float = 120) -> int:
        """Its exit code, once it has ended by itself."""
        end = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while select.select([self.fd], [], [], max(end - time.monotonic(), 0))[0]:
                if not os.read(self.fd, 65536):
                    break
            else:
                os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        assert time.monotonic() < end, "it did not end"
        return os.waitstatus_to_exitcode(status)
