"""PNG: the chunks that hold pixels and colours are kept, all others dropped."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import PngImagePlugin

from retrieval.images.door.checks.blocks.icc import MAX_PROFILE, inflated, safe_profile
from retrieval.images.door.checks.blocks.tags import exif_block, orientation
from retrieval.images.door.formats import RefusedError

_MAGIC = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS = 250_000
_MOST_TEXT = 2**18  # of the old text form of an EXIF block, whose first bytes hold the orientation

# Sizes of the small chunks that are kept; one of another size is damaged, and all decoders pass over it.
_SMALL = {b"PLTE": range(3, 769, 3), b"tRNS": range(257), b"gAMA": (4,), b"cHRM": (32,), b"sRGB": (1,), b"cICP": (4,)}

# Pillow inflates at most this much of a chunk, and refuses the file if there is more. Texts never reach it, and
# profiles only after their size was checked here.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, MAX_PROFILE)


def is_png(data: bytes) -> bool:
    """Whether these bytes start as a PNG file does."""
    return data.startswith(_MAGIC)


def clean(data: bytes, max_pixels: int) -> bytes:
    """Keep the header, palette, colours and pixels, and the orientation; see `only_needed`.

    An animation becomes the still picture that decoders without animations show.
    """
    parts: list[bytes | memoryview] = []
    view, kept, dropped = memoryview(data), set(), False
    turn, exif_at = 1, 0
    run = 0  # where the current run of chunks starts that are kept as they are
    place = len(_MAGIC)
    for name, start, end in _chunks(data):
        place = end
        body = view[start + 8 : end - 4]
        if not exif_at and name == b"IDAT":
            parts.append(view[run:start])
            run, exif_at = start, len(parts)
        new = _kept(name, body, name in kept)
        if new is None:
            turn = _turn(name, body) or turn
        else:
            kept.add(name)
        if new is not body:
            dropped = True
            parts.append(view[run:start])
            parts.append(new or b"")
            run = end
        if name == b"IEND":
            break
    else:
        place = len(data)  # the file is cut short or broken from here on, as the decoder will see for itself
    if not dropped:
        return data
    parts.append(view[run:place])
    parts.insert(exif_at, _chunk(b"eXIf", exif_block(turn)) if exif_at and turn != 1 else b"")
    return b"".join(parts)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each whole chunk; ends before a chunk that is cut short or has no proper name."""
    place = len(_MAGIC)
    for _ in range(_MOST_CHUNKS):
        if place + 12 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data) or not re.match(rb"\w{4}", name):
            return
        yield name, place, end
        place = end
    raise RefusedError(f"is a PNG file of more than {_MOST_CHUNKS:,} chunks, which no picture needs")


def _kept(name: bytes, body: memoryview, again: bool) -> bytes | memoryview | None:
    """What to keep of a chunk: `body` itself for the chunk as it is, another chunk for it, or None for nothing."""
    if name == b"IDAT" or name == b"IEND":
        return body
    if again:
        return None
    if name == b"IHDR":
        return body
    if name in _SMALL:
        return body if len(body) in _SMALL[name] else None
    if name == b"iCCP":
        head, _, rest = bytes(body[:81]).partition(b"\0")
        plain = inflated(body[len(head) + 2 :], MAX_PROFILE) if rest[:1] == b"\0" else None
        profile = safe_profile(plain) if plain else None
        if profile is plain and profile:
            return body
        return _chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile, 1)) if profile else None
    return None


def _turn(name: bytes, body: memoryview) -> int:
    """The orientation in a chunk that is dropped; 0 if it is no EXIF block in any form."""
    if name == b"eXIf":
        return orientation(bytes(body[:_MOST_TEXT]))
    head = bytes(body[:80]).partition(b"\0")[0]
    if head != b"Raw profile type exif" or name not in (b"tEXt", b"zTXt"):
        return 0
    # An old custom of ImageMagick: the block as text, in lines of hexadecimal digits after three lines of header.
    packed = bytes(body[len(head) + 1 : len(head) + 1 + _MOST_TEXT])
    with contextlib.suppress(zlib.error, ValueError):
        text = packed if name == b"tEXt" else zlib.decompressobj().decompress(packed[1:], _MOST_TEXT)
        digits = b"".join(text.split(b"\n", 3)[-1].split())
        return orientation(bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii")))
    return 0


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(name + body))
