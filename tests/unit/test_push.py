"""Pushing to a registry with a client that gives the answers of a real one, and what those mean."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from skelebot.errors import SkelebotError
from skelebot.model import Task
from skelebot.runners.docker import login, push
from skelebot.runners.docker.client import BuiltImage, Client
from skelebot.runners.docker.login import Credentials
from skelebot.runners.docker.push import Refused

SERVER = "registry.example.com"
NAME = f"{SERVER}/demo:1.0.0"
MINE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
TASK = Task("publish", (), "/nosuch")
ADA = Credentials("ada", "lovelace")

# A client for which each file of the folder `names` is a name of an image, with its id in it.
CLIENT = """#!/bin/bash
cd {folder}
echo "$*" >>log
name=names/$(basename "${{@: -1}}")
case "$1" in
  image) [ -e "$name" ] || {{ echo "Error: No such image: $5" >&2; exit 1; }}
         echo "{{\\"Id\\": \\"$(cat "$name")\\"}}" ;;
  tag) echo "$2" >"$name" ;;
  rmi) rm "$name" ;;
  login) cat >password; cp "$DOCKER_CONFIG/config.json" config; {login} ;;
  push) cp "$DOCKER_CONFIG/config.json" used 2>&-; {push} ;;
  pull) {pull} ;;
