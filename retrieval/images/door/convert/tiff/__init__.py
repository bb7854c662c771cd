"""TIFF: what Pillow reads wrong or not at all is read here, from the same packed bytes."""

from __future__ import annotations

import contextlib

from retrieval.images.door.convert.pixels import Pixels
from retrieval.images.door.convert.tiff.layout import COLOURS, PALETTE, YCBCR, Layout, read_layout, read_tags
from retrieval.images.door.convert.tiff.meaning import read_samples
from retrieval.images.door.convert.tiff.trusted import pillow_is_right
from retrieval.images.door.convert.tiff.ycbcr import read_ycbcr
from retrieval.images.door.formats import RefusedError
from retrieval.images.door.limits import MAX_PIXELS

_NOT_COLOURS = {
    4: "a transparency mask",
    10: "ITULab colours",
    32803: "the raw data of a camera",
    32844: "LogL luminance",
    32845: "LogLuv colours",
    34892: "the raw data of a camera",
}
_ADVICE = "save it as a TIFF of 8 or 16 bits per channel, or as a JPEG"


def own_layout(data: bytes) -> Layout | None:
    """How the first page is stored, if it has to be read here; None if Pillow reads it right, or nobody can.

    Raises RefusedError where it holds something else than colours.
    """
    layout = None
    with contextlib.suppress(Exception):  # tags that make no sense: Pillow judges what it can do with them
        if tags := read_tags(data):
            layout = read_layout(tags)
    if layout and (kind := _NOT_COLOURS.get(layout.photometric)):
        raise RefusedError(f"is a TIFF file of {kind}; {_ADVICE}")
    return layout if layout and not pillow_is_right(layout) else None


def read(data: bytes, layout: Layout) -> Pixels:
    """Decode the first page, not yet turned upright. Raises RefusedError or OSError where it cannot be read."""
    try:
        return (read_ycbcr if layout.photometric == YCBCR else read_samples)(data, layout)
    except ValueError as reason:
        raise RefusedError(f"is a TIFF file of an unusual kind ({reason}); {_ADVICE}") from reason


def memory_for(layout: Layout) -> int:
    """An upper estimate of the bytes that it takes to decode and convert such a page."""
    pixels = layout.width * layout.height
    shown = min(pixels, MAX_PIXELS)
    wide, tall = layout.chunk
    unpacked = wide * tall * (layout.chunks_across if layout.tiled else 1) * sum(layout.bits) / 8
    if layout.compression == 1:
        unpacked = unpacked if layout.tiled else 0
    elif layout.compression not in (8, 32946):
        unpacked *= 2  # Pillow's and ours
    planes = 4 if layout.photometric == YCBCR and layout.planar else 0
    stored = 3 if COLOURS[layout.photometric] == 1 and layout.photometric != PALETTE else 10
    alpha = bool(layout.alpha)
    return int(unpacked + pixels * (stored + planes + 3 * alpha) + shown * (8 + 4 * alpha)) + 2**24
