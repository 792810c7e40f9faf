"""What `publish` makes of its settings and words, and what registries' answers mean."""

from pathlib import Path

import pytest

from skelebot.runners.docker.push import Refused, explained

from .helpers import problems, run_cli, write

HOST = "registry.example.com"


def settings(text: str) -> str:
    return f"name: demo\ncomponents:\n  registry: {text}\n"


# --- the settings ---


@pytest.mark.parametrize(
    "text",
    [
        "{host: docker.io, user: me}",
        "{user: me}",
        "{host: localhost}",
        "{host: registry, port: 5000}",
        "{host: 10.0.0.1, port: 65535, user: team/sub-team}",
        "{host: 1234.dkr.ecr.eu-west-1.amazonaws.com, aws: {region: eu-west-1, profile: work}}",
    ],
)
def test_good_settings(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, settings(text)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "user: Docker Hub needs the owner"),
        ("{host: docker.io}", "user: Docker Hub needs the owner"),
        ("{host: 'https://registry.example.com'}", "host: expected a host name"),
        ("{host: 'registry:5000'}", "host: expected a host name"),
        ("{host: -a.example.com}", "host: expected a host name"),
        ("{host: registry}", "Docker takes 'registry' for a user of Docker Hub"),
        ("{host: localhost, port: 0}", "port: expected a port from 1 to 65535, found the number '0'"),
        ("{host: localhost, port: 65536}", "port: expected a port from 1 to 65535, found the number '65536'"),
        ("{host: localhost, port: x}", "port: expected a port"),
        ("{host: localhost, user: Team}", "user: expected lower-case letters"),
        ("{host: localhost, user: /team}", "user: expected lower-case letters"),
        ("{host: localhost, aws: {zone: a}}", "aws.zone: unknown key"),
    ],
)
def test_bad_settings(tmp_path: Path, text: str, said: str) -> None:
    [problem] = problems(tmp_path, settings(text))
    assert said in problem
    assert problem.startswith("skelebot.yaml:3:")


# --- the names ---


def shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *words: str,
    version: str | None = "1.4.0",
    text: str = f"{{host: {HOST}}}",
) -> tuple[int, list[str], str]:
    """The exit code of a dry run, the names it would push, and what it says."""
    write(tmp_path, settings(text))
    if version is not None:
        write(tmp_path, version, "VERSION")
    monkeypatch.chdir(tmp_path)
    code = run_cli(["--dry-run", *words])
    out, err = capsys.readouterr()
    return code, [line.removeprefix("push ") for line in out.splitlines() if line.startswith("push ")], err


@pytest.mark.parametrize(
    ("words", "tags"),
    [
        ((), ["1.4.0", "latest"]),
        (("-l",), ["1.4.0"]),
        (("--omit-version",), ["latest"]),
        (("-v", "-l", "-t", "a", "b"), ["a", "b"]),
        (("-t", "a", "--tags", "b"), ["1.4.0", "a", "b", "latest"]),
        (("-t", "latest", "1.4.0", "a", "a"), ["1.4.0", "latest", "a"]),
        (("-t", "_", "-v", "-l"), ["_"]),
        (("-v", "-l", "-t", "x" * 128), ["x" * 128]),
    ],
)
def test_tags(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    tags: list[str],
) -> None:
    code, names, _ = shown(tmp_path, monkeypatch, capsys, "publish", *words)
    assert (code, names) == (0, [f"{HOST}/demo:{tag}" for tag in tags])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{host: localhost, port: 5000}", "localhost:5000/demo"),
        ("{host: docker.io, user: me}", "docker.io/me/demo"),
        ("{user: me}", "docker.io/me/demo"),
        ("{host: r.example.com, port: 1, user: a/b}", "r.example.com:1/a/b/demo"),
    ],
)
def test_the_name_in_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, name: str
) -> None:
    _, names, _ = shown(tmp_path, monkeypatch, capsys, "publish", "-l", text=text)
    assert names == [f"{name}:1.4.0"]


def test_an_environment_has_an_image_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "{}", "skelebot-dev.yaml")
    _, names, _ = shown(tmp_path, monkeypatch, capsys, "-e", "dev", "publish", "-l")
    assert names == [f"{HOST}/demo-dev:1.4.0"]


