"""Who installs Python packages, in an image and natively: uv, which is several times faster, or pip.

One line does it in both places, so that both have the same packages.
"""

import re
import shlex
from collections.abc import Iterable, Sequence

from skelebot.image.dependencies import Dependency
from skelebot.image.instructions import write_program

INSTALLER = "skelebot-install"

# As pip does, uv takes the best version of all indexes, not of the first one that has the package.
_UV = ("pip", "install", "--index-strategy", "unsafe-best-match")


def command(python: str, uv: str | None, pip: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the program that installs what follows it into the environment of `python`.

    uv: the program, where it is to be used. pip: how pip is called for that Python.
    """
    if uv:
        return (uv, *_UV, "--python", python)
    return (*(pip or (python, "-m", "pip")), "install", "--disable-pip-version-check")


def only_pip(dependencies: Iterable[Dependency]) -> str | None:
    """Return the first thing that uv does not read as pip does, with its place."""
    return next((d.only_pip for d in dependencies if d.only_pip), None)


# What uv and pip say where packages exclude each other.
_CONFLICT = re.compile(r"No solution found when resolving|ResolutionImpossible|conflicting dependencies")


def conflict_hint(output: str, entries: Iterable[str]) -> str:
    """Return what to do about packages that exclude each other, as the end of a message."""
    whole = next((e for e in entries if e.startswith("proj:") and not e.endswith("]")), None)
    if whole is None or not _CONFLICT.search(output):
        return ""
    return f"; {whole} takes all extras: choose those that fit together, as in {whole}[EXTRA]"


# --- in an image ---

# Python would compile again in every run, as a container keeps nothing. Two fifths of the code of the larger
# packages are tests of their own, which no job runs.
_SCRIPT = """\
#!/bin/sh
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_SRC=/usr/local/src PIP_NO_COMPILE=1
export UV_BREAK_SYSTEM_PACKAGES=1 UV_LINK_MODE=copy
if [ -n "${PIP_CERT:-}" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"; fi
grep -q " /root/.cache " /proc/self/mounts || export PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
before=$(mktemp)
$(cat /usr/local/share/skelebot-installer) "$@" || exit
# Compile what is new, but for the tests of the packages.
site=$(python -c "import sysconfig; print(sysconfig.get_path(\\"purelib\\"))")
find "$site" -name "*.py" -cnewer "$before" ! -path "*/tests/*" -print0 |
    xargs -0 -r -n 100 -P "$(nproc)" python -m compileall -qq
rm "$before"
"""


def steps(reason: str | None) -> list[str]:
    """Return the lines that put the installer into an image. reason: why pip has to serve."""
    pip = shlex.join(command("python", None))
    choice = f"echo '{pip}'"
    if reason:
        comment = f"# pip installs the packages, as uv does not read this as pip does: {reason}"
    else:
        comment = "# uv installs the packages; pip, where it has an index of its own or uv is not available."
        uv = shlex.join(command("", "uv")[:-1])
        install_uv = "PIP_BREAK_SYSTEM_PACKAGES=1 python -m pip install --quiet --no-cache-dir uv"
        choice = (
            "if python -m pip config list | grep -E '(index-url|find-links|no-index)=' >/dev/null; then \\\n"
            f"        echo '{pip}'; \\\n"
            f"    elif command -v uv >/dev/null \\\n        || {install_uv}; then \\\n"
            f'        echo "{uv} $(command -v python)"; \\\n'
            f"    else echo '{pip}'; fi"
        )
    return [
        comment,
        f"RUN {choice} >/usr/local/share/skelebot-installer \\\n && " + write_program(INSTALLER, _SCRIPT),
    ]
