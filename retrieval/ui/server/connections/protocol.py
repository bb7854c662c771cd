"""One connection: uvicorn's protocol with h11, which gives up on clients that take too long.

h11 is written in Python and slower than httptools, but strict about what a request is, and one parser for all systems.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from retrieval.ui.intake.routes import is_lasting
from retrieval.ui.server.connections.rates import Rate, acknowledged
from retrieval.ui.server.connections.requests import Requests
from retrieval.ui.server.connections.room import Room

_PIECE = 2**14  # bytes given to the parser at once, whose limit of headers counts only what it could not use
_DISCARDED = 2**23  # bytes read of a client that was refused
_TOO_SLOW_HEAD = "the request line and headers took more than {seconds:g} seconds."
_TOO_SLOW_BODY = "the body came in too slowly: at least {rate:g} bytes a second are needed."


class Guarded(H11Protocol):
    """A connection with limits. The room looks at it from time to time."""

    conn: Requests

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        room: Room,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._room, self._limits = room, room.limits
        self.conn = Requests(room.limits)
        self.address = ""
        self._received = 0
        self._head_since: float | None = None
        self._answered = 0.0
        self._until: float | None = None  # when a refused client is cut off
        self._body = Rate(room.limits.rate, room.limits.grace)
        self._answer = Rate(room.limits.rate, room.limits.grace)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the room whether the connection may stay."""
        super().connection_made(transport)
        self.address = str(self.client[0]) if self.client else ""
        self._answered = self.loop.time()
        if refusal := self._room.enter(self):
            self._refuse(503, refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._room.leave(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came, piece by piece."""
        self._received += len(data)
        if self._until is not None:
            if self._received > _DISCARDED:
                self.drop()
            return
        if self._head_since is None and self.conn.their_state is h11.IDLE:
            self._head_since = self.loop.time()
        for start in range(0, len(data), _PIECE):
            super().data_received(data[start : start + _PIECE])
            if self._until is not None or self.transport.is_closing():
                return
        self._note()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._answered, self._head_since = self.loop.time(), None
        if self.conn.their_state is h11.DONE and self.conn.trailing_data[0]:
            self._head_since = self._answered  # of the next request, which came before this answer
        self._room.waits(self)
        super().on_response_complete()
        self._note()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with a request."""
        self._refuse(*self.conn.problem)

    def shutdown(self) -> None:
        """Called when the server stops: nothing may raise here."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:
            self.drop()

    def drop(self) -> None:
        """Close the connection at once."""
        self._leave_request()
        self.transport.abort()

    def look(self, now: float) -> bool:
        """Close the connection if it has taken too long; returns whether it may make room for another one."""
        if self._until is not None and now > self._until:
            self.drop()
            return False
        unread = self._is_unread(now)
        if self._until is not None or self.transport.is_closing():
            return False
        theirs, first = self.conn.their_state, self.cycle is None
        self._body_expected(theirs)
        if theirs is h11.IDLE:
            since = self._head_since or (self._answered if first else now)
            if now - since > self._limits.head:
                self._refuse(408, _TOO_SLOW_HEAD.format(seconds=self._limits.head), silent=self._head_since is None)
        elif theirs is h11.SEND_BODY and self.cycle.response_complete:
            if now - self._answered > self._limits.unread:
                self.drop()
        elif self._body.too_slow(now, self._received):
            self._refuse(408, _TOO_SLOW_BODY.format(rate=self._limits.rate))
        return unread or self._body.behind(now, self._received)

    def _body_expected(self, theirs: Any) -> None:
        """Expect nothing while the client has nothing to send, or may not."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if theirs is not h11.SEND_BODY or not busy or self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._body.reset()

    def _is_unread(self, now: float) -> bool:
        """Whether the client hardly reads its answer; if it has not for long, the connection is cut."""
        pending = self.transport.get_write_buffer_size()
        read = acknowledged(self.transport.get_extra_info("socket")) if pending else None
        if read is None:
            self._answer.reset()
            return False
        if self._answer.too_slow(now, read):
            self.drop()
        return self._answer.behind(now, read)

    def _note(self) -> None:
        """Tell the room whether there is a request."""
        if self.conn.their_state is not h11.IDLE:
            self._head_since = None
            if self.cycle is not None and not self.cycle.response_complete:
                self._room.works(self, lasting=self._is_lasting())

    def _is_lasting(self) -> bool:
        return is_lasting(self.scope["method"], self.scope["path"])

    def _leave_request(self) -> None:
        """Tell the app, if it answers a request, that the client is gone: its answer is of no use."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.flow.resume_writing()

    def _refuse(self, status: int, sentence: str, *, silent: bool = False) -> None:
        """Say why, if no answer has begun, and close; a client that is still sending has time to see it."""
        self._unset_keepalive_if_required()
        if silent or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.drop()
            return
        self._leave_request()
        self._until, self._received = self.loop.time() + self._limits.linger, 0
        self.transport.write(_answer(status, sentence))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._room.lingers(self)


def _answer(status: int, sentence: str) -> bytes:
    body = json.dumps({"detail": sentence}).encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        *(["Retry-After: 5"] if status == 503 else []),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
