"""The image of a run, where a cluster finds it: built here, pushed once, run by digest."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from skelebot.errors import SkelebotError, UsageError
from skelebot.model import Image, Mount, Place, Registry, Task
from skelebot.runners.docker import Docker
from skelebot.runners.docker.client import Client
from skelebot.runners.docker.start import Prepared as Built
from skelebot.runners.docker.start import mounts_at_home


class Prepared(NamedTuple):
    """An image that the cluster can pull, and what a manifest takes from it.

    reference: by digest. user: UID[:GID] of the job, empty for the image's own. mounts: with the home of the
    job's user for a leading `~`. is_fresh: whether it was pushed now; an image of before may have gone.
    """

    built: Built
    reference: str
    user: str
    arch: str
    mounts: tuple[Mount, ...]
    is_fresh: bool = False


@contextmanager
def prepared(docker: Docker, image: Image, task: Task) -> Iterator[Prepared]:
    """Build the image where something has changed, and push it where the registry lacks it."""
    registry = image.registry
    if registry is None:
        raise no_registry(task)
    with docker.prepare(image, replace(task, place=Place())) as built:
        digest, arch = _known(docker.client, built, registry)
        reference = digest or _push(docker.client, built, registry, task)
        mounts = mounts_at_home(docker.client, built, task)
        yield Prepared(built, reference, _user(docker.client, built, task), arch, mounts, not digest)


def push_again(docker: Docker, prepared: Prepared, task: Task) -> Prepared:
    """Push an image that the registry may have removed since it was pushed."""
    built = prepared.built
    assert built.image.registry
    reference = _push(docker.client, built, built.image.registry, task)
    return prepared._replace(reference=reference, is_fresh=True)


def no_registry(task: Task) -> UsageError:
    return UsageError(
        f"{task.name}: a cluster pulls the image from a registry, and none is named; add components.registry"
    )


def known_reference(docker: Docker, image: Image) -> str:
    """Where the image of the last build was pushed; without that, the name that it would have."""
    if image.registry is None:
        return image.tag
    try:
        found = docker.client.inspect_quickly(image.tag)
        if found:
            return _known(docker.client, Built(image, found), image.registry)[0] or image.registry.repository
    except SkelebotError:
        pass
    return image.registry.repository


def _known(client: Client, built: Built, registry: Registry) -> tuple[str, str]:
    """Under which digest the registry has got the image, and the architecture that it is for."""
    out = client.query("image", "inspect", "--format", "{{json .}}", built.built.id)
    found = json.loads(out)
    digests = found.get("RepoDigests") or ()
    digest = next((each for each in digests if each.startswith(f"{registry.repository}@")), "")
    return digest, str(found.get("Architecture") or "")


def _push(client: Client, built: Built, registry: Registry, task: Task) -> str:
    from skelebot.runners.docker import login, push

    credentials = (
        login.from_aws(registry.server, registry.region, registry.profile)
        if registry.is_aws
        else login.from_environment()
    )
    name = f"{registry.repository}:run-{built.built.id.partition(':')[2][:12]}"

    def push_it(env: push.Env) -> str:
        return push.push(client, registry.server, built.built, [name], task, env)

    return f"{registry.repository}@{login.with_login(client, registry.server, credentials, push_it)}"


def restricted_user(docker: Docker, built: Built, task: Task) -> str:
    """The UID of the image's user, as which no pod runs unless it is named; 1000 where that is root."""
    own = built.built.user
    user = _user(docker.client, built, replace(task, user=own)) if own else ""
    return "1000" if user.partition(":")[0] in ("", "0") else user


def _user(client: Client, built: Built, task: Task) -> str:
    """The UID and GID of the job's user, where it is not the image's."""
    if task.user == "caller":
        return f"{os.getuid()}:{os.getgid()}"
    if not task.user or task.user.replace(":", "").isdigit():
        return task.user or ""
    if task.user == "root":
        return "0:0"
    words = ("--entrypoint", "/bin/sh", built.built.id, "-c", 'id -u "$1" && id -g "$1"', "sh", task.user)
    code, out, _ = client.capture("run", "--rm", *words)
    if code != 0:
        raise SkelebotError(
            f"the image has no user {task.user}; name one that it has, or a number, with `user`"
        )
    return ":".join(out.split())
