"""The interface of every vector store; a shared contract test compares each store with brute force."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.errors import StoreError

MISSING = -1
"""The id used as padding if fewer than k vectors can be found; its score is minus infinity."""


class Store(Protocol):
    """Vectors by row number. Scores are inner products, which are cosines for unit vectors; higher is better."""

    dim: int

    def add(self, vectors: Vectors) -> None:
        """Append (N, D) float32 unit vectors; their ids continue from `len(self)`, because an id is a gallery row."""

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """The k best rows for each query, best first: ids (Q, k) int64 and scores (Q, k) float32.

        Only rows in `allowed` are returned. The filter is applied before the search, so a rare value still gives k hits
        if it has that many rows. Raises StoreError for a wrong shape or row, or k < 1.
        """

    def vectors(self, ids: Ids) -> Vectors:
        """The stored vectors of these rows, (N, D) float32, as precise as the store keeps them.

        Raises StoreError for a row that does not exist.
        """

    def __len__(self) -> int:
        """Number of vectors."""


def check_added(vectors: Vectors, dim: int) -> Vectors:
    """The vectors as contiguous float32; raises StoreError for a shape that `Store.add` does not accept."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise StoreError(f"vectors must have shape (N, {dim}), not {vectors.shape}.")
    return np.ascontiguousarray(vectors, np.float32)


def check_search(queries: Vectors, k: int, dim: int) -> Vectors:
    """The queries as contiguous float32; raises StoreError for a shape or k that `Store.search` does not accept."""
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise StoreError(f"queries must have shape (Q, {dim}), not {queries.shape}.")
    if k < 1:
        raise StoreError(f"k must be at least 1, not {k}.")
    return np.ascontiguousarray(queries, np.float32)


def check_rows(ids: Ids, size: int) -> Ids:
    """The row numbers as int64; raises StoreError unless each is a row of a store of this size."""
    rows = np.asarray(ids, np.int64)
    if rows.size and not 0 <= rows.min() <= rows.max() < size:
        raise StoreError(f"there are {size} rows, numbered from 0; got rows from {rows.min()} to {rows.max()}.")
    return rows


def check_allowed(ids: Ids, size: int) -> Ids:
    """The row numbers, sorted and without repetition; raises StoreError like `check_rows`."""
    rows = check_rows(ids, size)
    if (rows[1:] > rows[:-1]).all():  # as filters give them
        return rows
    mask = np.zeros(size, bool)  # `np.unique` takes half a second for a million rows, this a few milliseconds
    mask[rows] = True
    return np.flatnonzero(mask)


def others(own: Ids, ids: Ids, *beside: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Remove each query itself from its (Q, k + 1) ids and from the parallel arrays `beside`: (Q, k) each.

    `own` (Q,) is the row of each query, or -1 for none. If a query was not found, its last result is dropped.
    """
    itself = (ids == own[:, None]) & (own[:, None] != MISSING)
    itself[~itself.any(axis=1), -1] = True
    return [found[~itself].reshape(len(own), -1) for found in (ids, *beside)]
