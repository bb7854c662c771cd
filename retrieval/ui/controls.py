"""What a visitor gives: a picture, values to filter by, and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from gradio.utils import get_upload_folder, is_in_or_equal

from retrieval.gallery import Gallery
from retrieval.ui import strings


def drop_zone() -> gr.Image:
    """Takes a picture by drop, choice, paste or camera, and gives the path of the upload."""
    picture = gr.Image(
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        label=strings.QUERY,
        placeholder=strings.DROP,
        height=230,
        buttons=[],
        elem_id="query",
    )

    def as_uploaded(payload: ImageData | None) -> str | None:
        if payload is None:
            return None
        # Gradio checks only what says that it is a file; without this, any picture of the server's could be named.
        if not (payload.path and is_in_or_equal(payload.path, get_upload_folder())):
            raise gr.Error(strings.NOT_UPLOADED, print_exception=False)
        return str(payload.path)

    # Gradio would open the file itself, with every decoder there is; ours is to be the only door.
    picture.preprocess = as_uploaded
    return picture


def add_filters(gallery: Gallery) -> list[gr.Dropdown]:
    """For each of `Gallery.filters`, in that order, a list of its values with how many images have each."""
    facets = gallery.facets(None)
    with gr.Accordion(strings.FILTERS, open=True, visible=bool(facets), elem_id="filters"):
        filters = [
            gr.Dropdown(choices(counts), multiselect=True, label=_title(column), elem_id=f"where-{column}")
            for column, counts in facets.items()
        ]
    for each in filters:
        # The gallery knows which values there are; one that another filter leaves nothing of can still be chosen.
        each.preprocess = _as_texts
    return filters


def choices(counts: Mapping[str, int], chosen: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(what is shown, the value) of each value, and of the chosen that no image is left for."""
    left = {**counts, **{value: 0 for value in chosen if value not in counts}}
    return [(f"{value} ({count:,})", value) for value, count in left.items()]


def slider(least: float, most: float, value: float, step: float, **options: Any) -> gr.Slider:
    """A number; while its box is empty, which Gradio would call a fault, it is the first one."""
    made = gr.Slider(least, most, value=value, step=step, **options)

    def as_number(payload: Any) -> float:
        return min(max(payload, least), most) if isinstance(payload, int | float) else value

    made.preprocess = as_number
    return made


def _as_texts(payload: Any) -> list[str]:
    return [str(value) for value in payload] if isinstance(payload, list) else []


def _title(column: str) -> str:
    """A column's name as a heading; Gradio would take `label` for a word of its own."""
    words = column.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
