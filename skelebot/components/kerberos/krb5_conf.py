"""A krb5.conf and the files that it includes, for an image.

The format: https://web.mit.edu/kerberos/krb5-latest/doc/admin/conf_files/krb5_conf.html
"""

import os
import re

from skelebot.errors import UsageError
from skelebot.files import open_regular, reason

_PATH = "/etc/krb5.conf"  # in the image
FOLDER = f"{_PATH}.d"  # of the files that it includes


def read(root: str, path: str) -> dict[str, str]:
    """The texts of the files, by their paths in the image. Raises UsageError.

    root: the folder that relative paths start from. In the texts, `include` and `includedir` lines name the
    files in the image instead of those on this machine.
    """
    files: dict[str, str] = {}
    _add(files, root, os.path.normpath(os.path.join(root, path)), "components.kerberos.krbConf", ())
    return files


def _add(files: dict[str, str], root: str, path: str, where: str, parents: tuple[str, ...]) -> str:
    """Add a file and those that it includes, and give its path in the image.

    where: the place that names it. parents: the files that are being read, which it must not include.
    """
    real = os.path.realpath(path)
    if real in parents:
        raise _error(where, f"{path} includes itself", "remove the line")
    target = f"{FOLDER}/{len(files)}" if files else _PATH
    files[target] = ""
    lines: list[str] = []
    for number, line in enumerate(_text(path, where).split("\n"), 1):
        directive = _directive(line, any(each.startswith("[") for each in lines))
        if not directive:
            lines.append(line)
            continue
        here = f"{path}:{number}"
        if directive[0] == "module":
            raise _error(here, "a module cannot be copied into the image", "remove the line")
        named = os.path.join(root, directive[1])
        included = _listed(named, here) if directive[0] == "includedir" else [named]
        lines += [f"include {_add(files, root, each, here, (*parents, real))}" for each in included]
    files[target] = "\n".join(lines)
    return target


def _directive(line: str, in_section: bool) -> tuple[str, str] | None:
    """A line's directive and what it names; `module` is one only before the first section."""
    match = re.match(r"(include|includedir|module)\s+(.*)", line)
    if not match or (match[1] == "module" and in_section):
        return None
    return match[1], match[2].strip()


def _text(path: str, where: str) -> str:
    try:
        with open_regular(path) as file:
            return file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _error(where, f"{path} cannot be read: {reason(error)}", "use one that you can read") from None


def _listed(folder: str, where: str) -> list[str]:
    """The files of a folder that Kerberos would include."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        advice = "create the folder or remove the line"
        raise _error(where, f"the folder {folder} cannot be read: {reason(error)}", advice) from None
    wanted = re.compile(r"(?!\.)(.*\.conf|[A-Za-z0-9_-]+)")
    paths = (os.path.join(folder, name) for name in names if wanted.fullmatch(name))
    return [path for path in paths if not os.path.isdir(path)]


def _error(where: str, problem: str, advice: str) -> UsageError:
    return UsageError(f"{where}: {problem}; {advice}")
