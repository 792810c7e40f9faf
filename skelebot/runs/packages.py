"""The packages that runs had, from the lists that a store keeps: lines such as `numpy==1.26.4`."""

from collections.abc import Iterable

from skelebot.runs.store import Store


def lines(store: Store, ident: str) -> list[str]:
    """Return a list of packages; an empty one where it is lost."""
    try:
        with open(store.packages_file(ident), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def of(store: Store, idents: Iterable[str]) -> dict[str, str]:
    """Return the versions of the packages of some lists, by name."""
    return versions(line for ident in idents for line in lines(store, ident))


def versions(found: Iterable[str]) -> dict[str, str]:
    """Return the versions in lines of a list, by name; all of them where there are several."""
    known: dict[str, list[str]] = {}
    for line in found:
        name, _, version = line.partition("==")
        if version not in known.setdefault(name, []):
            known[name].append(version)
    return {name: ", ".join(each) for name, each in known.items()}
