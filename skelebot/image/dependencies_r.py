"""The R entries of a project; install.R, which runs in the image, is their installer."""

import os
import re
from collections.abc import Sequence

from skelebot.errors import UsageError
from skelebot.image.dependencies import Dependency, inside, read, repository

# https://cran.r-project.org/doc/manuals/r-release/R-exts.html#The-DESCRIPTION-file
_NAME = r"[A-Za-z][A-Za-z0-9.]*[A-Za-z0-9]"
_PACKAGE = re.compile(rf"({_NAME})(?:\s*==?\s*([0-9]+(?:[.-][0-9]+)+))?", re.ASCII)


def r(root: str, entries: Sequence[str], places: Sequence[str] = ()) -> tuple[Dependency, ...]:
    """The R entries of a project, each one word for the installer.

    Raises ConfigError with a line for each wrong one.
    """
    return read(entries, places, lambda entry: _r(root, entry))


def _r(root: str, entry: str) -> Dependency:
    kind, colon, rest = entry.partition(":")
    if colon and kind == "github":
        return Dependency(entry, (f"git:{_with_ref(repository(entry, rest))}",), git=True)
    if colon and kind == "file":
        path = inside(root, rest)
        if not path.endswith(".tar.gz"):
            raise UsageError(f"expected a .tar.gz with the source of a package, found {path!r}")
        return Dependency(entry, (f"file:{path}",), (path,))
    if colon and kind == "renv":
        path = inside(root, rest)
        return Dependency(entry, (f"renv:{path}",), (path,))
    if package := _PACKAGE.fullmatch(entry):
        return Dependency(entry, ("=".join(filter(None, package.groups())),))
    kinds = "github:OWNER/REPO, file:PACKAGE.tar.gz or renv:renv.lock"
    raise UsageError(
        f"expected a package of R, as in data.table or data.table=1.14.8, or {kinds}; found {entry!r}"
    )


def _with_ref(url: str) -> str:
    """An address with its ref behind `#`, which can stand nowhere else in it."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    path, at, ref = path.rpartition("@") if "@" in path else (path, "", "")
    if at and (not ref or ref.startswith("-")):
        raise UsageError(f"expected the name of a tag, branch or commit behind the @; found {ref!r}")
    return f"{scheme}://{host}{slash}{path}{f'#{ref}' if at else ''}"


# --- the steps of a Dockerfile ---

INSTALLER = "skelebot-r-install"

CHECK_R = """\
command -v Rscript >/dev/null || { \\
    echo 'the base image has no R:' \\
        'name one that has (baseImage), or add r-base-core to build.packages' >&2; exit 1; }"""


def script() -> str:
    with open(os.path.join(os.path.dirname(__file__), "install.R"), encoding="ascii") as file:
        return file.read()
