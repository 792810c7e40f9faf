"""What `skelebot jupyter` would build and run, what it refuses, and how it watches a server."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from harness import wait_for

from skelebot.component import Session
from skelebot.components.jupyter import Jupyter
from skelebot.components.jupyter import server as server_module
from skelebot.components.jupyter import task as task_module
from skelebot.components.jupyter.options import ServerOptions, joined
from skelebot.components.jupyter.ports import free_ports, is_taken
from skelebot.components.jupyter.server import Server
from skelebot.components.jupyter.task import image_and_task
from skelebot.model import ALL_GPUS, Flags, Image, Mount, Task

from .helpers import load, ordinary_user, problems, run_cli, write

PROJECT = "name: demo\nbaseImage: base\n"
IN_CONTAINER = "--ip=0.0.0.0 --port=8888 --port-retries=0 --ServerApp.sock="


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "VIRTUAL_ENV", "SKELEBOT_BASE_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> "Shown":
    return Shown(tmp_path, capsys)


class Shown:
    """What --dry-run prints for a project."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, yaml: str, *words: str, native: bool = False) -> str:
        write(self.folder, yaml)
        flags = ["-n"] if native else []
        code = run_cli(["--dry-run", *flags, "jupyter", *words])
        out, err = self._capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    def error(self, yaml: str, *words: str) -> str:
        write(self.folder, yaml)
        code = run_cli(list(words))
        out, err = self._capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), err
        return err


def settings(**keys: str) -> str:
    return PROJECT + "components:\n  jupyter:\n" + "".join(f"    {k}: {v}\n" for k, v in keys.items())


def installed(out: str) -> list[str]:
    """The arguments of each installing step."""
    return re.findall(r"RUN skelebot-install (.*)", out)


# --- in Docker ---


def test_without_settings(shown: Shown) -> None:
    out = shown(PROJECT)
    assert "image    demo:jupyter" in out
    assert f" notebook {IN_CONTAINER} --notebook-dir=/app " in out
    assert "port     127.0.0.1:8888:8888\n" in out
    assert f"mapping  {shown.folder} -> /app\n" in out


def test_the_settings(shown: Shown) -> None:
    (shown.folder / "work").mkdir()
    text = settings(
        port="9000", folder="work", lab="true", mappings="[~/more:/more:ro]", environment="{A: 1}"
    )
    out = shown(text)
    assert (
        " jupyterlab --ip=0.0.0.0 --port=8888 --port-retries=0 --ServerApp.sock= --notebook-dir=/app/work "
        in out
    )
    assert "port     127.0.0.1:9000:8888\n" in out
    assert "-> /more:ro\n" in out
    assert "variable A\n" in out


def test_the_command_line_wins(shown: Shown) -> None:
    (shown.folder / "notes").mkdir()
    text = settings(port="9000", folder="work", lab="true")
    out = shown(text, "-p", "9001", "-f", "notes", "--no-lab", "-b", "0.0.0.0")
    assert (
        " notebook --ip=0.0.0.0 --port=8888 --port-retries=0 --ServerApp.sock= --notebook-dir=/app/notes "
        in out
    )
    assert "port     0.0.0.0:9001:8888\n" in out
    assert " jupyterlab --ip" in shown(PROJECT, "--lab")


@pytest.mark.parametrize(("given", "port"), [("::1", "[::1]"), ("[::]", "[::]"), ("192.0.2.1", "192.0.2.1")])
def test_addresses(shown: Shown, given: str, port: str) -> None:
    assert f"port     {port}:8888:8888\n" in shown(PROJECT, "--bind", given)


def test_jupyter_is_added_after_the_dependencies(shown: Shown) -> None:
    out = shown(PROJECT + "dependencies: [numpy, six]\n")
    assert installed(out) == ["numpy", "numpy six", "numpy six notebook"]


