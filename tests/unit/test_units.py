"""Sizes and numbers of CPUs, as people write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.units import CPUS, SIZE, cpus, size, size_text

POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
numbers = st.integers(0, 10**12)


@given(numbers, st.sampled_from(sorted(POWERS)), st.sampled_from(["", "i", "b", "ib"]), st.booleans())
def test_every_unit_is_a_power_of_1024(number: int, unit: str, end: str, upper: bool) -> None:
    if not unit and "i" in end:
        return  # Ki is a unit, i is none
    text = f"{number}{unit}{end}"
    assert size(text.upper() if upper else text) == number * 1024 ** POWERS[unit]
    assert size(f"{number} {unit}{end}") == number * 1024 ** POWERS[unit]


@given(st.integers(0, 10**6), st.integers(0, 10**9 - 1), st.sampled_from(sorted(POWERS)))
def test_a_fraction_of_a_unit_is_whole_bytes(whole: int, billionths: int, unit: str) -> None:
    exact = (whole * 10**9 + billionths) * 1024 ** POWERS[unit] // 10**9
    assert size(f"{whole}.{billionths:09}{unit}") == exact


@given(numbers)
def test_a_size_is_shown_as_the_same_size_where_it_is_a_whole_number_of_units(number: int) -> None:
    for unit, power in POWERS.items():
        exact = number * 1024**power
        text = size_text(exact)
        # A shown fraction is rounded down, by less than a tenth of its unit.
        assert exact * 0.9 <= size(text) <= exact, text
        assert "." in text or not unit or size(text) == exact or exact % 1024, text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0b"),
        (1023, "1023b"),
        (1024, "1k"),
        (1025, "1k"),
        (1536, "1.5k"),
        (4 * 1024**3, "4g"),
        (4095 * 1024**2, "4095m"),
        (1024**3 - 1, "1023.9m"),
        (2048 * 1024**4, "2048t"),
    ],
)
def test_a_size_as_people_write_it(number: int, text: str) -> None:
    assert size_text(number) == text


@given(st.integers(0, 10**7))
def test_cpus_are_numbers_or_thousandths(thousandths: int) -> None:
    assert cpus(f"{thousandths}m") == thousandths / 1000
    assert cpus(f"{thousandths // 1000}.{thousandths % 1000:03}") == thousandths / 1000
    assert cpus(str(thousandths // 1000)) == thousandths // 1000


@given(st.one_of(st.text(max_size=8), st.from_regex(SIZE), st.from_regex(CPUS)))
def test_anything_else_is_none_of_these(text: str) -> None:
    if not re.fullmatch(SIZE, text, re.ASCII):
        assert size(text) == 0
    if not re.fullmatch(CPUS, text, re.ASCII):
        assert cpus(text) == 0


@pytest.mark.parametrize(
    "text", ["", "g", "-1g", "4x", "4gg", "4 GiBs", "1e3", "4,5g", "٤g", "4i", ".5g", "5.g"]
)
def test_no_sizes(text: str) -> None:
    assert size(text) == 0
