"""The map tab: the gallery in two dimensions, drawn by the browser; a click finds similar images."""

from __future__ import annotations

import base64
from functools import cached_property
from typing import Any

import gradio as gr
import numpy as np

from retrieval.arrays import Ids, Vectors
from retrieval.artifact.load import Artifact
from retrieval.artifact.map import PCA, pca
from retrieval.search import Searcher
from retrieval.ui import strings
from retrieval.ui.pieces.cards import name_of
from retrieval.ui.pieces.html import for_scripts, render, script
from retrieval.ui.pieces.thumbnails import ThumbnailFiles

_POINTS = 50_000  # as many as a browser draws smoothly
_NO_LABEL = 65_535
_LEGEND = 12  # the most common labels


class MapTab:
    """The map tab; a click on a point finds similar images."""

    def __init__(self, searcher: Searcher, thumbnails: ThumbnailFiles, method: str) -> None:
        self._searcher, self._thumbnails = searcher, thumbnails
        gr.HTML(
            render("map", method=method),
            js_on_load=script("acts.js", "map.js"),
            server_functions=[for_scripts(self.points), for_scripts(self.look)],
            elem_id="map",
            apply_default_css=False,
        )

    @cached_property
    def _rows(self) -> Ids:
        """The rows that are shown: all, or for a very large gallery an evenly spread sample."""
        count = len(self._searcher.gallery)
        return np.arange(0, count, -(-count // _POINTS))

    @cached_property
    def _places(self) -> Vectors:
        map_ = self._searcher.map
        return pca(self._searcher.store.vectors(self._rows)) if map_ is None else map_[self._rows]

    def points(self, _: Any) -> dict[str, Any]:
        """The points and the legend.

        Points: rows (N,) little-endian uint32, places (N, 2) float32 and labels (N,) uint16, each in base64. Legend:
        the most common labels, how many more there are, and the name for images without a label.
        """
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
        """The name and the URL of the thumbnail of a point."""
        place = min(max(int(row), 0), len(self._searcher.gallery) - 1)
        values = self._searcher.gallery.take([place])[0]
        return {"name": name_of(values), "picture": self._thumbnails.url(place, ".")}


def map_method(artifact: Artifact) -> str:
    """How the map was made: by the method in the artifact's manifest, or else by PCA."""
    return str(artifact.manifest.get("map", {}).get("method", PCA))


def _encoded(values: Any) -> str:
    return base64.b64encode(values.tobytes()).decode()
