"""The samples of a TIFF as numbers, band by band, so that a page is never in memory whole at its full depth.

Pillow reads whole pages into one of its modes, and has none for most of what a TIFF may hold. What it and libtiff do
well is to unpack: so the packed bytes are given to them as a grey picture of 8 bits, whose "pixels" are the bytes of
the samples, and numbers are made of these here.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from retrieval.images.door.convert.bands import boxes
from retrieval.images.door.convert.tiff.layout import BYTEWISE, Layout

Samples = npt.NDArray[Any]
BAND = 2**20  # bytes unpacked at a time, unless a single strip or tile has more
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
        rows, top = range(first, min(first + down, layout.chunks_down)), first * layout.chunk[1]
        raw = [_raw(data, layout, plane, rows, row_bytes) for plane in range(planes)]
        if layout.tiled:
            yield top, _joined([_untiled(part, layout, rows) for part in raw])
            continue
        step = max(1, BAND // row_bytes)  # a packed strip may hold the whole page
        for start in range(0, len(raw[0]), step):
            parts = [_values(part[start : start + step], layout)[:, : layout.width] for part in raw]
            yield top + start, _joined(parts)


def _joined(planes: list[Samples]) -> Samples:
    return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)


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


def _raw(data: bytes, layout: Layout, plane: int, rows: range, row_bytes: int) -> npt.NDArray[np.uint8]:
    """The unpacked bytes of some rows of strips or tiles of one plane, a row for each of theirs."""
    across, tall = layout.chunks_across, layout.chunk[1]
    start = plane * layout.chunks_down * across
    numbers = [start + row * across + column for row in rows for column in range(across)]
    # A tile is whole; the last strip is only as long as it must be.
    height = len(numbers) * tall if layout.tiled else min(len(rows) * tall, layout.height - rows[0] * tall)
    if layout.compression != 1:
        return _unpacked(data, layout, numbers, height, row_bytes).reshape(height, row_bytes)
    parts = [
        _stored(data, layout.offsets[number], row_bytes * min(tall, height - top))
        for number, top in zip(numbers, range(0, height, tall), strict=True)
    ]
    raw = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return (_REVERSED[raw] if layout.tags.get(266, 1) == 2 else raw).reshape(height, row_bytes)


def _untiled(raw: npt.NDArray[np.uint8], layout: Layout, rows: range) -> Samples:
    """The samples of some rows of tiles, as rows of the picture."""
    across, tall = layout.chunks_across, layout.chunk[1]
    values = _values(raw, layout).reshape(len(rows), across, tall, layout.chunk[0], -1).swapaxes(1, 2)
    values = values.reshape(len(rows) * tall, across * layout.chunk[0], -1)
    return values[: layout.height - rows[0] * tall, : layout.width]


def _stored(data: bytes, offset: int, size: int) -> npt.NDArray[np.uint8]:
    if offset + size > len(data):
        raise OSError("the file ends before its pixels do")
    return np.frombuffer(data, np.uint8, size, offset)


def _unpacked(data: bytes, layout: Layout, numbers: list[int], height: int, row_bytes: int) -> npt.NDArray[np.uint8]:
    """The bytes of some strips or tiles, unpacked by libtiff as if they were the strips of a grey picture."""
    if layout.compression not in BYTEWISE:
        raise ValueError("this compression packs pixels, not bytes")
    if sum(layout.counts[number] for number in numbers) > 2 * len(data):
        raise OSError("strips lie over one another")
    packed = []
    for number in numbers:
        offset, size = layout.offsets[number], layout.counts[number]
        if offset + size > len(data):
            raise OSError("the file ends before its pixels do")
        packed.append(data[offset : offset + size])
    if layout.compression in (8, 32946) and len(packed) == 1:
        found = zlib.decompressobj().decompress(packed[0], height * row_bytes)  # without the copies that Pillow makes
        return _stored(found, 0, height * row_bytes)
    picture = TiffImagePlugin.TiffImageFile(io.BytesIO(_grey_tiff(layout, packed, row_bytes, height)))
    picture.load()
    unpacked = np.empty((picture.height, picture.width), np.uint8)
    for box in boxes(*picture.size):  # Pillow gives all of it at once only with two copies
        unpacked[box[1] : box[3]] = np.asarray(picture.crop(box))
    return unpacked.reshape(-1)


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


def _values(raw: npt.NDArray[np.uint8], layout: Layout) -> Samples:
    """Numbers from rows of bytes, of shape (rows, width, samples), after undoing the predictor (TIFF 6.0, section 14;
    predictor 3: Adobe's TIFF Technical Note 3)."""
    dtype, rows, width = layout.dtype, len(raw), layout.chunk[0]
    samples = 1 if layout.planar else layout.samples
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
