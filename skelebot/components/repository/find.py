"""Find an artifact in the project and in the store."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from skelebot.components.repository import names
from skelebot.components.repository.settings import Artifact
from skelebot.components.repository.store import Origin, Store, Stored
from skelebot.errors import SkelebotError
from skelebot.model import Project
from skelebot.project.read import parsed_version

LATEST = "LATEST"


@dataclass(frozen=True)
class Item:
    """One version of an artifact, with its path in the project and its key in the store."""

    name: str
    version: str | None
    key: str
    path: str
    is_folder: bool
    stored: Stored | None = None
    origin: Origin = ()


def in_project(root: str, artifact: Artifact, prefix: str, version: str | None) -> Item:
    path = os.path.join(root, os.path.expanduser(artifact.file))
    is_folder = artifact.file.endswith("/") or os.path.isdir(path)
    number = None if artifact.singular else version
    key = names.key(prefix, artifact.name, number, names.extension(artifact.file, is_folder))
    return Item(artifact.name, number, key, os.path.normpath(path), is_folder)


def in_store(store: Store, project: Project, artifact: Artifact, prefix: str, version: str) -> Item:
    """A version, or the latest compatible one, with its object. Raises SkelebotError if there is none."""
    artifact = _with_slash(store, project.root, artifact, prefix)
    if version == LATEST and not artifact.singular:
        version = _latest_version(store, project, artifact, prefix)
    item = in_project(project.root, artifact, prefix, version)
    stored = store.head(item.key)
    if stored is None:
        raise SkelebotError(f"{item.key} is not in the store; see `skelebot artifacts {item.name}`")
    return replace(item, stored=stored)


def _latest_version(store: Store, project: Project, artifact: Artifact, prefix: str) -> str:
    current = str(parsed_version(project.version))
    ending = names.extension(artifact.file, in_project(project.root, artifact, prefix, None).is_folder)
    keys = [stored.key for stored in store.list(f"{prefix}{artifact.name}_v")]
    versions = names.versions(keys, prefix, artifact.name, ending)
    key = names.latest(versions, current)
    if key is None:
        raise names.no_compatible_version(versions, current, artifact.name)
    return versions[key]


def list_versions(
    store: Store, root: str, artifact: Artifact, prefix: str
) -> list[tuple[Stored, str | None]]:
    """The objects of exactly this artifact with their versions, lowest first."""
    artifact = _with_slash(store, root, artifact, prefix)
    item = in_project(root, artifact, prefix, None)
    if artifact.singular:
        stored = store.head(item.key)
        return [(stored, None)] if stored else []
    objects = {stored.key: stored for stored in store.list(f"{prefix}{artifact.name}_v")}
    ending = names.extension(artifact.file, item.is_folder)
    versions = names.versions(objects, prefix, artifact.name, ending)
    return [(objects[key], version) for key, version in versions.items()]


def latest_key(listed: Sequence[tuple[Stored, str | None]], project: Project) -> str | None:
    """The key that LATEST would choose, or None if no version is compatible."""
    versions = {stored.key: version for stored, version in listed if version is not None}
    if not versions:
        return listed[0][0].key if listed else None
    try:
        return names.latest(versions, str(parsed_version(project.version)))
    except SkelebotError:  # the project has no version
        return None


def _with_slash(store: Store, root: str, artifact: Artifact, prefix: str) -> Artifact:
    """The artifact, with a folder's slash if only the store can tell that it is a folder.

    That is so for a name without an extension on a machine where nothing is at its path yet.
    """
    name, file = artifact.name, artifact.file
    path = os.path.join(root, os.path.expanduser(file))
    if file.endswith("/") or names.extension(file, False) or os.path.lexists(path):
        return artifact
    keys = [stored.key for stored in store.list(f"{prefix}{name}")]
    if artifact.singular:
        as_folder = {names.key(prefix, name, None, names.ARCHIVE)} & set(keys)
        as_file = {names.key(prefix, name, None, "")} & set(keys)
    else:
        as_folder = set(names.versions(keys, prefix, name, names.ARCHIVE))
        as_file = set(names.versions(keys, prefix, name, "")) - as_folder
    return replace(artifact, file=f"{file}/") if as_folder and not as_file else artifact
