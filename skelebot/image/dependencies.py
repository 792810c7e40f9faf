"""A dependency entry becomes the words an installer takes and the files it needs: Python's entries.

Those of R are in dependencies_r.py, which shares what stands in the first part.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skelebot.errors import ConfigError, UsageError

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9._, -]*\])?)\s*=\s*([^=\s].*)")
# What needs no parser of PEP 508, whose import takes a fifth of a run's start: name, name>=1.2,<3
_BOUND = r"([=!<>]=|[<>])[0-9]+(\.[0-9]+)*"
_PLAIN = re.compile(rf"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?({_BOUND}(,{_BOUND})*)?")
_NESTED = re.compile(r"\s*(?:-[rc]=?|--(?:requirement|constraint)[=\s])\s*(\S+)")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./+-]+)?", re.ASCII)
_URL = re.compile(r"(https?|ssh|git|file)://[\w.:@%/~+-]+", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)

ODD_NAME = re.compile(r"[$'\"\\*?\[]")  # what COPY expands or takes away

PACKAGES = ".skelebot/packages"  # where files from CodeArtifact are kept in the project


@dataclass(frozen=True)
class CodeArtifact:
    """A package of an AWS CodeArtifact repository, and the folder its file is kept in."""

    domain: str
    owner: str
    repository: str
    package: str
    version: str
    profile: str | None

    @property
    def folder(self) -> str:
        parts = (self.domain, self.owner, self.repository, self.package, self.version)
        return "/".join((PACKAGES, *parts))


@dataclass(frozen=True)
class Dependency:
    """What one entry means to its language's installer.

    words: name it. files: the project's files and folders that they refer to. git: whether git
    fetches it. fetch: what has to be in the project's own folder first.
    """

    entry: str
    words: tuple[str, ...]
    files: tuple[str, ...] = ()
    git: bool = False
    fetch: CodeArtifact | None = None


@dataclass(frozen=True)
class Dependencies:
    """What the entries of a project mean, by their languages."""

    python: tuple[Dependency, ...] = ()
    r: tuple[Dependency, ...] = ()


# Given the root, the entries and where they stand in the configuration.
Reader = Callable[[str, Sequence[str], Sequence[str]], tuple[Dependency, ...]]


def read(
    entries: Sequence[str], places: Sequence[str], one: Callable[[str], Dependency]
) -> tuple[Dependency, ...]:
    """What `one` makes of each entry. Raises ConfigError with a line for each wrong one.

    places: where the first of the entries stand in the configuration.
    """
    found, problems = [], []
    for number, entry in enumerate(entries):
        try:
            found.append(one(entry.strip()))
        except UsageError as error:
            place = places[number] if number < len(places) else f"dependencies[{number}]"
            problems.append(f"{place}: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def inside(root: str, path: str) -> str:
    """The path from the project root, normalized. Raises UsageError for a file outside or missing."""
    clean = os.path.normpath(path)
    if not path or os.path.isabs(clean) or clean.startswith("..") or not path.isprintable():
        raise UsageError(f"expected a file inside the project, found {path!r}")
    if not os.path.isfile(os.path.join(root, clean)):
        raise UsageError(f"there is no file {path!r} in the project")
    if ODD_NAME.search(clean):
        raise UsageError(f"Docker would read {path!r} otherwise than as a name; rename the file")
    return clean


def repository(entry: str, rest: str) -> str:
    """The address of a `github:` entry, with its @REF. Raises UsageError."""
    if _REPOSITORY.fullmatch(rest):
        return f"https://github.com/{rest}"
    if _URL.fullmatch(rest):
        return rest
    raise UsageError(f"expected github:OWNER/REPO or github:URL, with or without @REF; found {entry!r}")


# --- Python ---


def python(root: str, entries: Sequence[str], places: Sequence[str] = ()) -> tuple[Dependency, ...]:
    """The Python entries of a project. Raises ConfigError with a line for each wrong one."""
    return read(entries, places, lambda entry: _python(root, entry))


def _python(root: str, entry: str) -> Dependency:
    kind, colon, rest = entry.partition(":")
    kinds = {"req": _requirements, "file": _file, "proj": _project, "github": _github, "ca_file": _ca_file}
    if colon and kind in kinds:
        return kinds[kind](root, entry, rest)
    return Dependency(entry, (_requirement(entry),))


def _requirement(entry: str) -> str:
    """The entry as a requirement of PEP 508; `numpy=1.26.4` is short for `numpy==1.26.4`."""
    name, marker, rest = entry.partition(";")
    pin = _PIN.fullmatch(name.strip())
    text = f"{pin[1]}=={pin[2]}{marker}{rest}" if pin else entry
    if _PLAIN.fullmatch(text):
        return text
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return str(Requirement(text))
    except InvalidRequirement:
        raise UsageError(
            f"expected a package, as in numpy, numpy=1.26.4 or numpy>=1.26,<3; found {entry!r}"
        ) from None


def _requirements(root: str, entry: str, path: str) -> Dependency:
    return Dependency(entry, ("-r", inside(root, path)), tuple(_requirement_files(root, path)))


def _file(root: str, entry: str, path: str) -> Dependency:
    path = inside(root, path)
    if not path.endswith((".whl", ".tar.gz", ".zip")):
        raise UsageError(f"expected a .whl, .tar.gz or .zip, found {path!r}")
    return Dependency(entry, (f"./{path}",), (path,))


def _project(root: str, entry: str, path: str) -> Dependency:
    """The dependencies of a pyproject.toml with all optional ones, not the project itself."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    path = inside(root, path)
    try:
        with open(os.path.join(root, path), "rb") as file:
            project = tomllib.load(file).get("project", {})
        groups = [project.get("dependencies", []), *project.get("optional-dependencies", {}).values()]
        wanted = [_requirement(text) for group in groups for text in group]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} is not a pyproject.toml: {error}") from None
    own = _normalized(str(project.get("name", "")))
    words = [w for w in wanted if _normalized(re.split(r"[^\w.-]", w)[0]) != own]
    if not words:
        raise UsageError(f"{path} names no dependencies under [project]")
    return Dependency(entry, tuple(dict.fromkeys(words)))


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _github(root: str, entry: str, rest: str) -> Dependency:
    return Dependency(entry, (f"git+{repository(entry, rest)}",), git=True)


