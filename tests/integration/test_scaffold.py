"""`skelebot scaffold` on a terminal, as different users, and what it makes, run."""

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import BASE, ORDINARY, R_BASE, SCIENCE, SKELEBOT, Sandbox, Terminal, make_sandbox, wait_for

QUESTIONS = ("Project name", "Description", "Maintainer", "Contact", "Language", "Template")


@pytest.fixture
def ordinary() -> Iterator[Sandbox]:
    """Somebody who is not root."""
    yield from make_sandbox(ORDINARY if os.getuid() == 0 else os.getuid())


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def answered(screen: Terminal, *answers: str) -> None:
    """Gives the answers to the questions in their order."""
    for question, answer in zip(QUESTIONS, answers, strict=False):
        screen.expect(question)
        screen.send(f"{answer}\n".encode())


# --- on a terminal ---


def test_the_questions_are_asked_and_the_answers_taken(sandbox: Sandbox) -> None:
    screen = Terminal(sandbox, f"{SKELEBOT} scaffold; echo status $?")
    answered(screen, "Zoë's {{ rain }}", "How much?", "", "", "Ruby")
    screen.expect("expected Python or R or R+Python")
    screen.send(b"\n")
    screen.expect("Template (default, dash, or a Git URL or a folder")
    screen.send(b"r\n")
    screen.expect("expected default, dash, a Git URL or a folder")
    screen.send(b"dash\n")
    screen.expect("Port of the dashboard [8050]")
    screen.send(b"8051\n")
    screen.expect("src/dashboard.py")
    screen.expect("Continue? (yes, no) [yes]")
    assert names(sandbox.root) == set()  # nothing is written before it is asked for
    screen.send(b"maybe\n")
    screen.expect("expected yes or y or no or n")
    screen.send(b"y\n")
    screen.expect("status 0")
    assert screen.close() == 0
    help = sandbox.ok("-h")
    assert help.startswith("Zoë's {{ rain }} · 0.1.0\nHow much?\n")
    assert "http://127.0.0.1:8051 [src/dashboard.py]" in help


def test_what_an_option_answers_is_not_asked(sandbox: Sandbox) -> None:
    given = "--name x --description=d --maintainer m --contact c --language R --template r"
    screen = Terminal(sandbox, f"{SKELEBOT} scaffold {given}; echo status $?")
    screen.expect("Continue?")
    assert not any(question.encode() in screen.output for question in QUESTIONS)
    screen.send(b"no\n")
    screen.expect("nothing was written")
    screen.expect("status 1")
    screen.close()
    assert names(sandbox.root) == set()


def test_a_template_for_another_language(sandbox: Sandbox) -> None:
    sandbox.write("../own/template.yaml", "languages: [R]\n")
    screen = Terminal(sandbox, f"{SKELEBOT} scaffold; echo status $?")
    answered(screen, "", "", "", "", "Python", "../own")
    screen.expect(f"the template {sandbox.root.parent}/own is for R, not Python")
    screen.expect("status 2")
    screen.close()


def test_git_asks_nobody_for_a_password(sandbox: Sandbox) -> None:
    """Not even on a terminal, where it could."""
    with locked_server() as port:
        url = f"http://127.0.0.1:{port}/t"
        screen = Terminal(sandbox, f"{SKELEBOT} scaffold --template {url}; echo status $?")
        screen.expect(f"{url} could not be fetched: could not read Username")
        screen.expect("status 1")
        screen.close()
    assert list(sandbox.root.iterdir()) == []


@contextmanager
def locked_server() -> Iterator[int]:
    """The port of a web server that lets nobody in."""

    class Locked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("count", [0, 3, 6])
def test_ctrl_c_at_a_question(sandbox: Sandbox, count: int) -> None:
    screen = Terminal(sandbox, f"{SKELEBOT} scaffold; echo status $?")
    answered(screen, *[""] * count)
    screen.expect([*QUESTIONS, "Continue?"][count])
    screen.send(b"\x03")
    screen.expect("\r\n\x1b[31mERROR\x1b[0m | interrupted\r\n")
    screen.expect("status 130")
    screen.close()
    assert list(sandbox.root.iterdir()) == []


