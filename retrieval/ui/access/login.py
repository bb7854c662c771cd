"""A password for everything that is served: page, endpoints, files and tools."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval.ui import strings
from retrieval.ui.access.passwords import Accounts
from retrieval.ui.intake.json_body import read_body
from retrieval.ui.intake.refusing import Body, RefusedError, refuse

INSIDE = "x-lookalike-inside"
"""The header in which the server's own requests to itself carry a token."""

_COOKIE = "lookalike-login"
_OPEN = ("/health", "/ready")  # for whoever watches over the process
_FORM = 2**14  # bytes
_BASIC = {"WWW-Authenticate": 'Basic realm="Lookalike", charset="UTF-8"'}


class Login:
    """Answers 401 unless a request has a user and password (HTTP Basic), or the cookie that `POST /login` gives.

    A browser asks for the password by itself; `gradio_client` logs in with `auth=(user, password)`.
    """

    def __init__(self, app: ASGIApp, accounts: Accounts) -> None:
        self._app, self._accounts = app, accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = get_route_path(scope).rstrip("/") if scope["type"] == "http" else ""
        if scope["type"] != "http" or path in _OPEN:
            await self._app(scope, receive, send)
        elif path == "/login" and scope["method"] == "POST":
            await (await self._logged_in(scope, receive))(scope, receive, send)
        elif self._knows(scope):
            await self._app(scope, receive, send)
        else:
            await refuse(RefusedError(401, strings.LOG_IN, _BASIC), scope, Body.of(scope, receive), send)

    def _knows(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        if self._accounts.has_basic(headers.get("authorization", "")):
            return True
        cookie = cookie_parser(headers.get("cookie", "")).get(_COOKIE, "")
        return self._accounts.accepts(cookie) or self._accounts.accepts(headers.get(INSIDE, ""))

    async def _logged_in(self, scope: Scope, receive: Receive) -> JSONResponse:
        try:
            body = await read_body(receive, dict(scope["headers"]), _FORM)
            form = parse_qs(body.decode("latin-1"), max_num_fields=10)
        except (RefusedError, ConnectionError, ValueError):  # too large, broken off, or too many fields
            form = {}
        if not self._accounts.has(form.get("username", [""])[0], form.get("password", [""])[0]):
            return JSONResponse({"detail": strings.WRONG_PASSWORD}, 401, {"Cache-Control": "no-store"})
        answer = JSONResponse({"success": True}, headers={"Cache-Control": "no-store"})
        secure = scope["scheme"] == "https" or Headers(scope=scope).get("x-forwarded-proto") == "https"
        answer.set_cookie(_COOKIE, self._accounts.token(), httponly=True, samesite="lax", secure=secure)
        return answer
