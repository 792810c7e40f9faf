"""The screen of `runs --watch`: the queue, its slots, progress, the last line of each log, the time left."""

import os
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NamedTuple

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skelebot import console, foreground
from skelebot.components.runs import look
from skelebot.components.runs.last_line import current, last_line
from skelebot.runs import estimate
from skelebot.runs.estimate import Estimate
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store
from skelebot.wake import awake

_TICK = 0.5  # seconds between two looks
_REST = 5.0  # seconds after which the store is read again, whether or not it has changed
_BAR = 10  # columns


class Queue(NamedTuple):
    """What is shown. running, waiting: the runs, of the latter the first; lines: the last one of each log."""

    title: str
    at: float
    counts: dict[str, int]
    left: Estimate
    hold_up: str
    running: Sequence[RunRecord]
    waiting: Sequence[RunRecord]
    lines: dict[int, str]


def show(store: Store, root: str | None, title: str) -> None:
    """Show the queue until q is pressed. Raises Interrupted on Ctrl-C. Neither stops a run."""
    with _keys() as key, foreground.handled(_do_nothing, (signal.SIGWINCH,)), _live() as live:
        seen: object = None
        mark, queue = store.mark(), _read(store, root, title)
        while True:
            if (now := store.mark()) != mark or abs(time.time() - queue.at) > _REST:
                mark, queue = now, _read(store, root, title)
            queue = queue._replace(lines={run.number: last_line(store, run) for run in queue.running})
            size = _size()
            second = int(time.monotonic()) if queue.running else 0
            if seen != (seen := (queue, size, second)):
                live.console.size = size  # which COLUMNS and LINES would keep as it was
                live.update(picture(queue, *size, time.time()), refresh=True)
            if key(_TICK) in (b"q", b"Q"):
                return


def _live() -> Live:
    drawn = Console(file=sys.stdout, force_terminal=True, highlight=False, markup=False, emoji=False)
    return Live(console=drawn, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)


def _size() -> ConsoleDimensions:
    """Return the columns and lines of the terminal, which may not know them."""
    columns, lines = os.get_terminal_size(sys.stdout.fileno())
    return ConsoleDimensions(columns or 80, lines or 24)


def _read(store: Store, root: str | None, title: str) -> Queue:
    counts = store.counts(root)
    first = store.numbers("queued", root, most=_size().height)
    return Queue(
        title,
        time.time(),
        counts,
        estimate.of(store, root),
        look.hold_up(store, root, counts.get("queued", 0)),
        store.find(root=root, states=("running",))[::-1],
        store.records(first),
        {},
    )


@contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """Yield what waits so many seconds for a key, or for a signal; nothing is read without a terminal."""
    fd = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
    with awake() as waiting:

        def key(seconds: float) -> bytes:
            if fd is None:
                waiting.wait(seconds=seconds)
                return b""
            waiting.wait(sys.stdin.buffer, seconds=seconds)
            return os.read(fd, 1) if select.select([fd], [], [], 0)[0] else b""

        if fd is None:
            yield key
            return
        before = termios.tcgetattr(fd)
        now = termios.tcgetattr(fd)
        now[3] &= ~(termios.ICANON | termios.ECHO)
        now[6][termios.VSUSP] = b"\0"  # a stopped one would leave the terminal as it is now
        termios.tcsetattr(fd, termios.TCSADRAIN, now)
        try:
            yield key
        finally:
            with suppress(termios.error):  # it was closed
                termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def _do_nothing(signum: int, frame: FrameType | None) -> None: ...


# --- the picture ---


def picture(queue: Queue, columns: int, lines: int, now: float) -> Group:
    """Return what is shown at a time on so many columns and lines, each part of it one line high."""
    head = _head(queue, columns)
    foot = Text("q leaves; the runs go on", style="dim", no_wrap=True, overflow="ellipsis")
    room = lines - len(head) - 1
    body: list[RenderableType] = []
    shown = 0
    for run in (*queue.running, *queue.waiting):
        rows = list(_rows(queue, run, columns, now))
        if len(body) + len(rows) + (shown + 1 < _count(queue)) > room:
            break
        body += rows
        shown += 1
    if more := _count(queue) - shown:
        body.append(_text(f"... and {console.counted(more, 'more run')}", "dim"))
    return Group(*(head + body[: max(room, 0)] + [foot])[:lines])


