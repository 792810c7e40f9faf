"""Jupyter, in a container and natively, and a notebook in a real browser."""

import fcntl
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import BASE, ORDINARY, SKELEBOT, Sandbox, Terminal, docker, make_sandbox, wait_for

# One name for all that test at the same time, and for the next time: the image takes long to build.
NAME = "skelebot-test-jupyter"


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    sandbox: Sandbox
    child: "subprocess.Popen[bytes]"
    url: str

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    @property
    def token(self) -> str:
        return self.url.partition("token=")[2]

    def status(self, token: str = "", method: str = "GET", path: str = "/api/status") -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, headers={"Authorization": f"token {token}"} if token else {})
        return connection.getresponse().status

    def said(self) -> str:
        return said(self.sandbox)


def said(sandbox: Sandbox) -> str:
    return (sandbox.root.parent / "said").read_text()


@contextmanager
def serving(sandbox: Sandbox, *words: str) -> Iterator[Served]:
    """Skelebot with these words, once it has printed the address."""
    with (
        open(sandbox.root.parent / "said", "wb") as err,
        sandbox.start(*words, stdout=subprocess.PIPE, stderr=err) as child,
    ):
        assert child.stdout
        try:
            url = child.stdout.readline().decode().strip()
            assert url, said(sandbox)
            yield Served(sandbox, child, url)
        finally:
            running = child.poll() is None
            child.terminate()
            code = child.wait(60)
        assert code == 143 or not running


def someone() -> int:
    """An ordinary user where root tests, else oneself."""
    return ORDINARY if os.getuid() == 0 else os.getuid()


# --- in a container ---

YAML = f"""\
name: {NAME}
baseImage: {BASE}
dependencies: ["req:requirements.txt"]
components:
  jupyter:
    mappings: ["shared:/shared"]
    environment: {{UNITS: metric, JUPYTER_CONFIG_DIR: /app/jupyter}}
jobs:
- {{name: has, source: 'python -c "import $1"', help: h, args: [{{name: module}}]}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """Jupyter in a container, with a dependency and the settings of the project."""
    with ExitStack() as stack:
        for sandbox in make_sandbox(someone()):
            sandbox.write("skelebot.yaml", YAML)
            sandbox.write("requirements.txt", "tabulate\n")
            sandbox.write("tornado.py", "raise SystemExit('the server imports the project')\n")
            sandbox.write("src/rain.py", "units = 'mm'\n")
            with open(os.path.join(tempfile.gettempdir(), f"{NAME}.lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # one builds, the others find it built
                served = stack.enter_context(serving(sandbox, "jupyter"))
            yield served
            stack.close()


def images() -> dict[str, str]:
    listed = docker("images", "--no-trunc", "--format", "{{.Tag}} {{.ID}}", NAME)
    return dict(line.split() for line in listed.splitlines())


def cells(sandbox: Sandbox) -> list[dict[str, object]]:
    """The cells of the notebook that was saved; none while it is being written."""
    try:
        return list(json.loads(sandbox.read("Untitled.ipynb"))["cells"])
    except ValueError:
        return []


@pytest.mark.engine
@pytest.mark.browser
def test_a_notebook_in_a_browser(server: Served) -> None:
    from browser import notebook  # brings selenium

    with notebook() as page:
        page.create(server.url)
        rain = '[["Monday", 2.1], ["Tuesday", 0], ["Wednesday", 11.4]]'
        shown = page.run("from tabulate import tabulate", f'tabulate({rain}, ["day", "mm"], tablefmt="html")')
        assert shown.split() == ["day", "mm", "Monday", "2.1", "Tuesday", "0", "Wednesday", "11.4"]
        if os.environ.get("SKELEBOT_TEST_PICTURE"):
            page.picture(os.environ["SKELEBOT_TEST_PICTURE"])
        page.run("import os, rain", 'open("/shared/units", "w").write(os.environ["UNITS"] + rain.units)')
        page.save()
        wait_for(lambda: len(cells(server.sandbox)) == 3)
    first = cells(server.sandbox)[0]
    assert "from tabulate import tabulate" in str(first["source"])
    assert "11.4" in str(first["outputs"])
    assert server.sandbox.read("shared/units") == "metricmm"
    assert {server.sandbox.owner(name) for name in ("Untitled.ipynb", "shared/units")} == {someone()}


@pytest.mark.engine
def test_only_the_token_lets_in(server: Served) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/tree\?token=[0-9a-f]{48}", server.url)
    assert server.status() == 403
    assert server.status("0" * 48) == 403
    assert server.status(server.token) == 200


@pytest.mark.engine
def test_it_is_reached_on_loopback_alone(server: Served) -> None:
    """Another address of the machine leads nowhere; 127.0.0.2 is one on every Linux."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.port), 10)
    published = docker("ps", "--filter", f"publish={server.port}", "--format", "{{.Ports}}")
    assert published == f"127.0.0.1:{server.port}->8888/tcp"


