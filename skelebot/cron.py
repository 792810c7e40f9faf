"""When a schedule is due, as Kubernetes reads it: five fields of cron, or a word such as @daily."""

import re
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import NamedTuple

# https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#schedule-syntax
_WORDS = {
    **dict.fromkeys(("@yearly", "@annually"), "0 0 1 1 *"),
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    **dict.fromkeys(("@daily", "@midnight"), "0 0 * * *"),
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAYS_AHEAD = 366 * 8 + 1  # from 29 February to the next one, over a year without it


class _Field(NamedTuple):
    """A field: its name with an article, its limits, and the names of its numbers from the least on."""

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("a minute", 0, 59),
    _Field("an hour", 0, 23),
    _Field("a day of the month", 1, 31),
    _Field("a month", 1, 12, _MONTHS),
    _Field("a day of the week", 0, 6, _WEEKDAYS),
)


class Cron(NamedTuple):
    """What the fields of a schedule allow. either: whether one of the two fields of a day is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """Read a schedule. Raises ValueError with what is expected instead."""
        fields = _WORDS.get(text, text).split()
        if text.startswith("@") and text not in _WORDS:
            raise ValueError(f"one of {', '.join(_WORDS)}")
        if len(fields) != len(_FIELDS):
            names = ", ".join(field.name.partition(" ")[2] for field in _FIELDS)
            raise ValueError(f"five fields of cron ({names}), or @daily")
        numbers = (frozenset(_numbers(text, field)) for text, field in zip(fields, _FIELDS, strict=True))
        is_any_day = any(re.search(r"(^|,)[*?](/0*1)?(,|$)", fields[i]) for i in (2, 4))
        minutes, hours, days, months, weekdays = numbers
        cron = cls(minutes, hours, days, months, weekdays, not is_any_day)
        if cron.next(datetime(2000, 1, 1)) is None:
            raise ValueError("a day that its month has")
        return cron

    def next(self, after: datetime) -> datetime | None:
        """Return the first time after that one; None where there never is one."""
        for ahead in range(_DAYS_AHEAD):
            day = after.date() + timedelta(ahead)
            if day.month in self.months and self._allows(day.day, day.isoweekday() % 7):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        found = datetime.combine(day, time(hour, minute), after.tzinfo)
                        if found > after:
                            return found
        return None

    def _allows(self, day: int, weekday: int) -> bool:
        fits = (day in self.days, weekday in self.weekdays)
        return any(fits) if self.either else all(fits)


def _numbers(text: str, field: _Field) -> Iterator[int]:
    """Yield the numbers that a field allows. Raises ValueError."""
    for part in text.split(","):
        match = re.fullmatch(r"([*?]|[a-z0-9]+)(?:-([a-z0-9]+))?(?:/(\d+))?", part.lower(), re.ASCII)
        if match is None or (match[1] in "*?" and match[2]):
            raise _wrong(text, field)
        is_any, step = match[1] in "*?", int(match[3] or 1)
        first = field.least if is_any else _number(match[1], field, text)
        last = field.most if is_any or (match[3] and not match[2]) else first
        last = _number(match[2], field, text) if match[2] else last
        if not field.least <= first <= last <= field.most or step == 0:
            raise _wrong(text, field)
        yield from range(first, last + 1, step)


def _number(text: str, field: _Field, whole: str) -> int:
    if text in field.names:
        return field.least + field.names.index(text)
    if not text.isdecimal():
        raise _wrong(whole, field)
    return int(text)


def _wrong(text: str, field: _Field) -> ValueError:
    names = f" or {field.names[0].upper()} to {field.names[-1].upper()}" if field.names else ""
    return ValueError(
        f"{field.name} from {field.least} to {field.most}{names}, a range, a list or a step "
        f"such as */5, in place of {text!r}"
    )