def _count(queue: Queue) -> int:
    return queue.counts.get("running", 0) + queue.counts.get("queued", 0)


def _head(queue: Queue, columns: int) -> list[RenderableType]:
    names = {"running": "running", "queued": "waiting"}
    counts = {each: queue.counts.get(each, 0) for each in ("running", "queued")} | queue.counts
    facts = [f"{count} {names.get(state, state)}" for state, count in counts.items()]
    if queue.left.slots:
        facts.append(console.counted(queue.left.slots, "slot"))
    title = Text.assemble((console.one_line(queue.title), "bold"), f"  {', '.join(facts)}")
    title.no_wrap, title.overflow = True, "ellipsis"
    head: list[RenderableType] = [title]
    if _count(queue):
        head.append(_text(f"time left: {estimate.describe(queue.left, queue.at)}"))
    if queue.hold_up:
        head.append(_text(queue.hold_up, "yellow"))
    if not _count(queue):
        return [*head, Text(""), _text("the queue is empty")]
    titles = ("RUN", "CHAIN", "PROGRESS", "TOOK", "TIME LEFT")
    return [*head, Text(""), _row(columns, *(_text(title, "bold") for title in titles))]


def _rows(queue: Queue, run: RunRecord, columns: int, now: float) -> Iterator[RenderableType]:
    """Yield the lines of a run: its row, and the last line that it has written."""
    passed = max(now - queue.at, 0.0)
    left = max(queue.left.ends[run.number] - passed, 0.0) if run.number in queue.left.ends else None
    took = max(now - run.started, 0.0) if run.state == "running" else None
    task = current(run)
    chain = run.name or run.shown_chain
    if task and len(run.tasks) > 1:
        chain += f", {task.job} ({task.number} of {len(run.tasks)})"
    part = took / (took + left) if took is not None and left is not None and took + left else None
    if part is None and task and task.progress and len(run.tasks) == 1:
        part = task.progress
    yield _row(
        columns,
        _text(str(run.number), "green" if took is not None else ""),
        _text(chain),
        _text("waiting", "dim") if took is None else _progress(part),
        _text("" if took is None else console.duration(took)),
        _text("" if left is None else console.duration(left)),
    )
    if line := queue.lines.get(run.number):
        yield _row(columns, _text(""), _text(line, "dim"), whole=True)


def _progress(part: float | None) -> RenderableType:
    if part is None:
        return _text("running")
    bar = Table.grid(padding=(0, 1, 0, 0))
    done = ProgressBar(
        1.0, min(part, 1.0), _BAR, style="bright_black", complete_style="green", finished_style="green"
    )
    bar.add_row(done, f"{100 * min(part, 1.0):3.0f} %")
    return bar


def _row(columns: int, *cells: RenderableType, whole: bool = False) -> Table:
    """Return a line of columns that stand below each other in all lines; narrow terminals have fewer.

    whole: whether the second cell takes all that is right of the first.
    """
    widths = (6, None, _BAR + 6, 11, 11)
    dropped = {3} if columns < 80 else set()
    dropped |= {2} if columns < 60 else set()
    row = Table.grid(padding=(0, 1, 0, 0), expand=True)
    kept = [at for at in range(2 if whole else 5) if at not in dropped]
    for at in kept:
        row.add_column(width=widths[at], ratio=1 if widths[at] is None else None, no_wrap=True)
    row.add_row(*(cells[at] for at in kept))
    return row


def _text(text: str, style: str = "") -> Text:
    return Text(console.one_line(text), style=style, no_wrap=True, overflow="ellipsis")
