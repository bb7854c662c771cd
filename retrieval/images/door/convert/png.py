"""PNG (Portable Network Graphics Specification, third edition)."""

from __future__ import annotations

from PIL import Image

from retrieval.images.door.convert import plain
from retrieval.images.door.convert.pixels import Pixels


def read(image: Image.Image, data: bytes | None) -> Pixels:
    """Decode an opened PNG; modifies `image`."""
    tile = getattr(image, "tile", None)
    _fit_key(image, tile[0].args if tile else None)
    return plain.read(image, data)


def _fit_key(image: Image.Image, rawmode: object) -> None:
    """Give the transparent colour (section 11.3.1.1) the depth that Pillow gives the pixels: it leaves it as stored."""
    key = image.info.get("transparency")
    if isinstance(key, int) and rawmode in ("L;2", "L;4"):
        image.info["transparency"] = key * (85 if rawmode == "L;2" else 17)
    elif isinstance(key, tuple) and rawmode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)
