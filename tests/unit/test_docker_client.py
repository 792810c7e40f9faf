"""Docker's client and engine, and what is made of their answers, however odd."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from skelebot.errors import SkelebotError
from skelebot.model import Task
from skelebot.runners.docker.client import BuiltImage, Client, _endpoint, explained

from .fake_client import FakeClient, engine_at, make_client
from .helpers import run_cli, write

ID = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    return make_client(tmp_path, monkeypatch)


def image(**more: Any) -> str:
    return json.dumps({"Id": ID, "Config": {"User": "me", "Labels": {"a": "b"}}, **more})


# --- what the client answers ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "{}"),
        ("null", "null"),
        ("[]", "[]"),
        ("3", "3"),
        ("\0", r"\x00"),
        ("", "nothing"),
        ("Emulate Docker CLI using podman\n", "Emulate Docker CLI using podman"),
        ('{"Id": "sha256:12', '{"Id": "sha256:12'),
        ('{"Id": 3}', '{"Id": 3}'),
        ('{"Id": "x", "Config": []}x', '{"Id": "x", "Config": []}x'),
        ('{"Id": "x", "Config": {"Labels": ["a"]}}', '{"Id": "x", "Config": {"Labels": ["a"]}}'),
        ('{"Id": "x", "Config": "y"}', '{"Id": "x", "Config": "y"}'),
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("x" * 200, "x" * 80),
    ],
)
def test_an_answer_that_is_no_image_is_quoted(fake: FakeClient, text: str, said: str) -> None:
    fake.says("image inspect", text)
    with pytest.raises(SkelebotError) as error:
        Client(None).inspect("x")
    assert str(error.value) == (
        f"`{fake.program} image` did not answer like the Docker client: {said}; check which program that is"
    )


def test_an_image(fake: FakeClient) -> None:
    fake.says("image inspect", image())
    assert Client(None).inspect("x") == BuiltImage(ID, "me", {"a": "b"})
    fake.says("image inspect", json.dumps({"Id": ID, "Config": None}))
    assert Client(None).inspect("x") == BuiltImage(ID, "", {})
    fake.says("image inspect", "\n", 1, "Error: No such image: x\n")
    assert Client(None).inspect("x") is None
    fake.says("image inspect", "", 1, "Cannot connect to the Docker daemon\n")
    with pytest.raises(SkelebotError, match="no Docker engine answers at the default socket"):
        Client(None).inspect("x")


def test_ids_are_listed_once_and_are_ids(fake: FakeClient) -> None:
    fake.says("ps", f"{ID}\n{OTHER}\n{ID}\n{'c' * 64}\n")
    assert Client(None).list_ids("ps") == [ID, OTHER, "c" * 64]
    assert fake.calls.split() == ["ps", "--quiet", "--no-trunc"]
    for text in ("abc\n", f"{ID}0\n", f"{ID}\nWARNING\n", "NAMES STATUS\n"):
        fake.says("ps", text)
        with pytest.raises(SkelebotError, match="did not answer like the Docker client"):
            Client(None).list_ids("ps")


def test_what_has_gone_since_it_was_listed_is_left_out(fake: FakeClient) -> None:
    fake.says("image inspect", f"{image()}\n\n{image(Id=OTHER)}\n", 1, "Error: No such image: z\n")
    assert Client(None).inspect_all(["x", "y", "z"], lambda found: found["Id"], "image") == [ID, OTHER]
    assert Client(None).inspect_all([], lambda found: found) == []


def test_a_host_is_named_to_the_client(fake: FakeClient) -> None:
    assert Client("ssh://me@far").step("ps").argv[1:] == ("--host", "ssh://me@far", "ps")
    assert Client("far").step("ps").argv[1:] == ("--context", "far", "ps")
    assert Client(None).step("ps").argv[1:] == ("ps",)


def test_the_time_is_limited(fake: FakeClient) -> None:
    fake.says("version", "", hook="sleep 60")
    with pytest.raises(SkelebotError, match=r"^no Docker engine answers at ssh://far in 0\.3 seconds; check"):
        Client("ssh://far").query("version", timeout=0.3)


@pytest.mark.parametrize(
    ("host", "variable", "endpoint", "expected"),
    [
        (None, None, None, False),
        ("unix:///x", None, None, False),
        ("fd://3", None, None, False),
        ("ssh://far", None, None, True),
        ("tcp://127.0.0.1:1", None, None, True),
        ("far", None, "ssh://far\n", True),
        ("near", None, "unix:///x\n", False),
        ("odd", None, "null\n", False),
        (None, "far:2375", None, True),
        (None, "unix:///x", None, False),
    ],
)
def test_which_engine_is_on_another_machine(
    fake: FakeClient,
    monkeypatch: pytest.MonkeyPatch,
    host: str | None,
    variable: str | None,
    endpoint: str | None,
    expected: bool,
) -> None:
    if variable:
        monkeypatch.setenv("DOCKER_HOST", variable)
    if endpoint:
        fake.says("context inspect", endpoint)
    assert Client(host).is_remote is expected
    assert bool(fake.calls) == bool(endpoint)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('{"currentContext": "far"}', True),
        ('{"currentContext": "default"}', False),
        ("{}", False),
        ("[]", True),  # the client says what is wrong with it
    ],
)
def test_the_context_that_the_client_is_set_to(fake: FakeClient, config: str, expected: bool) -> None:
    (fake.folder / "config.json").write_text(config)
    fake.says("context inspect", "ssh://far\n")
    assert Client(None, verbose=config == "[]").is_remote is expected
    _endpoint.cache_clear()


# --- sizes, of which nobody depends on knowing them ---


def test_sizes_as_the_client_shows_them(fake: FakeClient) -> None:
    images = [{"ID": ID, "Repository": "p", "Tag": "latest", "UniqueSize": "1.5kB"}]
    found = {"Images": images, "Containers": [{"ID": "c", "Names": "run", "Size": "2MB (virtual 1GB)"}]}
    fake.says("system df", json.dumps(found))
    assert Client(None).own_sizes() == {ID: 1500, "p:latest": 1500, "c": 2_000_000, "run": 2_000_000}


@pytest.mark.parametrize(
    "text",
    [
        "TYPE  TOTAL  ACTIVE  SIZE  RECLAIMABLE\nImages 3 1 5.1GB 2GB (40%)\n",
        "",
        "null",
        "[]",
        '{"Images": [{}]}',
        '{"Images": 3}',
        '{"Images": [{"ID": "x", "Repository": "r", "Tag": "t", "UniqueSize": "1.2.3B"}]}',
    ],
)
def test_sizes_that_are_not_known(fake: FakeClient, text: str) -> None:
    fake.says("system df", text)
    assert Client(None).own_sizes() == {}


# --- the engine's socket ---


def test_the_socket_is_asked_before_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = make_client(tmp_path, monkeypatch, "docker")
    containers = [{"Names": ["/run-1"], "Labels": {"maker": "7-9"}}, {"Names": ["/run-2"], "Labels": {}}]
    disk = {
        "Images": [{"Id": ID, "Size": 9, "SharedSize": 4, "RepoTags": ["p:latest"]}],
        "Containers": [{"Id": "c", "Names": ["/run-1"], "SizeRw": 7}, {"Id": "d", "Names": ["/run-2"]}],
    }
    answers = {
        "/images/gone/": '{"message": "No such image: gone"}',
        "/images/": image(),
        "/containers/json": json.dumps(containers),
        "/system/df": json.dumps(disk),
    }
    with engine_at(tmp_path / "engine", answers) as asked:
        client = Client(f"unix://{tmp_path}/engine")
        assert client.inspect("x") == client.inspect_quickly("x") == BuiltImage(ID, "me", {"a": "b"})
        assert client.inspect("gone") is None
        assert client.created_containers({"k": "v"}, "maker") == {"run-1": "7-9", "run-2": ""}
        assert client.own_sizes() == {ID: 5, "p:latest": 5, "c": 7, "run-1": 7, "d": 0, "run-2": 0}
    assert asked[0] == "/images/x/json"
    assert "%22label%22%3A+%5B%22k%3Dv%22%5D" in asked[3]
    assert fake.calls == ""


@pytest.mark.parametrize("answer", ["", "x", "{", "<html>", '{"Id": 3}', '{"Id": "x", "Config": "y"}'])
def test_what_answers_at_the_socket_may_be_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    fake = make_client(tmp_path, monkeypatch, "docker")
    fake.says("image inspect", image())
    with engine_at(tmp_path / "engine", {"": answer}):
        client = Client(f"unix://{tmp_path}/engine")
        if answer.endswith("}"):
            with pytest.raises(SkelebotError, match="did not answer like the Docker client"):
                client.inspect("x")
        else:
            assert client.inspect("x") == BuiltImage(ID, "me", {"a": "b"})  # as the client answers


def test_containers_that_were_never_started_by_the_client(fake: FakeClient) -> None:
    fake.says("ps", "run-1 7-9\nrun-2 \n")
    client = Client("ssh://far")
    assert client.created_containers({"k": "v"}, "maker") == {"run-1": "7-9", "run-2": ""}
    assert "status=created\n--filter\nlabel=k=v\n" in fake.calls


# --- what a failed client's output means ---


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "dial unix /x: permission denied",
            "no permission on the Docker socket (far); join the group docker",
        ),
        ('context "x": context not found', "there is no Docker context far; see `docker context ls`"),
        ("Cannot connect to the Docker daemon", "no Docker engine answers at far; start it"),
        ("Error response from daemon: <html>", "no Docker engine answers at far; start it"),
        ("write /x: no space left on device", "the Docker engine's disk is full; free some with"),
        ("manifest unknown", "the base image b cannot be pulled; check its name"),
        ("x\nsomething else\n  \n<!doctype>", "otherwise (something else)"),
        ("", "otherwise"),
        # The step's program could not reach something; the engine was there.
        ("connection refused\nThe command 'x' returned a non-zero code: 1", "otherwise (The command"),
    ],
)
def test_what_a_failure_means(output: str, expected: str) -> None:
    said = explained(Client("far"), output, "otherwise", pulled="b")
    assert str(said).startswith(expected)


def test_a_failure_proposes_a_native_run_where_there_may_be_one() -> None:
    down = "Cannot connect to the Docker daemon"
    for may, expected in ((True, True), (False, False)):
        task = Task("run", ("true",), "/p", may_run_natively=may)
        said = str(explained(Client(None), down, "", task))
        assert ("run the job natively with -n" in said) is expected
    assert "-n" not in str(explained(Client(None), down, ""))


# --- commands, and a program that ends with 0 and prints anything ---

ANSWERS = {
    "banner": "Emulate Docker CLI using podman\n",
    "object": "{}\n",
    "null": "null\n",
    "list": "[]\n",
    "nul": "\0\n",
    "empty": "",
    "html": "<html><body>502 Bad Gateway</body></html>\n",
}
COMMANDS = (
    ("ps",),
    ("logs", "run"),
    ("stop",),
    ("clean",),
    ("exec",),
    ("run",),
    ("-s", "run"),
    ("detached",),
    ("publish", "-t", "1"),
    ("prime",),
    ("prime", "-o", "image.tar"),
)
PROJECT = """\
name: odd
jobs:
- {name: run, source: "true", help: h, params: [{name: token, secret: true, default: hunter2}]}
- {name: detached, source: "true", help: h, mode: d}
components: {registry: {host: registry.example}}
"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """A project, and the client in whose place a program answers."""
    write(tmp_path, PROJECT)
    write(tmp_path, "0.1.0\n", "VERSION")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("SKELEBOT_BASE_IMAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    return make_client(tmp_path, monkeypatch)


def errors(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = run_cli(list(words))
    said = capfd.readouterr().err
    assert "Traceback" not in said
    return code, re.findall("^ERROR [|] (.*)", said, re.MULTILINE)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_any_answer_to_everything_is_one_line(
    odd: FakeClient, words: tuple[str, ...], answer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    odd.says("any", ANSWERS[answer])
    code, lines = errors(words, capfd)
    if answer == "empty" and words[0] in ("ps", "stop", "clean"):  # there is nothing
        assert (code, lines) == (0, [])
    elif answer == "empty" and words[0] == "logs":
        assert (code, lines) == (
            1,
            ["run has no run: it did not run detached (mode: d), or its run was removed"],
        )
    else:
        quoted = {"nul": r"\x00", "empty": "nothing"}.get(answer, ANSWERS[answer].strip())
        assert (code, len(lines)) == (1, 1)
        assert f"did not answer like the Docker client: {quoted};" in lines[0]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_any_answer_after_the_image_was_found_is_at_most_one_line(
    odd: FakeClient, words: tuple[str, ...], answer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a container or a push prints with 0 is that of a job, or of a push without a digest."""
    odd.says("any", ANSWERS[answer])
    odd.says("image inspect", image())
    odd.says("images", "")
    odd.says("ps", f"{'c' * 64}\n" if words[0] in ("ps", "logs", "stop") else "")
    code, lines = errors(words, capfd)
    assert len(lines) == code
    if words[0] == "detached" or (words[0] in ("ps", "logs", "stop") and answer != "empty"):
        assert "did not answer like the Docker client" in lines[0]
