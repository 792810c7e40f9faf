"""The table of runs."""

from starlette.requests import Request
from starlette.responses import Response

from skelebot.page.pages import Pages, for_table, html, numbers, root_of, whole_number
from skelebot.page.rows import Query, table


def show(pages: Pages, request: Request) -> Response:
    asked, scope = request.query_params, request.path_params["scope"]
    query = Query(
        asked.get("words", ""),
        asked.get("state", ""),
        asked.get("sweep", ""),
        asked.getlist("sort")[-1] if asked.getlist("sort") else "",
        whole_number(asked.get("page"), 1),
    )
    rows = pages.rows.all(root_of(pages, request))
    shown = table(rows, query, with_project=scope == "all")
    return html(pages, request, "runs", table=shown, query=query, ticked=numbers(request), **for_table())
