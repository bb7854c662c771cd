"""The page as a whole: header, the search, the endpoints; and how it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from retrieval.images import MAX_BYTES
from retrieval.remote import Resolved
from retrieval.search import Searcher
from retrieval.ui import strings
from retrieval.ui.endpoints import CONCURRENCY, add_endpoints
from retrieval.ui.search_tab import add_search
from retrieval.ui.theme import head, theme
from retrieval.ui.thumbnails import Thumbnails
from retrieval.ui.tools import offer_tools

_UPLOADS = (3600, 3600)  # seconds: every hour, what was uploaded more than an hour ago is deleted
_MARK = (
    '<svg class="mark" viewBox="0 0 32 32" aria-hidden="true"><rect x="2" y="7" width="18" height="18" rx="5"/>'
    '<rect x="12" y="7" width="18" height="18" rx="5"/></svg>'
)


def create_app(searcher: Searcher, artifact: Resolved) -> gr.Blocks:
    """The Blocks that searches with `searcher`, which was opened from `artifact`."""
    thumbnails = Thumbnails(searcher.gallery)
    with gr.Blocks(title=strings.TITLE, analytics_enabled=False, fill_width=True, delete_cache=_UPLOADS) as app:
        line = strings.artifact_line(artifact, len(searcher.gallery), searcher.encoder.name)
        gr.HTML(
            f'<header class="top"><div class="brand">{_MARK}<h1>{strings.TITLE}</h1>'
            f'<span class="tagline">{strings.TAGLINE}</span></div><p class="artifact">{line}</p></header>',
            padding=False,
        )
        add_search(searcher, thumbnails)
        add_endpoints(searcher, thumbnails, artifact)
    app.queue(default_concurrency_limit=CONCURRENCY)
    return app


def launch(
    app: gr.Blocks, *, host: str | None = None, port: int | None = None, share: bool = False, **options: Any
) -> tuple[Any, str, str | None]:
    """Serve the app; returns Gradio's (app, local address, public address).

    Host and port are Gradio's own where they are None: 127.0.0.1 and the first free port from 7860, or what
    GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say, as on a Space.
    """
    tools = offer_tools()
    if not tools:
        print(strings.NO_TOOLS)
    served: tuple[Any, str, str | None] = app.launch(
        server_name=host,
        server_port=port,
        share=share,
        show_error=True,
        ssr_mode=False,
        run_history=False,  # Gradio's pages would keep every visitor's pictures in their browser
        max_file_size=MAX_BYTES,
        footer_links=["api"],
        mcp_server=tools,
        theme=theme(),
        head=head(),
        favicon_path=Path(__file__).with_name("favicon.png"),
        **options,
    )
    return served
