"""AVIF: what the boxes declare is held against the limits, and against the video stream that they describe.

Nothing is moved, because boxes refer to each other by place. What is not needed is renamed to types that are not read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from retrieval.images.door.checks.blocks.av1 import stream_sizes
from retrieval.images.door.checks.blocks.icc import safe_profile
from retrieval.images.door.formats import RefusedError

_HIDDEN = b"none"  # a type that is not read
_MOST_BOXES = 20_000
_MOST_ITEMS = 4096  # pictures, tiles and blocks of metadata; the decoder's work grows with their square
_MOST_EXTENTS = 20_000
_MOST_UNITS = 20_000  # of video; a picture or tile has about three
_MOST_FRAMES = 200_000
_MOST_DECODED = 4  # a picture, its transparency, and smaller or other versions, each at most as large as the limit

# Boxes that contain boxes, and how many bytes come before these.
_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}
# Boxes that state their number of entries: bytes before it, its size in version 0 and in later ones, the limit.
_COUNTED = {
    b"iinf": (4, 2, 4, _MOST_ITEMS),
    b"ipma": (4, 4, 4, _MOST_ITEMS),
    b"stsz": (8, 4, 4, _MOST_FRAMES),
    **dict.fromkeys((b"stco", b"co64", b"stsc", b"stts", b"stss"), (4, 4, 4, _MOST_FRAMES)),
}


def is_avif(data: bytes) -> bool:
    """Whether these bytes start as the family of files does that AVIF belongs to."""
    return data[4:8] == b"ftyp"


def clean(data: bytes, max_pixels: int) -> bytes:
    """Hide EXIF, XMP and unsafe profiles, and check all sizes; see `only_needed`. Orientation is a box of its own."""
    boxes = list(_boxes(data, 0, len(data), [_MOST_BOXES]))
    changes: dict[int, bytes] = {}  # place -> what to write there
    grids: set[int] = set()
    for name, start, end in boxes:
        body = data[start : min(end, start + 64)]
        if name in _COUNTED:
            _check_count(name, body)
        elif name == b"ispe":
            width, height = struct.unpack_from(">xxxxII", body)
            _check_size(width, height, max_pixels)
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
    _check_streams(data, boxes, grids, max_pixels)
    if not changes:
        return data
    copy = bytearray(data)
    for place, new in changes.items():
        copy[place : place + len(new)] = new
    return bytes(copy)


def _check_streams(data: bytes, boxes: list[tuple[bytes, int, int]], grids: set[int], max_pixels: int) -> None:
    """Check the sizes in the content of items and in the first frames of animations, each and all together."""
    idat = next((start for name, start, _ in boxes if name == b"idat"), 0)
    pixels, left, room = 0, [_MOST_UNITS], 4 * len(data)
    for name, start, end in boxes:
        for item, extents in _items(data, start, end, idat) if name == b"iloc" else ():
            content = b"".join(data[place : place + size] for place, size in extents)
            room -= len(content)
            if room < 0:
                raise RefusedError("is an AVIF file of parts that overlap")
            if item in grids:
                wide = 4 if content[1:2] == b"\1" else 2
                width, height = content[4 : 4 + wide], content[4 + wide : 4 + 2 * wide]
                _check_size(int.from_bytes(width, "big"), int.from_bytes(height, "big"), max_pixels)
            pixels += _decoded(content, max_pixels, left)
    for place, size in _samples(data, boxes):
        room -= len(data[place : place + size])
        pixels += _decoded(data[place : place + size], max_pixels, left) if room >= 0 else 0
    if pixels > _MOST_DECODED * max_pixels:
        raise RefusedError(f"consists of parts of {pixels:,} pixels together; at most {max_pixels:,} are accepted")


def _boxes(data: bytes, place: int, end: int, left: list[int]) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box, those in containers included; `left` counts down over all."""
    while place + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if size == 1 and place + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = min(end, place + size if size else end)
        if stop < start:
            return
        left[0] -= 1
        if left[0] < 0:
            raise RefusedError(f"is an AVIF file of more than {_MOST_BOXES:,} parts, which no picture needs")
        yield name, start, stop
        if name in _CONTAINERS:
            yield from _boxes(data, start + _CONTAINERS[name], stop, left)
        elif name == b"iinf":
            yield from _boxes(data, start + (6 if data[start : start + 1] == b"\0" else 8), stop, left)
        place = stop


def _check_count(name: bytes, body: bytes) -> None:
    before, short, long, most = _COUNTED[name]
    count = int.from_bytes(body[before : before + (long if body[:1] != b"\0" else short)], "big")
    if count > most:
        raise RefusedError(f"is an AVIF file of {count:,} items or frames; at most {most:,} are accepted")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise RefusedError(f"has {width} x {height} pixels; at most {max_pixels:,} are accepted")


def _decoded(stream: bytes, max_pixels: int, left: list[int]) -> int:
    """The pixels of the largest frame of a video stream; 0 for other data."""
    sizes = stream_sizes(stream, left)
    for width, height in sizes:
        _check_size(width, height, max_pixels)
    return max((width * height for width, height in sizes), default=0)


def _items(data: bytes, start: int, end: int, idat: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """The number of each item of an `iloc` box, and the places and sizes of its parts."""
    version, sizes, more = data[start], data[start + 4], data[start + 5]
    offset_size, length_size, base_size, index_size = sizes >> 4, sizes & 15, more >> 4, more & 15 if version else 0
    wide = 4 if version == 2 else 2
    place = start + 6 + wide
    count = int.from_bytes(data[start + 6 : place], "big")
    if count > _MOST_ITEMS:
        raise RefusedError(f"is an AVIF file of {count:,} items; at most {_MOST_ITEMS:,} are accepted")

    def number(size: int) -> int:
        nonlocal place
        place += size
        if place > end:
            raise ValueError("cut short")
        return int.from_bytes(data[place - size : place], "big")

    extents_left = _MOST_EXTENTS
    for _ in range(count):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_size) + (idat if method == 1 else 0)
        extents: list[tuple[int, int]] = []
        parts = number(2)
        extents_left -= parts
        if extents_left < 0:
            raise RefusedError(f"is an AVIF file of more than {_MOST_EXTENTS:,} pieces")
        for _ in range(parts):
            number(index_size)
            offset, length = number(offset_size), number(length_size)
            extents.append((base + offset, length or len(data)))
        yield item, extents


def _samples(data: bytes, boxes: list[tuple[bytes, int, int]]) -> Iterator[tuple[int, int]]:
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
