"""Part of a picture, given as fractions of its sides."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from retrieval.errors import ImageError, short_repr

Region = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, as fractions of its width and height in [0, 1]."""


def as_region(value: object) -> Region:
    """Validate an untrusted value as a region; raises ImageError unless it is a list or tuple of four valid numbers."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, list | tuple) and len(value) == 4:
        left, top, right, bottom = (v if _is_number(v) else math.nan for v in value)
        if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return float(left), float(top), float(right), float(bottom)
    found = short_repr(value, 100)
    raise ImageError(
        f"a region must be [left, top, right, bottom], as fractions of the picture from 0 to 1, not {found}"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.floating) and not isinstance(value, bool)


def crop(image: Image.Image, region: object) -> Image.Image:
    """Crop an image to a region, in whole pixels and at least one. Raises ImageError like `as_region`."""
    left, top, right, bottom = as_region(region)
    # Rounded: a fraction that passed through other programs may fall just short of the intended pixel.
    x, y = min(round(left * image.width), image.width - 1), min(round(top * image.height), image.height - 1)
    return image.crop((x, y, max(round(right * image.width), x + 1), max(round(bottom * image.height), y + 1)))
