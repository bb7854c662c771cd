"""Convert a large picture a band of rows at a time: as numbers, all of it would take many times its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Samples = npt.NDArray[Any]
BAND = 2**16  # pixels: their numbers stay in the processor's cache


def boxes(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, right and bottom of each band, from the top down."""
    rows = BAND // width + 1
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def by_bands(image: Image.Image, convert: Callable[[Samples], npt.NDArray[np.uint8]], mode: str) -> Image.Image:
    """An image of this mode, from what `convert` makes of the samples of each band: uint8, with as many rows."""
    result = Image.new(mode, image.size)
    for box in boxes(*image.size):
        result.paste(Image.fromarray(convert(np.asarray(image.crop(box)))), box)
    return result
