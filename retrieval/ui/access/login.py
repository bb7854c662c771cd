"""A password for everything that is served: page, endpoints, files and tools."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.ui import strings
from retrieval.ui.access.attempts import Attempts
from retrieval.ui.access.passwords import Accounts, read_basic
from retrieval.ui.intake.json_body import MOST_OF_LOGIN, read_body
from retrieval.ui.intake.refusing import Body, RefusedError, refuse
from retrieval.ui.limits.visitors import visitor_of
from retrieval.ui.server.watched.metrics import METRICS

INSIDE = "x-lookalike-inside"
"""The header in which the server's own requests to itself carry a token."""

_COOKIE = "lookalike-login"
_OPEN = ("/health", "/ready")  # for whoever watches over the process
_BASIC = {"WWW-Authenticate": 'Basic realm="Lookalike", charset="UTF-8"'}


class Login:
    """Answers 401 unless a request has a user and password (HTTP Basic), or the cookie that `POST /login` gives.

    A browser asks for the password by itself; `gradio_client` logs in with `auth=(user, password)`.
    """

    def __init__(self, app: ASGIApp, accounts: Accounts) -> None:
        self._app, self._accounts, self._attempts = app, accounts, Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = get_route_path(scope).rstrip("/") if scope["type"] == "http" else ""
        if scope["type"] != "http" or path in _OPEN:
            await self._app(scope, receive, send)
        elif path == "/login" and scope["method"] == "POST":
            await (await self._logged_in(scope, receive))(scope, receive, send)
        elif self._has_token(scope):
            await self._app(scope, receive, send)
        else:
            given = read_basic(Headers(scope=scope).get("authorization", ""))
            error = self._refusal(scope, *given) if given else _unknown(strings.LOG_IN)
            if error is None:
                # With the cookie, the next requests are no attempts: nobody who guesses can disturb them.
                await self._app(scope, receive, self._with_cookie(scope, send))
            else:
                await refuse(error, scope, Body.of(scope, receive), send)

    def _has_token(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        cookie = cookie_parser(headers.get("cookie", "")).get(_COOKIE, "")
        return self._accounts.accepts(cookie) or self._accounts.accepts(headers.get(INSIDE, ""))

    def _refusal(self, scope: Scope, user: str, password: str) -> RefusedError | None:
        """Why a user and password do not let anybody in; None if they do."""
        visitor = visitor_of(scope)
        if wait := self._attempts.wait(visitor, user):
            METRICS.refused.labels("passwords").inc()
            return RefusedError(429, strings.TOO_MANY_PASSWORDS.format(seconds=wait), {"Retry-After": str(wait)})
        if self._accounts.has(user, password):
            self._attempts.right(visitor, user)
            return None
        self._attempts.wrong(visitor, user)
        return _unknown(strings.LOG_IN)

    def _with_cookie(self, scope: Scope, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"set-cookie", self._cookie(scope).encode())]
            await send(message)

        return sending

    async def _logged_in(self, scope: Scope, receive: Receive) -> JSONResponse:
        try:
            body = await read_body(receive, dict(scope["headers"]), MOST_OF_LOGIN)
            form = parse_qs(body.decode("latin-1"), max_num_fields=10)
        except (RefusedError, ConnectionError, ValueError):  # too large, broken off, or too many fields
            form = {}
        error = self._refusal(scope, form.get("username", [""])[0], form.get("password", [""])[0])
        if error is None:
            return JSONResponse(
                {"success": True}, headers={"Cache-Control": "no-store", "Set-Cookie": self._cookie(scope)}
            )
        said = strings.WRONG_PASSWORD if error.status == 401 else error.sentence
        again = {name: value for name, value in error.headers.items() if name == "Retry-After"}
        return JSONResponse({"detail": said}, error.status, {"Cache-Control": "no-store", **again})

    def _cookie(self, scope: Scope) -> str:
        """The Set-Cookie header for a visitor who has given a password."""
        secure = scope["scheme"] == "https" or Headers(scope=scope).get("x-forwarded-proto") == "https"
        answer = Response()
        answer.set_cookie(_COOKIE, self._accounts.token(), httponly=True, samesite="lax", secure=secure)
        return answer.headers["set-cookie"]


def _unknown(sentence: str) -> RefusedError:
    return RefusedError(401, sentence, _BASIC)
