"""Put a server behind the limits of connections."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import uvicorn

from retrieval.ui.server.connections.limits import ConnectionLimits
from retrieval.ui.server.connections.log import keep_log_short
from retrieval.ui.server.connections.protocol import Guarded
from retrieval.ui.server.connections.room import Listener, Room


def guarded(listener: socket.socket, config: uvicorn.Config, limits: ConnectionLimits) -> socket.socket:
    """The socket to listen on in place of `listener`, for a server with this config, which is changed too."""
    keep_log_short()
    room = Room(limits)
    trusted = config.forwarded_allow_ips or ()
    room.proxies = [each.strip() for each in trusted.split(",")] if isinstance(trusted, str) else trusted
    protocol: Any = partial(Guarded, room=room)
    config.http, config.timeout_keep_alive = protocol, room.limits.idle  # type: ignore[assignment]
    return Listener(listener, room)
