"""The header of a BMP (BITMAPINFOHEADER to BITMAPV5HEADER, and OS/2's of 64 bytes) and its colours."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PLAIN, RLE8, RLE4, BITFIELDS, RLE24, ALPHA_BITFIELDS = 0, 1, 2, 3, 4, 6
_OS2 = 64
# The layouts of 16 and 32 bits that Pillow reads right: masks of red, green, blue and alpha.
_PILLOW_MASKS = {
    (32, (0xFF0000, 0xFF00, 0xFF, 0)),
    (32, (0xFF000000, 0xFF0000, 0xFF00, 0)),
    (32, (0xFF000000, 0xFF00, 0xFF, 0)),
    (16, (0xF800, 0x7E0, 0x1F, 0)),
    (16, (0x7C00, 0x3E0, 0x1F, 0)),
}


@dataclass(frozen=True)
class Header:
    """How a BMP is stored."""

    size: int
    width: int
    height: int
    upward: bool  # the first row is the lowest
    bits: int
    compression: int
    colours: int
    masks: tuple[int, ...]  # of red, green, blue and alpha
    start: int  # of the pixels

    @property
    def is_run_length(self) -> bool:
        """Whether runs of pixels are stored, which may leave some out."""
        expected = {8: RLE8, 4: RLE4, 24: RLE24 if self.size == _OS2 else None}
        return self.compression != PLAIN and self.compression == expected.get(self.bits)

    @property
    def is_ours(self) -> bool:
        """Whether Pillow reads it wrong, or not at all, and this package does."""
        if self.is_run_length or (self.bits == 2 and self.compression == PLAIN):
            return True
        fields = self.compression in (BITFIELDS, ALPHA_BITFIELDS) and self.size != _OS2
        return fields and self.bits in (16, 32) and (self.bits, self.masks) not in _PILLOW_MASKS


def read_header(data: bytes) -> Header | None:
    """None if these bytes are not a BMP of a kind that could be read here."""
    if data[:2] != b"BM" or len(data) < 54:
        return None
    start, size, width, height, planes, bits, compression = struct.unpack("<IIiiHHI", data[10:34])
    if size not in (40, 52, 56, _OS2, 108, 124) or width <= 0 or height == 0 or planes > 1:
        return None
    count = 4 if size >= 56 or compression == ALPHA_BITFIELDS else 3
    masks = struct.unpack("<4I", data[54:70].ljust(16, b"\0"))[:count] + (0,) * (4 - count)
    colours = struct.unpack("<I", data[46:50])[0]
    return Header(size, width, abs(height), height > 0, bits, compression, colours, masks, start)


def palette(data: bytes, header: Header) -> npt.NDArray[np.uint8]:
    """The palette as RGB, of shape (2^bits, 3); missing colours are black."""
    start = 14 + header.size
    count = min(header.colours or 256, 256, max(0, header.start - start) // 4)
    stored = np.frombuffer(data[start : start + 4 * count], np.uint8)
    stored = stored[: len(stored) // 4 * 4].reshape(-1, 4)[:, 2::-1]
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(stored)] = stored
    return colours


def profile(data: bytes) -> bytes | None:
    """The ICC profile in a file with a V5 header."""
    header, kind = struct.unpack("<I", data[14:18])[0], data[70:74]
    if header != 124 or kind != b"DEBM":  # 'MBED', as a number
        return None
    offset, size = struct.unpack("<II", data[126:134])
    return data[14 + offset : 14 + offset + size]