esac
"""

MakeClient = Callable[..., Client]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeClient:
    """Makes clients that answer as told; `tmp_path/log` has their arguments."""
    (tmp_path / "names").mkdir()

    def make(push: str = f"echo digest: {MINE}", pull: str = "", login: str = "true") -> Client:
        program = tmp_path / "client"
        program.write_text(CLIENT.format(folder=tmp_path, push=push, pull=pull or missing(), login=login))
        program.chmod(0o755)
        monkeypatch.setenv("SKELEBOT_DOCKER", str(program))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "settings"))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        return Client(None)

    return make


def missing() -> str:
    return "echo 'manifest for demo not found: manifest unknown' >&2; exit 1"


def refusing(text: str) -> str:
    return f"echo 'Error response from daemon: {text}' >&2; exit 1"


def image(id: str = MINE) -> BuiltImage:
    return BuiltImage(id, "", {})


def names(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in (folder / "names").iterdir()}


def pushed(client: Client, *references: str) -> str:
    return push.push(client, SERVER, image(), references, TASK, ())


# --- pushing ---


def test_the_digest_is_that_of_the_registry(client: MakeClient, tmp_path: Path) -> None:
    assert pushed(client(), NAME, f"{SERVER}/demo:latest") == MINE
    assert names(tmp_path) == {"demo:1.0.0": MINE, "demo:latest": MINE}


def test_two_digests_for_one_image_are_an_error(client: MakeClient) -> None:
    answer = f'case "$2" in *latest) echo digest: {OTHER} ;; *) echo digest: {MINE} ;; esac'
    with pytest.raises(SkelebotError, match="someone else published"):
        pushed(client(answer), NAME, f"{SERVER}/demo:latest")


@pytest.mark.parametrize("before", [{}, {"demo:1.0.0": OTHER}])
def test_a_failed_push_gives_the_name_back(
    client: MakeClient, tmp_path: Path, before: dict[str, str]
) -> None:
    for name, id in before.items():
        (tmp_path / "names" / name).write_text(id)
    with pytest.raises(SkelebotError, match="could not be pushed"):
        pushed(client("exit 1"), NAME)
    assert names(tmp_path) == before


def test_a_refusal_is_not_printed_and_a_countdown_once(
    client: MakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["a: Preparing", "a: Retrying in 2 seconds", "a: Retrying in 1 second", "a: Pushed", "denied: x"]
    with pytest.raises(SkelebotError):
        pushed(client(f"printf '%s\\n' '{chr(10).join(lines)}'; exit 1"), NAME)
    assert capsys.readouterr().err.splitlines() == ["a: Retrying in 2 seconds", "a: Pushed"]


# --- a name that is published ---


def published(client: Client) -> str | None:
    found = push.published_image(client, SERVER, image(), NAME, TASK, ())
    return found and found[0]


@pytest.mark.parametrize("answer", [missing(), refusing("name unknown: repository not found")])
def test_a_free_name(client: MakeClient, answer: str) -> None:
    assert published(client(pull=answer)) is None


REFUSALS = (
    "pull access denied for demo, repository does not exist or may require docker login: denied",
    "unauthorized: authentication required",
    "denied: User: ada is not authorized to perform: ecr:BatchGetImage on resource: demo",
    'Head "https://h/v2/demo/manifests/1.0.0": unexpected status: 403 Forbidden',
)


@pytest.mark.parametrize("said", REFUSALS)
def test_a_login_that_may_not_pull(
    client: MakeClient, tmp_path: Path, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    unseen = f"whether {NAME} is already published ({said}); it is pushed unseen\n"
    pulls = client(pull=refusing(said))
    assert published(pulls) is None
    assert capsys.readouterr().err.endswith(unseen)
    login.with_login(
        pulls, SERVER, ADA, lambda env: push.published_image(pulls, SERVER, image(), NAME, TASK, env)
    )
    assert capsys.readouterr().err.endswith(unseen)
    assert names(tmp_path) == {}


@pytest.mark.parametrize("said", ["no basic auth credentials", *REFUSALS])
def test_without_a_login_the_push_will_say_so(
    client: MakeClient, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert published(client(pull=refusing(said), login="exit 1")) is None
    assert "unseen" not in capsys.readouterr().err


def test_the_same_image(client: MakeClient, tmp_path: Path) -> None:
    answer = f"echo {MINE} >$name; echo Digest: {OTHER}; echo Status: Image is up to date"
    assert published(client(pull=answer)) == OTHER
    assert names(tmp_path) == {"demo:1.0.0": MINE}


@pytest.mark.parametrize("before", [{}, {"demo:1.0.0": MINE}])
@pytest.mark.parametrize(
    "answer",
    [
        f"echo {OTHER} >$name; echo Digest: {OTHER}",
        "echo '1f2e: Pulling fs layer'; exec sleep 60",
    ],
    ids=["of the same layers", "of other layers"],
)
def test_another_image(client: MakeClient, tmp_path: Path, answer: str, before: dict[str, str]) -> None:
    for name, id in before.items():
        (tmp_path / "names" / name).write_text(id)
    with pytest.raises(SkelebotError, match=f"{NAME} is already published with other content; .* -f"):
        published(client(pull=answer))
    assert names(tmp_path) == before


def test_a_registry_that_cannot_be_asked(client: MakeClient) -> None:
    with pytest.raises(SkelebotError, match="cannot be reached"):
        published(client(pull=refusing("dial tcp: lookup registry.example.com: no such host")))


@pytest.mark.parametrize(
    "line",
    [
        "tag invalid: The image tag '1.0.0' already exists in the 'demo' repository and cannot be "
        "overwritten because the repository is immutable.",
        "unknown: Failed to process request due to 'demo:1.0.0' configured as immutable.",
        "denied: cannot update tag 1.0.0. The repository has enabled tag immutability",
        "denied: Immutable tags cannot be replaced",
        "TAG_INVALID: the tag exists",
        "unknown: Repository does not allow updating assets: docker-hosted",
    ],
    ids=["Amazon", "Harbor", "Google", "a capital", "the code alone", "Nexus"],
)
def test_an_immutable_registry_names_the_remedy(line: str) -> None:
    error = push.explained([line], SERVER, NAME, "")
    assert not isinstance(error, Refused)
    assert re.match(f"{SERVER} lets no tag be replaced and already has {NAME}; .*`skelebot bump`", str(error))


# --- logins ---


@pytest.mark.parametrize(
    ("user", "password", "given"), [("a", "b", True), ("a", "", False), ("", "b", False)]
)
def test_credentials_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, user: str, password: str, given: bool
) -> None:
    monkeypatch.setenv(login.USER, user)
    monkeypatch.setenv(login.PASSWORD, password)
    assert (login.from_environment() is not None) is given


def test_a_login_has_settings_of_its_own(client: MakeClient, tmp_path: Path) -> None:
    own = {"auths": {"other": {"auth": "c2VjcmV0"}}, "credsStore": "keychain", "HttpHeaders": {"X": "1"}}
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "config.json").write_text(json.dumps(own))
    using = client()
    with login.logged_in(using, SERVER, ADA) as env:
        folder = dict(env)["DOCKER_CONFIG"]
        settings = json.loads(Path(folder, "config.json").read_text())
        assert (os.stat(folder).st_mode & 0o777, settings) == (
            0o700,
            {"HttpHeaders": {"X": "1"}, "auths": {SERVER: {}}},
        )
    assert not os.path.exists(folder)
    assert (tmp_path / "password").read_text() == "lovelace"
    assert "lovelace" not in (tmp_path / "log").read_text()


def test_wrong_credentials_are_not_asked_for_again(client: MakeClient) -> None:
    answer = refusing("unauthorized: incorrect username or password")
    with pytest.raises(Refused, match="refuses the credentials of ada"):
        login.with_login(client(login=answer), SERVER, ADA, lambda env: "done")


def test_without_a_terminal_a_refusal_names_the_ways_to_log_in(client: MakeClient) -> None:
    def refuse(env: push.Env) -> str:
        raise Refused(f"{SERVER} requires a login")

    with pytest.raises(SkelebotError, match=f"requires a login; run `docker login {SERVER}`, or set "):
        login.with_login(client(), SERVER, None, refuse)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (missing(), None),
        ("true", None),
        (refusing("no basic auth credentials"), "requires a login"),
        (refusing("net/http: TLS handshake timeout"), "cannot be reached"),
    ],
)
def test_check_of_a_login(client: MakeClient, answer: str, said: str | None) -> None:
    if said is None:
        push.check_login(client(pull=answer), SERVER, f"{SERVER}/demo", ())
    else:
        with pytest.raises(SkelebotError, match=said):
            push.check_login(client(pull=answer), SERVER, f"{SERVER}/demo", ())
