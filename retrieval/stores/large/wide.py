"""A filter that allows many rows of a large index: the allowed rows of the nearest lists are compared exactly.

Probing the lists near a query fails where a filter follows the classes: most of them hold no allowed row. So the
allowed rows are counted by list once, and the lists are taken nearest first until they hold enough of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.stores.base import MISSING
from retrieval.stores.large.rows import Lists

_COMPARED = 8_000  # allowed rows
_OF_CLASSES = 20_000  # where they lie in few lists: most queries are far from all of them, in no clear order
_FEW = 8  # one list in so many


Compare = Callable[[Ids, Vectors, int], tuple[Ids, Floats]]
"""Compares rows (N,) with a query (D,): the best k of them, and their scores."""


class Wide:
    """The rows that a filter allows, by list."""

    def __init__(self, rows: Ids, lists: Lists, centres: Callable[[], Vectors], compare: Compare) -> None:
        """`lists` (N,) is the list of each row of the index, `centres` gives theirs, (L, D)."""
        own = lists[rows]
        counts = np.bincount(own, minlength=len(centres()))
        self._rows = rows[np.argsort(own, kind="stable")]
        self._held = np.flatnonzero(counts)
        self._counts, self._ends = counts[self._held], np.cumsum(counts[self._held])
        self._wanted = _OF_CLASSES if _FEW * len(self._held) <= len(counts) else _COMPARED
        self._few = centres()[self._held] if 2 * len(self._held) <= len(counts) else None
        self._centres, self._compare = centres, compare  # not the centres themselves: the memory is FAISS's

    @property
    def size(self) -> int:
        """Bytes in memory."""
        own = self._rows.nbytes + self._held.nbytes + self._counts.nbytes + self._ends.nbytes
        return int(own if self._few is None else own + self._few.nbytes)

    def search(self, queries: Vectors, k: int) -> tuple[Ids, Floats]:
        """See `Store.search`."""
        ids = np.full((len(queries), k), MISSING, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for number, query in enumerate(queries):
            ids[number], scores[number] = self._one(query, k)
        return ids, scores

    def _one(self, query: Vectors, k: int) -> tuple[Ids, Floats]:
        near = (self._centres() @ query)[self._held] if self._few is None else self._few @ query
        lists = self._nearest(near, max(self._wanted, 4 * k))
        counts = self._counts[lists]
        ends = np.cumsum(counts)
        places = np.repeat(self._ends[lists] - ends, counts) + np.arange(ends[-1])
        return self._compare(self._rows[places], query, k)

    def _nearest(self, near: Any, wanted: int) -> Ids:
        """The nearest lists that hold so many allowed rows together, or all of them."""
        most = len(near) if wanted >= len(self._rows) else 64 + 2 * wanted * len(near) // len(self._rows)
        while True:
            some = np.argpartition(-near, most)[:most] if most < len(near) else np.arange(len(near))
            if most >= len(near) and wanted >= len(self._rows):
                return some
            some = some[np.argsort(-near[some])]
            held = np.cumsum(self._counts[some])
            if held[-1] >= wanted or most >= len(near):
                return np.asarray(some[: np.searchsorted(held, wanted) + 1], np.int64)
            most *= 4
