"""A decoded picture whose colours are still those of its file."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from retrieval.images.door.convert.colour.encoding import Encoding


@dataclass
class Pixels:
    """Colour and transparency, 8 bits each, and what the file says of its colours."""

    colour: Image.Image  # mode L, RGB, CMYK or LAB
    alpha: Image.Image | None = None  # mode L; None for an opaque picture
    profile: bytes | None = None  # ICC
    encoding: Encoding | None = None  # counts instead of the profile
