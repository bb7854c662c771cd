"""The middleware that every request passes first."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.ui.intake.addresses import Addresses
from retrieval.ui.intake.answers import Answers
from retrieval.ui.intake.blocks import PageBlocks
from retrieval.ui.intake.calls import Calls
from retrieval.ui.intake.json_body import check_stated, parse, read_body
from retrieval.ui.intake.refusing import RefusedError, refuse
from retrieval.ui.intake.routes import API, check_route
from retrieval.ui.intake.uploads import Upload

_BODILESS = ("GET", "HEAD", "OPTIONS")
_FORM = 2**14  # bytes of the form with which a visitor logs in


def intake(app: ASGIApp, page: gr.Blocks) -> ASGIApp:
    """The app of a page inside `Intake`; unchanged for a page that `create_app` has not made."""
    return Intake(app, page, page.addresses) if isinstance(page, PageBlocks) else app


class Intake:
    """Refuses, with a sentence, what Gradio would read without limits, fetch, or answer with an error of its own."""

    def __init__(self, app: ASGIApp, blocks: gr.Blocks, addresses: Addresses) -> None:
        self._app, self._calls = Answers(app), Calls(blocks, addresses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app.inner(scope, receive, send)
            return
        try:
            path = get_route_path(scope)
            check_route(scope["method"], path, scope.get("query_string", b"").decode("latin-1"))
            if scope["method"] in _BODILESS:
                await self._app(scope, receive, send)
                return
            headers = dict(scope["headers"])
            if path.rstrip("/") == f"{API}/upload":
                await self._upload(scope, receive, send, headers)
                return
            scope, receive = await self._read(scope, receive, headers, path)
        except RefusedError as error:
            await refuse(error, scope, receive, send, rest=scope["method"] not in _BODILESS)
            return
        except ConnectionError:
            return
        await self._app(scope, receive, send)

    async def _read(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], path: str
    ) -> tuple[Scope, Receive]:
        """The request with its body checked and read; raises RefusedError, and ConnectionError if it breaks off."""
        if path.rstrip("/") == "/login":
            check_stated(headers, _FORM, "the form is too large.")
            return scope, _replay(await read_body(receive, headers), receive)
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        body = await read_body(receive, headers)
        if path.startswith(f"{API}/") and scope["method"] == "POST":
            if kind != b"application/json":
                raise RefusedError(415, "the body must be JSON, with the header Content-Type: application/json.")
            given = parse(body)
            passed: Any = given if path.startswith(f"{API}/mcp") else await self._calls.checked(path, given)
            if passed is not given:
                body = json.dumps(passed).encode()
                others = [each for each in scope["headers"] if each[0] != b"content-length"]
                scope = {**scope, "headers": [*others, (b"content-length", str(len(body)).encode())]}
        return scope, _replay(body, receive)

    async def _upload(self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]) -> None:
        upload = Upload(receive, headers)

        async def answered(message: Message) -> None:
            if upload.error is None:
                await send(message)

        await self._app(scope, upload.receive, answered)
        if upload.error is not None:
            await refuse(upload.error, scope, receive, send, rest=True)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, and then what else comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
