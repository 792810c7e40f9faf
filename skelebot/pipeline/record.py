"""The last success of each job, in `.skelebot/jobs`: without it, the job just runs once more."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from skelebot.errors import SkelebotError
from skelebot.files import open_lock, reason, replace_file, try_lock
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
    with suppress(TypeError, KeyError, ValueError):
        found = _read(root, job)[place]
        return Success(dict(found["key"]), str(found["outputs"]))
    return None


class Unfinished(NamedTuple):
    """A run of a job that has not ended yet.

    token: its mark in the record, None where there is no room for it. doubt: why its success would not count.
    """

    token: str | None
    doubt: str = ""


@contextmanager
def attempt(root: str, job: Job) -> Iterator[Unfinished]:
    """Let the job have no success while it runs, nor after it unless it ends well: in no place."""
    doubt = ""
    with suppress(OSError):  # whoever writes there finds out
        os.makedirs(os.path.dirname(_path(root, job)), exist_ok=True)
    with ExitStack() as held:
        try:
            if not try_lock(held.enter_context(open_lock(_path(root, job, "+lock")))):
                doubt = _SHARED
        except OSError as error:
            doubt = f"its record cannot be locked: {reason(error)}"
        yield Unfinished(_begin(root, job), doubt)


_SHARED = "another run of it went on at the same time"


def _begin(root: str, job: Job) -> str | None:
    path, token = _path(root, job), os.urandom(8).hex()
    try:
        _write(path, {"running": token, "successes": _read(root, job)})
    except OSError:  # a full disk
        with suppress(OSError):
            os.unlink(path)
        return None
    return token


def succeeded(
    root: str, job: Job, place: str, attempt: Unfinished, success: Success, files: dict[str, dict[str, str]]
) -> None:
    """Record a success. files: the hashes of inputs and outputs by path, to explain later changes.

    Raises OSError, and SkelebotError if another run of the job may have had a part in it.
    """
    whole = _whole(root, job)
    if doubt := attempt.doubt or ("" if whole.get("running") == attempt.token else _SHARED):
        raise SkelebotError(doubt)
    _write(_path(root, job, f"+{place}.json"), files)
    _write(_path(root, job), {"successes": {**_successes(whole), place: success._asdict()}})


def files(root: str, job: Job, place: str) -> dict[str, dict[str, str]]:
    """Return the hashes of inputs and outputs at the last success; empty if they are lost."""
    found = _load(_path(root, job, f"+{place}.json"))
    return {name: hashes for name, hashes in found.items() if isinstance(hashes, dict)}


def _read(root: str, job: Job) -> dict[str, Any]:
    """Return the successes by place; none while the job runs, or if a run did not end well."""
    whole = _whole(root, job)
    return {} if whole.get("running") else _successes(whole)


def _successes(whole: dict[str, Any]) -> dict[str, Any]:
    found = whole.get("successes")
    return found if isinstance(found, dict) else {}


def _whole(root: str, job: Job) -> dict[str, Any]:
    return _load(_path(root, job))


def _load(path: str) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError), open(path, encoding="utf-8") as file:
        if isinstance(found := json.load(file), dict):
            return found
    return {}


def _write(path: str, value: dict[str, Any]) -> None:
    replace_file(path, json.dumps(value).encode())


def _path(root: str, job: Job, end: str = ".json") -> str:
    """Return the path of one of the job's files. No job's name leaves a plus in it."""
    folder = os.path.join(own_folder(root), "jobs")
    if os.path.isdir(folder) and not os.access(folder, os.W_OK):  # root has run a job here
        folder = os.path.join(folder_in_cache(root), "jobs")
    return os.path.join(folder, f"{plan.tag(job.name)}{end}")
