"""The key of a job: everything that decides what it makes. The same key, the same outputs."""

import hashlib
import hmac
import os
import posixpath
from contextlib import suppress
from typing import Any

from skelebot.errors import SkelebotError
from skelebot.files import reason, replace_file
from skelebot.model import WORKDIR, Arg, Job, Param, Project, Task
from skelebot.pipeline import contents
from skelebot.pipeline.contents import Read
from skelebot.project import plan
from skelebot.project.sources import argv, class_source, job_params
from skelebot.project.state import own_folder
from skelebot.secret import Secret, Word, reveal, reveal_all

HASHED = "hmac-sha256:"  # before the hash of a secret

# The parts of a key by name, as JSON has them.
Key = dict[str, Any]


def key(project: Project, job: Job, task: Task, read: Read, surroundings: dict[str, str]) -> Key:
    """Return the key of a job as it would run now.

    task: before components amend it. surroundings: what the runner says of the image or the environment.
    Raises SkelebotError for what cannot be read.
    """
    program = argv(project, job, ())
    arguments = task.argv[len(program) :]
    known = {**os.environ, **reveal_all(task.env, os.environ)}
    return {
        # The program of a class ends in the types of its values.
        "source": _digest(
            job.source,
            read.script.fingerprint() if read.script.entries else "",
            *(map(str, program[-1:]) if class_source(project.root, job.source) else ()),
        ),
        "inputs": read.inputs.fingerprint(),
        "arguments": [_shown(project.root, word, known) for word in arguments],
        **_files_of_values(project, job, task, arguments, known),
        "variables": {name: _shown(project.root, word, known) for name, word in task.env},
        "mappings": [
            [_in_project(project.root, mount.source), mount.target, mount.read_only] for mount in task.mounts
        ],
        **surroundings,
        "needed outputs": {name: made.fingerprint() for name, made in read.needed.items()},
    }


def _in_project(root: str, path: str) -> str:
    """Return a path from the project's root, or, outside the project, the whole path."""
    inside = os.path.relpath(path, root)
    return path if inside.split(os.sep)[0] == os.pardir else inside


def _files_of_values(
    project: Project, job: Job, task: Task, arguments: tuple[Word, ...], known: dict[str, str]
) -> dict[str, str]:
    """Return the content of the files that values of type `file` name, whether they are inputs or not."""
    typed: tuple[Arg | Param, ...] = (*job.args, *job_params(project, job))
    if not any(of.type == "file" for of in typed):
        return {}
    plain = [_on_this_machine(project, task, word) for word in arguments if isinstance(word, str)]
    # The cache of `contents` would store the path of a secret one.
    secret = [
        _content_of_secret(project.root, _on_this_machine(project, task, reveal(word, known)))
        for word in arguments
        if isinstance(word, Secret)
    ]
    found = (contents.named(project.root, job, plain).fingerprint(), *filter(None, secret))
    return {"files of values": ":".join(found)}


def _on_this_machine(project: Project, task: Task, text: str) -> str:
    """Return where a path that the job sees is for Skelebot. Raises SkelebotError if that is unknown."""
    if task.place.is_native:
        return os.path.join(project.root, text)
    path = posixpath.normpath(posixpath.join(WORKDIR, text))
    if mount := plan.covering(project.root, task.mounts, path):
        return os.path.join(mount.source, posixpath.relpath(path, mount.target))
    if home := next((mount.target for mount in task.mounts if mount.target.startswith("~")), None):
        raise SkelebotError(f"a value names a file that may be below {home}, whose changes are not seen")
    return path


def _content_of_secret(root: str, path: str) -> str:
    """Return a keyed hash of a file whose name is a secret; empty if it is not a file."""
    if not os.path.isfile(path):
        return ""
    try:
        with open(path, "rb") as file:
            return _keyed_hash(root, file.read())
    except OSError as error:
        raise SkelebotError(f"the file of a secret value cannot be read: {reason(error)}") from None


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogateescape")).hexdigest()


# --- secrets ---


def _shown(root: str, word: Word, known: dict[str, str]) -> str:
    """Return a word as it may be stored: of a secret a hash that only this checkout can make."""
    if not isinstance(word, Secret):
        return word
    return HASHED + _keyed_hash(root, reveal(word, known).encode("utf-8", "surrogateescape"))


def _keyed_hash(root: str, content: bytes) -> str:
    return keyed_hash(own_folder(root), content)


def keyed_hash(folder: str, content: bytes) -> str:
    """Return a hash that only those can make who read the key in the folder. Raises SkelebotError."""
    return hmac.new(_hash_key(folder), content, hashlib.sha256).hexdigest()


def _hash_key(folder: str) -> bytes:
    """Return the folder's own random key, which is made where it is missing."""
    path = os.path.join(folder, "hash-key")
    with suppress(FileNotFoundError), open(path, "rb") as file:
        if len(found := file.read()) == 32:
            return found
    fresh = os.urandom(32)
    try:
        replace_file(path, fresh, 0o600)
    except OSError as error:
        raise SkelebotError(f"{path} cannot be written: {reason(error)}") from None
    return fresh
