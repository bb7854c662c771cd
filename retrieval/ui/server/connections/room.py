"""All connections of a server: who may stay, and who makes room for others."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

from retrieval.ui.server.connections.limits import ConnectionLimits, room_for

# Connections accepted before others are served again; and, in parts of all, few enough that a new one has sent its
# request before so many others come that it makes room for them.
_AT_ONCE, _PART = 64, 8
_FREED = 16  # connections closed if the process has no file left
_TURNS = 8  # of the loop, until all that were accepted are known to the room
_LINGERING = 64  # refused ones that are given time to read why
_UNSENT = 2**17  # bytes that the kernel keeps for a client that reads slowly, besides what is on its way
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
BUSY = "the server has no connection left: try again in a few seconds."
TOO_MANY = "there are too many connections from this address: close some, and try again."


class Guest(Protocol):
    """A connection, as the room sees it."""

    address: str

    def look(self, now: float) -> bool:
        """Close it if it has taken too long; returns whether it may make room for another one."""

    def drop(self) -> None:
        """Close it at once."""


class Room:
    """The connections of one server; everything but making it happens in its event loop."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.most = room_for(self.limits)
        self.each = max(1, int(self.most * self.limits.share))
        self.proxies: Iterable[str] = ()
        """Addresses and networks whose connections are those of many visitors; `*` for every address."""
        self.guests: dict[Guest, None] = {}
        self._of: Counter[str] = Counter()
        self._waiting: dict[Guest, None] = {}  # those without a request, which wait longest first
        self._waiting_of: dict[str, dict[Guest, None]] = {}
        self._stalled: list[Guest] = []
        self._open: dict[Guest, None] = {}  # streams that last as long as a page is open
        self._lingering: dict[Guest, None] = {}
        self._generous: dict[str, bool] = {}
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, guest: Guest) -> str | None:
        """Let a connection in, which waits for its first request; a sentence if there is no room for it."""
        address = guest.address
        self.guests[guest] = None
        self._of[address] += 1
        refusal = None
        if self._of[address] > self.each and not self._is_generous(address):
            refusal = None if self._drop_one(self._waiting_of.get(address, {})) else TOO_MANY
        if refusal is None and len(self.guests) > self.most:
            refusal = None if self.free(1) else BUSY
        self.waits(guest)
        if self._timer is None:
            self._again(asyncio.get_running_loop())
        return refusal

    def leave(self, guest: Guest) -> None:
        """Forget a connection that is closed."""
        if self.guests.pop(guest, self) is self:
            return
        self.works(guest)
        self._open.pop(guest, None)
        self._lingering.pop(guest, None)
        self._of[guest.address] -= 1
        if not self._of[guest.address]:
            del self._of[guest.address]

    def waits(self, guest: Guest) -> None:
        """Note that a connection has no request from now on."""
        if guest not in self.guests:
            return
        self._open.pop(guest, None)
        self._waiting[guest] = None
        self._waiting_of.setdefault(guest.address, {})[guest] = None

    def works(self, guest: Guest, *, lasting: bool = False) -> None:
        """Note that a connection has a request, or is refused; `lasting` is one that only shows that a page is open."""
        if lasting and guest in self.guests:
            self._open[guest] = None
        if self._waiting.pop(guest, self) is self:
            return
        same = self._waiting_of[guest.address]
        del same[guest]
        if not same:
            del self._waiting_of[guest.address]

    def lingers(self, guest: Guest) -> None:
        """Note that a connection was refused; if many were, the oldest of them have had time enough."""
        self.works(guest)
        self._lingering[guest] = None
        if len(self._lingering) > _LINGERING:
            self._drop_one(self._lingering)

    def free(self, count: int) -> int:
        """Close so many connections: refused ones, those that wait longest, those that stall, and last those that only
        show that a page is open, of whoever has most; returns how many."""
        freed = 0
        while freed < count and (
            self._drop_one(self._lingering)
            or self._drop_one(self._waiting)
            or self._drop_stalled()
            or self._drop_one(self._open_of_most())
        ):
            freed += 1
        return freed

    def _drop_one(self, among: dict[Guest, None]) -> bool:
        guest = next(iter(among), None)
        if guest is None:
            return False
        self.leave(guest)
        guest.drop()
        return True

    def _open_of_most(self) -> dict[Guest, None]:
        most = max(self._open, key=lambda guest: self._of[guest.address], default=None)  # the first of equals
        return {} if most is None else {most: None}

    def _drop_stalled(self) -> bool:
        while self._stalled:
            guest = self._stalled.pop()
            if guest in self.guests:
                self.leave(guest)
                guest.drop()
                return True
        return False

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self.limits.tick, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._stalled = [guest for guest in list(self.guests) if guest.look(now)]
        self._timer = None
        if self.guests:
            self._again(loop)

    def _is_generous(self, address: str) -> bool:
        if address not in self._generous:
            if len(self._generous) > 10 * self.most:
                self._generous.clear()
            self._generous[address] = _stands_for_many(address, self.proxies)
        return self._generous[address]


class Listener(socket.socket):
    """A listening socket that leaves room for what goes on already, also when files run out."""

    def __init__(self, listener: socket.socket, room: Room) -> None:
        super().__init__(fileno=listener.detach())
        self._room, self._turn, self._in_vain, self._failed = room, 0, 0, False
        self._at_once = max(1, min(_AT_ONCE, room.most // _PART))
        for name, value in (("TCP_USER_TIMEOUT", round(2000 * room.limits.grace)), ("TCP_NOTSENT_LOWAT", _UNSENT)):
            with suppress(OSError, AttributeError):  # connections inherit it, where the system has it
                self.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. asyncio asks again until this raises BlockingIOError."""
        self._turn += 1
        if self._failed or self._turn > self._at_once:
            self._turn, self._failed = 0, False
            raise BlockingIOError
        try:
            accepted = super().accept()
        except BlockingIOError:
            self._turn = 0
            raise
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            self._in_vain += 1
            if self._room.free(_FREED) or self._in_vain < _TURNS:
                self._turn = 0
                raise BlockingIOError from error  # files are closed in one of the loop's next turns
            self._failed = True  # asyncio waits a second, but would ask as often as it accepts at once before that
            raise
        self._in_vain = 0
        return accepted


def _stands_for_many(address: str, proxies: Iterable[str]) -> bool:
    """Whether many visitors may come from an address: this machine's own, or that of a proxy."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True  # not an IP socket
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback:
        return True
    for proxy in proxies:
        with suppress(ValueError):
            if proxy == "*" or found in ipaddress.ip_network(proxy, strict=False):
                return True
    return False
