"""Files in memory, by which a picture goes to a worker and its pixels come back."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PIL import Image

PIXEL = 4  # bytes: red, green, blue and one that is not used, as Pillow keeps RGB in memory
_COPIED = 2**18  # bytes: for a smaller picture, copying is faster than mapping, and a process has few maps
_SEALS = (
    fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    if hasattr(os, "memfd_create")
    else 0
)


@contextmanager
def memory_file() -> Iterator[int]:
    """The descriptor of a new, empty file in memory; it is closed afterwards, which does not end its maps."""
    descriptor = os.memfd_create("picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Append all of `data` to a file; a single call of `os.write` may write less."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def take_pictures(descriptor: int, sizes: Sequence[tuple[int, int]]) -> list[Image.Image]:
    """The pictures that a worker wrote one after the other, large ones without copying them: mode RGB.

    The worker is not trusted. It cannot change the file any more after this: the file is ours, and is sealed before its
    size is read. Raises ValueError if the worker can still write to it, or if the size is another one.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        raise ValueError("the pixels can still be changed") from error
    lengths = [width * height * PIXEL for width, height in sizes]
    total, status = sum(lengths), os.fstat(descriptor)
    # A hole would take memory when it is read, and stop the server if there is none.
    if not all(lengths) or status.st_size != total or status.st_blocks * 512 < total:
        raise ValueError(f"pictures of {sizes}, but {status.st_size} bytes")
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    places = list(zip(sizes, lengths, starts, strict=True))
    if total <= _COPIED:
        parts = [(size, os.pread(descriptor, length, start)) for size, length, start in places]
        return [Image.frombytes("RGB", size, part, "raw", "RGBX") for size, part in parts]
    whole = _Map(descriptor, total)
    return [_mapped(whole, start, length, size) for size, length, start in places]


def _mapped(whole: _Map, start: int, length: int, size: tuple[int, int]) -> Image.Image:
    """A part of a map as an image, which keeps the map."""
    import pyarrow as pa

    samples = pa.Array.from_buffers(pa.uint8(), length, [None, pa.foreign_buffer(whole.address + start, length, whole)])
    pixel = pa.list_(pa.field("", pa.uint8(), nullable=False), PIXEL)
    pixels = pa.FixedSizeListArray.from_buffers(pixel, length // PIXEL, [None], children=[samples])
    return Image.fromarrow(pixels, "RGB", size)


class _Map:
    """A private map of a file, until nothing refers to it; what is written to it is not written to the file.

    Python's own `mmap` would keep a descriptor for each picture, and a process has few of these.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._size = size
        access = 0x1 | 0x2  # PROT_READ | PROT_WRITE
        self.address = _libc.mmap(None, size, access, 0x2, descriptor, 0)  # MAP_PRIVATE
        if self.address in (None, ctypes.c_void_p(-1).value):
            raise MemoryError(f"cannot map {size} bytes: {os.strerror(ctypes.get_errno())}")

    def __del__(self) -> None:
        _libc.munmap(self.address, self._size)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
