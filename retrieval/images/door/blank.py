"""Blank memory for decoders that leave a part of a picture as they find it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PERTURB = -6  # M_PERTURB of glibc's mallopt(3)
# Absent outside glibc.
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None


@contextmanager
def blank_memory() -> Iterator[None]:
    """Memory that C libraries allocate within the block is filled with zeros, where the system can do that.

    libtiff shows the lines of a damaged fax that it cannot read as whatever lay in memory, which may be another
    visitor's picture.
    """
    if _mallopt is None:
        yield
        return
    _mallopt(_PERTURB, 0xFF)  # the byte that freed memory gets; allocated memory gets its complement
    try:
        yield
    finally:
        _mallopt(_PERTURB, 0)
