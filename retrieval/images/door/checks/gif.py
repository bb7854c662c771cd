"""GIF: comments and other extensions before the first picture are dropped."""

from __future__ import annotations

import struct

from retrieval.images.door.formats import RefusedError

_MOST_BLOCKS = 1_000_000  # of up to 255 bytes, in extensions
_EXTENSION, _CONTROL = 0x21, 0xF9


def is_gif(data: bytes) -> bool:
    """Whether these bytes start as a GIF file does."""
    return data[:6] in (b"GIF87a", b"GIF89a")


def clean(data: bytes, max_pixels: int) -> bytes:
    """Keep the palette, the transparent colour and what follows from the first picture on; see `only_needed`."""
    if len(data) < 13:
        return data
    head = place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    control, blocks = b"", 0
    while data[place : place + 1] not in (b",", b";", b""):
        if data[place] != _EXTENSION:  # stray bytes between blocks are passed over, as decoders do
            place, blocks = place + 1, blocks + 1
        else:
            if data[place + 1 : place + 2] == bytes([_CONTROL]) and data[place + 3 : place + 4] and data[place + 3] & 1:
                # Without the time and the way to leave the picture, which only animations need.
                control = struct.pack("5B", _EXTENSION, _CONTROL, 4, 1, 0) + b"\0" + data[place + 6 : place + 7] + b"\0"
            place, passed = _after_blocks(data, place + 2)
            blocks += passed
        if blocks > _MOST_BLOCKS:
            raise RefusedError(f"is a GIF file with more than {_MOST_BLOCKS:,} blocks before its first picture")
    if place == head or (place == head + len(control) and data[head:place] == control):
        return data
    view = memoryview(data)
    return b"".join([view[:head], control, view[place:]])


def _after_blocks(data: bytes, place: int) -> tuple[int, int]:
    """The place after a row of blocks and the empty one that ends it, and their number."""
    passed = 0
    while place < len(data) and data[place] and passed <= _MOST_BLOCKS:
        place += 1 + data[place]
        passed += 1
    return place + 1, passed + 1
