"""Settings of the caller that a build may use, and that stay out of the image.

Proxy variables are build arguments which every builder keeps out of the history; pip's settings and
the CA bundle are secrets, which only BuildKit can mount.
https://docs.docker.com/build/building/variables/#proxy-arguments
"""

import configparser
import io
import os
from collections.abc import Callable
from dataclasses import dataclass

from skelebot.errors import SkelebotError, UsageError
from skelebot.files import open_regular, reason
from skelebot.image.dockerfile import with_inherited_settings
from skelebot.model import Image

_KNOWN = ("pip", "proxy", "ca", "netrc")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")

# Those of pip's settings that tell where packages come from; the others are about the caller's machine.
_PIP_SETTINGS = (
    "index-url",
    "extra-index-url",
    "trusted-host",
    "timeout",
    "retries",
    "no-index",
    "find-links",
)

_CA_VARIABLES = (
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
_LARGEST_SECRET = 500_000  # bytes; BuildKit refuses more

_CACHE = "type=cache,id=skelebot-cache,target=/root/.cache"


@dataclass(frozen=True)
class Inherited:
    """Arguments for the client, and what the Dockerfile needs to use what they bring."""

    arguments: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    def lines(self, lines: list[str], buildkit: bool) -> list[str]:
        """The lines of Skelebot's own Dockerfile with the settings in force at each RUN."""
        return with_inherited_settings(lines, _CACHE, self.mounts, self.env) if buildkit else lines


def setting_names(image: Image) -> set[str]:
    """The settings to inherit. Raises UsageError for an unknown word of SKELEBOT_BUILD_INHERIT."""
    wanted = {*image.inherit, *filter(None, os.environ.get("SKELEBOT_BUILD_INHERIT", "").split(","))}
    if unknown := sorted(wanted - set(_KNOWN)):
        raise UsageError(f"SKELEBOT_BUILD_INHERIT: expected {', '.join(_KNOWN)}; found {unknown[0]!r}")
    return wanted


def inherit(image: Image, folder: str, buildkit: bool) -> Inherited:
    """What `build.inherit` and SKELEBOT_BUILD_INHERIT name, with its files in the private `folder`.

    Raises SkelebotError for what the builder cannot keep out of the image.
    """
    wanted = setting_names(image)
    if not buildkit and (secret := sorted(wanted - {"proxy"})):
        raise SkelebotError(
            f"the classic builder cannot keep {' and '.join(secret)} (build.inherit) out of the image; "
            "install Docker's buildx plugin"
        )
    words: list[str] = []
    env: list[tuple[str, str]] = []
    mounts: list[str] = []
    for name in sorted(wanted & _SECRETS.keys()):
        file = os.path.join(folder, name)
        read, target, variables = _SECRETS[name]
        _write(file, read())
        words += ["--secret", f"id=skelebot-{name},src={file}"]
        mounts.append(f"type=secret,id=skelebot-{name},target={target}")
        env += [(variable, target) for variable in variables]
    if "proxy" in wanted:
        set_ones = [p for name in _PROXIES for p in (name, name.lower()) if os.environ.get(p)]
        words += [word for name in set_ones for word in ("--build-arg", name)]
    return Inherited(tuple(words), tuple(mounts), tuple(env))


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _bundle() -> bytes:
    """The CA certificates that the caller's programs trust. Raises SkelebotError."""
    named = [os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)]
    for path in (*named, *_SYSTEM_BUNDLES):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                data = file.read()
            if len(data) > _LARGEST_SECRET:
                raise SkelebotError(f"{path} is too large for a build; set SSL_CERT_FILE to a smaller file")
            return data
    raise SkelebotError("build.inherit lists ca, but no CA bundle was found; set SSL_CERT_FILE to one")


def _netrc() -> bytes:
    """The caller's logins for servers. Raises SkelebotError."""
    path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        with open_regular(path) as file:
            return file.read(_LARGEST_SECRET)
    except OSError as error:
        raise SkelebotError(
            f"build.inherit lists netrc, but {path} cannot be read: {reason(error)}"
        ) from None


def pip_settings() -> dict[str, str]:
    """Those of the caller's pip settings that tell where packages come from.

    In pip's own order: the site's file, the user's, the one that is named, PIP_* variables.
    https://pip.pypa.io/en/stable/topics/configuration/
    """
    home = os.path.expanduser("~")
    xdg = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    files = ["/etc/pip.conf", "/etc/xdg/pip/pip.conf", f"{home}/.pip/pip.conf", f"{xdg}/pip/pip.conf"]
    named = os.environ.get("PIP_CONFIG_FILE", "")
    files = [] if named == os.devnull else [*files, named]
    settings: dict[str, str] = {}
    for path in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise SkelebotError(f"{path} is not a pip configuration: {error}") from None
        for section in ("global", "install"):
            if parser.has_section(section):
                settings |= {k.lower().replace("_", "-"): v for k, v in parser.items(section)}
    for name, value in os.environ.items():
        if name.startswith("PIP_"):
            settings[name[4:].lower().replace("_", "-")] = value
    return {k: v for k, v in settings.items() if k in _PIP_SETTINGS and v and _reachable(k, v)}


def _reachable(name: str, value: str) -> bool:
    """Whether a build sees the same; folders of the caller's machine are not there."""
    places = ("find-links", "index-url", "extra-index-url")
    return name not in places or ("://" in value and not value.startswith("file:"))


def _as_file(settings: dict[str, str]) -> bytes:
    parser = configparser.RawConfigParser()
    parser["global"] = settings
    out = io.StringIO()
    parser.write(out)
    return out.getvalue().encode()


# What each of them is, where it is mounted, and the variables that name the place, which git does not read.
_SECRETS: dict[str, tuple[Callable[[], bytes], str, tuple[str, ...]]] = {
    "pip": (lambda: _as_file(pip_settings()), "/run/secrets/skelebot-pip", ("PIP_CONFIG_FILE",)),
    "ca": (_bundle, "/run/secrets/skelebot-ca", _CA_VARIABLES),
    "netrc": (_netrc, "/root/.netrc", ("NETRC",)),
}
