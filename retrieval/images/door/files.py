"""Read a file from outside whole, within a limit; its content is not inspected."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from retrieval.errors import ImageError, short
from retrieval.images.door.formats import FORMATS

MAX_BYTES = 64 * 2**20

File = bytes | str | os.PathLike[str] | BinaryIO


def read_bytes(source: File) -> bytes:
    """Read a whole file of at most `MAX_BYTES`; the content is not inspected.

    Args:
        source: as for `open_image`; bytes are returned unchanged.

    Raises:
        ImageError: the file does not exist, is not a regular file (a folder, FIFO, device or socket is never opened),
            cannot be read, or is larger than `MAX_BYTES` (reading then stops early).
    """
    parts = list(parts_of(source))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def parts_of(source: File, longest: int = MAX_BYTES + 1) -> Iterator[bytes]:
    """The parts of a file, in order, each of at most `longest` bytes; bytes are one part. Raises like `read_bytes`."""
    name = name_of(source)
    if complaint := not_a_file(source):
        raise ImageError(complaint)
    if isinstance(source, bytes | bytearray | memoryview):
        if memoryview(source).nbytes > MAX_BYTES:
            raise _too_many_bytes(name)
        yield bytes(source)
        return
    try:
        if not isinstance(source, str | os.PathLike):
            yield from _capped(name, source, longest)
            return
        status = Path(source).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name} is {'a folder' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}")
        if status.st_size > MAX_BYTES:
            raise _too_many_bytes(name)
        with Path(source).open("rb") as file:
            # Asking for far too much is slow for a small file.
            yield from _capped(name, file, min(longest, status.st_size + 1))
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte, or a closed file
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a readable file"
        raise ImageError(f"{name} cannot be read: {reason}") from error


def not_a_file(source: object) -> str | None:
    """The reason why an object cannot be read as a file, with advice; None if it may be readable."""
    if isinstance(source, str) and re.match(r"(?i)\s*(https?|ftp|s3|gs|hf)://", source):
        return f"{short(source, 100)!r} is a URL: download it first, and give its path or bytes"
    if isinstance(source, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(source, "read"):
        return None
    kind = type(source)
    tensor = kind.__module__.partition(".")[0] in {"torch", "tensorflow", "jax", "jaxlib"}
    advice = "; convert it to a NumPy array first: uint8, (H, W, 3)" if tensor else ""
    return (
        f"a picture must be a path, bytes, a binary file, a PIL image or a uint8 array, not {kind.__qualname__}{advice}"
    )


def _capped(name: str, file: BinaryIO, longest: int) -> Iterator[bytes]:
    """Read `file` to its end, or to one byte over the limit: a file can grow after its size was checked."""
    room = MAX_BYTES + 1
    while room and (part := file.read(min(room, longest))):
        if not isinstance(part, bytes):
            raise ImageError(f"{name} is open in text mode; open it in binary mode")
        yield part
        room -= len(part)
    if not room:
        raise _too_many_bytes(name)


def unread(picture: Image.Image) -> bytes | None:
    """The file behind an image that was opened by Pillow and not decoded yet; None if there is none, or not at hand."""
    file: Any = getattr(picture, "fp", None)
    if picture.format not in (*FORMATS, "MPO") or not getattr(picture, "tile", None) or getattr(picture, "tell", int)():
        return None
    try:
        here = file.tell()
        file.seek(0)
        data = file.read(MAX_BYTES + 1)
        file.seek(here)
    except (AttributeError, OSError, ValueError):  # closed, or cannot seek
        return None
    return data if isinstance(data, bytes) and len(data) <= MAX_BYTES else None


def _too_many_bytes(name: str) -> ImageError:
    return ImageError(f"{name} is too large; at most {MAX_BYTES // 2**20} MiB are accepted")


def name_of(source: object) -> str:
    """The name of `source` for messages: the file name without its folders, on one line."""
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    name = Path(path).name if isinstance(path, str | os.PathLike) else ""
    return "".join(c if c.isprintable() else "?" for c in name[:100]) or "the image"
