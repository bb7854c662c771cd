"""The items of a HEIF file: pictures, their tiles, and what belongs to them (ISO/IEC 23008-12, section 9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from retrieval.images.door.checks.blocks.boxes import MOST_EXTENTS, MOST_ITEMS, Box, Extents, located_items
from retrieval.images.door.formats import RefusedError

_MOST_REFERENCES = 20_000


@dataclass
class Items:
    """What the boxes say of items, by their numbers."""

    primary: int = -1
    kinds: dict[int, bytes] = field(default_factory=dict)
    kind_places: list[tuple[int, int]] = field(default_factory=list)
    """Where each kind is written."""
    places: dict[int, Extents] = field(default_factory=dict)
    parts: dict[int, list[int]] = field(default_factory=dict)
    """What an item is made of, in order."""
    auxiliary: list[tuple[int, int]] = field(default_factory=list)
    """An item, and the one that it belongs to, such as its transparency."""
    properties: dict[int, list[Box]] = field(default_factory=dict)


def read_items(data: bytes, boxes: list[Box], kind: str) -> Items:
    """The items of a file; those of boxes that are cut short are left out."""
    items = Items()
    idat = next((start for name, start, _ in boxes if name == b"idat"), 0)
    listed = list(_properties(boxes))
    left = [MOST_EXTENTS]
    for name, start, end in boxes:
        if name == b"pitm":
            items.primary = int.from_bytes(
                data[start + 4 : start + (8 if data[start : start + 1] != b"\0" else 6)], "big"
            )
        elif name == b"infe" and end - start >= 12 and data[start] >= 2:
            place = start + (6 if data[start] == 2 else 8)
            item = int.from_bytes(data[start + 4 : place], "big")
            items.kinds[item] = data[place + 2 : place + 6]
            items.kind_places.append((item, place + 2))
        elif name == b"iloc":
            items.places |= located_items(data, start, end, idat, kind, left)
        elif name == b"iref":
            for word, source, targets in _references(data, start, end):
                if word == b"dimg":
                    items.parts.setdefault(source, []).extend(targets)
                elif word == b"auxl":
                    items.auxiliary += [(source, target) for target in targets]
        elif name == b"ipma":
            for item, index in _associations(data, start, end):
                if 0 < index <= len(listed):
                    items.properties.setdefault(item, []).append(listed[index - 1])
    return items


def _properties(boxes: list[Box]) -> Iterator[Box]:
    """The boxes directly within the first `ipco`."""
    holder = next(((start, end) for name, start, end in boxes if name == b"ipco"), (0, 0))
    return (box for box in boxes if holder[0] < box[1] and box[2] <= holder[1] and box[0] != b"ipco")


def _references(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, list[int]]]:
    """Kind, source and targets of each reference."""
    wide = 4 if data[start : start + 1] != b"\0" else 2
    place, left = start + 4, _MOST_REFERENCES
    while place + 8 + wide + 2 <= end:
        size, word = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        at = place + 8
        source, count = (
            int.from_bytes(data[at : at + wide], "big"),
            int.from_bytes(data[at + wide : at + wide + 2], "big"),
        )
        at += wide + 2
        left -= 1 + count
        if left < 0:
            raise RefusedError(f"is a HEIF file of more than {_MOST_REFERENCES:,} references")
        if at + count * wide > end or size < 8:
            return
        yield word, source, [int.from_bytes(data[at + i * wide : at + (i + 1) * wide], "big") for i in range(count)]
        place += size


def _associations(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Item and number of property of each pair in an `ipma` box."""
    wide, length = data[start + 3 : start + 4] != b"" and data[start + 3] & 1, 4 if data[start] else 2
    place = start + 8
    for _ in range(min(int.from_bytes(data[start + 4 : start + 8], "big"), MOST_ITEMS)):
        if place + length >= end:
            return
        item, count = int.from_bytes(data[place : place + length], "big"), data[place + length]
        place += length + 1
        for _ in range(count):
            if place + 1 + wide > end:
                return
            index = int.from_bytes(data[place : place + 1 + wide], "big")
            place += 1 + wide
            yield item, index & (0x7FFF if wide else 0x7F)
