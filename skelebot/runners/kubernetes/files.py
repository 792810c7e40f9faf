"""Mapped folders there and back, over `exec`, whose end says nothing: each block has its checksum."""

import io
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

from skelebot.errors import SkelebotError
from skelebot.files import PART
from skelebot.model import Mount
from skelebot.project.state import FOLDER, checkout_id, own_folder
from skelebot.runners.docker.exchange import Folder, exchange
from skelebot.runners.kubernetes.client import Broken, Client, Stream
from skelebot.runners.kubernetes.manifest import RUN, Claimed

_BLOCK = 1 << 22
_TRIES = 8

# usage: sh -c WRAPPED skelebot SCRIPT. Runs a script whose stdin and stdout are in blocks, each after what
# `cksum` says of it: its checksum and its length. One of length 0 is the last, and has the script's code in
# place of a checksum. It ends when the other side has all of it, as what is under way at the end may be lost.
_WRAPPED = f"""
umask 0
cd {RUN} || exit 1
t=$(mktemp -d {RUN}/x.XXXXXX) || exit 1
take() {{
    while read -r sum size && [ "$size" != 0 ]; do
        dd bs="$size" count=1 iflag=fullblock of="$t/i" 2>/dev/null
        [ "$(cksum <"$t/i")" = "$sum $size" ] || {{ echo "a block has other content" >&2; exit 9; }}
        echo >{RUN}/alive
        cat "$t/i"
    done
}}
block() {{
    cksum <"$t/o"
    cat "$t/o"
    echo >{RUN}/alive
}}
give() {{
    # The first answer is awaited before anything is sent: a line with its size, and so many bytes.
    read -r size && {{ echo "$size"; head -c "$size"; }} >"$t/o" && block
    while dd bs={_BLOCK} count=1 iflag=fullblock of="$t/o" 2>/dev/null && [ -s "$t/o" ]; do
        block
    done
}}
exec 3<&0
take <&3 | {{ sh -c "$1"; echo $? >"$t/code"; }} | give
echo "$(cat "$t/code") 0"
rm -rf "$t"
read -r _ <&3
"""


