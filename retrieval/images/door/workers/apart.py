"""Which process decodes a picture: a worker, or this one where there are none."""

from __future__ import annotations

import os
import sys

from PIL import Image

from retrieval.images.door.decode import decode
from retrieval.images.door.files import File, name_of, read_bytes

AVAILABLE = sys.platform == "linux" and hasattr(os, "memfd_create") and bool(sys.executable)
"""Whether there are workers here. macOS and Windows have no files in memory that can be sealed."""


def decode_apart(source: File, at_least: int | None) -> Image.Image:
    """The picture of a file as `open_image` returns it; raises the same."""
    if AVAILABLE:
        from retrieval.images.door.workers.pool import WORKERS

        return WORKERS.decode(source, at_least)
    return decode(name_of(source), read_bytes(source), at_least)


def start_workers() -> None:
    """Start two workers, without waiting for them, so that the first picture need not wait."""
    if AVAILABLE:
        from retrieval.images.door.workers.pool import WORKERS

        WORKERS.warm_up(2)
