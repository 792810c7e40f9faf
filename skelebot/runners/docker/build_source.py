"""What an image is made of, and its fingerprint."""

import os
import zlib
from contextlib import suppress
from dataclasses import replace

from skelebot.errors import SkelebotError, UsageError
from skelebot.files import open_regular, reason
from skelebot.image import context, dockerfile
from skelebot.image.context import ContextEntry
from skelebot.image.fingerprint import FingerprintCache
from skelebot.image.ignores import Ignores
from skelebot.image.written import own_dockerfile
from skelebot.model import Image
from skelebot.project.state import FOLDER, own_folder
from skelebot.runners.docker.labels import CONTEXT_LABEL


class BuildSource:
    """All that an image is made of: the text of its Dockerfile, the files, the patterns."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.text = text(image)
        self.ignores = Ignores((*image.ignores, *own_dockerfile(image)))
        self._cache = _fingerprint_cache(image)
        self._known: dict[tuple[str, ...], str] = {}

    def label(self, shadowed: tuple[str, ...]) -> str:
        """The label of the fingerprint that leaves out what a job's mappings lie over."""
        shadowed = self.unused(shadowed)
        return f"{CONTEXT_LABEL}.{_shadows(shadowed)}" if shadowed else CONTEXT_LABEL

    def fingerprint(self, shadowed: tuple[str, ...], entries: list[ContextEntry] | None = None) -> str:
        """The fingerprint less what is shadowed; `entries` of the whole context, where they are known."""
        shadowed = self.unused(shadowed)
        if entries is not None or shadowed not in self._known:
            self._known[shadowed] = self._fingerprint(shadowed, entries)
        return self._known[shadowed]

    def _fingerprint(self, shadowed: tuple[str, ...], entries: list[ContextEntry] | None) -> str:
        if "" in shadowed:
            entries = []
        elif entries is None:
            entries = context.walk(self.image.context, self.ignores, shadowed)
        else:
            entries = [e for e in entries if not context.is_below(e.path, shadowed)]
        return self._cache.fingerprint(self.text, entries, _shadows(shadowed))

    def unused(self, shadowed: tuple[str, ...]) -> tuple[str, ...]:
        """Of the shadowed paths those whose content has no part in the image otherwise."""
        return tuple(
            path
            for path in shadowed
            if not any(not path or context.is_below(used, (path,)) for used in self.image.copied)
        )

    def content(self, text: str, entries: list[ContextEntry]) -> str:
        """Return the fingerprint of a part of the context with its own text."""
        return self._cache.hashed(text, entries)


def _fingerprint_cache(image: Image) -> FingerprintCache:
    folder = os.path.join(image.context, FOLDER)
    with suppress(SkelebotError):  # where nothing can be written, everything is read again each time
        folder = own_folder(image.context)
    return FingerprintCache(folder, image.tag.replace(":", "."))


def text(image: Image) -> str:
    """Return the Dockerfile of an image: a custom one if it names one. Raises UsageError."""
    if not image.dockerfile:
        return dockerfile.text(image)
    try:
        with open_regular(os.path.join(image.context, image.dockerfile)) as file:
            return file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"dockerfile: {image.dockerfile} cannot be read: {reason(error)}") from None


def setup_digest(image: Image) -> str:
    """Return the hash of all that a job finds in its image besides the project. Raises SkelebotError."""
    import hashlib

    # Labels and what the bare image runs make no difference to a job.
    digest = hashlib.sha256(text(replace(image, labels=(), entrypoint=None, command=None)).encode())
    for path in image.copied:  # what is fetched for a build has its version in the text
        with suppress(FileNotFoundError, IsADirectoryError):
            try:
                with open_regular(os.path.join(image.context, path)) as file:
                    digest.update(hashlib.sha256(file.read()).digest())
            except OSError as error:
                raise context.unreadable(path, error) from None
    if image.dockerfile or image.lines:  # whose commands may make anything of the project's files
        entries = context.walk(image.context, Ignores((*image.ignores, *own_dockerfile(image))))
        digest.update(_fingerprint_cache(image).fingerprint("", entries, "files").encode())
    return digest.hexdigest()


def _shadows(shadowed: tuple[str, ...]) -> str:
    text = "\n".join(sorted(shadowed)).encode("utf-8", "surrogateescape")
    return f"{zlib.crc32(text):08x}" if shadowed else "all"
