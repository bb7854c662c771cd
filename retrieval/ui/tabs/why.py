"""The "Why?" dialogue: each picture of the query beside the result, with heat maps of their cosine similarity."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.encoders.explain import HeatMap
from retrieval.errors import EncoderError
from retrieval.images.door.views import within
from retrieval.search import Part, Searcher, is_indexed
from retrieval.ui import strings
from retrieval.ui.pieces.cards import Cards, Tile, name_of
from retrieval.ui.pieces.html import render
from retrieval.ui.pieces.thumbnails import PREVIEW, data_url
from retrieval.ui.visit import Asked

_SAME = 5e-5  # cosines closer than this look the same to four digits


@dataclass(frozen=True)
class _Figure:
    """One of the two pictures, as the template shows it."""

    title: str
    name: str
    picture: Image.Image
    heat: HeatMap
    cosine: float
    exactly: str
    """The sentence to use if the map adds up to the cosine."""
    thumbnail: bool
    """Whether the map was made from a thumbnail."""
    tile: Tile | None
    """The image of the gallery that it is; None for a visitor's picture."""

    @property
    def cells(self) -> float:
        """What the cells add up to."""
        return float(self.heat.cells.sum(dtype=np.float64))

    @property
    def sentence(self) -> str:
        """What the map adds up to, and whether that is the cosine."""
        return self.exactly if abs(self.heat.sum - self.cosine) < _SAME else strings.WHY_SUM_NEAR


class Why:
    """Renders the content of the dialogue."""

    def __init__(self, searcher: Searcher, cards: Cards) -> None:
        self._searcher, self._cards = searcher, cards

    def of(self, asked: Asked, row: int) -> str:
        """Why a row is similar to the query; if the encoder cannot explain it, the reason why not."""
        pictures = [part for part in asked.parts if not part.words]
        name = name_of(self._searcher.gallery.take([row])[0])
        notes = [strings.WHY_SEVERAL] if len(asked.parts) > 1 else []
        notes += [strings.WHY_WORDS] if len(pictures) < len(asked.parts) else []
        pairs, cannot = [], ""
        try:
            pairs = [self._pair(part, row, name, alone=len(asked.parts) == 1) for part in pictures]
        except EncoderError as error:
            cannot = str(error)
        return render("why", notes=notes, pairs=pairs, cannot=cannot, numbers=_numbers, data_url=data_url)

    def _pair(self, part: Part, row: int, name: str, *, alone: bool) -> dict[str, Any]:
        """A picture of the query and the result; `largest`, of the strongest cell, scales their colours."""
        found = Part(row=row)
        why = self._searcher.explain_parts(part, found)
        largest = max(float(np.abs(each.cells).max()) for each in (why.query, why.hit)) or 1.0
        exactly = strings.WHY_SUM if alone else strings.WHY_SUM_ALONE
        asked = f"{self._cards.name(part)} ({strings.UNLIKED})" if part.weight < 0 else self._cards.name(part)
        figures = [
            _Figure(title, called, self._shown(each), heat, why.cosine, exactly, thumbnail, self._tile(each))
            for title, called, each, heat, thumbnail in (
                (strings.WHY_QUERY, asked, part, why.query, is_indexed(part)),
                (strings.WHY_HIT, name, found, why.hit, True),
            )
        ]
        return {"pairs": why.pairs, "largest": largest, "figures": figures}

    def _shown(self, part: Part) -> Image.Image:
        return self._searcher.picture(part, within(PREVIEW))

    def _tile(self, part: Part) -> Tile | None:
        return None if part.row is None else self._cards.tiles([part.row])[0]


def _numbers(values: npt.NDArray[np.float32]) -> str:
    return json.dumps([[round(float(value), 5) for value in row] for row in values], separators=(",", ":"))
