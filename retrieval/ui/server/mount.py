"""The page inside another program's FastAPI app."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from retrieval.errors import LookalikeError
from retrieval.search import Searcher
from retrieval.ui.page import create_app
from retrieval.ui.server.asgi import wrapped
from retrieval.ui.server.gradio_app import mount_page
from retrieval.ui.server.prefix import Mounted
from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.surroundings import open_uploads, reach_this_machine
from retrieval.ui.server.watched.metrics import METRICS


def mount(
    app: FastAPI,
    artifact: Searcher | Path | str,
    path: str = "/lookalike",
    *,
    originals: Sequence[Path | str] = (),
    **options: Any,
) -> gr.Blocks:
    """Add the page, its endpoints and its MCP tools to a FastAPI app, under `path`; returns the Blocks.

    Args:
        app: the app. Its lifespan starts and stops the page too: whatever serves it has to run that, as uvicorn does.
        artifact: a folder, or `owner/name[@revision]` on the Hub, or a Searcher that was opened from one.
        path: where the page is in the app. "/" only as the last route, as it takes every path.
        originals: folders that hold original files of the gallery.
        options: fields of `ServerSettings` that do not concern an address of its own, such as `root_path` and
            `accounts`.

    Raises LookalikeError for a path that does not start with "/", and the errors of `Searcher.open`.
    """
    if not path.startswith("/"):
        raise LookalikeError(f"the path of the page must start with a slash, such as /lookalike, not {path!r}.")
    reach_this_machine()
    # The other app knows its own names, and so does whoever stands before it.
    settings = ServerSettings(**{"allowed_hosts": ("*",), **options})
    uploads = open_uploads(settings.uploads)
    blocks = create_app(artifact if isinstance(artifact, Searcher) else Searcher.open(artifact), originals)
    route = mount_page(app, blocks, path.rstrip("/") or "/", settings, uploads)
    route.app = Mounted(wrapped(Mounted.back(route.app), settings))
    METRICS.follow(blocks)
    return blocks
