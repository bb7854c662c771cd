"""Requests that the pages of other sites make in a visitor's browser.

They may read nothing here, and send nothing, unless their site is allowed by name. The browser tells where a request
comes from, in Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/) and in Origin. Programs send neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.errors import short
from retrieval.ui.access.hosts import name_in
from retrieval.ui.intake.refusing import Body, RefusedError, refuse

_READING = ("GET", "HEAD", "OPTIONS")
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
    "Access-Control-Max-Age": "600",
}


class Origins:
    """Tells the browsers which sites may use this server (CORS), and refuses what others send, with status 403.

    Gradio would let every site read answers unless it believes itself to be on localhost, so it does not see an Origin.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str], hosts: Iterable[str]) -> None:
        self._app = app
        self._allowed = {origin.lower().rstrip("/") for origin in allowed}
        self._hosts = {name.lower() for name in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        allowed = origin.lower() in self._allowed or (bool(origin) and "*" in self._allowed)
        if not allowed and scope["method"] not in _READING and self._is_foreign(origin, headers):
            await refuse(_refused(origin), scope, Body(receive), send)
            return
        # In place, as the middlewares outside read from the same scope which route was taken.
        scope["headers"] = [each for each in scope["headers"] if each[0] != b"origin"]
        if not allowed:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await self._preflight(origin, headers)(scope, receive, send)
        else:
            await self._app(scope, receive, self._readable(origin, send))

    def _is_foreign(self, origin: str, headers: Headers) -> bool:
        """Whether the page of another site sends this."""
        # Scripts cannot set this one, and it is right behind any proxy. Browsers omit it for plain http.
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        if not origin:
            return False
        names = {name_in(headers.get(name, "")) for name in ("host", "x-forwarded-host")} | self._hosts
        return (urlsplit(origin).hostname or origin) not in names

    def _preflight(self, origin: str, headers: Headers) -> Response:
        wanted = headers.get("access-control-request-headers", "")
        return Response(
            status_code=204, headers={**_PREFLIGHT, **self._granted(origin), "Access-Control-Allow-Headers": wanted}
        )

    def _granted(self, origin: str) -> dict[str, str]:
        # Cookies and passwords only go with requests of sites that are allowed by name.
        if origin.lower() not in self._allowed:
            return {"Access-Control-Allow-Origin": "*"}
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}

    def _readable(self, origin: str, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message.setdefault("headers", [])).update(self._granted(origin))
            await send(message)

        return sending


def _refused(origin: str) -> RefusedError:
    site = short(origin, 80) if origin and origin != "null" else "another site"
    return RefusedError(
        403, f"pages of {site} may not send anything here: the owner can allow that with --allowed-origin ORIGIN."
    )
