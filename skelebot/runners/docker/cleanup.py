"""Remove images that builds have superseded, and keep those that runs are about to use."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from skelebot.errors import SkelebotError
from skelebot.files import open_lock, try_lock
from skelebot.model import Image
from skelebot.project.state import checkout_id, own_folder
from skelebot.runners.docker.client import PATIENCE, Client
from skelebot.runners.docker.labels import (
    CHECKOUT_LABEL,
    FILES_LABEL,
    FILES_TAG,
    PROJECT_LABEL,
    ROOT_LABEL,
    own_tag,
    repository,
)


class ImagesLock:
    """Held by every run of a checkout's images, so that none is removed between finding and using it.

    file: None where the checkout has no place for a lock, or somebody keeps it; then nothing is removed.
    """

    def __init__(self, file: IO[str] | None, flag: str) -> None:
        self._file, self._flag = file, flag

    def mark_untidy(self) -> None:
        """Note that there is something to remove, for whoever is alone next."""
        with suppress(OSError), open(self._flag, "a", encoding="ascii"):
            pass

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether there is something to remove and no other run of the checkout is going on."""
        if self._file is None or not os.path.exists(self._flag):
            yield False
        elif not try_lock(self._file):
            _share(self._file)  # which is lost where it could not be turned into an exclusive one
            yield False
        else:
            try:
                yield True
                with suppress(OSError):
                    os.unlink(self._flag)
            finally:
                _share(self._file)


def _share(file: IO[str]) -> bool:
    """Hold a lock together with others; False where somebody keeps it for longer than a removal takes."""
    until = time.monotonic() + PATIENCE
    while not (is_held := try_lock(file, shared=True)) and time.monotonic() < until:
        time.sleep(0.05)
    return is_held


@contextmanager
def _opened(image: Image) -> Iterator[ImagesLock]:
    try:
        path = os.path.join(own_folder(image.context), "images.lock")
        file = open_lock(path)
    except (OSError, SkelebotError):
        yield ImagesLock(None, "")
        return
    with file:
        yield ImagesLock(file, f"{path}.untidy") if _share(file) else ImagesLock(None, "")


@contextmanager
def images_in_use(client: Client, image: Image) -> Iterator[ImagesLock]:
    """Keep the checkout's images from being removed; superseded ones go at the end."""
    with _opened(image) as lock:
        _remove_if_alone(client, image, lock)  # what a run before could not
        yield lock
        with suppress(SkelebotError):  # the run itself has gone well
            _remove_if_alone(client, image, lock)


def _remove_if_alone(client: Client, image: Image, lock: ImagesLock) -> None:
    with lock.alone() as is_alone:
        if is_alone:
            remove_superseded(client, image)


@contextmanager
def alone(image: Image) -> Iterator[bool]:
    """Whether no run of the checkout is going on; then none begins before the block ends.

    Otherwise superseded images are left for a later run.
    """
    with _opened(image) as lock:
        lock.mark_untidy()
        with lock.alone() as is_alone:
            yield is_alone


def remove_superseded(client: Client, image: Image, every_checkout: bool = False) -> list[str]:
    """Remove what this checkout's builds have superseded and no container uses; gives what has gone.

    every_checkout: what those of the project's other checkouts have superseded too. Raises SkelebotError
    where no engine answers.
    """
    whose = None if every_checkout else checkout_id(image.context)
    gone = _remove(client, _abandoned_tags(client, image)) if every_checkout else []
    gone += _remove(client, _unused_files_images(client, image, whose))
    # Not `image prune`, of which an engine runs one at a time and refuses a second.
    before: list[str] = []
    while (superseded := _dangling(client, image, whose)) and superseded != before:
        gone += _remove(client, superseded)
        before = superseded  # what nothing is built upon any more once these have gone shows up next
    return gone


def forget(client: Client, image: Image) -> None:
    """Remove the containers, volumes and names of images that an engine has for a checkout.

    The image itself stays where it has another name. Raises SkelebotError.
    """
    labels = {PROJECT_LABEL: image.project, CHECKOUT_LABEL: checkout_id(image.context)}
    own = [word for name, value in labels.items() for word in ("--filter", f"label={name}={value}")]
    for listed, remove in (
        (("ps", "--all"), ("rm", "--force", "--volumes")),
        (("volume", "ls"), ("volume", "rm")),
    ):
        if found := client.query(*listed, "--quiet", *own, timeout=PATIENCE).split():
            client.query(*remove, *found)
    _remove(client, [own_tag(image)])


def _abandoned_tags(client: Client, image: Image) -> list[str]:
    """The own tags of checkouts of this machine whose folders are gone."""
    own = [tag for tag in _tags(client, image) if re.search("-[0-9a-f]{8}$", tag)]
    labels = _labels_by_tag(client, own)
    return [tag for tag in own if _is_abandoned(tag, labels.get(tag, {}).get(ROOT_LABEL, ""))]


def _is_abandoned(tag: str, root: str) -> bool:
    return bool(root) and tag.endswith(checkout_id(root)) and not os.path.isdir(root)


def _unused_files_images(client: Client, image: Image, whose: str | None) -> list[str]:
    """The images with heavy files that no other image of the project is built upon."""
    tags = _tags(client, image)
    files = [tag for tag in tags if tag.startswith(f"{repository(image)}:{FILES_TAG}")]
    if not files:
        return []
    labels = _labels_by_tag(client, tags)
    used = {of_image.get(FILES_LABEL) for tag, of_image in labels.items() if tag not in files}
    return [tag for tag in files if tag in labels and tag not in used and _is_of(whose, labels[tag])]


def _dangling(client: Client, image: Image, whose: str | None) -> list[str]:
    """The ids of such images without a name."""
    label = f"label={PROJECT_LABEL}={image.project}"
    ids = client.list_ids("images", "--filter", "dangling=true", "--filter", label, timeout=PATIENCE)
    if whose is None:
        return ids
    labels = client.inspect_all(ids, lambda image: (image["Id"], _labels(image)), "image")
    return [id for id, of_image in labels if _is_of(whose, of_image)]


def _is_of(whose: str | None, labels: dict[str, str]) -> bool:
    """Whether an image is of that checkout, or of an earlier version of Skelebot, which did not say."""
    return whose is None or labels.get(CHECKOUT_LABEL, whose) == whose


def _tags(client: Client, image: Image) -> list[str]:
    """All names of the project's images."""
    name = repository(image)
    tags = client.query("images", "--format", "{{.Tag}}", name, timeout=PATIENCE).split()
    return [f"{name}:{tag}" for tag in tags]


def _labels_by_tag(client: Client, tags: list[str]) -> dict[str, dict[str, str]]:
    """The labels of the images with these names, by all of their names."""
    images = client.inspect_all(tags, lambda image: (image["RepoTags"], _labels(image)), "image")
    return {tag: labels for names, labels in images for tag in names}


def _labels(image: dict[str, Any]) -> dict[str, str]:
    return dict(image["Config"].get("Labels") or {})


def _remove(client: Client, images: list[str]) -> list[str]:
    """Those of the images that could be removed; the engine keeps what a container uses."""
    if not images:
        return []
    _, out, _ = client.capture("rmi", *images)
    words = set(out.split())
    return [image for image in images if image in words]
