"""The middleware that every request passes first."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from starlette._utils import get_route_path
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.ui.intake.addresses import Addresses
from retrieval.ui.intake.answers import Answers
from retrieval.ui.intake.blocks import PageBlocks
from retrieval.ui.intake.calls import Calls
from retrieval.ui.intake.files.data_urls import DataUrls
from retrieval.ui.intake.files.folder import Uploads
from retrieval.ui.intake.files.uploads import Form, with_progress
from retrieval.ui.intake.json_body import MOST_OF_LOGIN, parse, read_body
from retrieval.ui.intake.refusing import Body, RefusedError, refuse
from retrieval.ui.intake.routes import API, check_route

_BODILESS = ("GET", "HEAD", "OPTIONS")
_UPLOAD = SimpleNamespace(path=f"{API}/upload")  # the route for metrics and the log


def intake(app: ASGIApp, page: gr.Blocks, uploads: Uploads) -> ASGIApp:
    """The app of a page inside `Intake`; unchanged for a page that `create_app` has not made."""
    if not isinstance(page, PageBlocks):
        return app
    page.uploads = uploads
    return Intake(app, page, page.addresses, uploads)


class Intake:
    """Refuses, with a sentence, what Gradio would read without limits, fetch, or answer with an error of its own."""

    def __init__(self, app: ASGIApp, blocks: gr.Blocks, addresses: Addresses, uploads: Uploads) -> None:
        self._app, self._blocks = Answers(app), blocks
        self._calls, self._uploads = Calls(blocks, addresses), uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app.inner(scope, receive, send)
            return
        body = Body(receive)
        try:
            path, method = get_route_path(scope), scope["method"]
            check_route(method, path, scope.get("query_string", b"").decode("latin-1"))
            if path.startswith(f"{API}/heartbeat/") and method == "GET":
                with self._blocks.state_holder.opened(path.split("/")[3]):
                    await self._app(scope, receive, send)
                return
            if method in _BODILESS:
                body.ended = True  # it has none that anybody reads
                if method == "GET":
                    self._calls.check_event(path)
                given: Receive = receive
            elif path.rstrip("/") == f"{API}/upload":
                await self._upload(scope, body, send)
                return
            else:
                scope, given = await self._read(scope, body, dict(scope["headers"]), path)
        except RefusedError as error:
            await refuse(error, scope, body, send)
        except ConnectionError:
            pass
        else:
            await self._app(scope, given, send)

    async def _read(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], path: str
    ) -> tuple[Scope, Receive]:
        """The request with its body checked and read; raises RefusedError, and ConnectionError if it breaks off."""
        if path.rstrip("/") == "/login":
            return scope, _replay(await read_body(receive, headers, MOST_OF_LOGIN), receive)
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if path.startswith(f"{API}/mcp"):
            body = await self._read_call(receive, headers)
        else:
            body = await read_body(receive, headers)
        if path.startswith(f"{API}/") and scope["method"] == "POST":
            if kind != b"application/json":
                raise RefusedError(415, "the body must be JSON, with the header Content-Type: application/json.")
            given = parse(body)
            passed: Any = await self._calls.checked(path, given, scope)
            body = body if passed is given else json.dumps(passed).encode()
        others = [each for each in scope["headers"] if each[0] not in (b"content-length", b"transfer-encoding")]
        # In place: the middlewares outside read from the same scope which route was taken.
        scope["headers"] = [*others, (b"content-length", str(len(body)).encode())]
        return scope, _replay(body, receive)

    async def _read_call(self, receive: Receive, headers: dict[bytes, bytes]) -> bytes:
        """The JSON of a tool call; a picture in it becomes an upload."""
        body, _ = await DataUrls(self._uploads, lambda path: f"{API}/file={path}").read(receive, headers)
        return body

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the paths of the files of a form, as Gradio's own route does, which would leave half ones."""
        scope["route"] = _UPLOAD
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("upload_id")
        progress = asked[-1] if asked else None
        form = Form(self._uploads, dict(scope["headers"]), progress)
        paths = await with_progress(progress, lambda: form.read(receive))
        await JSONResponse(paths)(scope, receive, send)


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
