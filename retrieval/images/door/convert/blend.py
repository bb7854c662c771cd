"""From the colours of a file to sRGB on white: the last step of every conversion."""

from __future__ import annotations

from PIL import Image

from retrieval.images.door.convert.colour.icc import to_srgb
from retrieval.images.door.convert.pixels import Pixels


def to_rgb(pixels: Pixels) -> Image.Image:
    """Convert to sRGB, and blend with white by the alpha. Returns the same object if nothing is to be done."""
    encoding = pixels.encoding
    rgb = encoding.image_to_srgb(pixels.colour) if encoding else to_srgb(pixels.colour, pixels.profile)
    if pixels.alpha is None:
        return rgb
    blended = Image.new("RGB", rgb.size, "white")
    blended.paste(rgb, mask=pixels.alpha)
    return blended
