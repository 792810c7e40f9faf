"""What the keys of skelebot.yaml hold: the mark of a field that is one, and the forms of texts.

A form is a function that gives what a text should be instead, or None where it is right.
"""

import re
from collections.abc import Callable
from dataclasses import MISSING, field
from typing import Any

from skelebot import units

# Gives what a text should be instead, or None where it is right.
Validator = Callable[[str], "str | None"]


def key(
    default: Any = MISSING,
    *,
    help: str,
    check: Validator | None = None,
    old: str | None = None,
    name: str | None = None,
    short: str | None = None,
) -> Any:
    """A key of the YAML file.

    default: what stands for a missing key; without one the key is required. help: one line for the
    JSON Schema. check: gives what is wrong with a text, or None. old: a former spelling that still
    loads, with a warning. name: the key in the file where it is not the field's name in camelCase.
    short: of a record, the field that a bare text stands for.
    """
    metadata = {"help": help, "check": check, "old": old, "name": name, "short": short}
    return field(default=default, metadata=metadata)


def one_line(text: str) -> str | None:
    return None if text.isprintable() else "text on one line, without control characters"


def not_blank(text: str) -> str | None:
    return one_line(text) if text.strip() else "text that is not empty"


def some_text(text: str) -> str | None:
    return None if text.strip() else "text that is not empty"


class Pattern:
    """A validator by a regular expression, which is compiled only where there is something to check.

    measure: the number that a text stands for, which is then from `least` to `most`. The JSON Schema has all
    of these, the limits for what YAML reads as a number.
    """

    def __init__(
        self,
        regex: str,
        expected: str,
        measure: Callable[[str], float] | None = None,
        least: float = 0,
        most: float = 0,
    ) -> None:
        self.regex, self.expected = regex, expected
        self.measure, self.least, self.most = measure, least, most

    def __call__(self, text: str) -> str | None:
        is_right = re.fullmatch(self.regex, text, re.ASCII) and self._is_within(text)
        return None if is_right else self.expected

    def _is_within(self, text: str) -> bool:
        return self.measure is None or self.least <= self.measure(text) <= self.most


pattern = Pattern


def whole_number(least: int, most: int, what: str = "a whole number") -> Pattern:
    """Return the validator of the whole numbers between two, both included."""
    return Pattern(r"\d{1,18}", f"{what} from {least} to {most}", int, least, most)


port_number = whole_number(1, 65535, "a port")

_PORT = r"0*([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
_PORTS = rf"{_PORT}(-{_PORT})?"
ports = pattern(
    rf"((\d{{1,3}}(\.\d{{1,3}}){{3}}|\[[0-9a-fA-F:.]+\]):)?{_PORTS}:{_PORTS}(/(tcp|udp|sctp))?",
    "HOST:CONTAINER, two ports, such as 8080:80 or 127.0.0.1:8080:80/udp",
)


def image_name(name: str) -> str:
    """A Docker image name for a project's name: lower case, anything else runs into one dash."""
    name = re.sub(r"[^a-z0-9._-]+", "-", name.lower())
    # Inside a name the engine takes one dot, one or two underscores, or any number of dashes.
    name = re.sub(r"[._-]+", lambda m: m[0] if re.fullmatch(r"\.|__?|-+", m[0]) else "-", name)
    return name.strip("._-")


def project_name(text: str) -> str | None:
    if problem := not_blank(text):
        return problem
    if len(text) > 200:
        return "a name of at most 200 characters"
    return None if image_name(text) else "a name with at least one ASCII letter or digit"


def option_name(text: str) -> str | None:
    if problem := not_blank(text):
        return problem
    if text.startswith("-") or "=" in text:
        return "a name without leading dashes and without `=` (the dashes are added)"
    return None


def job_name(text: str) -> str | None:
    if problem := not_blank(text):
        return problem
    return "a name that is not `+` and does not start with a dash" if text[0] in "+-" else None


