"""The look: one theme with the system's own fonts (nothing is fetched), and one style sheet."""

from __future__ import annotations

from typing import Any

import gradio as gr

from retrieval.ui.pieces.html import STATIC, render

_STYLE = STATIC / "style.css"
# Gradio gives this button an aria-label that differs from its visible text, which confuses speech input and screen
# readers (WCAG 2.5.3, label in name). Without the aria-label, the visible text is its name.
_NAMES = """
new MutationObserver(() => {
  const named = "#query .upload-container[aria-label]";
  document.querySelectorAll(named).forEach((button) => button.removeAttribute("aria-label"));
}).observe(document, {subtree: true, childList: true, attributeFilter: ["aria-label"]});
"""

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def head() -> str:
    """The head of the page: the style sheet, and a script that removes a wrong aria-label."""
    # Not passed as Gradio's `css`, which prefixes every rule with its container: the frame could not be styled.
    return render("head", style=_STYLE.read_text(encoding="utf-8"), script=_NAMES)


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
        body_text_color_subdued="*neutral_600",  # the theme's own is too pale to be read (WCAG 1.4.3)
        block_background_fill="#ffffff",
        block_background_fill_dark="#171b26",
        block_border_width="0px",
        block_shadow="0 1px 2px rgba(16,24,40,.06), 0 4px 16px rgba(16,24,40,.05)",
        block_shadow_dark="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        slider_color="*primary_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
    )
