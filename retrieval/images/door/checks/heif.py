"""HEIC: the picture that is shown is followed to its tiles, and what is declared is held against the video and limits.

Nothing is moved, because boxes refer to each other by place. What is not shown (thumbnails, depth and gain maps, other
pictures, EXIF, sequences) is renamed to types that are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from retrieval.images.door.checks.blocks.boxes import Box, Extents, all_boxes, check_size, overwritten
from retrieval.images.door.checks.blocks.hevc import configured_units, declared_size, units
from retrieval.images.door.checks.blocks.icc import safe_profile
from retrieval.images.door.checks.blocks.items import Items, read_items
from retrieval.images.door.formats import RefusedError

_HIDDEN, _SKIPPED = b"none", b"skip"  # types that are not read
_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_GENERAL = {b"mif1", b"msf1"}  # of any coding
_AVIF = {b"avif", b"avis"}
_VIDEO = {b"hvc1", b"hev1"}
_LARGER = 4  # times the pixels that a picture is opened with: what counts is memory, estimated when it is opened
_DECODED = 2  # times these: a picture and its transparency, in tiles that reach over its edge
_MOST_TILES = 4096
_LARGEST_TILE = 2**22  # pixels of a small picture
_MOST_UNITS = 100_000
_DEEPEST = 4  # pictures made of pictures
_PADDING = 64  # pixels: the largest block of the video
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")


def is_heif(data: bytes) -> bool:
    """Whether these bytes start as a HEIC file, under whatever brand, or as another HEIF file that is no AVIF."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), len(data), 400)
    major, others = data[8:12], {data[place : place + 4] for place in range(16, end - 3, 4)}
    if major in _BRANDS:
        return True
    return major in _GENERAL and (not others & _AVIF or (bool(others & _BRANDS) and b"av01" not in data[:65536]))


def clean(data: bytes, max_pixels: int) -> bytes:
    """Hide what is not shown and unsafe profiles, and check all sizes; see `only_needed`."""
    most = _LARGER * max_pixels
    boxes = all_boxes(data, "HEIC")
    items = read_items(data, boxes, "HEIC")
    if not items.kinds:
        raise RefusedError("is an HEIF sequence without a still picture; save one frame of it as a JPEG")
    check = _Check(data, items, most)
    check.follow(items.primary, 0)
    for source, target in items.auxiliary:
        if target in check.shown and _is_alpha(data, items, source):
            check.follow(source, 0)
    return overwritten(data, dict(_changes(data, boxes, items, check.shown)))


def _is_alpha(data: bytes, items: Items, item: int) -> bool:
    return any(
        name == b"auxC" and data[start + 4 : end].split(b"\0")[0] in _ALPHA
        for name, start, end in items.properties.get(item, [])
    )


def _changes(data: bytes, boxes: list[Box], items: Items, shown: set[int]) -> Iterator[tuple[int, bytes]]:
    """Place -> what to write there."""
    for item, place in items.kind_places:
        if item not in shown:
            yield place, _HIDDEN
    for name, start, end in boxes:
        named = start - (4 if data[start - 4 : start] == name else 12)  # a long size is behind the name
        if name == b"moov":
            yield named, _SKIPPED
        elif name == b"colr" and data[start : start + 4] in (b"prof", b"rICC"):
            profile = data[start + 4 : end]
            safe = safe_profile(profile)
            if safe is None:
                yield named, _HIDDEN
            elif safe is not profile:
                yield start + 4, safe


