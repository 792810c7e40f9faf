"""`ui`: show what was queued and recorded in a browser."""

import importlib.util
import tempfile
import webbrowser
from contextlib import ExitStack

from skelebot import console
from skelebot.component import Session
from skelebot.errors import SkelebotError
from skelebot.options import Values
from skelebot.runs import store as stores

_NEEDED = ("starlette", "uvicorn", "plotly")  # of the extra `ui`


def ui(session: Session, values: Values) -> int:
    """Serve the page until somebody ends it, which is the way to end it: with exit code 0."""
    port = int(str(values.get("port", "0")))
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise SkelebotError(f"ui: {', '.join(missing)} must be installed; run `pip install 'skelebot[ui]'`")
    if session.flags.dry_run:
        console.out(f"serve the page at 127.0.0.1, {f'port {port}' if port else 'a free port'}")
        return 0
    from skelebot.page import serve  # brings Starlette and uvicorn

    root = session.optional_project.root if session.optional_project else None
    if session.problems:
        console.warn("the configuration is wrong (`skelebot config` says how), so all projects are shown")
    with ExitStack() as until_the_end:

        def announce(address: str) -> None:
            console.info("Ctrl-C ends the page; runs go on")
            console.out(address)
            if values.get("open"):
                _open(address, until_the_end)

        serve.serve(stores.opened(), root, port, announce)
    return 0


def _open(address: str, until_the_end: ExitStack) -> None:
    """Open a file that leads to the address, whose token would otherwise be among the browser's arguments."""
    file = tempfile.NamedTemporaryFile("w", suffix=".html")  # noqa: SIM115 - closed with the page
    page = until_the_end.enter_context(file)
    page.write(f'<meta http-equiv="refresh" content="0; url={address}">\n')
    page.flush()
    if not webbrowser.open(f"file://{page.name}"):
        console.warn("no browser could be opened; open the address above yourself")
