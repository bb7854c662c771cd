"""Explain: why two pictures are similar, exactly, as a sum over the parts of each.

The embedding of a network that ends in global average pooling and a linear layer, or none, is a sum over the cells of
its feature map, and so is the cosine with any other vector: a heat map whose sum, with what the layer's bias adds, is
the score of the search (class activation mapping, Zhou et al. 2016, arXiv:1512.04150; between two pictures Stylianou
et al., "Visualizing Deep Similarity Networks", WACV 2019, arXiv:1901.00536). Nothing is estimated. A cell stands for
a place in the picture as far as the network keeps places apart: what a cell sees reaches beyond its own square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.encoders.base import Explainer
from retrieval.encoders.image import Cells
from retrieval.errors import EncoderError

_SHORTEST = 1e-12  # length of an embedding, as torch's normalize has it: one of zeros has the cosine 0 with all

Vector = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of a picture's width and height; below 0 and above 1 is padding around it."""


@dataclass(frozen=True)
class HeatMap:
    """What each cell of a picture adds to its cosine with a vector, in units of that cosine; negative where it takes.

    `cells` is (H, W) float32, a grid of equal cells over `box`, the part of the picture that the network was shown;
    `bias` is what the linear layer's bias adds, which no cell does.
    """

    cells: npt.NDArray[np.float32]
    bias: float
    box: Box

    @property
    def sum(self) -> float:
        """The cosine: all cells and the bias."""
        return float(self.cells.sum(dtype=np.float64)) + self.bias


@dataclass(frozen=True)
class Explanation:
    """Why a query and a hit are similar.

    `cosine` is that of the query's vector with the hit's as indexed, in [-1, 1]: the score of the search.
    `query` splits it over the query's picture: its sum is the cosine, within 1e-5, where the query's vector was made
    of that picture. `hit` splits the cosine of the query's vector and the hit's picture at hand; where that is a
    thumbnail of what was indexed, its sum differs a little.
    `pairs`, (Hq * Wq, Hh * Wh) float32, is what each cell of one picture together with each cell of the other adds to
    the cosine of the two pictures at hand, row by row of both grids; the rest of that cosine is `pairs_bias`.
    """

    cosine: float
    query: HeatMap
    hit: HeatMap
    pairs: npt.NDArray[np.float32]
    pairs_bias: float


def explain(
    encoder: Explainer, query: Image.Image, hit: Image.Image, hit_vector: Vector, query_vector: Vector | None = None
) -> Explanation:
    """Split the similarity of two RGB pictures over their parts.

    Args:
        encoder: what the index was made with.
        query: the picture that was searched with; for an image of the gallery, its thumbnail.
        hit: the picture that was found, as far as it is at hand: its thumbnail.
        hit_vector: (D,) float32, the hit's row of the index.
        query_vector: (D,) float32 of unit length, what was searched with; None makes it of the picture.

    Raises:
        EncoderError: the encoder's similarity is no sum over parts (`Encoder.explains`), or it prepares pictures in a
            way that is not known here; in one sentence that can be shown to a person.
    """
    boxes = [seen_box(encoder.data_config, picture.size) for picture in (query, hit)]
    of_query, of_hit = _to_unit_length(encoder.cells(query)), _to_unit_length(encoder.cells(hit))
    asked = of_query.embedding if query_vector is None else query_vector.astype(np.float64)
    return Explanation(
        cosine=float(asked @ hit_vector),
        query=_heat_map(of_query, hit_vector, boxes[0]),
        hit=_heat_map(of_hit, asked, boxes[1]),
        pairs=(of_query.parts @ of_hit.parts.T).astype(np.float32),
        pairs_bias=float(of_query.bias @ of_hit.embedding + of_query.parts.sum(axis=0) @ of_hit.bias),
    )


def seen_box(data_config: dict[str, Any], size: tuple[int, int]) -> Box:
    """The part of a (width, height) picture that timm's transform of that configuration shows to the network.

    Raises EncoderError for a crop mode that is none of timm's.
    """
    mode = data_config["crop_mode"]
    shown = tuple(data_config["input_size"])[:0:-1]  # (width, height), of (channels, height, width)
    scaled = [math.floor(side / data_config["crop_pct"]) for side in shown]
    ratios = [side / target for side, target in zip(size, scaled, strict=True)]
    if mode == "squash":
        resized = scaled
    elif mode == "border":
        resized = [round(side / max(ratios)) for side in size]
    elif mode == "center" and scaled[0] == scaled[1]:
        # torchvision's own rule for a square, which cuts off what timm's would round.
        resized = [int(scaled[0] * side / min(size)) for side in size]
    elif mode == "center":
        resized = [round(side / min(ratios)) for side in size]
    else:
        raise EncoderError(
            f"which part of a picture the encoder sees is not known: its crop mode is {mode!r}, not squash, center or "
            "border."
        )
    (left, right), (top, bottom) = (_span(*sides) for sides in zip(resized, shown, strict=True))
    return left, top, right, bottom


def _span(found: int, shown: int) -> tuple[float, float]:
    """Where a centred crop, or padding, of `shown` pixels begins and ends on a side of `found`, as shares of it."""
    start = round((found - shown) / 2) if found >= shown else -((shown - found) // 2)
    return start / found, (start + shown) / found


def _to_unit_length(cells: Cells) -> Cells:
    length = max(float(np.linalg.norm(cells.embedding)), _SHORTEST)
    return Cells(cells.parts / length, cells.bias / length, cells.grid)


def _heat_map(cells: Cells, vector: npt.NDArray[Any], box: Box) -> HeatMap:
    heat = (cells.parts @ vector).reshape(cells.grid)
    return HeatMap(heat.astype(np.float32), float(cells.bias @ vector), box)
