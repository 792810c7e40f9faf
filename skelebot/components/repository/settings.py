"""What skelebot.yaml says about the project's artifacts and their store."""

from dataclasses import dataclass
from typing import Literal

from skelebot.keys import key, not_blank, pattern

_name = pattern(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*", "a name of letters, digits, dots, dashes and underscores")


@dataclass(frozen=True)
class Artifact:
    """A file or folder of the project that has versions in the store."""

    name: str = key(help="The name to push and pull it by", check=_name)
    file: str = key(help="The file, or a folder with a trailing slash, from the project root")
    singular: bool = key(False, help="The store holds a single one, without versions")


@dataclass(frozen=True)
class S3:
    """A bucket of Amazon S3, or of another server with the same protocol."""

    bucket: str = key(
        help="The bucket, with a key prefix after a slash",
        check=pattern(r"[^/]*[^/\s].*", "the name of a bucket"),
    )
    region: str | None = key(None, help="The bucket's region")
    profile: str | None = key(None, help="The profile in ~/.aws to use")
    endpoint: str | None = key(None, help="The address of a server other than Amazon's")
    encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = key(
        None, help="The encryption to ask for; by default the bucket's own"
    )
    kms_key: str | None = key(None, help="The id or ARN of the key for aws:kms")


@dataclass(frozen=True)
class Auth:
    """How to log in to Artifactory."""

    auth_type: Literal["user_pass", "token", "api_key", "apikey"] = key(
        "user_pass", help="The kind of credentials"
    )
    aws: bool = key(False, help="Read the credentials from AWS Secrets Manager")
    aws_secret: str = key("Artifactory", help="The secret's name")
    aws_profile: str | None = key(None, help="The profile in ~/.aws to use")
    aws_region: str = key("us-east-1", help="The secret's region")

    @property
    def kind(self) -> str:
        return self.auth_type.replace("apikey", "api_key")


@dataclass(frozen=True)
class Artifactory:
    """A repository of JFrog Artifactory."""

    url: str = key(help="The server's address; https by default", check=not_blank)
    repo: str = key(help="The repository's name", check=not_blank)
    path: str = key("", help="The folder in the repository")
    auth: Auth = key(Auth(), help="How to log in")
    insecure: bool = key(False, help="Send credentials over http to other machines")


@dataclass(frozen=True)
class Local:
    """A folder as a store."""

    path: str = key(help="The folder, also on a network share", short="path", check=not_blank)
