"""Where a visitor drops a picture."""

from __future__ import annotations

import gradio as gr
from gradio.data_classes import ImageData
from gradio.utils import get_upload_folder, is_in_or_equal

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
