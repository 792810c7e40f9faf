"""`runs --watch` by its values: the screen, the last line of a log, the lines that go into a pipe."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from skelebot.components.runs.last_line import last_line, last_of
from skelebot.components.runs.screen import Queue, picture
from skelebot.components.runs.watch import Changes
from skelebot.runs import store as stores
from skelebot.runs import workspace
from skelebot.runs.estimate import Estimate, Span
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store

from .test_runs import add, become, run, task

NOW = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return stores.opened(str(tmp_path / "store"))


# --- the last line of a log ---


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ""),
        (b"\n\n  \n", ""),
        (b"one\ntwo\n", "two"),
        (b"one\ntwo", "two"),
        (b"one\n\n \n", "one"),
        (b" 10 %\r 20 %\r 30 %", "30 %"),
        (b"done\r\n", "done"),
        (b"\x1b[1;31mred\x1b[0m and \x1b[Kplain\n", "red and plain"),
        (b"\x1b]0;a title\x07text", "text"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1bPq#0\x1b\\after", "after"),
        (b"\x1b(Bletters\x1b7\x1bc", "letters"),
        ("\x9b31mred".encode(), "red"),
        (b"text\x1b[", "text"),
        (b"text\x1b", "text"),
        (b"a\x07b\x08c\x00d\x7f", r"a\x07b\x08c\x00d\x7f"),
        ("a‮b".encode(), r"a\u202eb"),  # would turn the rest of the line around
        ("損失 0.2 ✓".encode(), "損失 0.2 ✓"),
        (b"\xff\xfe", "��"),
        (b"a\tb", "a b"),
        (b"[bold]no markup[/bold]", "[bold]no markup[/bold]"),
        (b"https://ada:secret@host/x", "https://ada:***@host/x"),
    ],
)
def test_the_last_line(data: bytes, expected: str) -> None:
    assert last_of(data) == expected


@given(st.binary())
def test_no_last_line_moves_the_cursor(data: bytes) -> None:
    assert last_of(data).isprintable()


def test_the_last_line_of_a_huge_log(store: Store) -> None:
    (number,) = add(store)
    become(store, number, "running")
    record = store.update(number, lambda run: run.with_task(0, state="running", attempt=1))
    assert last_line(store, record) == ""
    folder = Path(workspace.attempt_folder(store, record, 0, 1))
    folder.mkdir(parents=True)
    (folder / "log").write_bytes(b"x" * 10_000_000)
    assert 0 < len(last_line(store, record)) <= 4096
    with (folder / "log").open("ab") as file:
        file.write(b"\nend\n")
    assert last_line(store, record) == "end"


# --- the screen ---


def running(number: int, name: str = "", **facts: Any) -> RunRecord:
    record = task(state="running", started=NOW - 60, **facts)
    return run(f"u{number}", number=number, name=name, state="running", started=NOW - 60, tasks=(record,))


def waiting(number: int, **facts: Any) -> RunRecord:
    return run(f"u{number}", number=number, **facts)


def queue(
    runs: Sequence[RunRecord] = (),
    waits: Sequence[RunRecord] = (),
    ends: dict[int, float] | None = None,
    counts: dict[str, int] | None = None,
    **facts: Any,
) -> Queue:
    left = Estimate(Span(100, 120, 140), (), 37, 2, ends or {})
    known = {"running": len(runs), "queued": len(waits)} | (counts or {})
    shown = Queue("demo", NOW, known, left, "", runs, waits, {})
    return shown._replace(**facts)


def drawn(shown: Queue, columns: int = 100, lines: int = 20, now: float = NOW) -> list[str]:
    """The lines of a screen as plain text."""
    text = io.StringIO()
    Console(file=text, width=columns, markup=False, emoji=False).print(picture(shown, columns, lines, now))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_the_screen() -> None:
    shown = queue([running(7, "fast")], [waiting(8)], {7: 60.0, 8: 120.0}, {"done": 3}, lines={7: "epoch 3"})
    head, left, space, titles, first, line, second, foot = drawn(shown)
    assert head == "demo  1 running, 1 waiting, 3 done, 2 slots"
    assert left.startswith("time left: about 2 min 0 s, until ")
    assert (space, titles.split()) == ("", ["RUN", "CHAIN", "PROGRESS", "TOOK", "TIME", "LEFT"])
    assert first.split() == ["7", "fast", "━━━━━", "50", "%", *["1", "min", "0", "s", "1", "min", "0", "s"]]
    assert line == "       epoch 3"
    assert second.split() == ["8", "train", "waiting", *["2", "min", "0", "s"]]
    assert foot == "q leaves; the runs go on"


def test_the_job_of_a_chain_and_what_nobody_knows() -> None:
    chain = run(
        "u1",
        number=1,
        state="running",
        started=NOW,
        tasks=(task(state="done"), task("score", state="running")),
    )
    line = drawn(queue([chain]))[4]
    assert "train, score (2 of 2)" in line
    assert "running" in line
    assert "%" not in line
    assert "25 %" in drawn(queue([running(1, progress=0.25)]))[4]


def test_time_goes_on_between_two_looks() -> None:
    shown = queue([], [waiting(8)], {8: 120.0})
    assert drawn(shown, now=NOW + 30)[4].endswith(" 1 min 30 s")
    assert drawn(shown, now=NOW + 1000)[4].endswith(" 0.0 s")
    assert drawn(shown, now=NOW - 1000)[4].endswith(" 2 min 0 s")  # the clock was set back


def test_what_has_no_room_is_counted() -> None:
    shown = queue([running(1)], [waiting(number) for number in range(2, 40)], counts={"queued": 9_000})
    lines = drawn(shown, lines=10)
    assert len(lines) == 10
    assert lines[-2] == "... and 8,997 more runs"
    assert [line.split()[0] for line in lines[4:8]] == ["1", "2", "3", "4"]


def test_an_empty_queue_and_one_that_is_held_up() -> None:
    assert drawn(queue(counts={"done": 3})) == [
        "demo  0 running, 0 waiting, 3 done, 2 slots",
        "",
        "the queue is empty",
        "q leaves; the runs go on",
    ]
    assert "no worker is running" in drawn(queue([], [waiting(1)], hold_up="no worker is running"))[2]


@pytest.mark.parametrize("columns", [1, 5, 12, 20, 39, 40, 59, 60, 80, 200])
@pytest.mark.parametrize("lines", [1, 2, 5, 24])
def test_each_part_is_one_line_on_any_terminal(columns: int, lines: int) -> None:
    long = "損失" * 300
    runs = [running(number, long) for number in range(1, 30)]
    shown = queue(runs, [waiting(99)], {1: 60.0}, lines={run.number: long for run in runs})
    found = drawn(shown._replace(title=long), columns, lines)
    assert len(found) <= lines
    assert all(cell_len(line) <= columns for line in found)


def test_names_and_logs_are_neither_markup_nor_commands() -> None:
    name = "[red]x[/red]\x1b[31m:smile:"
    shown = queue([running(1, name)], lines={1: "[link=http://x]y"}, title="[b]t\x1b[1m")
    text = "\n".join(drawn(shown))
    assert r"[red]x[/red]\x1b[31m:smile:" in text
    assert "[link=http://x]y" in text
    assert r"[b]t\x1b[1m" in text


# --- the lines of a pipe ---


def test_a_line_for_each_change_and_a_summary_now_and_then(store: Store) -> None:
    add(store, 2)
    changes = Changes(store, "/p")

    def lines(now: float) -> list[str]:
        return list(changes.lines(now))

    (summary,) = lines(100)
    assert summary.startswith(
        "0 running, 2 waiting; time left: unknown: train has never ended here; no worker"
    )
    assert lines(101) == []
    become(store, 1, "running")
    assert lines(102) == ["run 1: running"]
    become(store, 1, "done")
    become(store, 2, "running")
    add(store)
    assert lines(103) == ["run 1: done", "run 2: running", "run 3: queued"]
    assert lines(159) == []
    assert [line[:20] for line in lines(160)] == ["1 running, 1 waiting"]
    become(store, 2, "failed")
    store.remove(3)
    assert not changes.is_over
    assert lines(161) == [
        "run 2: failed",
        "run 3: removed",
        "the queue is empty: 1 done, 1 failed, 1 removed",
    ]
    assert changes.is_over


def test_an_empty_queue_is_over_at_once(store: Store) -> None:
    add(store, root="/q")
    changes = Changes(store, "/p")
    assert list(changes.lines(0)) == ["the queue is empty"]
    assert changes.is_over
    assert not os.path.exists("/p")
