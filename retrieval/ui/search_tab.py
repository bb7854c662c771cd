"""The search: a picture on the left, its hits on the right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData

from retrieval.gallery import Row
from retrieval.search import Hit, Searcher, Vector
from retrieval.ui import strings
from retrieval.ui.endpoints import in_words
from retrieval.ui.thumbnails import Thumbnails

EXAMPLES = 8
AROUND = 20  # what the page shows before it is asked anything
MOST_HITS = 60
# On a phone the hits lie under the query, out of sight.
_TO_THE_HITS = "() => { if (innerWidth <= 760) document.querySelector('#status').scrollIntoView() }"


@dataclass(frozen=True)
class Query:
    """What a visitor searches with: embedded once, so that a change of filter is answered at once."""

    vector: Vector
    title: str
    leave_out: tuple[int, ...] = ()


def add_search(searcher: Searcher, thumbnails: Thumbnails) -> None:
    """Add the search to the Blocks that is being made."""
    examples = spread_rows(len(searcher.gallery), EXAMPLES)
    around = spread_rows(len(searcher.gallery), AROUND)
    names = [name_of(row) for row in searcher.gallery.take(around)]
    look_around = [(str(thumbnails.path(row)), name) for row, name in zip(around, names, strict=True)]
    query: gr.State = gr.State(None)  # a visitor's own: nothing here is shared between visitors
    with gr.Row(elem_classes="search-row"):
        with gr.Column(scale=1, min_width=300, elem_classes="side"):
            picture = _picture()
            gr.HTML(f'<p class="caption">{strings.EXAMPLES}</p>', padding=False)
            strip = _strip([thumbnails.path(row) for row in examples])
            labels, k, min_score = _refine(searcher)
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(strings.EMPTY, elem_classes="status", elem_id="status", padding=False)
            hits = gr.Gallery(
                look_around,
                show_label=False,
                container=False,
                allow_preview=False,
                interactive=False,
                object_fit="contain",
                buttons=[],
                fit_columns=False,
                elem_id="hits",
            )

    def answer(asked: Query | None, wanted: list[str] | None, count: int, least: float) -> tuple[Any, ...]:
        if asked is None:
            return None, strings.EMPTY, look_around
        where = {"label": wanted} if wanted else None
        with in_words():
            found = searcher.search_vector(
                asked.vector, int(count), min_score=least, where=where, leave_out=asked.leave_out
            )
        items = [(str(thumbnails.path(hit.row)), caption(hit)) for hit in found]
        text = strings.found(len(found), asked.title) if found else strings.NO_HITS
        return asked, text, items

    def by_picture(path: str | None, *refined: Any) -> tuple[Any, ...]:
        if path is None:
            return answer(None, *refined)
        with in_words():
            return answer(Query(searcher.embed(path), strings.FOUND_PICTURE), *refined)

    def by_click(wanted: Any, count: Any, least: Any, event: gr.SelectData) -> tuple[Any, ...]:
        # By the picture that was clicked, not by its place: another answer may have come in between.
        with in_words():
            path = event.value["image"]["path"]
            row = thumbnails.row_of(path)
        title = name_of(searcher.gallery.take([row])[0])
        asked = Query(searcher.store.vectors(np.array([row]))[0], title, (row,))
        return (path, *answer(asked, wanted, count, least))

    refined, answered = [labels, k, min_score], [query, status, hits]
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "search", "show_progress_on": [hits]}
    asked_anew = picture.upload(by_picture, [picture, *refined], answered, **private)
    picture.clear(lambda: answer(None, None, 0, 0), None, answered, **private)
    clicked = gr.on([hits.select, strip.select], by_click, refined, [picture, *answered], **private)
    for done in (asked_anew, clicked):
        done.success(None, js=_TO_THE_HITS)
    gr.on([k.release, min_score.release, labels.input], answer, [query, *refined], answered, **private)


def spread_rows(count: int, wanted: int) -> list[int]:
    """So many rows, or all there are, spread over the whole gallery."""
    return [int(row) for row in np.linspace(0, count - 1, min(wanted, count))]


def name_of(row: Row | Hit) -> str:
    """What a person would call an image: its label, or else where it comes from."""
    return row.label or Path(row.source).name


def caption(hit: Hit) -> str:
    """The line under a hit."""
    return f"{name_of(hit)} · {hit.score:.2f}"


def _picture() -> gr.Image:
    picture = gr.Image(
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        label=strings.QUERY,
        placeholder=strings.DROP,
        height=300,
        buttons=[],
        elem_id="query",
    )

    def as_uploaded(payload: ImageData | None) -> str | None:
        return None if payload is None else payload.path

    # Gradio would open the file itself, with every decoder there is; ours is to be the only door.
    picture.preprocess = as_uploaded
    return picture


def _strip(paths: list[Path]) -> gr.Gallery:
    return gr.Gallery(
        [str(path) for path in paths],
        show_label=False,
        container=False,
        allow_preview=False,
        interactive=False,
        object_fit="cover",
        columns=EXAMPLES,
        buttons=[],
        elem_id="examples",
    )


def _refine(searcher: Searcher) -> tuple[gr.Dropdown, gr.Slider, gr.Slider]:
    counts = searcher.gallery.counts("label")
    with gr.Group(elem_classes="refine"):
        labels = gr.Dropdown(
            [(f"{label} ({count:,})", label) for label, count in sorted(counts.items())],
            multiselect=True,
            label=strings.LABELS,
            visible=bool(counts),
            elem_id="labels",
        )
        k = gr.Slider(1, MOST_HITS, value=min(24, MOST_HITS), step=1, label=strings.K, elem_id="k")
        min_score = gr.Slider(
            -1, 1, value=-1, step=0.05, label=strings.MIN_SCORE, info=strings.MIN_SCORE_INFO, elem_id="min-score"
        )
    return labels, k, min_score
