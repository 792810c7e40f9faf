"""The project's image as it leaves this machine: built, and with the commit that it was made from."""

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from skelebot import console, git, process
from skelebot.errors import ProgramMissing, SkelebotError
from skelebot.image.written import own_dockerfile
from skelebot.model import Flags, Image, Task
from skelebot.project import state
from skelebot.runners.docker import cleanup, images
from skelebot.runners.docker.build_source import BuildSource
from skelebot.runners.docker.client import BuiltImage, Client
from skelebot.runners.docker.labels import DIRTY_LABEL, REVISION_LABEL


@contextmanager
def released(image: Image, task: Task, flags: Flags) -> Iterator[tuple[Client, BuiltImage]]:
    """The image with its commit as labels, and the client of the engine that has it.

    An image that is run has no such labels: a commit alone would build it again. So this is another one,
    of the same layers, which goes again at the end unless it was given a name meanwhile.
    """
    client = Client(task.place.engine, flags.verbose)
    of_commit = commit_labels(image)
    with cleanup.images_in_use(client, image) as lock:
        built = images.ensure_image(client, image, task, lock, flags.skip_build)
        if of_commit and flags.skip_build and not images.is_current(client, built, BuildSource(image), task):
            console.warn(f"{image.tag} is older than the project's files, so it will not name their commit")
            of_commit = {}
        lock.mark_untidy()  # a name that moves on leaves an image behind
        if not of_commit:
            yield client, built
            return
        with images.with_labels(client, image, built, of_commit, task) as labelled:
            yield client, labelled


# --- the commit ---


def commit_labels(image: Image) -> dict[str, str]:
    """The commit that is checked out, and whether the project's files differ from it; none without git.

    What Skelebot has written for the user is in no image and makes no difference.
    """
    own = (*state.outputs(image.context), *own_dockerfile(image))
    try:
        commit = git.answer(image.context, "rev-parse", "--verify", "--quiet", "HEAD").strip()
        dirty = git.has_changes(image.context, own)
    except ProgramMissing:
        return {}
    except SkelebotError as error:
        if str(error) and "not a git repository" not in str(error):
            console.warn(f"the image will not name its commit: {error}")
        return {}
    return {REVISION_LABEL: commit, DIRTY_LABEL: "unknown" if dirty is None else str(dirty).lower()}


# --- the file ---


def save(client: Client, built: BuiltImage, name: str, target: IO[bytes]) -> None:
    """Write an image in the form of `docker save`, in which it has that name.

    Raises SkelebotError with the engine's error, and OSError where `target` takes no more.
    """
    step = client.step("save", built.id)
    code, whole, said = process.pipe(step, None, lambda source: _copy(source, target, name))
    if code != 0 or not whole:
        why = said.strip().rpartition("\n")[2] or "the engine closed the connection"
        raise SkelebotError(f"the image {name} could not be saved: {why}")


_BLOCK = 1 << 20


def _copy(source: IO[bytes], target: IO[bytes], name: str) -> bool:
    """Copy an archive, giving its image a name; return whether it was complete."""
    try:
        with (
            tarfile.open(fileobj=source, mode="r|", bufsize=_BLOCK) as old,
            tarfile.open(fileobj=target, mode="w|", bufsize=_BLOCK, format=tarfile.PAX_FORMAT) as new,
        ):
            for member in old:
                content = old.extractfile(member) if member.isreg() else None
                if content and member.name in _NAMING:
                    data = json.dumps(_NAMING[member.name](json.load(content), name)).encode()
                    member.size, content = len(data), io.BytesIO(data)
                new.addfile(member, content)
        while source.read(_BLOCK):
            pass  # what fills up the last block
    except tarfile.ReadError:
        return False
    return True


def _name_manifest(manifest: Any, name: str) -> Any:
    """https://github.com/moby/docker-image-spec/blob/main/v1.1.md#combined-image-json--filesystem-changeset-format"""
    return [{**image, "RepoTags": [name]} for image in manifest]


def _name_index(index: Any, name: str) -> Any:
    """https://github.com/opencontainers/image-spec/blob/main/image-layout.md#indexjson-file"""
    tag = name.rpartition(":")[2]
    names = {
        "io.containerd.image.name": f"docker.io/library/{name}",
        "org.opencontainers.image.ref.name": tag,
    }
    named = [
        {**image, "annotations": {**(image.get("annotations") or {}), **names}}
        for image in index["manifests"]
    ]
    return {**index, "manifests": named}


_NAMING = {"manifest.json": _name_manifest, "index.json": _name_index}
