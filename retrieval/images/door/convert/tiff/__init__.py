"""TIFF: what Pillow reads wrong or not at all is read here, from the same packed bytes."""

from __future__ import annotations

import contextlib

from retrieval.images.door.convert.pixels import Pixels
from retrieval.images.door.convert.tiff.layout import YCBCR, Layout, read_layout, read_tags
from retrieval.images.door.convert.tiff.meaning import read_samples
from retrieval.images.door.convert.tiff.trusted import pillow_is_right
from retrieval.images.door.convert.tiff.ycbcr import read_ycbcr


def own_layout(data: bytes) -> Layout | None:
    """How the first page is stored, if it has to be read here; None if Pillow reads it right, or nobody can."""
    with contextlib.suppress(Exception):  # tags that make no sense: Pillow judges what it can do with them
        if tags := read_tags(data):
            layout = read_layout(tags)
            return None if pillow_is_right(layout) else layout
    return None


def read(data: bytes, layout: Layout) -> Pixels:
    """Decode the first page, not yet turned upright. Raises ValueError or OSError where it cannot be read."""
    return (read_ycbcr if layout.photometric == YCBCR else read_samples)(data, layout)
