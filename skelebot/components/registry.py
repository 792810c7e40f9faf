"""`publish`: push the project's image to a registry."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from skelebot import console, files, launch
from skelebot.component import Check, Command, Component, Link, Session
from skelebot.errors import SkelebotError, UsageError
from skelebot.keys import key, pattern, port_number
from skelebot.model import Flags, Image, Param, Place, Project, Task
from skelebot.model import Registry as ImageRegistry
from skelebot.options import Values
from skelebot.project.read import parsed_version

if TYPE_CHECKING:
    from skelebot.runners.docker.login import Credentials
    from skelebot.runners.docker.push import Env

LATEST = "latest"
DOCKER_HUB = "docker.io"

# https://github.com/distribution/reference/blob/main/reference.go
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_WORD = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"

_host = pattern(
    rf"{_LABEL}(\.{_LABEL})*", "a host name, such as registry.example.com; `port` is a separate key"
)
_user = pattern(
    rf"{_WORD}(/{_WORD})*", "lower-case letters and digits, with single dots, dashes and slashes between"
)


@dataclass(frozen=True)
class Aws:
    """How to log in to Amazon's registry, ECR."""

    region: str | None = key(None, help="The registry's region, if its host does not name it")
    profile: str | None = key(None, help="The profile of ~/.aws to use")


