"""WebP: the first frame is kept, with its transparency, colour profile and orientation."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from retrieval.images.door.checks.blocks.icc import safe_profile
from retrieval.images.door.checks.blocks.tags import exif_block, orientation
from retrieval.images.door.formats import RefusedError

_MOST_CHUNKS = 200_000
_MOST_EXIF = 2**20
_PIXELS = (b"VP8 ", b"VP8L", b"ALPH")
# Flags of the VP8X chunk.
_ICC, _ALPHA, _EXIF, _ANIMATION = 0x20, 0x10, 0x08, 0x02


def is_webp(data: bytes) -> bool:
    """Whether these bytes start as a WebP file does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def clean(data: bytes, max_pixels: int) -> bytes:
    """Keep the canvas, the first frame, and what concerns its colours and orientation; see `only_needed`.

    Raises ValueError if the file is cut short.
    """
    if 8 + struct.unpack_from("<I", data, 4)[0] > len(data):
        raise ValueError("cut short")
    view = memoryview(data)
    if data[12:16] != b"VP8X" or len(data) < 30:
        return _simple(data, max_pixels)
    flags = data[20]
    _check_size(_three(data, 24) + 1, _three(data, 27) + 1, max_pixels)
    animated = bool(flags & _ANIMATION)
    pixels: list[bytes | memoryview] = []
    profile, turn = b"", 1
    seen: set[bytes] = set()
    for name, start, end in _chunks(data):
        body = view[start + 8 : end]
        first = name not in seen
        seen.add(name)
        if name == b"ICCP" and first:
            profile = safe_profile(bytes(body)) or b""
        elif name == b"EXIF" and first:
            turn = orientation(bytes(body[:_MOST_EXIF]))
        elif first and (name in ((b"ANIM", b"ANMF") if animated else _PIXELS)):
            pixels.append(view[start : end + (end - start) % 2])
    exif = exif_block(turn)
    flags = flags & (_ALPHA | _ANIMATION) | (_ICC if profile else 0) | (_EXIF if exif else 0)
    parts: list[bytes | memoryview] = [_chunk(b"VP8X", bytes([flags]) + data[21:30])]
    parts += [_chunk(b"ICCP", profile)] if profile else []
    parts += pixels
    parts += [_chunk(b"EXIF", exif)] if exif else []
    return _riff(parts)


def _simple(data: bytes, max_pixels: int) -> bytes:
    """A file of one chunk of pixels, without what follows it."""
    chunk = next(_chunks(data), None)
    if data[12:16] == b"VP8 " and len(data) >= 30:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        _check_size(width, height, max_pixels)
    elif data[12:16] == b"VP8L" and len(data) >= 25:
        (sides,) = struct.unpack_from("<I", data, 21)
        _check_size((sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1, max_pixels)
    if not chunk or chunk[2] + chunk[2] % 2 >= len(data):
        return data
    return _riff([memoryview(data)[12 : chunk[2] + chunk[2] % 2]])


def _check_size(width: int, height: int, max_pixels: int) -> None:
    """Check the size of the canvas, which the decoder allocates as soon as it opens the file."""
    if width * height > max_pixels:
        raise RefusedError(f"has {width} x {height} pixels; at most {max_pixels:,} are accepted")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end without padding of each chunk; the last may be cut short."""
    place = 12
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    for _ in range(_MOST_CHUNKS):
        if place + 8 > end:
            return
        name, size = struct.unpack_from("<4sI", data, place)
        yield name, place, min(place + 8 + size, end)
        place += 8 + size + size % 2
    raise RefusedError(f"is a WebP file of more than {_MOST_CHUNKS:,} parts, which no still picture needs")


def _three(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 3], "little")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", name, len(body)) + body + bytes(len(body) % 2)


def _riff(parts: list[bytes | memoryview]) -> bytes:
    size = 4 + sum(len(part) for part in parts)
    return b"".join([struct.pack("<4sI4s", b"RIFF", size, b"WEBP"), *parts])
