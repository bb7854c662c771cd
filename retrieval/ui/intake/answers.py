"""Answers to requests that went wrong, as sentences: what other libraries say is for our log, not for strangers."""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.ui import strings
from retrieval.ui.intake.refusing import RefusedError, refuse

_log = logging.getLogger(__name__)
_LONGEST = 2**16  # bytes of an error that is looked at


class Answers:
    """Passes a request on to the app, and rewrites what is no sentence: errors of type 5xx, and lists of errors."""

    def __init__(self, app: ASGIApp) -> None:
        self.inner = self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        held: list[Message] = []
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and message["status"] >= 400 and not begun:
                held.append(message)
                return
            if not held:
                begun = True
                await send(message)
                return
            held.append(message)
            size = sum(len(each.get("body", b"")) for each in held)
            if size > _LONGEST or not message.get("more_body", False):
                begun = True
                await _finish(held, scope, receive, send)
                held.clear()

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if not begun:
                _log.error("%s %s failed", scope["method"], scope["path"][:200], exc_info=error)
                await refuse(RefusedError(500, strings.OUR_FAULT), scope, receive, send)
            else:  # Gradio ends a stream for an unknown session with an exception
                _log.debug("%s %s broke off", scope["method"], scope["path"][:200], exc_info=error)
                await send({"type": "http.response.body", "body": b""})


async def _finish(held: list[Message], scope: Scope, receive: Receive, send: Send) -> None:
    start, *rest = held
    body = b"".join(each.get("body", b"") for each in rest)
    sentence = _sentence(start["status"], body)
    if sentence is None:
        for message in held:
            await send(message)
        return
    await refuse(RefusedError(start["status"], sentence), scope, receive, send)


def _sentence(status: int, body: bytes) -> str | None:
    """What to say instead of an answer; None if it is fine."""
    if status >= 500 and status != 503:
        return strings.OUR_FAULT
    try:
        said: Any = json.loads(body)
    except ValueError:
        return None if body else strings.NOT_HERE
    detail = said.get("detail", said.get("error", said)) if isinstance(said, dict) else said
    if isinstance(detail, list):
        return "; ".join(_complaint(each) for each in detail[:3])
    return strings.NOT_HERE if detail in (None, "", "Not Found", {}) else None


def _complaint(error: Any) -> str:
    """One complaint of FastAPI, without the value that it quotes."""
    if not isinstance(error, dict):
        return strings.NOT_UNDERSTOOD
    place = ".".join(str(part)[:60] for part in error.get("loc", ()) if part not in ("body", "query", "path"))
    return f"{place or 'the request'}: {str(error.get('msg', strings.NOT_UNDERSTOOD))[:200]}"
