"""JPEG files that lack only the end marker: other programs open them, and so does this one if no line is missing."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

_END = b"\xff\xd9"
# Appended to a file that is cut short, this is read in place of what is missing, and gives other pixels than nothing.
_NOISE = bytes((i * 73 + 165) % 251 for i in range(4096))
_FRAMES, _PROGRESSIVE, _SOS = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}, {0xC2, 0xCA}, 0xDA


def with_end(data: bytes, segments: Sequence[tuple[int, int, int]], max_pixels: int) -> bytes:
    """The file with an end marker if nothing else is missing; else unchanged, for the decoder to refuse.

    Args:
        data: a JPEG file without an end marker.
        segments: marker, start and end of all its segments.
        max_pixels: larger pictures are returned unchanged.
    """
    if not _has_all_scans(data, segments):
        return data
    whole = data.rstrip(b"\xff") + _END
    try:
        # If the last scan is complete, nothing after it is read, so noise there changes nothing.
        pixels, again = (_pixels(file, max_pixels) for file in (whole, whole[:-2] + _NOISE + _END))
    except Exception:  # any of a decoder's; the file is then refused with the exception that it raises without our help
        return data
    return whole if np.array_equal(pixels, again) else data


def _pixels(data: bytes, max_pixels: int) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if image.width * image.height > max_pixels:
            raise ValueError("too large")
        return np.asarray(image)


def _has_all_scans(data: bytes, segments: Sequence[tuple[int, int, int]]) -> bool:
    """Whether every component has a scan, and if progressive, every coefficient is there to its last bit."""
    missing: dict[int, dict[int, int]] = {}  # component -> coefficient -> bits that are still to come
    progressive = False
    for marker, start, end in segments:
        body = data[start + 4 : end]
        if marker in _FRAMES and len(body) > 6:
            progressive = marker in _PROGRESSIVE
            missing = {component: dict.fromkeys(range(64), 16) for component in body[6::3]}
        elif marker == _SOS and body and len(body) >= 4 + 2 * body[0]:
            count = body[0]
            first, last, bits = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
            for component in body[1 : 1 + 2 * count : 2]:
                for number in range(first, min(last, 63) + 1) if progressive else range(64):
                    missing.setdefault(component, {})[number] = bits if progressive else 0
    return bool(missing) and not any(bits for each in missing.values() for bits in each.values())
