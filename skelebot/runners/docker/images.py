"""Images: found where nothing has changed, and built otherwise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from skelebot import console, foreground, process
from skelebot.errors import SkelebotError
from skelebot.image import context, dockerfile, sizes, written
from skelebot.image.context import ContextEntry
from skelebot.image.dependencies import ODD_NAME
from skelebot.model import Image, Task
from skelebot.project.state import checkout_id
from skelebot.runners.docker import labels
from skelebot.runners.docker.build_source import BuildSource
from skelebot.runners.docker.builder import Builder, has_buildkit
from skelebot.runners.docker.cleanup import ImagesLock
from skelebot.runners.docker.client import BuiltImage, Client, explained
from skelebot.runners.docker.labels import (
    BASE_LABEL,
    CHECKOUT_LABEL,
    FILES_LABEL,
    FILES_TAG,
    PROJECT_LABEL,
    ROOT_LABEL,
    own_tag,
    repository,
)

_HEAVY = 10_000_000  # bytes from which a file or folder gets its own layer
_LARGE = 50_000_000  # bytes of context from which a warning names what is largest


def ensure_image(client: Client, image: Image, task: Task, lock: ImagesLock, skip_build: bool) -> BuiltImage:
    """The image of the project as it is now, built where something has changed; or as it was built last.

    Raises SkelebotError with what the engine or the builder said.
    """
    if skip_build:
        return last_built(client, image, task)
    source = BuildSource(image)
    built = current_image(client, source, task)
    if built is None:
        built = _build(client, source, task)
        lock.mark_untidy()  # a failed build's steps stay, for the next attempt to go on from
    return built


def last_built(client: Client, image: Image, task: Task) -> BuiltImage:
    """The image as this checkout built it last. Raises SkelebotError where there is none."""
    if built := client.inspect(own_tag(image), task):
        return built
    built = client.inspect(image.tag, task)
    if built is None:
        raise SkelebotError(f"there is no image {image.tag} yet; run once without -s to build it")
    # Without a label it has come from elsewhere, as from a registry or a file.
    if built.labels.get(CHECKOUT_LABEL, "") not in ("", checkout_id(image.context)):
        where = built.labels.get(ROOT_LABEL, "another checkout")
        raise SkelebotError(f"{image.tag} was built in {where}; run once without -s to build it here")
    return built


def current_image(client: Client, source: "BuildSource", task: Task) -> BuiltImage | None:
    """The image that holds what the project now is, whichever checkout has built it; None where none does."""
    image, tag = source.image, own_tag(source.image)
    built = client.inspect(tag, task)
    if built and is_current(client, built, source, task):
        return built
    wanted = {PROJECT_LABEL: image.project, source.label(task.shadowed): source.fingerprint(task.shadowed)}
    for name in client.images_with(wanted):
        built = client.inspect(name, task)
        if built and is_current(client, built, source, task):
            client.query("tag", built.id, tag)
            return built
    return None


def is_current(client: Client, built: BuiltImage, source: "BuildSource", task: Task) -> bool:
    """Whether an image holds what the project now is."""
    if built.labels.get(source.label(task.shadowed)) != source.fingerprint(task.shadowed):
        return False
    # Another image may go by the base's name by now; through the client the question takes too long.
    base = client.inspect_quickly(source.image.base)
    return base is None or built.labels.get(BASE_LABEL, base.id) == base.id


@contextmanager
def with_labels(
    client: Client, image: Image, built: BuiltImage, labels: dict[str, str], task: Task
) -> Iterator[BuiltImage]:
    """The image with further labels; it goes again at the end unless it was given a name meanwhile."""
    # BuildKit takes no id to build upon. Should the name be left behind, it goes as a files image does.
    name = f"{repository(image)}:{FILES_TAG}{os.urandom(8).hex()}"
    client.query("tag", built.id, name)
    try:
        yield Builder(client, BuildSource(image), task, has_buildkit(client)).build_upon(name, labels)
    finally:
        with foreground.uninterrupted():
            client.capture("rmi", name)


# --- building ---


def _build(client: Client, source: BuildSource, task: Task) -> BuiltImage:
    image, tags = source.image, (source.image.tag, own_tag(source.image))
    entries = context.walk(image.context, source.ignores)
    _warn_if_large(entries)
    shadow_sets = {(), task.shadowed, *image.shadow_sets}
    of_image = {source.label(s): source.fingerprint(s, entries) for s in shadow_sets}
    of_image |= labels.of_checkout(image.context)
    of_image[FILES_LABEL] = ""  # a base that is a project's image has its own
    builder = Builder(client, source, task, has_buildkit(client))
    if image.dockerfile:
        return builder.build_own(entries, of_image)
    base = _base(client, image, task)
    of_image |= {BASE_LABEL: base.id} if base else {}
    user = base.user if base and base.user.split(":")[0] not in ("", "0", "root") else ""
    heavy = tuple(path for path in sizes.heavy_paths(entries, _HEAVY) if not _is_odd(path))
    if not heavy:
        lines = dockerfile.first_part(image, (), user) + dockerfile.second_part(image, None, user)
        built = builder.build(lines, entries, of_image, tags)
    else:
        first = builder.files_image(dockerfile.first_part(image, heavy, user), entries, heavy, base)
        of_image[FILES_LABEL] = first
        light = [e for e in entries if not context.is_below(e.path, heavy)]
        lines = dockerfile.second_part(image, first, user)
        built = builder.build(lines, light, of_image, tags)
    written.write(image, user)
    return built


def _is_odd(path: str) -> bool:
    """Whether COPY would read a path otherwise than as a name."""
    return ODD_NAME.search(path) is not None or not path.isprintable()


def _base(client: Client, image: Image, task: Task) -> BuiltImage | None:
    """The base image, pulled where the engine does not have it."""
    found = client.inspect(image.base, task)
    if found is None:
        code, lines = process.tee(client.step("pull", image.base), console.detail)
        if code != 0:
            said = "\n".join(lines)
            raise explained(client, said, f"{image.base} cannot be pulled", task, pulled=image.base)
        found = client.inspect(image.base, task)
    return found


def _warn_if_large(entries: list[ContextEntry]) -> None:
    total = sum(size for path, size in sizes.folder_sizes(entries).items() if "/" not in path)
    if total > _LARGE:
        named = ", ".join(f"{path} ({console.size(size)})" for path, size in sizes.largest(entries))
        console.warn(f"the image gets {console.size(total)} of files; leave some out with `ignores`: {named}")
