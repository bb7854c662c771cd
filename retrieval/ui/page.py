"""The page as a whole: header, the search, the endpoints; and how it is served."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from retrieval.errors import ArtifactError
from retrieval.images.open import MAX_BYTES
from retrieval.search import Searcher
from retrieval.ui import strings
from retrieval.ui.api.endpoints import CONCURRENCY, Endpoints
from retrieval.ui.api.mcp import offer_tools
from retrieval.ui.originals import Originals
from retrieval.ui.pieces.cards import Cards
from retrieval.ui.pieces.finder import Finder
from retrieval.ui.pieces.html import STATIC, render
from retrieval.ui.pieces.theme import head, theme
from retrieval.ui.pieces.thumbnails import ThumbnailFiles
from retrieval.ui.tabs.duplicates import DuplicatesTab
from retrieval.ui.tabs.facts import add_about, add_evaluation
from retrieval.ui.tabs.map import MapTab, map_method
from retrieval.ui.tabs.search import SEARCH, SearchTab

_UPLOADS = (3600, 3600)  # seconds: every hour, what was uploaded more than an hour ago is deleted


def create_app(searcher: Searcher, originals: Sequence[Path | str] = ()) -> gr.Blocks:
    """The Blocks that searches with `searcher`, and shows the artifact that it was opened from.

    `originals` are folders that hold original files of the gallery; `launch` serves those, and no other files. Raises
    ArtifactError for a Searcher that was not opened from an artifact, SourceError for a folder that does not exist.
    """
    artifact = searcher.artifact
    if artifact is None:
        raise ArtifactError("the page needs an artifact: create the Searcher with Searcher.open or Searcher.of.")
    thumbnails = ThumbnailFiles(searcher.gallery)
    files = Originals(originals)
    cards = Cards(searcher, thumbnails, files)
    find_groups = Finder(searcher)
    with gr.Blocks(title=strings.TITLE, analytics_enabled=False, fill_width=True, delete_cache=_UPLOADS) as app:
        header = render(
            "header",
            name=artifact.name,
            state=artifact.state,
            rows=len(searcher.gallery),
            model=searcher.encoder.name,
        )
        gr.HTML(header, padding=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(strings.SEARCH_TAB, id=SEARCH):
                search = SearchTab(searcher, cards)
            with gr.Tab(strings.DUPLICATES_TAB):
                DuplicatesTab(searcher, cards, find_groups)
            with gr.Tab(strings.MAP_TAB):
                MapTab(searcher, thumbnails, map_method(artifact))
            with gr.Tab(strings.EVALUATION_TAB):
                add_evaluation(artifact, thumbnails)
            with gr.Tab(strings.ABOUT_TAB):
                add_about(artifact)
        search.listen(app, tabs)
        Endpoints(searcher, thumbnails, artifact, find_groups, files).add()
    app.originals = files.routes(lambda: searcher.gallery)
    app.queue(default_concurrency_limit=CONCURRENCY)
    return app


def launch(
    app: gr.Blocks, *, host: str | None = None, port: int | None = None, share: bool = False, **options: Any
) -> tuple[Any, str, str | None]:
    """Serve the app; returns Gradio's (app, local address, public address).

    Host and port are Gradio's own where they are None: 127.0.0.1 and the first free port from 7860, or what
    GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say, as on a Space.
    """
    # At the first event Gradio asks matplotlib for its backend; without a name, all of pyplot is imported to find one.
    os.environ.setdefault("MPLBACKEND", "agg")
    tools = offer_tools()
    if not tools:
        print(strings.NO_TOOLS)
    settings = dict(options.pop("app_kwargs", None) or {})
    settings["routes"] = [*settings.get("routes", ()), *getattr(app, "originals", ())]
    served: tuple[Any, str, str | None] = app.launch(
        app_kwargs=settings,
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
        favicon_path=STATIC / "favicon.png",
        **options,
    )
    return served
