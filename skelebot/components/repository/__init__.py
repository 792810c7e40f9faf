"""`push`, `pull` and `artifacts`: versions of models and other files, kept in a store."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from skelebot import console, files
from skelebot.component import Check, Command, Component, Session
from skelebot.components.repository.settings import S3, Artifact, Artifactory, Local
from skelebot.components.repository.store import Store
from skelebot.errors import SkelebotError, UsageError
from skelebot.keys import key
from skelebot.model import Arg, Param, Project
from skelebot.options import Values

ALL = "ALL"
LATEST = "LATEST"


@dataclass(frozen=True)
class Repository(Component):
    """Where the project's artifacts are kept."""

    s3: S3 | None = key(None, help="Keep them in S3")
    artifactory: Artifactory | None = key(None, help="Keep them in Artifactory")
    local: Local | None = key(None, help="Keep them in a folder")
    artifacts: tuple[Artifact, ...] = key((), help="What is kept")

    def problems(self) -> Iterator[str]:
        given = [name for name in ("s3", "artifactory", "local") if getattr(self, name)]
        if len(given) != 1:
            yield f"expected exactly one of s3, artifactory and local; found {' and '.join(given) or 'none'}"
        seen: list[str] = []
        for artifact in self.artifacts:
            if artifact.name == ALL:
                yield "an artifact cannot be named ALL, which means every artifact; choose another name"
            if artifact.name in seen:
                yield f"there are two artifacts named {artifact.name!r}; choose another name"
            if os.path.normpath(artifact.file) in (".", ".."):
                yield f"the artifact {artifact.name!r} is the whole project; name a file or folder in it"
            seen.append(artifact.name)

    def commands(self, project: Project | None) -> Iterable[Command]:
        which = Arg("name", (*(a.name for a in self.artifacts), ALL), "The artifact, or ALL of them")
        version = Arg(
            "version",
            help=f"The version; {LATEST} is the latest compatible one (default: {LATEST})",
            optional=True,
            offered=(LATEST,),
        )
        one = Arg("name", which.choices[:-1], "Only this artifact", optional=True)
        common = (*self._credential_params(), _PREFIX, _JSON)
        return (
            Command(
                "push",
                "Store an artifact under the project's version",
                self._push,
                (which,),
                (_FORCE, _RUN, *common),
            ),
            Command(
                "pull", "Get an artifact from the store", self._pull, (which, version), (_OVERRIDE, *common)
            ),
            Command("artifacts", "List what the store holds", self._list, (one,), common),
        )

    def checks(self, session: Session) -> Iterator[Check]:
        """Whether the store can be used with the credentials that are set; never asks for them."""
        try:
            store = self.open_store(session.project, ask=False)
            store.check()
        except SkelebotError as error:
            yield Check.failed("store", error)
            return
        try:
            store.check_write()
            yield Check("store", f"{self._store_name()} can be used")
        except SkelebotError as error:
            text = f"{self._store_name()} can be read, but not written: {error}"
            yield Check.failed("store", SkelebotError(text))

    def _store_name(self) -> str:
        if self.s3:
            return f"the bucket {self.s3.bucket}"
        if self.artifactory:
            return f"Artifactory's repository {self.artifactory.repo}"
        return f"the folder {self.local.path if self.local else ''}"

    def _credential_params(self) -> tuple[Param, ...]:
        auth = self.artifactory.auth if self.artifactory else None
        if auth is None or auth.aws:
            return ()
        return (_USER, _TOKEN) if auth.kind == "user_pass" else (_TOKEN,)

    def open_store(
        self, project: Project, user: str | None = None, token: str | None = None, ask: bool = True
    ) -> Store:
        """The configured store, with credentials. Raises SkelebotError.

        ask: missing credentials may be asked for on the terminal.
        """
        files.sweep()  # archives that killed pushes have left
        if self.s3:
            from skelebot.components.repository.s3 import S3Store  # brings botocore

            return S3Store(self.s3)
        if self.artifactory:
            from skelebot.components.repository import credentials  # brings requests
            from skelebot.components.repository.artifactory import ArtifactoryStore

            found = credentials.find(self.artifactory.auth, user, token, ask)
            return ArtifactoryStore(self.artifactory, found)
        from skelebot.components.repository.local import LocalStore

        assert self.local
        return LocalStore(os.path.join(project.root, os.path.expanduser(self.local.path)))

    def _store(self, session: Session, values: Values) -> Store:
        return self.open_store(session.project, _text(values, "user"), _text(values, "token"))

    def _chosen(self, values: Values) -> list[Artifact]:
        name = values.get("<name>", ALL)
        if name == ALL and "<name>" in values and not self.artifacts:
            raise UsageError("there are no artifacts; name some in components.repository.artifacts")
        return [artifact for artifact in self.artifacts if name in (ALL, artifact.name)]

    # --- the commands ---

    def _push(self, session: Session, values: Values) -> int:
        from skelebot.components.repository import commands

        project = session.project
        run = int(str(values["run"])) if values.get("run") else None
        items = commands.items_to_push(project, self._chosen(values), _prefix(values), run)
        if session.flags.dry_run:
            return _print([f"push {item.path} -> {item.key}" for item in items])
        store = self._store(session, values)
        force, as_json = bool(values.get("force")), bool(values.get("json"))
        return commands.push(store, items, project.root, force, as_json)

    def _pull(self, session: Session, values: Values) -> int:
        from skelebot.components.repository import commands

        prefix, version = _prefix(values), str(values.get("<version>", LATEST))
        commands.check_version(version)
        chosen = self._chosen(values)
        if session.flags.dry_run:
            return _print([f"pull {artifact.name} {version}" for artifact in chosen])
        store, override = self._store(session, values), bool(values.get("override"))
        as_json = bool(values.get("json"))
        return commands.pull(store, session.project, chosen, version, override, prefix, as_json)

    def pull_one(self, project: Project, name: str, version: str, override: bool, prefix: str) -> str:
        """Pull an artifact and return its path. Raises SkelebotError."""
        from skelebot.components.repository import commands

        artifact = next((a for a in self.artifacts if a.name == name), None)
        if artifact is None:
            raise SkelebotError(f"there is no artifact named {name!r} in the configuration")
        commands.check_version(version)
        commands.check_prefix(prefix)
        store = self.open_store(project)
        return commands.prepare_pull(store, project, artifact, version, override, prefix)().path

    def _list(self, session: Session, values: Values) -> int:
        from skelebot.components.repository import commands

        project, prefix, chosen = session.project, _prefix(values), self._chosen(values)
        if session.flags.dry_run:
            return _print([f"list {artifact.name}" for artifact in chosen])
        store, as_json = self._store(session, values), bool(values.get("json"))
        return commands.list_artifacts(store, project, chosen, prefix, "<name>" in values, as_json)


_FORCE = Param("force", "f", accepts="boolean", help="Replace a version that is already stored")
_RUN = Param("run", type="int", min="1", placeholder="RUN", help="Store what this recorded run has made")
_OVERRIDE = Param("override", "o", accepts="boolean", help="Replace the configured file or folder")
_PREFIX = Param("prefix", "p", help="Text before the name in the store, as in staging/")
_JSON = Param("json", accepts="boolean", help="Print the result as JSON")
_USER = Param("user", "u", help="The Artifactory user")
_TOKEN = Param("token", "t", secret=True, help="The password, token or API key")


def _prefix(values: Values) -> str:
    from skelebot.components.repository.commands import check_prefix

    prefix = _text(values, "prefix") or ""
    check_prefix(prefix)
    return prefix


def _text(values: Values, name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) else None


def _print(lines: Iterable[str]) -> int:
    for line in lines:
        console.out(line)
    return 0
