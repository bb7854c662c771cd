"""The page: Gradio Blocks around a Searcher. `create_app` makes it, `launch` serves it, `mount` adds it to an app."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing is reported to anyone

from retrieval.ui.page import create_app
from retrieval.ui.server.launch import launch
from retrieval.ui.server.mount import mount

__all__ = ["create_app", "launch", "mount"]
