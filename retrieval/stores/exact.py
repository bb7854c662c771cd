"""Brute force in numpy: the oracle that every other store is held against."""

from __future__ import annotations

import numpy as np

from retrieval.stores.base import MISSING, Ids, Vectors, check_added, check_allowed, check_rows, check_search

_CHUNK = 64  # queries at a time, so that the score matrix stays small


class ExactStore:
    """All vectors in one float32 matrix; a search is one matrix product and a sort."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._vectors: Vectors = np.empty((0, dim), np.float32)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `Store.add`."""
        self._vectors = np.concatenate([self._vectors, check_added(ids, vectors, len(self), self.dim)])

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> tuple[Ids, Vectors]:
        """See `Store.search`; equal scores come in the order of their rows."""
        queries = check_search(queries, k, self.dim)
        rows = np.arange(len(self)) if allowed is None else check_allowed(allowed, len(self))
        return search_rows(queries, self._vectors[rows], rows, k)

    def vectors(self, ids: Ids) -> Vectors:
        """See `Store.vectors`."""
        return self._vectors[check_rows(ids, len(self))]

    def __len__(self) -> int:
        return len(self._vectors)

    def close(self) -> None:
        """See `Store.close`."""
        self._vectors = np.empty((0, self.dim), np.float32)


def search_rows(queries: Vectors, vectors: Vectors, rows: Ids, k: int) -> tuple[Ids, Vectors]:
    """The k best of the given vectors for each query by brute force; `rows` (N,) are the ids of `vectors` (N, D)."""
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
