"""Benchmark what it costs to decode pictures in worker processes, beside decoding them in this one."""

from __future__ import annotations

import io
import time

import numpy as np

from retrieval.images.door.decode import decode
from retrieval.images.door.views import WHOLE
from retrieval.images.door.workers.apart import decode_apart
from retrieval.images.open import open_image
from retrieval.stores.recall import Figures

_SIZES = {"0.3 MP": (640, 480), "12 MP": (4000, 3000)}
_TIMES = 15


def bench_decoding(picture: bytes) -> Figures:
    """Decode a picture, enlarged to two sizes and saved as a JPEG, here and in a worker in turn.

    Gives the median in milliseconds of what a worker adds, and the ratio of both medians.
    """
    figures: Figures = {}
    for name, size in _SIZES.items():
        open_image(picture).resize(size).save(file := io.BytesIO(), "JPEG", quality=90)
        data = file.getvalue()
        decode_apart(data, None, [WHOLE])  # the first one may start the worker
        here, apart = np.median([_seconds(data) for _ in range(_TIMES)], axis=0)
        figures[f"decoding {name} in a worker - here, ms"] = float(1000 * (apart - here))
        figures[f"decoding {name} in a worker / here"] = float(apart / here)
    return figures


def _seconds(data: bytes) -> tuple[float, float]:
    """Seconds to decode these bytes here, and in a worker."""
    start = time.perf_counter()
    decode("", data, None)
    between = time.perf_counter()
    decode_apart(data, None, [WHOLE])
    return between - start, time.perf_counter() - between
