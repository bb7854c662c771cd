"""The app that listens first and ends last: it says how the server is, and passes everything else to the page."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval.errors import LookalikeError
from retrieval.ui import strings
from retrieval.ui.intake.routes import is_lasting

if TYPE_CHECKING:
    from fastapi import FastAPI

State = Literal["starting", "ready", "stopping"]
_RETRY = {"Retry-After": "5", "Cache-Control": "no-store"}


class Front:
    """`/health`, `/ready` and `/metrics`, and the page from the moment that it is there.

    While it stops, answers that have begun go on and can be fetched, and new work is refused with 503.
    """

    def __init__(self, metrics: Callable[[], bytes] | None = None) -> None:
        self.state: State = "starting"
        self.running = 0  # requests that are being answered, without those that only tell that a page is open
        self._metrics = metrics
        self._page: ASGIApp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    def show(self, page: FastAPI) -> None:
        """Start the page on the server's loop, and pass requests to it from now on; call it from another thread.

        Raises LookalikeError if the page cannot be started.
        """
        assert self._loop is not None, "the server has to be started first"
        up = threading.Event()
        asyncio.run_coroutine_threadsafe(self._begin(page, up), self._loop).result()
        up.wait()
        if self._task is not None and self._task.done() and (error := self._task.exception()):
            raise LookalikeError(f"the page could not be started: {error}") from error
        self.state = "ready"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's own start and stop."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await (self._own(scope["path"]) or self._answer)(scope, receive, send)

    def _own(self, path: str) -> Response | None:
        if path == "/health":
            return said(200, {"status": "ok"})
        if path == "/ready":
            return said(200 if self.state == "ready" else 503, {"status": self.state})
        if path == "/metrics" and self._metrics is not None:
            return Response(self._metrics(), media_type="text/plain; version=0.0.4")
        return None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._page is None or (self.state == "stopping" and scope["method"] not in {"GET", "HEAD"}):
            why = strings.STARTING if self._page is None else strings.STOPPING
            await said(503, {"error": why, "detail": why})(scope, receive, send)
            return
        counts = not is_lasting(scope["method"], scope["path"])
        self.running += counts
        try:
            await self._page(scope, receive, send)
        finally:
            self.running -= counts

    async def _begin(self, page: FastAPI, up: threading.Event) -> None:
        self._task = asyncio.create_task(self._live(page, up))

    async def _live(self, page: FastAPI, up: threading.Event) -> None:
        """Enter and leave the page's lifespan, both in this task, as its task groups need it."""
        assert self._over is not None
        try:
            async with page.router.lifespan_context(page):
                self._page = page
                up.set()
                await self._over.wait()
        finally:
            up.set()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.state = "stopping"
        self._over.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        await send({"type": "lifespan.shutdown.complete"})


def said(status: int, content: dict[str, str]) -> Response:
    """An answer in JSON; with 503, when to ask again."""
    return JSONResponse(content, status, _RETRY if status == 503 else {"Cache-Control": "no-store"})
