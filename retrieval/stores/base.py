"""What every vector store promises; one contract test holds each of them against brute force."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.errors import StoreError

MISSING = -1
"""The id that stands where there are fewer than k vectors to find; its score is minus infinity."""


class Store(Protocol):
    """Vectors by row number. Scores are inner products: cosines, for unit vectors; higher is better."""

    dim: int

    def add(self, vectors: Vectors) -> None:
        """Append (N, D) float32 unit vectors; their ids go on from `len(self)`, since an id is a gallery row."""

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """The k best rows of each query, best first: ids (Q, k) int64 and scores (Q, k) float32.

        `allowed` are the only rows that may be found; the filter is applied before the search, so that a rare
        one still gives k hits where it has as many rows. Raises StoreError for a wrong shape or row, or k < 1.
        """

    def vectors(self, ids: Ids) -> Vectors:
        """The stored vectors of those rows, (N, D) float32, as exact as the store keeps them.

        Raises StoreError for a row that is not there.
        """

    def __len__(self) -> int:
        """How many vectors there are."""


def check_added(vectors: Vectors, dim: int) -> Vectors:
    """The vectors as contiguous float32, or StoreError where their shape breaks the promise of `Store.add`."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise StoreError(f"vectors of shape (N, {dim}) were expected, these are {vectors.shape}.")
    return np.ascontiguousarray(vectors, np.float32)


def check_search(queries: Vectors, k: int, dim: int) -> Vectors:
    """The queries as contiguous float32, or StoreError where shape or k break the promise of `Store.search`."""
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise StoreError(f"queries of shape (Q, {dim}) were expected, these are {queries.shape}.")
    if k < 1:
        raise StoreError(f"k must be at least 1, it is {k}.")
    return np.ascontiguousarray(queries, np.float32)


def check_rows(ids: Ids, size: int) -> Ids:
    """The row numbers as int64, or StoreError where one of them is not a row of a store of that size."""
    rows = np.asarray(ids, np.int64)
    if rows.size and not 0 <= rows.min() <= rows.max() < size:
        raise StoreError(f"there are {size} rows, from 0 on; rows from {rows.min()} to {rows.max()} were asked for.")
    return rows


def check_allowed(ids: Ids, size: int) -> Ids:
    """The row numbers ascending and each once, or StoreError as `check_rows` raises it."""
    mask = np.zeros(size, bool)  # `np.unique` takes half a second for a million rows, this a few milliseconds
    mask[check_rows(ids, size)] = True
    return np.flatnonzero(mask)


def others(own: Ids, ids: Ids, *beside: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """(Q, k + 1) ids found for queries, and what stands beside them, to (Q, k) each without the query itself.

    `own` (Q,) is the row that each query is, or -1 for none. Where a query was not found, the last is left out.
    """
    itself = (ids == own[:, None]) & (own[:, None] != MISSING)
    itself[~itself.any(axis=1), -1] = True
    return [found[~itself].reshape(len(own), -1) for found in (ids, *beside)]