def command_lines() -> list[bytes]:
    """Of every process of this machine."""
    words = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            words.append(path.read_bytes())
    return words


@pytest.mark.engine
def test_the_token_is_in_no_arguments_and_not_in_what_the_engine_shows(server: Served) -> None:
    container = docker("ps", "--quiet", "--filter", f"publish={server.port}")
    assert server.token not in docker("inspect", container)
    words = command_lines()
    assert any(b"--notebook-dir=/app" in each for each in words)
    assert not any(server.token.encode() in each for each in words)
    assert server.token not in server.said()


@pytest.mark.engine
def test_the_projects_image_has_no_jupyter_and_shares_its_layers(server: Served) -> None:
    server.sandbox.ok("has", "tabulate")
    assert "No module named 'notebook'" in server.sandbox.run("has", "notebook").err
    layers = json.loads(docker("inspect", "--format", "{{json .RootFS.Layers}}", f"{NAME}:latest"))
    of_jupyter = json.loads(docker("inspect", "--format", "{{json .RootFS.Layers}}", f"{NAME}:jupyter"))
    assert of_jupyter[: len(layers) - 1] == layers[:-1]  # the last one holds the project's files


@pytest.mark.engine
def test_ctrl_c_after_a_taken_port_and_a_changed_file(server: Served) -> None:
    before = images()["jupyter"]
    server.sandbox.write("tornado.py", "# changed\n")
    server.sandbox.write("jupyter/jupyter_server_config.py", "c.ServerApp.base_url = 'team'\n")
    terminal = Terminal(server.sandbox, f"{SKELEBOT} jupyter --lab --port {server.port}")
    terminal.expect("Ctrl-C stops", 300)
    text = terminal.output.decode()
    # Somebody else may have taken the first of them meanwhile.
    *_, moved = re.findall(rf"port {server.port} is in use; Jupyter uses (\d+)", text)
    assert f"http://127.0.0.1:{moved}/team/lab?token=" in text
    assert docker("ps", "--quiet", "--filter", f"publish={moved}")
    terminal.send(b"\x03")
    assert terminal.close() == 0
    assert docker("ps", "--all", "--quiet", "--filter", f"publish={moved}") == ""
    assert server.status(server.token) == 200
    assert "building" not in text
    assert images()["jupyter"] == before


# --- natively ---


@pytest.fixture(scope="module")
def native() -> Iterator[Sandbox]:
    """A project that runs natively, in whose environments what it needs is installed once."""
    for sandbox in make_sandbox(os.getuid()):
        sandbox.write("skelebot.yaml", """\
            name: native
            dependencies: [tabulate]
            jobs:
            - {name: run, source: 'python -c "import tabulate"', help: h}
            """)  # fmt: skip
        settings = "components: {jupyter: {environment: {PYTHONHOME: /nowhere}}}\n"
        sandbox.write("skelebot-broken.yaml", settings)
        yield sandbox.without_env("XDG_DATA_HOME")


def servers(sandbox: Sandbox) -> list[bytes]:
    """The command lines of the servers of a project that run natively."""
    return [each for each in command_lines() if f"--notebook-dir={sandbox.root}".encode() in each]


