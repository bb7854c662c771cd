"""The page: Gradio Blocks around a Searcher. `create_app` makes it, `launch` serves it, `mount` adds it to an app.

They are imported on first use: the process that only watches over others needs no Gradio.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from retrieval.ui.lean import leave_stubs

leave_stubs()
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing is reported to anyone

if TYPE_CHECKING:
    from retrieval.ui.page import create_app
    from retrieval.ui.server.launch import launch
    from retrieval.ui.server.mount import mount

_HOMES = {"create_app": "page", "launch": "server.launch", "mount": "server.mount"}

__all__ = ["create_app", "launch", "mount"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
