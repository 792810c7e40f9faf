"""Whom Artifactory is told that we are: from the command line, the environment, AWS, or a question.

The values are held by the caller alone: never printed, logged or put into an argument list.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from skelebot import console
from skelebot.errors import SkelebotError

if TYPE_CHECKING:
    from skelebot.components.repository import Auth

USER = "SKELEBOT_ARTIFACTORY_USER"
TOKEN = "SKELEBOT_ARTIFACTORY_TOKEN"  # noqa: S105 - the name of a variable

_OTHER_NAMES = ("token", "password", "apikey", "api_key")


@dataclass(frozen=True, repr=False)
class Credentials:
    user: str | None
    token: str

    def headers(self, kind: str) -> dict[str, str]:
        """https://jfrog.com/help/r/jfrog-rest-apis/introduction-to-the-artifactory-rest-apis"""
        import base64

        if kind == "token":
            return {"Authorization": f"Bearer {self.token}"}
        if kind == "api_key":
            return {"X-JFrog-Art-Api": self.token}
        pair = base64.b64encode(f"{self.user}:{self.token}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}


def find(auth: "Auth", user: str | None, token: str | None, ask: bool = True) -> Credentials:
    """The credentials of a call; user and token are those of its options.

    Raises SkelebotError where they are missing and nobody can be asked, or nobody is to be.
    """
    if auth.aws:
        return _from_aws(auth)
    inquire = _ask if ask else _demand
    if auth.kind == "user_pass":
        user = user or os.environ.get(USER) or inquire("Artifactory user", USER)
    label = {"user_pass": "Artifactory password", "token": "Artifactory token"}
    label_of_kind = label.get(auth.kind, "Artifactory API key")
    token = token or os.environ.get(TOKEN) or inquire(label_of_kind, TOKEN, hidden=True)
    return _sendable(auth.kind, user, token)


def _ask(question: str, variable: str, hidden: bool = False) -> str:
    try:
        answer = console.ask(question, variable, hidden)
    except EOFError:
        answer = ""
    if not answer:
        raise SkelebotError(f"no {question} was given; run again, or set {variable}")
    return answer


def _demand(question: str, variable: str, hidden: bool = False) -> NoReturn:
    raise SkelebotError(f"the {question} is not set, and would be asked for; set {variable}")


def _sendable(kind: str, user: str | None, token: str) -> Credentials:
    """Credentials that fit in a request: the library's error about others would print them."""
    if not (token.isprintable() and (user or "").isprintable()):
        raise SkelebotError("the credentials hold a line end or a control character; give them again")
    if kind != "user_pass" and not (token.isascii() and token == token.strip()):
        raise SkelebotError("the credentials hold a character that is in no token or key; give them again")
    return Credentials(user, token)


def _from_aws(auth: "Auth") -> Credentials:
    """From AWS Secrets Manager: fields `user` and `token`, which may also be called otherwise."""
    import json

    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = boto3.Session(profile_name=auth.aws_profile, region_name=auth.aws_region)
        answer = session.client("secretsmanager").get_secret_value(SecretId=auth.aws_secret)
        fields = json.loads(answer["SecretString"])
        token = next(str(fields[name]) for name in _OTHER_NAMES if fields.get(name))
    except (BotoCoreError, ClientError) as error:
        hint = "check the login to AWS, `awsSecret`, `awsProfile` and `awsRegion`"
        raise SkelebotError(f"the AWS secret {auth.aws_secret} cannot be read: {error}; {hint}") from None
    except (ValueError, TypeError, AttributeError, KeyError, StopIteration):
        raise SkelebotError(
            f"the AWS secret {auth.aws_secret} holds no `token`; it is to be JSON with `user` and `token`"
        ) from None
    user = fields.get("user")
    if auth.kind == "user_pass" and not user:
        raise SkelebotError(f"the AWS secret {auth.aws_secret} holds no `user`")
    return _sendable(auth.kind, str(user) if user else None, token)
