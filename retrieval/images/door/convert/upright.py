"""Turn a picture as its EXIF orientation says (EXIF 2.32, tag 274)."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from PIL import ExifTags, Image, ImageOps

from retrieval.images.door.convert.pixels import Pixels

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def forget_xmp(image: Image.Image) -> None:
    """Drop the XMP text: Pillow would turn a picture by an orientation there where EXIF has none, which no browser
    does (XMP repeats what EXIF says, and editors that turn the pixels often leave it as it was)."""
    if [image.info.pop(key) for key in ("xmp", "XML:com.adobe.xmp") if key in image.info]:
        image._exif = None  # Pillow may have read it while opening, with the orientation from the XMP text


def turn_by_exif(image: Image.Image) -> None:
    """Turn a decoded picture in place, to avoid copying one that is upright. Pillow applies a TIFF's orientation while
    loading, which leaves none to apply here."""
    forget_xmp(image)
    with contextlib.suppress(Exception):  # a broken EXIF block is no reason to reject the image
        ImageOps.exif_transpose(image, in_place=True)


def orientation(image: Image.Image) -> object:
    """The orientation in the EXIF block of a decoded image; None if there is none."""
    forget_xmp(image)
    with contextlib.suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation)
    return None


def turned(pixels: Pixels, orientation: object) -> Pixels:
    """The pixels, turned as an orientation from 1 to 8 says; any other value turns nothing."""
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return pixels
    alpha = None if pixels.alpha is None else pixels.alpha.transpose(turn)
    return replace(pixels, colour=pixels.colour.transpose(turn), alpha=alpha)
