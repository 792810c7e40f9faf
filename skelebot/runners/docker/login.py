"""Log in to a registry, with settings of the client that are removed after the push.

The password goes to the client through its stdin, and nowhere else.
"""

import base64
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from skelebot import console, process
from skelebot.errors import SkelebotError
from skelebot.files import private_folder
from skelebot.runners.docker.client import Client
from skelebot.runners.docker.push import Env, Refused, explained

T = TypeVar("T")

USER = "SKELEBOT_REGISTRY_USER"
PASSWORD = "SKELEBOT_REGISTRY_PASSWORD"  # noqa: S105 - the name of a variable

_OTHER_LOGINS = ("auths", "credsStore", "credHelpers")


@dataclass(frozen=True, repr=False)
class Credentials:
    user: str
    password: str


def from_environment() -> Credentials | None:
    """The credentials in the environment, if both variables are set. Raises SkelebotError."""
    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    return _sendable(user, password) if user and password else None


def _ask(server: str, refused: Refused) -> Credentials:
    """Ask for credentials on the terminal. Raises SkelebotError without one."""
    user = os.environ.get(USER) or _typed(f"user of {server}", USER, refused, server)
    password = os.environ.get(PASSWORD) or _typed(f"password of {server}", PASSWORD, refused, server, True)
    return _sendable(user, password)


def _typed(question: str, variable: str, refused: Refused, server: str, hidden: bool = False) -> str:
    try:
        answer = console.ask(question, variable, hidden)
    except EOFError:
        answer = ""
    except SkelebotError:  # nobody can be asked
        raise SkelebotError(f"{refused}; run `docker login {server}`, or set {USER} and {PASSWORD}") from None
    if not answer:
        raise SkelebotError(f"no {question} was given; run again, or set {variable}")
    return answer


def _sendable(user: str, password: str) -> Credentials:
    if not (user.isprintable() and password.isprintable()):
        raise SkelebotError("the credentials hold a line end or a control character; give them again")
    return Credentials(user, password)


def from_aws(server: str, region: str | None, profile: str | None) -> Credentials:
    """The credentials that AWS issues for ECR. Raises SkelebotError.

    https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    in_name = re.search(r"\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.", server)
    region = region or (in_name[1] if in_name else None)
    try:
        ecr = boto3.Session(profile_name=profile, region_name=region).client("ecr")
        token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        user, _, password = base64.b64decode(token).decode().partition(":")
    except (BotoCoreError, ClientError) as error:
        raise SkelebotError(
            f"AWS issued no login for {server} ({error}); check the settings of `aws`"
        ) from None
    return _sendable(user, password)


# --- the client's settings ---


def with_login(client: Client, server: str, credentials: Credentials | None, call: Callable[[Env], T]) -> T:
    """What `call` returns with a login. Asks for one only after the registry refused the client's own.

    Raises SkelebotError.
    """
    try:
        with logged_in(client, server, credentials) as env:
            return call(env)
    except Refused as refused:
        if credentials:
            raise
        typed = _ask(server, refused)
    with logged_in(client, server, typed) as env:
        return call(env)


@contextmanager
def logged_in(client: Client, server: str, credentials: Credentials | None) -> Iterator[Env]:
    """The variables that give the client this login; without credentials it keeps the one it has.

    Raises SkelebotError where the registry does not accept them.
    """
    if credentials is None:
        yield ()
        return
    with private_folder() as folder:
        _fill(folder, server)
        env = (("DOCKER_CONFIG", folder),)
        _log_in(client, server, credentials, env)
        yield env


def _fill(folder: str, server: str) -> None:
    """Fill a folder with the caller's settings (contexts, certificates, proxies), without the logins."""
    own = os.path.abspath(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))
    with suppress(OSError):
        for name in os.listdir(own):
            if name != "config.json":
                os.symlink(os.path.join(own, name), os.path.join(folder, name))
    settings: dict[str, Any] = {}
    with suppress(OSError, ValueError, TypeError), open(os.path.join(own, "config.json"), "rb") as file:
        settings = dict(json.load(file))
    settings = {name: value for name, value in settings.items() if name not in _OTHER_LOGINS}
    # Without any entry the client would look for a keychain and store the password there.
    number = os.open(os.path.join(folder, "config.json"), os.O_WRONLY | os.O_CREAT, 0o600)
    with open(number, "w", encoding="utf-8") as file:
        json.dump(settings | {"auths": {server: {}}}, file)


def _log_in(client: Client, server: str, credentials: Credentials, env: Env) -> None:
    arguments = ("login", "--username", credentials.user, "--password-stdin", server)
    step = client.step(*arguments, env=env)._replace(stdin=credentials.password)
    code, _, said = process.capture(step)
    if code == 0:
        return
    whose = f"the credentials of {credentials.user}"
    raise explained(said.splitlines(), server, whose, "logging in to {server} failed")
