"""The units in which amounts are written: sizes, numbers of CPUs, and ages."""

import re

SIZE = r"(\d{1,15}(?:\.\d{1,9})?) ?(?:([kKmMgGtT])[iI]?)?[bB]?"  # as Docker reads them
CPUS = r"(\d{1,8})m|(\d{1,5}(?:\.\d{1,3})?)"
_PREFIXES = " kmgt"

K, M, G, T = (1024**power for power in range(1, 5))


def size(text: str) -> int:
    """The bytes in `4g`, `512Mi` or `1048576`, all powers of 1024; 0 if it is not a size."""
    match = re.fullmatch(SIZE, text, re.ASCII)
    if match is None:
        return 0
    # Not as one float, which would lose digits.
    whole, _, fraction = match[1].partition(".")
    factor = 1 << 10 * _PREFIXES.index((match[2] or " ").lower())
    return int(int(whole + fraction) * factor // 10 ** len(fraction))


def size_text(size: int) -> str:
    """A size as people write it: exact if it is a whole number of some unit, otherwise rounded down."""
    power = next((p for p in (4, 3, 2, 1) if size and size % 1024**p == 0), 0)
    if power or size < K:
        return f"{size // 1024**power}{_PREFIXES[power].strip() or 'b'}"
    power = min((size.bit_length() - 1) // 10, 4)
    return f"{size * 10 // 1024**power / 10:g}{_PREFIXES[power]}"


AGE = r"(\d{1,6})([smhd])"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


def age(text: str) -> int:
    """The seconds in `90d`, `12h`, `30m` or `10s`. Raises ValueError for any other text."""
    match = re.fullmatch(AGE, text, re.ASCII)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _SECONDS[match[2]]


def cpus(text: str) -> float:
    """The CPUs in `2`, `0.5` or `500m`; 0 if it is not a number of them."""
    match = re.fullmatch(CPUS, text, re.ASCII)
    if match is None:
        return 0
    return int(match[1]) / 1000 if match[1] else float(match[2])
