"""Refusing a request with a sentence, also while its sender is still sending."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

_DRAINED = 8 * 2**20  # bytes that are still read of a request after its refusal
_PATIENCE = 3.0  # seconds


class RefusedError(Exception):
    """A request is refused, with an HTTP status and a sentence for its sender."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers or {}


class Body:
    """The `receive` of a request, which notes when its body has come to its end."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self.ended = receive, False

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> Receive:
        """The `receive` of a request that may have a body, else the same one."""
        return receive if scope["method"] in ("GET", "HEAD", "OPTIONS") else cls(receive)

    async def __call__(self) -> Message:
        """The next message."""
        message = await self._receive()
        self.ended = self.ended or message["type"] != "http.request" or not message.get("more_body", False)
        return message


async def refuse(error: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the sentence, as JSON.

    If `receive` is a `Body` that has not ended, some more of it is read, and then the connection is cut: many clients
    read an answer only after they have sent everything, and one that is cut off before that never sees it.
    """
    response = JSONResponse(
        {"detail": error.sentence}, error.status, headers={"Cache-Control": "no-store", **error.headers}
    )
    if not isinstance(receive, Body) or receive.ended:
        await response(scope, receive, send)
        return
    response.headers["Connection"] = "close"
    await send({"type": "http.response.start", "status": error.status, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    left = _DRAINED
    try:
        async with asyncio.timeout(_PATIENCE):
            while left > 0 and not receive.ended:
                left -= len((await receive()).get("body", b""))
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})
