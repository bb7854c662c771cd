"""Searches of few rows, which are exact: a small index of the allowed rows, kept for the next query with the filter."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.forking import Cache
from retrieval.stores.base import MISSING

EXACT_UP_TO = 10_000  # allowed rows: a search of so many takes 0.3 ms, and copying them 2 ms
_KEPT = 8  # filters
_MOST_BYTES = 8 * 2**20  # of a small index that is kept
_COMPARED = 64  # of the rows of a filter, to find it again; then all of them are


class Narrow:
    """The rows that a filter allows, and a FAISS index of their vectors."""

    def __init__(self, rows: Ids, index: Any, mean: Vectors | None = None) -> None:
        """`rows` (N,) are those of the vectors in `index`, from which `mean` (D,) was taken off."""
        self._rows, self._index, self._mean = rows, index, mean

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return int(self._rows.nbytes + self._index.ntotal * self._index.code_size)

    def search(self, queries: Vectors, k: int) -> tuple[Ids, Floats]:
        """See `Store.search`."""
        ids = np.full((len(queries), k), MISSING, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        found = min(k, len(self._rows))
        if found and len(queries):
            best, places = self._index.search(queries, found)
            ids[:, :found] = np.where(places < 0, MISSING, self._rows[places])  # NaN is never found
            best = best if self._mean is None else best + (queries @ self._mean)[:, None]
            scores[:, :found] = np.where(places < 0, -np.inf, best)
        return ids, scores


class Filters:
    """What was made for the last filters, found by the rows that they allow. Thread-safe, also in a forked child."""

    def __init__(self) -> None:
        self._made: Cache[tuple[int, int], tuple[Ids, Any]] = Cache(_KEPT)

    def get(self, allowed: Ids) -> Any:
        """What `put` was given with equal rows; None if it is not kept (any more)."""
        given, made = self._made.get(_key(allowed)) or (None, None)
        return made if given is not None and np.array_equal(given, allowed) else None

    def put(self, allowed: Ids, made: Any, size: int) -> None:
        """Keep what was made for the allowed rows, in the order given, unless it takes too many bytes."""
        if size + allowed.nbytes <= _MOST_BYTES:
            self._made.put(_key(allowed), (allowed.copy(), made))  # the caller may write into its own


def _key(allowed: Ids) -> tuple[int, int]:
    return len(allowed), hash(allowed[:: max(1, len(allowed) // _COMPARED)].tobytes())


def half_index(dim: int, codes: Any) -> Any:
    """An index of 16-bit float vectors from their bytes, (N, 2 D) uint8, or None for no vectors."""
    index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    if codes is not None:
        index.add_sa_codes(codes)
    return index