def _ca_file(root: str, entry: str, rest: str) -> Dependency:
    parts = rest.split(":")
    if len(parts) not in (5, 6) or not all(_NAME.fullmatch(part) for part in parts):
        form = "ca_file:DOMAIN:OWNER:REPO:PACKAGE:VERSION[:PROFILE]"
        raise UsageError(f"expected {form}, found {entry!r}")
    domain, owner, repository, package, version, *profile = parts
    fetch = CodeArtifact(domain, owner, repository, package, version, next(iter(profile), None))
    return Dependency(entry, _fetched(root, fetch), (fetch.folder,), fetch=fetch)


def _fetched(root: str, fetch: CodeArtifact) -> tuple[str, ...]:
    """The one file that fits every platform; before it is fetched, or among several, the folder.

    By its path nobody else's package of that name can be taken for it.
    """
    folder = os.path.join(root, fetch.folder)
    files = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    everywhere = [file for file in files if file.endswith("-none-any.whl")] or files
    if len(everywhere) == 1:
        return (f"./{fetch.folder}/{everywhere[0]}",)
    return ("--find-links", f"./{fetch.folder}", f"{fetch.package}=={fetch.version}")


def _requirement_files(root: str, path: str, seen: tuple[str, ...] = ()) -> list[str]:
    """A requirements file and all that it names with -r and -c."""
    path = inside(root, path)
    if path in seen:
        return []
    files = [path]
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            nested = [match[1] for match in map(_NESTED.match, file) if match]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    for name in nested:
        if "://" not in name:
            files += _requirement_files(root, os.path.join(os.path.dirname(path), name), (*seen, path))
    return list(dict.fromkeys(files))


# --- the steps of a Dockerfile ---

INSTALLER = "/usr/local/bin/skelebot-install"

# Chooses once how the image's packages are installed. uv is several times faster than pip; where pip
# has settings that uv does not read, or uv is not to be had, pip serves. Bytecode is compiled here,
# as a container would otherwise do it again in every run.
CHOOSE_INSTALLER = f"""\
set -eu
if python -m pip config list 2>/dev/null | grep -qE '(index-url|find-links|no-index)='; then
    uv=
else
    export PIP_BREAK_SYSTEM_PACKAGES=1
    command -v uv >/dev/null || python -m pip install --quiet --no-cache-dir uv || true
    uv=$(command -v uv) || uv=
fi
{{
    echo '#!/bin/sh'
    echo 'export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1'
    if [ -n "$uv" ]; then
        echo 'export UV_BREAK_SYSTEM_PACKAGES=1 UV_LINK_MODE=copy'
        echo 'export SSL_CERT_FILE="${{SSL_CERT_FILE:-${{PIP_CERT:-}}}}"'
        echo '[ -n "$SSL_CERT_FILE" ] || unset SSL_CERT_FILE'
        echo 'grep -q " /root/.cache " /proc/self/mounts || export UV_NO_CACHE=1'
        echo "exec $uv pip install --python \\"\\$(command -v python)\\" --compile-bytecode \\\\"
        echo '    --index-strategy unsafe-best-match "$@"'
    else
        echo 'grep -q " /root/.cache " /proc/self/mounts || export PIP_NO_CACHE_DIR=1'
        echo 'exec python -m pip install "$@"'
    fi
}} >{INSTALLER}
chmod 755 {INSTALLER}
"""
