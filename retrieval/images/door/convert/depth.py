"""From grey of 16 and 32 bits, as Pillow decodes it, to 8 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

_BAND = 2**18  # pixels converted at a time


def from_16_bit(image: Image.Image, key: object, bits: int) -> tuple[Image.Image, Image.Image | None]:
    """Scale 16-bit grey to 8 bits (Pillow would clip at 255); alpha comes from the transparent value, if any."""
    values = np.asarray(image)
    white = 2**bits - 1
    table = ((np.minimum(np.arange(2**16), white) * 255 + white // 2) // white).astype(np.uint8)
    alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
    return Image.fromarray(table[values]), alpha


def from_32_bit(image: Image.Image) -> Image.Image:
    """Scale 32-bit integers or floats to 8 bits, as documented in `open_image`.

    In bands of rows: all numbers in double precision would take eight times the memory of the picture.
    """
    values = np.asarray(image)
    bands = [slice(top, top + _BAND // image.width + 1) for top in range(0, image.height, _BAND // image.width + 1)]
    low, high = _range([values[band] for band in bands])
    ends = (0.0, 1.0) if image.mode == "F" and low >= 0 and high <= 1 else (low, high)
    scaled = np.empty(values.shape, np.uint8)
    for band in bands:
        exact = values[band].astype(np.float64)  # for int32, and wide enough for the range of any float32
        np.nan_to_num(exact, copy=False, nan=low, posinf=high, neginf=low)
        exact -= ends[0]
        exact *= 255 / ((ends[1] - ends[0]) or 1)
        scaled[band] = np.rint(exact, out=exact)
    return Image.fromarray(scaled)


def _range(bands: list[npt.NDArray[np.generic]]) -> tuple[float, float]:
    """The smallest and the largest finite number; zeros if there is none."""
    low, high = np.inf, -np.inf
    for band in bands:
        finite = band[np.isfinite(band)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 0.0)