def with_jupyter(sandbox: Sandbox) -> Path:
    """The `python` of the environment for notebooks, which a start has made; this one ends early."""
    sandbox.run("-e", "broken", "-n", "jupyter")
    return sandbox.root / ".skelebot/venv-jupyter/bin/python"


def configured(sandbox: Sandbox, text: str) -> Sandbox:
    """The caller with a configuration of Jupyter's own."""
    sandbox.write("../jupyter/jupyter_server_config.py", text)
    return sandbox.with_env(JUPYTER_CONFIG_DIR=str(sandbox.root.parent / "jupyter"))


def test_natively_in_an_environment_of_its_own(native: Sandbox) -> None:
    """The jobs' is not made anew; and a configuration without a token does not count."""
    native.ok("-n", "run")
    caller = configured(native, "c.IdentityProvider.token = ''\n")
    browser = caller.write("../browser", "#!/bin/sh\necho $1 >opened\ncp ${1#file://} page\n", 0o755)
    with serving(caller.with_env(BROWSER=str(browser)), "-n", "jupyter", "--open") as server:
        assert (server.status(), server.status(server.token)) == (403, 200)
        wait_for((native.root / "page").exists)
        assert server.token not in native.read("opened")
        wait_for(lambda: server.url in native.read("page"))
        assert not any(server.token.encode() in words for words in servers(native))
        server.child.send_signal(signal.SIGINT)
        assert server.child.wait(60) == 0
    assert servers(native) == []
    assert not os.path.exists(native.read("opened").strip().removeprefix("file://"))
    assert native.run("-n", "run").err == ""
    environments = {path.name for path in (native.root / ".skelebot").glob("venv*") if path.is_dir()}
    assert environments == {"venv", "venv-jupyter"}


PROVIDER = """
from jupyter_server.auth.identity import IdentityProvider, User

class Provider(IdentityProvider):
    def get_user(self, handler):
        return {}

c.ServerApp.identity_provider_class = Provider
"""
OPEN = PROVIDER.format("User('anyone')")
CLOSED = PROVIDER.format("None")


# As where the signal comes while it logs.
HARD_OF_HEARING = """
from jupyter_server.serverapp import ServerApp

stop, heard = ServerApp._signal_stop, []

def hear(self, *signal):
    heard.append(signal)
    if len(heard) == 2:
        stop(self, *signal)

ServerApp._signal_stop = hear
"""


@pytest.mark.parametrize("more", ["", HARD_OF_HEARING], ids=["at once", "later"])
def test_a_server_that_lets_everyone_in_is_stopped(native: Sandbox, more: str) -> None:
    result = configured(native, OPEN + more).run("-n", "jupyter")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1)
    assert "lets everyone in" in result.errors[0]
    assert servers(native) == []


@pytest.fixture(scope="module")
def certificate(native: Sandbox) -> str:
    path = str(native.root.parent / "certificate.pem")
    words = ("-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", "/CN=elsewhere", "-keyout", path)
    subprocess.run(("openssl", "req", "-x509", *words, "-out", path), check=True, capture_output=True)
    return path


