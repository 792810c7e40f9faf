"""What Skelebot keeps for a project, in the folder `.skelebot`, which may be deleted at any time."""

import os
from contextlib import suppress

from skelebot.errors import SkelebotError
from skelebot.files import reason

OWN = ".skelebot"


def own_folder(root: str) -> str:
    """Skelebot's folder in the project, which git is told to leave alone. Raises SkelebotError."""
    folder = os.path.join(root, OWN)
    try:
        os.makedirs(folder, exist_ok=True)
        ignore = os.path.join(folder, ".gitignore")
        if not os.path.exists(ignore):
            with open(ignore, "w", encoding="ascii") as file:
                file.write("*\n")
    except OSError as error:
        raise SkelebotError(f"{folder} cannot be written: {reason(error)}") from None
    return folder


# --- where the project's containers may be ---


def remember_host(root: str, host: str | None) -> None:
    """Notes a Docker host on which the project runs something, for `ps` and the like to look at."""
    if host is None or host in known_hosts(root):
        return
    with suppress(OSError, SkelebotError), open(_hosts_file(root), "a", encoding="utf-8") as file:
        file.write(f"{host}\n")


def known_hosts(root: str) -> list[str]:
    """The Docker hosts that were named for the project's jobs, but for the default one."""
    with suppress(OSError), open(os.path.join(root, OWN, "hosts"), encoding="utf-8") as file:
        return list(dict.fromkeys(file.read().split()))
    return []


def _hosts_file(root: str) -> str:
    return os.path.join(own_folder(root), "hosts")


# --- files that Skelebot writes for the user ---


def remember_output(root: str, path: str) -> None:
    """Notes a file that was written for the user, so that the project's images leave it out."""
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
    if inside.split(os.sep)[0] == os.pardir or "\n" in inside or inside in outputs(root):
        return
    with suppress(OSError, SkelebotError):  # a project that cannot be written holds no such file
        file_of_outputs = os.path.join(own_folder(root), "outputs")
        with open(file_of_outputs, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{inside}\n")


def outputs(root: str) -> tuple[str, ...]:
    """The paths, from the project root, of the files that were written for the user."""
    with suppress(OSError):
        file_of_outputs = os.path.join(root, OWN, "outputs")
        with open(file_of_outputs, encoding="utf-8", errors="surrogateescape") as file:
            return tuple(dict.fromkeys(file.read().split("\n")[:-1]))
    return ()
