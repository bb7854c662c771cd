"""A collection of a vector database as the store of one gallery: keys become rows, and no answer is short or foreign.

A database may hold points of other versions, search approximately, and filter by values it was told earlier. So each
answer is compared with the gallery: a key of no row, or of a row that the filter leaves out, is dropped, and if too few
are left, more are asked for, at last all that are allowed.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence

import numpy as np

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.errors import StoreError
from retrieval.forking import Lock
from retrieval.stores.base import MISSING, check_allowed, check_rows, check_search
from retrieval.stores.servers.base import Collection, Tagged
from retrieval.stores.servers.open import open_collection

_EXACT_BELOW = 2_000  # allowed rows that are compared one by one
_MOST_ASKED = 16_384  # points in an answer; Milvus gives no more
_READ = 8_192  # vectors read at a time


class PairedStore:
    """The store of a gallery whose vectors are in a collection; see `retrieval.stores.base.Store`."""

    def __init__(self, uri: str, collection: Collection, keys: Ids, dim: int) -> None:
        """`keys` (N,) int64 are those of the rows, which must all be in the collection, which is at `uri`."""
        self.dim, self.address, self._keys = dim, uri, keys
        self._collection, self._pid, self._opening = collection, os.getpid(), Lock()
        weakref.finalize(self, collection.close).atexit = False
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    @property
    def collection(self) -> Collection:
        """The open collection; a forked child has connections of its own."""
        with self._opening:
            if self._pid != os.getpid():
                self._pid, self._collection = os.getpid(), open_collection(self.address)
            return self._collection

    def add(self, vectors: Vectors) -> None:
        """Raises StoreError: a collection is filled from an artifact."""
        raise StoreError(f"vectors are added to {self.collection.uri} from an artifact: `index DIR --to URI`.")

    def search(
        self, queries: Vectors, k: int, allowed: Ids | None = None, where: Sequence[Tagged] = ()
    ) -> tuple[Ids, Floats]:
        """See `Store.search`; `where` are conditions that every allowed row passes, for the database."""
        queries = check_search(queries, k, self.dim)
        if allowed is not None:
            allowed = check_allowed(allowed, len(self))
        there = len(self) if allowed is None else len(allowed)
        if there <= _EXACT_BELOW:
            return self._exact(queries, k, np.arange(len(self)) if allowed is None else allowed)
        ids, scores = np.full((len(queries), k), MISSING, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        left, asked = np.arange(len(queries)), min(2 * k, _MOST_ASKED)
        while len(left):
            keys, found = self.collection.search(queries[left], asked, where)
            rows = self._rows(keys, allowed)
            order = np.argsort(rows == MISSING, axis=1, kind="stable")[:, :k]  # what is dropped goes to the end
            rows, found = np.take_along_axis(rows, order, axis=1), np.take_along_axis(found, order, axis=1)
            width = rows.shape[1]
            ids[left, :width], scores[left, :width] = rows, np.where(rows == MISSING, -np.inf, found)
            left = left[(ids[left] != MISSING).sum(axis=1) < min(k, there)]
            if len(left) and asked >= min(_MOST_ASKED, len(self)):
                every = np.arange(len(self)) if allowed is None else allowed
                ids[left], scores[left] = self._exact(queries[left], k, every)
                break
            asked = min(4 * asked, _MOST_ASKED)
        return ids, scores

    def vectors(self, ids: Ids) -> Vectors:
        """See `Store.vectors`."""
        rows = check_rows(ids, len(self))
        if not len(rows):
            return np.empty((0, self.dim), np.float32)
        unique, places = np.unique(rows, return_inverse=True)
        parts = [self.collection.vectors(self._keys[unique[at : at + _READ]]) for at in range(0, len(unique), _READ)]
        return np.concatenate(parts)[places]

    def __len__(self) -> int:
        return len(self._keys)

    def _rows(self, keys: Ids, allowed: Ids | None) -> Ids:
        """The row of each key, MISSING for a key of no allowed row."""
        places = np.minimum(np.searchsorted(self._sorted, keys), len(self) - 1)
        rows = np.where(self._sorted[places] == keys, self._order[places], MISSING)
        if allowed is None:
            return rows
        mask = np.zeros(len(self) + 1, bool)  # MISSING is the last one
        mask[allowed] = True
        return np.where(mask[rows], rows, MISSING)

    def _exact(self, queries: Vectors, k: int, allowed: Ids) -> tuple[Ids, Floats]:
        """Compare with all of these rows, a part at a time."""
        best = np.full((len(queries), k), MISSING, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        for at in range(0, len(allowed), _READ):
            rows = allowed[at : at + _READ]
            found, scores = self.collection.compare(queries, self._keys[rows], min(k, len(rows)))
            ids = self._rows(found, None)
            both = np.concatenate([best[0], ids], axis=1), np.concatenate([best[1], scores], axis=1)
            order = np.argsort(-both[1], axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(both[0], order, axis=1), np.take_along_axis(both[1], order, axis=1)
        return best
