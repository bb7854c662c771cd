"""Which process decodes a picture: a worker, or this one where there are none."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from PIL import Image

from retrieval.images.door.decode import decode
from retrieval.images.door.files import File, name_of, read_bytes
from retrieval.images.door.views import View


def _memory_files() -> bool:
    """Whether this system has files in memory that can be sealed, and lets us have them."""
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return False
    try:
        os.close(os.memfd_create("picture", os.MFD_ALLOW_SEALING))
    except OSError:
        return False
    return True


AVAILABLE = bool(sys.executable) and _memory_files()
"""Whether there are workers here."""


def decode_apart(source: File, at_least: int | None, views: Sequence[View]) -> list[Image.Image]:
    """Views of the picture in a file, as `open_views` returns them; raises the same."""
    if AVAILABLE:
        from retrieval.images.door.workers.pool import WORKERS

        return WORKERS.decode(source, at_least, views)
    image = decode(name_of(source), read_bytes(source), at_least)
    return [view.of(image) for view in views]


def share_workers(processes: int) -> None:
    """Leave room for the workers of other processes: so many of them share this machine."""
    if AVAILABLE:
        from retrieval.images.door.workers.pool import WORKERS

        WORKERS.share(processes)


def serve_many() -> None:
    """Prepare for the pictures of many visitors.

    Two workers are started, without waiting for them, so that the first picture need not wait. And one large picture is
    decoded at a time, while two wait; more are refused until then, as those that wait take some of the few queries that
    a server answers at a time from ordinary pictures.
    """
    if AVAILABLE:
        from retrieval.images.door.workers.lane import Lane
        from retrieval.images.door.workers.pool import WORKERS

        WORKERS.lane = Lane(at_once=1, waiting=2)
        WORKERS.warm_up(2)
