"""What is sent to a job on a cluster, through the shell that takes it there, over connections that break."""

import itertools
import math
import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from skelebot.runners.kubernetes.client import Broken
from skelebot.runners.kubernetes.input import BLOCK, CLOSED, OVER, SENT, Input
from skelebot.runners.kubernetes.manifest import RUN

LATE = -1


class Connection:
    """The shell; after some messages, or in the midst of one, nothing comes through any more.

    lasts: how many messages; LATE for one, which arrives when all else has.
    """

    def __init__(self, child: "subprocess.Popen[bytes]", lasts: float) -> None:
        self._child, self._lasts, self.late = child, lasts, b""

    def write(self, data: bytes) -> None:
        if self._lasts == LATE:
            self.late = data
            raise Broken("cut")
        assert self._child.stdin
        self._child.stdin.write(data[: int(len(data) * min(self._lasts, 1))])
        self._child.stdin.flush()
        self._lasts -= 1
        if self._lasts < 0:
            raise Broken("cut")

    def read(self) -> Iterator[tuple[int, bytes]]:
        assert self._child.stdout
        while self._lasts and (data := os.read(self._child.stdout.fileno(), 100)):
            yield 1, data
        raise Broken("cut")


class FarSide:
    """A folder in place of a pod's; each connection to it lasts for as many messages as `lasts` says."""

    def __init__(self, folder: Path, lasts: Iterator[float]) -> None:
        self.folder, self._lasts = folder, lasts
        self._children: list[tuple[subprocess.Popen[bytes], Connection]] = []

    @contextmanager
    def connected(self, pod: str, container: str, *words: str) -> Iterator[Any]:
        assert (pod, container) == ("pod", "keeper")
        words = tuple(word.replace(RUN, str(self.folder)) for word in words)
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        connection = Connection(child, next(self._lasts))
        self._children.append((child, connection))
        try:
            yield connection
        finally:
            if child.stdin and not connection.late:
                child.stdin.close()

    def send(self, data: bytes, **options: Any) -> str:
        """Send what comes through a pipe."""
        source, sink = os.pipe()
        with ThreadPoolExecutor() as threads:
            threads.submit(write_all, sink, data)
            end = Input(self, "pod", source, **options).send(lambda: True)  # type: ignore[arg-type]
            os.close(source)
        return end

    @property
    def input(self) -> bytes:
        for child, connection in self._children:
            if connection.late and child.stdin:
                child.stdin.write(connection.late)
                child.stdin.close()
            child.wait()
        return (self.folder / "in").read_bytes()

    @property
    def has_end(self) -> bool:
        return (self.folder / "in.end").exists()


def write_all(sink: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(sink, "wb") as file:
        file.write(data)


def forever() -> Iterator[float]:
    return itertools.repeat(math.inf)


@pytest.mark.parametrize("data", [b"", b"x", b"no newline", b"\0\xff\n" * 100_000])
def test_the_input_arrives_as_it_was_sent(tmp_path: Path, data: bytes) -> None:
    far = FarSide(tmp_path, forever())
    assert far.send(data) == SENT
    assert (far.input if data else b"") == data
    assert far.has_end


@pytest.mark.parametrize("seed", range(4))
def test_a_connection_that_breaks_neither_loses_nor_doubles_a_byte(tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    data = chosen.randbytes(300_000)
    far = FarSide(tmp_path, iter(lambda: chosen.choice([0.5, 1, 1.5, 2]), None))
    assert far.send(data) == SENT
    assert far.input == data


def test_a_block_that_arrives_after_it_was_sent_again_does_not_count(tmp_path: Path) -> None:
    far = FarSide(tmp_path, itertools.chain([LATE, 1, LATE], forever()))
    data = b"record\n" * 20_000
    assert far.send(data, has_end=False) == SENT
    assert far.input == data


def test_records_of_several_senders_stay_whole(tmp_path: Path) -> None:
    chosen = random.Random(15)
    lines = [[f"{n} {i} {'x' * chosen.randrange(3000)}\n".encode() for i in range(200)] for n in range(3)]
    far = FarSide(tmp_path, iter(lambda: chosen.choice([1, 3.5, math.inf]), None))

    def send(own: list[bytes]) -> str:
        return far.send(b"".join(own), has_end=False, by_lines=True)

    with ThreadPoolExecutor() as threads:
        assert list(threads.map(send, lines)) == [SENT] * 3
    arrived = far.input.splitlines(keepends=True)
    for n, own in enumerate(lines):
        assert [line for line in arrived if line.startswith(b"%d " % n)] == own
    assert len(arrived) == 600
    assert not far.has_end


@pytest.mark.parametrize("last", [b"last", b"x" * BLOCK, b"y" * (BLOCK + 7)])
def test_a_last_line_without_its_end_gets_one(tmp_path: Path, last: bytes) -> None:
    far = FarSide(tmp_path, forever())
    for data in (b"first\n" + last, b"other\n", b""):
        assert far.send(data, has_end=False, by_lines=True) == SENT
    assert far.input == b"first\n" + last + b"\nother\n"


def test_an_input_that_has_ended_takes_no_more(tmp_path: Path) -> None:
    far = FarSide(tmp_path, forever())
    assert far.send(b"a\n", by_lines=True) == SENT
    assert far.send(b"b\n", by_lines=True) == CLOSED
    (tmp_path / "code").write_text("0 0 0\n")
    assert far.send(b"c\n", by_lines=True) == OVER
    assert far.input == b"a\n"
