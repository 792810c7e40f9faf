"""What all pages have in common: what they show, their templates, and what an address says."""

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from skelebot import console
from skelebot.page import facts, text
from skelebot.page.figures import Figure
from skelebot.page.rows import Rows, shown
from skelebot.runs.record import STATES, RunRecord
from skelebot.runs.store import Store

HERE = os.path.dirname(os.path.abspath(__file__))


class Pages(NamedTuple):
    """What the pages show. root: of the checkout that somebody is in; None outside a project."""

    store: Store
    root: str | None
    rows: Rows
    templates: Environment


def templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(os.path.join(HERE, "templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": text.plain,
        "value": text.value,
        "duration": console.duration,
        "size": console.size,
    }
    environment.tests["numeric"] = lambda value: text.number(value) is not None
    for name in environment.list_templates():  # compiled before somebody waits for it
        environment.get_template(name)
    return environment


def html(pages: Pages, request: Request, name: str, status: int = 200, **values: Any) -> Response:
    scope = request.path_params.get("scope", "project" if pages.root else "all")
    top = request.scope["root_path"]
    shown = pages.templates.get_template(f"{name}.html").render(
        top=top, here=f"{top}/{scope}", scope=scope, has_project=pages.root is not None, page=name, **values
    )
    return HTMLResponse(shown, status)


def as_figures(figures: Sequence[Figure], is_live: bool) -> Response:
    return JSONResponse({"figures": [figure._asdict() for figure in figures], "live": is_live})


def for_table() -> dict[str, Any]:
    return {"shown": shown, "states": STATES, "now": time.time()}


# --- what an address says ---


def root_of(pages: Pages, request: Request) -> str | None:
    """Return whose runs are meant: None for all."""
    return pages.root if request.path_params["scope"] == "project" else None


def named_runs(pages: Pages, request: Request) -> list[RunRecord]:
    return [pages.store.get(number) for number in numbers(request)[: facts.MOST_COMPARED]]


def whole_number(word: str | None, default: int) -> int:
    return int(word) if word and word.isascii() and word.isdecimal() and len(word) < 10 else default


def numbers(request: Request) -> list[int]:
    """Return the runs that an address names, each once."""
    words = [word for each in request.query_params.getlist("run") for word in each.split(",")]
    return list(dict.fromkeys(number for word in words if (number := whole_number(word, 0))))
