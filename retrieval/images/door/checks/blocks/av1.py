"""The frame sizes that an AV1 video stream declares, which its decoder allocates (AV1 specification, section 5)."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.images.door.formats import RefusedError

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY = 0
_EITHER = 2  # of a setting: each frame says for itself


class Bits:
    """Reads bits, the highest of each byte first; beyond the end they are 0."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        """The next bits as a number."""
        self.left -= count
        return (self.value >> self.left if self.left >= 0 else 0) & ((1 << count) - 1)


@dataclass
class _Sequence:
    """What a sequence header says that concerns the size of frames, or has to be known to find it in their headers."""

    size: tuple[int, int]
    widths: tuple[int, int]  # bits of a frame's width and height
    still: bool  # the short form, whose frames all have the size of the sequence
    time: int = 0  # bits of further fields of a frame header
    number: int = 0
    order: int = 0
    screen: int = _EITHER
    integer: int = _EITHER
    timed: bool = False


def stream_sizes(stream: bytes, left: list[int]) -> list[tuple[int, int]]:
    """Width and height of all sequences and key frames in a stream of open bitstream units; empty for other data.

    `left[0]` counts down the units that may still be read, over all streams of a file.
    """
    sizes: list[tuple[int, int]] = []
    sequence: _Sequence | None = None
    place = 0
    while place < len(stream) and not stream[place] & 0x81:  # bits that are always 0
        left[0] -= 1
        if left[0] < 0:
            raise RefusedError("is an AVIF file of more video units than a still picture needs")
        head = stream[place]
        place += 2 if head & 4 else 1
        length = len(stream) - place
        if head & 2:
            length, place = _length(stream, place)
        bits = Bits(stream[place : place + min(length, 256)])
        kind = head >> 3 & 15
        if kind == _SEQUENCE_HEADER:
            sequence = _sequence(bits)
            sizes.append(sequence.size)
        elif kind in (_FRAME_HEADER, _FRAME) and sequence and not sequence.still:
            sizes += _key_frame_size(bits, sequence)
        place += length
    return sizes


def _length(stream: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place after it."""
    value = 0
    for index in range(8):
        byte = stream[place + index] if place + index < len(stream) else 0
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, place + index + 1
    return value, place + 8


def _sequence(bits: Bits) -> _Sequence:
    """Section 5.5.1."""
    bits.read(4)  # profile, still picture
    still = bool(bits.read(1))
    timed, time = (False, 0) if still else _operating_points(bits)
    if still:
        bits.read(5)
    widths = bits.read(4) + 1, bits.read(4) + 1
    sequence = _Sequence((bits.read(widths[0]) + 1, bits.read(widths[1]) + 1), widths, still, time, timed=timed)
    if still:
        return sequence
    if bits.read(1):  # frames have numbers
        short = bits.read(4) + 2
        sequence.number = bits.read(3) + 1 + short
    bits.read(7)  # large blocks, two filters, four tools of prediction
    ordered = bits.read(1)
    bits.read(2 * ordered)
    sequence.screen = _EITHER if bits.read(1) else bits.read(1)
    if sequence.screen:
        sequence.integer = _EITHER if bits.read(1) else bits.read(1)
    sequence.order = bits.read(3) + 1 if ordered else 0
    return sequence


def _operating_points(bits: Bits) -> tuple[bool, int]:
    """Whether a decoder model is given, and the bits of a frame's time, where each frame gives its own."""
    delay = time = 0
    even = False
    if bits.read(1):  # timing
        bits.read(64)
        even = bool(bits.read(1))
        if even:
            zeros = 0
            while not bits.read(1) and zeros < 32:
                zeros += 1
            bits.read(zeros)
        if bits.read(1):  # decoder model
            delay = bits.read(5) + 1
            bits.read(37)
            time = bits.read(5) + 1
    display = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay and bits.read(1):
            bits.read(2 * delay + 1)
        if display and bits.read(1):
            bits.read(4)
    return delay > 0, 0 if even else time


def _key_frame_size(bits: Bits, sequence: _Sequence) -> list[tuple[int, int]]:
    """The size of a key frame that does not have that of its sequence (section 5.9.2); empty for all other frames."""
    if bits.read(1) or bits.read(2) != _KEY:  # repeats an earlier frame, or builds on one
        return []
    shown = bits.read(1)
    bits.read(sequence.time if shown else 1)
    if not shown:
        bits.read(1)
    bits.read(1)
    screen = bits.read(1) if sequence.screen == _EITHER else sequence.screen
    if screen and sequence.integer == _EITHER:
        bits.read(1)
    bits.read(sequence.number)
    if not bits.read(1):
        return []
    bits.read(sequence.order)
    if sequence.timed and bits.read(1):  # times for some operating points: what follows may have any value
        return [(1 << sequence.widths[0], 1 << sequence.widths[1])]
    if not shown:
        refreshed = bits.read(8)
        bits.read(8 * sequence.order if refreshed != 0xFF else 0)
    return [(bits.read(sequence.widths[0]) + 1, bits.read(sequence.widths[1]) + 1)]
