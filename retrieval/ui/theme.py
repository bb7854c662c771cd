"""The look: one theme with the system's own fonts (nothing is fetched), and one style sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

STYLE = Path(__file__).with_name("style.css")

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> Any:
    """Calm greys, one accent, round corners; light and dark."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=_FONT,
        font_mono=_MONO,
    ).set(
        body_background_fill="#f6f7fb",
        body_background_fill_dark="#0e1119",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171b26",
        block_border_width="0px",
        block_shadow="0 1px 2px rgba(16,24,40,.06), 0 4px 16px rgba(16,24,40,.05)",
        block_shadow_dark="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        slider_color="*primary_600",
    )
