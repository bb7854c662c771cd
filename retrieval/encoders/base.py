"""What search needs to know of an encoder; any object that implements this works. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.arrays import Numbers


class ImageEncoder(Protocol):
    """Encodes images as unit vectors."""

    @property
    def dim(self) -> int:
        """D, the dimension of an embedding, equal to that of the vectors in the store."""

    @property
    def name(self) -> str:
        """The name shown to users."""

    @property
    def fingerprint(self) -> str:
        """Equal for two encoders that give the same vectors."""

    def embed_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """N RGB images to (N, D) float32 rows of unit length. Must be thread-safe."""


@dataclass(frozen=True)
class Cells:
    """An embedding before normalisation, as the sum of the contributions of each feature map cell.

    `parts` is (H * W, D) float64, row by row of the map, `bias` (D,) float64, `grid` (H, W).
    """

    parts: Numbers
    bias: Numbers
    grid: tuple[int, int]

    @property
    def embedding(self) -> Numbers:
        """The sum of the parts and the bias, (D,) float64."""
        total: Numbers = self.parts.sum(axis=0) + self.bias
        return total


@runtime_checkable
class Explainer(Protocol):
    """An encoder that may be able to split an embedding over feature map cells (see `retrieval.encoders.explain`)."""

    @property
    def explains(self) -> bool:
        """Whether this encoder can."""

    @property
    def data_config(self) -> dict[str, Any]:
        """timm's preprocessing configuration: input size, crop mode and crop fraction."""

    def cells(self, image: Image.Image) -> Cells:
        """The embedding of an RGB image as a sum over cells."""


@dataclass(frozen=True)
class Resize:
    """How a picture is resized, with Pillow, as the first step of preprocessing. A second time changes nothing."""

    rule: str
    """`squash`: to this size. `cover` and `inside`: in proportion, so that the picture covers this size or fits into
    it. `shrink`: as `inside`, but a smaller picture keeps its size."""
    width: int
    height: int
    filter: int
    """A filter of `PIL.Image.Resampling`."""
    gap: float | None = None
    """Pillow's `reducing_gap`."""

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """The width and height to which a picture of this size is resized, rounded as timm and torchvision do.

        Both are at least 1, where timm fails for a very narrow picture.
        """
        if self.rule == "squash":
            return self.width, self.height
        if self.rule == "cover" and self.width == self.height:  # torchvision's rule for squares: it truncates
            short = min(width, height)
            long = int(self.width * max(width, height) / short)
            return (self.width, long) if width <= height else (long, self.width)
        if self.rule == "shrink":
            scale = min(1.0, self.width / max(width, height))
            return max(1, round(width * scale)), max(1, round(height * scale))
        ratios = width / self.width, height / self.height
        ratio = min(ratios) if self.rule == "cover" else max(ratios)
        return max(1, round(width / ratio)), max(1, round(height / ratio))


_RULES = {"squash": "squash", "center": "cover", "border": "inside"}


def resize_by(data_config: dict[str, Any]) -> Resize | None:
    """The first step of timm's transform with this configuration; None if it is not known."""
    rule, interpolation = _RULES.get(data_config["crop_mode"]), str(data_config["interpolation"]).upper()
    if rule is None or interpolation not in Image.Resampling.__members__:
        return None
    height, width = (math.floor(side / data_config["crop_pct"]) for side in data_config["input_size"][1:])
    return Resize(rule, width, height, int(Image.Resampling[interpolation]))


def span(found: int, shown: int) -> tuple[int, int]:
    """Start and end of a centred crop (or padding) of `shown` pixels on a side of `found` pixels."""
    start = round((found - shown) / 2) if found >= shown else -((shown - found) // 2)
    return start, start + shown


def resize_of(encoder: ImageEncoder) -> Resize | None:
    """What an encoder does first to each picture; None if it does not say. Pictures may be resized before it sees
    them, which gives the same vectors."""
    resize = getattr(encoder, "resize", None)
    return resize if isinstance(resize, Resize) else None
