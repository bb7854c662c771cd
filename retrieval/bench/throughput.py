"""How many images a second go through the steps of a build."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pyarrow as pa

from retrieval.build.embed import embed_source
from retrieval.build.shards import Shards
from retrieval.encoders.image import Encoder
from retrieval.files.held import temporary_folder
from retrieval.sources.base import RawImage, Source


def build_throughput(encoder: Encoder, pictures: Sequence[bytes]) -> float:
    """Images per second through the steps of a build: decode, make a thumbnail, embed, write shards."""
    rows = [RawImage(str(number), data=data) for number, data in enumerate(pictures)]
    with temporary_folder() as folder:
        shards = Shards(folder / "shards", "bench", encoder.fingerprint, pa.schema([]))
        started = time.perf_counter()
        embed_source(Source(lambda: iter(rows), pa.schema([]), "bench", len(rows)), encoder, shards)
        return len(rows) / (time.perf_counter() - started)
