"""One run: all that is known of it, its logs and its files."""

import os
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from skelebot import console, files
from skelebot.page import facts, outputs, text
from skelebot.page.pages import Pages, html, whole_number
from skelebot.runs import packages, workspace
from skelebot.runs.record import RunRecord
from skelebot.runs.store import Store

_FIRST, _BLOCK = 1 << 16, 1 << 18  # bytes of a log: what a page begins with, and reads at once
_BEHIND = 1 << 21  # bytes that a page skips, as it would not catch up with a log that grows so fast


def show(pages: Pages, request: Request) -> Response:
    store = pages.store
    run = store.get(request.path_params["number"])
    made = outputs.made(store, run)
    return html(
        pages,
        request,
        "run",
        run=run,
        facts=facts.facts(run),
        progress=facts.progress(run),
        tasks=[task_of(store, run, at) for at in range(len(run.tasks))],
        metrics=[facts.metric_row(metric) for metric in run.metrics.values()],
        made=made[: outputs.MOST],
        count=len(made),
        packages=sorted(packages.of(store, run.packages).items()),
        is_live=not run.has_ended,
    )


def task_of(store: Store, run: RunRecord, at: int) -> dict[str, Any]:
    """Return what is shown of a task, with the end of its log."""
    task = run.tasks[at]
    return {
        "at": at + 1,
        "job": run.names[at],
        "attempt": task.attempt,
        "state": task.state,
        "words": facts.state_of(task),
        "progress": task.progress,
        "params": [(name, text.value(found)) for name, found in task.params],
        "command": facts.command(task),
        "log": read_log(store, run, at, task.attempt, None) if task.attempt else None,
        "is_over": is_over(run, at, task.attempt),
    }


# --- its logs and files ---


def is_over(run: RunRecord, at: int, attempt: int) -> bool:
    task = run.tasks[at]
    return run.has_ended or task.attempt > attempt or task.state in ("done", "failed")


def log_path(store: Store, run: RunRecord, at: int, attempt: int) -> str:
    if not (0 <= at < len(run.tasks) and 1 <= attempt <= run.tasks[at].attempt):
        raise HTTPException(404)
    return os.path.join(workspace.attempt_folder(store, run, at, attempt), "log")


def read_log(store: Store, run: RunRecord, at: int, attempt: int, offset: int | None) -> text.Log:
    """Return a piece of a log; without an offset, or far behind, its end."""
    try:
        with files.open_regular(log_path(store, run, at, attempt)) as file:
            size = os.fstat(file.fileno()).st_size
            is_end = offset is None or size - offset > _BEHIND
            begin = max(size - _FIRST, 0) if is_end else min(offset or 0, size)
            file.seek(begin)
            if is_end and begin:
                begin += len(file.readline(_FIRST))
            found = text.log(file.read(_BLOCK), begin)
            if offset is not None and is_end:
                found.lines.insert(0, f"[{console.size(begin - offset)} are left out here]")
            return found
    except OSError:  # it has not begun, or was removed
        return text.Log([], "", 0)


def log(pages: Pages, request: Request) -> Response:
    given = request.path_params
    run = pages.store.get(given["number"])
    at, attempt = given["task"] - 1, given["attempt"]
    offset = whole_number(request.query_params.get("from"), 0)
    path = log_path(pages.store, run, at, attempt)
    has_ended = is_over(run, at, attempt)  # before the last look at the file
    found = read_log(pages.store, run, at, attempt, offset)
    is_whole = not os.path.exists(path) or found.next + len(found.rest) >= os.path.getsize(path)
    return JSONResponse({**found._asdict(), "over": has_ended and is_whole})


def whole_log(pages: Pages, request: Request) -> Response:
    given = request.path_params
    run = pages.store.get(given["number"])
    path = log_path(pages.store, run, given["task"] - 1, given["attempt"])
    return _download(outputs.open_beneath(os.path.dirname(path), "log"), f"run-{run.number}.log")


def file(pages: Pages, request: Request) -> Response:
    path = request.path_params["path"]
    found = outputs.opened(pages.store, pages.store.get(request.path_params["number"]), path)
    kind = outputs.picture_type(path)
    return _download(found, os.path.basename(path), kind)


def _download(opened: int | None, name: str, kind: str = "") -> Response:
    """Return a file. A picture is shown, but an SVG, which may hold scripts, only within a page."""
    if opened is None:
        raise HTTPException(404)
    size = os.fstat(opened).st_size
    headers = {"content-length": str(size)}
    headers["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    if not kind or kind == "image/svg+xml":
        headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return StreamingResponse(
        outputs.blocks(opened, size), media_type=kind or "application/octet-stream", headers=headers
    )
