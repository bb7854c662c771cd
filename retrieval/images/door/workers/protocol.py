"""The messages between the server and a worker: one packet each, of at most `LONGEST` bytes.

A request comes with two descriptors: the file, and where the pixels go. Its first four bytes are `at_least`, 0 for
none; the rest is the name of the file. An answer is one letter, and what follows it. Before that, the worker appends
the number of pixels that the header states to the file, where the server finds it if the picture takes long.
"""

from __future__ import annotations

import os
import struct

from retrieval.errors import short

LONGEST = 4096
READY = b"R"  # once, at the start
PIXELS = b"P"  # then width and height
REFUSED = b"E"  # then a message for the user
MEMORY = b"M"  # decoding needs more than there is

_LONGEST_MESSAGE = 600  # characters
_SIZE = struct.Struct("<II")
_AT_LEAST = struct.Struct("<I")
_PIXELS = struct.Struct("<Q")


def request(name: str, at_least: int | None) -> bytes:
    """Ask for a picture."""
    return _AT_LEAST.pack(min(at_least or 0, 2**32 - 1)) + name.encode()[: LONGEST - 4]


def parse_request(message: bytes) -> tuple[str, int | None]:
    """The name of the file, and `at_least`."""
    return message[4:].decode(errors="replace"), _AT_LEAST.unpack(message[:4])[0] or None


def declare_pixels(descriptor: int, size: int, pixels: int) -> None:
    """Append the number of pixels to a file of `size` bytes."""
    os.pwrite(descriptor, _PIXELS.pack(pixels), size)


def declared_pixels(descriptor: int, size: int) -> int:
    """The number of pixels, which may be anything; 0 as long as there is none."""
    written = os.pread(descriptor, _PIXELS.size, size)
    return int(_PIXELS.unpack(written)[0]) if len(written) == _PIXELS.size else 0


def pixels(width: int, height: int) -> bytes:
    """Say that the pixels are there."""
    return PIXELS + _SIZE.pack(width, height)


def refusal(message: str) -> bytes:
    """Say why there are none."""
    return REFUSED + message.encode(errors="replace")[: LONGEST - 1]


def parse_size(answer: bytes) -> tuple[int, int]:
    """Width and height. Raises ValueError."""
    if len(answer) != 1 + _SIZE.size:
        raise ValueError(f"{len(answer)} bytes instead of a size")
    width, height = _SIZE.unpack(answer[1:])
    return width, height


def parse_message(answer: bytes) -> str:
    """The text of a refusal, on one line of printable characters."""
    text = answer[1:].decode(errors="replace")
    return short("".join(c if c.isprintable() else " " for c in text), _LONGEST_MESSAGE)
