"""The boxes of HEIF, the family of files that AVIF and HEIC belong to (ISO/IEC 14496-12 and 23008-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from retrieval.images.door.formats import RefusedError

MOST_ITEMS = 4096  # pictures, tiles and blocks of metadata; the decoder's work grows with their square
_MOST_BOXES = 20_000
MOST_EXTENTS = 20_000
MOST_FRAMES = 200_000  # of an animation; the decoder makes a list of them

Box = tuple[bytes, int, int]
"""Name, start and end of the content."""
Extents = list[tuple[int, int]]
"""Places and sizes of the parts of an item."""

# Boxes that contain boxes, and how many bytes come before these.
_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}
# Boxes that state their number of entries: bytes before it, its size in version 0 and in later ones, the limit.
_COUNTED = {
    b"iinf": (4, 2, 4, MOST_ITEMS),
    b"ipma": (4, 4, 4, MOST_ITEMS),
    b"stsz": (8, 4, 4, MOST_FRAMES),
    **dict.fromkeys((b"stco", b"co64", b"stsc", b"stts", b"stss"), (4, 4, 4, MOST_FRAMES)),
}


def all_boxes(data: bytes, kind: str) -> list[Box]:
    """Each box, those in containers included; the number of entries that they state is within limits."""
    found = list(_boxes(data, 0, len(data), [_MOST_BOXES], kind))
    for name, start, end in found:
        if name in _COUNTED:
            _check_count(name, data[start : min(end, start + 16)], kind)
    return found


def _boxes(data: bytes, place: int, end: int, left: list[int], kind: str) -> Iterator[Box]:
    """`left` counts down over all boxes."""
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
            raise RefusedError(f"is an {kind} file of more than {_MOST_BOXES:,} parts, which no picture needs")
        yield name, start, stop
        if name in _CONTAINERS:
            yield from _boxes(data, start + _CONTAINERS[name], stop, left, kind)
        elif name == b"iinf":
            yield from _boxes(data, start + (6 if data[start : start + 1] == b"\0" else 8), stop, left, kind)
        place = stop


def _check_count(name: bytes, body: bytes, kind: str) -> None:
    before, short, long, most = _COUNTED[name]
    count = int.from_bytes(body[before : before + (long if body[:1] != b"\0" else short)], "big")
    if count > most:
        raise RefusedError(f"is an {kind} file of {count:,} items or frames; at most {most:,} are accepted")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise RefusedError for more pixels than that."""
    if width * height > max_pixels:
        raise RefusedError(f"has {width} x {height} pixels; at most {max_pixels:,} are accepted")


def located_items(
    data: bytes, start: int, end: int, idat: int, kind: str, left: list[int]
) -> Iterator[tuple[int, Extents]]:
    """The number of each item of an `iloc` box, and its parts; the content of an `idat` box starts at `idat`.

    `left[0]` counts down items and parts, from `MOST_EXTENTS` over a whole file: the numbers in the box may take no
    bytes at all, so that it can be endless.
    """
    version, sizes, more = data[start], data[start + 4], data[start + 5]
    offset_size, length_size, base_size, index_size = sizes >> 4, sizes & 15, more >> 4, more & 15 if version else 0
    wide = 4 if version == 2 else 2
    place = start + 6 + wide
    count = int.from_bytes(data[start + 6 : place], "big")
    if count > MOST_ITEMS:
        raise RefusedError(f"is an {kind} file of {count:,} items; at most {MOST_ITEMS:,} are accepted")

    def number(size: int) -> int:
        nonlocal place
        place += size
        if place > end:
            raise ValueError("cut short")
        return int.from_bytes(data[place - size : place], "big")

    for _ in range(count):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_size) + (idat if method == 1 else 0)
        extents: Extents = []
        parts = number(2)
        left[0] -= 1 + parts
        if left[0] < 0:
            raise RefusedError(f"is an {kind} file of more than {MOST_EXTENTS:,} pieces")
        for _ in range(parts):
            number(index_size)
            offset, length = number(offset_size), number(length_size)
            extents.append((base + offset, length or len(data)))
        yield item, extents


def overwritten(data: bytes, changes: Mapping[int, bytes]) -> bytes:
    """The data with other bytes at some places; the same object if there are none."""
    if not changes:
        return data
    copy = bytearray(data)
    for place, new in changes.items():
        copy[place : place + len(new)] = new
    return bytes(copy)
