"""The filters: a list of values, with how many images have each, for every column that is worth it."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from retrieval.gallery import Gallery
from retrieval.ui import strings


def add_filters(gallery: Gallery) -> list[gr.Dropdown]:
    """One for each of `Gallery.filters`, in that order."""
    facets = gallery.facets(None)
    with gr.Accordion(strings.FILTERS, open=True, visible=bool(facets), elem_id="filters"):
        return [
            gr.Dropdown(choices(counts), multiselect=True, label=_title(column), elem_id=f"where-{column}")
            for column, counts in facets.items()
        ]


def choices(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """(what is shown, the value) of each value."""
    return [(f"{value} ({count:,})", value) for value, count in counts.items()]


def _title(column: str) -> str:
    """A column's name as a heading; Gradio would take `label` for a word of its own."""
    words = column.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
