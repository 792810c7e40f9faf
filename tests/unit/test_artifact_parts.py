"""Into which parts a file goes to S3, without a server."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from skelebot.components.repository.parts import parts_of

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
