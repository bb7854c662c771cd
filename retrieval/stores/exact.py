"""Brute-force search in numpy over selected vectors of a store."""

from __future__ import annotations

import numpy as np

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.stores.base import MISSING

_CHUNK = 64  # queries at a time, to keep the score matrix small


def search_rows(queries: Vectors, vectors: Vectors, rows: Ids, k: int) -> tuple[Ids, Floats]:
    """The k best vectors for each query by brute force; `rows` (N,) are the ids of `vectors` (N, D)."""
    ids = np.full((len(queries), k), MISSING, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    found = min(k, len(rows))
    for start in range(0, len(queries), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        products = queries[chunk] @ vectors.T
        best = np.argsort(-products, axis=1, kind="stable")[:, :found]
        ids[chunk, :found] = rows[best]
        scores[chunk, :found] = np.take_along_axis(products, best, axis=1)
    return ids, scores
