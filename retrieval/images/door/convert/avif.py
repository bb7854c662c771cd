"""AVIF: what Pillow leaves aside of the properties of its picture (ISO/IEC 23008-12, HEIF; ISO/IEC 23000-22, MIAF)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction

from PIL import Image

from retrieval.images.door.convert import plain
from retrieval.images.door.convert.colour.encoding import Encoding, by_number
from retrieval.images.door.convert.pixels import Pixels
from retrieval.images.door.convert.upright import turn_by_exif

_MOST_BOXES = 1000
_LIKE_SRGB = {1, 2, 6, 14, 15}
# How many bytes of a box come before the boxes in it.
_HEADERS = {b"meta": 4, b"stsd": 8, b"av01": 78}
_TRACK = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01")


def read(image: Image.Image, data: bytes | None) -> Pixels:
    """Decode an opened AVIF; modifies `image`. Without `data`, its colour space and clean aperture are not known."""
    properties = dict(_properties(data or b""))
    profile = image.info.get("icc_profile")
    plain.decode(image)
    # MIAF 7.3.6.7: first cut, then turned, then mirrored; Pillow puts the last two into the EXIF orientation.
    if box := _clean_aperture(properties.get(b"clap", b""), image.size):
        image = image.crop(box)
    turn_by_exif(image)
    pixels = plain.split(image)
    pixels.encoding = None if profile else _encoding(properties.get(b"nclx", b""))
    return pixels


def encoding_of(data: bytes | None) -> Encoding | None:
    """The colour space that a HEIF file gives to its picture by number; None for sRGB, or if it gives none."""
    return _encoding(dict(_properties(data or b"")).get(b"nclx", b""))


def _encoding(nclx: bytes) -> Encoding | None:
    """Primaries and curve by number, as browsers take them: what is left open, and the curves of television, which
    encoders of pictures give without meaning a screen's, count as sRGB's. An ICC profile counts more (MIAF 7.3.6.4)."""
    if len(nclx) < 4:
        return None
    primaries, transfer = struct.unpack(">HH", nclx[:4])
    encoding = by_number(1 if primaries == 2 else primaries, 13 if transfer in _LIKE_SRGB else transfer)
    return None if encoding is None or encoding.is_srgb else encoding


def _clean_aperture(clap: bytes, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the part to show; None for all, or where it is not whole pixels of the picture."""
    if len(clap) < 32:
        return None
    numbers = struct.unpack(">8i", clap[:32])
    if not all(numbers[1::2]):
        return None
    width, height, right, down = (Fraction(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = right + (size[0] - width) / 2, down + (size[1] - height) / 2
    edges = (left, top, left + width, top + height)
    inside = 0 <= left < edges[2] <= size[0] and 0 <= top < edges[3] <= size[1]
    if not inside or any(edge.denominator != 1 for edge in edges):
        return None
    return int(edges[0]), int(edges[1]), int(edges[2]), int(edges[3])


def _properties(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The properties of the picture that is shown: name and content. `colr` boxes are named by their kind."""
    boxes = _first(_boxes(data, 0, len(data)))
    if data[8:12] == b"avis" and b"moov" in boxes:
        place = (0, len(data))
        for name in _TRACK:
            found = _first(_boxes(data, *place)).get(name)
            if found is None:
                return
            place = found
        listed = list(_boxes(data, *place))
    elif b"meta" in boxes:
        listed = list(_of_primary_item(data, *boxes[b"meta"]))
    else:
        return
    for name, (start, end) in listed:
        content = data[start:end]
        yield (content[:4], content[4:]) if name == b"colr" else (name, content)


def _of_primary_item(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """The boxes that `ipma` gives to the item that `pitm` names."""
    meta = _first(_boxes(data, start, end))
    if b"pitm" not in meta or b"iprp" not in meta:
        return
    here = meta[b"pitm"][0]
    item = int.from_bytes(data[here + 4 : here + (8 if data[here] else 6)], "big")
    iprp = _first(_boxes(data, *meta[b"iprp"]))
    if b"ipco" not in iprp or b"ipma" not in iprp:
        return
    listed = list(_boxes(data, *iprp[b"ipco"]))
    for index in _associations(data, iprp[b"ipma"][0], iprp[b"ipma"][1], item):
        if 0 < index <= len(listed):
            yield listed[index - 1]


def _associations(data: bytes, start: int, end: int, wanted: int) -> Iterator[int]:
    version, wide, place = data[start], data[start + 3] & 1, start + 8
    for _ in range(min(int.from_bytes(data[start + 4 : start + 8], "big"), _MOST_BOXES)):
        length = 4 if version else 2
        item, count = int.from_bytes(data[place : place + length], "big"), data[place + length]
        place += length + 1
        for _ in range(count):
            index = int.from_bytes(data[place : place + 1 + wide], "big")
            place += 1 + wide
            if item == wanted and place <= end:
                yield index & (0x7FFF if wide else 0x7F)


def _first(boxes: Iterator[tuple[bytes, tuple[int, int]]]) -> dict[bytes, tuple[int, int]]:
    """Boxes by name; of several with one name, the first: the second track of a sequence is its alpha."""
    return dict(reversed(list(boxes)))


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Name, and start and end of the content, of each box between two places; a broken box ends the list."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, name = struct.unpack(">I4s", data[start : start + 8])
        header = 8
        if size == 1:
            size, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        stop = end if size == 0 else start + size
        if stop > end or stop < start + header:
            return
        yield name, (min(start + header + _HEADERS.get(name, 0), stop), stop)
        start = stop
