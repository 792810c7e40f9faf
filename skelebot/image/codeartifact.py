"""Packages from AWS CodeArtifact: fetched here, so that no token ever comes near an image.

https://docs.aws.amazon.com/codeartifact/latest/APIReference/API_GetPackageVersionAsset.html
"""

import hashlib
import os
from collections.abc import Iterable
from typing import Any

from skelebot import console
from skelebot.errors import SkelebotError
from skelebot.files import reason
from skelebot.image.dependencies import CodeArtifact, Dependency

_ENDINGS = (".whl", ".tar.gz", ".zip")


def fetch(root: str, dependencies: Iterable[Dependency]) -> None:
    """Brings the files that `ca_file:` entries name into the project's own folder, where they are missing.

    Raises SkelebotError with what AWS said.
    """
    for wanted in (d.fetch for d in dependencies if d.fetch):
        folder = os.path.join(root, wanted.folder)
        if not (os.path.isdir(folder) and os.listdir(folder)):
            _fetch(wanted, folder)


def _fetch(wanted: CodeArtifact, folder: str) -> None:
    import boto3  # heavy, and only for this
    from botocore.exceptions import BotoCoreError, ClientError

    console.info(f"fetching {wanted.package} {wanted.version} from CodeArtifact")
    package: dict[str, Any] = {
        "domain": wanted.domain,
        "domainOwner": wanted.owner,
        "repository": wanted.repository,
        "format": "pypi",
        "package": wanted.package,
        "packageVersion": wanted.version,
    }
    try:
        client = boto3.Session(profile_name=wanted.profile).client("codeartifact")
        listed = client.get_paginator("list_package_version_assets").paginate(**package)
        assets = {a["name"]: a.get("hashes", {}) for page in listed for a in page["assets"]}
        for name in _chosen(assets, wanted):
            answer = client.get_package_version_asset(**package, asset=name)
            data: bytes = answer["asset"].read()
            _check(data, assets[name], name)
            _write(os.path.join(folder, name), data)
    except (BotoCoreError, ClientError) as error:
        raise SkelebotError(
            f"{wanted.package} {wanted.version} is not available from CodeArtifact: {error}"
        ) from None


def _chosen(assets: Iterable[str], wanted: CodeArtifact) -> list[str]:
    """The wheel for every platform, or else all wheels and archives, for the installer to choose."""
    names = sorted(n for n in assets if n.endswith(_ENDINGS) and os.path.basename(n) == n)
    if not names:
        raise SkelebotError(f"CodeArtifact has no wheel or archive of {wanted.package} {wanted.version}")
    return [name for name in names if name.endswith("-none-any.whl")][:1] or names


def _check(data: bytes, hashes: dict[str, str], name: str) -> None:
    expected = hashes.get("SHA-256")
    if expected and hashlib.sha256(data).hexdigest() != expected:
        raise SkelebotError(f"{name} from CodeArtifact arrived damaged; run again")


def _write(path: str, data: bytes) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Beside the folder, not in it: an installer would look at a half-written file.
        fresh = f"{os.path.dirname(path)}.{os.getpid()}"
        with open(fresh, "wb") as file:
            file.write(data)
        os.replace(fresh, path)
    except OSError as error:
        raise SkelebotError(f"{path} cannot be written: {reason(error)}") from None
