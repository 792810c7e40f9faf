"""`skelebot doctor` on machines with everything, and with each thing missing."""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from artifactory_server import PASSWORD, REPO, USER, Server, serving
from harness import SKELEBOT, Result, Sandbox, Terminal, job, project, wait_for

PLAIN = f"name: demo\njobs:\n- {job('true')}\n"


def found(result: Result, code: int) -> dict[str, tuple[bool, str]]:
    """What was found, by the name of each line: whether it is well, and the text."""
    assert (result.code, result.errors) == (code, []), result
    lines = [line.partition(" | ") for line in result.out.splitlines()]
    assert {level for level, _, _ in lines} <= {"ok   ", "WRONG"}
    told = {}
    for level, _, rest in lines:
        name, _, text = rest.partition(": ")
        told[name] = (level == "ok   ", text)
    return told


def artifactory(sandbox: Sandbox, url: str, kind: str = "user_pass") -> None:
    store = f"{{url: {url}, repo: {REPO}, auth: {{authType: {kind}}}}}"
    model = "{name: model, file: model.pkl}"
    sandbox.write(
        "skelebot.yaml",
        f"name: demo\ncomponents:\n  repository: {{artifactory: {store}, artifacts: [{model}]}}\n",
    )


# --- Docker ---


@pytest.mark.engine
def test_with_everything(sandbox: Sandbox, name: str) -> None:
    project(sandbox, name, job("true"))
    told = found(sandbox.run("doctor"), 0)
    assert list(told)[:4] == ["Python", "configuration", "Docker", "builder"]
    assert told["configuration"][1].endswith("project/skelebot.yaml")
    assert told["Docker"][1].startswith("engine ")
    rows = json.loads(sandbox.ok("doctor", "--json"))
    assert [(row["name"], row["ok"], row["advice"]) for row in rows] == [(n, True, None) for n in told]


@pytest.mark.engine
def test_the_builder_is_the_one_of_client_and_engine(classic: Sandbox, buildkit: Sandbox) -> None:
    assert "classic" in found(classic.run("doctor"), 0)["builder"][1]
    assert found(buildkit.run("doctor"), 0)["builder"] == (True, "BuildKit")


@pytest.mark.parametrize(
    ("env", "words", "said"),
    [
        (
            {"SKELEBOT_DOCKER": "no-such-docker"},
            (),
            "no-such-docker is not installed, or not on PATH; install",
        ),
        ({}, ("-d", "tcp://127.0.0.1:1"), "no Docker engine answers at tcp://127.0.0.1:1; start it"),
        (
            {"DOCKER_HOST": "unix:///nosuch.sock"},
            (),
            "no Docker engine answers at unix:///nosuch.sock; start it",
        ),
        ({"DOCKER_HOST": ""}, ("-d", "no-such-context"), "there is no Docker context no-such-context; see"),
    ],
)
def test_without_an_engine(sandbox: Sandbox, env: dict[str, str], words: tuple[str, ...], said: str) -> None:
    well, text = found(sandbox.with_env(**env).run(*words, "doctor"), 1)["Docker"]
    assert (well, text[: len(said)]) == (False, said)


def test_a_native_look_leaves_docker_out(sandbox: Sandbox) -> None:
    told = found(sandbox.with_env(DOCKER_HOST="unix:///nosuch.sock").run("-n", "doctor"), 0)
    assert "Docker" not in told


@pytest.mark.parametrize("kind", ["project", "job"])
def test_the_engine_is_the_one_that_the_project_names(sandbox: Sandbox, kind: str) -> None:
    sandbox.write("skelebot.yaml", PLAIN + "host: tcp://127.0.0.1:1\n")
    words = ("-d", "tcp://127.0.0.1:2") if kind == "job" else ()
    _, text = found(sandbox.run(*words, "doctor"), 1)["Docker"]
    assert f"answers at tcp://127.0.0.1:{'2' if kind == 'job' else '1'};" in text


@pytest.mark.engine
@pytest.mark.parametrize("words", [(), ("-d", "k8s://nowhere")])
def test_the_engine_of_a_cluster_is_the_default_one(sandbox: Sandbox, words: tuple[str, ...]) -> None:
    sandbox.write("skelebot.yaml", PLAIN + "host: k8s://nowhere\n")
    assert found(sandbox.run(*words, "doctor"), 0)["Docker"][0]


# --- the configuration ---


