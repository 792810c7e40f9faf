"""Credentials for Artifactory: from the command line, the environment, AWS, or a question.

They are never printed, logged or put into an argument list.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from skelebot import console
from skelebot.errors import SkelebotError

if TYPE_CHECKING:
    from skelebot.components.repository.settings import Auth

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
    """The credentials of a command; user and token are those of its options.

    Raises SkelebotError if they are missing and the user cannot be asked.
    """
    if auth.aws:
        return _from_aws(auth)
    inquire = _ask if ask else _refuse
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


def _refuse(question: str, variable: str, hidden: bool = False) -> NoReturn:
    raise SkelebotError(f"the {question} is not set; set {variable}")


def _sendable(kind: str, user: str | None, token: str) -> Credentials:
    """Credentials that a request can carry: the library's error about others would print them."""
    if not (token.isprintable() and (user or "").isprintable()):
        raise SkelebotError("the credentials contain a line end or a control character; enter them again")
    if kind != "user_pass" and not (token.isascii() and token == token.strip()):
        raise SkelebotError("the credentials contain a character that no token or key has; enter them again")
    return Credentials(user, token)


def _from_aws(auth: "Auth") -> Credentials:
    """From AWS Secrets Manager: the fields `user` and `token`, which may have other names."""
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
            f"the AWS secret {auth.aws_secret} has no `token`; it must be JSON with `user` and `token`"
        ) from None
    user = fields.get("user")
    if auth.kind == "user_pass" and not user:
        raise SkelebotError(f"the AWS secret {auth.aws_secret} has no `user`")
    return _sendable(auth.kind, str(user) if user else None, token)
