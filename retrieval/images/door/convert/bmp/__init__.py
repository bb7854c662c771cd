"""BMP: run lengths, bit fields and colour spaces that Pillow reads wrong or not at all."""

from __future__ import annotations

import contextlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.images.door.convert import plain
from retrieval.images.door.convert.bmp.header import Header, palette, profile, read_header
from retrieval.images.door.convert.bmp.runs import read_runs
from retrieval.images.door.convert.pixels import Pixels

Bytes = npt.NDArray[np.uint8]


def own_header(data: bytes) -> Header | None:
    """How the picture is stored, if it has to be read here; None if Pillow reads it right, or nobody can."""
    header = read_header(data)
    return header if header and header.is_ours else None


def read_own(data: bytes, header: Header) -> Pixels:
    """Decode a picture with such a header. Raises OSError or ValueError where it cannot be read."""
    if header.is_run_length:
        pixels = read_runs(data, header)
        return _finished(data, header, pixels if header.bits == 24 else palette(data, header)[pixels], None)
    row_bytes = (header.width * header.bits + 31) // 32 * 4
    if header.start + row_bytes * header.height > len(data):
        raise OSError("the file ends before its pixels do")
    rows = np.frombuffer(data, np.uint8, row_bytes * header.height, header.start).reshape(header.height, row_bytes)
    if header.bits == 2:
        numbers = np.stack([rows >> shift & 3 for shift in (6, 4, 2, 0)], axis=-1).reshape(header.height, -1)
        return _finished(data, header, palette(data, header)[numbers[:, : header.width]], None)
    numbers = rows.view("<u2" if header.bits == 16 else "<u4")[:, : header.width]
    colours = np.stack([_field(numbers, mask) for mask in header.masks[:3]], axis=-1)
    alpha = _field(numbers, header.masks[3]) if header.masks[3] else None
    return _finished(data, header, colours, alpha)


def read(image: Image.Image, data: bytes | None) -> Pixels:
    """Decode an opened BMP that Pillow reads right; modifies `image`."""
    return _with_colours(plain.read(image, data), data or b"")


def _field(numbers: npt.NDArray[np.uint32], mask: int) -> Bytes:
    """The bits of a mask as numbers from 0 to 255, rounded; zeros where the mask is empty."""
    if not mask:
        return np.zeros(numbers.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    most = mask >> shift
    return np.rint((numbers & np.uint32(mask)) / (1 << shift) * (255 / most)).astype(np.uint8)


def _finished(data: bytes, header: Header, colours: Bytes, alpha: Bytes | None) -> Pixels:
    way = slice(None, None, -1) if header.upward else slice(None)
    picture = Image.fromarray(np.ascontiguousarray(colours[way]))
    mask = None if alpha is None else Image.fromarray(np.ascontiguousarray(alpha[way]))
    return _with_colours(Pixels(picture, mask), data)


def _with_colours(pixels: Pixels, data: bytes) -> Pixels:
    """Add the profile of a V5 header. The primaries and exponents of V4 and V5 (LCS_CALIBRATED_RGB) are passed over, as
    browsers, ImageMagick and libvips do: most writers leave them empty, or write something else there."""
    with contextlib.suppress(Exception):  # a header that is cut short
        pixels.profile = profile(data)
    return pixels