@pytest.mark.parametrize(
    ("entry", "words", "added"),
    [
        ("notebook", [], False),
        ("Notebook>=7", [], False),
        ("notebook=7.2", [], False),
        ("jupyter", [], False),
        ("jupyter", ["--lab"], False),
        ("jupyterlab", ["--lab"], False),
        ("jupyterlab", [], True),
        ("notebook", ["--lab"], False),
        ("notebook-shim", [], True),
    ],
)
def test_jupyter_is_not_added_to_dependencies_that_include_it(
    shown: Shown, entry: str, words: list[str], added: bool
) -> None:
    out = shown(PROJECT + f"dependencies: ['{entry}']\n", *words)
    assert installed(out)[1:] == ([f"{entry} notebook"] if added else [])
    assert f"image    demo:{'jupyter' if added else 'latest'}" in out


def test_the_roots_variables_apply_and_its_ports_do_not(shown: Shown) -> None:
    out = shown(PROJECT + "ports: ['8888:8888', '1:2']\nenvironment: {B: 2}\n")
    assert re.findall("^  port +(.*)", out, re.MULTILINE) == ["127.0.0.1:8888:8888"]
    assert "variable B\n" in out


# --- by value ---


def planned(folder: Path, yaml: str) -> tuple[Image, Task]:
    session = Session(load(folder, yaml), (), Flags(), set(), set())
    return image_and_task(Jupyter(), session, options("127.0.0.1"))


def test_the_image_with_jupyter(tmp_path: Path) -> None:
    """It leaves the project's files out, as the mapped folder covers them, but for those that it needs."""
    write(tmp_path, "numpy\n", "requirements.txt")
    image, task = planned(tmp_path, PROJECT + "dependencies: ['req:requirements.txt']\n")
    assert image.tag == "demo:jupyter"
    assert image.ephemeral  # the Dockerfile in the project is that of its own image
    assert image.ignores[-2:] == ("*", "!requirements.txt")
    assert task.mounts == (Mount(str(tmp_path), "/app"),)
    assert (task.user, task.limits.gpus) == ("caller", 0)
    image, task = planned(tmp_path, PROJECT + "commands: [make]\nuser: nobody\ngpu: true\n")
    assert "*" not in image.ignores
    assert (task.user, task.limits.gpus) == ("nobody", ALL_GPUS)


def test_the_image_of_a_custom_dockerfile_is_used_unchanged(tmp_path: Path) -> None:
    write(tmp_path, "FROM base\n", "own")
    image, task = planned(tmp_path, PROJECT + "dockerfile: own\n")
    assert (image.tag, image.ephemeral) == ("demo:latest", False)
    assert "*" not in image.ignores
    assert task.shadowed == ()
    assert planned(tmp_path, PROJECT)[1].shadowed == ("",)


# --- natively ---


def test_natively(shown: Shown) -> None:
    out = shown(PROJECT + "dependencies: [six]\n", "-p", "9000", native=True)
    assert " notebook --ip=127.0.0.1 --port=9000 --port-retries=0 --ServerApp.sock= " in out
    assert f" --notebook-dir={shown.folder} " in out
    assert "python   .skelebot/venv-jupyter, with six, notebook\n" in out
    assert "image" not in out


def test_a_native_run_uses_the_jobs_environment_if_it_has_jupyter(shown: Shown) -> None:
    out = shown(PROJECT + "dependencies: [notebook]\n", native=True)
    assert "python   .skelebot/venv, with notebook\n" in out


