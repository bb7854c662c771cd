"""Connections to addresses that others name: public networks only, and no longer than a transfer may take.

What is connected to is the very IP address that was checked, so a name that changes its address in between (DNS
rebinding) or a redirect leads nowhere else. Proxies of the environment are not used: they would connect unchecked.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

_CONNECT = 10.0  # seconds
_SLICE = 1.0  # seconds that a stopped transfer goes on, at most
_CONNECTIONS = 64
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class RefusedError(Exception):
    """A host has no address in a public network."""


class Transfer(threading.local):
    """Until when the transfer of this thread may take, and what ends it early."""

    end: float = float("inf")
    """As `time.monotonic` counts."""
    stop: threading.Event | None = None

    def left(self, most: float | None) -> float:
        """Seconds that the next step may take; raises httpcore.ReadTimeout if none are left."""
        left = self.end - time.monotonic()
        if left <= 0 or (self.stop is not None and self.stop.is_set()):
            raise httpcore.ReadTimeout("the transfer took too long")
        return left if most is None else min(left, most)


transfer = Transfer()


def is_public(address: str) -> bool:
    """Whether an IP address lies in a public network: not private, loopback, link-local, reserved or multicast.

    >>> [is_public(ip) for ip in ("93.184.216.34", "127.0.0.1", "::ffff:10.0.0.1", "169.254.169.254", "fd00::1")]
    [True, False, False, False, False]
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local or ip.teredo:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


class _Backend(httpcore.SyncBackend):
    """Connects to public addresses only, unless private ones are allowed."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        error: Exception | None = None
        for address in self._permitted(host, port):
            try:
                left = transfer.left(timeout)
                return _Stream(super().connect_tcp(address, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
        raise error or httpcore.ConnectError(f"{host} has no address")

    def _permitted(self, host: str, port: int) -> list[str]:
        # The resolver also reads 2130706433 and 0x7f.1 as 127.0.0.1, so what is checked is what it answers.
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the host {host} is not known ({error})") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        permitted = [address for address in addresses if self._allow_private or is_public(address)]
        if addresses and not permitted:
            raise RefusedError(host)
        return permitted


class _Stream(httpcore.NetworkStream):
    """A connection on which every step counts against the time of the transfer."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            try:
                return self._inner.read(max_bytes, transfer.left(_SLICE))
            except httpcore.ReadTimeout:
                if time.monotonic() >= end:
                    raise
                transfer.left(None)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, transfer.left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, transfer.left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class Transport(httpx.BaseTransport):
    """An httpx transport over checked connections; raises the errors of httpcore, and RefusedError."""

    def __init__(self, allow_private: bool, only_https: bool = False) -> None:
        self._only_https = only_https
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=30.0,
            network_backend=_Backend(allow_private),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body of the response is read as a stream."""
        if self._only_https and request.url.scheme != "https":
            raise httpx.UnsupportedProtocol("only https:// addresses are fetched")
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        found = self._pool.handle_request(
            httpcore.Request(request.method, url, headers=request.headers.raw, extensions=request.extensions)
        )
        return httpx.Response(found.status, headers=found.headers, stream=_Body(found), extensions=found.extensions)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Any:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()