def test_outside_of_a_project(sandbox: Sandbox) -> None:
    told = found(sandbox.run("-n", "doctor"), 0)
    assert told["configuration"] == (True, "no skelebot.yaml in this folder or its parents")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("name: [\n", ["this is not YAML"]),
        ("", ["the file is empty"]),
        ("nam: demo\ngpu: 3\n", ["unknown key; did you mean `name`?", "`name` is missing", "true or false"]),
        (PLAIN + "components: {repository: {local: a, artifacts: [{name: 1}]}}\n", ["`file` is missing"]),
        (PLAIN + "components: {repository: {}}\n", ["expected exactly one of s3, artifactory and local"]),
        (PLAIN + "dependencies: ['req:nosuch.txt', 'file:nosuch.whl']\n", ["nosuch.txt", "nosuch.whl"]),
    ],
)
def test_every_mistake_is_told(sandbox: Sandbox, text: str, problems: list[str]) -> None:
    sandbox.write("skelebot.yaml", text)
    result = sandbox.run("-n", "doctor")
    assert (result.code, result.err) == (1, "")
    lines = [line for line in result.out.splitlines() if " | configuration: " in line]
    assert len(lines) == len(problems)
    for problem in problems:
        assert any(line.startswith("WRONG") and problem in line for line in lines), problem
    assert "ok    | Python: " in result.out


def test_an_environment_that_is_missing_or_wrong(sandbox: Sandbox) -> None:
    sandbox.write("skelebot.yaml", PLAIN)
    sandbox.write("skelebot-dev.yaml", "gpu: 3\n")
    assert (
        "unknown environment 'nosuch'"
        in found(sandbox.run("-n", "-e", "nosuch", "doctor"), 1)["configuration"][1]
    )
    assert (
        "skelebot-dev.yaml:1:6: gpu" in found(sandbox.run("-n", "-e", "dev", "doctor"), 1)["configuration"][1]
    )
    assert found(sandbox.run("-n", "doctor"), 0)["configuration"][0]


def test_a_file_that_cannot_be_read(sandbox: Sandbox) -> None:
    (sandbox.root / "skelebot.yaml").mkdir()
    assert found(sandbox.run("-n", "doctor"), 1)["configuration"] == (
        False,
        "skelebot.yaml cannot be read: is a directory; fix it, and run doctor again",
    )


def test_warnings_are_told_once(sandbox: Sandbox) -> None:
    sandbox.write("skelebot.yaml", PLAIN + "ignore: [a]\ncomponents: {nosuch: {}}\n")
    for words in (("doctor",), ("run", "+", "run")):
        result = sandbox.run("-n", *words)
        assert (result.code, result.err.count("WARN"), result.err.count("nosuch")) == (0, 2, 1), words


def test_the_other_commands_still_say_what_is_wrong(sandbox: Sandbox) -> None:
    sandbox.write("skelebot.yaml", "name: demo\nnosuch: 1\n")
    for words in (["-h"], ["run"], ["doctor", "+", "run"], ["-c"], []):
        result = sandbox.run(*words)
        assert (result.code, result.out, len(result.errors)) == (2, "", 1), words


# --- the store ---


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as server:
        yield server


def test_the_store_takes_the_credentials(sandbox: Sandbox, server: Server) -> None:
    artifactory(sandbox, server.url)
    user = sandbox.with_env(SKELEBOT_ARTIFACTORY_USER=USER, SKELEBOT_ARTIFACTORY_TOKEN=PASSWORD)
    assert found(user.run("-n", "doctor"), 0)["store"] == (
        True,
        f"Artifactory's repository {REPO} can be used",
    )
    wrong = user.with_env(SKELEBOT_ARTIFACTORY_TOKEN="hunter2-secret")
    result = wrong.run("-n", "doctor")
    assert "does not accept these credentials" in found(result, 1)["store"][1]
    assert "hunter2" not in result.out + result.err


def test_nobody_is_asked_for_credentials(sandbox: Sandbox, server: Server) -> None:
    artifactory(sandbox, server.url, "token")
    shell = Terminal(sandbox, f"exec {SKELEBOT} -n doctor")
    shell.expect("WRONG | store: the Artifactory token is not set; set SKELEBOT_")
    assert shell.close() == 1
    assert server.requests == []


def test_a_folder_as_a_store(sandbox: Sandbox) -> None:
    sandbox.write("skelebot.yaml", "name: demo\ncomponents: {repository: {local: store}}\n")
    assert found(sandbox.run("-n", "doctor"), 0)["store"] == (True, "the folder store can be used")
    sandbox.write("store", "a file")
    assert "cannot be read: not a directory" in found(sandbox.run("-n", "doctor"), 1)["store"][1]


def test_a_store_that_cannot_be_made(anyone: Sandbox) -> None:
    if anyone.uid == 0:
        pytest.skip("root can write everywhere")
    above = anyone.root.parent / "above"
    above.mkdir(mode=0o555)
    anyone.write("skelebot.yaml", "name: demo\ncomponents: {repository: {local: ../above/a/store}}\n")
    wrong, text = found(anyone.run("-n", "doctor"), 1)["store"]
    assert not wrong
    assert "cannot be written: it does not exist, and cannot be created in" in text


# --- what gives no answer ---


@contextmanager
def silent(path: str | None = None) -> Iterator[int]:
    """A server that takes connections and says nothing: on a port, or on a socket of that path."""
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as server:
        server.bind(path or ("127.0.0.1", 0))
        server.listen()
        taken: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield 0 if path else server.getsockname()[1]
        for connection in taken:
            connection.close()


