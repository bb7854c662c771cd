"""The tab of near-duplicates: groups of copies in the gallery, at a threshold that visitors choose."""

from __future__ import annotations

import csv
import io
from typing import Any

import gradio as gr

from retrieval.errors import QueryError
from retrieval.evaluation.duplicates import GATE, Group
from retrieval.evaluation.keep import lines_of
from retrieval.ui import strings
from retrieval.ui.pieces.cards import Cards, Tile
from retrieval.ui.pieces.controls import slider
from retrieval.ui.pieces.downloads import as_download
from retrieval.ui.pieces.errors import staying
from retrieval.ui.pieces.html import for_scripts, render, script
from retrieval.ui.serving import Live

_GROUPS = 20  # at a time
_SHOWN = 12  # images of a group


class DuplicatesTab:
    """The tab of near-duplicates; a click on an image finds similar ones."""

    def __init__(self, live: Live) -> None:
        self._live = live
        about = render("message", message=strings.DUPLICATES_ABOUT)
        gr.HTML(about, apply_default_css=False, elem_classes="about-tab")
        shown: gr.State = gr.State((GATE, 1))  # the threshold, and how many pages of its groups
        with gr.Row(elem_classes="controls"):
            options: dict[str, Any] = {"label": strings.THRESHOLD, "elem_id": "threshold", "min_width": 220}
            threshold = slider(GATE, 1, GATE, 0.01, **options)
            button = gr.Button(strings.FIND, variant="primary", elem_id="find", min_width=160)
        result = gr.HTML(
            "",
            js_on_load=script("acts.js", "files.js", "groups.js"),
            server_functions=[for_scripts(self.save)],
            elem_id="groups",
            apply_default_css=False,
        )
        # One at a time: a search uses all cores, and its answer is cached for everybody.
        options = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "duplicates"}
        options["outputs"] = [result, shown]
        asked = [button.click, threshold.release]
        gr.on(asked, staying(self.first, 2), threshold, trigger_mode="always_last", **options)
        result.more(staying(self.more, 2), shown, **options)

    def first(self, threshold: float) -> tuple[str, tuple[float, int]]:
        """The largest groups."""
        return self._page(threshold, 1), (threshold, 1)

    def more(self, shown: tuple[float, int]) -> tuple[str, tuple[float, int]]:
        """Another page of groups."""
        threshold, pages = shown
        return self._page(threshold, pages + 1), (threshold, pages + 1)

    def save(self, wanted: dict[str, Any]) -> dict[str, str]:
        """All groups at a threshold as CSV, for the page's script: name, type and content in base64.

        Only for a threshold that was searched already: this call does not wait in the queue, so it must not search.
        """
        served = self._live.now
        groups = served.find_groups.known(float(wanted["threshold"]))
        if groups is None:
            raise QueryError(strings.FIND_FIRST)
        text = io.StringIO(newline="")
        csv.writer(text).writerows(lines_of(groups, served.searcher.gallery))
        return as_download("duplicates.csv", "text/csv", text.getvalue().encode())

    def _page(self, threshold: float, pages: int) -> str:
        served = self._live.now
        groups = served.find_groups(threshold)
        if not groups:
            return render("message", message=strings.NO_GROUPS.format(threshold=f"{threshold:g}"))
        images = sum(len(group.rows) for group in groups)
        shown = [(len(group.rows), _shown(group, served.cards)) for group in groups[: pages * _GROUPS]]
        of = served.revision
        return render("groups", groups=shown, found=len(groups), images=images, threshold=threshold, of=of)


def _shown(group: Group, cards: Cards) -> list[tuple[Tile, float]]:
    """The first images of a group, each with its score."""
    return list(zip(cards.tiles(group.rows[:_SHOWN]), group.scores, strict=False))
