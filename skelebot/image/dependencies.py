"""What an entry of `dependencies` means to an installer, and the files it needs: Python's entries.

Those of R are in dependencies_r.py, which shares the first part.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skelebot.errors import ConfigError, UsageError
from skelebot.image import pyproject, requirements
from skelebot.image.requirements import ARCHIVES, PIP_ARCHIVES, refuse_password

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9._, -]*\])?)\s*=\s*([^=\s].*)")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./+-]+)?", re.ASCII)
_URL = re.compile(r"(https?|ssh|git|file)://[\w.:@%/~+-]+", re.ASCII)
_GIT = re.compile(rf"(?:(?:-e|--editable)[\s=]\s*)?(git\+{_URL.pattern}(#[\w.=&/-]+)?)", re.ASCII)
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

    words: its arguments. files: the project's files and folders that they refer to. git: whether git
    fetches it. fetch: what has to be in the project's own folder first. only_pip: what in it uv does not
    read as pip does. hashed: whether its packages have hashes.
    """

    entry: str
    words: tuple[str, ...]
    files: tuple[str, ...] = ()
    git: bool = False
    fetch: CodeArtifact | None = None
    only_pip: str | None = None
    hashed: bool = False


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
    """Return what `one` makes of each entry. Raises ConfigError with a line for each wrong one.

    places: where the first of the entries stand in the configuration.
    """
    found, problems = [], []
    for number, entry in enumerate(entries):
        try:
            refuse_password(entry)
            found.append(one(entry.strip()))
        except UsageError as error:
            place = places[number] if number < len(places) else f"dependencies[{number}]"
            problems.append(f"{place}: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def inside(root: str, path: str) -> str:
    """Return the path from the project root, normalized. Raises UsageError for one outside or missing."""
    clean = os.path.normpath(path)
    if not path or os.path.isabs(clean) or clean.startswith("..") or not path.isprintable():
        raise UsageError(f"expected a file inside the project, found {path!r}")
    if not os.path.isfile(os.path.join(root, clean)):
        raise UsageError(f"there is no file {path!r} in the project")
    if ODD_NAME.search(clean):
        raise UsageError(f"Docker would read {path!r} otherwise than as a name; rename the file")
    return clean


def repository(entry: str, rest: str) -> str:
    """Return the address of a `github:` entry, with its @REF. Raises UsageError."""
    if _REPOSITORY.fullmatch(rest):
        return f"https://github.com/{rest}"
    if _URL.fullmatch(rest):
        return rest
    raise UsageError(f"expected github:OWNER/REPO or github:URL, with or without @REF; found {entry!r}")


# --- Python ---


def python(root: str, entries: Sequence[str], places: Sequence[str] = ()) -> tuple[Dependency, ...]:
    """Read the Python entries of a project. Raises ConfigError with a line for each wrong one."""
    return read(entries, places, lambda entry: _python(root, entry, len(entries) == 1))


def _python(root: str, entry: str, alone: bool) -> Dependency:
    kind, colon, rest = entry.partition(":")
    if kind == "req" and colon:
        return _requirements(root, entry, rest, alone)
    kinds = {"file": _file, "proj": _project, "github": _github, "ca_file": _ca_file}
    if colon and kind in kinds:
        return kinds[kind](root, entry, rest)
    if git := _GIT.fullmatch(entry):
        return Dependency(entry, (git[1],), git=True)
    word = _requirement(entry)
    return Dependency(entry, (word,), git="git+" in word)


def _requirement(entry: str) -> str:
    """The entry as a requirement of PEP 508; `numpy=1.26.4` is short for `numpy==1.26.4`."""
    name, marker, rest = entry.partition(";")
    pin = _PIN.fullmatch(name.strip())
    text = f"{pin[1]}=={pin[2]}{marker}{rest}" if pin else entry
    if requirements.is_plain(text):
        return text
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return str(Requirement(text))
    except InvalidRequirement:
        raise UsageError(
            f"expected a package, as in numpy, numpy=1.26.4 or numpy>=1.26,<3; found {entry!r}"
        ) from None


def _requirements(root: str, entry: str, path: str, alone: bool) -> Dependency:
    found = requirements.read(root, path, lambda path: inside(root, path))
    if found.require_hashes and not alone:
        raise UsageError(
            f"{found.require_hashes}: --require-hashes holds for all packages of an installation, and there "
            "are other entries; put all packages into that file"
        )
    return Dependency(
        entry, ("-r", found.files[0]), found.files, found.git, only_pip=found.only_pip, hashed=found.hashed
    )


def _file(root: str, entry: str, path: str) -> Dependency:
    path = inside(root, path)
    if not path.endswith((*ARCHIVES, *PIP_ARCHIVES)):
        raise UsageError(f"expected a wheel or an archive ({', '.join(ARCHIVES)}, .tgz), found {path!r}")
    return Dependency(entry, (f"./{path}",), (path,), only_pip=None if path.endswith(ARCHIVES) else path)


def _project(root: str, entry: str, rest: str) -> Dependency:
    """The dependencies of a pyproject.toml with the extras that are asked for, not the project itself."""
    path, bracket, extras = rest.removesuffix("]").partition("[")
    if bracket and not rest.endswith("]"):
        raise UsageError(f"expected proj:FILE or proj:FILE[EXTRA,EXTRA], found {entry!r}")
    path = inside(root, path)
    chosen = {name.strip() for name in extras.split(",")} - {""} if bracket else None
    words: dict[str, None] = {}
    for key, text in pyproject.dependencies(root, path, chosen):
        refuse_password(text, f"{path}: {key}")
        try:
            words[_requirement(text)] = None
        except UsageError as error:
            raise UsageError(f"{path}: {key}: {error}") from None
    return Dependency(entry, tuple(words), git=any("git+" in word for word in words))


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
