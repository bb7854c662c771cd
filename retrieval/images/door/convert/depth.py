"""From grey of 16 and 32 bits, as Pillow decodes it, to 8 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image


def from_16_bit(image: Image.Image, key: object, bits: int) -> tuple[Image.Image, Image.Image | None]:
    """Scale 16-bit grey to 8 bits (Pillow would clip at 255); alpha comes from the transparent value, if any."""
    values = np.asarray(image)
    white = 2**bits - 1
    table = ((np.minimum(np.arange(2**16), white) * 255 + white // 2) // white).astype(np.uint8)
    alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
    return Image.fromarray(table[values]), alpha


def from_32_bit(image: Image.Image) -> Image.Image:
    """Scale 32-bit integers or floats to 8 bits, as documented in `open_image`."""
    values = np.asarray(image).astype(np.float64)  # exact for int32, and wide enough for the range of any float32
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return Image.fromarray(np.rint((values - low) * (255 / ((high - low) or 1))).astype(np.uint8))
