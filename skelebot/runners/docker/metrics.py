"""What a job on another machine has measured: the file in its container, brought here as it grows."""

import fcntl
import tarfile
from typing import IO

from skelebot import console, process
from skelebot.errors import SkelebotError
from skelebot.model import Task
from skelebot.runners.attempts import Unreachable
from skelebot.runners.docker.client import Client, explained
from skelebot.runners.docker.container import METRICS_FILE

_PATIENCE = 60  # seconds for one transfer
_BLOCK = 1 << 16


def bring(client: Client, container: str, path: str) -> None:
    """Bring the counterpart here of a file in a container up to date. Raises SkelebotError.

    `docker cp` needs no program in the image, and no container that runs.
    """
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # a job's end is no reason for another thread to be done

        def take(stdout: IO[bytes]) -> bool:
            try:
                _take(stdout, file)
                return True
            except tarfile.TarError:
                return False  # it breaks off; what has come counts

        step = client.step("cp", f"{container}:{METRICS_FILE}", "-")
        code, whole, said = process.pipe(step, None, take, timeout=_PATIENCE)
    if code != 0 or not whole:
        raise explained(client, said, "the metrics could not be brought here")


def _take(stream: IO[bytes], file: IO[bytes]) -> None:
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        member = tar.next()
        source = tar.extractfile(member) if member and member.isreg() else None
        if member is None or source is None:
            return  # the job has put something of another kind in its place
        at = 0
        while block := source.read(_BLOCK):
            file.seek(at)
            if file.read(len(block)) != block:  # it goes on here, or the job has written over it
                file.seek(at)
                file.write(block)
            at += len(block)
        file.truncate(at)


def bring_last(client: Client, container: str, task: Task) -> None:
    """Bring what a job has measured that has ended; it counts as it ended, even if that fails.

    Raises Unreachable.
    """
    if task.metrics and client.is_remote:
        try:
            bring(client, container, task.metrics)
        except Unreachable:
            raise  # whoever waits for the job goes on once the engine answers
        except (SkelebotError, OSError) as error:
            console.warn(f"{task.name}: {error}")
