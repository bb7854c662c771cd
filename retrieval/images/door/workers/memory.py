"""Files in memory, by which a picture goes to a worker and its pixels come back."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
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


def take_picture(descriptor: int, width: int, height: int) -> Image.Image:
    """The picture that a worker wrote, without copying it: mode RGB, kept as long as the image is.

    The worker is not trusted. It cannot change the file any more after this: the file is ours, and is sealed before its
    size is read. Raises ValueError if the worker can still write to it, or if the size is another one.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        raise ValueError("the pixels can still be changed") from error
    size, status = width * height * PIXEL, os.fstat(descriptor)
    # A hole would take memory when it is read, and stop the server if there is none.
    if not size or status.st_size != size or status.st_blocks * 512 < size:
        raise ValueError(f"{width} x {height} pixels, but {status.st_size} bytes")
    if size <= _COPIED:
        return Image.frombytes("RGB", (width, height), os.pread(descriptor, size, 0), "raw", "RGBX")
    import pyarrow as pa

    buffer = pa.foreign_buffer((view := _Map(descriptor, size)).address, size, view)
    samples = pa.Array.from_buffers(pa.uint8(), size, [None, buffer])
    pixel = pa.list_(pa.field("", pa.uint8(), nullable=False), PIXEL)
    pixels = pa.FixedSizeListArray.from_buffers(pixel, width * height, [None], children=[samples])
    return Image.fromarrow(pixels, "RGB", (width, height))


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
