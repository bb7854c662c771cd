"""Where the samples of a TIFF lie and what they are, read from the tags of its first page (TIFF 6.0, section 8)."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import TiffImagePlugin

Tags = TiffImagePlugin.ImageFileDirectory_v2
GREY_INVERTED, GREY, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
COLOURS = {GREY_INVERTED: 1, GREY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}  # samples a pixel
# Compressions that pack bytes and know nothing of pixels: none, LZW, Deflate (two numbers), PackBits, LZMA, Zstandard.
BYTEWISE = {1, 5, 8, 32946, 32773, 34925, 50000}
ASSOCIATED, UNASSOCIATED = 1, 2  # ExtraSamples


@dataclass(frozen=True)
class Layout:
    """The tags that say how one page is stored."""

    tags: Tags
    order: str  # "<" or ">"
    width: int
    height: int
    bits: tuple[int, ...]  # one per sample of a pixel
    kinds: tuple[int, ...]  # SampleFormat, one per sample: 1 unsigned, 2 signed, 3 float
    photometric: int
    compression: int
    planar: bool
    extras: tuple[int, ...]
    predictor: int
    chunk: tuple[int, int]  # width and height of a tile; of a strip: the image's width, and its rows
    tiled: bool
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def samples(self) -> int:
        """How many samples a pixel has, extra samples included."""
        return len(self.bits)

    @property
    def chunks_across(self) -> int:
        """How many strips or tiles lie side by side."""
        return math.ceil(self.width / self.chunk[0])

    @property
    def chunks_down(self) -> int:
        """How many strips or tiles lie one below the other."""
        return math.ceil(self.height / self.chunk[1])

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """The numpy type of a sample in the file's byte order; None where samples are not whole bytes, or differ."""
        if len(set(self.bits)) != 1 or len(set(self.kinds)) != 1:
            return None
        name = f"{'?uif'[self.kinds[0]]}{self.bits[0] // 8}"
        known = {"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"}
        return np.dtype(self.order + name) if self.bits[0] % 8 == 0 and name in known else None

    @property
    def alpha(self) -> tuple[int, bool] | None:
        """The sample that is alpha, and whether the colours are multiplied by it already; None for an opaque image."""
        colours = COLOURS[self.photometric]
        if not self.extras and self.samples == colours + 1:
            return colours, False  # the tag is missing: what could it be?
        for place, kind in enumerate(self.extras):
            if kind in (ASSOCIATED, UNASSOCIATED, 999) and colours + place < self.samples:  # 999: Corel Draw 10
                return colours + place, kind == ASSOCIATED
        return None


def read_tags(data: bytes) -> Tags | None:
    """The tags of the first page; None if these bytes are not a TIFF."""
    if not data.startswith(tuple(TiffImagePlugin.PREFIXES)):
        return None
    file = io.BytesIO(data)
    tags = Tags(file.read(16 if data[2] == 43 else 8))
    file.seek(tags.next)
    tags.load(file)
    return tags


def read_layout(tags: Tags) -> Layout:
    """Raises KeyError, TypeError or ValueError where a tag is missing or makes no sense."""
    width, height = int(tags[256]), int(tags[257])
    samples = int(tags.get(277, 1))
    tiled = 324 in tags
    chunk = (int(tags[322]), int(tags[323])) if tiled else (width, min(int(tags.get(278, height)), height))
    photometric = int(tags.get(262, 0))
    if not (width > 0 and height > 0 and min(chunk) > 0 and 0 < samples <= 64):
        raise ValueError("a size is zero, or there are too many samples")
    return Layout(
        tags=tags,
        order="<" if tags.prefix == b"II" else ">",
        width=width,
        height=height,
        bits=_each(tags.get(258, (1,)), samples),
        kinds=_each(tags.get(339, (1,)), samples),
        photometric=photometric,
        compression=int(tags.get(259, 1)),
        planar=tags.get(284, 1) == 2 and samples > 1,
        extras=_numbers(tags.get(338, ())),
        predictor=int(tags.get(317, 1)),
        chunk=chunk,
        tiled=tiled,
        offsets=_numbers(tags[324 if tiled else 273]),
        counts=_numbers(tags.get(325 if tiled else 279, ())),
    )


def _numbers(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(int(each) for each in values)


def _each(value: object, samples: int) -> tuple[int, ...]:
    """One number per sample: a file may give a single one for all."""
    numbers = _numbers(value)
    numbers = numbers * samples if len(numbers) == 1 else numbers[:samples]
    if len(numbers) != samples:
        raise ValueError("another number of values than samples")
    return numbers
