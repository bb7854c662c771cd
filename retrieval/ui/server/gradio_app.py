"""The page as one ASGI app, with its theme, script, icon, endpoints and tools, mounted into another app."""

from __future__ import annotations

from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_space
from starlette.routing import Mount

from retrieval.images.door.files import MAX_BYTES
from retrieval.ui import strings
from retrieval.ui.api.mcp import offer_tools
from retrieval.ui.intake.files.folder import Uploads
from retrieval.ui.intake.middleware import intake
from retrieval.ui.lean import leave_matplotlib
from retrieval.ui.limits.queue import PageQueue
from retrieval.ui.limits.sessions import Sessions
from retrieval.ui.pieces.html import STATIC
from retrieval.ui.pieces.theme import head, theme
from retrieval.ui.server.settings import ServerSettings


def mount_page(outer: FastAPI, blocks: gr.Blocks, path: str, settings: ServerSettings, uploads: Uploads) -> Mount:
    """Add the page to `outer`, which then also starts and stops it; returns the new route.

    Uploads are kept in `uploads`.

    Gradio's own `launch` sets more than its `mount_gradio_app` does; what the page needs of that is set here.
    """
    leave_matplotlib()
    tools = offer_tools()
    if not tools:
        print(strings.NO_TOOLS, flush=True)
    gr.mount_gradio_app(
        outer,
        blocks,
        path,
        app_kwargs={"routes": list(getattr(blocks, "originals", ()))},
        root_path=settings.prefix,
        show_error=True,
        ssr_mode=False,
        run_history=False,  # Gradio's pages would keep every visitor's pictures in their browser
        max_file_size=MAX_BYTES,
        footer_links=["api"],
        mcp_server=tools,
        pwa=get_space() is not None,
        theme=theme(),
        head=head(),
    )
    mounted = outer.routes[-1]
    assert isinstance(mounted, Mount)
    _finish(blocks, mounted.app)
    _limit(blocks, mounted.app, settings)
    mounted.app = intake(mounted.app, blocks, uploads)
    return mounted


def _finish(blocks: gr.Blocks, app: Any) -> None:
    """Set what Gradio sets at a launch, but not for an app that is mounted."""
    blocks.app = blocks.server_app = app
    blocks.favicon_path = app.favicon_path = STATIC / "favicon.png"
    blocks.has_launched = True  # without it, Gradio does not check which files an event names
    blocks._queue.set_server_app(app)


def _limit(blocks: gr.Blocks, app: Any, settings: ServerSettings) -> None:
    """How much may wait, and what is kept of sessions."""
    if isinstance(blocks._queue, PageQueue):
        blocks._queue.limit(settings)
    app.state_holder = Sessions()
    app.state_holder.set_blocks(blocks)
