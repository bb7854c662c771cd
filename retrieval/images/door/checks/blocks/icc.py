"""Colour profiles: which ones are safe to hand to the colour engine."""

from __future__ import annotations

import struct
import zlib

MAX_PROFILE = 4 * 2**20  # the largest that printers and scanners come with have 3 MB
_MOST_TAGS = 100  # as in Little CMS, which refuses a profile with more

# Pipelines in floating point, which may replace the usual tables. They can chain any number of elements, which can all
# share the same bytes. Browsers do not read them, and a profile that has them has the usual tables too.
_PIPELINES = {b"D2B0", b"D2B1", b"D2B2", b"D2B3", b"B2D0", b"B2D1", b"B2D2", b"B2D3"}


def safe_profile(profile: bytes) -> bytes | None:
    """The profile without its floating-point pipelines; None if it is too large or its tables are not what they claim.

    Colours are then those of sRGB, as for a damaged profile.
    """
    if not 132 <= len(profile) <= MAX_PROFILE:
        return None
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > _MOST_TAGS or 132 + 12 * count > len(profile):
        return None
    tags = [struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(count)]
    distinct = {(start, size) for _, start, size in tags}  # the three channels often share one curve
    if any(start + size > len(profile) for start, size in distinct) or sum(size for _, size in distinct) > len(profile):
        return None
    kept = bytearray(profile)
    for number, (name, start, size) in enumerate(tags):
        if name in _PIPELINES:
            kept[132 + 12 * number] = ord("x")  # a private name, which is not read
        elif not _is_sound(profile[start : start + size]):
            return None
    return bytes(kept) if kept != profile else profile


def inflated(packed: bytes | memoryview, most: int) -> bytes | None:
    """Inflate a zlib stream of at most `most` bytes; None if it has more or is damaged."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(packed, most + 1)
    except zlib.error:
        return None
    return plain if len(plain) <= most else None


def _is_sound(tag: bytes) -> bool:
    """Whether the table of a tag fits into the bytes of the tag; types without tables always do."""
    kind = tag[:4]
    try:
        if kind == b"curv":
            return 12 + 2 * int(struct.unpack_from(">I", tag, 8)[0]) <= len(tag)
        if kind in (b"mft1", b"mft2"):
            return _lut_size(tag, 1 if kind == b"mft1" else 2) <= len(tag)
        if kind in (b"mAB ", b"mBA "):
            return _clut_end(tag) <= len(tag)
    except struct.error:
        return False
    return True


def _lut_size(tag: bytes, width: int) -> int:
    """The bytes that a `mft1` or `mft2` tag needs: matrix, input tables, colour cube, output tables."""
    inputs, outputs, grid = struct.unpack_from("BBB", tag, 8)
    rows, columns = (256, 256) if width == 1 else struct.unpack_from(">HH", tag, 48)
    head = 48 if width == 1 else 52
    return int(head + width * (inputs * rows + grid**inputs * outputs + outputs * columns))


def _clut_end(tag: bytes) -> int:
    """Where the colour cube of a `mAB ` or `mBA ` tag ends; 0 if it has none."""
    inputs, outputs = struct.unpack_from("BB", tag, 8)
    (start,) = struct.unpack_from(">I", tag, 24)
    if not start:
        return 0
    cells = outputs
    for points in struct.unpack_from(f"{min(inputs, 16)}B", tag, start):
        cells *= points
    (width,) = struct.unpack_from("B", tag, start + 16)
    return int(start + 20 + cells * width)
