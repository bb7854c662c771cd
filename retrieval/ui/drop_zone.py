"""Where a visitor drops a picture."""

from __future__ import annotations

import gradio as gr
from gradio.data_classes import ImageData

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
        return None if payload is None else payload.path

    # Gradio would open the file itself, with every decoder there is; ours is to be the only door.
    picture.preprocess = as_uploaded
    return picture