# --- what is refused ---


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--port", "0"], "--port: expected a port from 1 to 65535, found '0'"),
        (["--port", "65536"], "from 1 to 65535"),
        (["--port", "٣"], "from 1 to 65535"),
        (["--port", "80a"], "from 1 to 65535"),
        (["--bind", "localhost"], "--bind: expected an address"),
        (["--bind", ""], "--bind: expected an address"),
        (["--bind", "fe80::1%lo"], "--bind: expected an address"),
        (["--folder", ".."], "outside the project"),
        (["--folder", "/"], "outside the project"),
        (["--folder", "link"], "outside the project"),
        (["--folder", "none"], "there is no folder none"),
        (["--folder", "skelebot.yaml"], "there is no folder skelebot.yaml"),
        (["word"], "unexpected argument 'word'"),
    ],
)
def test_wrong_values_are_refused(shown: Shown, words: list[str], expected: str) -> None:
    (shown.folder / "link").symlink_to("/")
    assert expected in shown.error(PROJECT, "jupyter", *words)


@pytest.mark.parametrize("chain", [["jupyter", "-p0", "+", "run"], ["run", "+", "jupyter", "-p0"]])
def test_a_chain_is_refused_before_it_begins(shown: Shown, chain: list[str]) -> None:
    write(shown.folder, "touch ran\n", "run.sh")
    yaml = PROJECT + "jobs: [{name: run, source: run.sh, help: h}]\n"
    shown.error(yaml, "-n", *chain)
    shown.error(f"{yaml}dependencies: ['req:none.txt']\n", "-n", "run", "+", "jupyter")
    assert not (shown.folder / "ran").exists()


def test_an_engine_on_another_machine_is_refused(shown: Shown) -> None:
    found = shown.error(PROJECT, "-d", "ssh://me@far", "jupyter")
    assert "ssh://me@far cannot see this project folder" in found
    assert "ssh -L" in found
    assert "-d default" in shown.error(PROJECT + "host: tcp://far:2375\n", "jupyter")


def test_a_cluster_is_refused(shown: Shown) -> None:
    for found in (
        shown.error(PROJECT, "-d", "k8s://gpu/ml", "jupyter"),
        shown.error(PROJECT + "host: k8s://gpu/ml\n", "jupyter"),
    ):
        assert "the cluster k8s://gpu/ml cannot see this project folder" in found
        assert "use this machine with -d default or -n" in found


