"""HEIC: libheif decodes, cuts out the clean aperture, turns and mirrors; the colour space is left to us."""

from __future__ import annotations

import struct

from PIL import Image

from retrieval.images.door.checks.blocks.boxes import all_boxes
from retrieval.images.door.convert import plain
from retrieval.images.door.convert.avif import encoding_of
from retrieval.images.door.convert.pixels import Pixels


def coded_pixels(data: bytes) -> int:
    """The pixels of the largest picture in the file: the one that is shown may be cut out of it."""
    sizes = (
        struct.unpack_from(">II", data, start + 4) for name, start, _ in all_boxes(data, "HEIC") if name == b"ispe"
    )
    return max((width * height for width, height in sizes), default=0)


def read(image: Image.Image, data: bytes | None) -> Pixels:
    """Decode an opened HEIC; modifies `image`. Without `data`, its colour space by number is not known.

    The EXIF orientation is no instruction in HEIF: `irot` and `imir` say how to turn (ISO/IEC 23008-12, A.2.3).
    """
    profile = image.info.get("icc_profile")
    plain.decode(image)
    pixels = plain.split(image)
    pixels.encoding = None if profile else encoding_of(data)
    return pixels
