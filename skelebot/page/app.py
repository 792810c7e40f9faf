"""The page as a Starlette application: which address is answered by what. It only reads."""

import importlib.util
import os
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from skelebot.errors import SkelebotError, UsageError
from skelebot.page import compare_page, queue_page, run_page, runs_page, sweep_page
from skelebot.page.pages import HERE, Pages, html, templates
from skelebot.page.rows import Rows
from skelebot.runs.store import Store


class _Number(IntegerConvertor):
    """Of a run, task or attempt; one of more digits is no page, before anybody reads or looks for it."""

    regex = "[0-9]{1,18}"


register_url_convertor("number", _Number())


def application(store: Store, root: str | None, rows: Rows) -> Starlette:
    """Return the application, whose pages begin at its root path."""
    pages = Pages(store, root, rows, templates())
    own: dict[str, Callable[[Pages, Request], Response]] = {
        "/": _home,
        "/static/{name}": _static,
        "/{scope}/queue": queue_page.show,
        "/{scope}/runs": runs_page.show,
        "/{scope}/compare": compare_page.show,
        "/{scope}/compare/figures": compare_page.values,
        "/{scope}/curves": compare_page.curves,
        "/{scope}/run/{number:number}": run_page.show,
        "/{scope}/run/{number:number}/log/{task:number}/{attempt:number}": run_page.log,
        "/{scope}/run/{number:number}/whole-log/{task:number}/{attempt:number}": run_page.whole_log,
        "/{scope}/run/{number:number}/files/{path:path}": run_page.file,
        "/{scope}/sweeps": sweep_page.listing,
        "/{scope}/sweep": sweep_page.show,
        "/{scope}/sweep/figures": sweep_page.trials,
        "/{scope}/sweep/importance": sweep_page.importance,
    }
    routes = [Route(path, _bound(pages, answer)) for path, answer in own.items()]

    def fail(request: Request, error: Exception) -> Response:
        return _failure(pages, request, error)

    return Starlette(routes=routes, exception_handlers={SkelebotError: fail, HTTPException: fail})


def _bound(pages: Pages, answer: Callable[[Pages, Request], Response]) -> Callable[[Request], Response]:
    """Return a function that Starlette calls in a thread of its own."""

    def respond(request: Request) -> Response:
        if request.path_params.get("scope", "all") not in ("all", *(["project"] if pages.root else [])):
            raise HTTPException(404)
        return answer(pages, request)

    return respond


def _failure(pages: Pages, request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return html(pages, request, "error", error.status_code, message="there is no such page")
    status = 404 if isinstance(error, UsageError) else 500
    return html(pages, request, "error", status, message=str(error))


def _home(pages: Pages, request: Request) -> Response:
    scope = "project" if pages.root else "all"
    return RedirectResponse(f"{request.scope['root_path']}/{scope}/queue", 303)


def _static(pages: Pages, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in ("page.css", "page.js", "plotly.min.js"):
        raise HTTPException(404)
    path = plotly_script() if name == "plotly.min.js" else os.path.join(HERE, "static", name)
    return FileResponse(path, headers={"cache-control": "private, max-age=86400"})


def plotly_script() -> str:
    """Return where plotly's package has its script, without importing it."""
    found = importlib.util.find_spec("plotly")
    assert found
    assert found.origin
    return os.path.join(os.path.dirname(found.origin), "package_data", "plotly.min.js")
