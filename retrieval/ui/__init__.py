"""The page: Gradio Blocks around a Searcher. `create_app` makes it, `launch` serves it."""

from retrieval.ui.page import create_app, launch

__all__ = ["create_app", "launch"]
