"""What a search asks of an encoder; any object that keeps these promises will do. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image


class ImageEncoder(Protocol):
    """Turns pictures into unit vectors."""

    @property
    def dim(self) -> int:
        """D, how many numbers an embedding has: as many as the vectors of the store."""

    @property
    def name(self) -> str:
        """What it is called where a person reads it."""

    @property
    def fingerprint(self) -> str:
        """The same for two encoders that give the same vectors."""

    def embed_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """N RGB images to (N, D) float32 rows of unit length. Has to be safe to call from several threads."""


@runtime_checkable
class Explainer(Protocol):
    """An encoder whose embeddings may be split over the cells of a feature map (see `retrieval.encoders.explain`)."""

    @property
    def explains(self) -> bool:
        """Whether it can."""

    @property
    def data_config(self) -> dict[str, Any]:
        """timm's configuration of the preprocessing: input size, crop mode and share."""

    def cells(self, image: Image.Image) -> Any:
        """The embedding of an RGB image as a sum over cells, `retrieval.encoders.image.Cells`."""