def read_by(parse: Callable[[str], object]) -> Validator:
    """Return the validator of the texts that a function reads without a ValueError."""

    def check(text: str) -> str | None:
        try:
            parse(text)
        except ValueError as error:
            return str(error)
        return None

    return check


def seconds(text: str) -> float:
    """The seconds in `90`, `90s`, `10m`, `2h` or `1d`; 0 when it is none of these."""
    match = re.fullmatch(_DURATION, text, re.ASCII)
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0


_DURATION = r"(\d{1,9}(?:\.\d+)?)([smhd]?)"
timeout = pattern(
    _DURATION,
    "a number of seconds, or a number with s, m, h or d, such as 10m",
    seconds,
    least=0.001,
    most=366 * 86400,
)


def regular_expression(text: str) -> str | None:
    if problem := one_line(text):
        return problem
    import warnings  # like the compiler, only where there is a pattern

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later Python may read otherwise
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        return f"a regular expression of Python ({error})"
    return None


cpus = pattern(
    units.CPUS,
    "a number of CPUs from 0.01 to 10000, such as 2, 0.5 or 500m",
    units.cpus,
    least=0.01,
    most=10_000,
)
gpus = pattern(
    r"all|\d{1,3}", "a number of GPUs up to 999, or all", lambda text: int(text.replace("all", "0")), most=999
)


def size_pattern(least: int) -> Pattern:
    return pattern(
        units.SIZE,
        f"a size from {units.size_text(least)} to 1024t, such as 512m or 4g",
        units.size,
        least,
        1024 * units.T,
    )


variable_name = pattern(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name: letters, digits and underscores")
user = pattern(r"[A-Za-z_][A-Za-z0-9_-]*\$?|\d{1,10}(:\d{1,10})?", "caller, root, a user's name or UID[:GID]")
image_reference = pattern(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", "an image's name, such as python:3.12-slim")
python_version = pattern(r"\d+(\.\d+){0,2}[A-Za-z0-9.-]*", "a version of Python, such as 3.12")
debian_package = pattern(r"[a-z0-9][a-z0-9+.:=~-]*", "the name of a Debian package")


def cran_mirror(text: str) -> str | None:
    """What is wrong with the address of a CRAN mirror, which gives packages without a signature."""
    import ipaddress  # only for a mirror
    from urllib.parse import urlsplit

    expected = "https://HOST/FOLDER, file:///FOLDER, or http:// and a private address"
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
        private = host == "localhost" or (url.scheme == "http" and ipaddress.ip_address(host).is_private)
    except ValueError:
        return expected
    if url.username or url.password:
        return f"{expected}, without a user or password, because the image would reveal it"
    local = url.scheme == "file" and not host and url.path.startswith("/")
    known = local or (url.scheme == "https" and host) or (url.scheme == "http" and private)
    return None if known and re.fullmatch(r"[!-~]+", text) else expected


CLUSTER = "k8s://"  # begins the place of a Kubernetes cluster
_dns = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
host = pattern(
    rf"(ssh|tcp|unix|npipe|http|https)://\S+|{CLUSTER}[^\s/:]*(/{_dns})?|[A-Za-z0-9][A-Za-z0-9._-]*",
    "ssh://user@host, tcp://host:port, k8s://CONTEXT/NAMESPACE or the name of a Docker context",
)


def _json_of(kind: type, expected: str) -> Validator:
    def check(text: str) -> str | None:
        import json  # only where there is such a key

        return None if isinstance(json.loads(text), kind) else expected

    return check


json_object, json_list = _json_of(dict, "keys with values"), _json_of(list, "a list")
dns_name = pattern(
    r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "a name of Kubernetes: lower case, digits, dashes and dots"
)


class _Schedule(Pattern):
    """A schedule of cron, of which the JSON Schema has only the form."""

    def __call__(self, text: str) -> str | None:
        from skelebot.cron import Cron  # only where there is a schedule

        try:
            Cron.parse(text)
        except ValueError as error:
            return str(error)
        return None


schedule = _Schedule(r"@\w+|\s*(\S+\s+){4}\S+\s*", "")
