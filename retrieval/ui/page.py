"""The page as a whole: header, the search, the endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import gradio as gr

from retrieval.search import Searcher
from retrieval.ui import strings
from retrieval.ui.api import openapi
from retrieval.ui.api.endpoints import CONCURRENCY, Endpoints
from retrieval.ui.intake.addresses import Addresses
from retrieval.ui.intake.blocks import PageBlocks
from retrieval.ui.originals import Originals
from retrieval.ui.pieces.html import render, script
from retrieval.ui.serving import Live, Served
from retrieval.ui.tabs.duplicates import DuplicatesTab
from retrieval.ui.tabs.facts import about_html, evaluation_html
from retrieval.ui.tabs.map import MapTab, map_html
from retrieval.ui.tabs.search import SEARCH, SearchTab


def create_app(
    searcher: Searcher | Live, originals: Sequence[Path | str] = (), *, allow_private: bool = False
) -> gr.Blocks:
    """The Blocks that searches with `searcher`, and shows the artifact that it was opened from.

    `originals` are folders that hold original files of the gallery; `launch` serves those, and no other files.

    Programs may name a picture by its https address, in public networks only; with `allow_private`, also in private
    ones, and by http.

    With a `Live`, which has its own originals, it follows the artifact: open pages go on, and new ones show its next
    version. A list of the values of a new column, or a box for text, needs a new start of the app.

    Raises ArtifactError for a Searcher that was not opened from an artifact, SourceError for a folder that does not
    exist.
    """
    live = searcher if isinstance(searcher, Live) else Live(searcher, Originals(originals))
    now = live.now
    with PageBlocks(title=strings.TITLE, analytics_enabled=False, fill_width=True) as app:
        app.addresses = Addresses(allow_private)
        header = gr.HTML(_header(now), padding=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(strings.SEARCH_TAB, id=SEARCH):
                search = SearchTab(live)
            with gr.Tab(strings.DUPLICATES_TAB):
                DuplicatesTab(live)
            with gr.Tab(strings.MAP_TAB):
                map_tab = MapTab(live)
            with gr.Tab(strings.EVALUATION_TAB):
                evaluation = gr.HTML(_evaluation(now), elem_id="evaluation", apply_default_css=False)
            with gr.Tab(strings.ABOUT_TAB):
                about = gr.HTML(_about(now), js_on_load=script("about.js"), elem_id="about", apply_default_css=False)
        search.listen(app, tabs)
        Endpoints(live, app.addresses).add()
    app.pictures = live.pictures
    app.originals = [*openapi.routes(), *live.originals.routes(lambda: live.now.searcher.gallery)]
    app.queue(default_concurrency_limit=CONCURRENCY)
    texts = {header: _header, map_tab.page: map_html, evaluation: _evaluation, about: _about}
    live.on_change(partial(_renewed, app, search, texts))
    return app


def _renewed(
    app: gr.Blocks, search: SearchTab, texts: Mapping[gr.HTML, Callable[[Served], str]], served: Served
) -> Callable[[], None]:
    """Render the page for a new version; the call that is returned puts it there."""
    put, values = search.renew(served), {component: text(served) for component, text in texts.items()}

    def show() -> None:
        put()
        for component, value in values.items():
            component.value = value
        # What Gradio sends to a page that is opened; pages that are open already keep theirs.
        app.config = app.get_config_file()

    return show


def _evaluation(served: Served) -> str:
    return evaluation_html(served.artifact, served.thumbnails)


def _about(served: Served) -> str:
    return about_html(served.artifact)


def _header(served: Served) -> str:
    artifact, searcher = served.artifact, served.searcher
    model, rows = searcher.encoder.name, len(searcher.gallery)
    return render("header", name=artifact.name, state=artifact.state, rows=rows, model=model)
