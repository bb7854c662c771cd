"""The page of an artifact, which follows it: a newer version is shown as soon as there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr

from retrieval.console import say
from retrieval.hub.references import is_reference, parse_reference
from retrieval.search import Searcher
from retrieval.ui.footprint import give_memory_back
from retrieval.ui.originals import Originals
from retrieval.ui.page import create_app
from retrieval.ui.reload import reloading
from retrieval.ui.server.several.job import Shown
from retrieval.ui.serving import Live, warm_up


@contextmanager
def page_of(
    shown: Shown, commit: str | None = None, pictures: str | None = None, *, aloud: bool = True
) -> Iterator[gr.Blocks]:
    """The Blocks that shows an artifact, after its first search; it follows the artifact until the block ends.

    An artifact of the Hub is opened at `commit`, if that is given. Thumbnails are written to the folder `pictures`,
    which several processes may share, or to one that ends with this process. With `aloud`, advice is printed.

    Raises the errors of `Searcher.open`, and SourceError for a folder of originals that does not exist.
    """
    searcher = Searcher.open(_pinned(shown.artifact, commit), sha256=shown.sha256)
    live = Live(searcher, Originals(shown.originals), pictures)
    app = create_app(live, allow_private=shown.allow_private)
    app.live = live
    if aloud and live.originals.misplaced(searcher.gallery):
        listed = ", ".join(shown.originals)
        say(f"note: no original was found in {listed}: give the folder that the artifact was built from.")
    warm_up(searcher)
    give_memory_back()
    with reloading(live, shown.artifact, shown.refresh, shown.sha256):
        yield app


def _pinned(artifact: str, commit: str | None) -> str:
    if commit is None or Path(artifact).is_dir() or not is_reference(artifact):
        return artifact
    return f"{parse_reference(artifact).repo}@{commit}"