def test_what_gives_no_answer_is_not_waited_for(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.write("../work/slow/__init__.py", SLOW.replace("600", "0"))
    sandbox.ok("plugin", "install", "../work/slow")
    (kept,) = sandbox.root.parent.glob("home/.local/share/skelebot/plugins/slow")
    sandbox.write(f"{kept}/__init__.py", SLOW)
    with silent() as port, silent(str(tmp_path / "sock")):
        artifactory(sandbox, f"http://127.0.0.1:{port}", "token")
        user = sandbox.with_env(DOCKER_HOST=f"unix://{tmp_path}/sock", SKELEBOT_ARTIFACTORY_TOKEN="t")
        told = found(user.run("doctor", timeout=60), 1)
    assert "no Docker engine answers" in told["Docker"][1]
    assert told["repository"][1].startswith("no answer in 15 seconds; check that")
    assert told["plugin slow"][1].startswith("it is switched off: it has not finished after 10 seconds;")
    assert told["Python"][0]
    assert told["disk"][0]


@pytest.mark.engine
def test_a_login_that_is_given_up_leaves_nothing(sandbox: Sandbox) -> None:
    """Neither the settings that the client was lent, nor the client."""
    sandbox.write("../tmp/.keep", "")
    lent = sandbox.root.parent / "tmp"
    caller = sandbox.with_env(
        TMPDIR=str(lent), SKELEBOT_REGISTRY_USER="ada", SKELEBOT_REGISTRY_PASSWORD="hunter2"
    )
    with silent() as port:
        caller.write(
            "skelebot.yaml", PLAIN + f"components: {{registry: {{host: localhost, port: {port}}}}}\n"
        )
        with caller.start("doctor", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            wait_for(lambda: list(lent.glob("skelebot-*")))
            client = wait_for_child(run.pid)
            run.send_signal(signal.SIGINT)
            out, err = run.communicate()
    assert (run.returncode, err.decode()) == (130, "ERROR | interrupted\n")
    assert [path.name for path in lent.iterdir()] == [".keep"]
    assert not client.is_running() or client.status() == psutil.STATUS_ZOMBIE
    assert b"hunter2" not in out


def wait_for_child(pid: int) -> psutil.Process:
    """The client that logs in."""
    found: list[psutil.Process] = []

    def look() -> list[psutil.Process]:
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):  # others come and go
                found.extend([child] * ("login" in child.cmdline()))
        return found

    wait_for(look)
    return found[0]


SLOW = """
import time
from skelebot.component import Component
time.sleep(600)
class COMPONENT(Component):
    pass
"""


# --- plugins ---

LOOKING = """
from skelebot.component import Activation, Check, Component
from skelebot.errors import SkelebotError
class COMPONENT(Component):
    activation = Activation.ALWAYS
    def checks(self, session):
        {body}
"""


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("return [Check('notes', 'fine')]", 0, "ok    | notes: fine"),
        ("return [Check('notes', 'few', 'write more')]", 1, "WRONG | notes: few; write more"),
        ("raise SkelebotError('none here; write one')", 1, "WRONG | plugin notes: none here; write one"),
        ("1 / 0", 1, "WRONG | plugin notes: it is switched off: ZeroDivisionError: division by zero (no"),
        ("import os; os._exit(0)", 1, "WRONG | plugin notes: it is switched off: SystemExit: 0 (notes/__in"),
        ("print('a word'); return []", 0, "ok    | plugin notes: /"),
    ],
)  # fmt: skip
def test_plugins_are_looked_at(sandbox: Sandbox, body: str, code: int, line: str) -> None:
    sandbox.write("../work/notes/__init__.py", LOOKING.format(body=body))
    sandbox.ok("plugin", "install", "../work/notes")
    result = sandbox.run("-n", "doctor")
    found(result, code)
    assert any(each.startswith(line) for each in result.out.splitlines()), result
    if "switched off" in line:
        assert "fix it, or remove it: skelebot plugin remove notes" in result.out


def test_a_plugins_settings_are_looked_at(sandbox: Sandbox) -> None:
    sandbox.write("../work/notes/__init__.py", LOOKING.format(body="return []"))
    sandbox.ok("plugin", "install", "../work/notes")
    sandbox.write("skelebot.yaml", PLAIN + "components: {notes: {titel: a}}\n")
    told = found(sandbox.run("-n", "doctor"), 1)
    assert told["plugin notes"][1].startswith(
        "skelebot.yaml:4:22: components.notes.titel: notes has no settings"
    )
    assert told["configuration"][0]


# --- the disk ---


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_nearly_full(sandbox: Sandbox) -> None:
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(sandbox.root)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        well, text = found(sandbox.run("-n", "doctor"), 1)["disk"]
    finally:
        subprocess.run(["umount", str(sandbox.root)], check=True)
    assert (well, text) == (False, f"0.0 GB free in {sandbox.root}; free at least 2 GB")
