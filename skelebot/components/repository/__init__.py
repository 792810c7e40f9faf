"""`push`, `pull` and `artifacts`: versions of models and other files, kept in a store."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from skelebot import console
from skelebot.component import Check, Command, Component, Session
from skelebot.components.repository import names, transfer
from skelebot.components.repository.store import Store, Stored
from skelebot.components.repository.transfer import Done
from skelebot.errors import SkelebotError, UsageError
from skelebot.model import Arg, Param, Project, key, not_blank, pattern
from skelebot.options import Values
from skelebot.project.read import parsed_version

ALL = "ALL"
LATEST = "LATEST"

_name = pattern(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*", "a name of letters, digits, dots, dashes and underscores")


@dataclass(frozen=True)
class Artifact:
    """A file or folder of the project that has versions in the store."""

    name: str = key(help="What push and pull call it", check=_name)
    file: str = key(help="The file, or a folder with a slash at its end, from the project root")
    singular: bool = key(False, help="There is but one, without versions")


@dataclass(frozen=True)
class S3:
    """A bucket of Amazon S3, or of a server that speaks its protocol."""

    bucket: str = key(
        help="The bucket, with a key prefix after a slash",
        check=pattern(r"[^/]*[^/\s].*", "the name of a bucket"),
    )
    region: str | None = key(None, help="The bucket's region")
    profile: str | None = key(None, help="The profile of ~/.aws to use")
    endpoint: str | None = key(None, help="The address of another server than Amazon's")


@dataclass(frozen=True)
class Auth:
    """How to log in to Artifactory."""

    auth_type: Literal["user_pass", "token", "api_key", "apikey"] = key(
        "user_pass", help="What Artifactory is shown"
    )
    aws: bool = key(False, help="Read it from AWS Secrets Manager")
    aws_secret: str = key("Artifactory", help="The secret's name")
    aws_profile: str | None = key(None, help="The profile of ~/.aws to use")
    aws_region: str = key("us-east-1", help="The secret's region")

    @property
    def kind(self) -> str:
        return self.auth_type.replace("apikey", "api_key")


@dataclass(frozen=True)
class Artifactory:
    """A repository of JFrog Artifactory."""

    url: str = key(help="Its address; https unless it says otherwise", check=not_blank)
    repo: str = key(help="The repository's name", check=not_blank)
    path: str = key("", help="The folder in the repository")
    auth: Auth = key(Auth(), help="How to log in")
    insecure: bool = key(False, help="Send credentials over http to other machines")


@dataclass(frozen=True)
class Local:
    """A folder as a store."""

    path: str = key(help="The folder, also on a network share", short="path", check=not_blank)


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
            yield f"expected just one of s3, artifactory and local; found {' and '.join(given) or 'none'}"
        seen: list[str] = []
        for artifact in self.artifacts:
            if artifact.name == ALL:
                yield "an artifact cannot be named ALL, which means every one; choose another name"
            if artifact.name in seen:
                yield f"there are two artifacts named {artifact.name!r}; choose another name"
            if os.path.normpath(artifact.file) in (".", ".."):
                yield f"the artifact {artifact.name!r} is the whole project; name a file or folder in it"
            seen.append(artifact.name)

    def commands(self, project: Project | None) -> Iterable[Command]:
        which = Arg("name", (*(a.name for a in self.artifacts), ALL), "The artifact, or ALL of them")
        version = Arg(
            "version", (), f"The version, or {LATEST} for the latest compatible one", offered=(LATEST,)
        )
        one = Arg("name", which.choices[:-1], "Just this artifact", optional=True)
        common = (*self._credential_params(), _PREFIX, _JSON)
        return (
            Command(
                "push",
                "Store an artifact under the project's version",
                self._push,
                (which,),
                (_FORCE, *common),
            ),
            Command(
                "pull", "Get an artifact from the store", self._pull, (which, version), (_OVERRIDE, *common)
            ),
            Command("artifacts", "List what the store holds", self._list, (one,), common),
        )

    def checks(self, session: Session) -> Iterator[Check]:
        """Whether the store can be reached, and lets one in with what is set; nobody is asked."""
        try:
            self.store(session.project, ask=False).check()
            yield Check("store", f"{self._kept_in()} can be used")
        except SkelebotError as error:
            yield Check.failed("store", error)

    def _kept_in(self) -> str:
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

    # --- the store ---

    def store(
        self, project: Project, user: str | None = None, token: str | None = None, ask: bool = True
    ) -> Store:
        """The configured store, logged in to. Raises SkelebotError.

        ask: what is missing of the credentials may be asked for on the terminal.
        """
        if self.s3:
            from skelebot.components.repository.s3 import S3Store  # brings boto3

            return S3Store(self.s3.bucket, self.s3.region, self.s3.profile, self.s3.endpoint)
        if self.artifactory:
            from skelebot.components.repository import artifactory, credentials  # brings requests

            settings = self.artifactory
            url = artifactory.base_url(settings.url, settings.insecure)
            found = credentials.find(settings.auth, user, token, ask)
            return artifactory.ArtifactoryStore(url, settings.repo, settings.path, settings.auth.kind, found)
        from skelebot.components.repository.local import LocalStore

        assert self.local
        return LocalStore(os.path.join(project.root, os.path.expanduser(self.local.path)))

    def _store(self, session: Session, values: Values) -> Store:
        user, token = values.get("user"), values.get("token")
        return self.store(session.project, _text(user), _text(token))

    def _chosen(self, values: Values) -> list[Artifact]:
        name = values.get("<name>", ALL)
        if name == ALL and "<name>" in values and not self.artifacts:
            raise UsageError("there are no artifacts; name some in components.repository.artifacts")
        return [artifact for artifact in self.artifacts if name in (ALL, artifact.name)]

    # --- the commands ---

    def _push(self, session: Session, values: Values) -> int:
        project, prefix = session.project, _prefix(values)
        chosen = self._chosen(values)
        version = None
        if not all(artifact.singular for artifact in chosen):
            version = str(parsed_version(project.version))
        items = [transfer.item(project.root, a.name, a.file, a.singular, prefix, version) for a in chosen]
        if session.flags.dry_run:
            return _show([f"push {item.file} -> {item.key}" for item in items])
        store = self._store(session, values)
        force = bool(values.get("force"))
        work: list[Callable[[], Done]] = [transfer.push(store, item, force) for item in items]
        return _carry_out([item.name for item in items], work, bool(values.get("json")))

    def _pull(self, session: Session, values: Values) -> int:
        project, prefix = session.project, _prefix(values)
        version, override = str(values["<version>"]), bool(values.get("override"))
        _check_version(version)
        chosen = self._chosen(values)
        if session.flags.dry_run:
            return _show([f"pull {artifact.name} {version}" for artifact in chosen])
        store = self._store(session, values)
        work = [self._pulling(store, project, a, version, override, prefix) for a in chosen]
        return _carry_out([artifact.name for artifact in chosen], work, bool(values.get("json")))

    @staticmethod
    def _pulling(
        store: Store, project: Project, artifact: Artifact, version: str, override: bool, prefix: str
    ) -> Callable[[], Done]:
        """Finds the object now, for what it gives to bring it."""
        try:
            item = transfer.found(
                store, project, artifact.name, artifact.file, artifact.singular, prefix, version
            )
            return transfer.pull(store, item, project.root, override)
        except SkelebotError as error:
            return _failing(error)

    def pull_one(self, project: Project, name: str, version: str, override: bool, prefix: str) -> str:
        """The path of an artifact that was pulled. Raises SkelebotError."""
        artifact = next((a for a in self.artifacts if a.name == name), None)
        if artifact is None:
            raise SkelebotError(f"there is no artifact named {name!r} in the configuration")
        _check_version(version)
        _check_prefix(prefix)
        return self._pulling(self.store(project), project, artifact, version, override, prefix)().path

    def _list(self, session: Session, values: Values) -> int:
        project, prefix = session.project, _prefix(values)
        single = "<name>" in values
        if session.flags.dry_run:
            return _show([f"list {artifact.name}" for artifact in self._chosen(values)])
        store = self._store(session, values)
        rows = [row for a in self._chosen(values) for row in _rows(store, project, a, prefix, single)]
        if values.get("json"):
            console.out(json.dumps(rows, indent=2))
            return 0
        for row in rows:
            mark = " (LATEST)" if row["latest"] else ""
            console.out(f"{row['name']} {row['version'] or '-'} {row['size']} {row['modified']}{mark}")
        return 0


_FORCE = Param("force", "f", accepts="boolean", help="Replace a version that is there already")
_OVERRIDE = Param("override", "o", accepts="boolean", help="Put it in the place of the configured file")
_PREFIX = Param("prefix", "p", help="Text before the name in the store, as in staging/")
_JSON = Param("json", accepts="boolean", help="Print what was done as JSON")
_USER = Param("user", "u", help="The user of Artifactory")
_TOKEN = Param("token", "t", secret=True, help="The password, token or API key")


def _check_version(version: str) -> None:
    if version != LATEST and not names.is_version(version):
        raise UsageError(f"pull: expected a version, as in 1.4.0, or {LATEST}; found {version!r}")


def _prefix(values: Values) -> str:
    prefix = _text(values.get("prefix")) or ""
    _check_prefix(prefix)
    return prefix


def _check_prefix(prefix: str) -> None:
    """Addresses, as those of Artifactory, would take the way that such words mean."""
    if {".", ".."} & set(prefix.split("/")[:-1]):
        raise UsageError(
            f"--prefix: expected no `.` or `..` before a slash, as in staging/; found {prefix!r}"
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _show(lines: Sequence[str]) -> int:
    for line in lines:
        console.out(line)
    return 0


def _failing(error: SkelebotError) -> Callable[[], Done]:
    def fail() -> Done:
        raise error

    return fail


def _carry_out(all_names: Sequence[str], work: Sequence[Callable[[], Done]], as_json: bool) -> int:
    """Does what there is to do; one that fails does not keep the others from being done."""
    done: list[Done] = []
    failed: list[str] = []
    for name, act in zip(all_names, work, strict=True):
        try:
            done.append(act())
        except SkelebotError as error:
            console.error(f"{name}: {error}")
            failed.append(name)
            continue
        if not as_json:
            console.out(done[-1].path if done[-1].pulled else done[-1].key)
    if as_json:
        console.out(json.dumps([_as_json(one) for one in done], indent=2))
    if failed and len(all_names) > 1:
        good = ", ".join(one.name for one in done) or "none"
        console.warn(f"transferred: {good}; failed: {', '.join(failed)}")
    return 1 if failed else 0


def _as_json(done: Done) -> dict[str, object]:
    return {name: value for name, value in asdict(done).items() if name != "pulled"}


def _rows(
    store: Store, project: Project, artifact: Artifact, prefix: str, single: bool
) -> Iterator[dict[str, object]]:
    """The versions of an artifact, oldest first, with the one that LATEST would take marked."""
    listed = transfer.listed(store, project.root, artifact.name, artifact.file, artifact.singular, prefix)
    takes = transfer.latest_of(listed, project, artifact.name) if listed else None
    for stored, version in listed:
        row: dict[str, object] = {
            "name": artifact.name,
            "version": version,
            "size": stored.size,
            "modified": stored.modified,
            "latest": stored.key == takes,
        }
        yield row | ({"sha256": _sum(store, stored)} if single else {})


def _sum(store: Store, stored: Stored) -> str | None:
    found = stored if stored.sha256 else store.head(stored.key)
    return found.sha256 if found else None
