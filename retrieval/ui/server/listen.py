"""A socket that listens where the settings say, or one sentence why none can."""

from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import suppress
from typing import Any

import uvicorn

from retrieval.errors import LookalikeError
from retrieval.ui.server.settings import ServerSettings

_FIRST_PORT, _PORTS = 7860, 100  # Gradio's own
BACKLOG = 2048

UVICORN: dict[str, Any] = {
    "lifespan": "on",
    "ws": "none",
    "log_level": "warning",
    "log_config": None,  # uvicorn's own needs a standard output
    "timeout_graceful_shutdown": 1,  # seconds for what is still answered when `finish` has waited long enough
}
"""How uvicorn is run, besides what is decided for each server."""


def listen(settings: ServerSettings) -> socket.socket:
    """A socket that listens on the address of the settings.

    Raises LookalikeError, which names the next free port if the port is in use.
    """
    host = (settings.host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1").strip("[]")
    port = _named_port() if settings.port is None else settings.port
    family, address = _resolved(host)
    if port is not None:
        return _bound(host, family, address, port)
    last = _FIRST_PORT + _PORTS - 1
    if (found := _first_free(family, address, _FIRST_PORT, last)) is None:
        # All in use, or an address that this machine does not have: listening on the first one says which.
        return _bound(host, family, address, _FIRST_PORT)
    return found


def address_of(listener: socket.socket) -> str:
    """The address of a listening socket for this machine's own clients: `http://127.0.0.1:7860`, without a slash."""
    host, port = listener.getsockname()[:2]
    # An unspecified address is every address of the machine, and none that can be connected to everywhere.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def wait_until_up(server: uvicorn.Server, thread: threading.Thread, listener: socket.socket) -> None:
    """Wait until a server that runs in a thread answers. Raises LookalikeError if it does not come up."""
    while not server.started:
        thread.join(0.005)
        if not thread.is_alive():
            listener.close()
            raise LookalikeError("the server could not be started: the reason is above.")


def _named_port() -> int | None:
    """GRADIO_SERVER_PORT, as on a Space; None if it is not set."""
    text = os.environ.get("GRADIO_SERVER_PORT", "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) > 65535:
        raise LookalikeError(f"GRADIO_SERVER_PORT must be a port number from 0 to 65535, not {text!r}.")
    return int(text)


def _resolved(host: str) -> tuple[socket.AddressFamily, str]:
    """The IP address of a host; of one with several, an IPv4 address."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise LookalikeError(
            f"cannot listen on {host}: no such host; --host takes an address or a name of this machine."
        ) from error
    family, _, _, _, place = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, str(place[0])


def _first_free(family: socket.AddressFamily, address: str, first: int, last: int) -> socket.socket | None:
    for port in range(first, last + 1):
        with suppress(OSError):
            return _open(family, address, port)
    return None


def _open(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    both = address == "::" and socket.has_dualstack_ipv6()
    return at_once(socket.create_server((address, port), family=family, backlog=BACKLOG, dualstack_ipv6=both))


def at_once(listener: socket.socket) -> socket.socket:
    """The listener, whose connections send what is written at once.

    asyncio sees to that only for a socket that was made with the number of TCP. Without it, each answer on a connection
    that is kept waits 40 ms until the client has acknowledged its header.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _bound(host: str, family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    try:
        return _open(family, address, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"port {port} is in use{_free_one(family, address, port)}: choose another --port, or omit it to use "
            raise LookalikeError(f"{why}the first free one from {_FIRST_PORT}.") from error
        raise LookalikeError(
            f"cannot listen on {host}, port {port}: {_reason(error)}; choose another --host or --port."
        ) from error


def _free_one(family: socket.AddressFamily, address: str, taken: int) -> str:
    found = _first_free(family, address, taken + 1, min(taken + _PORTS, 65535))
    if found is None:
        return ""
    with found:
        return f", {found.getsockname()[1]} is free"


def _reason(error: OSError) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "not permitted (ports below 1024 are for the administrator)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return error.strerror or str(error)