def test_the_end_of_the_input_and_odd_bytes(sandbox: Sandbox) -> None:
    screen = Terminal(sandbox, f"{SKELEBOT} scaffold; echo status $?")
    screen.expect("Project name")
    screen.send(b"\xff\xfe\n")
    screen.expect("expected text on one line, without control characters")
    screen.send(b"\x04")
    screen.expect("the input ended before all questions were answered; nothing was written")
    screen.expect("status 1")
    screen.close()
    assert list(sandbox.root.iterdir()) == []


def test_without_a_terminal_it_neither_waits_nor_writes(sandbox: Sandbox) -> None:
    with sandbox.start("scaffold", stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stderr  # stdin stays open: whoever reads it would wait
        assert b"there is no terminal to ask on; give --name, --description" in child.stderr.read()
        assert child.wait(60) == 2
    assert list(sandbox.root.iterdir()) == []


# --- all or nothing ---


def test_it_is_the_callers(anyone: Sandbox) -> None:
    anyone.ok("scaffold", "-y", "--name", "x")
    assert {path.lstat().st_uid for path in anyone.root.rglob("*")} == {anyone.uid}
    assert (anyone.root / "src/jobs/example.py").stat().st_mode & 0o777 == 0o644
    anyone.ok("-n", "--dry-run", "example")


def test_a_failure_half_way_takes_everything_back(ordinary: Sandbox) -> None:
    ordinary.write("README.md", "mine", 0o600)
    ordinary.write("tests/x", "mine")
    (ordinary.root / "tests").chmod(0o555)  # among the last to be written to
    before = sorted(ordinary.root.rglob("*"))
    result = ordinary.run("scaffold", "-y", "--force")
    assert result.code == 1
    said = "ERROR | tests/test_example.py cannot be written: permission denied; nothing was changed"
    assert result.errors == [said]
    assert sorted(ordinary.root.rglob("*")) == before
    assert ordinary.read("README.md") == "mine"


def test_a_folder_that_cannot_be_written(ordinary: Sandbox) -> None:
    ordinary.root.chmod(0o555)
    result = ordinary.run("scaffold", "-y")
    assert (result.code, len(result.errors)) == (1, 1)
    assert result.errors[0].endswith("cannot be written: permission denied")


def test_of_two_at_once_one_makes_the_project(sandbox: Sandbox) -> None:
    children = [sandbox.start("scaffold", "-y", "--name", n, stderr=subprocess.DEVNULL) for n in ("a", "b")]
    codes = [child.wait(60) for child in children]
    assert sorted(codes) in ([0, 1], [0, 2])
    name = "ab"[codes.index(0)]
    assert sandbox.ok("-h").startswith(f"{name} · 0.1.0\n")
    assert sandbox.read("README.md").startswith(f"# {name}\n")
    assert [p.name for p in sandbox.root.iterdir() if p.name.startswith(".skelebot-new")] == []


# --- what is made works ---


@pytest.mark.engine
def test_the_default_project(sandbox: Sandbox, name: str) -> None:
    """In Docker and natively; the science image has its packages."""
    sandbox.ok("scaffold", "-y", "--name", name)
    here = sandbox.with_env(SKELEBOT_BASE_IMAGE=SCIENCE)
    out = here.ok("example", "--rows", "5", "+", "test")
    assert "fitted to 5 rows; it is in models/example.json\n" in out
    assert "2 passed" in out
    assert len(sandbox.read("data/example.csv").splitlines()) == 6
    assert json.loads(sandbox.read("models/example.json"))["slope"] == pytest.approx(2, abs=0.2)
    assert "y = 2.0 x + 1.0, fitted to 100 rows" in here.ok("-n", "example")
    tidy(sandbox)


@pytest.mark.engine
def test_the_dashboard(sandbox: Sandbox, name: str) -> None:
    """It is served at once, in Docker and natively, and shows what the example makes."""
    port = free_port()
    sandbox.ok("scaffold", "-y", "--name", name, "--template", "dash", "--var", f"port={port}")
    here = sandbox.with_env(SKELEBOT_BASE_IMAGE=SCIENCE)
    with served(here, port, "run"):
        assert figure(port) == 90
    out = here.ok("-n", "example", "--days", "12", "+", "test")
    assert "12 days in data/example.csv" in out
    assert "2 passed" in out
    with served(here, port, "-n", "run"):
        assert figure(port) == 12
    tidy(sandbox)


@pytest.mark.engine
@pytest.mark.r
def test_the_project_in_r(sandbox: Sandbox, name: str) -> None:
    """Its packages come from Debian, as no CRAN can be reached from where the tests run."""
    sandbox.ok("scaffold", "-y", "--name", name, "--language", "R")
    with open(sandbox.root / "skelebot.yaml", "a", encoding="utf-8") as file:
        file.write("\nbuild:\n  packages: [r-cran-data.table, r-cran-jsonlite]\n")
    out = sandbox.with_env(SKELEBOT_BASE_IMAGE=R_BASE).ok("example", "--rows", "7", "+", "test")
    assert "y = 2.0 x + 1.0, fitted to 7 rows; it is in models/example.json\nall is well\n" in out
    assert len(sandbox.read("data/example.csv").splitlines()) == 8
    assert json.loads(sandbox.read("models/example.json"))["slope"] == pytest.approx(2, abs=0.2)


@pytest.mark.engine
def test_a_package_in_src(sandbox: Sandbox, name: str) -> None:
    """Its modules find each other in Docker as they do natively."""
    main = "from pkg.share import NAME\n\nif __name__ == '__main__':\n    print(NAME)\n"
    sandbox.write("src/pkg/__init__.py", "")
    sandbox.write("src/pkg/share.py", "NAME = 'shared'\n")
    sandbox.write("src/pkg/train.py", main)
    sandbox.ok("scaffold", "-e", "-y", "--name", name)
    here = sandbox.with_env(SKELEBOT_BASE_IMAGE=BASE)
    assert (here.ok("train"), here.ok("-n", "train")) == ("shared\n", "shared\n")


def tidy(sandbox: Sandbox) -> None:
    """The project's code is as a linter would have it, and git is shown what belongs to it alone."""
    ruff = [sys.executable, "-m", "ruff", "--isolated"]
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *words, "src", "tests"], cwd=sandbox.root, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
    subprocess.run(["git", "init", "--quiet"], cwd=sandbox.root, check=True)
    listed = ["git", "ls-files", "--others", "--exclude-standard"]
    shown = subprocess.run(
        listed, cwd=sandbox.root, check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"skelebot.yaml", ".skelebot-template.yaml", "VERSION", "data/.gitkeep"} <= set(shown)
    assert not [
        n for n in shown if n.startswith((".skelebot/", "data/example", "models/example", "Dockerfile"))
    ]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def served(sandbox: Sandbox, port: int, *words: str) -> Iterator[None]:
    """The dashboard, while the block runs."""
    with sandbox.start(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        try:
            wait_for(lambda: child.poll() is not None or answers(port), 600)
            assert child.poll() is None, child.stdout and child.stdout.read().decode()
            yield
        finally:
            child.terminate()
            child.communicate(timeout=60)
    assert child.returncode == 143


def answers(port: int) -> bool:
    try:
        return "<title>" in fetch(port, "/")
    except OSError:
        return False


def figure(port: int) -> int:
    """How many points the graph has, that the dashboard gives to a browser."""
    (call,) = json.loads(fetch(port, "/_dash-dependencies"))
    asked = {
        "output": call["output"],
        "outputs": {"id": "graph", "property": "figure"},
        "inputs": [{"id": "measure", "property": "value", "value": "visitors"}],
        "changedPropIds": [],
    }
    answer: Any = json.loads(fetch(port, "/_dash-update-component", json.dumps(asked).encode()))
    return len(answer["response"]["graph"]["figure"]["data"][0]["x"])


def fetch(port: int, path: str, body: bytes | None = None) -> str:
    """What the server on this machine answers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return str(answer.read().decode())
