"""The app that listens: it passes each request to the worker that knows what the request is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from retrieval.ui import strings
from retrieval.ui.intake.routes import is_lasting
from retrieval.ui.server.asgi import wrapped
from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.several.behind import origin_of
from retrieval.ui.server.several.crew import Crew, Worker
from retrieval.ui.server.several.passing.counts import Counts
from retrieval.ui.server.several.passing.ids import (
    Named,
    Places,
    has_names,
    in_address,
    in_answer,
    in_body,
    starts_event,
)
from retrieval.ui.server.several.passing.lost import STREAM, end_of_stream
from retrieval.ui.server.several.passing.relay import Relay, asked, read_some
from retrieval.ui.server.several.passing.upstream import BrokenError
from retrieval.ui.server.watched.front import said
from retrieval.ui.server.watched.metrics import METRICS
from retrieval.ui.server.watched.requests import QUIET

_OWN = {"/health", "/ready", "/metrics"}
_TRIES, _PAUSE = 3, 0.05  # seconds: by then it is known that a worker has ended
_SAFE = {"GET", "HEAD", "OPTIONS"}


class Router:
    """Passes requests to workers, new sessions to the one that has least to do, and answers what concerns all."""

    def __init__(self, crew: Crew, settings: ServerSettings) -> None:
        self.complete = False  # whether all workers have been ready
        self._crew = crew
        self._places: Places[Worker] = Places()
        self._counts = Counts()
        # Who may come in, and how fast, is decided here, before anything of a body is read.
        self._inside = wrapped(self._answer, settings)
        crew.on_end = lambda worker: self._counts.end(worker.counted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's own start and stop."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "http":
            await self._inside(scope, receive, send)

    # Passing on

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        named, body, whole = in_address(path, scope["query_string"].decode("latin-1")), b"", False
        if has_names(scope["method"], path):
            try:
                body, whole = await read_some(receive, dict(scope["headers"]))
            except ConnectionError:
                return
            named = in_body(body) if whole else named
        for _ in range(_TRIES):
            place = self._places.find(named)
            if place and not place.worker.ready and await self._ended(named, path, scope["method"], send):
                return
            if (worker := self._worker_for(named, starts_event(scope["method"], path))) is None:
                break
            is_new = self._keep(named, worker)
            relay = Relay(receive, send, self._learning(scope["method"], path, named, worker))
            try:
                with worker.busy_with(not is_lasting(scope["method"], path)):
                    request = asked(scope, origin_of(self._crew.secret, scope), body, whole)
                    await relay.run(worker.connections, request)
                if is_new and relay.status >= 400:
                    self._places.forget(named)
                scope[QUIET] = relay.whole or relay.left  # the worker notes it
                return
            except BrokenError:
                await asyncio.sleep(_PAUSE)
            if relay.begun:
                if relay.stream:
                    await send({"type": "http.response.body", "body": self._farewell(named, path)})
                return  # cut short: nothing that was begun can be taken back
            if relay.sent and scope["method"] not in _SAFE:
                await self._say(strings.LOST, scope, receive, send)
                return
        await self._say(strings.STOPPING if self._crew.stopping else strings.STARTING, scope, receive, send)

    def _worker_for(self, named: Named, work: bool) -> Worker | None:
        """The worker that keeps what is named, or else the one that has least to do; None if there is none."""
        place = self._places.find(named)
        if place and place.worker.ready:
            return place.worker
        return self._crew.choose(work or named.session is not None)

    def _keep(self, named: Named, worker: Worker) -> bool:
        """Remember the worker of a session or an upload; whether that was not known. Events are known by what their
        worker answers."""
        is_new = self._places.find(named) is None
        if named.session or named.upload:
            self._places.keep(named, worker)
        return is_new

    def _learning(self, method: str, path: str, named: Named, worker: Worker) -> Callable[[bytes], None] | None:
        """What remembers the event that an answer names."""

        def learn(part: bytes) -> None:
            if event := in_answer(part):
                self._places.begin(event, named.session, worker)

        return learn if starts_event(method, path) else None

    async def _ended(self, named: Named, path: str, method: str, send: Send) -> bool:
        """The worker that kept something has ended: whoever waits for its answer is told so; whether one was."""
        if method != "GET" or named.upload or is_lasting(method, path):
            self._places.forget(named)
            return False
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        await send({"type": "http.response.body", "body": self._farewell(named, path)})
        return True

    def _farewell(self, named: Named, path: str) -> bytes:
        place = self._places.find(named)
        self._places.forget(named)
        return end_of_stream(path, place.events if place else ())

    # Its own answers

    async def _say(self, sentence: str, scope: Scope, receive: Receive, send: Send) -> None:
        # In place of the sentence of a 503, the page shows one of Gradio's own.
        status = 502 if sentence == strings.LOST else 503
        await said(status, {"error": sentence, "detail": sentence})(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        ready = self.complete and not self._crew.stopping and bool(self._crew.ready)
        if scope["path"] not in _OWN:
            await self._pass_on(scope, receive, send)
            return
        if scope["path"] == "/health":
            response = said(200, {"status": "ok"})
        elif scope["path"] == "/ready":
            state = "ready" if ready else "stopping" if self._crew.stopping else "starting"
            response = said(200 if ready else 503, {"status": state})
        else:
            response = Response(await self._metrics(scope), media_type="text/plain; version=0.0.4")
        await response(scope, receive, send)

    async def _metrics(self, scope: Scope) -> bytes:
        """The counts of all workers, and of this process."""
        workers = self._crew.ready
        await asyncio.gather(*(self._ask_counts(worker, scope) for worker in workers))
        return self._counts.text([METRICS.text().decode(), *(worker.counted for worker in workers)], len(workers))

    async def _ask_counts(self, worker: Worker, scope: Scope) -> None:
        parts: list[bytes] = []
        given = {**scope, "method": "GET", "raw_path": b"/metrics", "query_string": b"", "client": None}
        given["headers"] = [each for each in scope["headers"] if each[0] != b"accept-encoding"]

        async def take(message: Message) -> None:
            parts.append(message.get("body", b""))

        async def nothing() -> Message:
            return await asyncio.Future()

        try:
            request = asked(given, origin_of(self._crew.secret, given, quiet=True))
            await (relay := Relay(nothing, take)).run(worker.connections, request)
        except BrokenError:
            return
        if relay.status == 200:
            worker.counted = b"".join(parts).decode()