@dataclass(frozen=True)
class Registry(Component):
    """Where the project's image is published."""

    host: str = key(
        DOCKER_HUB,
        help="The registry's host, such as registry.example.com (default: Docker Hub)",
        check=_host,
    )
    port: int | None = key(None, help="Its port, if it is not the default one", check=port_number)
    user: str | None = key(None, help="The user or group in the registry that owns the image", check=_user)
    aws: Aws | None = key(None, help="Log in to Amazon ECR")

    def problems(self) -> Iterator[str]:
        if self.host == DOCKER_HUB and not self.user:
            yield "user: Docker Hub needs the owner of the image; add it, or set another `host`"
        if self.port is None and "." not in self.host and self.host != "localhost":
            yield f"host: Docker takes {self.host!r} for a user of Docker Hub; write its full name or a port"

    def commands(self, project: Project | None) -> Iterable[Command]:
        text = "Build the project's image and push it to the registry"
        return (Command("publish", text, self._publish, params=_PARAMS, check=self._check),)

    def image(self, image: Image, project: Project) -> Image:
        aws = self.aws or Aws()
        place = (self.server, self.repository(project), self.aws is not None, aws.region, aws.profile)
        return replace(image, registry=ImageRegistry(*place))

    @property
    def server(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host

    def repository(self, project: Project) -> str:
        """The image's name in the registry, without a tag."""
        return "/".join(filter(None, (self.server, self.user, project.image)))

    # --- publishing ---

    def _check(self, session: Session, values: Values, earlier: Sequence[Link]) -> None:
        """Raise SkelebotError for what would keep the image from being published."""
        _extra_tags(values)
        launch.check_primary_job(session)
        if not any(link.command.changes for link in earlier):  # which may write VERSION
            _tags(session.project, values)
        task = _task(session)
        launch.check(session, launch.image(session, with_outputs=True), task)

    def _publish(self, session: Session, values: Values) -> int:
        from skelebot.runners.docker import login, release
        from skelebot.runners.docker.push import published_image, push

        project = session.project
        repository, tags = self.repository(project), _tags(project, values)
        references = [f"{repository}:{tag}" for tag in tags]
        # The name that must not move; once it is published, only the tags of -t are left to push.
        version = None if values.get("omit-version") or values.get("force") else references[0]
        more = _extra_tags(values)
        image, task = launch.image(session, with_outputs=True), _task(session)
        if session.flags.dry_run:
            return _show(image, references, session.flags)
        files.sweep()
        launch.fetch_dependencies(session)
        with release.released(image, task, session.flags) as (client, found):

            def push_new(env: "Env") -> tuple[str, list[str]]:
                known = version and published_image(client, self.server, found, version, task, env)
                if not known:
                    return push(client, self.server, found, references, task, env), tags
                digest, there = known
                if more:
                    push(client, self.server, there, [f"{repository}:{tag}" for tag in more], task, env)
                return digest, [tags[0], *more]

            digest, tags = login.with_login(client, self.server, self._credentials(), push_new)
        answer = {"image": repository, "tags": tags, "digest": digest}
        console.out(json.dumps(answer, indent=2) if values.get("json") else digest)
        return 0

    def _credentials(self) -> "Credentials | None":
        """Those of AWS or of the environment; None leaves it to Docker. Raises SkelebotError."""
        from skelebot.runners.docker import login

        if self.aws:
            return login.from_aws(self.server, self.aws.region, self.aws.profile)
        return login.from_environment()

    # --- doctor ---

    def checks(self, session: Session) -> Iterator[Check]:
        """Check that the engine reaches the registry and has a login there. Raises SkelebotError."""
        from skelebot.runners.docker import login
        from skelebot.runners.docker.client import Client
        from skelebot.runners.docker.push import check_login

        project = session.project
        place = Place.at(session.flags.docker_host or project.host)
        client = Client(place.engine, session.flags.verbose)
        credentials = self._credentials()
        with login.logged_in(client, self.server, credentials) as env:
            if credentials is None or self.aws:  # else logging in was the check
                check_login(client, self.server, self.repository(project), env)
        yield Check("registry", f"{self.server} answers and accepts the login")


_VERSION = Param("omit-version", "v", accepts="boolean", help="Leave out the tag of the project's version")
_LATEST = Param("omit-latest", "l", accepts="boolean", help="Leave out the tag latest")
_MORE = Param("tags", "t", accepts="list", placeholder="TAG", help="More tags")
_FORCE = Param("force", "f", accepts="boolean", help="Replace a version that is already published")
_JSON = Param("json", accepts="boolean", help="Print the image, its tags and its digest as JSON")
_PARAMS = (_VERSION, _LATEST, _MORE, _FORCE, _JSON)


def _task(session: Session) -> Task:
    return launch.tool(session, "publish", only_docker=True)


def _show(image: Image, references: list[str], flags: Flags) -> int:
    for line in [*([] if flags.skip_build else [f"build {image.tag}"]), *(f"push {r}" for r in references)]:
        console.out(line)
    return 0


# --- the tags ---


def _tags(project: Project, values: Values) -> list[str]:
    """The image's tags, `latest` last: it must not point to an image whose version did not arrive.

    Raises SkelebotError where VERSION makes no tag, and what `_extra_tags` raises.
    """
    version = [] if values.get("omit-version") else [_version(project)]
    latest = [] if values.get("omit-latest") else [LATEST]
    return list(dict.fromkeys((*version, *_extra_tags(values), *latest)))


def _extra_tags(values: Values) -> tuple[str, ...]:
    """The tags of -t. Raises UsageError for one that is not valid, SkelebotError where no tag is left."""
    given = values.get("tags")
    tags = given if isinstance(given, tuple) else ()
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise UsageError(
                f"publish: {console.one_line(tag)!r} cannot be a tag; expected letters, digits, dots, dashes "
                "and underscores, at most 128, the first no dot and no dash"
            )
    if not tags and values.get("omit-version") and values.get("omit-latest"):
        raise SkelebotError("there is nothing to publish: -v and -l leave out both tags; add one with -t")
    return tags


def _version(project: Project) -> str:
    """The tag of the project's version; `_` replaces the `+`, which no tag can hold, as Helm does it.

    https://helm.sh/docs/topics/registries/. Raises SkelebotError.
    """
    tag = str(parsed_version(project.version)).replace("+", "_")
    if not _TAG.fullmatch(tag):
        raise SkelebotError(f"the version {project.version} is too long for a tag; leave it out with -v")
    return tag
