"""Run-length BMP (BI_RLE8, BI_RLE4; OS/2's RLE24)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retrieval.images.door.convert.bmp.header import Header

Bytes = npt.NDArray[np.uint8]


def read_runs(data: bytes, header: Header) -> Bytes:
    """Pixels, as numbers of colours (H, W) or as colours (H, W, 3). Those that the file leaves out are 0.

    Raises OSError where the file ends before its last pixel and has no end mark.
    """
    width, height, step = header.width, header.height, 3 if header.bits == 24 else 1
    pixels = bytearray(width * height * step)
    place, x, y = header.start, 0, 0
    while y < height:
        if place + 2 > len(data):
            if y == height - 1 and x >= width:
                break
            raise OSError("the file ends before its pixels do")
        count, value = data[place], data[place + 1]
        place += 2
        if count == 0 and value == 0:  # end of the line
            x, y = 0, y + 1
            continue
        if count == 0 and value == 1:  # end of the picture
            break
        if count == 0 and value == 2:  # move right and on
            right, on = data[place : place + 2].ljust(2, b"\0")
            place, x, y = place + 2, x + right, y + on
            continue
        if count:
            run, place = _repeated(data, place, count, value, header.bits)
        else:
            run, place = _listed(data, place, value, header.bits)
            count = value
        shown = max(0, min(count, width - x))  # what goes beyond the row is dropped
        at = y * width + x
        pixels[at * step : (at + shown) * step] = run[: shown * step]
        x += count
    if step == 3:
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)[..., ::-1]
    return np.frombuffer(pixels, np.uint8).reshape(height, width)


def _repeated(data: bytes, place: int, count: int, value: int, bits: int) -> tuple[bytes, int]:
    """`count` pixels of one colour, or of two in turn in RLE4; and the place of the next run."""
    if bits == 4:
        return (bytes((value >> 4, value & 15)) * (count // 2 + 1))[:count], place
    if bits == 24:
        return (bytes((value,)) + data[place : place + 2]) * count, place + 2
    return bytes((value,)) * count, place


def _listed(data: bytes, place: int, count: int, bits: int) -> tuple[bytes, int]:
    """`count` pixels one by one, padded to an even number of bytes; and the place of the next run."""
    size = {4: (count + 1) // 2, 8: count, 24: 3 * count}[bits]
    stored = data[place : place + size]
    if len(stored) < size:
        raise OSError("the file ends before its pixels do")
    if bits == 4:
        halves = np.frombuffer(stored, np.uint8)
        stored = np.stack([halves >> 4, halves & 15], axis=-1).tobytes()[:count]
    return stored, place + size + size % 2
