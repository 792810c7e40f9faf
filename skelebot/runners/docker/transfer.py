"""Send the image of a recorded run from the engine that has pinned it to another one, once."""

import hashlib
import os
import shutil
from typing import IO, Any

from skelebot import console, process
from skelebot.errors import SkelebotError
from skelebot.files import locked
from skelebot.model import Image
from skelebot.process import Streams
from skelebot.project.state import cache_folder
from skelebot.runners.docker.client import PATIENCE, Client, explained
from skelebot.runners.docker.labels import PROJECT_LABEL, repository

# An image's id is a digest of its configuration, or in containerd's store one of its manifest: an engine with
# the other kind of store gives it another id. These stay the same: https://github.com/moby/moby/issues/48401
_LASTING = ("Created", "Architecture")
_LASTING_CONFIG = ("Labels", "Env", "User", "WorkingDir")


def receive(client: Client, source: Client, image: Image, name: str) -> str:
    """Return the id by which an engine has a pinned image, sent there if it is missing, and tag it.

    Raises SkelebotError.
    """
    tag = f"{repository(image)}:{name}"

    def on_wait() -> None:
        console.info(f"another run is sending the image to {client.where}; waiting for it")

    with locked(_lock(client, image), on_wait=on_wait):
        id = _id_there(client, source, image)
        if not id:
            _send(client, source, image, tag)
            id = _id_there(client, source, image)
        if not id:
            raise SkelebotError(
                f"{client.where} does not have the image {tag} that it was sent; check its disk"
            )
        client.query("tag", id, tag)
    return id


def _lock(client: Client, image: Image) -> str:
    folder = os.path.join(cache_folder(), "images")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, hashlib.sha256(f"{client.where} {image.pinned}".encode()).hexdigest()[:16])


def _id_there(client: Client, source: Client, image: Image) -> str:
    """Return the id of the image on an engine; "" where it does not have it."""
    if built := client.inspect(image.pinned):
        return built.id
    (own,) = source.inspect_all((image.pinned,), _lasting, "image") or (None,)
    found = client.inspect_all(client.images_with({PROJECT_LABEL: image.project}), _lasting, "image")
    return next((id for id, facts in found if own and facts == own[1]), "")


def _lasting(found: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return an image's id, and what is the same of it in every store."""
    config = found.get("Config") or {}
    facts = [found["RootFS"]["Layers"], *map(found.get, _LASTING), *map(config.get, _LASTING_CONFIG)]
    return str(found["Id"]), facts


def _send(client: Client, source: Client, image: Image, tag: str) -> None:
    """Stream the image from one engine to the other, under a name that nobody else gives."""
    form = "{{.Size}} {{.Architecture}}"
    code, out, said = source.capture("image", "inspect", "--format", form, image.pinned, timeout=PATIENCE)
    if code != 0:
        raise explained(source, said, f"the image {image.pinned} of the run is no longer at {source.where}")
    size, processor = out.split()
    there = client.query("version", "--format", "{{.Server.Arch}}").strip()
    if processor != there:
        raise SkelebotError(
            f"the image is for {processor}, and {client.where} has {there}; leave out its --on, or queue the "
            f"run with -d {client.where}, which builds the image there"
        )
    console.info(f"sending the image ({console.size(int(size))}) to {client.where}")
    source.query("tag", image.pinned, tag)
    errors: list[bytes] = []
    reading, writing = os.pipe()
    with open(reading, "rb") as archive:
        try:
            saving = process.start(source.step("save", tag), Streams(b"", writing, errors.append))
        finally:
            os.close(writing)

        def copy(stdin: IO[bytes]) -> None:
            with archive:  # so that `save` ends, too, if `load` has
                shutil.copyfileobj(archive, stdin, 1 << 20)

        code, _, said = process.pipe(client.step("load"), copy, IO.read)
    if saved := saving.wait():
        said = said or b"".join(errors).decode(errors="replace")
    if code or saved:
        raise explained(client, said, f"the image {tag} could not be sent to {client.where}")
