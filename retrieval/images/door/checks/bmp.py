"""BMP: run-length coding, which Pillow decodes byte by byte in Python, is decoded here."""

from __future__ import annotations

import re
import struct

import numpy as np

from retrieval.images.door.formats import RefusedError

_RLE8, _RLE4 = 1, 2
_MOST_ESCAPES = 3_000_000  # ends of line, jumps and literal runs: a picture needs a few for each line
_RUNS = re.compile(rb"(?:[^\0].)++", re.DOTALL)  # pairs of a count and what to repeat, up to the next escape
_END_OF_LINE, _END, _JUMP = 0, 1, 2
_NIBBLES = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))


def is_bmp(data: bytes) -> bool:
    """Whether these bytes start as a BMP file does."""
    return data[:2] == b"BM"


def clean(data: bytes, max_pixels: int) -> bytes:
    """A BMP with run-length coding as one without; any other unchanged. See `only_needed`.

    Raises ValueError if the coded pixels are cut short.
    """
    if len(data) < 54:
        return data
    offset, head, width, height = struct.unpack_from("<IIii", data, 10)
    bits, coding, colours = *struct.unpack_from("<HI", data, 28), struct.unpack_from("<I", data, 46)[0]
    if head < 40 or (bits, coding) not in ((8, _RLE8), (4, _RLE4)) or not 0 < width * abs(height) <= max_pixels:
        return data
    palette = data[14 + head : 14 + head + 4 * min(colours or 1 << bits, 256)]
    if offset == 14 + head:  # some writers leave the palette out of account
        offset += len(palette)
    rows = _Rows(width, abs(height))
    rows.decode(data, offset, coding == _RLE4)
    start = 54 + 1024
    file = struct.pack("<2sIII", b"BM", start + len(rows.pixels), 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, len(rows.pixels), 0, 0, 256, 0)
    return b"".join([file, info, palette.ljust(1024, b"\0"), rows.pixels])


class _Rows:
    """Pixels as they are decoded, one byte each, in rows padded to four bytes; what is jumped over stays 0."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.stride = width + 3 & ~3
        self.pixels = bytearray(self.stride * height)
        self.x = self.y = 0

    def decode(self, data: bytes, place: int, nibbles: bool) -> None:
        """Decode from `place` on, 8 bits a pixel or 4 (`nibbles`)."""
        for _ in range(_MOST_ESCAPES):
            if runs := _RUNS.match(data, place):
                self._repeat(np.frombuffer(data, np.uint8, runs.end() - place, place).reshape(-1, 2), nibbles)
                place = runs.end()
            if self.y >= self.height or (self.y == self.height - 1 and self.x >= self.width):
                return
            if place + 2 > len(data):
                raise ValueError("cut short")
            code = data[place + 1]
            place += 2
            if code == _END:
                return
            if code == _END_OF_LINE:
                self.x, self.y = 0, self.y + 1
            elif code == _JUMP:
                self.x, self.y = self.x + data[place], self.y + data[place + 1]
                place += 2
            else:
                count = (code + 1) // 2 if nibbles else code
                literal = data[place : place + count]
                if len(literal) < count:
                    raise ValueError("cut short")
                self._put(literal.hex().encode().translate(_NIBBLES)[:code] if nibbles else literal)
                place += count + count % 2
        raise RefusedError(f"is a BMP file of more than {_MOST_ESCAPES:,} runs: save it again as PNG")

    def _repeat(self, runs: np.ndarray[tuple[int, int], np.dtype[np.uint8]], nibbles: bool) -> None:
        """Put pixels for pairs of a count and one value, or two that alternate."""
        room = max(self.width - self.x, 0)
        counts, values = runs[:room, 0], runs[:room, 1]  # each gives a pixel or more
        pixels = np.repeat(values, counts)
        if nibbles:
            first = np.repeat(np.cumsum(counts, dtype=np.int64) - counts, counts)
            odd = (np.arange(len(pixels)) - first) % 2
            pixels = np.where(odd, pixels & 15, pixels >> 4).astype(np.uint8)
        self._put(pixels.tobytes())

    def _put(self, pixels: bytes) -> None:
        """Put pixels at the current place; those beyond the end of the row are dropped."""
        if self.y < self.height:
            start = self.y * self.stride + self.x
            room = max(self.width - self.x, 0)
            self.pixels[start : start + min(len(pixels), room)] = pixels[:room]
        self.x += len(pixels)
