"""From grey of 16 and 32 bits, as Pillow decodes it, to 8 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.images.door.convert.bands import boxes, by_bands


def from_16_bit(image: Image.Image, key: object, bits: int) -> tuple[Image.Image, Image.Image | None]:
    """Scale 16-bit grey to 8 bits (Pillow would clip at 255); alpha comes from the transparent value, if any."""
    white = 2**bits - 1
    table = ((np.minimum(np.arange(2**16), white) * 255 + white // 2) // white).astype(np.uint8)
    return by_bands(image, lambda values: table[values], "L"), opaque_but(image, key)


def opaque_but(image: Image.Image, key: object) -> Image.Image | None:
    """The alpha of 16-bit grey of which one value is transparent; None if there is no such value."""
    if not isinstance(key, int):
        return None
    return by_bands(image, lambda values: np.where(values == key, 0, 255).astype(np.uint8), "L")


def from_32_bit(image: Image.Image) -> Image.Image:
    """Scale 32-bit integers or floats to 8 bits, as documented in `open_image`.

    In bands of rows: all numbers in double precision would take eight times the memory of the picture.
    """
    values = np.asarray(image)
    bands = [slice(top, bottom) for _, top, _, bottom in boxes(*image.size)]
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
