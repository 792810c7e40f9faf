"""The Dockerfile that Skelebot writes into the project for people to look at; no build reads it."""

import os
import zlib
from contextlib import suppress

from skelebot import console, files
from skelebot.image import dockerfile
from skelebot.model import Image

_HEADER = "# Written by Skelebot from skelebot.yaml, to be looked at; it is not read. Checksum "


def _header(body: str) -> str:
    return f"{_HEADER}{zlib.crc32(body.encode('utf-8', 'surrogateescape')):08x}\n"


def _is_written(root: str) -> bool | None:
    """Whether the project's Dockerfile is Skelebot's, unchanged; None where there is no such file."""
    try:
        with files.open_regular(os.path.join(root, "Dockerfile")) as file:
            first, _, body = file.read().decode("utf-8", "surrogateescape").partition("\n")
    except FileNotFoundError:
        return False if os.path.islink(os.path.join(root, "Dockerfile")) else None
    except OSError:
        return False
    return f"{first}\n" == _header(body)


def own_dockerfile(image: Image) -> tuple[str, ...]:
    """The pattern that keeps the written Dockerfile out of the context that it describes."""
    return ("Dockerfile",) if _is_written(image.context) is not False and not image.dockerfile else ()


def write(image: Image, user: str) -> None:
    """Write the image's Dockerfile unless the project has a custom one."""
    if image.ephemeral or image.dockerfile:
        return
    if _is_written(image.context) is False:
        console.info("your Dockerfile was kept but not built; to build it, add `dockerfile: Dockerfile`")
        return
    body = dockerfile.text(image, user)
    data = (_header(body) + body).encode("utf-8", "surrogateescape")
    with suppress(OSError):  # a project that cannot be written is built anyway
        files.replace_file(os.path.join(image.context, "Dockerfile"), data)
