"""GIF (GIF89a specification)."""

from __future__ import annotations

from PIL import Image, ImageChops

from retrieval.images.door.convert import plain
from retrieval.images.door.convert.pixels import Pixels


def read(image: Image.Image, data: bytes | None) -> Pixels:
    """Decode the first frame of an opened GIF; modifies `image`. What the frame does not cover of its canvas is
    transparent, as in every browser (the specification's background colour, section 18, is not used)."""
    tile = getattr(image, "tile", None)
    frame = tile[0].extents if tile else None
    pixels = plain.read(image, data)
    if frame and frame != (0, 0, *pixels.colour.size):
        covered = Image.new("L", pixels.colour.size, 0)
        covered.paste(255, frame)
        pixels.alpha = ImageChops.darker(covered, pixels.alpha) if pixels.alpha else covered
    return pixels
