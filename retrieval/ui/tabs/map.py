"""The map tab: the gallery in two dimensions, drawn by the browser; a click finds similar images."""

from __future__ import annotations

import base64
from typing import Any

import gradio as gr
import numpy as np

from retrieval.arrays import Ids
from retrieval.images.gallery import Gallery
from retrieval.images.stored.encoded import encode
from retrieval.images.values import Values
from retrieval.images.wide import Wide
from retrieval.ui import strings
from retrieval.ui.pieces.cards import name_of
from retrieval.ui.pieces.html import for_scripts, render, script
from retrieval.ui.serving import Live, Served

_NO_LABEL = 65_535
_LEGEND = 12  # the most common labels


class MapTab:
    """The map tab; a click on a point finds similar images."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.page = gr.HTML(
            map_html(live.now),
            js_on_load=script("acts.js", "map.js"),
            server_functions=[for_scripts(self.points), for_scripts(self.look)],
            elem_id="map",
            apply_default_css=False,
        )

    def points(self, _: Any) -> dict[str, Any]:
        """The points, the legend, and the version of the artifact that the rows belong to.

        Points: rows (N,) little-endian uint32, places (N, 2) float32 and labels (N,) uint16, each in base64. Legend:
        the most common labels, how many more there are, and the name for images without a label.
        """
        served = self._live.now
        gallery, (rows, places) = served.searcher.gallery, served.map
        codes, names = _labels(gallery, rows)
        return {
            "of": served.revision,
            "rows": _encoded(rows.astype("<u4")),
            "places": _encoded(places.astype("<f4")),
            "labels": _encoded(np.minimum(codes, _NO_LABEL).astype("<u2")),
            "legend": names[:_LEGEND],
            "others": strings.MAP_OTHERS.format(count=len(names) - _LEGEND) if len(names) > _LEGEND else "",
            "none": strings.WITHOUT_LABEL if (codes == _NO_LABEL).any() else "",
        }

    def look(self, point: dict[str, Any]) -> dict[str, str]:
        """The name and the URL of the thumbnail of a point; `point` is its `row`, and the version it is `of`."""
        served = self._live.now
        gallery = served.searcher.gallery
        row = served.row(str(point["of"]), int(point["row"]))
        place = min(max(row, 0), len(gallery) - 1)
        return {"name": name_of(gallery.take([place])[0]), "picture": served.thumbnails.url(place, ".")}


def _labels(gallery: Gallery, rows: Ids) -> tuple[Ids, list[str]]:
    """The number of the label of each row, from 0 for the most common one, or _NO_LABEL; and all labels, by number.

    Of a large gallery with very many labels, those of the rows alone are counted.
    """
    values = gallery.column("label")
    if isinstance(values, Wide):
        values = Values("label", encode(gallery.taken(rows)["label"]))
        rows = np.arange(len(rows))
    common = [code for code in values.common().tolist() if values.counts()[code]]
    number = np.full(len(values.texts) + 1, _NO_LABEL)  # the last one is that of -1, no label
    number[common] = np.arange(len(common))
    return number[values.codes[rows]], [values.texts[code] for code in common]


def map_html(served: Served) -> str:
    """The tab before its points are there."""
    return render("map", method=served.map_method)


def _encoded(values: Any) -> str:
    return base64.b64encode(values.tobytes()).decode()
