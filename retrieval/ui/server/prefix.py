"""The prefix of a proxy, and that of a mount: what lies inside sees the path of the app itself."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval.ui.server.settings import ServerSettings


class Prefix:
    """Takes the prefix of `--root-path` from a path, so that a proxy may keep it or remove it."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._prefix = app, urlsplit(settings.prefix).path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its path in the app."""
        if scope["type"] == "http" and (inner := self.inner(scope["path"])) != scope["path"]:
            scope["path"] = inner
            raw, kept = scope.get("raw_path") or b"", self._prefix.encode()
            if raw.startswith(kept):
                scope["raw_path"] = raw[len(kept) :] or b"/"
        await self._app(scope, receive, send)

    def inner(self, path: str) -> str:
        """The path without the prefix, if it has that."""
        has_it = self._prefix and f"{path}/".startswith(f"{self._prefix}/")
        return path[len(self._prefix) :] or "/" if has_it else path


class Mounted:
    """Hides the path of a mount from the middlewares in between: `Mounted(middlewares(Mounted.back(app)))`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its path in the app, and keep the whole one."""
        if scope["type"] == "http":
            scope["lookalike.path"] = scope["path"]
            scope["path"] = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        await self._app(scope, receive, send)

    @staticmethod
    def back(app: ASGIApp) -> ASGIApp:
        """The app, which sees the whole path again."""

        async def restored(scope: Scope, receive: Receive, send: Send) -> None:
            if "lookalike.path" in scope:
                scope["path"] = scope.pop("lookalike.path")
            await app(scope, receive, send)

        return restored
