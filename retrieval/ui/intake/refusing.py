"""Refusing a request with a sentence, also while its sender is still sending."""

from __future__ import annotations

import asyncio

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

_DRAINED = 8 * 2**20  # bytes that are still read of a request after its refusal
_PATIENCE = 3.0  # seconds


class RefusedError(Exception):
    """A request is refused, with an HTTP status and a sentence for its sender."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


async def refuse(error: RefusedError, scope: Scope, receive: Receive, send: Send, *, rest: bool = False) -> None:
    """Answer with the sentence, as JSON.

    With `rest`, the request may not have been read to its end. Many clients read an answer only after they have sent
    everything, and one whose connection is cut before never sees it, so some more is read, and then it is cut.
    """
    response = JSONResponse({"detail": error.sentence}, error.status, headers={"Cache-Control": "no-store"})
    if not rest:
        await response(scope, receive, send)
        return
    response.headers["Connection"] = "close"
    await send({"type": "http.response.start", "status": error.status, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    left, more = _DRAINED, True
    try:
        async with asyncio.timeout(_PATIENCE):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})
