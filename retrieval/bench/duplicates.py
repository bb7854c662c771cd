"""Benchmark near-duplicate detection: time and memory, compared with brute force on the same vectors."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from retrieval.artifact.load import load_artifact
from retrieval.bench.rows.memory import largest
from retrieval.bench.rows.synthetic import Cloud
from retrieval.evaluation.duplicates import GATE, find_groups
from retrieval.images.compare import Pictures
from retrieval.images.gallery import Gallery
from retrieval.stores.faiss import FaissStore

_SAMPLE = 2048  # rows on which brute force is timed


def bench_duplicates(folder: Path, rows: int, dim: int) -> dict[str, Any]:
    """Find near-duplicates among `rows` synthetic vectors of dimension `dim`, with the artifact's thumbnails in turn.

    Brute force computes the cosine of all pairs by matrix product, on a sample of the rows, and compares no images.
    """
    artifact = load_artifact(folder)
    cloud = Cloud(artifact.store.vectors(np.arange(len(artifact.store))), dim)
    store = FaissStore(dim)
    store.add(vectors := cloud.draw(rows, seed=1))
    process = psutil.Process()
    before = process.memory_info().rss
    with largest(lambda: process.memory_info().rss, every=0.01) as peak:
        started = time.perf_counter()
        pictures = Pictures(_InTurn(artifact.gallery, rows))
        groups = find_groups(store, pictures.same, likely=partial(pictures.likely, pictures))
        seconds = time.perf_counter() - started
    sample = np.array_split(np.random.default_rng(0).permutation(rows)[:_SAMPLE], 8)
    started = time.perf_counter()
    pairs = sum(np.count_nonzero(vectors[part] @ vectors.T >= GATE) - len(part) for part in sample)
    brute = (time.perf_counter() - started) * rows / sum(map(len, sample)) / 2  # each pair is computed only once
    return {
        "rows": rows,
        "dimension": dim,
        "groups": len(groups),
        "pairs by cosine alone, about": round(pairs * rows / sum(map(len, sample)) / 2),
        "s": seconds,
        "peak extra MiB": (peak[0] - before) / 2**20,
        "brute force s, about": brute,
        "brute force / s": brute / seconds,
    }


class _InTurn:
    """The thumbnails of a gallery, repeated to a given number of rows."""

    def __init__(self, gallery: Gallery, rows: int) -> None:
        self._gallery, self._rows = gallery, rows

    def thumbnail(self, row: int) -> bytes:
        return self._gallery.thumbnail(row % len(self._gallery))

    def __len__(self) -> int:
        return self._rows
