"""The host names that the server answers to.

A page of another site can point its own name at the address of this server ("DNS rebinding"), and then the browser lets
it read every answer. Such a request has that name in its Host header, so names that are not this server's are refused.
See https://datatracker.ietf.org/doc/html/rfc9110#section-7.2 for the header.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval.errors import short
from retrieval.ui.intake.refusing import Body, RefusedError, refuse

_SHARED = ".gradio.live"  # where Gradio's servers offer a shared app


class Hosts:
    """Refuses requests to a host that this server is not known by, with status 421.

    IP addresses, `localhost`, names without a dot and this machine's own name are always accepted: the name of another
    site is none of these. On a Space every name is accepted, since nobody reaches it but through the Hub.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str], shared: bool = False) -> None:
        self._app = app
        own = socket.gethostname().lower()
        self._names = {own, f"{own}.local", *(name.lower().rstrip(".") for name in allowed)}
        self._any = "*" in self._names or "SPACE_ID" in os.environ
        self._shared = shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not self._any:
            for host in [value for name, value in scope["headers"] if name == b"host"]:
                if not self._accepts(host.decode("latin-1")):
                    await refuse(_refused(host), scope, Body.of(scope, receive), send)
                    return
        await self._app(scope, receive, send)

    def _accepts(self, host: str) -> bool:
        name = name_in(host)
        return (
            name in self._names
            or is_ip(name)
            or (name.isascii() and "." not in name and name.replace("-", "").replace("_", "").isalnum())
            or name.endswith(".localhost")
            or (self._shared and name.endswith(_SHARED))
        )


def name_in(host: str) -> str:
    """The name or IP address in a Host header, in lower case, without its port.

    >>> [name_in(host) for host in ("Search.Example.org:443", "[::1]:7860", "10.0.0.5", "")]
    ['search.example.org', '::1', '10.0.0.5', '']
    """
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if name.count(":") == 1 else name.rstrip(".")


def is_ip(name: str) -> bool:
    """Whether this is an IP address, of version 4 or 6."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refused(host: bytes) -> RefusedError:
    name = short(name_in(host.decode("latin-1")), 80)
    return RefusedError(
        421, f"this server is not known as {name!r}: its owner can allow that with --allowed-host NAME."
    )