def test_a_project_without_python_is_refused(shown: Shown) -> None:
    assert "Jupyter needs Python; set `language: R+Python`" in shown.error(
        PROJECT + "language: R\n", "jupyter"
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("port", "0", "expected a port from 1 to 65535, found the number '0'"),
        ("port", "99999", "found the number '99999'"),
        ("port", "x", "expected a port"),
        ("lab", "3", "expected true or false"),
        ("mappings", "['a:b:c']", "expected FOLDER or LOCAL:CONTAINER"),
        ("mappings", "['other:/app/']", "other:/app/ covers /app"),
        ("mappings", "['other:app/x/..']", "covers /app"),
        ("environment", "{a-b: 1}", "expected a variable's name"),
        ("token", "x", "unknown key"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, key: str, value: str, expected: str) -> None:
    found = problems(tmp_path, settings(**{key: value}))
    assert len(found) == 1
    assert expected in found[0]
    assert re.match(r"skelebot.yaml:\d+:\d+: components.jupyter", found[0])


# --- what runs beside Jupyter ---

STAND_IN = """\
import json, os, pathlib, signal, sys, time

def stop(*_):
    print("stopped", flush=True)
    os._exit(3)

signal.signal(signal.SIGTERM, stop)
server = {"hostname": "::1", "port": 1, "base_url": "/x/", "secure": True, "token": "t", "argv": sys.argv}
time.sleep(0.3)
file = pathlib.Path("run", f"jpserver-{os.getpid()}.json").open("w")
file.write("{")
file.flush()
time.sleep(0.3)
file.write(json.dumps(server)[1:])
file.close()
print(os.environ["JUPYTER_TOKEN"], sys.argv[1:], flush=True)
signal.pause()
"""


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """The script that starts a server, in a folder with what is left of a process of the same number."""
    write(folder, "raise SystemExit('a module of the project')\n", "json.py")
    write(folder, STAND_IN, "site/notebook.py")
    write(folder, "def jupyter_runtime_dir(): return 'run'\n", "site/jupyter_core/paths.py")
    (folder / "run").mkdir()
    script = Path(task_module.__file__).with_name("start_server.py").read_text()
    stale = '{"hostname": "old", "port": 2, "base_url": "/", "secure": false}'
    shell = f"echo '{stale}' >run/jpserver-$$.json; exec \"$@\""
    return subprocess.Popen(
        ("sh", "-c", shell, "sh", sys.executable, "-c", script, *words),
        env={"PYTHONPATH": f"{folder}:{folder / 'site'}", "PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_script_reports_where_the_server_listens(tmp_path: Path) -> None:
    with start(tmp_path, "notebook", "--ip=::1") as child:
        assert child.stdin
        assert child.stdout
        assert child.stderr
        child.stdin.write("abc\n")
        child.stdin.flush()
        assert child.stderr.readline() == "starting Jupyter\n"
        assert child.stderr.readline() == "Jupyter listens: https://[::1]:1/x/\n"
        assert child.stdout.readline() == "abc ['--ip=::1', '--IdentityProvider.token=abc']\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "stopped\n"
        assert (child.wait(60), child.stderr.read()) == (3, "")


@pytest.mark.parametrize(
    ("module", "token", "expected"),
    [("notebook", "", "Jupyter received no token"), ("nowhere", "abc\n", "this Python has no nowhere")],
)
def test_the_script_refuses_to_start(tmp_path: Path, module: str, token: str, expected: str) -> None:
    with start(tmp_path, module) as child:
        _, err = child.communicate(token, 10)
    assert child.returncode == 1
    assert expected in err.splitlines()[-1]


# --- the running server ---


@pytest.mark.parametrize(
    ("bind", "host"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::1", "::1"), ("192.0.2.1",) * 2],
)
def test_where_this_machine_reaches_a_server(bind: str, host: str) -> None:
    assert options(bind).host == host


def test_a_port_in_use_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert port not in free_ports("127.0.0.1", port)
        assert port in free_ports("127.0.0.2", port)
        ended = socket.create_connection(("127.0.0.1", port))
        listening.accept()[0].close()
        ended.close()
    assert next(free_ports("127.0.0.1", port)) == port  # though a connection has just ended there
    with ordinary_user():
        assert not is_taken("127.0.0.1", 80)  # the engine may have the right to use it
    assert set(free_ports("127.0.0.1", 65500)) <= set(range(65500, 65536))


def options(bind: str, port: int = 8888) -> ServerOptions:
    return ServerOptions(port, bind, ".", lab=False, open_browser=False)


Status = Callable[[str, str], int]


@contextmanager
def answering(address: str, status: Status) -> Iterator[int]:
    """The port of a server on this machine; status(path, token) is what it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status(self.path, self.headers["Authorization"]))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    class Web(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with Web((address, 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield web.server_port
        web.shutdown()


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Set by the SIGTERM with which a server is asked to stop."""
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def started(port: int, location: str, native: bool = False, patience: float = 30) -> Server:
    """A server that was started at a port, and has reported where it listens."""
    server = Server(options("127.0.0.1", port), "0.0.0.0:8888", native, False, patience)
    server.on_line("starting Jupyter")
    server.on_line(f"Jupyter listens: {location}")
    return server


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0", "::1", "::"])
@pytest.mark.parametrize("base", ["/", "/a%20b/c/"])
def test_the_address_is_printed_when_the_server_answers(
    bind: str, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(path: str, token: str) -> int:
        return 200 if (path, token) == (f"{base}api/status", f"token {server.token}") else 403

    with answering(bind, status) as port:
        server = Server(options(bind, port), "0.0.0.0:8888", False, False)
        server.on_line("starting Jupyter")
        server.on_line(f"Jupyter listens: http://0.0.0.0:8888{base}")
        for _ in range(100):
            out, err = capsys.readouterr()
            if out:
                break
            threading.Event().wait(0.05)
        server.end()
    assert out == f"http://{joined(server.options.host, port)}{base}tree?token={server.token}\n"
    assert server.token not in err
    assert server.problem is None


def problem(status: Status, location: str = "http://0.0.0.0:8888/", patience: float = 30) -> str:
    """Why a server that answers so is asked to stop."""
    with asked_to_stop() as asked, answering("127.0.0.1", status) as port:
        server = started(port, location, patience=patience)
        assert asked.wait(60)
        server.end()
    assert server.problem
    return server.problem


def test_a_server_that_cannot_be_used_is_asked_to_stop(capsys: pytest.CaptureFixture[str]) -> None:
    assert "lets everyone in" in problem(lambda path, token: 200)
    assert "refuses its own token (HTTP 403)" in problem(lambda path, token: 403)
    assert "listens on 0.0.0.0:9 instead of 0.0.0.0:8888" in problem(
        lambda path, token: 200, "http://0.0.0.0:9/"
    )
    assert "listens on 127.0.0.1:8888 instead" in problem(lambda path, token: 200, "http://127.0.0.1:8888/")
    assert capsys.readouterr().out == ""


def test_a_server_that_goes_on_is_asked_to_stop_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jupyter misses a signal that comes while it logs."""
    monkeypatch.setattr(server_module, "_REPEAT", 0.1)
    requests: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, _: requests.append(signum))
    try:
        with answering("127.0.0.1", lambda path, token: 403) as port:
            server = started(port, "http://0.0.0.0:8888/")
            wait_for(lambda: len(requests) == 3)
            server.end()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_server_that_never_answers_where_it_listens() -> None:
    """It speaks TLS, as it says, which the other side does not."""
    found = problem(lambda path, token: 200, "https://0.0.0.0:8888/x/", patience=0.3)
    assert re.match(r"Jupyter does not answer at https://127.0.0.1:\d+/x/; ", found)


def test_another_server_at_a_native_port_is_not_taken_for_this_one() -> None:
    with answering("127.0.0.1", lambda path, token: 404) as port:
        server = started(port, "http://0.0.0.0:8888/", native=True)
        threading.Event().wait(0.2)
        server.end()
    assert (server.has_answered, server.problem) == (False, None)


def test_a_server_without_a_location_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(options("127.0.0.1"), "0.0.0.0:8888", False, False, patience=0.1)
    server.on_line("ERROR | not yet")
    server.on_line("starting Jupyter")
    server.on_line("compiling")
    threading.Event().wait(0.4)
    server.end()
    assert server.problem is None
    assert capsys.readouterr().err.splitlines() == [
        "WARN  | Jupyter does not answer yet; -V shows its output; last line: compiling"
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Bind for 127.0.0.1:8888 failed: port is already allocated", True),
        ("listen tcp4 127.0.0.1:8888: bind: address already in use", True),
        ("could not be started because port 8888 is not available.", True),
        ("No module named 'encodings'", False),
    ],
)
def test_a_server_that_failed_for_its_port(line: str, expected: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        server = Server(options("127.0.0.1", taken), "", False, False)
        assert not server.failed_for_its_port()  # it said nothing: it was not started
        server.on_line(line)
        assert server.failed_for_its_port()  # since the port is taken now
    assert server.failed_for_its_port() == expected
    server.has_answered = True
    assert not server.failed_for_its_port()


def test_the_end_of_the_output_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(options("127.0.0.1"), "", False, False)
    assert server.last_line == "no output"
    for number in range(20):
        server.on_line(f"line {number}")
        server.on_line("  ")
    server.on_line("ERROR | kerberos: no ticket")
    server.show_output()
    assert server.last_line == "kerberos: no ticket"  # which the error shows
    assert re.findall(r"line \d+|ticket", capsys.readouterr().err) == [f"line {n}" for n in range(9, 20)]
