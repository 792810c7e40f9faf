"""Files in parts, without a server."""

import hashlib
import io
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.components.repository.parts import (
    PART_SIZE,
    Cancelled,
    Part,
    Record,
    Slice,
    in_parallel,
    parts_of,
    range_md5,
)
from skelebot.components.repository.store import Stored

MB, GB, TB = 1 << 20, 1 << 30, 1 << 40


@given(st.integers(1, 5 * TB))
def test_parts_cover_a_file_within_the_limits_of_s3(size: int) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""
    parts = parts_of(size)
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert parts[0].start == 0
    assert all(before.start + before.size == after.start for before, after in pairwise(parts))
    assert parts[-1].start + parts[-1].size == size
    assert len(parts) <= 10_000
    assert all(5 * MB <= part.size <= 5 * GB for part in parts[:-1])
    assert 0 < parts[-1].size <= parts[0].size


def test_an_empty_file_has_no_parts() -> None:
    assert parts_of(0) == []


# --- on their way out ---


def sliced(told: list[int], stop: threading.Event | None = None) -> Slice:
    """The middle of a file."""
    file = io.BytesIO(b"before" + b"x" * 600_000 + b"after")
    return Slice(file, Part(2, 6, 600_000), told.append, stop or threading.Event())


def test_a_part_is_read_as_a_file_of_its_own() -> None:
    told: list[int] = []
    part = sliced(told)
    read = b"".join(iter(lambda: part.read(16384), b""))
    assert (len(part), read, part.tell()) == (600_000, b"x" * 600_000, 600_000)
    assert sum(told) == 600_000


def test_a_part_that_is_sent_again_is_counted_once() -> None:
    told: list[int] = []
    part = sliced(told)
    part.read(16384)
    assert part.seek(0) == 0
    assert sum(told) == 0
    assert part.seek(0, 2) == 600_000
    assert part.seek(0) == 0
    assert part.read() == b"x" * 600_000
    assert sum(told) == 600_000


def test_a_part_of_a_file_that_has_become_shorter_ends_the_transfer() -> None:
    part = Slice(io.BytesIO(b"short"), Part(1, 0, 600_000), lambda count: None, threading.Event())
    assert part.read(100) == b"short"
    with pytest.raises(Cancelled):
        part.read(100)


def test_a_transfer_that_is_over_reads_no_more() -> None:
    stop = threading.Event()
    part = sliced([], stop)
    assert part.read(100)
    stop.set()
    with pytest.raises(Cancelled):
        part.read(100)


def test_the_sum_of_a_part(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before" + b"x" * 600_000 + b"after")
    found = range_md5(str(tmp_path / "file"), Part(2, 6, 600_000))
    assert found == hashlib.md5(b"x" * 600_000, usedforsecurity=False).hexdigest()


# --- at once ---


def test_the_work_is_done_for_each_part() -> None:
    parts, done, after = parts_of(40 * PART_SIZE), list[int](), list[int]()
    in_parallel(lambda part, stop: done.append(part.number), parts, lambda: after.append(len(done)))
    assert sorted(done) == list(range(1, 41))
    assert len(after) == 40
    assert all(so_far >= number for number, so_far in enumerate(after, 1))


def test_the_first_failure_ends_the_others() -> None:
    stopped = threading.Barrier(10)

    def work(part: Part, stop: threading.Event) -> None:
        if part.number == 5:
            raise ValueError("the fifth")
        assert stop.wait(60)
        stopped.wait(60)

    with pytest.raises(ValueError, match="the fifth"):
        in_parallel(work, parts_of(10 * PART_SIZE), lambda: None)
    stopped.wait(60)  # all nine have been told


# --- what has arrived ---

STORED = Stored("m", 40 * PART_SIZE, "2026-01-01T00:00:00+00:00", "0" * 64, "tag")


def test_a_record_is_found_by_the_next_call(tmp_path: Path) -> None:
    first = Record(str(tmp_path / "record"), STORED)
    for number in (3, 1):
        first.add(number)
    assert Record(str(tmp_path / "record"), STORED).numbers == {1, 3}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tag": "x"}', '{"tag": "other", "parts": [1]}', "\x00"])
def test_a_record_of_something_else_counts_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "record").write_text(text)
    assert Record(str(tmp_path / "record"), STORED).numbers == set()
