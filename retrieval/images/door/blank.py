"""Blank memory for decoders that leave a part of a picture as they find it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PERTURB, _BYTE = -6, 255  # M_PERTURB of glibc's mallopt(3): freed memory gets this byte, allocated memory 0
ALWAYS_BLANK = f"glibc.malloc.perturb={_BYTE}"
"""In the variable GLIBC_TUNABLES at the start of a process: all freed memory is overwritten."""
# Absent outside glibc.
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None


@contextmanager
def blank_memory() -> Iterator[None]:
    """Memory that C libraries allocate within the block is filled with zeros, where the system can do that.

    libtiff shows the lines of a damaged fax that it cannot read as whatever lay in memory, which may be another
    visitor's picture. Memory by which an allocation grows stays as it was, so in the workers, which decode what
    strangers send, memory is always blank instead.
    """
    if _mallopt is None or ALWAYS_BLANK in os.environ.get("GLIBC_TUNABLES", ""):
        yield
        return
    _mallopt(_PERTURB, _BYTE)
    try:
        yield
    finally:
        _mallopt(_PERTURB, 0)
