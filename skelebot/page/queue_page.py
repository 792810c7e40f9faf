"""The queue: what runs, with live logs and curves, and what waits."""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from skelebot.page import facts
from skelebot.page.pages import Pages, html, root_of
from skelebot.page.run_page import task_of
from skelebot.runs import estimate, supervise, worker
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store

_WAITING = 100  # runs that are listed


def show(pages: Pages, request: Request) -> Response:
    store, root = pages.store, root_of(pages, request)
    known = {row.number: row for row in pages.rows.all()}
    waiting = store.numbers("queued", root, most=_WAITING)
    left = estimate.of(store, root)
    running = reversed(store.find(root=root, states=("running",)))
    return html(
        pages,
        request,
        "queue",
        running=[_running(store, run) for run in running],
        waiting=[known[number] for number in waiting if number in known],
        counts=store.counts(root),
        left=estimate.describe(left),
        ends=left.ends,
        workers=[each for each in worker.workers(store) if root is None or each["root"] in (None, root)],
        paused=store.setting(worker.PAUSED),
        now=time.time(),
    )


def _running(store: Store, run: RunRecord) -> dict[str, Any]:
    """Return what the queue shows of a running run."""
    at = next((n for n, task in enumerate(run.tasks) if task.state == "running"), None)
    return {
        "run": run,
        "progress": facts.progress(run),
        "is_supervised": supervise.is_supervised(store, run.number),
        "metrics": [facts.metric_row(each) for each in run.metrics.values()][:8],
        "task": None if at is None else task_of(store, run, at),
    }
