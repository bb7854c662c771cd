"""The samples of a TIFF as numbers, band by band, so that a page is never in memory whole at its full depth.

Pillow reads whole pages into one of its modes, and has none for most of what a TIFF may hold. What it and libtiff do
well is to unpack: so the packed bytes are given to them as a grey picture of 8 bits, whose "pixels" are the bytes of
the samples, and numbers are made of these here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from retrieval.images.door.convert.tiff.layout import BYTEWISE, Layout

Samples = npt.NDArray[Any]
BAND = 2**22  # bytes unpacked at a time, unless a single strip or tile has more
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)[:, ::-1], axis=1).ravel()


def bands(data: bytes, layout: Layout) -> Iterator[tuple[int, Samples]]:
    """The top row of each band of the picture, and its samples, of shape (rows, width, samples).

    Raises ValueError where the samples are of a kind that is not read here, and OSError where the file is too short or
    its packed bytes are broken.
    """
    planes = layout.samples if layout.planar else 1
    row_bytes = (layout.chunk[0] * (layout.samples // planes) * layout.bits[0] + 7) // 8
    if layout.compression == 1 and not layout.tiled:
        layout = _in_short_strips(layout, row_bytes, planes)
    down = max(1, BAND // (row_bytes * layout.chunks_across * layout.chunk[1]))  # rows of strips or tiles in a band
    for first in range(0, layout.chunks_down, down):
        rows = range(first, min(first + down, layout.chunks_down))
        found = [_plane(data, layout, plane, rows, row_bytes) for plane in range(planes)]
        yield first * layout.chunk[1], found[0] if planes == 1 else np.concatenate(found, axis=2)


def _in_short_strips(layout: Layout, row_bytes: int, planes: int) -> Layout:
    """Cut strips into shorter ones, as rows that are not packed lie one after the other: many files have one strip."""
    tall, short = layout.chunk[1], max(1, min(layout.chunk[1], BAND // row_bytes))
    starts = [(offset, number % layout.chunks_down) for number, offset in enumerate(layout.offsets)]
    if len(starts) < planes * layout.chunks_down:
        raise OSError("strips are missing")
    cut = [
        (offset + row * row_bytes)
        for offset, number in starts
        for row in range(0, min(tall, layout.height - number * tall), short)
    ]
    if tall % short and layout.chunks_down > 1:
        return layout
    return replace(layout, chunk=(layout.width, short), offsets=tuple(cut))


def _plane(data: bytes, layout: Layout, plane: int, rows: range, row_bytes: int) -> Samples:
    """The rows of one plane that some rows of strips or tiles hold."""
    across, tall = layout.chunks_across, layout.chunk[1]
    start = plane * layout.chunks_down * across
    numbers = [start + row * across + column for row in rows for column in range(across)]
    shown = min(len(rows) * tall, layout.height - rows[0] * tall)
    height = (
        len(numbers) * tall if layout.tiled else shown
    )  # a tile is whole; the last strip only as long as it must be
    if layout.compression == 1:
        tops = range(0, height, tall)
        parts = [
            _stored(data, layout.offsets[number], row_bytes * min(tall, height - top))
            for number, top in zip(numbers, tops, strict=True)
        ]
        raw = np.concatenate(parts)
        raw = _REVERSED[raw] if layout.tags.get(266, 1) == 2 else raw
    else:
        raw = _unpacked(data, layout, numbers, height, row_bytes)
    values = _values(raw.reshape(height, row_bytes), layout, layout.samples if not layout.planar else 1)
    if layout.tiled:
        values = values.reshape(len(rows), across, tall, layout.chunk[0], -1).swapaxes(1, 2)
        values = values.reshape(len(rows) * tall, across * layout.chunk[0], -1)
    return values[:shown, : layout.width]


def _stored(data: bytes, offset: int, size: int) -> npt.NDArray[np.uint8]:
    if offset + size > len(data):
        raise OSError("the file ends before its pixels do")
    return np.frombuffer(data, np.uint8, size, offset)


def _unpacked(data: bytes, layout: Layout, numbers: list[int], height: int, row_bytes: int) -> npt.NDArray[np.uint8]:
    """The bytes of some strips or tiles, unpacked by libtiff as if they were the strips of a grey picture."""
    if layout.compression not in BYTEWISE:
        raise ValueError("this compression packs pixels, not bytes")
    packed = []
    for number in numbers:
        offset, size = layout.offsets[number], layout.counts[number]
        if offset + size > len(data):
            raise OSError("the file ends before its pixels do")
        packed.append(data[offset : offset + size])
    picture = TiffImagePlugin.TiffImageFile(io.BytesIO(_grey_tiff(layout, packed, row_bytes, height)))
    picture.load()
    return np.asarray(picture).reshape(-1)


def _grey_tiff(layout: Layout, strips: list[bytes], width: int, height: int) -> bytes:
    """A TIFF of 8-bit grey with these packed strips."""
    places = np.cumsum([8, *map(len, strips)]).tolist()
    ends = places.pop()
    count = len(strips)
    lists = struct.pack(f"<{2 * count}I", *places, *map(len, strips))
    entries = {
        256: width, 257: height, 258: 8, 259: layout.compression, 262: 1, 266: int(layout.tags.get(266, 1)),
        273: places[0] if count == 1 else ends, 277: 1, 278: min(layout.chunk[1], height),
        279: len(strips[0]) if count == 1 else ends + 4 * count,
    }  # fmt: skip
    directory = b"".join(
        struct.pack("<HHII", tag, 4, count if tag in (273, 279) else 1, value) for tag, value in entries.items()
    )
    start = ends + len(lists)
    head = struct.pack("<2sHI", b"II", 42, start)
    return b"".join([head, *strips, lists, struct.pack("<H", len(entries)), directory, bytes(4)])


def _values(raw: npt.NDArray[np.uint8], layout: Layout, samples: int) -> Samples:
    """Numbers from rows of bytes, of shape (rows, width, samples), after undoing the predictor (TIFF 6.0, section 14;
    predictor 3: Adobe's TIFF Technical Note 3)."""
    dtype, rows, width = layout.dtype, len(raw), layout.chunk[0]
    if dtype is None:
        if len(set(layout.bits)) != 1 or set(layout.kinds) != {1} or layout.bits[0] > 31 or layout.predictor != 1:
            raise ValueError("samples of different sizes, or of a kind that is not read")
        bits = layout.bits[0]  # packed without gaps, first bit first, in either byte order
        ones = np.unpackbits(raw, axis=1)[:, : width * samples * bits].reshape(rows, width, samples, bits)
        return ones @ (1 << np.arange(bits - 1, -1, -1, dtype=np.uint32))
    if layout.predictor == 3:
        summed = np.cumsum(raw.reshape(rows, -1, samples), axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, -1)
        turned = np.ascontiguousarray(summed.swapaxes(1, 2))  # the first bytes of all numbers of a row came first
        return turned.view(dtype.newbyteorder(">")).reshape(rows, width, samples)
    values = np.ascontiguousarray(raw).view(dtype).reshape(rows, width, samples)
    if layout.predictor == 2:
        return np.cumsum(values.astype(dtype.newbyteorder("=")), axis=1, dtype=dtype.newbyteorder("="))
    return values
