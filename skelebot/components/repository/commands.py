"""What `push`, `pull` and `artifacts` do."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from skelebot import console
from skelebot.components.repository import find, names, transfer
from skelebot.components.repository.settings import Artifact
from skelebot.components.repository.store import Store, Stored
from skelebot.components.repository.transfer import Result
from skelebot.errors import SkelebotError, UsageError
from skelebot.model import Project
from skelebot.project.read import parsed_version

Transfer = Callable[[], Result]


def items_to_push(
    project: Project, artifacts: Sequence[Artifact], prefix: str, run: int | None = None
) -> list[find.Item]:
    """Return what is to be pushed, of the checkout or of a recorded run.

    Raises SkelebotError if the project has no valid version, unless none of the artifacts has one.
    """
    version = None
    if not all(artifact.singular for artifact in artifacts):
        version = str(parsed_version(project.version))
    if run is None:
        return [find.in_project(project.root, artifact, prefix, version) for artifact in artifacts]
    from skelebot.components.repository import of_run

    return of_run.items(project, artifacts, prefix, version, run)


def push(store: Store, items: Sequence[find.Item], root: str, force: bool, as_json: bool) -> int:
    transfers = [(item.name, _prepare(transfer.push, store, item, root, force)) for item in items]
    return _run(transfers, lambda result: result.key, as_json)


def pull(
    store: Store,
    project: Project,
    artifacts: Sequence[Artifact],
    version: str,
    override: bool,
    prefix: str,
    as_json: bool,
) -> int:
    transfers = [
        (each.name, _prepare(prepare_pull, store, project, each, version, override, prefix))
        for each in artifacts
    ]
    return _run(transfers, lambda result: result.path, as_json)


def prepare_pull(
    store: Store, project: Project, artifact: Artifact, version: str, override: bool, prefix: str
) -> Transfer:
    """Find a version in the store, and return its transfer. Raises SkelebotError."""
    item = find.in_store(store, project, artifact, prefix, version)
    return transfer.pull(store, item, project.root, override)


def check_version(version: str) -> None:
    if version != find.LATEST and not names.is_version(version):
        raise UsageError(f"pull: expected a version, as in 1.4.0, or {find.LATEST}; found {version!r}")


def check_prefix(prefix: str) -> None:
    """Refuse what the address of a file in Artifactory would resolve to another folder."""
    if {".", ".."} & set(prefix.split("/")[:-1]):
        raise UsageError(
            f"--prefix: expected no `.` or `..` before a slash, as in staging/; found {prefix!r}"
        )


def _prepare(prepare: Callable[..., Transfer], *args: object) -> Transfer:
    """Prepare a transfer now; an error is raised only when the transfer's turn comes."""
    try:
        return prepare(*args)
    except SkelebotError as error:
        failure = error

    def fail() -> Result:
        raise failure

    return fail


def _run(transfers: Sequence[tuple[str, Transfer]], describe: Callable[[Result], str], as_json: bool) -> int:
    """Run the transfers, those after a failed one too, and return the exit code."""
    results: list[Result] = []
    failed: list[str] = []
    for name, run in transfers:
        try:
            results.append(run())
        except SkelebotError as error:
            console.error(f"{name}: {error}")
            failed.append(name)
            continue
        if not as_json:
            console.out(describe(results[-1]))
    if as_json:
        console.out(json.dumps([asdict(result) for result in results], indent=2))
    if failed and len(transfers) > 1:
        transferred = ", ".join(result.name for result in results) or "none"
        console.warn(f"transferred: {transferred}; failed: {', '.join(failed)}")
    return 1 if failed else 0


# --- artifacts ---


def list_artifacts(
    store: Store, project: Project, artifacts: Sequence[Artifact], prefix: str, with_sums: bool, as_json: bool
) -> int:
    rows = [row for each in artifacts for row in _rows(store, project, each, prefix, with_sums)]
    if as_json:
        console.out(json.dumps(rows, indent=2))
        return 0
    console.table(("NAME", "VERSION", "SIZE", "STORED", ""), [_cells(row) for row in rows])
    return 0


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    stored = row["modified"][:16].replace("T", " ")
    mark = "(LATEST)" if row["latest"] else ""
    return row["name"], row["version"] or "-", console.size(row["size"]), stored, mark


def _rows(
    store: Store, project: Project, artifact: Artifact, prefix: str, with_sums: bool
) -> Iterator[dict[str, object]]:
    """The versions of an artifact, lowest first."""
    listed = find.list_versions(store, project.root, artifact, prefix)
    latest = find.latest_key(listed, project)
    for stored, version in listed:
        row: dict[str, object] = {
            "name": artifact.name,
            "version": version,
            "size": stored.size,
            "modified": stored.modified,
            "latest": stored.key == latest,
        }
        yield row | (_details(store, stored) if with_sums else {})


def _details(store: Store, stored: Stored) -> dict[str, object]:
    """Return the checksum, and the recorded run that made it where the store has one."""
    found = stored if stored.sha256 else store.head(stored.key)
    return {"sha256": found.sha256 if found else None, **dict(found.origin if found else ())}
