"""What is printed about artifacts."""

import pytest

from skelebot.components.repository.commands import readable_size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (41, "41 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (3499, "3.5 kB"),
        (99_949, "99.9 kB"),
        (99_951, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_000_000_000_000, "1000 GB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert readable_size(size) == text
