"""When a schedule is due, by value: what Kubernetes takes, what it refuses, and which time comes next."""

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.cron import Cron

from .helpers import problems

FRIDAY = datetime(2026, 11, 27, 13, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", "2026-11-27 13:31"),
        ("*/15 * * * *", "2026-11-27 13:45"),
        ("30 13 * * *", "2026-11-28 13:30"),
        ("0 3 * * *", "2026-11-28 03:00"),
        ("5,40 * * * ?", "2026-11-27 13:40"),
        ("50/5 * * * *", "2026-11-27 13:50"),
        ("0 9-17/4 * * *", "2026-11-27 17:00"),
        ("0 0 1 jan *", "2027-01-01 00:00"),
        ("0 6 * * MON-fri", "2026-11-30 06:00"),
        ("0 6 * * 0", "2026-11-29 06:00"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 0 1 * MON", "2026-11-30 00:00"),  # either of the two is enough
        ("0 0 */2 * MON", "2026-11-29 00:00"),
        ("0 0 1 * */1", "2026-12-01 00:00"),
        ("  0   3 * *\t* ", "2026-11-28 03:00"),
        ("@hourly", "2026-11-27 14:00"),
        ("@daily", "2026-11-28 00:00"),
        ("@midnight", "2026-11-28 00:00"),
        ("@weekly", "2026-11-29 00:00"),
        ("@monthly", "2026-12-01 00:00"),
        ("@yearly", "2027-01-01 00:00"),
        ("@annually", "2027-01-01 00:00"),
    ],
)
def test_the_next_time(text: str, expected: str) -> None:
    found = Cron.parse(text).next(FRIDAY)
    assert found
    assert found.strftime("%Y-%m-%d %H:%M") == expected
    assert found.tzinfo == timezone.utc


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "five fields of cron"),
        (
            "0 3 * *",
            "five fields of cron (minute, hour, day of the month, month, day of the week), or @daily",
        ),
        ("0 0 3 * * *", "five fields"),
        ("CRON_TZ=UTC 0 3 * * *", "five fields"),
        ("60 * * * *", "a minute from 0 to 59"),
        ("* 24 * * *", "an hour from 0 to 23"),
        ("* * 0 * *", "a day of the month from 1 to 31"),
        ("* * * 13 *", "a month from 1 to 12 or JAN to DEC"),
        ("* * * * 7", "a day of the week from 0 to 6 or SUN to SAT"),
        ("* * * * someday", "a day of the week"),
        ("* * * january *", "a month"),
        ("jan * * * *", "a minute"),
        ("9-5 * * * *", "a minute"),
        ("*/0 * * * *", "a minute"),
        ("*-5 * * * *", "a minute"),
        ("1,,2 * * * *", "a minute"),
        ("1-2-3 * * * *", "a minute"),
        ("1/2/3 * * * *", "a minute"),
        ("-1 * * * *", "a minute"),
        ("\u0661 * * * *", "a minute"),
        ("0 0 30 feb *", "a day that its month has"),
        ("@reboot", "one of @yearly, @annually, @monthly"),
        ("@every 5m", "one of @yearly"),
    ],
)
def test_what_is_no_schedule(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        Cron.parse(text)


def fields(least: int, most: int) -> "st.SearchStrategy[str]":
    number = st.integers(least, most)
    ranges = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.tuples(st.just("*") | ranges, st.integers(1, 70)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.just("*") | st.lists(number.map(str) | ranges | steps, min_size=1, max_size=3).map(",".join)


TEXTS = st.tuples(fields(0, 59), fields(0, 23), fields(1, 28), fields(1, 12), fields(0, 6)).map(" ".join)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1))


@given(TEXTS, TIMES)
def test_the_next_time_is_allowed_and_later_ones_follow(text: str, after: datetime) -> None:
    cron = Cron.parse(text)
    first = cron.next(after)
    assert first
    assert first > after
    assert (first.minute in cron.minutes, first.hour in cron.hours, first.month in cron.months) == (True,) * 3
    assert cron.next(first - timedelta(seconds=1)) == first
    second = cron.next(first)
    assert second
    assert second > first


JOB = "name: demo\njobs:\n- {{name: a, source: 'true', help: h, schedule: '{}'}}\n"


@pytest.mark.parametrize("text", ["0 3 * * *", "@daily", "*/5 9-17 * * MON-FRI"])
def test_a_schedule_is_taken(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, JOB.format(text)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("daily", "jobs[0].schedule: expected five fields of cron (minute, hour, day of the month, month, "),
        ("0 25 * * *", "jobs[0].schedule: expected an hour from 0 to 23, a range, a list or a step such as"),
        ("@often", "jobs[0].schedule: expected one of @yearly"),
    ],
)
def test_a_wrong_schedule_is_reported_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    (found,) = problems(tmp_path, JOB.format(text))
    assert found.startswith("skelebot.yaml:3:48: ")
    assert expected in found
    assert found.endswith(f"; found {text!r}")
