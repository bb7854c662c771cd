"""Our middlewares, around everything that Gradio does: its own lie inside these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from retrieval.ui.access.hosts import Hosts
from retrieval.ui.access.login import Login
from retrieval.ui.access.origins import Origins
from retrieval.ui.limits.middleware import Limits
from retrieval.ui.server.prefix import Prefix
from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.watched.requests import Requests

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Message, Receive, Send], Awaitable[None]]
Middleware = Callable[[ASGIApp, ServerSettings], ASGIApp]


def _hosts(app: ASGIApp, settings: ServerSettings) -> ASGIApp:
    return Hosts(app, settings.allowed_hosts, settings.share)


def _origins(app: ASGIApp, settings: ServerSettings) -> ASGIApp:
    return Origins(app, settings.allowed_origins, settings.allowed_hosts)


def _login(app: ASGIApp, settings: ServerSettings) -> ASGIApp:
    return app if settings.accounts is None else Login(app, settings.accounts)


# The first one is the outermost: it sees a request first, and its answer last. One line each, pure ASGI.
_MIDDLEWARES: tuple[Middleware, ...] = (
    Prefix,  # the others see paths of the app
    Requests,  # counts and logs what the others refuse, too
    Limits,
    _hosts,
    _origins,
    _login,
)


def wrapped(app: ASGIApp, settings: ServerSettings) -> ASGIApp:
    """The app inside all middlewares, in the order of the list above."""
    for middleware in reversed(_MIDDLEWARES):
        app = middleware(app, settings)
    return app
