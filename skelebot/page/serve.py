"""Serve the page to the browsers of this machine until somebody ends it."""

import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import uvicorn

from skelebot.errors import Interrupted, SkelebotError
from skelebot.files import reason
from skelebot.foreground import uninterrupted
from skelebot.page import app, guard
from skelebot.page.rows import Rows
from skelebot.runs.store import Store

ADDRESS = "127.0.0.1"


def serve(store: Store, root: str | None, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page at a port, 0 for a free one, until a signal ends it. Raises SkelebotError.

    announce: gets the address once the page can be seen.
    """
    with _listening(port) as listener:
        rows = Rows(store)
        rows.all()  # a second for 50,000 runs, which would otherwise be that of the first page
        token = secrets.token_urlsafe(24)
        guarded = guard.guarded(app.application(store, root, rows), token)
        address = f"http://{ADDRESS}:{listener.getsockname()[1]}/{token}/"
        # uvicorn repeats the signal that has ended it.
        with suppress(Interrupted), ExitStack() as delayed:
            # A signal before uvicorn handles them would break into the midst of what asyncio begins.
            delayed.enter_context(uninterrupted())

            def begin() -> None:
                delayed.close()
                announce(address)

            _Server(_config(guarded), begin).run([listener])


class _Server(uvicorn.Server):
    """Tells when it handles connections, and signals."""

    def __init__(self, config: uvicorn.Config, begin: Callable[[], None]) -> None:
        super().__init__(config)
        self._begin = begin

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._begin()


def _listening(port: int) -> socket.socket:
    """Return a socket that takes connections already. Raises SkelebotError."""
    listener = socket.socket()
    # As servers do: connections that have ended do not count.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise SkelebotError(
            f"ui: --port: {port} is not available: {reason(error)}; choose another, or leave out --port"
        ) from None
    return listener


def _config(application: guard.App) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        log_config=None,
        log_level="error",  # what is no request is answered, and not reported
        access_log=False,
        lifespan="off",
        loop="asyncio",
        http="h11",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
