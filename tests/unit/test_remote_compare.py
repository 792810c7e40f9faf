"""What it takes to bring a folder here and its volume there in step: nothing of the user's is ever lost."""

from hypothesis import given
from hypothesis import strategies as st

from skelebot.runners.remote import Agreed, Entry, Listing, compare, nanoseconds, parse_listing


def file(mtime: int, size: int = 1) -> Entry:
    return Entry("f", size, mtime, 0o644, "")


FOLDER = Entry("d", 4096, 7, 0o755, "")
OLD, NEW, NEWER = file(1), file(2), file(3)


def parts(here: Listing, there: Listing, agreed: Agreed, read_only: bool = False) -> tuple[list[str], ...]:
    return compare(here, there, agreed, read_only).parts


def test_a_first_time_sends_all() -> None:
    assert parts({"a": OLD, "d": FOLDER, "d/b": OLD}, {}, {}) == (["a", "d", "d/b"], [], [])


def test_what_the_job_wrote_is_fetched() -> None:
    assert parts({"a": OLD}, {"a": NEW, "b": NEW}, {"a": OLD}) == ([], [], ["a", "b"])


def test_what_was_deleted_here_is_deleted_there() -> None:
    assert parts({}, {"a": OLD}, {"a": OLD}) == ([], ["a"], [])


def test_what_the_job_has_changed_meanwhile_is_not_deleted_there() -> None:
    assert parts({}, {"a": NEW}, {"a": OLD}) == ([], [], ["a"])


def test_what_the_job_deleted_stays_here() -> None:
    assert parts({"a": OLD}, {}, {"a": OLD}) == (["a"], [], [])


def test_the_later_write_wins() -> None:
    assert parts({"a": NEW}, {"a": NEWER}, {"a": OLD}) == ([], [], ["a"])
    assert parts({"a": NEWER}, {"a": NEW}, {"a": OLD}) == (["a"], [], [])


def test_what_was_on_its_way_is_not_taken_for_the_jobs() -> None:
    assert parts({"a": OLD}, {"a": NEWER}, {"a": None}) == (["a"], [], [])
    assert parts({}, {"a": NEWER}, {"a": None}) == ([], ["a"], [])


def test_nothing_of_a_read_only_folder_comes_back() -> None:
    assert parts({"a": OLD}, {"a": NEW, "b": NEW}, {"a": OLD}, read_only=True) == (["a"], ["b"], [])


def test_another_kind_never_replaces_a_folder() -> None:
    found = compare({"a": FOLDER}, {"a": NEW}, {"a": FOLDER}, False)
    assert (found.parts, found.clash) == ((["a"], ["a"], []), ["a"])


ENTRIES = st.sampled_from([OLD, NEW, NEWER, FOLDER, Entry("l", 1, 1, 0o777, "x")])
LISTINGS = st.dictionaries(st.sampled_from("abcd"), ENTRIES)


@given(LISTINGS, LISTINGS, st.dictionaries(st.sampled_from("abcd"), st.none() | ENTRIES), st.booleans())
def test_both_sides_agree_in_the_end(here: Listing, there: Listing, agreed: Agreed, read_only: bool) -> None:
    send, delete, fetch = parts(here, there, agreed, read_only)
    then_here = here | {path: there[path] for path in fetch}
    left = {path: entry for path, entry in there.items() if path not in delete}
    then_there = left | {path: here[path] for path in send}
    assert then_here.keys() == then_there.keys()
    assert all(entry.is_same(then_there[path]) for path, entry in then_here.items())
    assert here.keys() <= then_here.keys()
    assert not (read_only and fetch)


def test_a_listing_with_odd_names() -> None:
    data = (
        b"f\x005\x001700000000.1234567890\x00644\x00\x000/a\nb \xff\0"
        b"l\x001\x00-1.5000000000\x00777\x00x\x001/d/e\0"
    )
    assert parse_listing(data) == {
        0: {"a\nb \udcff": Entry("f", 5, 1700000000123456789, 0o644, "")},
        1: {"d/e": Entry("l", 1, -1500000000, 0o777, "x")},
    }


def test_times_to_the_nanosecond() -> None:
    assert nanoseconds("12") == 12_000_000_000
    assert nanoseconds("12.000000001") == 12_000_000_001
    assert nanoseconds("12.5") == 12_500_000_000
