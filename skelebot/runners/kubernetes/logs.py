"""What a job writes, by offset: files beside it lose nothing when a connection breaks or a log rotates."""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from skelebot.errors import SkelebotError
from skelebot.process import Streams, writer
from skelebot.runners.attempts import Unreachable
from skelebot.runners.kubernetes.client import Answer, Broken, Client, Stream
from skelebot.runners.kubernetes.manifest import METRICS_FILE, RUN

# usage: sh -c FOLLOW sh OUT ERR. Both files from these offsets on, until the job's end is noted.
_FOLLOW = f"""
while [ ! -e {RUN}/code ]; do sleep 0.05; done &
end=$!
tail -c +"$(($1 + 1))" -s 0.1 -f --pid=$end {RUN}/out &
tail -c +"$(($2 + 1))" -s 0.1 -f --pid=$end {RUN}/err >&2 &
wait
"""
# The end is looked up before the sizes, which are final then.
_SHOW = f"""
code=$(cat {RUN}/code 2>/dev/null)
echo "${{code%% *}} $(wc -c <{RUN}/out) $(wc -c <{RUN}/err)"
"""
_REST = f"""
tail -c +"$(($1 + 1))" {RUN}/out | head -c "$3"
tail -c +"$(($2 + 1))" {RUN}/err | head -c "$4" >&2
"""
_AT_ONCE = 1 << 18  # bytes of each stream in one answer


class Noted(NamedTuple):
    """What stands beside a job: its code, once it has ended, and how much it has written."""

    code: int | None
    out: int
    err: int


class OutputCopy:
    """The two streams of a job, and how far they have been given on."""

    def __init__(self, streams: Streams) -> None:
        self._sinks = (writer(streams.stdout, 1), writer(streams.stderr, 2))
        self.out, self.err = 0, 0
        self._file = -1

    def keep_at(self, path: str) -> None:
        """Note in a file how far both streams have been given on, and continue from what it says."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(ValueError):
            self.out, self.err = map(int, os.pread(self._file, 100, 0).split())

    def follow(self, client: Client, pod: str, started: Callable[[Stream], object] = id) -> None:
        """Give on what comes, to the end of the job. Raises Broken, and Answer."""
        words = ("/bin/sh", "-c", _FOLLOW, "sh", str(self.out), str(self.err))
        with client.connected(pod, "keeper", *words) as stream:
            started(stream)
            for channel, data in stream.read():
                self.give(channel, data)

    def catch_up(self, client: Client, pod: str, noted: Noted) -> None:
        """Give on what there is up to these sizes. Raises Broken, and Answer."""
        while (self.out, self.err) < (noted.out, noted.err) or self.err < noted.err:
            counts = (min(noted.out - self.out, _AT_ONCE), min(noted.err - self.err, _AT_ONCE))
            words = (str(self.out), str(self.err), *map(str, counts))
            before = (self.out, self.err)
            with client.connected(pod, "keeper", "/bin/sh", "-c", _REST, "sh", *words) as stream:
                for channel, data in stream.read():
                    self.give(channel, data)
            if before == (self.out, self.err):
                raise Broken("the job's output could not be read")

    def give(self, channel: int, data: bytes) -> None:
        """Write what has come; only then does it count."""
        if channel == 1:
            self._sinks[0](data)
            self.out += len(data)
        elif channel == 2:
            self._sinks[1](data)
            self.err += len(data)
        if self._file >= 0:
            os.pwrite(self._file, f"{self.out:20} {self.err:20}\n".encode(), 0)

    @property
    def given(self) -> int:
        """How many bytes of both have been given on."""
        return self.out + self.err

    def is_far_behind(self, noted: Noted) -> bool:
        return noted.out - self.out + noted.err - self.err > _AT_ONCE

    def is_complete(self, noted: Noted) -> bool:
        return (self.out, self.err) == (noted.out, noted.err)


def noted(client: Client, pod: str) -> Noted | None:
    """What stands beside the job; None where that cannot be read now."""
    try:
        ended = client.run(pod, "keeper", "/bin/sh", "-c", _SHOW)
    except (Broken, Answer):
        return None
    fields = ended.out.decode().rstrip("\n").split(" ")
    if ended.code != 0 or len(fields) != 3 or not (fields[1].isdigit() and fields[2].isdigit()):
        return None
    return Noted(int(fields[0]) if fields[0] else None, int(fields[1]), int(fields[2]))


def bring_metrics(client: Client, pod: str, path: str) -> None:
    """Append what a job has measured since the last time to the file here. Raises Broken, and Answer."""
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = file.seek(0, os.SEEK_END)
        ended = client.run(pod, "keeper", "/bin/sh", "-c", _MEASURED, "sh", str(known + 1))
        size, _, data = ended.out.partition(b"\n")
        if not size.isdigit() or len(data) < int(size) - known:
            raise Broken("what the job has measured did not arrive whole")
        file.write(data)


_MEASURED = f"""
[ -e {METRICS_FILE} ] || {{ echo 0; exit; }}
wc -c <{METRICS_FILE}
tail -c +"$1" {METRICS_FILE}
"""


class Gone(SkelebotError):
    """The cluster has ended the job, or taken its pod away."""


class Disconnected(Unreachable):
    """The cluster cannot be reached any more, and the job may go on there."""
