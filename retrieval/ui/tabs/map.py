"""The map: the gallery in two dimensions, drawn by the browser; a click searches."""

from __future__ import annotations

import base64
from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from retrieval.arrays import Ids, Vectors
from retrieval.artifact.manifest import read_manifest
from retrieval.artifact.map import PCA, pca
from retrieval.search import Searcher
from retrieval.ui import strings
from retrieval.ui.pieces.cards import name_of
from retrieval.ui.pieces.html import attributes, for_scripts, script, text
from retrieval.ui.pieces.thumbnails import Thumbnails

_POINTS = 50_000  # what a browser draws without a jolt
_NO_LABEL = 65_535
_LEGEND = 12  # labels, the most common


class MapTab:
    """The tab of the map, where a click on a point searches for its like."""

    def __init__(self, searcher: Searcher, thumbnails: Thumbnails, method: str) -> None:
        self._searcher, self._thumbnails = searcher, thumbnails
        about = strings.MAP_ABOUT.format(method=strings.MAP_METHODS[method])
        canvas = attributes(tabindex=0, role="application", aria_label=strings.MAP_LABEL)
        gr.HTML(
            f'<p>{text(about)}</p><div class="map"><canvas {canvas}></canvas><div class="tip" aria-live="polite"></div>'
            f'<div class="zoom"><button {attributes(data_zoom=2, aria_label=strings.MAP_CLOSER)}>+</button>'
            f"<button {attributes(data_zoom=0.5, aria_label=strings.MAP_FARTHER)}>−</button></div>"
            f'<p class="loading">{text(strings.MAP_LOADING)}</p></div><ul class="legend"></ul>',
            js_on_load=script("acts.js", "map.js"),
            server_functions=[for_scripts(self.points), for_scripts(self.look)],
            elem_id="map",
            apply_default_css=False,
        )

    @cached_property
    def _rows(self) -> Ids:
        """The images that are shown: of very large galleries some, spread over all."""
        count = len(self._searcher.gallery)
        return np.arange(0, count, -(-count // _POINTS))

    @cached_property
    def _places(self) -> Vectors:
        map_ = self._searcher.map
        return pca(self._searcher.store.vectors(self._rows)) if map_ is None else map_[self._rows]

    def points(self, _: Any) -> dict[str, Any]:
        """The points: their rows as little-endian uint32, the (N, 2) places as float32 and the labels as uint16, all in
        base64; and the legend: the most common labels, how many others there are, and what stands for none."""
        gallery = self._searcher.gallery
        counts = gallery.counts("label")
        code_of = {label: code for code, label in enumerate(counts)}
        codes = np.array([code_of.get(gallery.labels[row] or "", _NO_LABEL) for row in self._rows])
        return {
            "rows": _encoded(self._rows.astype("<u4")),
            "places": _encoded(self._places.astype("<f4")),
            "labels": _encoded(np.minimum(codes, _NO_LABEL).astype("<u2")),
            "legend": list(counts)[:_LEGEND],
            "others": strings.MAP_OTHERS.format(count=len(counts) - _LEGEND) if len(counts) > _LEGEND else "",
            "none": strings.WITHOUT_LABEL if (codes == _NO_LABEL).any() else "",
        }

    def look(self, row: int) -> dict[str, str]:
        """What to show of a point."""
        place = min(max(int(row), 0), len(self._searcher.gallery) - 1)
        values = self._searcher.gallery.take([place])[0]
        return {"name": name_of(values), "picture": self._thumbnails.url(place, ".")}


def map_method(folder: Path) -> str:
    """How the map of an artifact is made: the method of the one that it has, or PCA."""
    return str(read_manifest(folder).get("map", {}).get("method", PCA))


def _encoded(values: Any) -> str:
    return base64.b64encode(values.tobytes()).decode()
