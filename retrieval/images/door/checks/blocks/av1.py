"""The frame size that an AV1 video stream declares, which is what its decoder allocates."""

from __future__ import annotations

from retrieval.images.door.formats import RefusedError

_SEQUENCE_HEADER = 1
_MOST_UNITS = 1000  # of a still picture, which has about three


class _Bits:
    """Reads bits, the highest of each byte first; beyond the end they are 0."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        self.left -= count
        return (self.value >> self.left if self.left >= 0 else 0) & ((1 << count) - 1)


def stream_sizes(stream: bytes) -> list[tuple[int, int]]:
    """Width and height of each sequence header in a stream of open bitstream units; empty for other data."""
    sizes: list[tuple[int, int]] = []
    place = 0
    for _ in range(_MOST_UNITS):
        if place >= len(stream) or stream[place] & 0x81:  # a bit that is always 0
            return sizes
        head = stream[place]
        place += 2 if head & 4 else 1
        length = len(stream) - place
        if head & 2:
            length, place = _length(stream, place)
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            sizes.append(_frame_size(_Bits(stream[place : place + 256])))
        place += length
    raise RefusedError(f"is an AVIF file of more than {_MOST_UNITS:,} units, which no still picture needs")


def _length(stream: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place after it."""
    value = 0
    for index in range(8):
        byte = stream[place + index] if place + index < len(stream) else 0
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, place + index + 1
    return value, place + 8


def _frame_size(bits: _Bits) -> tuple[int, int]:
    """The largest frame of a sequence (AV1 specification, section 5.5)."""
    bits.read(4)  # profile, still picture
    if bits.read(1):  # the short header of a still picture
        bits.read(5)
    else:
        _skip_operating_points(bits)
    wide, high = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(wide) + 1, bits.read(high) + 1


def _skip_operating_points(bits: _Bits) -> None:
    delay = 0
    if bits.read(1):  # timing
        bits.read(64)
        if bits.read(1):
            zeros = 0
            while not bits.read(1) and zeros < 32:
                zeros += 1
            bits.read(zeros)
        if bits.read(1):  # decoder model
            delay = bits.read(5) + 1
            bits.read(42)
    display = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay and bits.read(1):
            bits.read(2 * delay + 1)
        if display and bits.read(1):
            bits.read(4)
