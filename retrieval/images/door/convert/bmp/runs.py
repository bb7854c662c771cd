"""Run-length BMP (BI_RLE8, BI_RLE4; OS/2's RLE24)."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from retrieval.images.door.convert.bmp.header import Header

Bytes = npt.NDArray[np.uint8]

_END_OF_LINE, _END, _JUMP = 0, 1, 2
_MOST_ESCAPES = 3_000_000  # ends of line, jumps and lists of pixels: a picture needs a few for each line
# Runs by the bytes of their value, up to the next escape: a file may have millions, too many to take one by one.
_RUNS = {size: re.compile(rb"(?:[^\0].{%d})++" % size, re.DOTALL) for size in (1, 3)}


def read_runs(data: bytes, header: Header) -> Bytes:
    """Pixels, as numbers of colours (H, W) or as colours (H, W, 3). Those that the file leaves out are 0.

    Raises OSError where the file ends before its last pixel and has no end mark, or where there are far too many runs.
    """
    rows = _Rows(header)
    rows.fill(data, header.start)
    shape = (header.height, header.width)
    if rows.step == 3:
        return np.frombuffer(rows.pixels, np.uint8).reshape(*shape, 3)[..., ::-1]
    return np.frombuffer(rows.pixels, np.uint8).reshape(shape)


class _Rows:
    """Pixels of one byte or three, and the place of the next one."""

    def __init__(self, header: Header) -> None:
        self.width, self.height, self.bits = header.width, header.height, header.bits
        self.step = 3 if header.bits == 24 else 1
        self.pixels = bytearray(self.width * self.height * self.step)
        self.x = self.y = 0

    def fill(self, data: bytes, place: int) -> None:
        """Decode from `place` on."""
        for _ in range(_MOST_ESCAPES):
            if runs := _RUNS[self.step].match(data, place):
                found = np.frombuffer(data, np.uint8, runs.end() - place, place)
                self._put(*self._repeated(found.reshape(-1, 1 + self.step)))
                place = runs.end()
            if self.y >= self.height or (self.y == self.height - 1 and self.x >= self.width):
                return
            code, place = data[place + 1 : place + 2], place + 2
            if not code:
                raise OSError("the file ends before its pixels do")
            if code[0] == _END:
                return
            if code[0] == _END_OF_LINE:
                self.x, self.y = 0, self.y + 1
            elif code[0] == _JUMP:
                right, on = data[place : place + 2].ljust(2, b"\0")
                self.x, self.y, place = self.x + right, self.y + on, place + 2
            else:
                listed, place = self._listed(data, place, code[0])
                self._put(listed, code[0])
        raise OSError("there are far more runs than the picture needs")

    def _put(self, pixels: bytes, count: int) -> None:
        """Put pixels at the current place, and move on by `count`; those beyond the row are dropped."""
        shown = max(0, min(count, self.width - self.x)) if self.y < self.height else 0
        at = self.y * self.width + self.x
        self.pixels[at * self.step : (at + shown) * self.step] = pixels[: shown * self.step]
        self.x += count

    def _repeated(self, runs: Bytes) -> tuple[bytes, int]:
        """The pixels of runs, as (N, 1 + step) counts and values, and their number; RLE4 has two values in turn."""
        runs = runs[: max(self.width - self.x, 1)]  # each gives a pixel or more
        counts = runs[:, 0]
        pixels = np.repeat(runs[:, 1:], counts, axis=0)
        if self.bits == 4:
            first = np.repeat(np.cumsum(counts, dtype=np.int64) - counts, counts)
            odd = ((np.arange(len(pixels)) - first) % 2)[:, None]
            pixels = np.where(odd, pixels & 15, pixels >> 4)
        return pixels.tobytes(), len(pixels)

    def _listed(self, data: bytes, place: int, count: int) -> tuple[bytes, int]:
        """`count` pixels one by one, padded to an even number of bytes; and the place of the next run."""
        size = {4: (count + 1) // 2, 8: count, 24: 3 * count}[self.bits]
        stored = data[place : place + size]
        if len(stored) < size:
            raise OSError("the file ends before its pixels do")
        if self.bits == 4:
            halves = np.frombuffer(stored, np.uint8)
            stored = np.stack([halves >> 4, halves & 15], axis=-1).tobytes()[:count]
        return stored, place + size + size % 2