def checksum(data: bytes | bytearray) -> int:
    """Return what `cksum` gives: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/cksum.html.

    It is zlib's with the bits of each byte, and of the sum, in the other order, and the length at the end.
    """
    length = len(data).to_bytes((len(data).bit_length() + 7) // 8, "little")
    found = zlib.crc32(length.translate(_MIRRORED), zlib.crc32(data.translate(_MIRRORED), 0xFFFFFFFF))
    return int(f"{found:032b}"[::-1], 2)


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Mapped(NamedTuple):
    """The mapped folders of a run with this root, some of which may stay on a claim."""

    root: str
    mounts: Sequence[Mount]
    claimed: Claimed


def send(client: Client, pod: str, mapped: Mapped) -> None:
    """Bring what is mapped into a pod whose gate is closed. Raises SkelebotError."""
    _exchange(client, pod, "gate", mapped, both_ways=True)


def fetch(client: Client, pod: str, mapped: Mapped) -> None:
    """Bring back what a job has written. Raises SkelebotError."""
    _exchange(client, pod, "keeper", mapped, both_ways=False)


def _exchange(client: Client, pod: str, container: str, mapped: Mapped, both_ways: bool) -> None:
    if not both_ways and all(mount.read_only for mount in mapped.mounts):
        return
    folders = [
        _folder(mapped.root, _state(client, pod, mapped, number), mount)
        for number, mount in enumerate(mapped.mounts)
    ]
    for tries in range(_TRIES):
        try:
            transport = _transport(client, pod, container)
            exchange(folders, str(client.place), transport, both_ways, client.verbose)
            return
        except Broken:
            if tries == _TRIES - 1:
                raise
            threading.Event().wait(min(2**tries / 5, 10))


def _state(client: Client, pod: str, mapped: Mapped, number: int) -> str:
    """The file with what a folder there and its counterpart here agree on.

    A pod begins without files, so that of its folders is its own.
    """
    root, name = mapped.root, f"{pod}.{number}.json"
    if place := dict(mapped.claimed.folders).get(number):
        claim = zlib.crc32(f"{client.place} {client.namespace} {mapped.claimed.name}".encode())
        root, name = mapped.claimed.root, f"claim-{claim:08x}.{os.path.basename(place)}.json"
    own = os.path.join(own_folder(root), "cluster")
    os.makedirs(own, exist_ok=True)
    return os.path.join(own, name)


def _folder(root: str, state: str, mount: Mount) -> Folder:
    source, is_file = os.path.realpath(mount.source), os.path.isfile(mount.source)
    return Folder(
        os.path.dirname(source) if is_file else source,
        state,
        os.path.realpath(os.path.join(root, FOLDER)),
        f".{checkout_id(root)}{PART}",
        lambda: False,
        os.path.basename(source) if is_file else "",
        mount.read_only,
    )


def forget(root: str, pod: str) -> None:
    """Remove what is remembered of a pod's files."""
    own = os.path.join(own_folder(root), "cluster")
    for name in os.listdir(own) if os.path.isdir(own) else ():
        if name.startswith(f"{pod}."):
            os.unlink(os.path.join(own, name))


def _transport(client: Client, pod: str, container: str) -> Callable[..., None]:
    def transport(
        script: str, write_stdin: Callable[[IO[bytes]], None], read_stdout: Callable[[IO[bytes]], bool]
    ) -> None:
        # Nobody but root could give files away, and what is sent belongs to the job's user.
        script = script.replace("--same-owner --numeric-owner", "--no-same-owner")
        words = ("/bin/sh", "-c", _WRAPPED, "skelebot", script)
        with client.connected(pod, container, *words) as stream:
            source, failed = Blocks(stream), []

            def write() -> None:
                try:
                    sink = Sink(stream)
                    write_stdin(sink)  # type: ignore[arg-type]
                    sink.close()
                except BaseException as error:
                    failed.append(error)

            writing = threading.Thread(target=write, daemon=True)
            writing.start()
            reader = io.BufferedReader(source, _BLOCK)  # type: ignore[type-var]
            is_whole = read_stdout(reader)
            while reader.read(_BLOCK):
                pass
            writing.join()
            stream.write(b"ok\n")
            if failed:
                raise failed[0]
            if source.code != 0 or not is_whole:
                raise SkelebotError(
                    f"the mappings could not be synchronized with {client.place}: "
                    f"{source.said.strip() or 'the answer is not complete'}"
                )

    return transport


class Sink(io.RawIOBase):
    """Sends what is written to it in blocks, the last of which is empty."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._held = stream, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self._held += data
        if len(self._held) >= _BLOCK:
            self.flush()
        return len(data)

    def flush(self) -> None:
        if self._held:
            data, self._held = self._held, bytearray()
            self._stream.write(f"{checksum(data)} {len(data)}\n".encode())
            self._stream.write(data)

    def close(self) -> None:
        if not self.closed:
            self.flush()
            self._stream.write(b"0 0\n")
            super().close()


class Blocks(io.RawIOBase):
    """What comes in blocks. Raises Broken for one that is not whole.

    code: of the script; said: what it has written to stderr.
    """

    def __init__(self, stream: Stream) -> None:
        self._arriving, self._held, self._at = self._chunks(stream), bytearray(), memoryview(b"")
        self.code: int | None = None
        self.said = ""

    def _chunks(self, stream: Stream) -> Iterator[bytes]:
        for channel, data in stream.read():
            if channel == 1:
                yield data
            else:
                self.said += data.decode(errors="replace")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray") -> int:  # type: ignore[override]
        if not self._at and self.code is None:
            self._at = self._block()
        count = min(len(buffer), len(self._at))
        buffer[:count], self._at = self._at[:count], self._at[count:]
        return count

    def _block(self) -> memoryview:
        sum, _, size = self._line().partition(" ")
        if size == "0" and len(sum) < 4:
            self.code = int(sum or "1")
            return memoryview(b"")
        data = self._exactly(int(size))
        if checksum(data) != int(sum):
            raise Broken("a block has arrived with other content")
        return memoryview(data)

    def _line(self) -> str:
        while b"\n" not in self._held:
            self._more()
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()

    def _exactly(self, size: int) -> bytearray:
        while len(self._held) < size:
            self._more()
        data, self._held = self._held, self._held[size:]
        del data[size:]
        return data

    def _more(self) -> None:
        data = next(self._arriving, b"")
        if not data:
            raise Broken(self.said.strip() or "the connection to the container was lost")
        self._held += data