@dataclass
class _Check:
    """Follows a picture to what it is made of, and counts what decoding it makes."""

    data: bytes
    items: Items
    most: int
    shown: set[int] = field(default_factory=set)
    pixels: int = 0
    tiles: int = 0
    read: int = 0  # bytes
    left: list[int] = field(default_factory=lambda: [_MOST_UNITS])

    def follow(self, item: int, depth: int) -> tuple[int, int]:
        """Width and height of an item, all of whose parts are within limits."""
        self.tiles += 1
        if depth > _DEEPEST or self.tiles > _MOST_TILES:
            raise RefusedError("is an HEIC picture made of too many others, or of itself")
        kind, size = self.items.kinds.get(item), self._stated_size(item)
        first = item not in self.shown
        self.shown.add(item)
        if kind in _VIDEO:
            size = self._video(item, size) if first else size
            self.pixels += size[0] * size[1]
        elif kind == b"grid":
            self._grid(item, size, depth)
        elif kind == b"iden":
            self.follow(next(iter(self.items.parts.get(item, [])), -1), depth + 1)
        else:
            if not kind:
                raise _damaged("it has no primary picture")
            raise RefusedError(
                f"is an HEIF picture of a kind that is not read ({kind.decode('latin-1')}); save it as a JPEG or PNG"
            )
        if self.pixels > _DECODED * self.most:
            raise RefusedError(
                f"consists of parts of {self.pixels:,} pixels together; at most {self.most:,} are accepted"
            )
        return size

    def _stated_size(self, item: int) -> tuple[int, int]:
        for name, start, end in self.items.properties.get(item, []):
            if name == b"ispe" and end - start >= 12:
                width, height = (int.from_bytes(self.data[at : at + 4], "big") for at in (start + 4, start + 8))
                check_size(width, height, self.most)
                return width, height
        raise _damaged("states no size")

    def _grid(self, item: int, size: tuple[int, int], depth: int) -> None:
        """A grid of tiles (ISO/IEC 23008-12, section 6.6.2.3)."""
        content = self._content(item)
        wide = 4 if content[1:2] == b"\1" else 2
        if len(content) < 4 + 2 * wide:
            raise _damaged("the grid of its tiles is cut short")
        rows, columns = content[2] + 1, content[3] + 1
        width, height = (int.from_bytes(content[at : at + wide], "big") for at in (4, 4 + wide))
        check_size(width, height, self.most)
        tiles = self.items.parts.get(item, [])
        if len(tiles) != rows * columns:
            raise _damaged(f"{len(tiles)} tiles of {rows * columns}")
        sizes = {self.follow(tile, depth + 1) for tile in tiles}
        if len(sizes) != 1 or (width, height) != size:
            raise _damaged("its tiles differ in size, or the picture is not as large as its grid")
        across, down = sizes.pop()
        if not ((columns - 1) * across < width <= columns * across and (rows - 1) * down < height <= rows * down):
            raise _damaged(f"{columns} x {rows} tiles of {across} x {down} for {width} x {height} pixels")
        if columns * across * rows * down > 4 * width * height + _LARGEST_TILE:
            raise _damaged(f"a tile of {across} x {down} for {width} x {height} pixels")

    def _video(self, item: int, size: tuple[int, int]) -> tuple[int, int]:
        """The larger of what the boxes and the video of a picture say."""
        described = [box for box in self.items.properties.get(item, []) if box[0] == b"hvcC"]
        if not described:
            raise _damaged("does not describe its video")
        _, start, end = described[0]
        listed = list(configured_units(self.data[start:end]))
        listed += units(self._content(item), (self.data[start + 21] & 3) + 1, self.left)
        for width, height in filter(None, map(declared_size, listed)):
            check_size(width, height, self.most)
            if width >= size[0] + _PADDING or height >= size[1] + _PADDING:
                raise _damaged(f"{size[0]} x {size[1]} pixels, but {width} x {height} in its video")
            size = max(size[0], width), max(size[1], height)
        return size

    def _content(self, item: int) -> bytes:
        extents: Extents = self.items.places.get(item, [])
        if not extents or any(place + size > len(self.data) for place, size in extents):
            raise _damaged("cut short")
        self.read += sum(size for _, size in extents)
        if self.read > 4 * len(self.data):
            raise _damaged("its parts overlap")
        return b"".join(self.data[place : place + size] for place, size in extents)


def _damaged(why: str) -> RefusedError:
    return RefusedError(f"is a damaged HEIC picture ({why})")
