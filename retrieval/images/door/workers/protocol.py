"""The messages between the server and a worker: one packet each, of at most `LONGEST` bytes.

A request comes with two descriptors: the file, and where the pixels go. It is a line with `at_least`, whether the
picture may be large, and the wanted views as JSON, and then the name of the file. An answer is one letter, and what
follows it: if all is well, the width and height of each view, whose pixels lie one after the other. Before that, the
worker appends the number of pixels that the header states to the file, where the server finds it if the picture takes
long.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from retrieval.errors import short
from retrieval.images.door.views import View, from_text, to_text

LONGEST = 4096
READY = b"R"  # once, at the start
PIXELS = b"P"  # then the width and height of each view
REFUSED = b"E"  # then a message for the user
MEMORY = b"M"  # decoding needs more than there is
LARGE = b"L"  # it is a large picture, and was not to be decoded then

_LONGEST_MESSAGE = 600  # characters
_SIZE = struct.Struct("<II")
_PIXELS = struct.Struct("<Q")


def request(name: str, at_least: int | None, views: Sequence[View], large: bool) -> bytes:
    """Ask for views of a picture, which may be `large`."""
    number = min(max(0, int(at_least or 0)), 2**32 - 1)
    return f"{number} {int(large)} {to_text(views)}\n{name}".encode()[:LONGEST]


def parse_request(message: bytes) -> tuple[str, int | None, list[View], bool]:
    """The name of the file, `at_least`, the views, and whether the picture may be large."""
    wanted, _, name = message.decode(errors="replace").partition("\n")
    at_least, large, views = wanted.split(" ", 2)
    return name, int(at_least) or None, from_text(views), large == "1"


def declare_pixels(descriptor: int, size: int, pixels: int) -> None:
    """Append the number of pixels to a file of `size` bytes."""
    os.pwrite(descriptor, _PIXELS.pack(pixels), size)


def declared_pixels(descriptor: int, size: int) -> int:
    """The number of pixels, which may be anything; 0 as long as there is none."""
    written = os.pread(descriptor, _PIXELS.size, size)
    return int(_PIXELS.unpack(written)[0]) if len(written) == _PIXELS.size else 0


def pixels(sizes: Sequence[tuple[int, int]]) -> bytes:
    """Say that the pixels are there."""
    return PIXELS + b"".join(_SIZE.pack(*size) for size in sizes)


def refusal(message: str) -> bytes:
    """Say why there are none."""
    return REFUSED + message.encode(errors="replace")[: LONGEST - 1]


def parse_sizes(answer: bytes, count: int) -> list[tuple[int, int]]:
    """Width and height of each of `count` views. Raises ValueError."""
    if len(answer) != 1 + count * _SIZE.size:
        raise ValueError(f"{len(answer)} bytes instead of {count} sizes")
    return [_SIZE.unpack_from(answer, 1 + number * _SIZE.size) for number in range(count)]


def parse_message(answer: bytes) -> str:
    """The text of a refusal, on one line of printable characters."""
    text = answer[1:].decode(errors="replace")
    return short("".join(c if c.isprintable() else " " for c in text), _LONGEST_MESSAGE)
