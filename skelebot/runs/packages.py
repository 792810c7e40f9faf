"""Which packages runs had, each list once: STORE/packages/SHA256, a line `name==version` for each."""

import hashlib
import os
from collections.abc import Iterable

from skelebot.errors import SkelebotError
from skelebot.files import reason, replace_file


def keep(store: str, lines: Iterable[str]) -> str:
    """Keep a list of packages and return its id. Raises SkelebotError."""
    data = "".join(f"{line}\n" for line in sorted(set(lines))).encode("utf-8", "surrogateescape")
    ident = hashlib.sha256(data).hexdigest()
    path = os.path.join(store, "packages", ident)
    try:
        if not os.path.exists(path):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            replace_file(path, data, 0o600)
    except OSError as error:
        raise SkelebotError(f"{path} cannot be written: {reason(error)}") from None
    return ident


def lines(store: str, ident: str) -> list[str]:
    """Return a list of packages; an empty one where it is lost."""
    try:
        with open(os.path.join(store, "packages", ident), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def versions(store: str, idents: Iterable[str]) -> dict[str, str]:
    """Return the versions of all packages of some lists, by name."""
    found: dict[str, list[str]] = {}
    for line in (line for ident in idents for line in lines(store, ident)):
        name, _, version = line.partition("==")
        if version not in found.setdefault(name, []):
            found[name].append(version)
    return {name: ", ".join(each) for name, each in found.items()}
