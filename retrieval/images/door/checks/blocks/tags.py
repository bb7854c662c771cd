"""Walk the directories of tags that TIFF files and EXIF blocks consist of, without reading what the tags point at."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

ORIENTATION = 274

# Bytes per value of each type. Types 13, 16, 17 and 18 are IFD, LONG8, SLONG8 and IFD8.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}

MOST_TAGS = 4096  # as in libtiff, which refuses a directory with more

_MARK = re.compile(rb"(?:Exif\0\0){0,8}")


class Tag(NamedTuple):
    """One entry of a directory; `length` counts its values, and `start` is where they lie in the file."""

    number: int
    kind: int
    length: int
    start: int

    @property
    def size(self) -> int:
        """The number of bytes of its values; 0 for a type that TIFF does not define."""
        return SIZES.get(self.kind, 0) * self.length


class Directory:
    """The first directory of a TIFF file or EXIF block, in either byte order, classic or BigTIFF."""

    def __init__(self, data: bytes | memoryview) -> None:
        """Raises struct.error or ValueError if there is no directory."""
        self.data = data
        head = bytes(data[:4])
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not self.order:
            raise ValueError("neither II nor MM")
        self.big = 43 in head[2:4]
        layout = ("Q", "HHQ8s", "Q") if self.big else ("H", "HHI4s", "I")
        self._count, self._entry, self._offset = (struct.Struct(self.order + part) for part in layout)
        (self.start,) = self._offset.unpack_from(data, 8 if self.big else 4)

    def tags(self, most: int = MOST_TAGS) -> Iterator[Tag]:
        """Its tags in the order of the file, `most` of them; stops where the data ends."""
        if self.start + self._count.size > len(self.data):
            return
        (count,) = self._count.unpack_from(self.data, self.start)
        place = self.start + self._count.size
        for _ in range(min(count, most)):
            if place + self._entry.size > len(self.data):
                return
            number, kind, values, field = self._entry.unpack_from(self.data, place)
            tag = Tag(number, kind, values, place + self._entry.size - len(field))
            if tag.size > len(field):
                tag = tag._replace(start=self._offset.unpack(field)[0])
            yield tag
            place += self._entry.size

    def __len__(self) -> int:
        """The number of tags that the directory states."""
        if self.start + self._count.size > len(self.data):
            return 0
        return int(self._count.unpack_from(self.data, self.start)[0])

    def following(self) -> int:
        """The place of the next directory; 0 if there is none."""
        place = self.start + self._count.size + len(self) * self._entry.size
        return self._offset.unpack_from(self.data, place)[0] if place + self._offset.size <= len(self.data) else 0

    def values(self, tag: Tag, most: int = 2**20) -> tuple[int, ...]:
        """Its values, `most` of them, if they are integers and lie in the file; else an empty tuple."""
        letter = _INTEGERS.get(tag.kind)
        count = min(tag.length, most)
        if not letter or tag.start + tag.size > len(self.data):
            return ()
        return struct.unpack_from(f"{self.order}{count}{letter}", self.data, tag.start)


def orientation(exif: bytes) -> int:
    """The orientation that an EXIF block states, 1 to 8; 1 if it states none or cannot be read."""
    block = memoryview(exif)[len(_MARK.match(exif)[0]) :]  # type: ignore[index]
    try:
        directory = Directory(block)
        found = [directory.values(tag, 1) for tag in directory.tags() if tag.number == ORIENTATION]
    except (struct.error, ValueError):
        return 1
    value = found[-1][0] if found and found[-1] else 1
    return value if 1 <= value <= 8 else 1


def exif_block(turn: int) -> bytes:
    """The smallest EXIF block that states this orientation; empty for 1, which needs none."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, ORIENTATION, 3, 1, turn, 0, 0) if turn != 1 else b""
