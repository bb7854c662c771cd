"""HTTP/1.1 to a worker on this machine: connections that are kept, and bodies that pass as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import h11

Headers = Iterable[tuple[bytes, bytes]]
Event = h11.Response | h11.Data | h11.EndOfMessage

_READ = 2**16  # bytes
_MOST_IDLE = 64  # connections of a worker that wait for the next request
_LONGEST_IDLE = 30.0  # seconds, after which one is not used again: the worker could be about to close it


class BrokenError(Exception):
    """The worker has closed a connection before the end of an answer, or cannot be reached."""


class Connection:
    """One connection, which carries one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.since = 0.0  # when it was last used
        self._reader, self._writer = reader, writer
        self._state = h11.Connection(h11.CLIENT)

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._state.states == {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE} and not (
            self._writer.is_closing() or self._reader.at_eof()
        )

    async def ask(self, method: bytes, target: bytes, headers: Headers, body: bytes | None) -> None:
        """Send a request, whole unless `body` is None. Raises BrokenError."""
        events: list[h11.Event] = [h11.Request(method=method, target=target, headers=list(headers))]
        if body is not None:
            events += [*([h11.Data(data=body)] if body else []), h11.EndOfMessage()]
        await self._send(*events)

    async def add(self, part: bytes, last: bool) -> None:
        """Send the next part of the body. Raises BrokenError."""
        await self._send(*([h11.Data(data=part)] if part else []), *([h11.EndOfMessage()] if last else []))

    async def next_event(self) -> Event:
        """The beginning, a part, or the end of the answer. Raises BrokenError."""
        while True:
            event = self._next()
            if event is not None:
                return event
            try:
                self._state.receive_data(await self._reader.read(_READ))
            except (OSError, h11.RemoteProtocolError) as error:
                raise BrokenError from error

    def _next(self) -> Event | None:
        """The next event in what was received; None if more is needed."""
        try:
            while True:
                event = self._state.next_event()
                if isinstance(event, h11.Response | h11.Data | h11.EndOfMessage):
                    return event
                if event is h11.NEED_DATA:
                    return None
                if not isinstance(event, h11.InformationalResponse):
                    raise BrokenError
        except h11.RemoteProtocolError as error:
            raise BrokenError from error

    def renew(self) -> None:
        """Be ready for the next request, if both sides are."""
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()

    def close(self) -> None:
        """Cut the connection: for the worker, the visitor has left."""
        self._writer.transport.abort()

    async def _send(self, *events: h11.Event) -> None:
        try:
            self._writer.write(b"".join(self._state.send(event) or b"" for event in events))
            await self._writer.drain()
        except (OSError, h11.LocalProtocolError) as error:
            raise BrokenError from error


class Connections:
    """The connections to one worker."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def take(self) -> Connection:
        """A connection for one request. Raises BrokenError if the worker cannot be reached."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and time.monotonic() - connection.since < _LONGEST_IDLE:
                return connection
            connection.close()
        try:
            return Connection(*await asyncio.open_connection("127.0.0.1", self._port))
        except OSError as error:
            raise BrokenError from error

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it."""
        connection.renew()
        connection.since = time.monotonic()
        if connection.usable and len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close those that wait."""
        while self._idle:
            self._idle.pop().close()