def test_a_version_with_build_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, names, _ = shown(tmp_path, monkeypatch, capsys, "publish", "-l", version="1.4.0-rc.1+build.5")
    assert names == [f"{HOST}/demo:1.4.0-rc.1_build.5"]


@pytest.mark.parametrize(
    ("words", "version", "said", "code"),
    [
        (("-v", "-l"), "1.0.0", "there is nothing to publish", 1),
        (("-v", "-l", "-t"), "1.0.0", "there is nothing to publish", 1),
        ((), None, "the project has no version", 1),
        ((), "one", "VERSION holds 'one', not a version", 1),
        ((), "1.4", "VERSION holds '1.4', not a version", 1),
        ((), f"1.4.0-{'x' * 128}", "too long for a tag", 1),
        (("-t", "good", "a/b"), "1.0.0", "'a/b' cannot be a tag", 2),
        (("-t", "a:b"), "1.0.0", "'a:b' cannot be a tag", 2),
        (("-t", ".a"), "1.0.0", "'.a' cannot be a tag", 2),
        (("-t", "--", "-a"), "1.0.0", "unexpected argument '-a'", 2),
        (("-t", ""), "1.0.0", "'' cannot be a tag", 2),
        (("-t", "é"), "1.0.0", "'é' cannot be a tag", 2),
        (("-t", "a\n"), "1.0.0", "cannot be a tag", 2),
        (("-t", "x" * 129), "1.0.0", "cannot be a tag", 2),
    ],
)
def test_what_cannot_be_published(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    version: str | None,
    said: str,
    code: int,
) -> None:
    ended, names, err = shown(tmp_path, monkeypatch, capsys, "publish", *words, version=version)
    assert (ended, names, err.count("ERROR | ")) == (code, [], 1)
    assert said in err


def test_without_its_settings_there_is_no_such_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "name: demo\n")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["publish"]) == 2
    assert "publish needs components.registry" in capsys.readouterr().err


# --- the answers of registries, as clients print them ---

SAYS = {
    "no basic auth credentials": "requires a login",
    "denied: requested access to the resource is denied": "refuses demo",
    "unauthorized: authentication required": "refuses demo",
    "denied: Your authorization token has expired. Reauthenticate and try again.": "refuses demo",
    "Error response from daemon: login attempt to http://h/v2/ failed with status: 401 Unauthorized": (
        "refuses demo (login attempt"
    ),
    'Get "https://h/v2/": unauthorized: incorrect username or password': "refuses demo",
    'Get "https://h/v2/": dial tcp 1.2.3.4:443: connect: connection refused': "cannot be reached",
    'Get "https://h/v2/": dial tcp: lookup h on 1.1.1.1:53: no such host': "cannot be reached",
    'Get "https://h/v2/": net/http: request canceled (Client.Timeout exceeded)': "cannot be reached",
    'Get "https://h/v2/": http: server gave HTTP response to HTTPS client': "speaks http",
    'Get "https://h/v2/": x509: certificate signed by unknown authority': "does not trust the certificate",
    "name unknown: The repository with name 'demo' does not exist in the registry": "has no repository",
    "received unexpected HTTP status: 503 Service Unavailable": "demo went wrong (received",
}


@pytest.mark.parametrize(("line", "meaning"), SAYS.items())
def test_answers(line: str, meaning: str) -> None:
    error = explained(
        ["The push refers to repository [h/demo]", line, ""], HOST, "demo", "{reference} went wrong"
    )
    assert meaning in str(error)
    assert isinstance(error, Refused) is meaning.startswith(("requires", "refuses"))


def test_a_push_that_has_begun_was_cut_off() -> None:
    lines = ["a: Pushing", "a: Retrying in 5 seconds", "EOF"]
    assert str(explained(lines, HOST, "demo", "")).startswith("the push of demo was cut off; run again")


def test_a_client_that_says_nothing() -> None:
    assert str(explained([], HOST, "demo", "{reference} went wrong")) == "demo went wrong (without a message)"
