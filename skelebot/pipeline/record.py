"""The last success of each job, in `.skelebot/jobs`: without it, the job just runs once more."""

import json
import os
from contextlib import suppress
from typing import Any, NamedTuple

from skelebot.files import replace_file
from skelebot.model import Job
from skelebot.pipeline.key import Key
from skelebot.project import plan
from skelebot.project.state import folder_in_cache, own_folder


class Success(NamedTuple):
    """What was when the job last succeeded: its key, and the fingerprint of the outputs that it left."""

    key: Key
    outputs: str


def last_success(root: str, job: Job, place: str) -> Success | None:
    """Return the job's last success in a place: None if there is none, or a run has failed since."""
    with suppress(TypeError, KeyError):
        found = _read(root, job)[place]
        return Success(dict(found["key"]), str(found["outputs"]))
    return None


def begin(root: str, job: Job, place: str) -> None:
    """Forget the job's success in a place, because it runs; until it ends well, there is none in any."""
    others = {name: found for name, found in _read(root, job).items() if name != place}
    path = _path(root, job)
    try:
        _write(path, {"running": True, "successes": others})
    except OSError:  # a full disk
        with suppress(OSError):
            os.unlink(path)


def succeeded(root: str, job: Job, place: str, success: Success, files: dict[str, dict[str, str]]) -> None:
    """Record a success. files: the hashes of inputs and outputs by path, to explain later changes.

    Raises OSError.
    """
    others = _whole(root, job).get("successes", {})
    _write(_path(root, job, f".{place}.files"), files)
    _write(_path(root, job), {"successes": {**others, place: success._asdict()}})


def files(root: str, job: Job, place: str) -> dict[str, dict[str, str]]:
    """Return the hashes of inputs and outputs at the last success; empty if they are lost."""
    return _load(_path(root, job, f".{place}.files"))


def _read(root: str, job: Job) -> dict[str, Any]:
    """Return the successes by place; none while the job runs, or if a run did not end well."""
    whole = _whole(root, job)
    successes = whole.get("successes")
    return successes if isinstance(successes, dict) and not whole.get("running") else {}


def _whole(root: str, job: Job) -> dict[str, Any]:
    return _load(_path(root, job))


def _load(path: str) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError), open(path, encoding="utf-8") as file:
        if isinstance(found := json.load(file), dict):
            return found
    return {}


def _write(path: str, value: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    replace_file(path, json.dumps(value).encode())


def _path(root: str, job: Job, suffix: str = "") -> str:
    folder = os.path.join(own_folder(root), "jobs")
    if os.path.isdir(folder) and not os.access(folder, os.W_OK):  # root has run a job here
        folder = os.path.join(folder_in_cache(root), "jobs")
    return os.path.join(folder, f"{plan.tag(job.name)}{suffix}.json")
