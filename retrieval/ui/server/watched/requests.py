"""One line and one count a request. No address, path, file name, query, header or body of anybody is kept."""

from __future__ import annotations

import json
import queue
import re
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.watched.metrics import METRICS

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_ID = b"x-request-id"
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
QUIET = "lookalike.quiet"
"""In a scope: this request is neither counted nor logged here, as another one, or another process, does that."""

_OWN = {"/health", "/ready", "/metrics"}
_LEFT = 499  # the client went before there was an answer; nginx's number for it
_MOST_LINES = 10_000  # that wait to be written, if nobody reads them fast enough; then lines are dropped


class Requests:
    """The outermost middleware: gives each request its id, counts it, and writes its line."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._write = _writer(settings.log_format) if settings.log_format else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer with its id in `X-Request-ID`."""
        if scope["type"] != "http" or scope.get(QUIET):
            await self._app(scope, receive, send)
            return
        seen = _Seen(scope, send)
        scope["headers"] = [*(each for each in scope["headers"] if each[0] != _ID), (_ID, seen.id.encode())]
        try:
            await self._app(scope, receive, seen.send)
        except BaseException as error:
            if seen.status == _LEFT and isinstance(error, Exception):
                seen.status = 500
            raise
        finally:
            self._note(scope, seen)

    def _note(self, scope: Scope, seen: _Seen) -> None:
        if scope.get(QUIET):  # by now it is known that another process has noted it
            return
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route, seconds = _template(scope), time.perf_counter() - seen.start
        METRICS.requests.labels(method, route, str(seen.status)).inc()
        METRICS.request_seconds.labels(route).observe(seconds)
        if self._write:
            self._write(
                {
                    "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "id": seen.id,
                    "method": method,
                    "route": route,
                    "status": seen.status,
                    "seconds": round(seconds, 4),
                    "bytes": seen.bytes,
                }
            )


class _Seen:
    """What is seen of the answer to one request."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.start, self.status, self.bytes = time.perf_counter(), _LEFT, 0
        given = next((value for name, value in scope["headers"] if name == _ID), b"")
        self.id = given.decode() if _WELL_FORMED.fullmatch(given) else uuid4().hex
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() != _ID]
            message = {**message, "headers": [*kept, (_ID, self.id.encode())]}
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        await self._send(message)


def _template(scope: Scope) -> str:
    """The template of the route that matched: there are few of them, however many paths are asked for."""
    if scope["path"] in _OWN:
        return str(scope["path"])
    return str(getattr(scope.get("route"), "path", "other"))


def _writer(log_format: str) -> Any:
    """A function that writes a line to standard error from a thread: a reader that is slow holds up no answer."""
    lines: queue.Queue[dict[str, Any]] = queue.Queue(_MOST_LINES)

    def write() -> None:
        while True:
            line = lines.get()
            text = json.dumps(line) if log_format == "json" else " ".join(map(str, line.values()))
            try:
                print(text, file=sys.stderr, flush=True)
            except (OSError, ValueError):
                continue

    def put(line: dict[str, Any]) -> None:
        try:
            lines.put_nowait(line)
        except queue.Full:
            return

    threading.Thread(target=write, name="log", daemon=True).start()
    return put
