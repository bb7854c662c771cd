"""Colours given by primaries and a curve, as PNG, AVIF and BMP give them without an ICC profile."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.images.door.convert.bands import BAND, by_bands
from retrieval.images.door.convert.colour import codes, hdr
from retrieval.images.door.convert.colour.codes import Points

_STEPS = 2**14


@dataclass(frozen=True)
class Encoding:
    """How the numbers of a picture become light; converts to sRGB."""

    points: Points
    curve: int | float  # a number of H.273, or, as a float, the exponent of a power

    @property
    def is_srgb(self) -> bool:
        """Whether there is nothing to convert."""
        return self.curve == 13 and self.keeps_hues

    @property
    def keeps_hues(self) -> bool:
        """Whether the primaries are those of sRGB, up to the digits that writers give."""
        return bool(np.abs(np.subtract(self.points, codes.SRGB_POINTS)).max() < 0.0015)

    @property
    def is_hdr(self) -> bool:
        """Whether white is not the brightest colour."""
        return self.curve in (codes.PQ, codes.HLG) and not isinstance(self.curve, float)

    def image_to_srgb(self, image: Image.Image) -> Image.Image:
        """Convert an image of mode L or RGB, to mode RGB; another mode is first converted to RGB as sRGB is."""
        if image.mode == "L" or (self.keeps_hues and not self.is_hdr):
            levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
            table = self.to_srgb(levels)[:, 0, 0].tolist()
            image = image.convert("RGB") if image.mode not in ("L", "RGB") else image
            return image.point(table * len(image.getbands())).convert("RGB")
        return by_bands(image.convert("RGB"), self.to_srgb, "RGB")

    def to_srgb(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Convert samples of shape (H, W, 3), uint8 or uint16 of the full range, to uint8."""
        light, back = _light(self.curve, samples.dtype.itemsize * 8), _back()
        result = np.empty(samples.shape, np.uint8)
        if self.keeps_hues and not self.is_hdr:
            np.take(back[_places(light)], samples, out=result, mode="clip")
            return result
        step = max(1, BAND // max(1, samples.shape[1]))
        for top in range(0, len(samples), step):
            linear = light[samples[top : top + step]]
            if self.is_hdr:
                linear = np.maximum(linear @ _matrix(self.points, codes.PRIMARIES[9]), 0)
                linear = hdr.tone_map(hdr.hlg_to_display(linear) if self.curve == codes.HLG else linear)
                linear = linear @ _matrix(codes.PRIMARIES[9], codes.SRGB_POINTS)
            else:
                linear = linear @ _matrix(self.points, codes.SRGB_POINTS)
            result[top : top + step] = back[_places(linear)]
        return result


def by_number(primaries: int, transfer: int) -> Encoding | None:
    """The encoding that two numbers of H.273 stand for; None where one is unknown or left open."""
    points = codes.PRIMARIES.get(primaries)
    if points is None or transfer not in (*codes.CURVES, codes.PQ, codes.HLG):
        return None
    return Encoding(points, transfer)


@lru_cache(maxsize=8)
def _light(curve: int | float, bits: int) -> npt.NDArray[np.float32]:
    """The light of each number."""
    levels = np.linspace(0, 1, 2**bits)
    if isinstance(curve, float):
        function = codes.power(curve)
    else:
        function = {codes.PQ: hdr.pq_to_linear, codes.HLG: hdr.hlg_to_scene}.get(curve) or codes.CURVES[curve]
    return function(levels).astype(np.float32)


def _places(linear: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Where in `_back` to look for each value."""
    return (np.clip(linear, 0, 1) * np.float32(_STEPS) + np.float32(0.5)).astype(np.uint16)


@lru_cache(maxsize=1)
def _back() -> npt.NDArray[np.uint8]:
    """sRGB bytes for light in steps of 1 / _STEPS."""
    return np.rint(codes.linear_to_srgb(np.linspace(0, 1, _STEPS + 1)) * 255).astype(np.uint8)


@lru_cache(maxsize=32)
def _matrix(points: Points, target: Points) -> npt.NDArray[np.float32]:
    """What rows of linear colours are multiplied by to get other primaries; Bradford's matrix adapts the white."""
    ours, theirs = _to_xyz(target), _to_xyz(points)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    scale = np.diag((bradford @ ours.sum(axis=1)) / (bradford @ theirs.sum(axis=1)))
    adapted = np.linalg.inv(bradford) @ scale @ bradford @ theirs
    matrix: npt.NDArray[np.float32] = (np.linalg.inv(ours) @ adapted).T.astype(np.float32)
    return matrix


def _to_xyz(points: Points) -> npt.NDArray[np.float64]:
    """The matrix from linear colours to XYZ (SMPTE RP 177); raises LinAlgError where they lie on one line."""
    xy = np.array(points).reshape(4, 2)
    xyz = np.column_stack([xy, 1 - xy.sum(axis=1)])
    white, colours = xyz[0] / xyz[0, 1], xyz[1:].T
    return colours * np.linalg.solve(colours, white)
