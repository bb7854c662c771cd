"""The encoder interface that search relies on; any object that implements it works. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image


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


@runtime_checkable
class Explainer(Protocol):
    """An encoder that may be able to split an embedding over feature map cells (see `retrieval.encoders.explain`)."""

    @property
    def explains(self) -> bool:
        """Whether this encoder can."""

    @property
    def data_config(self) -> dict[str, Any]:
        """timm's preprocessing configuration: input size, crop mode and crop fraction."""

    def cells(self, image: Image.Image) -> Any:
        """The embedding of an RGB image as a sum over cells: `retrieval.encoders.image.Cells`."""
