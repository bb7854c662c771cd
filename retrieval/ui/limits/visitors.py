"""Who a visitor is: an address, as far as it can be told apart from that of a proxy."""

from __future__ import annotations

import ipaddress
from typing import Any

from starlette.types import Scope

from retrieval.ui.intake.refusing import RefusedError

_KEY, _REFUSED = "lookalike.visitor", "lookalike.refused"
_FORWARDED = {b"x-forwarded-for", b"forwarded", b"x-real-ip"}


def note_visitor(scope: Scope) -> str | None:
    """Find out who sends a request, by the address that the server states, and keep it for `visitor_of`."""
    scope[_KEY] = visitor = _visitor(scope)
    return visitor


def visitor_of(scope: Scope) -> str | None:
    """The visitor who sends a request; None for one who cannot be told from others.

    That is whoever comes from this machine, such as through a proxy on it that names nobody; whoever comes through a
    proxy in a private network that is not trusted; and everybody if `Limits` says so. Of IPv6, one visitor is a network
    of 64 bits, of which everybody gets at least one.
    """
    return scope.get(_KEY)


def _visitor(scope: Scope) -> str | None:
    client, server = _ip(scope.get("client")), _ip(scope.get("server"))
    if client is None or client.is_loopback or client == server:
        return None
    named = [value.decode("latin-1") for name, value in scope["headers"] if name in _FORWARDED]
    # The server puts the visitor that a trusted proxy names in place of the proxy.
    if named and not client.is_global and str(scope["client"][0]) not in ",".join(named):
        return None  # limits for a proxy would be limits for all who come through it
    if isinstance(client, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(client), 128)).supernet(new_prefix=64))
    return str(client)


def _ip(place: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of one end of a connection: (host, port)."""
    try:
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
    except (TypeError, ValueError, IndexError):  # a Unix socket, or what a proxy calls "unknown"
        return None
    return getattr(address, "ipv4_mapped", None) or address


def note_refusal(scope: Scope, error: RefusedError) -> None:
    """Let the queue refuse the event of a request."""
    scope[_REFUSED] = error


def refusal_of(scope: Scope) -> RefusedError | None:
    """Why the event of a request has been refused already; None if it has not."""
    return scope.get(_REFUSED)
