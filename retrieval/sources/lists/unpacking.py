"""Unpacking compressed answers of web servers in small steps, as a few bytes of gzip can hold gigabytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import httpx

_STEP = 2**18  # bytes unpacked at once
_EITHER = 32 + zlib.MAX_WBITS  # reads gzip and zlib, and tells them apart
NAMES = "gzip, deflate"
"""What a request may say that it accepts."""


def unpacked(response: httpx.Response) -> Iterator[bytes]:
    """The content of a response in pieces of at most 256 KiB, if it is packed.

    Raises httpx.DecodingError if it is damaged, or packed in another way, or more than once.
    """
    packing = response.headers.get("Content-Encoding", "").strip().lower()
    if packing in ("", "identity"):
        yield from response.iter_raw()
        return
    if packing not in ("gzip", "x-gzip", "deflate"):
        raise httpx.DecodingError(f"it is packed as {packing[:40]!r}, which was not asked for")
    unpack = zlib.decompressobj(_EITHER)
    try:
        for packed in response.iter_raw():
            while packed and not unpack.eof:
                yield unpack.decompress(packed, _STEP)
                packed = unpack.unconsumed_tail
    except zlib.error as error:
        raise httpx.DecodingError(str(error)) from error
    if not unpack.eof:
        raise httpx.DecodingError("it is cut short")
