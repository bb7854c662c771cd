"""The frame sizes that an HEVC video stream declares, which its decoder allocates (ITU-T H.265, section 7.3)."""

from __future__ import annotations

from collections.abc import Iterator

from retrieval.images.door.checks.blocks.av1 import Bits
from retrieval.images.door.formats import RefusedError

_PARAMETERS = 33  # a sequence parameter set
_READ = 512  # bytes of it; its size stands at the beginning


def configured_units(hvcc: bytes) -> Iterator[bytes]:
    """The units of an `hvcC` box (ISO/IEC 14496-15, section 8.3.2.1)."""
    place = 23
    for _ in range(hvcc[22] if len(hvcc) > 22 else 0):
        count = int.from_bytes(hvcc[place + 1 : place + 3], "big")
        place += 3
        for _ in range(count):
            length = int.from_bytes(hvcc[place : place + 2], "big")
            yield hvcc[place + 2 : place + 2 + length]
            place += 2 + length
            if place >= len(hvcc):
                return


def units(stream: bytes, width: int, left: list[int]) -> Iterator[bytes]:
    """The units of a stream, each behind its length of `width` bytes; `left[0]` counts down over all streams."""
    place = 0
    while place + width < len(stream):
        left[0] -= 1
        if left[0] < 0:
            raise RefusedError("is an HEIC file of more video units than a still picture needs")
        length = int.from_bytes(stream[place : place + width], "big")
        place += width
        yield stream[place : min(place + length, place + _READ)]
        place += length


def declared_size(unit: bytes) -> tuple[int, int] | None:
    """Width and height of a sequence parameter set, cropped or not; None for other units."""
    if len(unit) < 2 or unit[0] >> 1 & 63 != _PARAMETERS:
        return None
    bits = Bits(unit[2:_READ].replace(b"\0\0\3", b"\0\0"))
    bits.read(4)
    layers = bits.read(3)
    bits.read(1 + 96)  # nesting, profile and level
    _skip_layers(bits, layers)
    _number(bits)
    if _number(bits) == 3:  # format of chroma
        bits.read(1)
    return _number(bits), _number(bits)


def _skip_layers(bits: Bits, layers: int) -> None:
    present = [(bits.read(1), bits.read(1)) for _ in range(layers)]
    if layers:
        bits.read(2 * (8 - layers))
    for profile, level in present:
        bits.read(88 * profile + 8 * level)


def _number(bits: Bits) -> int:
    """An Exp-Golomb code."""
    zeros = 0
    while not bits.read(1):
        zeros += 1
        if zeros > 32:
            raise RefusedError("is damaged: a number in its video is endless")
    return (1 << zeros) - 1 + bits.read(zeros)