def test_a_configuration_that_moves_the_server(native: Sandbox, certificate: str) -> None:
    """Its base_url, certificate and password apply; its address, port and socket do not."""
    caller = configured(native, f"""\
        from jupyter_server.auth import passwd

        c.PasswordIdentityProvider.hashed_password = passwd("beside the token")
        c.ServerApp.base_url = "/team/notes"
        c.ServerApp.certfile = c.ServerApp.keyfile = {certificate!r}
        c.ServerApp.ip = "0.0.0.0"
        c.ServerApp.port = 9
        c.ServerApp.sock = "/nowhere/jupyter.sock"
        c.ServerApp.root_dir = "/"
        """)  # fmt: skip
    caller = caller.with_env(JUPYTER_PORT="10", JUPYTER_PORT_RETRIES="5", JUPYTER_TOKEN_FILE="/nowhere")
    with serving(caller, "-n", "jupyter", "--bind", "::1", "--port", "8950") as server:
        assert re.fullmatch(r"https://\[::1\]:89\d\d/team/notes/tree\?token=[0-9a-f]{48}", server.url)
        for url in (server.url, server.url.replace("/tree?", "/api/contents/skelebot.yaml?")):
            browser = ("curl", "-sk", "-w", "%{http_code}", "-o", "/dev/null", url)
            assert subprocess.run(browser, capture_output=True, text=True, check=True).stdout == "200"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c.NotebookApp.ip = '0.0.0.0'", "listens on 0.0.0.0:"),
        ("c.JupyterNotebookApp.port = 9", "listens on 127.0.0.1:9 instead of 127.0.0.1:"),
        (CLOSED, "refuses its own token (HTTP 403)"),
        ("c.JupyterApp.show_config = True", "ended before it answered (exit code 0)"),
        ("c.ServerApp.password_required = True", "ended before it answered (exit code 1)"),
    ],
    ids=["address", "port", "denied", "show", "password"],
)
def test_a_configuration_that_keeps_the_server_away_is_an_error(
    native: Sandbox, text: str, expected: str
) -> None:
    result = configured(native, text + "\n").run("-n", "jupyter")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1)
    assert expected in result.errors[0]
    assert servers(native) == []


def test_a_server_that_ends_before_it_answers(native: Sandbox) -> None:
    result = native.run("-e", "broken", "-n", "jupyter")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1)
    assert "ended before it answered (exit code 1)" in result.errors[0]
    assert "No module named 'encodings'" in result.err


def test_without_jupyter_in_an_active_environment(native: Sandbox) -> None:
    native.ok("-n", "run")
    result = native.with_env(VIRTUAL_ENV=str(native.root / ".skelebot/venv")).run("-n", "jupyter")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "before it answered (exit code 1): this Python has no notebook; install it" in result.errors[0]
    assert "Traceback" not in result.err


def test_without_a_token_it_does_not_begin(native: Sandbox) -> None:
    """None reaches it through a `python` that gives it another stdin."""
    python = with_jupyter(native)
    native.write("../deaf/bin/python", f'#!/bin/sh\nexec {python} "$@" </dev/null\n', 0o755)
    result = native.with_env(VIRTUAL_ENV=str(native.root.parent / "deaf")).run("-n", "jupyter")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1)
    assert "before it answered (exit code 1): Jupyter received no token" in result.errors[0]


def test_nobody_is_there_to_read_the_address(native: Sandbox) -> None:
    with native.popen("sh", "-c", f"{SKELEBOT} -n jupyter >&-", stderr=subprocess.PIPE) as child:
        try:
            _, err = child.communicate(timeout=120)
        finally:
            child.kill()
    assert child.returncode == 1
    assert "standard output is closed" in err.decode().splitlines()[-1]
    assert servers(native) == []


def test_a_port_that_is_taken_meanwhile(native: Sandbox, tmp_path: Path) -> None:
    """Between looking and taking, a server takes it that gives everyone what they ask for.

    That is the first time that `python` is started.
    """
    python = with_jupyter(native)
    native.write("../everyone.py", """\
        import http.server, sys

        class Welcome(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()

        server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Welcome)
        open("ready", "w")
        server.serve_forever()
        """)  # fmt: skip
    native.write("../active/bin/python", f"""\
        #!/bin/sh
        if [ ! -e taken ]; then
            for word; do case $word in --port=*) echo "${{word#*=}}" >taken ;; esac; done
            ({sys.executable} ../everyone.py $(cat taken) & echo $! >listener)  # nobody's child
            until [ -e ready ]; do sleep 0.1; done
        fi
        exec {python} "$@"
        """, 0o755)  # fmt: skip
    caller = native.with_env(VIRTUAL_ENV=str(native.root.parent / "active"))
    try:
        with serving(caller, "-n", "jupyter", "--port", "8900") as server:
            taken = int(native.read("taken"))
            assert server.port > taken
            assert f"port {taken} is in use" in server.said()
            server.status(server.token, "POST", "/api/shutdown")  # as the menu in the browser does
            assert server.child.wait(60) == 0
    finally:
        os.kill(int(native.read("listener")), signal.SIGKILL)
    assert servers(native) == []
