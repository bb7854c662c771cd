"""Passing one request to a worker, and its answer back, both as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import h11
from starlette.types import Receive, Scope, Send

from retrieval.ui.intake.json_body import MOST
from retrieval.ui.server.several.behind import HEADER
from retrieval.ui.server.several.passing.upstream import BrokenError, Connection, Connections

# Headers of one connection, and those that this server sets itself.
_REQUEST_ONLY = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"expect"}
_FRAMING = {b"content-length", b"transfer-encoding"}
_ANSWER_ONLY = {b"connection", b"keep-alive", b"transfer-encoding", b"date", b"server"}
_LOOKED_AT = 4096  # bytes of an answer that may name an event


@dataclass
class Asked:
    """A request to pass on."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    begun: bytes = b""
    """The part of the body that was read already."""
    whole: bool = False
    """Whether that is all of it."""


def asked(scope: Scope, origin: bytes, begun: bytes = b"", whole: bool = False) -> Asked:
    """The request of a scope; `origin` tells the worker whose it is."""
    query = scope.get("query_string", b"")
    target = scope["raw_path"] + (b"?" + query if query else b"")
    given = dict(scope["headers"])
    dropped = _REQUEST_ONLY | _FRAMING | {HEADER}
    dropped |= {name.strip().lower() for name in given.get(b"connection", b"").split(b",")}
    headers = [each for each in scope["headers"] if each[0] not in dropped or each[0] == b"host"]
    if b"host" not in given:  # HTTP/1.0
        headers.append((b"host", b"localhost"))
    if whole:
        headers += [(b"content-length", str(len(begun)).encode())] if begun or scope["method"] == "POST" else []
    elif b"transfer-encoding" in given:
        headers.append((b"transfer-encoding", b"chunked"))
    elif b"content-length" in given:
        headers.append((b"content-length", given[b"content-length"]))
    else:
        whole = True
    return Asked(scope["method"].encode(), target, [*headers, (HEADER, origin)], begun, whole)


async def read_some(receive: Receive, headers: dict[bytes, bytes]) -> tuple[bytes, bool]:
    """The body, and whether it is whole: one that is too large for JSON is not read to its end.

    Raises ConnectionError if the visitor leaves.
    """
    stated, body = headers.get(b"content-length", b"0"), bytearray()
    if len(stated) > 9 or not stated.isdigit() or int(stated) > MOST:
        return b"", False
    while len(body) <= MOST:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body), True
    return bytes(body), False


class Relay:
    """One request on its way: whether it was `sent`, its answer has `begun` and is `whole`, or a `stream` of events."""

    def __init__(self, receive: Receive, send: Send, learn: Callable[[bytes], None] | None = None) -> None:
        """`learn` is told the beginning of the answer before it is passed on."""
        self.sent = self.begun = self.stream = self.left = self.whole = False
        self.status = 0
        self._receive, self._send, self._learn = receive, send, learn

    async def run(self, connections: Connections, request: Asked) -> None:
        """Pass the request and its answer on. Raises BrokenError if the worker breaks off, or cannot be reached."""
        connection = await connections.take()
        self.sent, whole = True, request.whole
        pump: asyncio.Task[None] | None = None
        try:
            await connection.ask(request.method, request.target, request.headers, request.begun if whole else None)
            pump = asyncio.create_task(self._pump(connection, request))
            await self._answer(connection)
        except BrokenError:
            if not self.left:
                raise
        finally:
            if pump is not None:
                pump.cancel()
            connections.give_back(connection)

    async def _pump(self, connection: Connection, request: Asked) -> None:
        """Pass on the rest of the body, then wait until the visitor leaves."""
        with suppress(BrokenError):  # the worker has its reason, and says it in the answer
            more = not request.whole
            if more and request.begun:
                await connection.add(request.begun, last=False)
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    break
                if more:
                    more = message.get("more_body", False)
                    await connection.add(message.get("body", b""), last=not more)
            self.left = True
            connection.close()

    async def _answer(self, connection: Connection) -> None:
        while True:
            event = await connection.next_event()
            if isinstance(event, h11.EndOfMessage):
                self.whole = True
                await self._send({"type": "http.response.body", "body": b""})
                return
            if isinstance(event, h11.Response):
                await self._start(event)
                continue
            part = bytes(event.data)
            if self._learn is not None and len(part) <= _LOOKED_AT:
                self._learn(part)
            await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def _start(self, event: h11.Response) -> None:
        headers = [(name, value) for name, value in event.headers if name not in _ANSWER_ONLY]
        given = dict(event.headers)
        if given.get(b"connection", b"").lower() == b"close":
            headers.append((b"connection", b"close"))
        self.begun, self.status = True, event.status_code
        self.stream = given.get(b"content-type", b"").startswith(b"text/event-stream")
        await self._send({"type": "http.response.start", "status": event.status_code, "headers": headers})
