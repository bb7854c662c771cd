"""The parser of requests, which refuses what none of our clients sends and others misuse."""

from __future__ import annotations

from typing import Any

import h11

from retrieval.ui.server.connections.limits import ConnectionLimits

_FREE_CHUNKS, _LEAST_CHUNK = 256, 512  # each chunk costs time, however small it is
_REFUSED_METHODS = {b"CONNECT", b"TRACE"}
NOT_HTTP = "this is not a valid HTTP/1.1 request."


class Requests(h11.Connection):
    """The server's side of a connection; `problem` is the status and the sentence for a request that it refused."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__(h11.SERVER, limits.head_bytes)
        self._limits = limits
        self._chunks = self._body = 0
        self.problem = (400, NOT_HTTP)

    def next_event(self) -> Any:
        """The next event; raises h11.RemoteProtocolError, and sets `problem`, for a request that is refused."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                self.problem = (431, f"the request line and headers may have {self._limits.head_bytes // 1024} KiB.")
            raise
        if isinstance(event, h11.Request):
            self._chunks = self._body = 0
            return self._checked(event)
        if isinstance(event, h11.Data):
            self._count(event)
        return event

    def _checked(self, request: h11.Request) -> h11.Request:
        names = {name for name, _ in request.headers}
        if len(request.headers) > self._limits.headers:
            raise self._refused(431, f"a request may have {self._limits.headers} headers.")
        if request.http_version not in (b"1.0", b"1.1"):
            raise self._refused(400, "only HTTP/1.0 and HTTP/1.1 are spoken here.")
        if request.method in _REFUSED_METHODS:
            raise self._refused(405, f"{request.method.decode()} is not allowed.")
        if {b"content-length", b"transfer-encoding"} <= names:
            raise self._refused(400, "a request has either Content-Length or Transfer-Encoding, not both.")
        if b"transfer-encoding" in names and request.http_version == b"1.0":
            raise self._refused(400, "HTTP/1.0 has no Transfer-Encoding.")
        return request if request.target.startswith(b"/") else self._in_origin_form(request)

    def _in_origin_form(self, request: h11.Request) -> h11.Request:
        """`GET http://host/path`, as it is sent to a proxy, means `GET /path` of that host."""
        scheme, _, rest = request.target.partition(b"://")
        host, slash, path = rest.partition(b"/")
        host, mark, query = host.partition(b"?")
        if scheme.lower() not in (b"http", b"https") or not host or b"@" in host:
            raise self._refused(400, "the request line must name a path, such as GET / HTTP/1.1.")
        target = b"/" + path if slash and not mark else b"/" + mark + query + slash + path
        headers = [(name, value) for name, value in request.headers if name != b"host"]
        try:
            return h11.Request(
                method=request.method,
                target=target,
                headers=[(b"host", host), *headers],
                http_version=request.http_version,
            )
        except h11.LocalProtocolError as error:
            raise self._refused(400, NOT_HTTP) from error

    def _count(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start
        self._body += len(data.data)
        if self._chunks > _FREE_CHUNKS + self._body // _LEAST_CHUNK:
            raise self._refused(400, f"the chunks of the body are too small: send at least {_LEAST_CHUNK} bytes each.")

    def _refused(self, status: int, sentence: str) -> h11.RemoteProtocolError:
        self.problem = (status, sentence)
        return h11.RemoteProtocolError(sentence, error_status_hint=status)
