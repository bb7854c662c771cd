"""AVIF: what the boxes declare is held against the limits, and against the video stream that they describe.

Nothing is moved, because boxes refer to each other by place. What is not needed is renamed to types that are not read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from retrieval.images.door.checks.blocks.av1 import stream_sizes
from retrieval.images.door.checks.blocks.boxes import (
    MOST_EXTENTS,
    MOST_FRAMES,
    Box,
    all_boxes,
    check_size,
    located_items,
    overwritten,
)
from retrieval.images.door.checks.blocks.icc import safe_profile
from retrieval.images.door.formats import RefusedError

_HIDDEN = b"none"  # a type that is not read
_MOST_UNITS = 20_000  # of video; a picture or tile has about three
_MOST_DECODED = 4  # a picture, its transparency, and smaller or other versions, each at most as large as the limit


def is_avif(data: bytes) -> bool:
    """Whether these bytes start as the family of files does that AVIF belongs to."""
    return data[4:8] == b"ftyp"


def clean(data: bytes, max_pixels: int) -> bytes:
    """Hide EXIF, XMP and unsafe profiles, and check all sizes; see `only_needed`. Orientation is a box of its own."""
    boxes = all_boxes(data, "AVIF")
    changes: dict[int, bytes] = {}  # place -> what to write there
    grids: set[int] = set()
    for name, start, end in boxes:
        body = data[start : min(end, start + 64)]
        if name == b"ispe":
            width, height = struct.unpack_from(">xxxxII", body)
            check_size(width, height, max_pixels)
        elif name == b"colr" and body[:4] in (b"prof", b"rICC"):
            profile = data[start + 4 : end]
            safe = safe_profile(profile)
            if safe is not profile:
                changes |= {start + 4: safe} if safe else {start: _HIDDEN}
        elif name == b"infe" and body[0] >= 2:
            wide = 2 if body[0] == 2 else 4
            kind = body[6 + wide : 10 + wide]
            changes |= {start + 6 + wide: _HIDDEN} if kind in (b"Exif", b"mime") else {}
            grids |= {int.from_bytes(body[4 : 4 + wide], "big")} if kind == b"grid" else set()
    _check_frames(data, boxes)
    _check_streams(data, boxes, grids, max_pixels)
    return overwritten(data, changes)


def _check_frames(data: bytes, boxes: list[Box]) -> None:
    """Bound the frames of an animation, of which the decoder makes a list: a chunk may claim any number of them."""
    chunks = frames = 0
    for name, start, end in boxes:
        if name == b"stsc":
            entries = data[start + 8 : start + 8 + (end - start - 8) // 12 * 12]
            frames = max([frames, *(count for _, count, _ in struct.iter_unpack(">III", entries))])
        elif name in (b"stco", b"co64"):
            chunks = max(chunks, int.from_bytes(data[start + 4 : start + 8], "big"))
    if chunks * frames > MOST_FRAMES:
        raise RefusedError(f"is an AVIF file of {chunks * frames:,} frames; at most {MOST_FRAMES:,} are accepted")


def _check_streams(data: bytes, boxes: list[Box], grids: set[int], max_pixels: int) -> None:
    """Check the sizes in the content of items and in the first frames of animations, each and all together."""
    idat = next((start for name, start, _ in boxes if name == b"idat"), 0)
    pixels, left, room, pieces = 0, [_MOST_UNITS], 4 * len(data), [MOST_EXTENTS]
    for name, start, end in boxes:
        for item, extents in located_items(data, start, end, idat, "AVIF", pieces) if name == b"iloc" else ():
            content = b"".join(data[place : place + size] for place, size in extents)
            room -= len(content)
            if room < 0:
                raise RefusedError("is an AVIF file of parts that overlap")
            if item in grids:
                wide = 4 if content[1:2] == b"\1" else 2
                width, height = content[4 : 4 + wide], content[4 + wide : 4 + 2 * wide]
                check_size(int.from_bytes(width, "big"), int.from_bytes(height, "big"), max_pixels)
            pixels += _decoded(content, max_pixels, left)
    for place, size in _samples(data, boxes):
        room -= len(data[place : place + size])
        pixels += _decoded(data[place : place + size], max_pixels, left) if room >= 0 else 0
    if pixels > _MOST_DECODED * max_pixels:
        raise RefusedError(f"consists of parts of {pixels:,} pixels together; at most {max_pixels:,} are accepted")


def _decoded(stream: bytes, max_pixels: int, left: list[int]) -> int:
    """The pixels of the largest frame of a video stream; 0 for other data."""
    sizes = stream_sizes(stream, left)
    for width, height in sizes:
        check_size(width, height, max_pixels)
    return max((width * height for width, height in sizes), default=0)


def _samples(data: bytes, boxes: list[Box]) -> Iterator[tuple[int, int]]:
    """The place and size of the first frame of each track of an animation."""
    size = 0
    for name, start, _ in boxes:
        if name == b"stsz":
            constant, count, first = struct.unpack_from(">III", data.ljust(start + 16, b"\0"), start + 4)
            size = constant or (first if count else 0)
        elif name in (b"stco", b"co64"):
            wide = 4 if name == b"stco" else 8
            place = int.from_bytes(data[start + 8 : start + 8 + wide], "big")
            yield place, size or len(data)
