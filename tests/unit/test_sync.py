"""What it takes to bring a folder here and its volume there in step: nothing of the user's is ever lost."""

from hypothesis import given
from hypothesis import strategies as st

from skelebot.runners.docker.sync import (
    Agreed,
    Agreement,
    FileState,
    Listing,
    compare,
    nanoseconds,
    parse_listing,
)


def file(mtime: int, size: int = 1) -> FileState:
    return FileState("f", size, mtime, 0o644, "")


FOLDER = FileState("d", 4096, 7, 0o755, "")
OLD, NEW, NEWER = file(1), file(2), file(3)


def both(listing: Listing) -> Agreed:
    """The agreement that both sides had this."""
    return {path: Agreement(state, state) for path, state in listing.items()}


def parts(here: Listing, there: Listing, agreed: Agreed) -> tuple[list[str], ...]:
    return compare(here, there, agreed).parts


def test_a_first_time_sends_all() -> None:
    assert parts({"a": OLD, "d": FOLDER, "d/b": OLD}, {}, {}) == (["a", "d", "d/b"], [], [])


def test_what_the_job_wrote_is_fetched() -> None:
    assert parts({"a": OLD}, {"a": NEW, "b": NEW}, both({"a": OLD})) == ([], [], ["a", "b"])


def test_what_was_deleted_here_is_deleted_there() -> None:
    assert parts({}, {"a": OLD}, both({"a": OLD})) == ([], ["a"], [])


def test_what_the_job_has_changed_meanwhile_is_not_deleted_there() -> None:
    assert parts({}, {"a": NEW}, both({"a": OLD})) == ([], [], ["a"])


def test_what_the_job_deleted_stays_here() -> None:
    assert parts({"a": OLD}, {}, both({"a": OLD})) == (["a"], [], [])


def test_the_later_write_wins() -> None:
    assert parts({"a": NEW}, {"a": NEWER}, both({"a": OLD})) == ([], [], ["a"])
    assert parts({"a": NEWER}, {"a": NEW}, both({"a": OLD})) == (["a"], [], [])


def test_what_was_on_its_way_is_not_taken_for_the_jobs() -> None:
    assert parts({"a": OLD}, {"a": NEWER}, {"a": None}) == (["a"], [], [])
    assert parts({}, {"a": NEWER}, {"a": None}) == ([], ["a"], [])


def test_another_kind_never_replaces_a_folder() -> None:
    found = compare({"a": FOLDER, "a/b": OLD}, {"a": NEW}, both({"a": FOLDER, "a/b": OLD}))
    assert (found.parts, found.clash) == ((["a", "a/b"], ["a"], []), ["a"])


def test_a_folder_never_replaces_a_file() -> None:
    """What is in it has no place here, and makes room there when the file is sent again."""
    found = compare(
        {"a": OLD, "a-b": OLD}, {"a": FOLDER, "a-b": NEW, "a/b": NEW}, both({"a": OLD, "a-b": OLD})
    )
    assert (found.parts, found.clash) == ((["a"], ["a", "a/b"], ["a-b"]), ["a"])
    moved_away = compare({}, {"a": FOLDER, "a/b": NEW}, both({"a": OLD}))
    assert moved_away.parts == ([], [], ["a", "a/b"])


def test_a_write_that_keeps_size_and_time_is_seen() -> None:
    agreed: Agreed = {"a": Agreement(OLD._replace(ctime=10), OLD._replace(ctime=20))}
    same, later = Agreement(OLD._replace(ctime=10), OLD._replace(ctime=20)), OLD._replace(ctime=30)
    assert parts({"a": same.here}, {"a": same.there}, agreed) == ([], [], [])
    assert parts({"a": later}, {"a": same.there}, agreed) == (["a"], [], [])
    assert parts({"a": same.here}, {"a": later}, agreed) == ([], [], ["a"])


LEAVES = st.sampled_from([OLD, NEW, NEWER, FileState("l", 1, 1, 0o777, "x")])


@st.composite
def listings(draw: st.DrawFn, depth: int = 2) -> Listing:
    """A tree of files, links and folders."""
    found: Listing = {}
    for name in draw(st.sets(st.sampled_from(["a", "a-", "b"]))):
        if depth and draw(st.booleans()):
            below = draw(listings(depth=depth - 1))
            found |= {name: FOLDER} | {f"{name}/{path}": entry for path, entry in below.items()}
        else:
            found[name] = draw(LEAVES)
    return found


@given(listings(), listings(), listings(), st.booleans())
def test_both_sides_agree_in_the_end(here: Listing, there: Listing, before: Listing, killed: bool) -> None:
    agreed: Agreed = dict.fromkeys(before) if killed else both(before)
    send, delete, fetch = parts(here, there, agreed)
    then_here = here | {path: there[path] for path in fetch}
    left = {
        path: entry for path, entry in there.items() if path not in delete or is_needed(path, there, delete)
    }
    then_there = left | {path: here[path] for path in send}
    for path in {*then_here, *then_there}:
        folders = [path[:at] for at, letter in enumerate(path) if letter == "/"]
        for side in (then_here, then_there):
            assert all(side.get(folder, FOLDER).kind == "d" for folder in folders)
    files = {path: entry for path, entry in then_here.items() if entry.kind != "d"}
    assert files.keys() == {path for path, entry in then_there.items() if entry.kind != "d"}
    assert all(entry.is_same(then_there[path]) for path, entry in files.items())
    assert here.keys() <= then_here.keys()


def is_needed(folder: str, there: Listing, deleted: list[str]) -> bool:
    """A folder stays when something is left in it."""
    return any(path.startswith(f"{folder}/") and path not in deleted for path in there)


def test_a_listing_with_odd_names() -> None:
    data = (
        b"f\x005\x001700000000.1234567890\x001700000001.5\x00644\x00\x000/a\nb \xff\0"
        b"l\x001\x00-1.5000000000\x000.0\x00777\x00x\x001/d/e\0"
    )
    assert parse_listing(data) == {
        0: {"a\nb \udcff": FileState("f", 5, 1700000000123456789, 0o644, "", 1700000001500000000)},
        1: {"d/e": FileState("l", 1, -1500000000, 0o777, "x")},
    }


def test_times_to_the_nanosecond() -> None:
    assert nanoseconds("12") == 12_000_000_000
    assert nanoseconds("12.000000001") == 12_000_000_001
    assert nanoseconds("12.5") == 12_500_000_000
