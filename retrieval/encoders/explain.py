"""Explain why two images are similar: an exact decomposition of their cosine similarity over the cells of each image.

If a network ends in global average pooling and at most a linear layer, its embedding is a sum over the cells of its
feature map, and so is the cosine with any other vector. The result is a heat map whose sum, plus the contribution of
the layer's bias, equals the search score (class activation mapping, Zhou et al. 2016, arXiv:1512.04150; for pairs of
images, Stylianou et al., "Visualizing Deep Similarity Networks", WACV 2019, arXiv:1901.00536). Nothing is estimated.
A cell marks a place in the image only as far as the network preserves location: its receptive field exceeds its square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.arrays import Floats, Vectors
from retrieval.encoders.base import Cells, Explainer, resize_by, span
from retrieval.errors import EncoderError

_SHORTEST = 1e-12  # smallest norm to divide by, as in torch's normalize: a zero embedding has cosine 0 with everything

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as fractions of an image's width and height; below 0 and above 1 is padding around it."""


@dataclass(frozen=True)
class HeatMap:
    """The contribution of each cell of an image to its cosine with a vector, in cosine units; may be negative.

    `cells` is (H, W) float32, a grid of equal cells over `box`, the part of the image that the network saw. `bias` is
    the contribution of the linear layer's bias, which belongs to no cell.
    """

    cells: Floats
    bias: float
    box: Box

    @property
    def sum(self) -> float:
        """The cosine: the sum of all cells and the bias."""
        return float(self.cells.sum(dtype=np.float64)) + self.bias


@dataclass(frozen=True)
class Explanation:
    """Why a query and a hit are similar.

    `cosine` is the search score: the cosine of the query's vector and the hit's indexed vector, in [-1, 1].
    `query` splits it over the query image; if the query's vector was computed from that image, the sum equals the
    cosine within 1e-5. `hit` splits the cosine of the query's vector and the given hit image; if that is a thumbnail
    of the indexed image, the sum differs slightly.
    `pairs`, (Hq * Wq, Hh * Wh) float32, is the contribution of each pair of cells, one from each image, to the cosine
    of the two given images, row by row of both grids; `pairs_bias` is the rest of that cosine.
    """

    cosine: float
    query: HeatMap
    hit: HeatMap
    pairs: Floats
    pairs_bias: float


def explain(
    encoder: Explainer, query: Image.Image, hit: Image.Image, hit_vector: Vectors, query_vector: Vectors | None = None
) -> Explanation:
    """Split the cosine similarity of two RGB images over their parts.

    Args:
        encoder: the encoder that built the index.
        query: the query image; for an image of the gallery, its thumbnail.
        hit: the hit's image as available, usually its thumbnail.
        hit_vector: (D,) float32, the hit's row of the index.
        query_vector: (D,) float32 of unit length, the vector searched with; None computes it from `query`.

    Raises:
        EncoderError: the encoder's similarity is not a sum over parts (`Encoder.explains`), or its crop mode is not
            supported. The message is one sentence that can be shown to a user.
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
    """The part of a (width, height) image that timm's transform with this configuration shows to the network.

    Raises EncoderError for an unknown crop mode.
    """
    mode = data_config["crop_mode"]
    shown = tuple(data_config["input_size"])[:0:-1]  # (width, height), of (channels, height, width)
    resize = resize_by({**data_config, "interpolation": "nearest"})
    if resize is None:
        raise EncoderError(
            f"cannot tell which part of a picture the encoder sees: its crop mode is {mode!r}, but only squash, center "
            "and border are supported."
        )
    resized = resize.size_of(*size)
    (left, right), (top, bottom) = (span(*sides) for sides in zip(resized, shown, strict=True))
    return left / resized[0], top / resized[1], right / resized[0], bottom / resized[1]


def _to_unit_length(cells: Cells) -> Cells:
    length = max(float(np.linalg.norm(cells.embedding)), _SHORTEST)
    return Cells(cells.parts / length, cells.bias / length, cells.grid)


def _heat_map(cells: Cells, vector: npt.NDArray[Any], box: Box) -> HeatMap:
    heat = (cells.parts @ vector).reshape(cells.grid)
    return HeatMap(heat.astype(np.float32), float(cells.bias @ vector), box)
