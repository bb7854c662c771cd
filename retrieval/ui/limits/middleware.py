"""How fast one visitor may send requests, and how many at once, before anything is read of them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval.ui import strings
from retrieval.ui.intake.refusing import Body, RefusedError, refuse
from retrieval.ui.limits.pace import Pace
from retrieval.ui.limits.visitors import note_refusal, note_visitor
from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.watched.metrics import METRICS

_READING = ("GET", "HEAD", "OPTIONS")
_READ = 10.0  # times as many requests that only read: a page with its pictures is a hundred
_BURST = 5.0  # seconds' worth of requests that may come at once
_SLOWED = 5.0  # seconds that a request is held up at most before it is refused


class Limits:
    """Slows down a visitor who sends faster than the rate, and refuses what would have to wait for too long: 429.

    So a program that waits for each answer is never refused. Visitors who cannot be told apart share no limit here:
    that of the queue holds for all of them.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._most = app, settings.visitor_searches
        # On a Space and behind a public link all visitors come through the same few addresses.
        together = settings.share or "SPACE_ID" in os.environ
        self._knows = settings.trusted_proxies is not None or not together
        rate = settings.visitor_rate
        self._sending, self._reading = (Pace(each, max(1.0, _BURST * each)) for each in (rate, _READ * rate))
        self._told = Pace(2.0, 20.0)
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        visitor = note_visitor(scope) if scope["type"] == "http" and self._knows else None
        if visitor is None:
            await self._app(scope, receive, send)
            return
        reads = scope["method"] in _READING
        pace = self._reading if reads else self._sending
        wait = None if not reads and self._open[visitor] >= self._most else pace.take(visitor, _SLOWED)
        if wait is None:
            await self._refuse(visitor, pace, scope, receive, send)
            return
        if reads:
            await asyncio.sleep(wait)
            await self._app(scope, receive, send)
            return
        self._open[visitor] += 1
        try:
            await asyncio.sleep(wait)
            await self._app(scope, receive, send)
        finally:
            self._open[visitor] -= 1
            if not self._open[visitor]:
                del self._open[visitor]

    async def _refuse(self, visitor: str, pace: Pace, scope: Scope, receive: Receive, send: Send) -> None:
        METRICS.refused.labels("visitor_requests").inc()
        again = pace.retry_after(visitor)
        error = RefusedError(429, strings.TOO_FAST.format(seconds=again), {"Retry-After": str(again)})
        # Gradio's clients and the page show no sentence of a refused request; the answer to an event can have one.
        if get_route_path(scope).rstrip("/").endswith("/queue/join") and self._told.take(visitor) is not None:
            note_refusal(scope, error)
            await self._app(scope, receive, send)
        else:
            await refuse(error, scope, Body.of(scope, receive), send)
